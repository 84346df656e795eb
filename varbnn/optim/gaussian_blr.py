"""The Bayesian learning rule for weights that are signs of normal latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from varbnn.errors import InputError
from varbnn.optim.bayesbinn import check_bayes
from varbnn.optim.decisions import Descend, DescendByPrecision
from varbnn.optim.filters import Momentum
from varbnn.optim.forgetting import CoinPull, LatentPull, PairPull
from varbnn.optim.parts import Group, OneOf, must_be
from varbnn.optim.rule import Params, Rule
from varbnn.optim.whole import require_in_row, require_whole, shared_option
from varbnn.posteriors import Gaussian, belief_of


class GaussianBLR(Rule):
    """Natural-gradient variational inference over latents z ~ N(m, 1/S) of which the weights are the signs.

    With N = dataset_size, T = temperature, s₀ = prior_precision, m₀ = prior, G = p.grad of the location, h = p.grad
    of the precision and ρ = lr, by the form of the posterior:

        fixed      m ← m - ρ ((N/T) G + s₀ (m - m₀))
        learned    δ = s₀ + (N/T) h - S;  x = ρ δ / S
                   S ← S (1 + x + x²/2);  m ← m - ρ ((N/T) G + s₀ (m - m₀)) / S
        natural    u ← u - ρ ((N/T) p.grad + f(u) (λ(u) - λ₀))

    Fixed is SGD on latent weights with weight decay s₀ T/N, its gradient seen through the window 2 φ(m) of the
    posterior. Learned is the rule for the whole family, whose second-order term keeps S positive. Natural minimises
    dataset_size · E[mean loss] + temperature · KL of the coins in the coordinate u, with f as in `Gaussian`; λ₀ is the
    coin of N(m₀, 1/s₀), so that s₀ does not matter for m₀ = 0. In the two others the divergence is that of the latents.

    Momentum averages each whole step direction over time, past its start-up bias: pull included, and δ as well.

    A group holds posteriors of one form, which the rule writes into the group's ``form``. For the learned form it
    takes location and precision of a layer in a row, as ``model.parameters()`` gives them, and moves a pair as a whole.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        lr: of the beliefs, in [0, 1].
        dataset_size: number of training examples, which turns the mean loss into a sum.
        temperature: of the posterior, positive; 1 is Bayes, less is colder (more confident).
        prior_precision: s₀, positive.
        momentum: β in [0, 1).
        prior: m₀; a number for all weights, or one tensor per belief parameter (`varbnn.as_prior`), kept in the state.
            For the learned form those are m₀ and s₀ of each weight.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise the objective instead of minimising the loss.

    Raises:
        InputError: a value out of range, no belief among the parameters, one that is not Gaussian, forms that differ
            in one group, or a location without its precision.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.Gaussian("learned"))
    >>> optimizer = GaussianBLR(model.parameters(), lr=0.1, dataset_size=100)
    >>> [(group["kind"], len(group["params"])) for group in optimizer.param_groups]
    [('belief', 2), ('real', 1)]
    """

    posterior = Gaussian
    source = "Lin, Schmidt, Khan 2020"
    of_posteriors = ("form",)
    filter = Momentum()
    forgetting = OneOf("form", {"fixed": LatentPull(), "learned": PairPull(), "natural": CoinPull()})
    decision = OneOf("form", {"fixed": Descend(), "learned": DescendByPrecision(), "natural": Descend()})

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        dataset_size: int,
        temperature: float = 1.0,
        prior_precision: float = 1.0,
        momentum: float = 0.0,
        prior: float | Sequence[Tensor] = 0.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = dict(lr=lr, dataset_size=dataset_size, temperature=temperature, momentum=momentum)
        defaults |= dict(prior_precision=prior_precision, form="fixed")
        super().__init__(
            params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, prior=prior, maximize=maximize
        )

    def gain(self, group: Group) -> float:
        return float(group["dataset_size"] / group["temperature"])

    def together(self, group: Group) -> int:
        return 2 if group["form"] == "learned" else 1

    def check(self, group: Group) -> None:
        check_bayes(group)
        strength = group["prior_precision"]
        must_be(group, "prior_precision", 0 < strength < math.inf, "positive and finite")

    def _add_split(self, param_group: dict[str, Any], split: dict[str, list[Any]]) -> None:
        beliefs = [item[1] if isinstance(item, tuple) else item for item in split["belief"]]
        super()._add_split({**param_group, "form": form_of(beliefs)}, split)

    def _write(self, name: str, values: Sequence[Tensor], start: int = 0) -> None:
        beliefs = [p for group in self._belief_groups(start) for p in group["params"]]
        for belief, value in zip(beliefs, values, strict=False):
            mark = belief_of(belief)
            if name == "prior" and mark and mark.name == "precision" and not bool((value > 0).all()):
                raise InputError("a prior of a precision has entries that are not positive")
        super()._write(name, values, start)

    def _refuse(self, work: list[tuple[Group, list[Tensor]]]) -> None:
        super()._refuse(work)
        for group, _ in work:
            if group["kind"] == "belief" and group["form"] == "learned":
                require_whole(group["params"], ("location", "precision"), CONSTANT)


def form_of(beliefs: list[Tensor]) -> str:
    """The form that all of `beliefs` have, which for pairs must stand in their order; "fixed" where there are none.

    Raises:
        InputError: they differ, or a location is not followed by its precision.
    """
    form: str = shared_option(beliefs, Gaussian, "form", "fixed")
    if form == "learned":
        require_in_row(beliefs, ("location", "precision"))
    return form


CONSTANT = "for a constant precision use Gaussian('fixed')"
