"""What every posterior over ±1 weights can do, and how a parameter says that it is a belief."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from varbnn.bits import sign
from varbnn.checks import require
from varbnn.errors import InputError
from varbnn.kernels import opposite, uniform
from varbnn.posteriors.signed_bernoulli import SignedBernoulli


class _PullBack(torch.autograd.Function):
    """The weight in the forward pass; factor · (gradient in the weight) for each parameter in the backward pass.

    Takes the weight, and then parameters and factors in turn.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, *pairs: Tensor | None) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[2::2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        result: list[Tensor | None] = [None]
        for factor in ctx.saved_tensors:
            result += [gradient if factor is None else gradient * factor, None]
        return tuple(result)


class _PullBackInForwardMode(_PullBack):
    """The same with forward-mode derivatives; torch.compile takes no function that has them."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _PullBack.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[2::2])
        ctx.dims = inputs[0].dim()

    @staticmethod
    def jvp(ctx: Any, _: Tensor | None, *tangents: Tensor | None) -> Tensor | None:
        total: Tensor | None = None
        for tangent, factor in zip(tangents[::2], ctx.saved_tensors, strict=True):
            if tangent is not None:
                part = tangent if factor is None else tangent * factor
                extra = tuple(range(part.dim() - ctx.dims))  # axes of factors, before those of the weight
                part = part.sum(extra) if extra else part
                total = part if total is None else total + part
        return total


# torch asks for it at every call, which takes longer than the rest of the call
_PullBack.forward.__signature__ = inspect.signature(_PullBack.forward)  # type: ignore[attr-defined]


def pull_back(
    weight: Tensor, parameter: Tensor, factor: Tensor | None = None, *others: tuple[Tensor, Tensor | None]
) -> Tensor:
    """`weight`, with the gradient that arrives at it handed on to `parameter`, times `factor`.

    The gradient is *replaced*, not derived: this is where a loss gradient becomes a natural gradient.

    Args:
        weight: the value in the forward pass.
        parameter: receives the gradient; shaped like `weight`, or as weight · factor is.
        factor: elementwise multiplier; absent means 1 (straight-through).
        *others: further parameters, each with its factor, where a belief has several.

    >>> latent = torch.tensor([0.3, -2.0], requires_grad=True)
    >>> pull_back(sign(latent.detach()), latent).sum().backward()
    >>> latent.grad
    tensor([1., 1.])
    """
    flat = [tensor for pair in others for tensor in pair]
    function = _PullBackInForwardMode if _in_forward_mode() else _PullBack
    result: Tensor = function.apply(weight, parameter, factor, *flat)
    return result


@dataclass(frozen=True)
class Belief:
    """The mark on a parameter that holds a belief: which posterior it belongs to and under which name.

    Optimizers look for it (`belief_of`), because they see parameters and not layers.
    """

    posterior: Posterior
    name: str


def belief_of(parameter: Tensor) -> Belief | None:
    """The mark of a belief parameter, or None for an ordinary real parameter.

    >>> belief_of(nn.Parameter(torch.zeros(2))) is None
    True
    """
    mark = getattr(parameter, "belief", None)
    return mark if isinstance(mark, Belief) else None


def mark_belief(parameter: nn.Parameter, posterior: Posterior, name: str) -> None:
    """Mark `parameter` as the belief `name` of `posterior`; layers do this for their own."""
    parameter.belief = Belief(posterior, name)  # type: ignore[attr-defined]


class Posterior(ABC):
    """How ±1 weights are drawn from a belief, and how a gradient is pulled back onto it.

    A posterior holds hyper-parameters only, so it is immutable and one object may serve many layers. The belief
    itself is tensors, which the layer owns and passes in, in the order of `names` and then `buffer_names`. The first
    is shaped like the weight; another may have axes of its own before those of the weight.
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The belief's parameters; these are attributes of the layer and keys of its state."""

    @property
    def buffer_names(self) -> tuple[str, ...]:
        """Tensors the posterior keeps beside its parameters without training them."""
        return ()

    @property
    def independent(self) -> bool:
        """Whether the weights of one draw are independent, so that `natural` says all about their joint law."""
        return True

    @property
    def certain(self) -> bool:
        """Whether it is one network by construction, so that no draw differs from the mode, whatever the belief."""
        return False

    @property
    def noise_key(self) -> str | None:
        """Layers of one model whose posteriors name the same key share their noise; None: each has its own."""
        return None

    @abstractmethod
    def initial(self, weight: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """A belief to start from, given the real weight that an ordinary layer would start from."""

    @abstractmethod
    def from_weight(
        self, weight: Tensor, strength: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """A belief whose mode is sign(weight) and whose typical confidence is `strength`."""

    @abstractmethod
    def draw(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Training weights, differentiable: their gradient arrives at the belief as its natural gradient."""

    def moments(self, *belief: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of each weight, differentiable as `draw` is, where layers are to draw their output.

        None, as here, where they are to draw the weight.
        """
        return None

    @abstractmethod
    def natural(self, *belief: Tensor) -> Tensor:
        """λ of the marginal law of each weight, P(+1) = sigmoid(2 λ); ±inf for a point."""

    def noise(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fresh noise for one draw of weights shaped like `like`, as `draw` and `sample` take it."""
        return uniform(like, generator)

    def opposite(self, noise: Tensor) -> Tensor:
        """The noise of the antithetic draw."""
        return opposite(noise)

    def sample(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Exact ±1 weights from the posterior, drawn jointly, without gradient."""
        with torch.no_grad():
            return self.distribution(*belief).draw(noise=noise, generator=generator)

    def distribution(self, *belief: Tensor) -> SignedBernoulli:
        """The marginal law of each weight, as a torch distribution on {-1, +1}.

        Raises:
            InputError: more or fewer tensors than a belief has; buffers may be left out.
        """
        if len(belief) not in (len(self.names), len(self.names) + len(self.buffer_names)):
            own = ", ".join(self.names)
            raise InputError(
                f"a belief of {self!r} is ({own}), got {len(belief)} tensors; what it is compared with goes by name, "
                f"as in kl({own}, prior=({own},))"
            )
        return SignedBernoulli(natural=self.natural(*belief), validate_args=False)

    def mean(self, *belief: Tensor) -> Tensor:
        """E[w], in [-1, 1]."""
        return self.distribution(*belief).mean

    def mode(self, *belief: Tensor) -> Tensor:
        """The most probable weight, exactly ±1; +1 at a tie. The gradient passes straight through."""
        value = self._mode(*belief)
        wanted = (belief[0].requires_grad and torch.is_grad_enabled()) or _in_forward_mode()
        return pull_back(value, belief[0]) if wanted else value

    def _mode(self, *belief: Tensor) -> Tensor:
        return sign(belief[0].detach())

    def entropy(self, *belief: Tensor) -> Tensor:
        """Entropy of each weight, in nats."""
        return self.distribution(*belief).entropy()

    def kl(self, *belief: Tensor, prior: tuple[Tensor, ...] | None = None) -> Tensor:
        """Divergence of each weight's law from that of the belief `prior` (fair coins when absent), in nats.

        Its gradient is the one in the belief's own numbers. As a term of a loss it goes with draws whose gradient is so
        too, ``gradient="euclidean"``; beside natural gradients the rule has the pull to the prior.

        Args:
            *belief: the belief's tensors.
            prior: those of another belief of this posterior, as a tuple.

        Raises:
            InputError: either is no belief of this posterior.

        >>> import varbnn as vb
        >>> vb.posteriors.Bernoulli().kl(torch.tensor([0.0, 1.0]), prior=(torch.tensor([1.0, 1.0]),))
        tensor([0.4338, 0.0000])
        """
        here = self.distribution(*belief)
        a_belief = prior is None or isinstance(prior, tuple | list)
        require(a_belief, "prior is a tuple, as a belief may have several tensors: prior=(natural,) for a Bernoulli")
        other = torch.zeros_like(here.natural) if prior is None else self.distribution(*prior).natural
        return torch.distributions.kl_divergence(here, SignedBernoulli(natural=other, validate_args=False))

    def log_prob(self, *belief: Tensor, weight: Tensor) -> Tensor:
        """Log-probability of each ±1 weight, in nats."""
        return self.distribution(*belief).log_prob(weight)

    def raised(self, *belief: Tensor, power: float) -> tuple[Tensor, ...]:
        """The belief whose law is that of `belief` to this power, normalised.

        Raises:
            InputError: this posterior's laws have no powers that are beliefs.
        """
        raise InputError(f"a {type(self).__name__} cannot be raised to a power, got {power:g}; leave it at 1")

    def __repr__(self) -> str:
        """Only what differs from the default, as one would type it."""
        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) != f.default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def _in_forward_mode() -> bool:
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def in_units_of_strength(weight: Tensor, strength: float) -> Tensor:
    """`weight` scaled such that its root mean square is `strength`; zeros stay zeros."""
    weight = weight.detach()
    if not weight.count_nonzero():
        return weight * strength
    unit = weight / weight.abs().max()  # so that no square is out of range
    return strength * unit / unit.square().mean().sqrt()
