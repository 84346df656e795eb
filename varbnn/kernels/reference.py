"""Plain torch: what every backend must reproduce."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw_signs(natural: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Draw ±1 with P(+1) = sigmoid(2 λ), as +1 where noise ≥ sigmoid(-2 λ).

    Larger noise never turns a +1 into a -1, so `1 - noise` is the antithetic draw. A NaN belief draws NaN.

    Args:
        natural: λ, any shape; the result has its dtype and device. Half precision is compared in float32.
        noise: uniform in [0, 1), broadcastable shape; drawn fresh when absent.
        generator: source of the fresh noise; torch's global one when absent.

    >>> draw_signs(torch.tensor([-50.0, 0.0, 50.0]), noise=torch.tensor(0.5))
    tensor([-1.,  1.,  1.])
    """
    return signs_from(torch.mul(wide(natural), -2).sigmoid_(), noise, generator).to(natural.dtype)


def signs_from(threshold: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Draw ±1 with P(-1) = `threshold`, as +1 where noise ≥ threshold; the rest as in `draw_signs`."""
    kind, threshold = threshold.dtype, wide(threshold)
    if noise is None:
        margin = uniform(threshold, generator) - threshold  # in place it would not do under vmap with randomness="same"
    else:
        margin = noise.to(threshold.dtype) - threshold
    # one pass over memory, where sign, tie and sign again are three; 0 * threshold is 0, or NaN where the belief is
    return torch.copysign(margin.new_ones(()), margin).add_(threshold, alpha=0).to(kind)


def draw_relaxed(
    natural: Tensor,
    relaxation: float,
    euclidean: bool = False,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """A weight between the signs, and what a gradient there is multiplied by: Meng et al. 2020, section 3.2.

    The weight w = tanh((λ + δ) / relaxation), δ = ½ log(u / (1 - u)), leans to ±1 as the relaxation goes to 0.

    Args:
        natural: λ, any shape; both results have its dtype and device.
        relaxation: positive.
        euclidean: for the gradient in λ, (1 - w²) / relaxation; else for that in tanh λ, which is 1 / (1 - tanh² λ)
            times as large.
        noise: u, uniform in [0, 1), broadcastable shape; drawn fresh when absent.
        generator: source of the fresh noise; torch's global one when absent.

    >>> draw_relaxed(torch.tensor([-1.0, 0.0, 1.0]), relaxation=1.0, noise=torch.tensor(0.5))
    (tensor([-0.7616,  0.0000,  0.7616]), tensor([1., 1., 1.]))
    """
    kind, natural = natural.dtype, wide(natural)
    uniform = fresh(natural, generator) if noise is None else noise
    scaled = (natural + torch.logit(uniform.to(natural.dtype)) / 2) / relaxation
    if euclidean:
        factor = sech2(scaled) / relaxation
    else:
        factor = torch.exp(log_sech2(scaled) - log_sech2(natural) - math.log(relaxation))
    return torch.tanh(scaled).to(kind), factor.to(kind)


def uniform(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise in (0, 1) shaped like `like`, for `draw_signs`; float32 for half precision, which has too few steps.

    torch's own has the step eps / 2 and holds 0, which would turn one sure +1 in 2^24 (float32) into a -1. This one
    starts a quarter of a step up.
    """
    noise = fresh(like, generator)
    return noise.add_(torch.finfo(noise.dtype).eps / 8)


def fresh(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform noise in [0, 1), shaped and laid out like `like`; float32 for half precision."""
    kind = torch.promote_types(like.dtype, torch.float32)
    if generator is None:
        return torch.rand_like(like, dtype=kind)  # anew for each call under vmap, which cannot fill in place
    return torch.empty_like(like, dtype=kind).uniform_(generator=generator)


def wide(tensor: Tensor) -> Tensor:
    """`tensor`, or a float32 copy of one in half precision, where the law of a draw would be rounded."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def opposite(noise: Tensor) -> Tensor:
    """1 - `noise`, kept below 1: it draws the opposite signs, and a sure -1 stays one."""
    return (1 - noise).clamp_max_(1 - torch.finfo(noise.dtype).eps / 2)


def log_sech2(x: Tensor) -> Tensor:
    """log(1 - tanh² x), without forming either square: sech² underflows at |x| ≈ 52 in float32.

    >>> log_sech2(torch.tensor([0.0, 100.0]))
    tensor([   0.0000, -198.6137])
    """
    magnitude = x.abs()
    return 2 * (math.log(2) - magnitude - torch.log1p(torch.exp(-2 * magnitude)))


def sech2(x: Tensor) -> Tensor:
    """1 - tanh² x = 4 p (1 - p), p = sigmoid(-2 |x|): relatively exact where 1 - tanh² x would round to 0.

    >>> sech2(torch.tensor([0.0, 20.0]))
    tensor([1.0000e+00, 1.6993e-17])
    """
    less = x.abs().mul_(-2).sigmoid_()  # one tensor for all of it: fresh memory costs more than the arithmetic
    return less.addcmul_(less, less, value=-1).mul_(4)
