"""`numerics="reference"` repeats the published code: guard, lagging mean, ties."""

import numpy as np
import pytest
import torch

from tests.oracles import concrete
from varbnn.posteriors import Bernoulli

STEPS, WEIGHTS = 300, 12


def noise_for(dtype):
    noise = np.random.default_rng(4).uniform(size=(STEPS, WEIGHTS)).astype(np.float32).clip(1e-6, 1 - 1e-6)
    return noise.astype(dtype)


def run(posterior, start, noise, gradient, *, dataset_size, lr, dtype):
    """The same recurrence through the posterior: λ after each step, the factors, and the mode at the end."""
    natural = torch.from_numpy(start.copy()).to(dtype).requires_grad_()
    buffers = posterior.initial(natural.detach())[1:]
    buffers[0].copy_(natural.detach())
    buffers[1].copy_(torch.tanh(natural.detach()))
    naturals, factors = [], []
    for u in torch.from_numpy(noise):
        natural.grad = None
        weight = posterior.draw(natural, *buffers, noise=u)
        weight.backward(torch.ones_like(weight), retain_graph=True)
        factors.append(natural.grad.clone().numpy())
        natural.grad = None
        weight.backward(torch.from_numpy(gradient(weight.detach().numpy())))
        with torch.no_grad():
            natural -= lr * (dataset_size * natural.grad + natural)
        naturals.append(natural.detach().clone().numpy())
    return np.array(naturals), np.array(factors), posterior.mode(natural.detach(), *buffers)


TARGET = np.where(np.arange(WEIGHTS) % 3 == 0, 0.8, -0.4)


def pull_to_target(weight):
    return (weight - TARGET).astype(weight.dtype)


@pytest.mark.parametrize(
    "name, dtype, rtol",
    [("float64", torch.float64, 1e-8), ("float32", torch.float32, 2e-3)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize(
    "relaxation, scale, size, lr", [(1.0, 0.5, 3.0, 0.05), (0.5, 2.0, 1.0, 0.02)], ids=["warm", "cooler"]
)
def test_a_run_follows_the_published_code_step_by_step(name, dtype, rtol, relaxation, scale, size, lr):
    kind = getattr(np, name)
    start = (scale * np.random.default_rng(0).normal(size=WEIGHTS)).astype(kind)
    options = dict(dataset_size=size, lr=lr)
    posterior = Bernoulli(estimator="concrete", numerics="reference", relaxation=relaxation)
    naturals, factors, mode = run(posterior, start, noise_for(kind), pull_to_target, dtype=dtype, **options)
    expected, expected_factors, mean = concrete.published_run(
        start, noise_for(kind), pull_to_target, relaxation=relaxation, dtype=kind, **options
    )
    np.testing.assert_allclose(naturals, expected, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(factors, expected_factors, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(mode, concrete.published_mode(mean))
    assert np.abs(expected[-1] - expected[0]).max() > 0.3, "the run must go somewhere to prove anything"


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_the_lag_is_what_separates_the_run_from_one_with_a_fresh_mean(name):
    """The step-by-step test above could not fail if the lag made no difference."""
    kind = getattr(np, name)
    natural, previous = kind(1.0), kind(0.2)
    posterior = Bernoulli(estimator="concrete", numerics="reference", relaxation=1.0)
    belief = torch.tensor([natural], requires_grad=True)
    lagging = torch.tensor([previous]), torch.tanh(torch.tensor([kind(7.0)]))
    noise = torch.tensor([kind(0.3)])
    posterior.draw(belief, *lagging, noise=noise).backward()
    w = np.tanh(1.0 + np.log(0.3 / 0.7) / 2)
    np.testing.assert_allclose(belief.grad, [(1 - w**2) / (1 - np.tanh(0.2) ** 2)], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_published_image_settings_saturate_to_the_constant_one_over_t(dtype):
    relaxation = 1e-10
    posterior = Bernoulli(
        estimator="concrete", numerics="reference", relaxation=relaxation, init="sign", init_scale=20.0
    )
    natural, *buffers = posterior.initial(torch.zeros(64, dtype=dtype))
    natural.requires_grad_()
    posterior.draw(natural, *buffers, noise=torch.full((64,), 0.3, dtype=dtype)).sum().backward()
    guard = torch.tensor(1e-10, dtype=dtype)
    assert torch.equal(natural.grad, (guard / relaxation / guard).expand(64))
    np.testing.assert_allclose(natural.grad, 1 / relaxation, rtol=1e-6)


def test_the_published_start_is_saturated_in_float32_and_not_in_float64():
    """1 - tanh² 10 is 0 in one and 8.24e-9 in the other, so their first steps differ by a factor of 83."""
    factors = {}
    for dtype in (torch.float32, torch.float64):
        posterior = Bernoulli(
            estimator="concrete", numerics="reference", relaxation=1e-10, init="sign", init_scale=10.0
        )
        natural, *buffers = posterior.initial(torch.zeros(1, dtype=dtype))
        natural.requires_grad_()
        posterior.draw(natural, *buffers, noise=torch.full((1,), 0.3, dtype=dtype)).sum().backward()
        factors[dtype] = natural.grad.item()
    assert factors[torch.float32] / factors[torch.float64] == pytest.approx(83.4, rel=1e-2)


def test_a_lagging_mean_of_zero_decides_for_minus_one():
    posterior = Bernoulli(estimator="concrete", numerics="reference")
    natural, previous, lagged = (
        torch.tensor([0.0, 0.5, -0.5]),
        torch.tensor([0.0, 0.5, -0.5]),
        torch.tensor([0.0, 0.1, -0.1]),
    )
    assert posterior.mode(natural, previous, lagged).tolist() == [-1.0, 1.0, -1.0]
    assert Bernoulli().mode(torch.tensor([0.0])).tolist() == [1.0], "the exact numerics keep sign(0) = +1"


def test_the_mode_lags_one_update_behind():
    posterior = Bernoulli(estimator="concrete", numerics="reference")
    natural, *buffers = posterior.from_weight(torch.tensor([1.0, -1.0]), strength=1.0)
    natural = -natural  # an update that turns both signs
    assert posterior.mode(natural, *buffers).tolist() == [1.0, -1.0]
    posterior.draw(natural, *buffers)
    natural = natural * 2  # a second one, which makes the first visible
    assert posterior.mode(natural, *buffers).tolist() == [-1.0, 1.0]


def test_drawing_twice_between_updates_does_not_move_the_lag():
    posterior = Bernoulli(estimator="concrete", numerics="reference")
    natural, *buffers = posterior.initial(torch.zeros(5))
    posterior.draw(natural + 1, *buffers)
    before = [b.clone() for b in buffers]
    posterior.draw(natural + 1, *buffers)
    posterior.mode(natural + 2, *buffers)
    assert all(torch.equal(a, b) for a, b in zip(before, buffers, strict=True))
