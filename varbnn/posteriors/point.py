"""The point: one binary network, held as the signs of real latent weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from varbnn.bits import sign
from varbnn.checks import finite_number
from varbnn.posteriors.base import Posterior, in_units_of_strength, pull_back


@dataclass(frozen=True, repr=False)
class Point(Posterior):
    """The weight is the sign of a real latent; the gradient passes straight through (Courbariaux et al. 2015).

    Args:
        clip: pass the gradient only where |latent| ≤ clip (Hubara et al. 2016, eq. 4); absent passes it everywhere.
            To keep the latent itself in a box, use the optimizer's `clip`.

    Raises:
        InputError: `clip` is not positive.

    >>> Point().draw(torch.tensor([0.2, -0.1, 0.0]))
    tensor([ 1., -1.,  1.])
    """

    names = ("latent",)

    clip: float | None = None

    def __post_init__(self) -> None:
        if self.clip not in (None, math.inf):
            object.__setattr__(self, "clip", finite_number("clip", self.clip, above=0, note=", or None"))

    @property
    def certain(self) -> bool:
        return True

    def initial(self, weight: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        return (weight.detach().clone(),)

    def from_weight(
        self, weight: Tensor, strength: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        return (in_units_of_strength(weight, strength),)

    def draw(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        (latent,) = belief
        factor = None if self.clip is None else (latent.detach().abs() <= self.clip).to(latent.dtype)
        return pull_back(sign(latent.detach()), latent, factor)

    def natural(self, *belief: Tensor) -> Tensor:
        return sign(belief[0].detach()) * math.inf
