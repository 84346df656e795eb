"""Batch-norm statistics of S networks, each its own, in one pass over the data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from varbnn.errors import InputError
from varbnn.nn.batchnorm import Data, batchnorms, forward_with_variance, mixed_batches, refreshable
from varbnn.packed.fuse import fused
from varbnn.packed.norms import MeasuredNorm
from varbnn.packed.program import Program, entering
from varbnn.packed.rows import ROWS, Probe
from varbnn.packed.trace import Drawn, plan
from varbnn.packed.untouched import ONE_AT_A_TIME
from varbnn.progress import progress_bar

WORKING_BYTES = 2**23
"""Of the largest value: so many networks at once that it takes no more."""

Statistics = Mapping[nn.Module, tuple[Tensor, Tensor]]


def now(model: nn.Module) -> Statistics:
    """The running mean and variance that the batch norms of `model` have, (1, C)."""
    with ONE_AT_A_TIME:
        return {norm: _of(norm) for norm in batchnorms(model)}


def measured(
    model: nn.Module, weights: Mapping[nn.Module, Tensor], data: Data, progress: bool
) -> tuple[Statistics, Tensor]:
    """What `varbnn.refresh_batchnorm` finds for each of S networks, in float32 arithmetic; and some of the inputs.

    Args:
        model: not changed.
        weights: blocks (S, …) of every binary layer.
        data: as there.

    Raises:
        InputError: as there.
    """
    parts: list[_Part] = []
    some: Tensor | None = None
    for x in progress_bar(progress, mixed_batches(model, data), desc="batch-norm statistics", leave=False):
        if some is None:
            some = entering(x[:ROWS])
            parts = _parts(model, weights, x)
        for part in parts:
            forward_with_variance(part.program, entering(x))
    assert some is not None
    found = dict(now(model))
    for norm in parts[0].norms:
        pools = [part.norms[norm].pool for part in parts]
        if all(pool.count for pool in pools):
            read = [
                [t.expand(part.num_samples, -1) for t in pool.read()] for part, pool in zip(parts, pools, strict=True)
            ]
            found[norm] = (torch.cat([m for m, _ in read]), torch.cat([v for _, v in read]))
    return found, some


class _Part:
    """A program with some of the networks, whose batch norms measure."""

    def __init__(self, model: nn.Module, weights: Mapping[nn.Module, Tensor]) -> None:
        self.num_samples = len(next(iter(weights.values())))
        self.norms: dict[nn.Module, MeasuredNorm]
        with ONE_AT_A_TIME:
            self.norms = {norm: MeasuredNorm(norm, self.num_samples) for norm in refreshable(model)}
        self.program = Program.of(fused(plan(model, Drawn(weights, now(model), self.norms)), self.num_samples))

    def measuring(self) -> _Part:
        for norm in self.norms.values():
            norm.measures = True
        return self


def _parts(model: nn.Module, weights: Mapping[nn.Module, Tensor], x: Tensor) -> list[_Part]:
    one = _Part(model, {layer: blocks[:1] for layer, blocks in weights.items()})
    inputs = entering(x)
    one.program.require_fit(inputs, x.dtype)
    probe = Probe(one.program.steps, one.program.wires, 1).run(inputs[:ROWS])
    if probe.problem is not None:
        raise InputError(probe.problem)
    bytes_each = max(1, probe.row_bytes * len(x))
    together = max(1, WORKING_BYTES // bytes_each)
    samples = len(next(iter(weights.values())))
    starts = range(0, samples, together)
    cut = [{layer: blocks[s : s + together] for layer, blocks in weights.items()} for s in starts]
    return [_Part(model, own).measuring() for own in cut]


def _of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean.clone().unsqueeze(0), norm.running_var.clone().unsqueeze(0)
