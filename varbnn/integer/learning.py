"""Training: one step in integers, and the loop around it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from varbnn import saving
from varbnn.checks import described, optional_generator, whole_number
from varbnn.errors import CheckpointError, InputError
from varbnn.integer.arithmetic import LARGEST_ERROR, margin_errors, matmul, require_exact, shifted, signs
from varbnn.integer.network import IntegerNetwork, require_network
from varbnn.progress import progress_bar

LARGEST_SHIFT = 24


@torch.no_grad()
def step(
    network: IntegerNetwork, codes: Tensor, labels: Tensor, shift: int, generator: torch.Generator | None = None
) -> Tensor:
    """One training step; everything in it is an integer.

        forward    z = W a - threshold,  a' = sign(z),  W the signs of the counters, or a draw (`spread`)
        error      of the scores: the margin loss; below: Wᵀ error, 0 where |z| > reach, shifted, cut off at ±7
        update     counter += error aᵀ, summed over the batch, shifted by `shift`; cut off at the ends
                   threshold += (mean of z over the batch) / 4, rounded down

    What is shifted is rounded at random such that the mean is exact.

    Args:
        network: changed in place.
        codes: int8, B×inputs of ±1.
        labels: B integers, 0 … classes - 1.
        shift: how many bits an update loses, 0 to 24: the learning rate is 2^-shift.
        generator: of all draws; torch's global one when absent.

    Returns:
        The scores from before the step under the weights that it used, int32 B×classes.

    Raises:
        InputError: another module, an empty batch, codes or labels that do not fit, a shift out of range, a generator
            that is none, or a batch so large that products are not exact; nothing is changed then.

    >>> network = IntegerNetwork([4, 8, 3])
    >>> codes = torch.tensor([[1, -1, 1, 1], [-1, -1, 1, -1]], dtype=torch.int8)
    >>> step(network, codes, torch.tensor([0, 2]), shift=2).shape
    torch.Size([2, 3])
    """
    _require_batch(network, codes, labels, shift)
    labels = labels.long()
    layers, weights = network.counters, network.drawn(generator)
    outputs = network.outputs(codes, weights)
    inputs = [codes, *(signs(output) for output in outputs[:-1])]
    error = margin_errors(outputs[-1], labels, network.margin)
    for depth in reversed(range(len(layers))):
        layer = layers[depth]
        update = shifted(matmul(error.T, inputs[depth], network.products), shift, generator)
        if depth:
            below = matmul(error, weights[depth], network.products)
            below *= outputs[depth - 1].abs() <= layers[depth - 1].reach
            error = shifted(below, layer.error_shift, generator).clamp_(-LARGEST_ERROR, LARGEST_ERROR)
        layer.counter.copy_((layer.counter + update).clamp_(*layer.ends))
        if layer.threshold is not None:
            layer.threshold += outputs[depth].sum(0).div(4 * len(codes), rounding_mode="floor").to(torch.int32)
    return outputs[-1]


def fit(
    network: IntegerNetwork,
    loader: Iterable[Any],
    *,
    epochs: int,
    shifts: tuple[int, int] = (2, 6),
    generator: torch.Generator | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    label: str = "",
) -> list[dict[str, float]]:
    """Train on `loader`, step by step, the shift growing from the first to the last.

    Args:
        network: trained in place.
        loader: yields (codes, labels), every epoch anew.
        epochs: passes over the loader, in all (a resumed run counts the earlier ones).
        shifts: first and last; each shift between them has an equal share of the epochs. With fewer epochs than shifts
            some are left out, the last too.
        generator: of draws and rounding; torch's global one when absent.
        progress: show a bar with shift, accuracy and flips.
        checkpoint: file to write after every epoch and to continue from when it is there; a resumed run ends in the
            same bits as the uninterrupted one. It goes on with the same settings only; that the loader gives the same
            batches is not checked.
        label: in front of the bar.

    Returns:
        One row per epoch: epoch, shift, seconds, accuracy (of the weights that trained, before each step) and flips
        (weights that changed sign over the epoch).

    Raises:
        InputError: another module, a number out of range, a generator that is none, a batch that `step` refuses, or a
            loader that yields nothing.
        CheckpointError: `checkpoint` cannot be read, is in no folder that is there, or is of another network or of
            other settings; nothing is loaded then.

    >>> network = IntegerNetwork([4, 8, 3])
    >>> batch = torch.ones(2, 4, dtype=torch.int8), torch.tensor([0, 2])
    >>> [row["shift"] for row in fit(network, [batch], epochs=4, shifts=(2, 3), progress=False)]
    [2, 2, 3, 3]
    """
    require_network(network)
    optional_generator(generator)
    epochs = whole_number("epochs", epochs)
    first, last = _shifts(shifts)
    settings = {"widths": network.widths, "bits": network.bits, "spread": network.spread}
    run = _Run(network, loader, generator, settings | {"epochs": epochs, "shifts": (first, last)})
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        saving.require_folder(path)
    history = run.load(path) if path is not None and path.exists() else []
    with progress_bar(progress, total=epochs, initial=len(history), desc=label, unit="epoch") as bar:
        for epoch in range(len(history), epochs):
            shift = first + (last - first + 1) * epoch // epochs
            history.append({"epoch": epoch + 1, "shift": shift, **_epoch(network, loader, shift, generator)})
            if path is not None:
                run.save(path, history)
            row = history[-1]
            bar.set_postfix({"shift": str(shift), "acc": f"{row['accuracy']:.2%}", "flips": f"{row['flips']:,}"})
            bar.update()
    return history


def _epoch(
    network: IntegerNetwork, loader: Iterable[Any], shift: int, generator: torch.Generator | None
) -> dict[str, float]:
    start, seen, correct = time.perf_counter(), 0, 0
    before = [layer.mode() for layer in network.counters]
    device = before[0].device
    for batch in loader:
        pair = isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)
        if not pair:
            raise InputError(f"the loader must yield (codes, labels), two tensors, got {type(batch).__name__}")
        codes, labels = (tensor.to(device) for tensor in batch)
        scores = step(network, codes, labels, shift, generator)
        correct += int((scores.argmax(1) == labels.long()).sum())
        seen += len(codes)
    if seen == 0:
        raise InputError("the loader yielded no batch to train on; is it a generator that was used up?")
    flips = sum(int((layer.mode() != old).sum()) for layer, old in zip(network.counters, before, strict=True))
    return {"seconds": time.perf_counter() - start, "accuracy": correct / seen, "flips": flips}


def _require_batch(network: IntegerNetwork, codes: Tensor, labels: Tensor, shift: int) -> None:
    require_network(network)
    network.require_codes(codes)
    if len(codes) == 0:
        raise InputError(f"the batch is empty, codes have shape {tuple(codes.shape)}; skip it")
    dense = isinstance(labels, Tensor) and labels.layout is torch.strided and labels.shape == (len(codes),)
    if not dense or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"labels must be {len(codes)} integers, a tensor, got {described(labels)}")
    classes, low, high = network.widths[-1], int(labels.long().min()), int(labels.long().max())
    if low < 0 or high >= classes:
        raise InputError(f"labels must be 0 … {classes - 1}, the network's classes, got {low} … {high}")
    whole_number("shift", shift, 0, LARGEST_SHIFT)
    require_exact(len(codes), LARGEST_ERROR, network.products, f"updates by {len(codes):,} examples")


def _shifts(shifts: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(shifts, Sequence) or len(shifts) != 2:
        raise InputError(f"shifts must be two, the first and the last, got {shifts!r}")
    first, last = (whole_number("shifts", shift, 0, LARGEST_SHIFT) for shift in shifts)
    if first > last:
        raise InputError(f"shifts must not fall, got {shifts!r}: a larger one is a smaller step")
    return first, last


class _Run:
    """Everything a run needs to go on as if it had never stopped."""

    def __init__(
        self,
        network: IntegerNetwork,
        loader: Iterable[Any],
        generator: torch.Generator | None,
        settings: dict[str, Any],
    ) -> None:
        self.network, self.settings = network, settings
        self.generators = saving.generators_of(loader) | ({} if generator is None else {"own": generator})

    def save(self, path: Path, history: list[dict[str, float]]) -> None:
        states = {name: generator.get_state() for name, generator in self.generators.items()}
        parts = {"network": self.network.state_dict(), "settings": self.settings, "history": history}
        saving.save(path, parts | {"generators": states, **saving.random_state()})

    def load(self, path: Path) -> list[dict[str, float]]:
        keys = {"network", "settings", "history", "generators", "rng"}
        state = saving.read(path, "varbnn.integer.fit", keys)
        for name, value in self.settings.items():
            if state["settings"].get(name) != value:
                raise CheckpointError(
                    f"{path} was begun with {name}={state['settings'].get(name)}, this run has {value}; go on with the "
                    "same, or move it away to start afresh"
                )
        if state["generators"].keys() != self.generators.keys():
            raise CheckpointError(
                f"{path} was begun with generators of {sorted(state['generators'])}, this run has "
                f"{sorted(self.generators)}; go on with the same"
            )
        saving.restore(path, {"network": self.network}, state, self.generators)
        saving.set_random_state(state)
        history: list[dict[str, float]] = state["history"]
        return history
