"""All networks at once as bits, instead of one float network after the other: when, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain

import torch
from torch import Tensor, nn

from varbnn.errors import InputError
from varbnn.kernels.backend import active_backend
from varbnn.nn.batchnorm import Data
from varbnn.nn.draws import binary_layers
from varbnn.packed import PackedEnsemble, draw_packed, objection
from varbnn.packed.program import is_numeric
from varbnn.packed.rows import ROWS
from varbnn.predict.inputs import RepeatedInputs
from varbnn.progress import progress_bar

FASTER_LEVELS = frozenset({"avx2", "avx512"})
"""Compiled kernels that beat torch's float products."""

LEAST_CHANNELS = 16
"""Outputs in a group of a convolution: packed, a group takes the room of so many (depthwise: 22 times the loop)."""

LEAST_NETWORKS = 8
LEAST_WEIGHTS = 2**20
"""Binary weights of all networks together. Reading the model and the first look at its rows take about 6 ms: with 2
networks of 84,480 weights packing takes 2 to 5 times as long as the loop, with 32 of them it is 1.0 to 2.7 times as
fast."""


def reason_for_loop(model: nn.Module, num_samples: int, device: torch.device) -> str | None:
    """Why the networks are asked one by one; None where they are packed."""
    if device.type != "cpu" or any(p.device.type != "cpu" for p in model.parameters()):
        return "not on the CPU"
    if active_backend() not in FASTER_LEVELS:
        return f"{active_backend()} is not faster"
    if num_samples < LEAST_NETWORKS:
        return f"fewer than {LEAST_NETWORKS} networks"
    weights = num_samples * sum(layer.belief[0].numel() for _, layer in binary_layers(model))
    if weights < LEAST_WEIGHTS:
        return f"{weights} weights are too few"
    others = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if others:
        return f"the model computes in {' and '.join(map(str, others))}"
    if any(_thin(layer) for _, layer in binary_layers(model)):
        return f"convolutions with fewer than {LEAST_CHANNELS} outputs in a group"
    return objection(model)


def _thin(layer: nn.Module) -> bool:
    groups: int = getattr(layer, "groups", 1)
    outputs: int = getattr(layer, "out_channels", 0)
    return groups > 1 and outputs // groups < LEAST_CHANNELS


def packed_outputs(
    model: nn.Module,
    inputs: RepeatedInputs,
    num_samples: int,
    refresh_bn: Data | None,
    generator: torch.Generator | None,
    read: Callable[[Tensor, int], Tensor],
    progress: bool,
) -> Tensor | None:
    """What `num_samples` networks say, S×N×…; None, with the generator put back, if the first inputs cannot be packed.

    Args:
        read: makes of the outputs for that many inputs what is kept of them; networks and inputs are one dimension.
    """
    source = torch.default_generator if generator is None else generator
    before = source.get_state()
    batches = inputs.one_pass()
    first = next(batches)
    ensemble = None
    if first.dtype == torch.float32 or (is_numeric(first) and not first.is_floating_point()):
        with suppress(InputError):  # refused; the loop answers, or says what is wrong with the data
            ensemble = draw_packed(model, num_samples, refresh_bn, generator, rows=first[:ROWS])
    if ensemble is None:
        source.set_state(before)
        inputs.forget()
        return None
    return outputs_of(ensemble, inputs, chain([first], batches), read, progress)


def outputs_of(
    ensemble: PackedEnsemble,
    inputs: RepeatedInputs,
    batches: Iterable[Tensor],
    read: Callable[[Tensor, int], Tensor],
    progress: bool,
) -> Tensor:
    """What all networks of `ensemble` say about the batches of `inputs`, S×N×…; `read` as of `packed_outputs`."""
    num_samples = ensemble.num_samples
    results: list[Tensor] = []  # first one for all that there should be, then what found no room in it
    room, filled = inputs.expected, 0
    for x in progress_bar(progress, batches, desc="batches for all sampled networks", leave=False):
        logits = ensemble(x)
        values = read(logits.flatten(0, 1), num_samples * len(x)).unflatten(0, (num_samples, len(x)))
        if not results:
            results = [values.new_empty(num_samples, room, *values.shape[2:])]
        if len(results) == 1 and filled + len(x) <= room:
            results[0][:, filled : filled + len(x)] = values
            filled += len(x)
        else:
            results.append(values)
    inputs.check_again()
    if filled == room and len(results) == 1:
        return results[0]
    return torch.cat([results[0][:, :filled], *results[1:]], 1)
