"""The loop: what it refuses, what it leaves behind, and that a resumed run is the same run."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn import data
from varbnn.errors import CheckpointError, InputError

X, Y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3

pytestmark = pytest.mark.filterwarnings("ignore::varbnn.errors.VarbnnWarning")  # these runs are too short to learn


def network() -> nn.Module:
    return vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))


def run(epochs, checkpoint=None, rule=None):
    torch.manual_seed(0)
    model = network()
    optimizer = (rule or bayes)(model)
    loader = data.batches(X, Y, 16, torch.Generator().manual_seed(1))
    history = vb.fit(model, optimizer, loader, epochs=epochs, checkpoint=checkpoint, progress=False)
    return model, [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def bayes(model: nn.Module) -> torch.optim.Optimizer:
    return vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=64, temperature=0.1)


def assert_same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_resumed_run_ends_bit_for_bit_as_the_uninterrupted_one_flips_included(tmp_path):
    whole, expected = run(4)
    run(2, tmp_path / "run.pt")
    resumed, history = run(4, tmp_path / "run.pt")
    assert_same_state(whole.state_dict(), resumed.state_dict())
    assert history == expected


def test_a_checkpoint_of_another_optimizer_loads_nothing(tmp_path):
    run(1, tmp_path / "run.pt")
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        vb.fit(model, adam, [(X, Y)], epochs=2, checkpoint=tmp_path / "run.pt", progress=False)
    assert_same_state(model.state_dict(), before)
    assert not adam.state


def test_nan_inputs_are_refused_before_they_reach_the_batch_norm_statistics():
    model, bad = network(), X.clone()
    bad[3, 1] = math.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="inputs has NaN"):
        vb.fit(model, bayes(model), [(bad, Y)], epochs=1, progress=False)
    assert_same_state(model.state_dict(), before)


@pytest.mark.parametrize("batch", [{"x": X, "y": Y}, X, (X, Y, Y), (X, 1)], ids=["dict", "tensor", "triple", "int"])
def test_a_loader_that_yields_no_pairs_is_refused(batch):
    model = network()
    with pytest.raises(InputError, match=r"must yield \(inputs, targets\)"):
        vb.fit(model, bayes(model), [batch], epochs=1, progress=False)


def test_a_loader_that_yields_nothing_is_refused():
    model = network()
    with pytest.raises(InputError, match="yielded no batch"):
        vb.fit(model, bayes(model), [], epochs=1, progress=False)


def test_a_layer_used_twice_in_a_model_built_by_hand_draws_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = vb.nn.BinaryLinear(4, 4)
            self.seen = []

        def forward(self, x):
            self.seen.append(self.inner.weight.detach().clone())
            x = self.inner(x)
            self.seen.append(self.inner.weight.detach().clone())
            return self.inner(x)

    model = Twice()
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
    vb.fit(model, optimizer, [(torch.randn(8, 4), torch.arange(8) % 4)] * 2, epochs=1, progress=False)
    first, again, second, _ = model.seen
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
