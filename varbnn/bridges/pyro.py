"""Binary networks in Pyro's programs: weights are sample sites, the model's beliefs their guide; extra `pyro`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import register_kl

from varbnn import posteriors
from varbnn.checks import finite_number
from varbnn.errors import InputError, import_extra
from varbnn.nn import BinaryLayer, binary_layers
from varbnn.nn.draws import beliefs_of, holding, with_first

pyro: Any = import_extra("pyro", "pyro")
mixin: Any = import_extra("pyro.distributions.torch_distribution", "pyro").TorchDistributionMixin

__all__ = ["PyroNetwork", "SignedBernoulli"]


class SignedBernoulli(posteriors.SignedBernoulli, mixin):
    """`varbnn.posteriors.SignedBernoulli` for programs in Pyro: a coin with the faces -1 and +1.

    It can be observed, enumerated, and be the prior of a weight. Between its faces the log-probability is the line
    λ w - log(2 cosh λ), so that its gradient in w is λ.

    Args:
        natural, mean, validate_args: as there.

    Raises:
        InputError: as there.

    >>> import pyro
    >>> weight = pyro.sample("weight", SignedBernoulli(natural=torch.zeros(2, 3)).to_event(2))
    >>> weight.shape, bool(weight.abs().eq(1).all())
    (torch.Size([2, 3]), True)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return _line(self.natural, value)


class PyroNetwork:
    """A model with binary layers as a function in a program in Pyro, which samples the weights from their prior.

    Each ±1 weight is a sample site, ``"network.hidden.weight"`` for the layer `hidden`. `guide` samples the same sites
    from the beliefs of the model. ``Trace_ELBO`` and ``TraceMeanField_ELBO`` then train the beliefs in place, and
    `varbnn.predict`, `varbnn.health` and `varbnn.pack` know the trained model as it stands. Real parameters, such as
    biases and batch norms, are optimised as they are; parameters that want no gradient stay out of it. Layers tied by
    one belief are one site.

    What arrives in a belief is the natural gradient of the bound, the one in μ, and its part that comes from the prior
    is exact whatever was drawn (Roeder et al. 2017, "Sticking the Landing"). So a step of plain SGD with the rate ρ is
    the step of `varbnn.optim.BayesBiNN` with lr ρ and temperature 1. Take optimizers of torch or Pyro, not varbnn's
    rules: they add the prior, which is in the bound already. With ``Bernoulli(gradient="euclidean")`` it is the
    gradient in λ, which suits Adam.

    Args:
        network: any module whose binary layers have a `varbnn.posteriors.Bernoulli` that draws signs.
        prior: natural parameter of every weight's prior, 0 for fair coins; or a list with one tensor per layer, such as
            `varbnn.as_prior` of another model.
        temperature: T in T · KL; 1 is Bayes' rule, less is colder. BayesBiNN's lr ρ then is SGD's ρ / T.
        name: in front of the names of sites and parameters.

    Raises:
        InputError: no binary layer, a posterior of another kind, a prior that does not fit, an option out of range.
        MissingExtraError: this module was imported without Pyro.

    >>> import pyro, varbnn as vb
    >>> from pyro.distributions import Categorical
    >>> pyro.clear_param_store()
    >>> net = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    >>> network = PyroNetwork(net)
    >>> def model(x, y):
    ...     logits = network(x)
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("y", Categorical(logits=logits), obs=y)
    >>> x, y = torch.eye(4), torch.tensor([0, 1, 2, 0])
    >>> pyro.infer.Trace_ELBO().differentiable_loss(model, network.guide, x, y).backward()
    >>> net[0].natural.grad.shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        network: nn.Module,
        prior: float | Sequence[Tensor] = 0.0,
        *,
        temperature: float = 1.0,
        name: str = "network",
    ) -> None:
        layers = beliefs_of(network) if isinstance(network, nn.Module) else []
        if not layers:
            raise InputError(f"{type(network).__name__} has no binary layer to sample; call varbnn.binarize first")
        for place, layer in layers:
            _require_signs(place or type(layer).__name__, layer)
        self.network = network
        self.priors = _priors([layer for _, layer in layers], prior)
        self.temperature = finite_number("temperature", temperature, above=0)
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the network with the sampled weights answers; for use in a model.

        Raises:
            InputError: a weight of another shape (it was sampled inside a plate, or for vectorised particles), or other
                tensors stand in Pyro's parameter store under the names of its parameters.
        """
        self._show_parameters()
        weights: dict[BinaryLayer, Tensor] = {}
        for (site, layer), natural in zip(self._sites(), self.priors, strict=True):
            natural = natural.to(layer.belief[0])
            weight = self._sample(site, _Alone(natural.expand(layer.belief[0].shape), site))
            if weight.shape != layer.belief[0].shape:
                raise InputError(f"{site} must be {tuple(layer.belief[0].shape)}, got {tuple(weight.shape)}; {ALONE}")
            weights[layer] = weight
        pairs = list(with_first(layer for _, layer in binary_layers(self.network)))
        with holding([layer for layer, _ in pairs], [weights[first] for _, first in pairs]):
            return self.network(*args, **kwargs)

    def guide(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the same sites from the beliefs; takes the model's arguments and needs none of them.

        Raises:
            InputError: it is called inside a plate, or for vectorised particles.
        """
        return {site: self._sample(site, _Drawn(layer, site)) for site, layer in self._sites()}

    def _sample(self, site: str, law: SignedBernoulli) -> Tensor:
        with pyro.poutine.scale(scale=self.temperature):
            weight: Tensor = pyro.sample(site, law.to_event(len(law.batch_shape)))
        return weight

    def _sites(self) -> Iterator[tuple[str, BinaryLayer]]:
        for place, layer in beliefs_of(self.network):
            yield ".".join(filter(None, (self.name, place, "weight"))), layer

    def _show_parameters(self) -> None:
        """To Pyro, whose optimizers train what a program shows them."""
        for place, parameter in self.network.named_parameters():
            key = f"{self.name}.{place}"
            if parameter.requires_grad and pyro.param(key, parameter).unconstrained() is not parameter:
                raise InputError(
                    f"Pyro's parameter store holds another tensor as {key}, which its optimizers would train in place "
                    "of this network's; call pyro.clear_param_store(), which changes no model, or give another name="
                )


ALONE = "sample one network at a time, outside plates and with vectorize_particles=False"


class _Alone(SignedBernoulli):
    """The law of one network's weights, which plates cannot multiply."""

    def __init__(self, natural: Tensor, site: str, validate_args: bool | None = None) -> None:
        super().__init__(natural=natural, validate_args=validate_args)
        self.site = site

    def expand(self, batch_shape: Any, _instance: Any = None) -> SignedBernoulli:
        if torch.Size(batch_shape) != self.batch_shape:
            raise InputError(
                f"{self.site} must be {tuple(self.batch_shape)}, got plates that ask for {tuple(batch_shape)}; {ALONE}"
            )
        return self


class _Drawn(_Alone):
    """The law that a layer believes in, which draws as the layer does and pulls gradients back onto its belief."""

    has_rsample = True

    def __init__(self, layer: BinaryLayer, site: str) -> None:
        # of the log-probability only the gradient in the draw counts, which reaches the belief through `rsample`; the
        # other part is 0 on average, and would come with the gradient in λ where the natural one is asked for
        super().__init__(layer.posterior.natural(*layer.belief).detach(), site, validate_args=False)
        self.layer = layer

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        if torch.Size(sample_shape):
            raise InputError(f"{self.site} was asked for {tuple(sample_shape)} draws at once; {ALONE}")
        return self.layer.posterior.draw(*self.layer.belief)


@register_kl(_Drawn, posteriors.SignedBernoulli)
def _kl_drawn(p: _Drawn, q: posteriors.SignedBernoulli) -> Tensor:
    # TraceMeanField_ELBO then takes the log-probabilities of the draw, whose gradient is the natural one
    raise NotImplementedError


def _line(natural: Tensor, value: Tensor) -> Tensor:
    """λ w - log(2 cosh λ), also where λ is infinite."""
    certain = natural.abs() == math.inf
    finite = torch.where(certain, 0.0, natural)
    line = finite * value - finite.abs() - torch.log1p(torch.exp(-2 * finite.abs()))
    return torch.where(certain, torch.where(value * natural > 0, 0.0, -math.inf), line)


def _require_signs(place: str, layer: BinaryLayer) -> None:
    posterior = layer.posterior
    if not isinstance(posterior, posteriors.Bernoulli):
        raise InputError(
            f"{place} has the posterior {posterior!r}, which a rule of its own trains; Pyro's optimizers train "
            "varbnn.posteriors.Bernoulli()"
        )
    if posterior.estimator not in ("straight-through", "moments"):
        raise InputError(
            f"{place} has {posterior!r}, whose draws in training are not ±1; give "
            "varbnn.posteriors.Bernoulli(estimator='straight-through')"
        )


def _priors(layers: Sequence[BinaryLayer], prior: float | Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(prior, Sequence):
        prior = [torch.tensor(finite_number("prior", prior, note=", or a list with one tensor per layer"))] * len(
            layers
        )
    if not all(isinstance(value, Tensor) for value in prior):
        raise InputError("prior must be a number, or a list with one tensor per layer such as varbnn.as_prior(model)")
    if len(prior) != len(layers):
        raise InputError(f"prior has {len(prior)} tensors for {len(layers)} binary layers; give one for each, in order")
    for value, layer in zip(prior, layers, strict=True):
        shape = layer.belief[0].shape
        if value.dim() and value.shape != shape:
            raise InputError(f"a prior has shape {tuple(value.shape)}, its weight {tuple(shape)}")
        if not bool(torch.isfinite(value).all()):
            raise InputError("a prior has NaN or infinite entries")
    return [value.detach().clone() for value in prior]
