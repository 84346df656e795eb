"""The equally weighted mixture of S Gaussians that S networks with noise are: density, distribution, quantiles.

Everything in float64, one sample at a time, so that nothing of size S×N×D is made beyond what is there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_density(means: Tensor, noise_variance: Tensor, truth: Tensor) -> Tensor:
    """log of the mean over s of N(truth; means_s, noise_s), joint over outputs, N."""
    total = torch.full(truth.shape[:1], -torch.inf, dtype=torch.float64, device=truth.device)
    for mean, variance in zip(means, noise_variance.expand(means.shape), strict=True):
        variance = variance.double()
        each = -0.5 * ((truth - mean).square() / variance + (2 * torch.pi * variance).log())
        total = torch.logaddexp(total, each.flatten(1).sum(1) if truth.ndim > 1 else each)
    return total - torch.tensor(len(means), dtype=torch.float64).log()


def distribution(means: Tensor, noise_variance: Tensor, values: Tensor) -> Tensor:
    """P(observation ≤ values) for each input and output by itself, shaped like `values` (N or N×D)."""
    total = torch.zeros_like(values, dtype=torch.float64)
    for mean, variance in zip(means, noise_variance.expand(means.shape), strict=True):
        total += torch.special.ndtr((values - mean) / variance.double().sqrt())
    return total / len(means)


def quantile(means: Tensor, noise_variance: Tensor, probability: float) -> Tensor:
    """Where `distribution` is `probability`, N or N×D, by bisection between the networks' own quantiles."""
    factor = float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))
    low = torch.full(means.shape[1:], torch.inf, dtype=torch.float64, device=means.device)
    high = -low
    for mean, variance in zip(means, noise_variance.expand(means.shape), strict=True):
        of_one = mean + factor * variance.double().sqrt()
        low, high = torch.minimum(low, of_one), torch.maximum(high, of_one)
    for _ in range(64):
        middle = (low + high) / 2
        below = distribution(means, noise_variance, middle) < probability
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
