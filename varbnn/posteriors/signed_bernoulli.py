"""The law of a ±1 weight as a torch distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from varbnn.bits import sign
from varbnn.errors import InputError
from varbnn.kernels import draw_signs
from varbnn.kernels.reference import log_sech2


class _PlusMinusOne(constraints.Constraint):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value == 1) | (value == -1)


class SignedBernoulli(Distribution):
    """A coin with the faces -1 and +1, P(+1) = sigmoid(2 λ), mean tanh λ.

    λ is the natural parameter of the exponential family with statistic w. Every quantity is formed from λ, never from a
    rounded probability, so that it stays accurate where 1 - p rounds to 0.

    Args:
        natural: λ, any shape; whole numbers become torch's default dtype. ±inf is a point mass.
        mean: μ = tanh λ in [-1, 1], instead of `natural`.
        validate_args: as in torch; pass False inside ``torch.func.vmap``, which forbids checks that read values.

    Raises:
        InputError: neither or both of `natural` and `mean` are given.

    >>> coin = SignedBernoulli(natural=torch.tensor([0.0, 1.0]))
    >>> coin.mean
    tensor([0.0000, 0.7616])
    >>> coin.log_prob(torch.tensor([1.0, -1.0]))
    tensor([-0.6931, -2.1269])
    """

    arg_constraints: ClassVar = {"natural": constraints.real}
    support = _PlusMinusOne()
    has_enumerate_support = True

    def __init__(
        self,
        natural: Tensor | float | None = None,
        mean: Tensor | float | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if (natural is None) == (mean is None):
            raise InputError("give exactly one of natural= and mean=")
        if natural is not None:
            (given,) = broadcast_all(natural)
            self.natural = given if given.is_floating_point() else given.to(torch.get_default_dtype())
        elif mean is not None:
            (mu,) = broadcast_all(mean)
            if validate_args is not False and bool((mu.abs() > 1).any()):
                raise InputError("mean must lie in [-1, 1]; a probability p of +1 is the mean 2 p - 1")
            self.natural = torch.atanh(mu)
        super().__init__(self.natural.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SignedBernoulli:
        expanded = type(self)(natural=self.natural.expand(batch_shape), validate_args=False)
        expanded._validate_args = self._validate_args
        return expanded

    @property
    def mean(self) -> Tensor:
        return torch.tanh(self.natural)

    @property
    def mode(self) -> Tensor:
        return sign(self.natural.detach())

    @property
    def variance(self) -> Tensor:
        return torch.exp(log_sech2(self.natural))

    def draw(self, *, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """One ±1 value per coin; `noise` is uniform in [0, 1), see `varbnn.kernels.draw_signs`."""
        return draw_signs(self.natural, noise=noise, generator=generator)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return draw_signs(self.natural.expand(self._extended_shape(torch.Size(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # a certain face has log-probability 0 even though λ is infinite
        return torch.where(value * self.natural == math.inf, 0.0, logsigmoid(2 * value * self.natural))

    def entropy(self) -> Tensor:
        magnitude = self.natural.abs()
        finite = torch.where(magnitude == math.inf, 0.0, magnitude)  # inf · 0 has no gradient, also where it is masked
        tail = torch.where(magnitude == math.inf, 0.0, 2 * finite * torch.sigmoid(-2 * finite))
        return torch.log1p(torch.exp(-2 * magnitude)) + tail

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = torch.tensor([-1.0, 1.0], dtype=self.natural.dtype, device=self.natural.device)
        values = values.reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values


@register_kl(SignedBernoulli, SignedBernoulli)
def _kl_signed_bernoulli(p: SignedBernoulli, q: SignedBernoulli) -> Tensor:
    # log-probabilities of the face that p likes better, and from them those of the other, log σ(-x) = log σ(x) - x: so
    # nearly certain coins compare without forming log(0). In float64, as the terms of nearly equal coins cancel.
    dtype = torch.promote_types(p.natural.dtype, q.natural.dtype)
    wide = torch.float64 if p.natural.device.type != "mps" else torch.float32
    face = sign(p.natural.detach()).to(wide)
    own, others = face * p.natural.to(wide), face * q.natural.to(wide)
    unlikely = torch.sigmoid(-2 * own)
    certain = (unlikely == 0) | (others == -math.inf)  # where the difference below is infinite, or does not count
    difference = torch.where(certain, 0.0, others) - torch.where(certain, 0.0, own)
    total = logsigmoid(2 * own) - logsigmoid(2 * others) + 2 * unlikely * difference
    below = (total.clamp_min(0) - total).detach()  # rounding, which must not cut the gradient
    return (total + below.nan_to_num(0.0)).to(dtype)
