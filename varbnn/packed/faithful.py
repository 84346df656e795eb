"""Does a packed program compute what the model does? Asked with two inputs, of the model itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from varbnn.nn.batchnorm import batchnorm_preserved, device_of, real_dtype
from varbnn.nn.draws import evaluating, holding
from varbnn.packed.ensemble import PackedEnsemble
from varbnn.packed.layout import weight_of
from varbnn.packed.trace import Drawn

NEAR = {torch.float32: 1e-2, torch.float64: 1e-2}
"""Relative to the largest output; far above rounding, far below any operation that is missing. Half precisions: 0.1."""


@torch.no_grad()
def unfaithful(model: nn.Module, drawn: Drawn, ensemble: PackedEnsemble, rows: Tensor) -> str | None:
    """What is wrong with `ensemble`, in a sentence; None where its last network answers as `model` with its weights.

    Reading a forward with torch.fx follows one way through it, with a stand-in for the input: code that looks at the
    input's type, for instance, takes another way with a tensor. With signs between layers rounding may turn one input
    over, so both must differ.

    Args:
        model: as it was packed; as it was, afterwards.
        drawn: what the networks are.
        rows: one or two inputs, floating.
    """
    weights: Mapping[nn.Module, Tensor] = drawn.weights
    last = ensemble.num_samples - 1
    found = ensemble(rows.clone())[last]
    dtype = real_dtype(model)
    with evaluating(model), batchnorm_preserved(model):
        for norm, (mean, variance) in drawn.statistics.items():
            norm.running_mean.copy_(mean[last if len(mean) > 1 else 0])  # type: ignore[operator]
            norm.running_var.copy_(variance[last if len(variance) > 1 else 0])  # type: ignore[operator]
        layers = list(weights)
        held = [weight_of(layer, blocks[last]) for layer, blocks in weights.items()]  # type: ignore[arg-type]
        with holding(layers, held):  # type: ignore[arg-type]
            expected = model(rows.to(device_of(model), dtype, copy=True))
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        given = tuple(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
        return _sentence(model, f"{tuple(found.shape)} instead of {given} for {len(rows)} inputs")
    difference = (found.to(expected.device, torch.float64) - expected.double()).abs().flatten(1)
    size = expected.double().abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    error = float((difference.amax(1) / size).amin())
    return _sentence(model, f"outputs that are off by {error:.0%}") if error > NEAR.get(dtype, 0.1) else None


def _sentence(model: nn.Module, what: str) -> str:
    return (
        f"packed, {type(model).__name__} would give {what}: torch.fx reads its forward otherwise than it runs (does it "
        "look at the type of its input, or use a function or module that was replaced?). varbnn.predict runs any model"
    )
