"""The estimators of Bernoulli that draw a weight: what they draw, and which gradient they hand back."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from tests.oracles import coins, concrete
from tests.tolerance import assert_within_standard_errors, standard_error
from varbnn.errors import InputError
from varbnn.posteriors import Bernoulli


def leaf(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def factor_of(posterior, natural, noise):
    """The multiplier the backward pass applies, and the weight."""
    natural = natural.detach().clone().requires_grad_()
    weight = posterior.draw(natural, noise=noise)
    weight.sum().backward()
    return natural.grad, weight.detach()


def test_straight_through_hands_on_exactly_the_incoming_gradient():
    natural, incoming = leaf([-30.0, -1.0, 0.0, 0.3, 30.0], torch.float32), torch.randn(5)
    Bernoulli().draw(natural).backward(incoming)
    assert torch.equal(natural.grad, incoming)


def test_straight_through_draws_are_exactly_plus_or_minus_one():
    assert Bernoulli().draw(torch.randn(1000)).abs().unique().tolist() == [1.0]


@pytest.mark.parametrize("seed", range(3))
def test_the_expected_straight_through_gradient_is_the_gradient_in_the_mean(seed):
    """For a loss linear in each weight, dE/dμ_i = E[∂L/∂w_i]: the natural gradient, by enumeration of all draws."""
    n = 5
    rng = np.random.default_rng(seed)
    subsets = [s for size in range(1, n + 1) for s in itertools.combinations(range(n), size)]
    coefficients = rng.normal(size=len(subsets))

    def loss(weights):  # multilinear: its expectation is the same polynomial in the means
        return sum(c * weights[..., list(s)].prod(-1) for c, s in zip(coefficients, subsets, strict=True))

    natural = torch.tensor(rng.normal(size=n))
    expected = torch.zeros(n, dtype=torch.float64)
    for vector, p in zip(coins.sign_vectors(n), coins.joint(coins.probability_of_plus(natural.numpy())), strict=True):
        forced = torch.from_numpy(np.where(vector > 0, 1 - 1e-12, 0.0))  # noise that yields exactly this vector
        parameter = natural.clone().requires_grad_()
        weight = Bernoulli().draw(parameter, noise=forced)
        np.testing.assert_array_equal(weight.detach(), vector)
        loss(weight).backward()
        expected += p * parameter.grad
    mean, h = np.tanh(natural.numpy()), 1e-5
    along = [(loss(mean + h * e) - loss(mean - h * e)) / (2 * h) for e in np.eye(n)]
    np.testing.assert_allclose(expected, along, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("relaxation", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("natural", [-300.0, -20.0, -1.0, 0.0, 0.5, 9.5, 52.0, 300.0])
def test_concrete_weight_and_factor_follow_the_paper_in_float64(relaxation, natural):
    noise = torch.tensor([1e-9, 0.01, 0.3, 0.5, 0.9, 1 - 1e-9], dtype=torch.float64)
    posterior = Bernoulli(estimator="concrete", relaxation=relaxation)
    factor, weight = factor_of(posterior, torch.full((6,), natural, dtype=torch.float64), noise)
    expected_weight, expected_factor = concrete.relaxed(natural, noise.numpy(), relaxation)
    np.testing.assert_allclose(weight, expected_weight, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(factor, expected_factor, rtol=1e-6)  # 1 - u loses digits of u = 1 - 1e-9 before the log


@pytest.mark.parametrize("natural", [-300.0, -60.0, -10.0, 10.0, 60.0, 300.0])
def test_the_exact_factor_survives_in_float32_where_both_squares_round_to_one(natural):
    noise = torch.tensor([0.01, 0.25, 0.75, 0.99])
    factor, _ = factor_of(Bernoulli(estimator="concrete", relaxation=1.0), torch.full((4,), natural), noise)
    _, expected = concrete.relaxed(natural, noise.double().numpy(), 1.0)
    np.testing.assert_allclose(factor, expected, rtol=1e-3)  # λ + δ in float32 is good to 3e-5 at 300
    assert bool((factor > 0).all())


def test_the_ends_of_the_noise_give_certain_weights_and_no_gradient():
    natural = torch.tensor([-300.0, 0.0, 300.0])
    posterior = Bernoulli(estimator="concrete", relaxation=0.5)
    for end, face in ((0.0, -1.0), (1.0, 1.0)):
        factor, weight = factor_of(posterior, natural, torch.full((3,), end))
        assert weight.tolist() == [face] * 3
        assert factor.tolist() == [0.0] * 3


@pytest.mark.parametrize("natural", [0.0, 0.7, -1.5])
def test_the_factor_has_mean_one_and_variance_two_thirds_over_t_at_small_relaxation(natural):
    relaxation, points = 1e-3, 400_000
    noise = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    factor, _ = factor_of(
        Bernoulli(estimator="concrete", relaxation=relaxation), torch.full((points,), natural).double(), noise
    )
    assert factor.mean().item() == pytest.approx(1, abs=2e-3)
    law = 2 / 3 / (relaxation * (1 - np.tanh(natural) ** 2))
    assert factor.square().mean().item() == pytest.approx(law, rel=1e-2)


@pytest.mark.parametrize("natural, relaxation", [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.5, 0.2), (-1.0, 0.1)])
def test_the_moments_of_the_factor_are_those_of_the_integral(natural, relaxation):
    noise = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    factor, _ = factor_of(
        Bernoulli(estimator="concrete", relaxation=relaxation), torch.full_like(noise, natural), noise
    )
    for power in (1, 2):
        expected = concrete.factor_moment(natural, relaxation, power)
        assert factor.pow(power).mean().item() == pytest.approx(expected, rel=1e-4)


def test_the_mean_factor_at_relaxation_one_is_two_thirds_for_a_fair_coin():
    assert concrete.factor_moment(0.0, 1.0, 1) == pytest.approx(2 / 3, rel=1e-9)


@pytest.mark.parametrize("natural, spread", [(1.0, 0.8), (2.0, 3.2), (3.0, 10.6), (5.0, 85.0)])
def test_the_natural_factor_at_relaxation_one_spreads_as_the_docstring_warns(natural, spread):
    first, second = (concrete.factor_moment(natural, 1.0, power) for power in (1, 2))
    assert np.sqrt(second - first**2) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("natural", [0.1, 0.5, 1.0, 2.0, 3.0, 5.0, -2.0])
def test_the_mean_euclidean_factor_at_relaxation_one_has_the_closed_form(natural):
    noise = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    posterior = Bernoulli(estimator="concrete", relaxation=1.0, gradient="euclidean")
    factor, weight = factor_of(posterior, torch.full_like(noise, natural), noise)
    assert factor.mean().item() == pytest.approx(concrete.mean_slope(natural), rel=1e-4)  # steep at the ends
    torch.testing.assert_close(factor, 1 - weight**2, rtol=1e-8, atol=1e-14)


def test_the_closed_form_of_the_mean_factor_is_the_published_table():
    table = {0.1: 0.664, 0.5: 0.604, 1.0: 0.453, 2.0: 0.163, 3.0: 0.0402, 5.0: 0.00145}
    for natural, expected in table.items():
        assert concrete.mean_slope(natural) == pytest.approx(expected, rel=5e-3)


EVERY_ESTIMATOR = [
    dict(),
    dict(estimator="concrete", relaxation=1.0),
    dict(estimator="concrete", relaxation=0.2),
    dict(estimator="mean"),
]


@pytest.mark.parametrize("options", EVERY_ESTIMATOR, ids=str)
def test_the_euclidean_gradient_is_the_natural_one_times_the_variance(options):
    natural = torch.tensor([-7.0, -1.0, 0.0, 0.3, 4.0, 12.0], dtype=torch.float64)
    noise = torch.tensor([0.3, 0.9, 0.5, 0.01, 0.4, 0.7], dtype=torch.float64)
    one, weight = factor_of(Bernoulli(**options), natural, noise)
    other, same = factor_of(Bernoulli(**options, gradient="euclidean"), natural, noise)
    assert torch.equal(weight, same)
    torch.testing.assert_close(other, one / torch.cosh(natural) ** 2, rtol=1e-10, atol=0)


def test_the_euclidean_gradient_of_the_moments_is_that_of_mean_and_variance_in_the_natural_parameter():
    natural = leaf([-3.0, -0.2, 0.0, 1.5])
    for index, derivative in enumerate((lambda mu: 1 - mu**2, lambda mu: -2 * mu * (1 - mu**2))):
        moment = Bernoulli(estimator="moments", gradient="euclidean").moments(natural)[index]
        (found,) = torch.autograd.grad(moment.sum(), natural)
        torch.testing.assert_close(found, derivative(torch.tanh(natural.detach())), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("natural", [-40.0, -12.0, 12.0, 40.0])
def test_the_euclidean_factor_survives_in_float32_where_the_square_rounds_to_one(natural):
    noise = torch.tensor([0.01, 0.25, 0.75, 0.99])
    for options in EVERY_ESTIMATOR:
        factor, _ = factor_of(Bernoulli(**options, gradient="euclidean"), torch.full((4,), natural), noise)
        assert bool((factor >= 0).all())
        assert bool(torch.isfinite(factor).all())
    factor, _ = factor_of(Bernoulli(gradient="euclidean"), torch.full((4,), natural), noise)
    torch.testing.assert_close(factor.double(), torch.cosh(torch.full((4,), natural).double()) ** -2, rtol=1e-5, atol=0)


def test_fresh_noise_has_the_law_of_given_noise():
    natural = torch.full((100_000,), 0.4, dtype=torch.float64)
    factor, weight = factor_of(Bernoulli(estimator="concrete", relaxation=0.5), natural, None)
    assert_within_standard_errors(factor.mean(), concrete.factor_moment(0.4, 0.5, 1), standard_error(factor))
    share = (weight > 0).double()
    assert_within_standard_errors(share.mean(), coins.probability_of_plus(0.4), standard_error(share))


def test_first_beliefs_have_the_size_asked_for():
    weight = torch.zeros(20_000)
    (natural,) = Bernoulli(init_scale=3.0).initial(weight)
    assert_within_standard_errors(natural.mean(), 0, standard_error(natural))
    assert_within_standard_errors(natural.square().mean(), 9, standard_error(natural.square()))
    (natural,) = Bernoulli(init="sign", init_scale=10.0).initial(weight)
    assert natural.abs().unique().tolist() == [10.0]
    assert_within_standard_errors(natural.mean(), 0, standard_error(natural))


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(estimator="gumbel"), "estimator"),
        (dict(relaxation=0.0), "relaxation"),
        (dict(relaxation=-1.0), "relaxation"),
        (dict(relaxation=float("nan")), "relaxation"),
        (dict(relaxation=float("inf")), "relaxation"),
        (dict(numerics="fast"), "numerics"),
        (dict(numerics="reference"), "estimator='concrete'"),
        (dict(gradient="normal"), "gradient must be one of"),
        (dict(gradient="euclidean", estimator="concrete", numerics="reference"), "published natural gradient"),
        (dict(init="zeros"), "init"),
        (dict(init_scale=-0.1), "init_scale"),
        (dict(init_scale=float("nan")), "init_scale"),
        (dict(init_scale=float("inf")), "init_scale"),
    ],
)
def test_a_bad_option_is_refused_by_name(options, named):
    with pytest.raises(InputError, match=named):
        Bernoulli(**options)


# --- as a prior ---


def test_a_prior_of_another_strength_is_the_posterior_to_that_power():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    vb.binarize(model[0], posterior=vb.posteriors.Gaussian("learned", init_precision=2.0))
    vb.binarize(model[2], posterior=Bernoulli())
    location, precision, natural = vb.as_prior(model, strength=3.0)
    assert torch.equal(location, model[0].location)
    assert torch.equal(precision, 3 * model[0].precision)
    # p(w)³ / (p(+1)³ + p(-1)³), by counting
    plus = torch.sigmoid(2 * model[2].natural.detach().double())
    expected = plus**3 / (plus**3 + (1 - plus) ** 3)
    torch.testing.assert_close(torch.sigmoid(2 * natural.double()), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("strength, word", [(0.0, "> 0"), (math.nan, "> 0"), ("a", "finite number")])
def test_a_strength_that_is_no_positive_number_is_refused(strength, word):
    with pytest.raises(InputError, match=word):
        vb.as_prior(vb.binarize(nn.Linear(2, 2)), strength)


def test_laws_that_hang_together_have_no_powers():
    model = vb.binarize(nn.Linear(3, 2), posterior=vb.posteriors.LowRankGaussian(rank=2))
    with pytest.raises(InputError, match="LowRankGaussian cannot be raised to a power, got 2; leave it at 1"):
        vb.as_prior(model, 2.0)
    assert len(vb.as_prior(model)) == 2


@pytest.mark.parametrize("make", [lambda: Bernoulli(relaxation=None), lambda: vb.posteriors.Point(clip="a")])
def test_options_that_are_no_numbers_are_refused(make):
    with pytest.raises(InputError, match="must be a finite number > 0"):
        make()


@pytest.mark.parametrize("randomness", ["different", "same", "error"])
def test_noise_may_be_given_under_vmap_which_reads_no_numbers(randomness):
    natural, noise = torch.randn(4, 3), torch.rand(4, 3)
    found = torch.vmap(lambda n, u: Bernoulli().draw(n, noise=u), randomness=randomness)(natural, noise)
    assert torch.equal(found, Bernoulli().draw(natural, noise=noise))
