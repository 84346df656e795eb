"""Inside sampled(model) the model is one fixed ±1 network; afterwards everything is as before."""

import copy

import pytest
import torch
from torch import nn

import varbnn as vb
from tests.tolerance import assert_within_standard_errors, standard_error

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def network(posterior=None):
    return vb.binarize(nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 2)), posterior)


def seeded(number):
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("concrete", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_the_sample_is_held_exactly_plus_or_minus_one_in_train_and_eval(training, concrete):
    posterior = vb.posteriors.Bernoulli("concrete", 0.5) if concrete else None
    model = network(posterior).train(training)
    with vb.sampled(model) as inside:
        assert inside is model
        assert torch.equal(model(X), model(X))
        weight = model[0].weight
        assert weight.abs().unique().tolist() == [1.0]
        model.train(not training)
        assert torch.equal(model[0].weight, weight)
    assert model.training is not training


def test_no_gradient_reaches_a_belief_but_biases_learn():
    model = network()
    with vb.sampled(model):
        model(X).sum().backward()
    assert model[0].natural.grad is None
    assert model[0].bias.grad is not None


def test_the_same_generator_gives_the_same_sample_and_the_global_state_is_not_touched():
    model = network()
    before = torch.get_rng_state()
    outputs = []
    for number in (1, 1, 2):
        with vb.sampled(model, seeded(number)):
            outputs.append(model(X))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_inner_sample_gives_way_to_the_outer_one():
    model = network()
    with vb.sampled(model):
        outer = model(X)
        with vb.sampled(model):
            assert not torch.equal(model(X), outer)
        assert torch.equal(model(X), outer)


def test_an_exception_restores_and_passes_on():
    model = network().eval()
    mode = model(X)
    with pytest.raises(KeyError), vb.sampled(model):
        raise KeyError
    assert torch.equal(model(X), mode)


def test_a_failure_while_sampling_holds_nothing(monkeypatch):
    model = network()
    real = vb.posteriors.Bernoulli.sample

    def sample(self, natural, **options):
        if natural.shape == model[2].natural.shape:  # the first layer has its sample by then
            raise RuntimeError("out of memory")
        return real(self, natural, **options)

    monkeypatch.setattr(vb.posteriors.Bernoulli, "sample", sample)
    with pytest.raises(RuntimeError, match="out of memory"), vb.sampled(model):
        pass
    assert all(layer._held is None for _, layer in vb.nn.binary_layers(model))


def test_a_sample_is_no_part_of_the_state_and_follows_later_training_not_at_all():
    model = network()
    keys = list(model.state_dict())
    with vb.sampled(model):
        weight = model[0].weight.clone()
        with torch.no_grad():
            model[0].natural.fill_(50.0)
        assert torch.equal(model[0].weight, weight)
        assert list(model.state_dict()) == keys
    assert bool((model[0].weight == 1).all())


def test_sampled_weights_follow_the_posterior():
    model = vb.binarize(nn.Linear(50, 4))
    with torch.no_grad():
        model.natural.copy_(torch.linspace(-1, 1, 200).reshape(4, 50))
    weights = []
    for _ in range(500):
        with vb.sampled(model):
            weights.append(model.weight)
    weights = torch.stack(weights)
    assert_within_standard_errors(weights.mean(0), torch.tanh(model.natural), standard_error(weights))


def test_a_copy_made_while_a_sample_is_held_draws_for_itself():
    model = vb.binarize(nn.Linear(64, 64))
    with vb.sampled(model):
        twin = copy.deepcopy(model)
    assert not torch.equal(twin.weight, twin.weight)
