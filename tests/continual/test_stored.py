"""A posterior in a few bits: what is lost is at most half a step, and what is kept is kept exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import varbnn as vb
from tests.continual.test_learning import bayes, learned, network, some_task
from varbnn import continual
from varbnn.errors import CheckpointError, InputError


def model_with(*beliefs):
    model = vb.binarize(nn.Sequential(*(nn.Linear(b.shape[1], b.shape[0], bias=False) for b in beliefs)))
    with torch.no_grad():
        for p, belief in zip(model.parameters(), beliefs, strict=True):
            p.copy_(belief)
    return model


def some_beliefs():
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(13, 7, generator=generator), torch.zeros(7, 13), torch.randn(3, 7, generator=generator)]


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_natural_parameter_comes_back_within_half_a_step(bits):
    beliefs = some_beliefs()
    kept = continual.store(model_with(*beliefs), bits, grid="natural")
    for found, own in zip(kept.beliefs(), beliefs, strict=True):
        step = float(own.abs().max()) / (2 ** (bits - 1) - 1)
        assert bool(((found - own).abs() <= step / 2 + 1e-6).all())
        assert torch.equal(found[own == 0], own[own == 0])
        assert float(found.abs().max()) == pytest.approx(float(own.abs().max()), rel=1e-6)


@pytest.mark.parametrize("bits", [2, 5, 8, 16])
def test_every_mean_comes_back_within_half_a_step(bits):
    beliefs = some_beliefs()
    kept = continual.store(model_with(*beliefs), bits, grid="mean")
    for found, own in zip(kept.beliefs(), beliefs, strict=True):
        step = float(own.tanh().abs().max()) / (2 ** (bits - 1) - 1)
        assert bool(((found.tanh() - own.tanh()).abs() <= step / 2 + 1e-6).all())
        assert bool(torch.isfinite(found).all())


def test_one_bit_keeps_the_sign_and_the_mean_size():
    beliefs = some_beliefs()
    kept = continual.store(model_with(*beliefs), 1, grid="natural")
    found = kept.beliefs()[0]
    assert torch.equal(found > 0, beliefs[0] >= 0)
    assert torch.allclose(found.abs(), beliefs[0].abs().mean().expand_as(found))


@pytest.mark.parametrize("bits", [1, 3, 8, 11])
def test_so_many_bits_are_what_it_takes(bits):
    kept = continual.store(model_with(*some_beliefs()), bits)
    assert kept.nbytes == sum(-(-own.numel() * bits // 8) + 8 for own in some_beliefs())


def test_a_very_sure_belief_is_stored_by_its_mean_too():
    own = torch.tensor([[50.0, -200.0, 0.5]])
    found = continual.store(model_with(own), 8, grid="mean").beliefs()[0]
    assert bool(torch.isfinite(found).all())
    assert torch.equal(found.sign(), own.sign())


def test_storing_what_was_stored_changes_nothing():
    model = model_with(*some_beliefs())
    once = continual.store(model, grid="natural").load_into(model).state_dict()
    once = {key: value.clone() for key, value in once.items()}
    twice = continual.store(model, grid="natural").load_into(model).state_dict()
    for key, value in once.items():
        assert torch.allclose(value, twice[key], rtol=1e-6, atol=0)


@pytest.mark.parametrize("grid", ["natural", "mean"])
def test_a_file_gives_the_same_posterior(tmp_path, grid):
    kept = continual.store(model_with(*some_beliefs()), 5, grid)
    kept.save(tmp_path / "kept.pt")
    back = continual.StoredPosterior.load(tmp_path / "kept.pt")
    assert (back.bits, back.grid, back.shapes) == (5, grid, kept.shapes)
    for one, other in zip(back.beliefs(), kept.beliefs(), strict=True):
        assert torch.equal(one, other)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "kept.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"kept\.pt"):
        continual.StoredPosterior.load(path)
    continual.store(model_with(*some_beliefs())).save(path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "bits": 3}, path)
    with pytest.raises(CheckpointError, match="do not fit"):
        continual.StoredPosterior.load(path)


def test_another_network_is_refused_and_left_alone():
    kept, other = continual.store(model_with(*some_beliefs())), model_with(torch.ones(2, 2))
    with pytest.raises(CheckpointError, match="stored posterior is of weights"):
        kept.load_into(other)
    assert torch.equal(next(other.parameters()), torch.ones(2, 2))


@pytest.mark.parametrize("bits", [0, 17, 8.0, True])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(InputError, match="1 to 16"):
        continual.store(model_with(*some_beliefs()), bits)
    with pytest.raises(InputError, match="1 to 16"):
        continual.PosteriorAsPrior(bayes, bits=bits)


def test_what_cannot_be_stored_is_refused():
    with pytest.raises(InputError, match="grid"):
        continual.store(model_with(*some_beliefs()), grid="logit")
    with pytest.raises(InputError, match="no belief"):
        continual.store(nn.Linear(2, 2))
    with pytest.raises(InputError, match="Point"):
        continual.store(vb.binarize(nn.Linear(2, 2), posterior=vb.posteriors.Point()))
    with pytest.raises(InputError, match="NaN or infinite"):
        continual.store(model_with(torch.tensor([[1.0, float("nan")]])))


def test_a_prior_of_eight_bits_is_the_posterior_rounded_and_is_what_is_judged():
    priors, models = [], []

    def noting(model, task, prior):
        priors.append(prior)
        models.append(vb.as_prior(model))
        return bayes(model, task, prior)

    stream = continual.from_tasks([some_task("one", 1), some_task("two", 2)])
    strategy = continual.PosteriorAsPrior(noting, strength=2.0, bits=8)
    learned(stream, network(), strategy=strategy)
    for prior, belief in zip(priors[1], models[1], strict=True):
        assert torch.equal(prior, 2.0 * belief)
        levels = belief.tanh() / belief.tanh().abs().max() * 127
        assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert strategy.bytes_kept() == 8 * 16 + 16 * 3 + 2 * 8


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("grid", ["mean", "natural"])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_a_layer_without_weights_is_stored_too(bits, grid, tmp_path):
    model = vb.binarize(nn.Sequential(nn.Linear(0, 4, bias=False), nn.Linear(4, 2, bias=False)))
    continual.store(model, bits, grid).save(tmp_path / "kept.pt")
    empty, other = continual.StoredPosterior.load(tmp_path / "kept.pt").beliefs()
    assert empty.shape == (4, 0)
    assert other.shape == (2, 4)


@pytest.mark.parametrize("grid", ["mean", "natural"])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_fair_coins_stay_fair(bits, grid):
    model = model_with(torch.zeros(4, 8))
    assert torch.equal(continual.store(model, bits, grid).beliefs()[0], torch.zeros(4, 8))
