"""The living posterior: independent ±1 coins with natural parameter λ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from varbnn.checks import finite_number, given_noise, require
from varbnn.kernels import draw_relaxed, draw_signs
from varbnn.kernels.reference import fresh, log_sech2, sech2
from varbnn.posteriors import published
from varbnn.posteriors.base import Posterior, in_units_of_strength, pull_back

ESTIMATORS = ("straight-through", "concrete", "moments", "mean")
GRADIENTS = ("natural", "euclidean")


@dataclass(frozen=True, repr=False)
class Bernoulli(Posterior):
    """Each weight is +1 with probability sigmoid(2 λ); its mean is μ = tanh λ.

    The natural gradient in λ is the gradient in μ of the expected loss, and the estimators differ in how they get it:

    - ``"straight-through"``: exact ±1 draws w, gradient at w handed on unchanged (factor 1). Low variance.
    - ``"concrete"``: the relaxed weight tanh((λ + δ) / relaxation), δ = ½ log(u / (1 - u)), with factor
      (1 - w²) / (relaxation · (1 - μ²)); Meng et al. 2020, section 3.2. Close to unbiased only for a small
      relaxation, where its variance grows as 2 / (3 · relaxation · (1 - μ²)).
    - ``"moments"``: no weight is drawn in training. Linear and convolution layers compute mean and variance of their
      output from those of the weights and draw the output, for each example by itself (local reparametrisation:
      Kingma, Salimans, Welling 2015; for discrete weights Shayer, Levi, Fetaya 2018). Exact in the mean and the
      variance of each output, and normal where the truth is a sum of many coins; usually less noise in the gradient
      while the weights are unsure, and more without bound, as 1 / √(1 - μ²), once all weights of an output are sure. A
      second product per layer is its price. Outputs are drawn as if no two shared a weight: not within a convolution,
      not between examples, not between two uses of one layer in a model.
    - ``"mean"``: the real weights μ themselves, no draw (the published code's ``num_samples=0``). A network of mean
      weights is no binary network; only prediction turns it into one.

    With relaxation 1 the factor of the natural concrete gradient has standard deviation 0.8, 3.2, 10.6 and 85 at
    |λ| = 1, 2, 3 and 5: single steps throw λ to several hundred, where nothing brings it back. Take exact draws
    (``"straight-through"``) with natural gradients, or ``gradient="euclidean"`` with a relaxation that large.

    Args:
        estimator: ``"straight-through"``, ``"concrete"``, ``"moments"`` or ``"mean"``.
        relaxation: of the concrete estimator, positive; the smaller, the closer to ±1. Not the posterior's temperature.
        numerics: ``"exact"`` forms the factor from the present mean, in the log domain. ``"reference"`` repeats the
            published code to the bit: the mean lags one update behind, and 1e-10 is added above and below
            (`varbnn.posteriors.published`).
        init: ``"normal"`` starts from init_scale · N(0, 1), ``"sign"`` from ±init_scale.
        init_scale: see `init`; 0.1 starts at 0.99 bit per weight, the published 10 at 0.00 bit.
        gradient: ``"natural"`` hands on the gradient in μ, as above. ``"euclidean"`` hands on the gradient in λ, which
            is that times 1 - μ²: factor 1 - μ² instead of 1, and (1 - w²) / relaxation for the concrete estimator. Sure
            weights then learn slowly, and the factor of the concrete estimator never exceeds 1 / relaxation. It is what
            `varbnn.optim.BiMU` takes; rules of natural gradients refuse it.

    Raises:
        InputError: an option outside these.

    >>> natural = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> Bernoulli().mean(natural).detach()
    tensor([-0.7616,  0.0000,  0.9640])
    >>> weight = Bernoulli().draw(natural, noise=torch.tensor([0.1, 0.9, 0.5]))
    >>> weight.detach()
    tensor([-1.,  1.,  1.])
    """

    names = ("natural",)

    estimator: str = "straight-through"
    relaxation: float = 0.1
    numerics: str = "exact"
    init: str = "normal"
    init_scale: float = 0.1
    gradient: str = "natural"

    def __post_init__(self) -> None:
        require(self.estimator in ESTIMATORS, f"estimator must be one of {ESTIMATORS}, got {self.estimator!r}")
        note = "; for exact ±1 draws use estimator='straight-through'"
        object.__setattr__(self, "relaxation", finite_number("relaxation", self.relaxation, above=0, note=note))
        require(
            self.numerics in ("exact", "reference"), f"numerics must be 'exact' or 'reference', got {self.numerics!r}"
        )
        require(
            self.numerics == "exact" or self.estimator == "concrete",
            "numerics='reference' repeats the published concrete estimator; give estimator='concrete' with it",
        )
        require(self.init in ("normal", "sign"), f"init must be 'normal' or 'sign', got {self.init!r}")
        object.__setattr__(self, "init_scale", finite_number("init_scale", self.init_scale, least=0))
        require(self.gradient in GRADIENTS, f"gradient must be one of {GRADIENTS}, got {self.gradient!r}")
        require(
            self.gradient == "natural" or self.numerics == "exact",
            "numerics='reference' repeats the published natural gradient; give gradient='natural' with it",
        )

    @property
    def buffer_names(self) -> tuple[str, ...]:
        return published.BUFFERS if self.numerics == "reference" else ()

    def initial(self, weight: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        if self.init == "normal":
            natural = torch.empty_like(weight).normal_(generator=generator) * self.init_scale
        else:
            natural = draw_signs(torch.zeros_like(weight), generator=generator) * self.init_scale
        return natural, *self._buffers(natural)

    def from_weight(
        self, weight: Tensor, strength: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        natural = in_units_of_strength(weight, strength)
        return natural, *self._buffers(natural)

    def raised(self, *belief: Tensor, power: float) -> tuple[Tensor, ...]:
        return (power * belief[0],)

    def _buffers(self, natural: Tensor) -> tuple[Tensor, ...]:
        return published.initial(natural) if self.numerics == "reference" else ()

    def draw(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        natural, *buffers = belief
        value = natural.detach()
        if self.estimator == "mean":
            return pull_back(torch.tanh(value), natural, self._slope(value))
        if self.estimator != "concrete":
            return pull_back(draw_signs(value, noise=noise, generator=generator), natural, self._slope(value))
        if buffers:
            if noise is None:
                noise = fresh(value, generator)
            else:
                given_noise(noise, generator, value.shape)
            weight, factor = published.relaxed(value, *buffers, noise=noise, relaxation=self.relaxation)
        else:
            weight, factor = draw_relaxed(value, self.relaxation, self.gradient == "euclidean", noise, generator)
        return pull_back(weight, natural, factor)

    def _slope(self, value: Tensor) -> Tensor | None:
        """dμ/dλ, which makes the gradient in λ of the one in μ; None where that one is asked for."""
        return sech2(value) if self.gradient == "euclidean" else None

    def moments(self, *belief: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.estimator != "moments":
            return None
        natural, value = belief[0], belief[0].detach()
        mean, variance, slope = torch.tanh(value), torch.exp(log_sech2(value)), self._slope(value)
        # both hand on the gradient in μ, and the variance is 1 - μ²
        in_variance = -2 * mean if slope is None else -2 * mean * slope
        return pull_back(mean, natural, slope), pull_back(variance, natural, in_variance)

    def natural(self, *belief: Tensor) -> Tensor:
        return belief[0]

    def _mode(self, *belief: Tensor) -> Tensor:
        natural, *buffers = belief
        return published.mode(natural.detach(), *buffers) if buffers else super()._mode(natural)
