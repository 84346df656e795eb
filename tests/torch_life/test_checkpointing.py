"""Activation checkpointing computes the forward pass again and must meet the same draw."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import varbnn as vb
from tests.torch_life.networks import assert_same, batch, gradients
from varbnn.errors import InputError
from varbnn.posteriors import Bernoulli


class Checkpointed(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.first = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.2))
        self.second = nn.Sequential(nn.Linear(16, 16), nn.Tanh())
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        if self.how is None:
            return self.head(self.second(self.first(x)))
        x = checkpoint(self.first, x.requires_grad_(), use_reentrant=self.how)
        return self.head(checkpoint(self.second, x, use_reentrant=self.how))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("estimator", ["straight-through", "concrete", "moments"])
def test_gives_the_gradient_of_the_plain_forward_pass(estimator, reentrant):
    x, y = batch()
    model = vb.binarize(Checkpointed(None), posterior=Bernoulli(estimator=estimator))
    found = []
    for how in (None, reentrant):
        model.how = how
        model.zero_grad()
        torch.manual_seed(1)
        F.cross_entropy(model(x), y).backward()
        found.append(gradients(model))
    assert_same(found[0], found[1])


def test_of_the_whole_model_keeps_one_draw_for_a_layer_used_twice():
    model = vb.binarize(nn.ModuleList([nn.Linear(8, 8)]))
    twice = nn.Sequential(model[0], nn.Tanh(), model[0])
    vb.nn.draw_once_per_forward(twice)
    x = torch.randn(5, 8)
    found = []
    for forward in (twice, lambda x: checkpoint(twice, x, use_reentrant=False)):
        twice.zero_grad()
        torch.manual_seed(2)
        forward(x).square().mean().backward()
        found.append(gradients(twice))
    assert_same(found[0], found[1])


def test_of_one_use_of_a_layer_used_twice_is_refused_before_it_gives_a_wrong_gradient():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x):
            return checkpoint(self.inner, torch.tanh(self.inner(x)), use_reentrant=False)

    model = vb.binarize(Half())
    with pytest.raises(InputError, match="checkpoint the whole model"):
        model(torch.randn(5, 8)).sum().backward()
