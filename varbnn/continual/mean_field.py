"""The float twin: a Gaussian over every real weight, with yesterday's posterior as today's prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varbnn.checks import finite_number
from varbnn.continual.strategies import Strategy, require_keys
from varbnn.continual.tasks import Task
from varbnn.errors import CheckpointError, InputError
from varbnn.nn.batchnorm import Data, batchnorm_preserved, batchnorms, device_of, refresh_batchnorm
from varbnn.nn.draws import evaluating
from varbnn.predict import Prediction

NAMES = ("weight", "bias")
BATCH = 1000  # inputs per forward pass of a prediction


class MeanFieldLayer(nn.Module):
    """A torch layer whose weight and bias are independent Gaussians; ``weight`` and ``bias`` hold the means.

    In train mode its outputs are drawn instead of its weights, each by itself (the local reparametrisation of Kingma et
    al. 2015; of a convolution it is an approximation). In eval mode it uses the means, or the weights held by `held`.
    """

    held: dict[str, Tensor] | None
    init_sd: float

    def reset_parameters(self) -> None:
        """Start afresh: means as torch starts weights, deviations as at first."""
        super().reset_parameters()  # type: ignore[misc]
        for name, _, _ in self.gaussians():
            nn.init.constant_(getattr(self, f"{name}_log_sd"), math.log(self.init_sd))

    def gaussians(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, mean and standard deviation of the weight, and of the bias if there is one."""
        for name in NAMES:
            mean = getattr(self, name)
            if mean is not None:
                yield name, mean, getattr(self, f"{name}_log_sd").exp()

    def operate(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer does with a weight and a bias."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        if self.held is not None:
            return self.operate(inputs, self.held["weight"], self.held.get("bias"))
        means = {name: mean for name, mean, _ in self.gaussians()}
        centre = self.operate(inputs, means["weight"], means.get("bias"))
        if not self.training:
            return centre
        variances = {name: sd.square() for name, _, sd in self.gaussians()}
        variance = self.operate(inputs.square(), variances["weight"], variances.get("bias"))
        return centre + variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt() * torch.randn_like(centre)


class MeanFieldLinear(MeanFieldLayer, nn.Linear):
    """`torch.nn.Linear` with Gaussian weights."""

    def operate(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(inputs, weight, bias)


class MeanFieldConv2d(MeanFieldLayer, nn.Conv2d):
    """`torch.nn.Conv2d` with Gaussian weights."""

    def operate(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(inputs, weight, bias)


TWINS: dict[type[nn.Module], type[MeanFieldLayer]] = {nn.Linear: MeanFieldLinear, nn.Conv2d: MeanFieldConv2d}


def mean_field(model: nn.Module, init_sd: float = 0.05) -> nn.Module:
    """Give every linear and 2-d convolution layer of `model` Gaussian weights, in place; the rest stays as it is.

    Args:
        model: of torch's own layers; its weights become the means.
        init_sd: standard deviation that every weight starts with.

    Returns:
        `model` itself.

    Raises:
        InputError: an `init_sd` that is not positive, a model without such a layer.

    >>> model = mean_field(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)))
    >>> [name for name, _ in model[0].named_parameters()]
    ['weight', 'bias', 'weight_log_sd', 'bias_log_sd']
    """
    init_sd = finite_number("init_sd", init_sd, above=0)
    chosen = [module for module in model.modules() if type(module) in TWINS]
    if not chosen:
        raise InputError(
            f"{type(model).__name__} has no layer to make mean-field; known are Linear and Conv2d of torch"
        )
    for module in chosen:
        for name in NAMES:
            mean = getattr(module, name)
            log_sd = None if mean is None else nn.Parameter(torch.full_like(mean, math.log(init_sd)))
            module.register_parameter(f"{name}_log_sd", log_sd)
        module.__class__ = TWINS[type(module)]
        assert isinstance(module, MeanFieldLayer)
        module.held, module.init_sd = None, init_sd
    return model


class MeanField(Strategy):
    """Variational continual learning over real weights (Nguyen et al. 2018): the float twin of `PosteriorAsPrior`.

        mean loss + temperature · KL(posterior ‖ posterior after the task before) / number of examples

    For a model from `mean_field`. Other parameters, such as those of normalisation, are trained without a penalty.

    Args:
        optimizer: (model, task) → optimizer, such as Adam.
        prior_sd: of the prior of the first task, N(0, prior_sd²).
        temperature: of the posterior, as of `varbnn.optim.BayesBiNN`.

    Raises:
        InputError: an argument that is not positive, a model without mean-field layers.

    >>> from varbnn import continual, data
    >>> stream = continual.split(data.load("digits"))[:2]
    >>> vcl = MeanField(lambda model, task: torch.optim.Adam(model.parameters(), lr=0.01))
    >>> result = continual.learn(mean_field(nn.Linear(64, 10)), stream, vcl, epochs=2, progress=False)
    >>> vcl.bytes_kept() == 2 * 650 * 4
    True
    """

    def __init__(
        self,
        optimizer: Callable[[nn.Module, Task], torch.optim.Optimizer],
        prior_sd: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        self.prior_sd = finite_number("prior_sd", prior_sd, above=0)
        self.temperature = finite_number("temperature", temperature, above=0)
        self.optimizer = optimizer
        self._prior: list[tuple[Tensor, Tensor]] = []  # (mean, standard deviation), in the order of the layers
        self._examples = 1

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "prior_sd": self.prior_sd, "temperature": self.temperature}

    def begin(self, model: nn.Module, task: Task, number: int) -> torch.optim.Optimizer:
        if not layers_of(model):
            raise InputError(f"{type(model).__name__} has no mean-field layer; call varbnn.continual.mean_field first")
        if number == 0:
            self._prior = []  # that of another run
        own, held = ([mean.shape for mean, _ in pairs] for pairs in (_gaussians(model), self._prior))
        if held and held != own:
            given = f"shapes {[tuple(shape) for shape in held]}, the model's are {[tuple(shape) for shape in own]}"
            raise CheckpointError(f"the prior of MeanField has {given}; load the state of a run with such a model")
        self._examples = len(task)
        return self.optimizer(model, task)

    def penalty(self, model: nn.Module) -> Tensor:
        return self.temperature / self._examples * self.divergence(model)

    def divergence(self, model: nn.Module) -> Tensor:
        """KL from the prior, summed over all weights, in nats."""
        total = torch.zeros((), device=device_of(model))
        for index, (mean, sd) in enumerate(_gaussians(model)):
            if self._prior:
                centre, spread = (tensor.to(mean.device) for tensor in self._prior[index])
            else:
                centre, spread = torch.zeros_like(mean), torch.full_like(mean, self.prior_sd)
            ratio = (sd / spread).square()
            total = total + 0.5 * (ratio + ((mean - centre) / spread).square() - 1 - ratio.log()).sum()
        return total

    def end(self, model: nn.Module, task: Task, number: int) -> None:
        self._prior = [(mean.detach().clone(), sd.detach().clone()) for mean, sd in _gaussians(model)]

    @torch.no_grad()
    def predict(
        self, model: nn.Module, x: Tensor, num_samples: int, refresh_bn: Data | None, generator: torch.Generator
    ) -> Prediction:
        device, probs = device_of(model), []
        with evaluating(model), batchnorm_preserved(model):
            for _ in range(num_samples):
                with held(model, generator):
                    if refresh_bn is not None and batchnorms(model):
                        refresh_batchnorm(model, refresh_bn)
                    logits = torch.cat([model(part.to(device, copy=True)) for part in x.split(BATCH)])
                    probs.append(logits.softmax(-1).cpu())
        return Prediction(torch.stack(probs))

    def bytes_kept(self) -> int:
        return sum(tensor.nbytes for pair in self._prior for tensor in pair)

    def state_dict(self) -> dict[str, Any]:
        return {"prior": [list(pair) for pair in self._prior]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require_keys(state, {"prior"}, self)
        self._prior = [(mean, sd) for mean, sd in state["prior"]]


def layers_of(model: nn.Module) -> list[MeanFieldLayer]:
    """The mean-field layers of `model`; one used twice comes once."""
    return [module for module in model.modules() if isinstance(module, MeanFieldLayer)]


def _gaussians(model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    for layer in layers_of(model):
        for _, mean, sd in layer.gaussians():
            yield mean, sd


@contextmanager
def held(model: nn.Module, generator: torch.Generator | None = None) -> Iterator[None]:
    """Hold one drawn network inside."""
    layers = layers_of(model)
    try:
        for layer in layers:
            layer.held = {
                name: mean + sd * torch.randn(mean.shape, generator=generator).to(mean)
                for name, mean, sd in layer.gaussians()
            }
        yield
    finally:
        for layer in layers:
            layer.held = None
