"""Draws for training: by the compiled operation where it may be used and pays, by torch's own noise elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from varbnn.checks import given_noise
from varbnn.kernels import backend, drawing, reference
from varbnn.kernels.checks import RELAXATIONS
from varbnn.kernels.layout import memory_order, turned, turned_back
from varbnn.kernels.registry import LIBRARY

LEAST = 1024
"""Weights from which on the compiled draw is the faster one; below, calling it costs as much as torch's passes."""

SEEDS = 1 << 62
"""Seeds are drawn below this: the largest power of two that every generator takes."""


def draw_signs(natural: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Draw ±1 with P(+1) = sigmoid(2 λ), as +1 where noise ≥ sigmoid(-2 λ).

    Larger noise never turns a +1 into a -1, so `1 - noise` is the antithetic draw. A NaN belief draws NaN. The result
    has no gradient.

    Without `noise`, the signs depend on the state of `generator` alone, which moves on with every draw; which signs a
    state gives is not the same for every backend (`varbnn.backend_info`), number type, size and order in memory
    (``torch.channels_last``), which the result keeps.

    Args:
        natural: λ, any shape; the result has its dtype and device.
        noise: uniform in [0, 1), broadcastable shape; drawn fresh when absent.
        generator: source of the fresh noise; torch's global one when absent.

    Raises:
        InputError: `noise` of another shape or with numbers outside [0, 1], or both noise and a generator.

    >>> draw_signs(torch.tensor([-50.0, 0.0, 50.0]), noise=torch.tensor(0.5))
    tensor([-1.,  1.,  1.])
    """
    if noise is not None:
        given_noise(noise, generator, natural.shape)
    elif _pays(natural):
        return _drawn(natural, generator)
    return reference.draw_signs(natural, noise, generator)


def signs_from(threshold: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Draw ±1 with P(-1) = `threshold`, as +1 where noise ≥ threshold; the rest as in `draw_signs`."""
    if noise is not None:
        given_noise(noise, generator, threshold.shape)
    elif _pays(threshold):
        return _drawn(torch.logit(threshold.detach()).mul_(-0.5), generator)
    return reference.signs_from(threshold, noise, generator)


def draw_relaxed(
    natural: Tensor,
    relaxation: float,
    euclidean: bool = False,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """A weight between the signs, and the factor of its gradient, neither of which has a gradient.

    Args: those of `varbnn.kernels.reference.draw_relaxed`, which says what is computed. Without `noise`, draws depend
        on the state of `generator` as those of `draw_signs` do.

    >>> weight, factor = draw_relaxed(torch.tensor([-50.0, 50.0]), relaxation=0.1)
    >>> weight
    tensor([-1.,  1.])
    """
    natural = natural.detach()
    if noise is not None:
        given_noise(noise, generator, natural.shape)
    elif RELAXATIONS[0] <= relaxation <= RELAXATIONS[1] and _pays(natural):
        order = memory_order(natural)
        weight, factor = drawing.relax(turned(natural, order), _seed(natural, generator), relaxation, euclidean)
        return turned_back(weight, order), turned_back(factor, order)
    return reference.draw_relaxed(natural, relaxation, euclidean, noise, generator)


def _pays(natural: Tensor) -> bool:
    """Whether the compiled operation is there for this tensor, and faster."""
    return (
        natural.dtype == torch.float32
        and natural.device.type == "cpu"
        and natural.numel() >= LEAST
        and _compiled_is_active()
    )


def _compiled_is_active() -> bool:
    return backend.active_backend() != backend.REFERENCE


# What torch.compiler.assume_constant_result does: this reads the environment and the library, which a compiled graph
# cannot. Its own import would load the whole compiler with every `import varbnn`, and double the time of that.
_compiled_is_active._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _drawn(natural: Tensor, generator: torch.Generator | None) -> Tensor:
    order = memory_order(natural)
    natural = turned(natural.detach(), order)
    matrix = natural.reshape(natural.shape[0] if natural.dim() > 1 else 1, -1)
    return turned_back(drawing.draw(matrix, _seed(natural, generator)).reshape(natural.shape), order)


def _seed(natural: Tensor, generator: torch.Generator | None) -> Tensor:
    # the seed is a tensor drawn by torch: all that holds for torch's random numbers (manual_seed, fork_rng, saved and
    # resumed states, a fresh draw from every call of a compiled graph) so holds for the signs
    return torch.randint(SEEDS, (), generator=generator, device=natural.device)


def _draw_batch(
    info: Any, dims: tuple[int | None, ...], natural: Tensor, seed: Tensor, layer: int, sample: int
) -> tuple[Tensor, int]:
    """`drawing.draw` under ``torch.vmap``: a seed for each (randomness="different"), or one seed for all ("same")."""

    own = _members(info, dims, natural, seed)
    return torch.stack([drawing.draw(belief, key, layer, sample) for belief, key in own]), 0


def _relax_batch(
    info: Any, dims: tuple[int | None, ...], natural: Tensor, seed: Tensor, relaxation: float, euclidean: bool
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """`drawing.relax` under ``torch.vmap``."""
    draws = [drawing.relax(belief, key, relaxation, euclidean) for belief, key in _members(info, dims, natural, seed)]
    if not draws:
        return (torch.empty_like(natural), torch.empty_like(natural)), (dims[0] or 0, dims[0] or 0)
    weights, factors = zip(*draws, strict=True)
    return (torch.stack(weights), torch.stack(factors)), (0, 0)


def _members(info: Any, dims: tuple[int | None, ...], natural: Tensor, seed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Belief and seed of every call that vmap makes one of."""
    for i in range(info.batch_size):
        own = [t if dim is None else t.select(dim, i) for t, dim in zip((natural, seed), dims[:2], strict=True)]
        yield own[0], own[1]


torch.library.register_vmap("varbnn::draw", _draw_batch, lib=LIBRARY)
torch.library.register_vmap("varbnn::relax", _relax_batch, lib=LIBRARY)
