"""A state that does not fit is a CheckpointError, whatever it is loaded into, and changes nothing."""

from __future__ import annotations

import copy
import importlib
import pkgutil

import pytest
import torch
from torch import nn

import varbnn as vb
from tests.contracts.rule import members
from varbnn import active, continual, integer
from varbnn.errors import CheckpointError
from varbnn.posteriors import Gaussian, LowRankGaussian


def layer(size=3, posterior=None) -> nn.Module:
    return vb.binarize(nn.Linear(4, size, bias=False), posterior)


def optimizer(member, *sizes):
    """That rule on a layer of each size, a step on its way, so that it remembers something of these shapes."""
    layers = [layer(size, member.posterior) for size in sizes]
    made = member([p for one in layers for p in one.parameters()], **member.settings[0])
    sum(one(torch.ones(2, 4)).sum() for one in layers).backward()
    made.step()
    return made


def other_sizes(member):
    """States of optimizers for more layers, and for one of another size where something of its shape is remembered."""
    yield optimizer(member, 3, 3).state_dict()
    state = optimizer(member, 5).state_dict()
    kept = [value for own in state["state"].values() for value in own.values()]
    if any(isinstance(value, torch.Tensor) and value.dim() for value in kept):
        yield state


def strategy(kind):
    def adam(model, task, prior=None):
        return torch.optim.Adam(model.parameters())

    return kind(adam)


def coreset():
    return continual.Coreset(5, "random")


def replay():
    return continual.Replay(continual.EWC(lambda model, task: None), coreset())


def rehearsal():
    def adam(model, task):
        return torch.optim.Adam(model.parameters())

    return continual.Rehearsal(continual.EWC(adam), coreset(), adam)


def scheduler():
    return vb.optim.Scheduler(torch.optim.SGD([torch.zeros(3)], lr=0.1), lr=vb.optim.Constant(0.1))


def integer_network(*widths, spread=0):
    return integer.IntegerNetwork(widths or (4, 5, 3), spread=spread)


def other_counters():
    """States of networks of other sizes and another spread, and damaged ones."""
    for widths in ((4, 6, 3), (4, 5, 5, 3), (4, 3)):
        yield integer_network(*widths, spread=4).state_dict()
    yield integer_network().state_dict()
    own = integer_network(spread=4).state_dict()
    for damage in (None, 3, torch.ones(2), torch.ones(0)):
        yield own | {"_extra_state": damage}
        yield own | {"layers.1.counter": damage}


SGD = torch.optim.SGD([torch.zeros(3, 4)], lr=0.5).state_dict()
NONE = [{}, None, nn.Linear(2, 2).state_dict()]
CASES = {
    **{
        str(member): (
            lambda member=member: optimizer(member, 3),
            lambda member=member: [*NONE, SGD, *other_sizes(member)],
        )
        for member in members()
    },
    "Scheduler": (scheduler, lambda: [*NONE, SGD]),
    "EWC": (lambda: strategy(continual.EWC), lambda: [*NONE, strategy(continual.MeanField).state_dict()]),
    "MeanField": (lambda: strategy(continual.MeanField), lambda: [*NONE, strategy(continual.EWC).state_dict()]),
    "IntegerNetwork": (lambda: integer_network(spread=4), lambda: [*NONE, *other_counters()]),
    "FineTune": (lambda: strategy(continual.FineTune), lambda: [None]),
    "Replay": (replay, lambda: [*NONE, {"strategy": {}, "coreset": coreset().state_dict()}]),
    "Rehearsal": (rehearsal, lambda: [*NONE, {"strategy": {"springs": []}, "coreset": {}}]),
    "Coreset": (coreset, lambda: [*NONE, continual.Coreset(6, "random").state_dict()]),
    "StreamQuery": (
        lambda: active.StreamQuery(budget=0.1),
        lambda: [*NONE, active.StreamQuery(budget=0.2).state_dict()],
    ),
}
OTHERWISE = {"Rule", "_Springs", "_Remembering", "Strategy"}
"""Bases, of which those above are made."""


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("name", CASES)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(name):
    make, states = CASES[name]
    for state in states():
        item = make()
        before = copy.deepcopy(item.state_dict())
        with pytest.raises(CheckpointError):
            item.load_state_dict(state)
        assert same(item.state_dict(), before)
        item.load_state_dict(before)


def test_whoever_loads_a_state_is_a_case():
    found = set()
    for module in pkgutil.walk_packages(vb.__path__, "varbnn."):
        if not module.name.startswith(("varbnn.cli", "varbnn.__main__", "varbnn.kernels")):
            for name, kind in vars(importlib.import_module(module.name)).items():
                if isinstance(kind, type) and kind.__module__ == module.name and "load_state_dict" in vars(kind):
                    found.add(name)
    assert found - CASES.keys() - OTHERWISE == set(), "give it a case here"


@pytest.mark.parametrize("kind", [continual.EWC, continual.OnlineEWC])
def test_springs_of_another_network_are_refused_before_they_pull(kind):
    made, data = strategy(kind), (torch.ones(8, 4), torch.arange(8) % 2)
    task = continual.Task("one", *data, *data, classes=(0, 1))
    made.end(nn.Linear(4, 2), task, 0)
    with pytest.raises(CheckpointError, match=r"hold weight of shape \(2, 4\), which this model has not"):
        made.begin(nn.Linear(4, 3), task, 1)


def test_a_prior_of_another_network_is_refused_before_it_pulls():
    made, data = strategy(continual.MeanField), (torch.ones(8, 4), torch.arange(8) % 2)
    task = continual.Task("one", *data, *data, classes=(0, 1))
    made.end(continual.mean_field(nn.Linear(4, 2)), task, 0)
    with pytest.raises(CheckpointError, match="the prior of MeanField has shapes"):
        made.begin(continual.mean_field(nn.Linear(4, 3)), task, 1)


def test_the_state_of_a_kept_optimizer_of_another_network_is_refused():
    def kept(size):
        made = continual.FineTune(lambda model, task: torch.optim.SGD(model.parameters(), lr=0.1), keep=True)
        made.begin(nn.Sequential(*[nn.Linear(2, 2) for _ in range(size)]), None, 0)
        return made

    made = kept(1)
    made.load_state_dict(kept(2).state_dict())
    with pytest.raises(CheckpointError, match="belongs to another model or optimizer"):
        made.begin(nn.Sequential(nn.Linear(2, 2)), None, 1)


class TestTheModelItself:
    def test_beliefs_of_another_shape_kind_or_network_are_refused(self):
        model = layer(3)
        for state in (
            layer(5).state_dict(),
            nn.Linear(4, 3, bias=False).state_dict(),
            layer(3, Gaussian()).state_dict(),
            layer(3, LowRankGaussian()).state_dict(),
        ):
            before = copy.deepcopy(model.state_dict())
            with pytest.raises(CheckpointError):
                model.load_state_dict(state)
            assert same(dict(model.state_dict()), dict(before))

    def test_a_stored_posterior_too(self):
        model = layer(3)
        with pytest.raises(CheckpointError, match="the stored posterior is of weights"):
            continual.store(layer(5)).load_into(model)
