"""What every binary layer shares: it owns a belief and draws its ±1 weight from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils import parametrize

from varbnn.errors import InputError
from varbnn.nn.marks import kept, mark, mark_again
from varbnn.nn.misfit import Belief, first_belief, refuse_misfit, require_posterior
from varbnn.nn.pairs import Change, Pair, in_backward, refuse_recomputation
from varbnn.posteriors import Bernoulli, Posterior, SignedBernoulli, mark_belief

PASSING = frozenset(("_pass", "_drawn", "_held", "_common", "_tied", "_pair", "_paired", "_reused", "_last_mode"))
"""Attributes that live for a forward pass or two."""


class BinaryLayer(nn.Module):
    """An ordinary layer whose `weight` is drawn from a posterior over ±1.

    Put before a torch layer in the bases (``class BinaryLinear(BinaryLayer, nn.Linear)``) it takes the layer's weight
    away and puts a belief in its place; everything else, options and bias included, stays the torch layer's. `weight`
    is then

    - in train mode a fresh differentiable draw, one per layer and forward pass of the model (`varbnn.nn.draws`);
    - in eval mode the mode, exactly ±1;
    - inside `varbnn.nn.sampled` the sample that is held there.

    Args:
        *args, **kwargs: those of the torch layer.
        posterior: what is believed about the weight; `Bernoulli()` when absent.
    """

    posterior: Posterior
    twin: type[nn.Module]
    """The torch layer it is the binary form of."""

    def __init__(self, *args: Any, posterior: Posterior | None = None, **kwargs: Any) -> None:
        require_posterior(posterior)
        super().__init__(*args, **kwargs)
        posterior = posterior or Bernoulli()
        self._take_weight(posterior, first_belief(self, posterior, posterior.initial))

    @classmethod
    def adopt(cls, layer: nn.Module, posterior: Posterior, belief: Belief) -> Self:
        """Turn a torch layer into its binary twin, in place: the object, its hooks, options and bias stay.

        Args:
            layer: of exactly the torch class that `cls` is the twin of.
            posterior: what is believed about the weight.
            belief: its tensors, as `first_belief` gives them.
        """
        layer.__class__ = cls
        assert isinstance(layer, cls)
        layer._take_weight(posterior, belief)
        return layer

    def _take_weight(self, posterior: Posterior, values: Belief) -> None:
        weight = self._parameters.pop("weight")
        assert weight is not None
        self.posterior, self.real_dtype = posterior, weight.dtype
        count = len(posterior.names)
        for name, value in zip(posterior.names, values[:count], strict=True):
            self.register_parameter(name, nn.Parameter(value, requires_grad=weight.requires_grad))
        for name, value in zip(posterior.buffer_names, values[count:], strict=True):
            self.register_buffer(name, value)
        # plain attributes, not buffers: a draw lives for one forward pass and is no part of the posterior
        self._pass: int | None = None  # id of the model whose forward pass is under way
        self._drawn: Tensor | None = None
        self._held: Tensor | None = None
        self._common: Tensor | None = None  # noise that the layers of this pass share
        self._tied: tuple[BinaryLayer] | None = None  # it has this belief too, and draws for both in this pass
        self._pair: Pair | None = None  # inside `antithetic`
        self._paired = False  # it drew inside `antithetic` and not since
        self._reused = False
        self._last_mode: Tensor | None = None
        mark(self, self.posterior)
        self.register_load_state_dict_post_hook(mark_again)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight" and "posterior" in self.__dict__:
            raise AttributeError(
                f"the weight of {type(self).__name__} is drawn from its belief and cannot be set; write into "
                f"{self.posterior.names[0]} under torch.no_grad() instead"
            )
        if name in PASSING:
            object.__setattr__(self, name, value)  # written several times in every forward; torch's takes far longer
            return
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        super().register_parameter(name, param)
        # fully_shard, load_state_dict(assign=True), tensor parallelism and the end of a parametrization put another
        # parameter in the place of a belief; without the mark a rule would take it for a real parameter
        if param is not None and "posterior" in self.__dict__ and name in self.posterior.names:
            mark_belief(param, self.posterior, name)

    def __getstate__(self) -> dict[str, Any]:
        # a draw cannot be copied, its graph is not a leaf's; a sample that a copy held would never be let go
        passing = dict.fromkeys(("_pass", "_drawn", "_held", "_common", "_tied", "_pair"))
        return {**self.__dict__, **passing, "_paired": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # deepcopy drops the attributes of parameters, and with them the mark
        mark(self, self.posterior)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # a class without one is given torch's by a parametrization, which goes past both and forbids the first
        kind: Any = type(self).__mro__[1] if parametrize.is_parametrized(self) else type(self)
        copied = self.__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(kind.__getstate__(self), memo))
        return copied

    @property
    def belief(self) -> tuple[Tensor, ...]:
        """The belief's tensors, in the order the posterior's methods take them."""
        names = (*self.posterior.names, *self.posterior.buffer_names)
        return tuple(getattr(self, name) for name in names)

    @property
    def distribution(self) -> SignedBernoulli:
        """The law of each weight, as a torch distribution on {-1, +1}."""
        return self.posterior.distribution(*self.belief)

    # An AttributeError in here makes Module.__getattr__ look for a parameter of that name. There is one while the torch
    # layer's own __init__ runs; later on it would only say that there is none, and hide the error.
    @property
    def weight(self) -> Tensor:
        """The ±1 weight in use: a draw (train mode), the mode (eval mode) or the sample held by `sampled`."""
        posterior = self.posterior
        try:
            return self._weight_in_use()
        except AttributeError as error:
            raise RuntimeError(f"{type(posterior).__name__} gave no weight: {error}") from error

    def _weight_in_use(self) -> Tensor:
        if self._held is not None:
            return self._held
        if not self.training:
            return self.posterior.mode(*self.belief)
        if self._drawn is not None:
            self._reused = True
            return self._drawn
        if self._tied is not None:
            self._reused = True
            return self._tied[0].weight
        if self._pass is None and self._reused and not torch.compiler.is_compiling() and in_backward():
            raise InputError(
                "a binary layer that is used twice in the model, or shares belief or noise with others, was recomputed "
                "by activation checkpointing, which would draw a second weight for it; checkpoint the whole model, or "
                "leave this layer out of it"
            )
        if self._pass is None:
            return self._draw()
        # a first use under no_grad must not cut the gradient of the second; in inference mode there is none to cut
        cut = torch.compiler.is_compiling() or not torch.is_inference_mode_enabled()  # the latter cannot be compiled
        with torch.enable_grad() if cut else nullcontext():
            self._drawn = self._draw()
        return self._drawn

    def _draw(self) -> Tensor:
        if self._common is not None:
            self._reused = True  # a recomputation of this layer alone would draw another weight
            return self.posterior.draw(*self.belief, noise=self._common)
        return self.posterior.draw(*self.belief, noise=self._own_noise())

    def _own_noise(self) -> Tensor | None:
        return self._noise("weight", self.belief[0], self.posterior.noise, self.posterior.opposite)

    def share_noise(self, common: dict[str, Tensor]) -> None:
        """Take the noise of this pass from `common`, or be the one to put it there, where the posterior wants that."""
        key = self.posterior.noise_key
        if key is None or not self.training or self._held is not None:
            self._common = None
            return
        like = self.belief[0]
        if key not in common:
            noise = self._own_noise()
            common[key] = self.posterior.noise(like) if noise is None else noise
        self._common = common[key].to(like)

    def _noise(self, kind: str, like: Tensor, fresh: Change, mirror: Change) -> Tensor | None:
        """The noise that `antithetic` asks for; None outside it."""
        if self._pair is None and not self._paired:
            return None
        refuse_recomputation()
        if self._pair is None:
            self._paired = False
            return None
        if self._pass is None:
            self._pair.end()  # each use of a bare layer is a pass of its own
        return self._pair.noise(kind, like, fresh, mirror)

    def respond(self, inputs: Tensor, operation: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Tensor:
        """What the layer answers: `operation` of inputs, weight and bias.

        Where the posterior gives moments, the output is drawn in train mode and not the weight: each entry by itself,
        from the normal law with its exact mean and variance.
        """
        bias: Tensor | None = self.bias  # type: ignore[assignment]
        moments = self.posterior.moments(*self.belief) if self.training and self._held is None else None
        if moments is None:
            return operation(inputs, self.weight_for(inputs), bias)
        self._refuse_empty(inputs)
        mean, variance = moments
        centre = operation(inputs, mean.to(inputs.dtype) if _is_half(inputs) else mean, bias)
        noise = self._noise("output", centre, torch.randn_like, torch.neg)
        noise = torch.randn_like(centre) if noise is None else noise
        return centre + _spread(inputs, variance, operation, centre.dtype) * noise

    def weight_for(self, inputs: Tensor) -> Tensor:
        """`weight` in the precision of `inputs`, when that is a half precision (±1 is exact in all of them).

        Raises:
            InputError: an empty batch in train mode, which would train on nothing.
        """
        self._refuse_empty(inputs)
        return self.weight.to(inputs.dtype) if _is_half(inputs) else self.weight

    def _refuse_empty(self, inputs: Tensor) -> None:
        if isinstance(inputs, Proxy):
            raise InputError(
                f"a tracer reads this forward, which draws; give it varbnn.freeze(model).eval(), a network of torch's "
                f"own layers, or leave {type(self).__name__} a leaf"
            )
        if self.training and inputs.size(0) == 0:
            raise InputError(
                f"{type(self).__name__} got an empty batch, shape {tuple(inputs.shape)}; skip it, or use drop_last=True"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As torch's, except that a belief never drops below float32: small steps would be lost in it."""
        own = [tensor for _, tensor in kept(self, (*self.posterior.names, *self.posterior.buffer_names))]
        own += [tensor.grad for tensor in own if tensor.grad is not None]
        axes = self.belief[0].dim()

        def keep_precision(tensor: Tensor) -> Tensor:
            if not any(tensor is k for k in own):
                return fn(tensor)
            try:
                result = fn(tensor)
            except RuntimeError:
                if tensor.dim() != axes + 1:
                    raise
                # factors of a weight: channels_last is for its axes, not for the first
                result = fn(tensor.flatten(0, 1)).unflatten(0, tensor.shape[:2])
            return result if torch.finfo(result.dtype).bits >= 32 else tensor.to(result.device)

        super()._apply(keep_precision, recurse)
        self.real_dtype = fn(torch.empty(0, dtype=self.real_dtype, device=self.belief[0].device)).dtype
        mark(self, self.posterior)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        refuse_misfit(self, self.posterior, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def reset_parameters(self) -> None:
        """Start the belief and the bias afresh, as at construction."""
        if "posterior" not in self.__dict__:
            super().reset_parameters()  # type: ignore[misc]
            return
        belief = self.belief
        posterior = self.__dict__.pop("posterior")
        self._parameters["weight"] = nn.Parameter(torch.empty_like(belief[0]))  # lent to the torch layer to initialise
        try:
            super().reset_parameters()  # type: ignore[misc]
        finally:
            start = self._parameters.pop("weight")
            self.posterior = posterior
        with torch.no_grad():
            for tensor, value in zip(belief, posterior.initial(start), strict=True):
                tensor.copy_(value)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, posterior={self.posterior!r}"


def _is_half(inputs: Tensor) -> bool:
    return inputs.dtype in (torch.float16, torch.bfloat16)


def _spread(
    inputs: Tensor, variance: Tensor, operation: Callable[[Tensor, Tensor, Tensor | None], Tensor], dtype: torch.dtype
) -> Tensor:
    """Standard deviation of the outputs."""
    if dtype != torch.float16:
        variance = variance.to(inputs.dtype) if _is_half(inputs) else variance
        return operation(inputs.square(), variance, None).clamp_min(torch.finfo(dtype).tiny).sqrt()
    # squares of float16 overflow from 256 on and vanish below 0.008
    with nullcontext() if inputs.is_meta else torch.autocast(inputs.device.type, enabled=False):
        return _spread(inputs.float(), variance.float(), operation, torch.float32).to(dtype)
