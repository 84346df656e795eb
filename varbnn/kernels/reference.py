"""Plain torch: what every backend must reproduce."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_signs(natural: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Draw ±1 with P(+1) = sigmoid(2 λ), as +1 where noise ≥ sigmoid(-2 λ).

    Larger noise never turns a +1 into a -1, so `1 - noise` is the antithetic draw. A NaN belief draws NaN.

    Args:
        natural: λ, any shape; the result has its dtype and device.
        noise: uniform in [0, 1), broadcastable shape; drawn fresh when absent.
        generator: source of the fresh noise; torch's global one when absent.

    >>> draw_signs(torch.tensor([-50.0, 0.0, 50.0]), noise=torch.tensor(0.5))
    tensor([-1.,  1.,  1.])
    """
    return signs_from(torch.mul(natural, -2).sigmoid_(), noise, generator)


def signs_from(threshold: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Draw ±1 with P(-1) = `threshold`, as +1 where noise ≥ threshold; the rest as in `draw_signs`."""
    if noise is None:
        margin = uniform(threshold, generator) - threshold  # in place it would not do under vmap with randomness="same"
    else:
        margin = noise.to(threshold.dtype) - threshold
    # one pass over memory, where sign, tie and sign again are three; 0 * threshold is 0, or NaN where the belief is
    return torch.copysign(margin.new_ones(()), margin).add_(threshold, alpha=0)


def uniform(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise in (0, 1) shaped like `like`, for `draw_signs`.

    torch's own has the step eps / 2 and holds 0, which would turn one sure +1 in 2^24 (float32) into a -1. This one
    starts a quarter of a step up.
    """
    step = torch.finfo(like.dtype).eps / 2
    return fresh(like, generator).add_(step / 4)


def fresh(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform noise in [0, 1), shaped and laid out like `like`."""
    if generator is None:
        return torch.rand_like(like)  # vmap draws it anew for each call; it cannot fill an empty tensor in place
    return torch.empty_like(like).uniform_(generator=generator)


def opposite(noise: Tensor) -> Tensor:
    """1 - `noise`, kept below 1: it draws the opposite signs, and a sure -1 stays one."""
    return (1 - noise).clamp_max_(1 - torch.finfo(noise.dtype).eps / 2)
