"""Real targets: how much noise a network expects around its means, and the loss that teaches it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from varbnn.checks import finite_number, whole_number
from varbnn.errors import InputError

LOG_VARIANCE = (-20.0, 20.0)
"""Bounds of log variances in `gaussian_nll`: e^-20 is a deviation of 4.5e-5, far below what float32 means can fit."""


class LearnedNoise(nn.Module):
    """Appends to n×D means their log noise variances, the same for every input and learned as real parameters: n×2D.

    The last module of a regression model, for `gaussian_nll` and ``predict(..., task="gaussian")``. Noise that depends
    on the input needs no module: let the last layer have 2D outputs.

    Args:
        outputs: D.
        initial: variance to start from, in squared units of the targets; 1 suits standardised targets.

    Raises:
        InputError: `outputs` below 1, `initial` not positive.

    >>> LearnedNoise(initial=0.25)(torch.zeros(3, 1)).shape
    torch.Size([3, 2])
    """

    def __init__(self, outputs: int = 1, initial: float = 1.0) -> None:
        super().__init__()
        outputs, initial = whole_number("outputs", outputs), finite_number("initial", initial, above=0)
        self.initial = initial
        self.log_variance = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start afresh, as at construction."""
        nn.init.constant_(self.log_variance, math.log(self.initial))

    @property
    def variance(self) -> Tensor:
        """The noise variances, D, without gradient."""
        return self.log_variance.detach().clamp(*LOG_VARIANCE).exp()

    def forward(self, means: Tensor) -> Tensor:
        if isinstance(means, Proxy):  # traced by `varbnn.pack`: there is no shape yet, and a file knows few functions
            outputs = self._parameters["log_variance"].numel()
            means = means.reshape(-1, outputs)  # of another width it makes other rows, which is noticed
            return torch.cat([means, means.clamp(0, 0) + self.log_variance], 1)
        if means.dim() != 2 or means.shape[1] != len(self.log_variance):
            raise InputError(f"LearnedNoise takes means n×{len(self.log_variance)}, got shape {tuple(means.shape)}")
        return torch.cat([means, self.log_variance.expand_as(means)], 1)

    def extra_repr(self) -> str:
        return f"{len(self.log_variance)}"


def gaussian_nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -log N(target; mean, variance), joint over the outputs, in nats: a loss for `varbnn.fit`.

    Args:
        outputs: n×2D, the D means and then the D log variances.
        targets: n×D, or n where D = 1.

    Raises:
        InputError: shapes that do not belong together (they would broadcast), targets with NaN or inf.

    >>> outputs = torch.tensor([[0.0, 0.0], [1.0, 0.0]])  # two means, log variances 0
    >>> f"{gaussian_nll(outputs, torch.tensor([0.0, 1.0])):.4f}"  # log(2π) / 2
    '0.9189'
    """
    means, log_variance = gaussian_parts(outputs)
    if targets.dim() == 1 and means.shape[1] == 1:
        targets = targets[:, None]
    if targets.shape != means.shape:
        raise InputError(
            f"targets must have the shape of the means, {tuple(means.shape)}, got {tuple(targets.shape)}; the outputs "
            f"{tuple(outputs.shape)} are means and then log variances"
        )
    if not bool(torch.isfinite(targets).all()):
        raise InputError("the targets hold NaN or inf; clean the data first")
    squared = (targets - means).square() * torch.exp(-log_variance)
    return 0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(1).mean()


def gaussian_parts(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log variances, n×D each, of n×2D outputs; log variances are kept within `LOG_VARIANCE`.

    Raises:
        InputError: not n×2D.
    """
    if outputs.dim() != 2 or outputs.shape[1] % 2 or outputs.shape[1] == 0:
        raise InputError(
            f"a Gaussian needs outputs n×2D, the means and then their log variances, got {tuple(outputs.shape)}; end "
            "the model with varbnn.nn.LearnedNoise(D), or with a layer of 2D outputs"
        )
    means, log_variance = outputs.chunk(2, 1)
    return means, log_variance.clamp(*LOG_VARIANCE)
