"""Sums of ±1 weights that nothing keeps small are named, with what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from varbnn.errors import VarbnnWarning
from varbnn.nn.scaling import unnormalised, unscaled_head


def network(*end: nn.Module, skip: tuple[str, ...] = ()) -> nn.Module:
    hidden = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU())
    return vb.binarize(nn.Sequential(hidden, *end), skip=skip)


@pytest.mark.parametrize(
    "end", [(), (nn.Dropout(),), (nn.LogSoftmax(1),), (nn.Identity(), nn.Dropout())], ids=lambda end: str(len(end))
)
def test_sums_of_many_values_at_the_end_are_named(end):
    lack = unscaled_head(network(nn.Linear(64, 10), *end))
    assert lack is not None
    assert "1 (BinaryLinear) ends in sums of 64 values" in lack
    assert "nn.BatchNorm1d(10) or varbnn.nn.Scale(10, initial=0.12) behind it" in lack
    assert "skip=['1']" in lack


def test_what_it_says_to_do_is_enough():
    ends = [nn.BatchNorm1d(10)], [vb.nn.Scale(10, initial=0.12)], [nn.Sequential(nn.Dropout(), nn.BatchNorm1d(10))]
    assert [unscaled_head(network(nn.Linear(64, 10), *end)) for end in ends] == [None] * 3
    assert unscaled_head(network(nn.Linear(64, 10), skip=("1",))) is None
    assert unscaled_head(network(vb.nn.Scale(64, initial=0.12), nn.Linear(64, 10))) is None


def test_what_cannot_be_seen_or_is_small_is_left_alone():
    class Own(nn.Sequential):
        def forward(self, x):
            return super().forward(x) / 8

    assert unscaled_head(vb.binarize(Own(nn.Linear(64, 10)))) is None
    assert unscaled_head(vb.binarize(nn.Linear(63, 10))) is None
    assert unscaled_head(nn.Sequential(nn.Linear(64, 10))) is None
    assert unscaled_head(nn.Sequential()) is None


def test_summary_and_fit_say_so():
    model = network(nn.Linear(64, 3))
    lack = unscaled_head(model)
    said = vb.summary(model)
    assert said.lacks == (lack,)
    assert " ".join(str(said).split("Note: ")[1].split()) == f"{lack}."
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
    with pytest.warns(VarbnnWarning, match="too large for logits"):
        vb.fit(model, optimizer, [(torch.randn(8, 20), torch.tensor([0, 1] * 4))], epochs=1, loss=F.cross_entropy)
    divided = [(torch.randn(8, 20), torch.tensor([0, 1] * 4))]
    vb.fit(model, optimizer, divided, epochs=1, loss=lambda logits, y: F.cross_entropy(logits / 8, y))  # as one likes
    assert str(unscaled_head(vb.binarize(nn.Linear(64, 2)))).startswith("the model (BinaryLinear) ends in sums of 64")


class Tutorial(nn.Module):
    """What one comes with, and what it needs: a norm behind its hidden layers."""

    def __init__(self, *norms: nn.Module, width: int = 64):
        super().__init__()
        self.a, self.b = nn.Linear(20, width), nn.Linear(width, 3)
        self.norms = nn.ModuleList(norms)

    def forward(self, x):
        hidden = F.relu(self.a(x))
        for norm in self.norms:
            hidden = norm(hidden)
        return self.b(hidden)


def test_a_network_that_normalises_nothing_is_named_of_any_class_and_loss():
    model = vb.binarize(Tutorial())
    lack = unnormalised(model)
    assert lack is not None
    assert lack.startswith("no layer normalises: binary layers give sums of up to 64 values")
    assert vb.summary(model).lacks == (lack,)
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
    with pytest.warns(VarbnnWarning, match="BatchNorm or LayerNorm behind every hidden binary layer"):
        vb.fit(model, optimizer, [(torch.randn(8, 20), torch.randn(8, 3))], epochs=1, loss=F.mse_loss)
    assert unnormalised(vb.binarize(Tutorial(), skip=("b",))) is None  # its sums have 20 terms
    assert unnormalised(vb.binarize(Tutorial(vb.nn.Scale(64)))) == lack  # not one for each binary layer


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(64), nn.LayerNorm(64), nn.GroupNorm(2, 64)], ids=repr)
def test_with_a_normalisation_nothing_is_said(norm):
    assert unnormalised(vb.binarize(Tutorial(norm))) is None


def test_scales_behind_each_layer_small_sums_and_lone_layers_are_left_alone():
    assert unnormalised(vb.binarize(Tutorial(vb.nn.Scale(64), vb.nn.Scale(64)))) is None
    assert unnormalised(vb.binarize(Tutorial(width=32))) is None
    assert unnormalised(vb.binarize(nn.Linear(64, 3))) is None  # whose end is named
    assert unnormalised(Tutorial()) is None
