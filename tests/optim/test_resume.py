"""A run that is saved, safely loaded into fresh objects and continued is the run that was never interrupted."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

import varbnn as vb
from varbnn.posteriors import Bernoulli, Point


def network(posterior):
    layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.1), nn.Linear(6, 3))
    return vb.binarize(layers, posterior=posterior)


def bayes(model, *, other):
    prior = 0.5 if other else [torch.full_like(model[0].natural, 0.1), torch.full_like(model[4].natural, -0.1)]
    values = (0.9, 77, 2.0, 0.5) if other else (0.05, 30, 0.1, 0.9)
    settings = dict(zip(("lr", "dataset_size", "temperature", "momentum"), values, strict=True))
    return vb.optim.BayesBiNN(model.parameters(), **settings, prior=prior, real_lr=0.5 if other else 0.02)


def plain_bayes(model, *, other):
    return vb.optim.BayesBiNN(
        model.parameters(), 0.9 if other else 0.05, dataset_size=77 if other else 30, momentum=0.3 * other
    )


def adam(model, *, other):
    return vb.optim.StraightThrough(model.parameters(), 0.5 if other else 0.02, base="sgd" if other else "adam")


def torchs(model, *, other):
    return torch.optim.AdamW(model.parameters(), lr=0.5 if other else 0.02)


PUBLISHED = Bernoulli(estimator="concrete", relaxation=0.05, numerics="reference")
RUNS = {
    "bernoulli": (Bernoulli(), bayes),
    "bernoulli without momentum": (Bernoulli(), plain_bayes),
    "concrete": (Bernoulli(estimator="concrete", relaxation=0.2), bayes),
    "published numerics": (PUBLISHED, bayes),
    "point": (Point(), adam),
    "torch's AdamW on beliefs": (Bernoulli(), torchs),
}
SCHEDULES = {
    "cosine": lambda o, other: CosineAnnealingLR(o, 5 if other else 20),
    "one cycle": lambda o, other: OneCycleLR(o, max_lr=[0.5 if other else 0.1, 0.05], total_steps=40 if other else 20),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", RUNS)
def test_continues_bit_for_bit(name, schedule):
    if name.startswith("torch") and schedule == "one cycle":
        schedule = "cosine"  # it has one group
    posterior, make = RUNS[name]
    x, y = torch.randn(32, 4), torch.randint(3, (32,))

    def train(model, optimizer, scheduler, steps):
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        return losses

    model = network(posterior)
    optimizer = make(model, other=False)
    scheduler = SCHEDULES[schedule](optimizer, False)
    train(model, optimizer, scheduler, 6)
    file = io.BytesIO()
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    torch.save({**{key: part.state_dict() for key, part in parts.items()}, "rng": torch.get_rng_state()}, file)
    expected = train(model, optimizer, scheduler, 6)

    torch.manual_seed(123)
    fresh = network(posterior)
    built_otherwise = make(fresh, other=True)
    scheduled = SCHEDULES[schedule](built_otherwise, True)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    for key, part in {"model": fresh, "optimizer": built_otherwise, "scheduler": scheduled}.items():
        part.load_state_dict(saved[key])
    torch.set_rng_state(saved["rng"])
    assert train(fresh, built_otherwise, scheduled, 6) == expected
    for (key, value), other in zip(model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


def test_nothing_that_a_run_depends_on_is_an_attribute_of_the_optimizer():
    # what is not in state_dict() may only concern groups that are still to be added, and warnings
    model = network(Bernoulli())
    own = vars(bayes(model, other=False)).keys() - vars(torch.optim.SGD(model.parameters(), lr=1.0)).keys()
    assert own == {"_real", "_warned", "_listed"}
