"""Where the belief of a layer is kept, if not under its own name, and the mark by which rules know it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from varbnn.posteriors import Posterior, mark_belief


def kept(layer: nn.Module, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Each name that has one, and its tensor: under that name, or where a parametrization or pruning has put it."""
    parametrized = layer._modules.get("parametrizations")
    for name in names:
        own = parametrized._modules.get(name) if parametrized is not None else None
        for owner, key in ((layer, name), (layer, f"{name}_orig"), (own, "original")):
            tensor = None if owner is None else {**owner._parameters, **owner._buffers}.get(key)
            if tensor is not None:
                yield name, tensor


def mark(layer: nn.Module, posterior: Posterior) -> None:
    """Mark the parameters of `layer` that hold a belief of `posterior`."""
    for name, parameter in kept(layer, posterior.names):
        if isinstance(parameter, nn.Parameter):
            mark_belief(parameter, posterior, name)


def mark_again(layer: Any, missing: object = None) -> None:
    """Behind the loading of a state, which may put other parameters into the layer and into its parametrizations."""
    mark(layer, layer.posterior)
