"""The prior that follows: what the docstring says about it, and what it shares with a plain leak."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from varbnn.errors import InputError
from varbnn.optim import FollowingPrior, WindowedBayes
from varbnn.posteriors import Bernoulli, mark_belief


def belief(start: list[float]) -> nn.Parameter:
    parameter = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    mark_belief(parameter, Bernoulli(), "natural")
    return parameter


def after(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, steps: int) -> torch.Tensor:
    parameter.grad = torch.zeros_like(parameter)
    for _ in range(steps):
        optimizer.step()
    return parameter.detach().clone()


def test_an_example_counts_in_full_then_half_and_is_forgotten_over_twice_the_window():
    parameter = belief([1.0, -2.0])
    rule = FollowingPrior([parameter], lr=1.0, window=1e6, settling=1e3, batch_size=1)
    start = parameter.detach().clone()
    soon = after(rule, parameter, 3_000)
    rule.param_groups[0]["batch_size"] = 20
    later = after(rule, parameter, 1_000)
    torch.testing.assert_close(soon, start / 2, rtol=3e-3, atol=0)  # all but e⁻⁶ of the excess has gone over
    torch.testing.assert_close(later, start / 2 * math.exp(-23_000 / 2e6), rtol=3e-3, atol=0)


def test_with_an_endless_window_belief_and_prior_together_lose_nothing():
    parameter = belief([1.0, -2.0])
    rule = FollowingPrior([parameter], lr=0.5, window=math.inf, settling=200, batch_size=10, prior=0.25)
    after(rule, parameter, 50)
    total = parameter.detach() + rule.state[parameter]["prior"]
    torch.testing.assert_close(total, torch.tensor([1.25, -1.75], dtype=torch.float64))


def test_a_prior_kept_apart_is_a_leak_that_never_leaks():
    generator = torch.Generator().manual_seed(0)
    ours, other = belief([0.5, -1.0]), belief([0.5, -1.0])
    pair = (
        FollowingPrior([ours], lr=0.3, window=100, settling=math.inf, batch_size=5),
        WindowedBayes([other], lr=0.3, window=math.inf, batch_size=5, decay="plain"),
    )
    for _ in range(30):
        gradient = torch.randn(2, dtype=torch.float64, generator=generator)
        for parameter, rule in zip((ours, other), pair, strict=True):
            parameter.grad = gradient.clone()
            rule.step()
    torch.testing.assert_close(ours, other)


def test_a_given_prior_is_copied_and_moves():
    parameter, given = belief([1.0]), torch.tensor([3.0], dtype=torch.float64)
    rule = FollowingPrior([parameter], lr=1.0, window=1e3, settling=100, batch_size=10, prior=[given])
    after(rule, parameter, 1)
    assert rule.state[parameter]["prior"].item() == pytest.approx(0.99 * 2.8)
    assert (parameter.item(), given.item()) == (pytest.approx(1.2), 3.0)


@pytest.mark.parametrize("wrong", [dict(settling=5), dict(window=9), dict(batch_size=0), dict(settling=math.nan)])
def test_a_wrong_setting_is_refused_by_name(wrong):
    settings = dict(lr=1.0, window=1e3, settling=100, batch_size=10) | wrong
    with pytest.raises(InputError, match=next(iter(wrong))):
        FollowingPrior([belief([1.0])], **settings)
