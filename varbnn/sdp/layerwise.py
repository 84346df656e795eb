"""Turn a trained float network binary layer by layer, without labels and without training."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from varbnn.checks import whole_number
from varbnn.errors import InputError
from varbnn.nn.batchnorm import Data, as_data, batchnorms, real_dtype, refresh_batchnorm
from varbnn.nn.binarize import TWINS, Skip, parameter_owners, reason_to_stay_real, skipper
from varbnn.progress import progress_bar
from varbnn.sdp import state as states
from varbnn.sdp.arguments import require_draws
from varbnn.sdp.batch import least_squares_batch
from varbnn.sdp.captured import Calibration, inputs_of, order_of_use
from varbnn.sdp.refit import refitted
from varbnn.sdp.report import LayerReport, Report
from varbnn.sdp.rounding import signs

Finished = dict[str, Tensor]
"""Of one layer: signs (P×n, int8); and in float64 scales, objectives, bounds, energies, xnor, shifts, rows, seconds.
Of a layer that stays real: weight and bias."""


@dataclass(frozen=True)
class _Place:
    """Where a layer stands in the order of use, how many rows it sees, and whether it becomes binary."""

    number: int
    count: int
    binary: bool


def binarize_layerwise(
    model: nn.Module,
    calibration: Data,
    *,
    skip: Skip = (),
    inputs: Literal["binary", "float"] = "binary",
    refit: bool = True,
    method: str = "auto",
    tolerance: float = 0.02,
    num_roundings: int = 100,
    max_rows: int = 4096,
    state: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[nn.Module, Report]:
    """A copy of `model` whose linear and convolution layers have weights α · ±1, with proved bounds of what that costs.

    Layer by layer, in the order in which the model uses them: for each neuron the signs and the one scale α with which
    its outputs on the calibration inputs come nearest to those of the float layer, by `least_squares_batch`. A bias is
    fitted with them; batch-norm statistics are re-estimated after every layer.

    Args:
        model: trained, real; unchanged.
        calibration: inputs, as a tensor or array or as a loader that can be gone through again and again in one order.
        skip: layers to leave real, as `varbnn.binarize` takes them.
        inputs: each layer sees what the ``"binary"`` layers before it give, so that it makes up for their errors, or
            what the ``"float"`` model gives.
        refit: fit skipped layers behind binary ones again to the outputs that they had, by least squares; not with
            ``inputs="float"``.
        method, tolerance, num_roundings, seed: of `least_squares_batch`; ``"descent"`` is fastest and bounds nothing.
        max_rows: inputs of a layer (examples × positions) taken into account, at random if there are more.
        state: file to write after every layer and to go on from when it is there; a resumed run ends as an
            uninterrupted one.
        progress: show bars, where there is a terminal or a notebook.

    Returns:
        The network, plain torch layers (`with_sign_layers` gives one to pack), and a report per layer and neuron.
        Interrupted (Ctrl-C), the layers that were finished are binary and the report is not `complete`.

    Raises:
        InputError: no layer can be made binary, calibration inputs that are empty or have NaN, a loader that can be
            gone through only once or that shuffles, an unknown option.
        CheckpointError: `state` belongs to another run, or cannot be written.

    >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> binary, report = binarize_layerwise(net, torch.randn(100, 8), progress=False)
    >>> [layer.name for layer in report.layers], bool(report["0"].bound <= report["0"].error)
    (['0', '2'], True)
    """
    if inputs not in ("binary", "float"):
        raise InputError(f"inputs must be 'binary' or 'float', got {inputs!r}")
    max_rows = whole_number("max_rows", max_rows)
    num_roundings, seed, tolerance = require_draws(num_roundings, seed, tolerance)
    data = _repeatable(model, calibration)
    layers, skipped, left_real = _layers(model, skip)
    counts = order_of_use(model, layers | skipped, data)
    left_real |= {name: "not used by the model" for name in layers if name not in counts}
    places = _places(counts, layers, refit and inputs == "binary")
    left_real |= {name: "skipped, fitted again" for name in places if name in skipped}
    options = (inputs, method, tolerance, num_roundings, max_rows, seed)
    path = None if state is None else Path(state)
    belongs_to = _fingerprint(model, list(places), data.digest, options)
    finished: dict[str, Finished] = {}
    if path is not None:
        finished = states.load(path, belongs_to) if path.exists() else {}
        states.save(path, belongs_to, finished)  # better to hear now that it cannot be written to than after a layer
    binary, refresh = copy.deepcopy(model), bool(batchnorms(model))
    reports: list[LayerReport] = []
    complete = True
    with progress_bar(progress, total=len(places), unit="layer") as bar:
        for name, place in places.items():
            bar.set_postfix_str(name)
            try:
                if name not in finished:
                    one = _finish(model, binary, name, data, place, options, progress)
                    if one is None:
                        complete = False
                        break
                    finished[name] = one
                _write(binary.get_submodule(name), finished[name])
                if refresh:
                    refresh_batchnorm(binary, data.data)
            except KeyboardInterrupt:
                complete = False
                break
            if name in layers:
                reports.append(_reported(name, model.get_submodule(name), finished[name]))
            if path is not None:
                states.save(path, belongs_to, finished)
            bar.update()
    return binary, Report(tuple(reports), left_real, complete)


def _finish(
    model: nn.Module, binary: nn.Module, name: str, data: Calibration, place: _Place,
    options: tuple[str, str, float, int, int, int], progress: bool,
) -> Finished | None:  # fmt: skip
    """Signs and scales of one layer, or its weight where it stays real; None where it was interrupted."""
    began = time.perf_counter()
    source, method, tolerance, num_roundings, max_rows, seed = options
    layer = model.get_submodule(name)
    generator = np.random.default_rng([seed, place.number])
    kept = torch.from_numpy(np.sort(generator.choice(place.count, min(place.count, max_rows), replace=False)))
    real = inputs_of(model, layer, data, kept)
    seen = inputs_of(binary, binary.get_submodule(name), data, kept) if source == "binary" else real
    if not place.binary:
        return refitted(layer, real, seen)
    weight = layer.get_parameter("weight").detach().double().cpu()
    groups = len(real)
    parts, fits_bias = [], layer._parameters.get("bias") is not None
    for group, weights in enumerate(weight.reshape(groups, len(weight) // groups, -1)):
        x, y = seen[group].numpy(), (real[group] @ weights.T).numpy()
        first = signs(weights.numpy())
        xnor = y - (x @ first.T) * weights.abs().mean(1).numpy()
        energies, middle, mean = (y * y).sum(0), np.zeros(x.shape[1]), np.zeros(y.shape[1])
        if fits_bias:  # it takes up the mean of what is left, whatever the weights
            middle, mean = x.mean(0), y.mean(0)
            x, y = np.where(np.ptp(x, 0) == 0, 0.0, x - middle), y - mean
        solved = least_squares_batch(
            x, y, method=method, tolerance=tolerance, num_roundings=num_roundings, starts=first, seed=seed,
            progress=progress,
        )  # fmt: skip
        if not solved.complete.all():
            return None
        shifts = mean - solved.scales * (solved.weights @ middle)
        columns = (solved.scales, solved.objectives, solved.lower_bounds, energies, (xnor * xnor).sum(0), shifts)
        parts.append((solved.weights, *columns))
    joined = [torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)]
    names = ("signs", "scales", "objectives", "bounds", "energies", "xnor", "shifts")
    done = dict(zip(names, joined, strict=True))
    done["signs"] = done["signs"].to(torch.int8)
    done["rows"] = torch.tensor([float(len(kept))], dtype=torch.float64)
    done["seconds"] = torch.tensor([time.perf_counter() - began], dtype=torch.float64)
    return done


@torch.no_grad()
def _write(layer: nn.Module, done: Finished) -> None:
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    if "weight" in done:
        weight.copy_(done["weight"])
        if bias is not None:
            bias.copy_(done["bias"])
        return
    values = done["signs"].double() * done["scales"][:, None]
    weight.copy_(values.reshape(weight.shape))
    if bias is not None:
        bias.add_(done["shifts"].to(bias))


def _reported(name: str, layer: nn.Module, done: Finished) -> LayerReport:
    objectives, bounds, energies, xnor, scales = (
        done[key].numpy() for key in ("objectives", "bounds", "energies", "xnor", "scales")
    )
    return LayerReport(
        name, type(layer).__name__, objectives, bounds, energies, xnor, scales, int(done["rows"]),
        float(done["seconds"]),
    )  # fmt: skip


def _layers(model: nn.Module, skip: Skip) -> tuple[dict[str, nn.Module], dict[str, nn.Module], dict[str, str]]:
    """By name, the layers to make binary, those that were asked to be skipped, and why others are not binary."""
    is_skipped, owners = skipper(model, skip), parameter_owners(model)
    chosen: dict[str, nn.Module] = {}
    skipped: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        if not any(isinstance(module, kind) for kind in TWINS):
            continue
        reason = reason_to_stay_real(module, owners)
        if reason is not None:
            left[name] = reason
            continue
        finite = bool(torch.isfinite(module.get_parameter("weight")).all())
        if is_skipped(name, module):
            left[name] = "skipped"
            if finite:
                skipped[name] = module
        elif not finite:
            raise InputError(f"the weight of {name or type(module).__name__} has NaN or infinite entries")
        else:
            chosen[name] = module
    if not chosen:
        raise InputError(
            f"{type(model).__name__} has no layer to make binary; known are {', '.join(t.__name__ for t in TWINS)}"
        )
    return chosen, skipped, left


def _places(counts: dict[str, int], layers: dict[str, nn.Module], refit: bool) -> dict[str, _Place]:
    """What is to be done, in the order of use; before the first binary layer there is nothing to make up for."""
    places: dict[str, _Place] = {}
    for number, (name, count) in enumerate(counts.items()):
        if name in layers or (refit and places):
            places[name] = _Place(number, count, name in layers)
    return places


def _repeatable(model: nn.Module, calibration: Data) -> Calibration:
    if isinstance(calibration, Iterator):
        raise InputError("calibration is gone through for every layer; give a tensor, a list of batches or a loader")
    calibration = as_data(calibration, "calibration", model)
    if isinstance(calibration, Tensor) and calibration.numel() == 0:
        raise InputError(f"calibration is empty, shape {tuple(calibration.shape)}")
    return Calibration(calibration, real_dtype(model))


def _fingerprint(model: nn.Module, names: list[str], data: str, options: tuple[object, ...]) -> str:
    digest = hashlib.sha256(json.dumps([names, data, options]).encode())
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:  # of a module's get_extra_state
            digest.update(repr(value).encode())
    return digest.hexdigest()
