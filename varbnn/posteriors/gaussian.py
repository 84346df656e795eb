"""The sign of a normal latent: a ±1 weight whose belief is where the latent is and, if wanted, how sure of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from varbnn.bits import sign
from varbnn.checks import finite_number, require
from varbnn.kernels import signs_from, wide
from varbnn.posteriors.base import Posterior, in_units_of_strength, pull_back

FORMS = ("fixed", "learned", "natural")


@dataclass(frozen=True, repr=False)
class Gaussian(Posterior):
    """Each weight is the sign of a latent z ~ N(m, σ²); with a = m / σ its mean is 2 Φ(a) - 1 = erf(a / √2).

    For a loss l that is linear in each weight, G = (2 φ(a) / σ) E[∂l/∂w | z = 0] is the gradient in m of the expected
    loss. What is handed back leaves out the conditioning on z = 0 of the other weights' draw: the gradient at the
    drawn w times a bell-shaped window, where latent weights with the straight-through estimator have 1.

    - ``"fixed"``: the belief is m, and σ = 1. No law of the weights is lost, since only m / σ matters. Factor 2 φ(m).
    - ``"learned"``: the belief is m and the precision S = 1 / σ². The factor of m is 2 φ(a) √S. The precision gets the
      expected curvature E[∂²l/∂z²] = -a √S G, not a gradient: this is what `varbnn.optim.GaussianBLR` takes, and no
      other optimizer makes sense of it.
    - ``"natural"``: the belief is u = a, as a coordinate of the ±1 coin and of nothing else. The factor
      (1 - μ²) / (2 φ(u)) gives the natural gradient of the coin in u: 1.2533 at 0, and 2 / |u| in the tails, where a
      sure weight moves ever more slowly.

    Args:
        form: ``"fixed"``, ``"learned"`` or ``"natural"``.
        init_scale: the locations start from init_scale · N(0, 1).
        init_precision: S at the start, positive; for the learned form.

    Raises:
        InputError: an option outside these.

    >>> location = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> Gaussian().mean(location).detach()
    tensor([-0.6827,  0.0000,  0.9545])
    >>> Gaussian().draw(location, noise=torch.tensor([0.1, 0.9, 0.5])).sum().backward()
    >>> location.grad
    tensor([0.4839, 0.7979, 0.1080])
    """

    form: str = "fixed"
    init_scale: float = 0.1
    init_precision: float = 1.0

    def __post_init__(self) -> None:
        require(self.form in FORMS, f"form must be one of {FORMS}, got {self.form!r}")
        object.__setattr__(self, "init_scale", finite_number("init_scale", self.init_scale, least=0))
        object.__setattr__(self, "init_precision", finite_number("init_precision", self.init_precision, above=0))
        require(
            self.form == "learned" or self.init_precision == 1,
            f"init_precision is of form='learned', got {self.init_precision} with form={self.form!r}, where σ = 1",
        )

    @property
    def names(self) -> tuple[str, ...]:
        return ("location", "precision") if self.form == "learned" else ("location",)

    def initial(self, weight: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        return self._with_precision(torch.empty_like(weight).normal_(generator=generator) * self.init_scale)

    def from_weight(
        self, weight: Tensor, strength: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        # confidence is that of a = m / σ, and 1 / σ² the precision
        deviation = self.init_precision**-0.5 if self.form == "learned" else 1.0
        return self._with_precision(in_units_of_strength(weight, strength * deviation))

    def _with_precision(self, location: Tensor) -> tuple[Tensor, ...]:
        learned = self.form == "learned"
        return (location, torch.full_like(location, self.init_precision)) if learned else (location,)

    def draw(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        location, value = belief[0], self.standardised(*belief).detach()
        weight = signs(value, noise, generator)
        if self.form == "natural":
            return pull_back(weight, location, natural_window(value))
        if self.form == "fixed":
            return pull_back(weight, location, bell(value))
        precision = belief[1].detach()
        factor = bell(value) * precision.sqrt()
        return pull_back(weight, location, factor, (belief[1], -factor * location.detach() * precision))

    def sample(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return signs(self.standardised(*belief), noise, generator)

    def natural(self, *belief: Tensor) -> Tensor:
        return log_odds(self.standardised(*belief)) / 2

    def raised(self, *belief: Tensor, power: float) -> tuple[Tensor, ...]:
        """Of the latent where its precision is learned, N(m, 1/S) to N(m, 1/(power S)); else of the coin."""
        if self.form == "learned":
            return belief[0], power * belief[1]
        location = belief[0].double()  # λ is quadratic in it
        return (standardised_of(power * log_odds(location)).to(belief[0].dtype),)

    def standardised(self, *belief: Tensor) -> Tensor:
        """a = m / σ, on which alone the law of the weight depends."""
        return belief[0] * belief[1].sqrt() if self.form == "learned" else belief[0]

    def _mode(self, *belief: Tensor) -> Tensor:
        return sign(self.standardised(*belief).detach())  # of a, so that a broken precision shows


def signs(a: Tensor, noise: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """±1 with P(-1) = Φ(-a), which bfloat16 would round to 0 beyond a = 3; the rest as in `draw_signs`."""
    return signs_from(torch.special.ndtr(-wide(a)), noise, generator).to(a.dtype)


def bell(a: Tensor) -> Tensor:
    """2 φ(a), the derivative of the mean weight in a.

    >>> bell(torch.tensor([0.0, 1.0]))
    tensor([0.7979, 0.4839])
    """
    return torch.exp(a.square() / -2) * math.sqrt(2 / math.pi)


def log_odds(a: Tensor) -> Tensor:
    """log Φ(a) - log Φ(-a), that is 2 λ of the coin; quadratic in the tails, where both probabilities round.

    >>> log_odds(torch.tensor([0.0, 1e-8, -1000.0]))
    tensor([ 0.0000e+00,  1.5958e-08, -5.0001e+05])
    """
    kind, a = a.dtype, wide(a)  # erfcx knows no half precision
    # near 0 the two logarithms cancel, and the sign of the smallest a would be lost
    inner = 2 * torch.atanh(torch.erf(a.clamp(-1, 1) / math.sqrt(2)))
    size, half_square = a.abs(), a.square() / 2
    scaled = torch.special.erfcx(size / math.sqrt(2)) / 2  # Φ(-|a|) exp(a²/2); two log_ndtr take twice as long
    outer = torch.log1p(-scaled * torch.exp(-half_square)) - torch.log(scaled) + half_square
    return torch.where(size < 1, inner, torch.copysign(outer, a)).to(kind)


def standardised_of(odds: Tensor) -> Tensor:
    """a with `log_odds` (a) = odds.

    >>> standardised_of(log_odds(torch.tensor([0.0, -0.3, 5.0, 1e4])))
    tensor([ 0.0000e+00, -3.0000e-01,  5.0000e+00,  1.0000e+04])
    """
    size = odds.double().abs()
    # log_odds is convex for a ≥ 0 and above both its tangent at 0 and a²/2: Newton's steps only go down from here
    a = torch.minimum(size / (2 * math.sqrt(2 / math.pi)), (2 * size).sqrt())
    for _ in range(12):
        a = (a - (log_odds(a) - size) * natural_window(a) / 2).clamp_min(0)
    return torch.copysign(torch.where(size == math.inf, size, a), odds.double()).to(odds.dtype)


def natural_window(u: Tensor) -> Tensor:
    """(1 - μ²) / (2 φ(u)) with μ = 2 Φ(u) - 1, which is 2 Φ(u) Φ(-u) / φ(u).

    Formed as √(2 π) Φ(|u|) erfcx(|u| / √2): in Φ(-u) / φ(u) both sides underflow, and the difference of their
    logarithms loses all digits at |u| = 10⁴ in float32.

    >>> natural_window(torch.tensor([0.0, 3.0, 1e6]))
    tensor([1.2533e+00, 6.0836e-01, 2.0000e-06])
    """
    kind, u = u.dtype, wide(u.abs())
    return (torch.special.ndtr(u) * torch.special.erfcx(u / math.sqrt(2)) * math.sqrt(2 * math.pi)).to(kind)
