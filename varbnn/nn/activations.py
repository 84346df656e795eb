"""Binary activations and their surrogate gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from varbnn.bits import sign
from varbnn.checks import finite_number, whole_number
from varbnn.errors import InputError
from varbnn.posteriors import pull_back

SURROGATES = ("clipped", "polynomial", "identity")
GATE_VALUES = ("signs", "bits")


class Sign(nn.Module):
    """sign(x - shift), ±1 with sign(0) = +1, and a surrogate for its gradient.

    Args:
        surrogate: the gradient that stands in for the sign's zero one:
            ``"clipped"`` 1 where |x| ≤ 1, else 0 (Hubara et al. 2016, eq. 4);
            ``"polynomial"`` 2 - 2 |x| where |x| < 1, else 0 (Bi-Real net, Liu et al. 2018, eq. 9);
            ``"identity"`` 1 everywhere.
        channels: learn one shift per channel (dimension 1), as ReActNet's RSign does (Liu et al. 2020, eq. 2);
            combine with ``surrogate="polynomial"``. Absent means no shift.

    Raises:
        InputError: an unknown surrogate, or `channels` that are no whole number ≥ 1.

    >>> x = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    >>> y = Sign("polynomial")(x)
    >>> y.detach()
    tensor([-1.,  1.,  1.])
    >>> y.sum().backward()
    >>> x.grad
    tensor([0., 2., 1.])
    """

    def __init__(self, surrogate: str = "clipped", channels: int | None = None) -> None:
        super().__init__()
        if surrogate not in SURROGATES:
            raise InputError(f"surrogate must be one of {SURROGATES}, got {surrogate!r}")
        count = None if channels is None else whole_number("channels", channels)
        self.surrogate = surrogate
        self.shift = None if count is None else nn.Parameter(torch.zeros(count))

    def forward(self, input: Tensor) -> Tensor:
        if self.shift is not None:
            input = input - self.shift.reshape(-1, *[1] * (input.dim() - 2))
        value = input.detach()
        if self.surrogate == "identity":
            factor = None
        elif self.surrogate == "clipped":
            factor = (value.abs() <= 1).to(value.dtype)
        else:
            factor = (2 - 2 * value.abs()).clamp_min(0)
        return pull_back(sign(value), input, factor)

    def extra_repr(self) -> str:
        return f"{self.surrogate!r}" + ("" if self.shift is None else f", channels={len(self.shift)}")


class Gate(nn.Module):
    """One of two values by magnitude, so that a unit answers to both tails of its input, and a surrogate gradient.

        open:      |x| < width, with `reverse` |x| > width; an input on the edge itself shuts the gate in both
        value:     open +1, shut -1 (``"signs"``) or open 1, shut 0 (``"bits"``)
        surrogate: 1 towards the open side where width/2 < |x| < 3 width/2, else 0; the same for signs and bits

    Meant for inputs of mean 0 and variance 1, as after ``nn.LayerNorm(n, elementwise_affine=False)``: then about a
    third of the units has |x| > 1. Like `Tails` it is even: in a network without biases x and -x get the same answer,
    unless the inputs have a constant beside them, as said there.

    Source: Cottart et al., Active Continual Learning with Metaplastic Binary Bayesian Neural Networks, ICML 2026, whose
    code calls them gate (signs), reversegate (signs, reverse), gateelephant (bits) and reversebinarygate (bits,
    reverse); the last is the one of its main results.

    Args:
        values: ``"signs"`` or ``"bits"``.
        reverse: open in the tails instead of around zero.
        width: of the gate, half of its extent.

    Raises:
        InputError: unknown values, or a width that is not positive and finite.

    >>> x = torch.tensor([-2.0, -1.0, -0.75, 0.0, 1.25], requires_grad=True)
    >>> y = Gate("bits", reverse=True)(x)
    >>> y.detach()
    tensor([1., 0., 0., 0., 1.])
    >>> y.sum().backward()
    >>> x.grad
    tensor([ 0., -1., -1.,  0.,  1.])
    >>> Gate()(x).detach()
    tensor([-1., -1.,  1.,  1., -1.])
    """

    def __init__(self, values: str = "signs", *, reverse: bool = False, width: float = 1.0) -> None:
        super().__init__()
        if values not in GATE_VALUES:
            raise InputError(f"values must be one of {GATE_VALUES}, got {values!r}")
        if not isinstance(reverse, bool):
            raise InputError(f"reverse must be True or False, got {reverse!r}")
        self.values, self.reverse, self.width = values, reverse, finite_number("width", width, above=0)

    def beyond(self, input: Tensor) -> Tensor:
        """How far `input` lies beyond the edge, on the shut side: ≥ 0 where the gate is shut."""
        if self.reverse:
            return input.copysign(-1.0).add_(self.width)  # width - |x|, in two passes over memory
        return input.abs().sub_(self.width)

    def opened(self, input: Tensor) -> Tensor:
        """The values, without a gradient."""
        signs = -sign(self.beyond(input))
        return (signs + 1) / 2 if self.values == "bits" else signs

    def forward(self, input: Tensor) -> Tensor:
        value = input.detach()
        if not torch.is_grad_enabled():
            return self.opened(value)
        inner, outer = self.width / 2, 3 * self.width / 2
        above, below = (value > inner) & (value < outer), (value < -inner) & (value > -outer)
        outwards = above.to(value.dtype) - below.to(value.dtype)
        return pull_back(self.opened(value), input, outwards if self.reverse else -outwards)

    def extra_repr(self) -> str:
        return f"{self.values!r}, reverse={self.reverse}, width={self.width:g}"


class Tails(nn.Module):
    """max(|x| - threshold, 0): a unit answers to both tails of its input and is silent in between.

    It says how far the input lies in a tail, which `Gate` does not, and has an honest gradient. Like `Gate` it is meant
    for inputs of mean 0 and variance 1, and networks of either forget less than networks of ReLU: docs/continual.md.

    An even function: in a network without biases that norms by layer, x and -x get the same answer, and classes that
    are each other's opposite stay at chance. A constant beside the inputs, ``nn.ConstantPad1d((0, 1), c)`` in front of
    a first layer with one input more, breaks that and leaves nothing real to learn; a fifth of √inputs is enough.

    Args:
        threshold: ≥ 0; 0 is the magnitude.

    Raises:
        InputError: a threshold that is negative or not finite.

    >>> Tails()(torch.tensor([-1.5, -0.5, 0.25, 1.0]))
    tensor([0.8000, 0.0000, 0.0000, 0.3000])
    """

    def __init__(self, threshold: float = 0.7) -> None:
        super().__init__()
        self.threshold = finite_number("threshold", threshold, least=0)

    def forward(self, input: Tensor) -> Tensor:
        return (input.abs() - self.threshold).relu()

    def extra_repr(self) -> str:
        return f"threshold={self.threshold:g}"
