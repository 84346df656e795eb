"""The sign of a low-rank normal vector: ±1 weights that are drawn together."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from varbnn.bits import sign
from varbnn.checks import finite_number, given_noise, require, whole_number
from varbnn.kernels.layout import memory_order, turned, turned_back
from varbnn.posteriors.base import Posterior, in_units_of_strength, pull_back
from varbnn.posteriors.gaussian import log_odds
from varbnn.posteriors.orthants import cauchy_natural, correlation_of_signs

CONSTRAINTS, SCOPES, ROUNDINGS = ("none", "unit"), ("layer", "neuron", "network"), ("mean", "homogeneous")
STARTS = ("xavier", "released")


@dataclass(frozen=True, repr=False)
class LowRankGaussian(Posterior):
    """The weights are w = sign(m + Zᵀ r), r ~ N(0, I / scale): VISPA (Orecchia et al. 2024).

    The belief is the location m, shaped like the weight, and `rank` factors Z of that shape. One r of `rank` numbers
    serves many weights, so that they are drawn together: with σ² = ‖z‖² / scale, the latents of two weights have the
    correlation zᵢ·zⱼ / (scale σᵢ σⱼ). By itself a weight is the coin of a latent N(m, σ²), of which `mean`, `entropy`,
    `kl` and `log_prob` speak, weight by weight; `sample` and `draw` draw jointly.

    The gradient g at the drawn weights arrives as g at m, and as g ξ at the factors, where ξ = √scale · r ~ N(0, I):
    both straight through the sign. `varbnn.optim.VISPA` is the rule for it.

    Args:
        rank: number of factors, ≥ 0. Rank 0 is the sign of m, as `Point`.
        scale: of the factors, positive: a factor weighs 1 / √scale in the latent and its gradient does not, so that it
            moves by 1 / √scale of what m does.
        constraint: ``"none"``, or ``"unit"``: m² + ‖z‖² / scale = 1 for each weight, the paper's E[z²] = 1, which
            `varbnn.optim.VISPA` restores after each step. It changes no draw, only how far a step goes.
        scope: what shares an r in a forward pass: the weights of a ``"layer"``, those of each ``"neuron"`` (output), or
            those of all layers of the model, ``"network"``.
        rounding: ``"mean"`` as above, or ``"homogeneous"``: sign(\\|g₀\\| m + Zᵀ r) with g₀ ~ N(0, 1), the rounding of
            Goemans and Williamson. Then E[w] = (2/π) arctan(m / σ), and m receives \\|g₀\\| g.
        init: ``"xavier"`` starts location and factors as Xavier-normal weights of the layer. ``"released"`` starts the
            factors as the released code does, whose initialiser takes the rank for the outputs and the outputs for the
            inputs: far smaller, with draws that hardly differ.

    Raises:
        InputError: an option outside these.

    >>> location, factors = torch.tensor([0.5, -0.5, 0.0]), torch.tensor([[1.0, 1.0, 1.0]])
    >>> posterior = LowRankGaussian(rank=1, scale=1.0)
    >>> posterior.mean(location, factors)
    tensor([ 0.3829, -0.3829,  0.0000])
    >>> posterior.sample(location, factors, noise=torch.tensor([0.7]))
    tensor([1., 1., 1.])
    >>> posterior.correlation(location, factors, torch.tensor([0, 1]))
    tensor([[1.0000, 0.4462],
            [0.4462, 1.0000]])
    """

    names = ("location", "factors")

    rank: int = 8
    scale: float = 100.0
    constraint: str = "none"
    scope: str = "layer"
    rounding: str = "mean"
    init: str = "xavier"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number("rank", self.rank, 0))
        object.__setattr__(self, "scale", finite_number("scale", self.scale, above=0))
        require(self.constraint in CONSTRAINTS, f"constraint must be one of {CONSTRAINTS}, got {self.constraint!r}")
        require(self.scope in SCOPES, f"scope must be one of {SCOPES}, got {self.scope!r}")
        require(self.rounding in ROUNDINGS, f"rounding must be one of {ROUNDINGS}, got {self.rounding!r}")
        require(self.init in STARTS, f"init must be one of {STARTS}, got {self.init!r}")

    @property
    def independent(self) -> bool:
        return self.rank == 0

    @property
    def certain(self) -> bool:
        return self.rank == 0

    @property
    def noise_key(self) -> str | None:
        return f"low rank {self.rank} {self.rounding}" if self.scope == "network" else None

    def initial(self, weight: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        shape = (self.rank, *weight.shape)
        location = torch.empty_like(weight).normal_(generator=generator) * xavier(weight.shape)
        spread = xavier(weight.shape) if self.init == "xavier" else xavier(shape)
        return self._constrained(location, weight.new_empty(shape).normal_(generator=generator) * spread)

    def from_weight(
        self, weight: Tensor, strength: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        location = in_units_of_strength(weight, strength)
        factors = weight.new_empty((self.rank, *weight.shape)).normal_(generator=generator)
        if self.rank:  # deviation 1, in directions that say nothing yet
            factors *= math.sqrt(self.scale) / torch.linalg.vector_norm(factors, dim=0)
        return self._constrained(location, factors)

    def _constrained(self, location: Tensor, factors: Tensor) -> tuple[Tensor, ...]:
        if self.constraint == "unit":
            to_unit_(location, factors, self.scale)
        return location, factors

    def noise(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normal noise ξ, of shape (rank,), or (rank, outputs) for the scope ``"neuron"``; g₀ comes before it."""
        return torch.randn(self._noise_shape(like), generator=generator, dtype=like.dtype, device=like.device)

    def _noise_shape(self, like: Tensor) -> tuple[int, ...]:
        count = self.rank + (self.rounding == "homogeneous")
        return (count, *like.shape[:1]) if self.scope == "neuron" else (count,)

    def opposite(self, noise: Tensor) -> Tensor:
        return -noise

    def draw(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        location, factors = belief
        gain, normal = self._split(location, noise, generator)
        weight = sign(self._latent(location.detach(), factors.detach(), gain, normal))
        return pull_back(weight, location, gain, (factors, normal))

    def sample(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        location, factors = belief
        with torch.no_grad():
            return sign(self._latent(location, factors, *self._split(location, noise, generator)))

    def _split(
        self, like: Tensor, noise: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor | None, Tensor]:
        """\\|g₀\\| where there is one, and ξ, with the axes that they lack for a product with location and factors."""
        shape = self._noise_shape(like)
        if noise is None:
            noise = self.noise(like, generator)
        else:
            given_noise(noise, generator, (), uniform=False)  # its shape below
        require(tuple(noise.shape) == shape, f"noise for {self!r} has shape {shape} here, got {tuple(noise.shape)}")
        noise = noise.to(like.dtype).reshape(*shape, *[1] * (like.dim() - len(shape) + 1))
        return (noise[0].abs(), noise[1:]) if self.rounding == "homogeneous" else (None, noise)

    def _latent(self, location: Tensor, factors: Tensor, gain: Tensor | None, normal: Tensor) -> Tensor:
        centre = location if gain is None else location * gain
        if self.rank == 0:
            return centre
        device = location.device.type
        # autocast would form these products in half precision
        with nullcontext() if location.is_meta else torch.autocast(device, enabled=False):
            if self.scope == "neuron" and location.dim() > 0:
                rows = factors.reshape(self.rank, location.shape[0], location[:1].numel()).movedim(1, 0)
                deviation = torch.matmul(normal.reshape(self.rank, -1).T.unsqueeze(1), rows).reshape(location.shape)
            else:
                order = memory_order(location)
                rows = turned(factors, order).reshape(self.rank, location.numel())
                deviation = torch.mv(rows.T, normal.reshape(-1)).reshape(turned(location, order).shape)
                deviation = turned_back(deviation, order)
        return centre + deviation / math.sqrt(self.scale)

    def natural(self, *belief: Tensor) -> Tensor:
        a = self.standardised(*belief)
        return log_odds(a) / 2 if self.rounding == "mean" else cauchy_natural(a)

    def standardised(self, *belief: Tensor) -> Tensor:
        """m / σ, on which alone the law of a weight by itself depends; ±inf where σ = 0."""
        location, factors = belief
        deviation = torch.linalg.vector_norm(factors, dim=0) / math.sqrt(self.scale)
        certain = deviation == 0
        return torch.where(certain, sign(location.detach()) * math.inf, location / torch.where(certain, 1.0, deviation))

    def correlation(self, location: Tensor, factors: Tensor, weights: Tensor | None = None) -> Tensor:
        """Correlation of the ±1 weights among themselves, by their law and not by draws.

        At m = 0 it is (2/π) arcsin of the latents' correlation; elsewhere an integral over one angle, by quadrature:
        to 1e-10 where latents correlate up to 0.99, and to 3e-4 where they are nearly parallel. Where they are
        parallel, as at rank 1, it is exact.

        Args:
            location, factors: the belief of one layer.
            weights: integers, the places in the flattened weight to look at; absent means all, n² numbers.

        Returns:
            Symmetric n×n matrix with ones on the diagonal; 0 where a weight is certain.

        >>> factors = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
        >>> LowRankGaussian(rank=2).correlation(torch.zeros(3), factors)
        tensor([[1.0000, 0.5000, 0.0000],
                [0.5000, 1.0000, 0.5000],
                [0.0000, 0.5000, 1.0000]])
        """
        chosen = torch.arange(location.numel()) if weights is None else torch.as_tensor(weights)
        chosen = chosen.to(location.device)
        flat = factors.reshape(self.rank, location.numel())
        m, z = location.reshape(-1)[chosen], flat[:, chosen] / math.sqrt(self.scale)
        joint = None
        if self.scope == "neuron" and location.dim() > 0:
            neuron = torch.div(chosen, max(location[:1].numel(), 1), rounding_mode="floor")
            joint = neuron.unsqueeze(1) == neuron
        return correlation_of_signs(m, z, homogeneous=self.rounding == "homogeneous", joint=joint)


def xavier(shape: tuple[int, ...] | torch.Size) -> float:
    """Standard deviation of a Xavier-normal start (Glorot and Bengio 2010) of a tensor (outputs, inputs, *kernel)."""
    if len(shape) < 2:
        return 1 / math.sqrt(max(math.prod(shape), 1))
    outputs, inputs, *kernel = shape
    return math.sqrt(2 / max((outputs + inputs) * math.prod(kernel), 1))


def to_unit_(location: Tensor, factors: Tensor, scale: float) -> None:
    """Divide each weight's m and z by √(m² + ‖z‖² / scale), in place; a weight that has neither stays.

    >>> location, factors = torch.tensor([3.0, 0.0]), torch.tensor([[4.0, 0.0]])
    >>> to_unit_(location, factors, scale=1.0)
    >>> location, factors
    (tensor([0.6000, 0.0000]), tensor([[0.8000, 0.0000]]))
    """
    size = location.square().add_(factors.square().sum(0), alpha=1 / scale)
    # where both are 0, any number will do; comparisons take as long as all the rest
    size.clamp_min_(torch.finfo(size.dtype).tiny).rsqrt_()
    location.mul_(size)
    factors.mul_(size)
