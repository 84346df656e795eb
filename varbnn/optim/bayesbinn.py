"""The Bayesian learning rule for Bernoulli posteriors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from varbnn.optim.decisions import Descend
from varbnn.optim.filters import Momentum
from varbnn.optim.forgetting import PriorPull
from varbnn.optim.parts import Group, must_be
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Bernoulli


class BayesBiNN(Rule):
    """Natural-gradient variational inference over ±1 weights (Meng, Bachmann, Khan 2020, eq. 8).

        g ← (dataset_size / temperature) · p.grad + (λ - λ₀)
        m ← β m + (1 - β) g
        λ ← λ - lr · m / (1 - βᵗ)

    minimises dataset_size · E[mean loss] + temperature · KL(posterior ‖ prior). `lr` is the share of the way to the
    fixed point that one step goes; lr · steps should be well above 1, or the prior is never felt. Clipping p.grad
    clips a natural gradient.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        lr: of the beliefs, in [0, 1].
        dataset_size: number of training examples, which turns the mean loss into a sum.
        temperature: of the posterior, positive; 1 is Bayes, less is colder (more confident). Not the relaxation.
        momentum: β in [0, 1).
        prior: λ₀; a number for all weights, or one tensor per belief parameter (`varbnn.as_prior`), kept in the state.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise the objective instead of minimising the loss.

    Raises:
        InputError: a value out of range, no belief among the parameters, or one that is not Bernoulli.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2)))
    >>> optimizer = BayesBiNN(model.parameters(), lr=1e-3, dataset_size=100)
    >>> [(group["kind"], len(group["params"]), group["lr"]) for group in optimizer.param_groups]
    [('belief', 1, 0.001), ('real', 3, 0.01)]
    """

    posterior = Bernoulli
    source = "Meng, Bachmann, Khan 2020"
    filter = Momentum()
    forgetting = PriorPull()
    decision = Descend()

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        dataset_size: int,
        temperature: float = 1.0,
        momentum: float = 0.0,
        prior: float | Sequence[Tensor] = 0.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, dataset_size=dataset_size, temperature=temperature, momentum=momentum)
        super().__init__(
            params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, prior=prior, maximize=maximize
        )

    def gain(self, group: Group) -> float:
        return float(group["dataset_size"] / group["temperature"])

    def check(self, group: Group) -> None:
        check_bayes(group)


def check_bayes(group: Group) -> None:
    """Raise InputError when a hyper-parameter of the Bayesian learning rule is out of range."""
    must_be(group, "lr", 0 <= group["lr"] <= 1, "in [0, 1] (1 goes all the way to the fixed point)")
    size = group["dataset_size"]
    number = isinstance(size, int | float)
    must_be(group, "dataset_size", number and 0 < size < math.inf, "positive: the number of training examples")
    temperature = group["temperature"]
    must_be(group, "temperature", 0 < temperature < math.inf, "positive and finite (use StraightThrough for a point)")
    must_be(group, "momentum", 0 <= group["momentum"] < 1, "in [0, 1)")
    check_prior(group)


def check_prior(group: Group) -> None:
    """Raise InputError unless the prior of a group is a finite number."""
    prior = group["prior"]
    finite = isinstance(prior, int | float) and math.isfinite(prior)
    must_be(group, "prior", finite, "a finite number (tensors go to the constructor or to add_param_group)")
