"""Does a packed program compute what the model does? Asked with a few inputs, of the model itself."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from varbnn.nn import Gate, Sign
from varbnn.nn.batchnorm import batchnorm_preserved, batchnorms, device_of, real_dtype
from varbnn.nn.draws import binary_layers, evaluating, holding
from varbnn.packed.ensemble import PackedEnsemble
from varbnn.packed.layout import weight_of
from varbnn.packed.rows import ROWS
from varbnn.packed.trace import Drawn
from varbnn.packed.untouched import ONE_AT_A_TIME, untouched

NEAR = 1e-2
"""Relative to the largest output: far above rounding, and below most that a wrong reading can do."""

MOST = 0.3
"""What rounding may do without signs between layers."""

OF_THE_MODEL = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)
"""What a model's own code raises where it does not like a few inputs, another precision or being copied."""

ROUNDINGS = 10.0
"""A larger difference may be so many times what rounding does to the model itself."""


@torch.no_grad()
def unfaithful(model: nn.Module, drawn: Drawn, ensemble: PackedEnsemble, rows: Tensor) -> str | None:
    """What is wrong with `ensemble`, in a sentence; None where its last network answers as `model` with its weights.

    Reading a forward with torch.fx follows one way through it, with a stand-in for the input: code that looks at the
    input's type, for instance, takes another way with a tensor.

    Args:
        model: as it was packed; as it was, afterwards.
        drawn: what the networks are.
        rows: inputs.
    """
    rows = rows[:ROWS]
    found = ensemble(rows.clone())[-1]
    weights = [drawn.weights[layer][-1] for _, layer in binary_layers(model)]
    try:
        expected = _answer(model, weights, drawn, rows)
    except OF_THE_MODEL as failure:
        return f"{type(model).__name__} fails on {len(rows)} inputs by itself: {str(failure).partition(chr(10))[0]}"
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        given = tuple(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
        return _sentence(model, f"{tuple(found.shape)} instead of {given} for {len(rows)} inputs")
    signs = any(isinstance(module, Sign | Gate) for module in model.modules())
    error = _error(found, expected, signs)
    if error <= NEAR:
        return None
    what = f"outputs that are off by {error:.0%}"
    if error > MOST and not signs:
        return _sentence(model, what)
    try:
        same = torch.equal(expected, _answer(model, weights, drawn, rows))  # else it draws noise, which packing keeps
        with ONE_AT_A_TIME:
            exact = _answer(copy.deepcopy(model).double(), weights, drawn, rows)
    except OF_THE_MODEL:  # it cannot be asked in another precision, so there is no excuse
        return _sentence(model, what)
    if same and exact.shape == expected.shape and error <= ROUNDINGS * _error(expected, exact, signs):
        return None
    return _sentence(model, what)


def _answer(model: nn.Module, weights: Iterable[Tensor], drawn: Drawn, rows: Tensor) -> Tensor:
    """What the last network says, by the model itself or a copy of it."""
    layers = [layer for _, layer in binary_layers(model)]
    with ONE_AT_A_TIME, untouched(model), evaluating(model), batchnorm_preserved(model):
        for norm, (mean, variance) in zip(batchnorms(model), drawn.statistics.values(), strict=True):
            for buffer, value in ((norm.running_mean, mean), (norm.running_var, variance)):
                assert buffer is not None
                buffer.copy_(value[-1])
        held = [weight_of(layer, block) for layer, block in zip(layers, weights, strict=True)]
        with holding(layers, held):
            dtype = real_dtype(model) if rows.is_floating_point() else rows.dtype
            answer: Tensor = model(rows.to(device_of(model), dtype, copy=True))
    return answer


def _error(found: Tensor, expected: Tensor, signs: bool) -> float:
    """The largest relative difference; with signs between layers, which rounding may turn, that of the median row."""
    one, other = (t.detach().to("cpu", torch.float64).reshape(len(t), -1) for t in (found, expected))
    finite = one.isfinite() & other.isfinite()
    if not torch.equal(one.isfinite(), other.isfinite()) or not torch.equal(
        one[~finite].nan_to_num(0.5), other[~finite].nan_to_num(0.5)
    ):
        return float("inf")
    one, other = one.where(finite, 0.0), other.where(finite, 0.0)
    size = max(float(other.abs().max()), torch.finfo(torch.float32).tiny)
    each = (one - other).abs().amax(1) / size
    return float(each.median() if signs else each.max())


def _sentence(model: nn.Module, what: str) -> str:
    return (
        f"packed, {type(model).__name__} would give {what}: torch.fx reads its forward otherwise than it runs (does it "
        "look at the type of its input, or use a function or module that was replaced?). varbnn.predict runs any model"
    )
