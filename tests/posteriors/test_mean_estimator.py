"""Bernoulli(estimator="mean"): trained on tanh λ itself, as the published code with num_samples=0; ±1 afterwards."""

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn.nn import BinaryLinear
from varbnn.posteriors import Bernoulli

MEAN = Bernoulli(estimator="mean")


def test_the_training_weight_is_the_mean_and_the_gradient_is_handed_on_unchanged():
    natural = torch.tensor([-300.0, -1.0, 0.0, 0.3, 20.0], requires_grad=True)
    weight, incoming = MEAN.draw(natural), torch.randn(5)
    assert torch.equal(weight, natural.detach().tanh())
    weight.backward(incoming)
    assert torch.equal(natural.grad, incoming)


def test_no_randomness_is_used():
    before = torch.get_rng_state()
    layer = BinaryLinear(4, 3, posterior=MEAN)
    torch.set_rng_state(before)
    x = torch.ones(2, 4)
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(torch.get_rng_state(), before)


def test_prediction_and_eval_mode_use_exactly_plus_or_minus_one():
    layer = vb.binarize(nn.Linear(4, 3), MEAN)
    with vb.sampled(layer):
        assert layer.weight.abs().unique().tolist() == [1.0]
    assert vb.freeze(layer).weight.abs().unique().tolist() == [1.0]
    assert layer.eval().weight.abs().unique().tolist() == [1.0]


@pytest.mark.parametrize("prior", [0.0, 0.4])
def test_with_bayesbinn_it_is_the_published_rule_without_samples(prior):
    """w = tanh λ, G = N g, λ ← λ - α (G + λ - λ₀): least squares, whose gradient feeds back through w."""
    rng = np.random.default_rng(0)
    count, width, rate = 30, 6, 0.02
    inputs, natural = rng.normal(size=(count, width)), rng.normal(size=width)
    targets = inputs @ np.where(rng.normal(size=width) > 0, 1.0, -1.0) + 0.1 * rng.normal(size=count)
    layer = BinaryLinear(width, 1, bias=False, posterior=MEAN, dtype=torch.float64)
    with torch.no_grad():
        layer.natural.copy_(torch.from_numpy(natural)[None])
    optimizer = vb.optim.BayesBiNN(layer.parameters(), lr=rate, dataset_size=count, prior=prior)
    for step in range(200):
        batch = np.arange(step, step + 10) % count
        w = np.tanh(natural)
        g = 2 * inputs[batch].T @ (inputs[batch] @ w - targets[batch]) / 10
        natural = natural - rate * (count * g + natural - prior)
        optimizer.zero_grad()
        output = layer(torch.from_numpy(inputs[batch]))[:, 0]
        nn.functional.mse_loss(output, torch.from_numpy(targets[batch])).backward()
        optimizer.step()
        np.testing.assert_allclose(layer.natural.detach()[0], natural, rtol=1e-9, atol=1e-9)
    assert np.abs(natural).max() > 2, "the run went nowhere"
