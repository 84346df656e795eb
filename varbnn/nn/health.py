"""Is the posterior alive? Entropy, saturation, divergence and flips of a model's beliefs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from varbnn.errors import InputError, VarbnnWarning
from varbnn.nn.draws import beliefs_of, gathered
from varbnn.nn.flips import differing, packed_modes
from varbnn.nn.layer import BinaryLayer

COLLAPSED = 0.01
"""Below this many bits per weight, draws hardly differ and their spread says nothing about uncertainty."""

AT_PRIOR = 0.005
"""Below this divergence from the prior, in bits per weight, nothing was learned."""

STILL = 0.01
"""Below this divergence few flips say the same: the default start has 0.007, and what learns leaves it at once."""

FEW_FLIPS = 1e-3
"""Of the weights, since the last call."""

SATURATED = 0.01
"""A weight counts as saturated below this many bits (a chance under 0.1 % of drawing the other sign)."""

OF_TORCH = (
    "; an optimizer of torch has no temperature: raise its lr, or multiply the loss by dataset_size / temperature "
    "(docs/training.md)"
)
"""The end of a warning, for those who do not train by a rule."""


@dataclass(frozen=True)
class Health:
    """The state of a model's beliefs.

    Attributes:
        weights: number of binary weights.
        entropy_bits: mean entropy per weight, in bits: 0 is a point, 1 a fair coin.
        saturated: share of weights whose entropy is below 0.01 bit.
        kl: mean divergence per weight from the prior, in nats; NaN for a model of points (`Point`, or rank 0 of
            `LowRankGaussian`).
        flips: modes that changed sign since the last call of `health` on this model; None at the first call.
        layer_entropy_bits: mean entropy per weight of each binary layer.
        warning: what is wrong and what to change, or None.
    """

    weights: int
    entropy_bits: float
    saturated: float
    kl: float
    flips: int | None
    layer_entropy_bits: dict[str, float]
    warning: str | None


@torch.no_grad()
def health(model: nn.Module, *, prior: Sequence[Tensor] | None = None, warn: bool = True) -> Health:
    """Measure how sure the beliefs of `model` are, and warn if they have collapsed or never left the prior.

    Layers that are tied by one belief count as one, under the name of the first.

    Args:
        model: with binary layers.
        prior: one tensor per belief parameter in the order of the layers, such as `varbnn.as_prior` of yesterday's
            model; absent means fair coins.
        warn: issue a `VarbnnWarning` when the posterior is not alive. Models of points never warn.

    Raises:
        InputError: no binary layer, a belief with NaN or infinite entries, a prior that is no row of tensors or has
            others than the beliefs.

    >>> import varbnn as vb
    >>> state = health(vb.binarize(nn.Linear(100, 100)))
    >>> 0.99 < state.entropy_bits < 1, state.flips is None
    (True, True)
    """
    layers = [layer for _, layer in beliefs_of(model)]
    state, modes = health_since(model, [layer._last_mode for layer in layers], prior)
    for layer, mode in zip(layers, modes, strict=True):
        layer._last_mode = mode
    if state.warning is not None and warn:
        warnings.warn(state.warning, VarbnnWarning, stacklevel=3)  # past torch.no_grad
    return state


@torch.no_grad()
def health_since(
    model: nn.Module, modes: Sequence[Tensor | None], prior: Sequence[Tensor] | None = None
) -> tuple[Health, list[Tensor]]:
    """As `health`, without its memory: flips are counted from `modes`, and those of now come back too.

    Args:
        modes: of each belief as `packed_modes` gives them, or None where there are none yet.
    """
    layers = beliefs_of(model)
    if not layers:
        raise InputError(f"{type(model).__name__} has no binary layer; call varbnn.binarize first")
    priors = [None] * len(layers) if prior is None else _by_layer(prior, layers)
    now = packed_modes(model)
    flips = _flips(modes, now)
    weights, nats, saturated, divergence, by_layer = 0, 0.0, 0, 0.0, {}
    for (name, layer), own in zip(layers, priors, strict=True):
        belief = [gathered(tensor) for tensor in layer.belief]
        entropy, divergences = layer.posterior.entropy(*belief), layer.posterior.kl(*belief, prior=own)
        weights += entropy.numel()
        nats += float(entropy.sum(dtype=torch.float64))
        saturated += int((entropy < SATURATED * math.log(2)).sum())
        divergence += float(divergences.sum(dtype=torch.float64))
        by_layer[name] = float(entropy.mean(dtype=torch.float64)) / math.log(2) if entropy.numel() else 0.0
    points = all(layer.posterior.certain for _, layer in layers)
    entropy_bits = nats / max(weights, 1) / math.log(2)
    kl = math.nan if points else divergence / max(weights, 1)
    flip_share = None if flips is None else flips / max(weights, 1)
    warning = None if points else _diagnose(entropy_bits, kl / math.log(2), flip_share)
    return Health(weights, entropy_bits, saturated / max(weights, 1), kl, flips, by_layer, warning), now


def _by_layer(prior: Sequence[Tensor], layers: list[tuple[str, BinaryLayer]]) -> list[tuple[Tensor, ...]]:
    count = sum(len(layer.posterior.names) for _, layer in layers)
    if not isinstance(prior, Sequence) or not all(isinstance(tensor, Tensor) for tensor in prior):
        given = repr(prior) if isinstance(prior, int | float) else f"a {type(prior).__name__}"
        raise InputError(
            f"prior must be a list of tensors, one per belief ({count} here; see varbnn.as_prior), or None for fair "
            f"coins, got {given}"
        )
    if len(prior) != count:
        raise InputError(
            f"prior has {len(prior)} tensors for {count} beliefs in {len(layers)} binary layers; see varbnn.as_prior"
        )
    rest, split = iter(prior), []
    for name, layer in layers:
        split.append(tuple(gathered(next(rest)) for _ in layer.posterior.names))
        for own, belief in zip(split[-1], layer.belief, strict=False):  # belief has the buffers too
            if own.shape != belief.shape:
                where = f"{tuple(own.shape)}, its belief {tuple(belief.shape)}"
                raise InputError(f"the prior of layer {name!r} has shape {where}")
    return split


def _flips(before: Sequence[Tensor | None], now: Sequence[Tensor]) -> int | None:
    flips = 0
    for one, other in zip(before, now, strict=True):
        if one is None or one.shape != other.shape:
            return None
        flips += differing(one, other)
    return flips


def _diagnose(entropy_bits: float, kl_bits: float, flip_share: float | None) -> str | None:
    if entropy_bits < COLLAPSED:
        return (
            f"the posterior has collapsed to {entropy_bits:.4f} bit per weight, so draws hardly differ: raise the "
            "temperature, start nearer to 0 (init_scale), or use estimator='straight-through'"
        )
    still = kl_bits < STILL and flip_share is not None and flip_share < FEW_FLIPS
    if kl_bits < AT_PRIOR or still:
        return (
            f"the posterior has hardly left the prior ({kl_bits:.4f} bit per weight from it): lower the temperature, "
            f"raise lr, or train longer (lr · steps should be well above 1){OF_TORCH}"
        )
    return None
