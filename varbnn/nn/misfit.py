"""What the belief of a layer must be: at the start, and in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.errors import CheckpointError, InputError
from varbnn.posteriors import Posterior

Belief = tuple[Tensor, ...]


def refuse_misfit(layer: nn.Module, posterior: Posterior, state: Mapping[str, Any], prefix: str) -> None:
    """Raise CheckpointError if `state` holds something else than a belief of `posterior` in `layer` under `prefix`."""
    names = posterior.names
    where = f"{prefix.rstrip('.') or 'this layer'} ({type(layer).__name__})"
    wanted = ", ".join(names)
    if prefix + "weight" in state:
        raise CheckpointError(
            f"{where} keeps a belief over ±1 weights ({wanted}), but the checkpoint has real weights ({prefix}weight). "
            "Load it into the real model first, then start the belief from it: varbnn.binarize(model, strength=1.0)."
        )
    known = {*layer._parameters, *layer._buffers}
    here = [key.removeprefix(prefix) for key in state if key.startswith(prefix)]
    other = [name for name in here if "." not in name and name not in known]
    if other and any(name not in here for name in names):
        raise CheckpointError(
            f"{where} has the posterior {posterior!r} ({wanted}), but the checkpoint has {other[0]}. "
            "Binarize the model with the posterior the checkpoint was saved from."
        )
    for name in names:
        saved, own = state.get(prefix + name), getattr(layer, name)
        if saved is None:
            continue
        if not isinstance(saved, Tensor):
            raise CheckpointError(f"{where}: the checkpoint's {name} is a {type(saved).__name__} and no tensor")
        if saved.shape != own.shape:
            raise CheckpointError(f"{where}: {name} has shape {tuple(own.shape)}, the checkpoint {tuple(saved.shape)}")
        if not saved.is_meta and not bool(torch.isfinite(saved).all()):
            raise CheckpointError(f"{where}: the checkpoint's {name} has NaN or infinite entries; nothing was loaded")


def require_posterior(posterior: object) -> None:
    """Raise InputError unless `posterior` is one, or None."""
    if posterior is not None and not isinstance(posterior, Posterior):
        raise InputError(f"posterior must be a varbnn posterior such as Bernoulli(), got {posterior!r}")


def first_belief(layer: nn.Module, posterior: Posterior, start: Callable[[Tensor], Belief]) -> Belief:
    """The belief that `start` gives for the weight of a layer, which is not changed.

    Raises:
        InputError: it is no belief of `posterior`.
    """
    weight = layer.get_parameter("weight")
    real = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    values = start(real)
    require_belief(posterior, values, real)
    return values


def require_belief(posterior: Posterior, values: Any, weight: Tensor) -> None:
    """Raise InputError unless `values` are what a posterior that starts with `weight` must give."""
    names = (*posterior.names, *posterior.buffer_names)
    shapes = [tuple(value.shape) for value in values] if isinstance(values, tuple) else []
    if len(shapes) != len(names) or shapes[0] != tuple(weight.shape):
        given = f"a tuple of shapes {shapes}" if isinstance(values, tuple) else f"a {type(values).__name__}"
        raise InputError(
            f"{type(posterior).__name__}.initial and from_weight must give a tuple of {len(names)} "
            f"({', '.join(names)}), the first shaped like the weight, {tuple(weight.shape)}; got {given}"
        )
