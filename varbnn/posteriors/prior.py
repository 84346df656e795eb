"""What was believed, as the prior of what comes next."""

from __future__ import annotations

from torch import Tensor, nn

from varbnn.checks import finite_belief, finite_number, require
from varbnn.posteriors.base import belief_of


def as_prior(model: nn.Module, strength: float = 1.0) -> list[Tensor]:
    """Copies of the beliefs of `model`, in the order of its parameters: what today believed, as tomorrow's prior.

    Give it to the next optimizer, and to `varbnn.health` to measure divergence from it. An optimizer with parameter
    groups takes the beliefs in the order of its groups: ``prior=[*as_prior(head), *as_prior(body)]``.

    Args:
        model: holds beliefs.
        strength: the power to which the posterior is raised (`Posterior.raised`): above 1 it holds on to more, below 1
            to less.

    Raises:
        InputError: `model` holds no belief or one that is not finite, a strength that is not positive, or one for a
            posterior without powers.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Linear(3, 2))
    >>> optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=10, prior=as_prior(model))
    """
    strength = finite_number("strength", strength, above=0)
    for name, parameter in model.named_parameters():
        if belief_of(parameter) is not None:
            finite_belief(name.rpartition(".")[0] or type(model).__name__, [parameter])
    marks = [(p.detach().clone(), mark) for p in model.parameters() if (mark := belief_of(p)) is not None]
    require(len(marks) > 0, f"{type(model).__name__} holds no belief to make a prior of; call varbnn.binarize first")
    if strength == 1:
        return [value for value, _ in marks]
    prior: list[Tensor] = []
    while marks:
        posterior = marks[0][1].posterior
        count = len(posterior.names)
        prior += posterior.raised(*(value for value, _ in marks[:count]), power=strength)
        del marks[:count]
    return prior
