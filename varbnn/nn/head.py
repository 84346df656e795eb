"""Is there a scale behind the last layer of ±1 weights?"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from varbnn.nn.linear import BinaryLinear
from varbnn.nn.scale import Scale

LARGE = 64
"""Sums of fewer values are left alone: one of 64 is as large as 8 of its terms."""

UNSCALED = (nn.Identity, nn.Dropout, nn.Softmax, nn.LogSoftmax)
"""What leaves sums as large as they are, or is hurt by it."""


def unscaled_head(model: nn.Module) -> str | None:
    """What a model that is one sequence of layers lacks at its end, and what to do; else None."""
    sequence = [(name, module) for name, module in _sequence(model, "") if not isinstance(module, UNSCALED)]
    name, last = sequence[-1] if sequence else ("", model)
    before = sequence[-2][1] if len(sequence) > 1 else None
    if not isinstance(last, BinaryLinear) or last.in_features < LARGE or isinstance(before, Scale):
        return None
    rest = "" if not name else f", or leave the layer real: skip=[{name!r}]"
    return (
        f"{name or 'the model'} ({type(last).__name__}) ends in sums of {last.in_features} values times ±1, too large "
        f"for logits, and no ±1 weight makes them smaller. Put nn.BatchNorm1d({last.out_features}) or "
        f"varbnn.nn.Scale({last.out_features}, initial={last.in_features**-0.5:.2g}) behind it{rest}"
    )


def _sequence(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is nn.Sequential:
        for key, child in module._modules.items():
            assert child is not None
            yield from _sequence(child, f"{name}.{key}" if name else key)
    else:
        yield name, module
