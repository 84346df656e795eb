"""A checkpoint that holds something else than the beliefs of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from varbnn.errors import CheckpointError
from varbnn.posteriors import Posterior


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
        if saved.shape != own.shape:
            raise CheckpointError(f"{where}: {name} has shape {tuple(own.shape)}, the checkpoint {tuple(saved.shape)}")
        if not saved.is_meta and not bool(torch.isfinite(saved).all()):
            raise CheckpointError(f"{where}: the checkpoint's {name} has NaN or infinite entries; nothing was loaded")
