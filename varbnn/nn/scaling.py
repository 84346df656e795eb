"""Is there what keeps sums of ±1 weights small: a normalisation behind hidden layers, a scale at the end?"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from varbnn.nn.draws import binary_layers
from varbnn.nn.linear import BinaryLinear
from varbnn.nn.scale import Scale

LARGE = 64
"""Sums of fewer values are left alone: one of 64 is as large as 8 of its terms."""

UNSCALED = (nn.Identity, nn.Dropout, nn.Softmax, nn.LogSoftmax)
"""What leaves sums as large as they are, or is hurt by it."""


def unnormalised(model: nn.Module) -> str | None:
    """What to do where sums grow from one binary layer to the next; None where a norm or a `Scale` for each is seen."""
    layers = [layer for _, layer in binary_layers(model)]
    most = max((layer.belief[0][0].numel() for layer in layers if layer.belief[0].numel()), default=0)
    normed = any("norm" in type(module).__name__.lower() for module in model.modules())
    scales = sum(isinstance(module, Scale) for module in model.modules())
    if most < LARGE or normed or scales >= len(layers) or (len(layers) == 1 and unscaled_head(model) is not None):
        return None
    return (
        f"no layer normalises: binary layers give sums of up to {most} values times ±1, and where these reach the next "
        "layer as they are, posteriors collapse within a few steps. Put a BatchNorm or LayerNorm behind every hidden "
        "binary layer; a scale or a real layer at the end alone does not help"
    )


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
