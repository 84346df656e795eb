"""The sign of a normal latent: its moments, and that what it hands back are derivatives of the expected loss."""

import math

import numpy as np
import pytest
import torch

from tests.oracles import coins
from tests.tolerance import assert_within_standard_errors
from varbnn.errors import InputError
from varbnn.posteriors import Gaussian, pull_back
from varbnn.posteriors.gaussian import bell, log_odds, natural_window, standardised_of

LOCATIONS = [-2.3, -1.0, -0.4, 0.0, 0.1, 0.8, 1.9]


def density(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def leaves(*rows):
    return [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in rows]


def expected_loss(location, precision, slope=0.7, offset=0.2):
    """E[l(sign z)] of l(w) = offset + slope w: any loss of one weight is of this form, which makes all below exact."""
    return offset + slope * math.erf(location * math.sqrt(precision) / math.sqrt(2))


def handed_back(posterior, *rows, slope=0.7):
    belief = leaves(*rows)
    (slope * posterior.draw(*belief)).sum().backward()
    return [tensor.grad.numpy() for tensor in belief]


def curvature(f, x, h=1e-3):
    """Fourth-order central differences; 1e-3 balances rounding (1e-10) and truncation (1e-12 · f⁽⁶⁾)."""
    return (-f(x + 2 * h) + 16 * f(x + h) - 30 * f(x) + 16 * f(x - h) - f(x - 2 * h)) / (12 * h * h)


def slope_at(f, x, h=1e-4):
    return (f(x - 2 * h) - 8 * f(x - h) + 8 * f(x + h) - f(x + 2 * h)) / (12 * h)


# --- the law ---


@pytest.mark.parametrize("form", ["fixed", "learned", "natural"])
def test_the_mean_weight_is_the_error_function_of_the_standardised_location(form):
    precision = 2.5 if form == "learned" else 1.0
    rows = (LOCATIONS, [precision] * 7)[: 1 + (form == "learned")]
    mean = Gaussian(form).mean(*leaves(*rows)).detach()
    expected = [math.erf(m * math.sqrt(precision / 2)) for m in LOCATIONS]
    np.testing.assert_allclose(mean, expected, rtol=1e-13, atol=1e-15)


def test_draws_and_signs_of_a_normal_latent_have_the_same_share_of_plus():
    draws, posterior = 200_000, Gaussian("learned")
    location, precision = torch.full((draws,), 0.6), torch.full((draws,), 0.25)
    latent = 0.6 + 2.0 * torch.randn(draws)
    expected = float(coins.probability_of_plus_of_a_latent(0.3))
    stderr = math.sqrt(expected * (1 - expected) / draws)
    for share in (posterior.draw(location, precision) > 0, posterior.sample(location, precision) > 0, latent > 0):
        assert_within_standard_errors(share.double().mean(), expected, stderr)


def test_only_location_over_deviation_matters():
    here = Gaussian("learned").natural(torch.tensor([0.3, -1.2]), torch.tensor([4.0, 4.0]))
    torch.testing.assert_close(here, Gaussian().natural(torch.tensor([0.6, -2.4])))


def test_the_opposite_noise_draws_the_opposite_sign_of_a_fair_weight():
    location, noise = torch.zeros(1000), torch.rand(1000).clamp_min(1e-6)
    assert torch.equal(Gaussian().sample(location, noise=1 - noise), -Gaussian().sample(location, noise=noise))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_natural_parameter_is_odd_increasing_and_quadratic_in_the_tails(dtype):
    a = torch.logspace(-30, 6, 400, dtype=dtype)
    natural = Gaussian().natural(a)
    assert torch.equal(Gaussian().natural(-a), -natural)
    assert bool((natural.diff() > 0).all())
    assert bool(torch.isfinite(natural).all())
    torch.testing.assert_close(natural[-1], a[-1].square() / 4, rtol=1e-5, atol=0)
    torch.testing.assert_close(natural[0], a[0] * math.sqrt(2 / math.pi), rtol=1e-5, atol=0)


def test_the_log_odds_are_those_of_the_error_function():
    a = np.linspace(-5, 5, 101)
    plus, minus = coins.probability_of_plus_of_a_latent(a), coins.probability_of_plus_of_a_latent(-a)
    np.testing.assert_allclose(log_odds(torch.from_numpy(a)), np.log(plus) - np.log(minus), rtol=1e-12, atol=1e-14)


def test_the_natural_parameter_has_a_finite_gradient_everywhere():
    a = torch.tensor([-1e4, -5.0, -1.0, 0.0, 0.5, 1.0, 40.0, 1e4], requires_grad=True)
    Gaussian().natural(a).sum().backward()
    assert bool(torch.isfinite(a.grad).all())


# --- what is handed back ---


def test_the_location_gets_the_gradient_of_the_expected_loss():
    (found,) = handed_back(Gaussian(), LOCATIONS)
    expected = [slope_at(lambda m: expected_loss(m, 1.0), m) for m in LOCATIONS]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("precision", [0.3, 1.0, 5.0])
def test_the_learned_form_gets_gradient_and_curvature_of_the_expected_loss(precision):
    location, curved = handed_back(Gaussian("learned"), LOCATIONS, [precision] * 7)
    slopes = [slope_at(lambda m: expected_loss(m, precision), m) for m in LOCATIONS]
    np.testing.assert_allclose(location, slopes, rtol=1e-8, atol=1e-11)  # differences round to 1e-12
    # by Stein's lemma E[∂²l/∂z²] is the second derivative in m of E[l], also where l is a step
    curvatures = [curvature(lambda m: expected_loss(m, precision), m) for m in LOCATIONS]
    np.testing.assert_allclose(curved, curvatures, rtol=1e-6, atol=1e-8)


def test_the_curvature_gives_the_gradient_in_the_variance():
    """Price: ∂E[l]/∂σ² = E[∂²l/∂z²] / 2."""
    precision = 1.7
    _, curved = handed_back(Gaussian("learned"), LOCATIONS, [precision] * 7)
    slopes = [slope_at(lambda v, m=m: expected_loss(m, 1 / v), 1 / precision) for m in LOCATIONS]
    np.testing.assert_allclose(curved / 2, slopes, rtol=1e-8, atol=1e-12)


def test_the_natural_window_is_the_fisher_information_turned_over():
    """∂E/∂u = 2 φ(u) ∂E/∂μ, and the Fisher information of the coin in u is (2 φ)² / (1 - μ²)."""
    for u in np.linspace(-6, 6, 49):
        mean = math.erf(u / math.sqrt(2))
        # 1 - μ² in float64 is good to 1e-16 / (1 - μ²)
        variance = math.erfc(abs(u) / math.sqrt(2)) * (1 + abs(mean))
        fisher = (2 * density(u)) ** 2 / variance
        found = natural_window(torch.tensor(u, dtype=torch.float64)).item()
        assert found == pytest.approx(2 * density(u) / fisher, rel=1e-12)
        assert found == pytest.approx(variance / (2 * density(u)), rel=1e-12)
    (handed,) = handed_back(Gaussian("natural"), LOCATIONS, slope=1.0)
    np.testing.assert_allclose(handed, natural_window(torch.tensor(LOCATIONS, dtype=torch.float64)), rtol=1e-15)


@pytest.mark.parametrize("u", [1e2, 1e3, 1e4, 1e10, 1e30])
def test_the_natural_window_falls_as_two_over_u_in_float32(u):
    for sign in (1, -1):
        assert natural_window(torch.tensor(sign * u)).item() == pytest.approx(2 / u, rel=1.1 / u**2 + 1e-6)


def test_the_natural_window_at_zero_is_the_root_of_half_pi():
    assert natural_window(torch.zeros(())).item() == pytest.approx(math.sqrt(math.pi / 2), rel=1e-7)


def test_the_bell_is_the_slope_of_the_mean():
    found = bell(torch.tensor(LOCATIONS, dtype=torch.float64))
    np.testing.assert_allclose(found, [2 * density(m) for m in LOCATIONS], rtol=1e-14)


def test_far_out_the_gradients_are_zero_or_small_and_never_nan():
    for form in ("fixed", "learned", "natural"):
        rows = (torch.tensor([-1e30, -1e3, 1e3, 1e18]), torch.ones(4))[: 1 + (form == "learned")]
        belief = [row.requires_grad_() for row in rows]
        Gaussian(form).draw(*belief).sum().backward()
        assert all(bool(torch.isfinite(tensor.grad).all()) for tensor in belief), form


# --- several parameters at once ---


def test_pull_back_hands_each_parameter_its_own_multiple():
    weight, (first, second, third) = torch.ones(2), leaves([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    factor = torch.tensor([0.5, -1.0], dtype=torch.float64)
    result = pull_back(weight.double(), first, factor, (second, None), (third, 2 * factor))
    result.backward(torch.tensor([1.0, 10.0], dtype=torch.float64))
    assert first.grad.tolist() == [0.5, -10.0]
    assert second.grad.tolist() == [1.0, 10.0]
    assert third.grad.tolist() == [1.0, -20.0]


def test_pull_back_of_several_parameters_works_under_vmap():
    first, second = torch.randn(3), torch.randn(3)

    def loss(a, b, noise):
        weight = (noise > 0).float()
        return (pull_back(weight, a, noise, (b, 3 * noise)) * torch.arange(3.0)).sum()

    noise = torch.randn(5, 3)
    gradients = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(None, None, 0))(first, second, noise)
    torch.testing.assert_close(gradients[0], noise * torch.arange(3.0))
    torch.testing.assert_close(gradients[1], 3 * noise * torch.arange(3.0))


def test_a_frozen_precision_leaves_the_location_its_gradient():
    location, precision = leaves([0.4], [2.0])
    precision.requires_grad_(False)
    Gaussian("learned").draw(location, precision).sum().backward()
    assert precision.grad is None
    assert location.grad.item() == pytest.approx(2 * density(0.4 * math.sqrt(2)) * math.sqrt(2))


# --- options ---


def test_first_beliefs_have_the_size_and_precision_asked_for():
    location, precision = Gaussian("learned", init_scale=2.0, init_precision=3.0).initial(torch.zeros(20_000))
    square = location.square()
    assert_within_standard_errors(square.mean(), 4, square.std() / math.sqrt(20_000))
    assert precision.unique().tolist() == [3.0]
    assert len(Gaussian().initial(torch.zeros(3))) == 1


def test_a_broken_precision_is_not_hidden_by_the_mode():
    assert bool(Gaussian("learned").mode(torch.ones(1), torch.tensor([torch.nan])).isnan().all())


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(form="diagonal"), "form"),
        (dict(init_scale=-0.1), "init_scale"),
        (dict(init_scale=float("nan")), "init_scale"),
        (dict(form="learned", init_precision=0.0), "init_precision"),
        (dict(form="learned", init_precision=float("inf")), "init_precision"),
        (dict(init_precision=2.0), "form='learned'"),
    ],
)
def test_a_bad_option_is_refused_by_name(options, named):
    with pytest.raises(InputError, match=named):
        Gaussian(**options)


# --- powers ---


@pytest.mark.parametrize("power", [0.3, 2.0, 40.0])
def test_a_power_of_a_coin_multiplies_its_natural_parameter(power):
    locations = torch.tensor([-30.0, *LOCATIONS, 1e-3], dtype=torch.float64)
    for form in ("fixed", "natural"):
        posterior = Gaussian(form)
        (raised,) = posterior.raised(locations, power=power)
        np.testing.assert_allclose(posterior.natural(raised), power * posterior.natural(locations), rtol=1e-12)


def test_a_power_of_a_normal_latent_multiplies_its_precision():
    location, precision = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 4.0])
    # N(m, 1/S) to the power of 3 is proportional to exp(-3 S (z - m)² / 2)
    found = Gaussian("learned").raised(location, precision, power=3.0)
    assert [t.tolist() for t in found] == [[0.5, -1.0], [3.0, 12.0]]


def test_standardised_of_is_the_inverse_of_log_odds_out_to_the_tails():
    a = torch.tensor([0.0, 1e-12, -0.2, 1.0, -6.0, 40.0, 1e6], dtype=torch.float64)
    np.testing.assert_allclose(standardised_of(log_odds(a)), a, rtol=1e-12)


def test_powers_of_very_sure_weights_stay_sure():
    location = torch.tensor([1e19, -1e19, 0.5])
    (raised,) = Gaussian().raised(location, power=100.0)
    np.testing.assert_allclose(raised[:2], [1e20, -1e20], rtol=1e-6)  # λ grows as the square of the location
    assert standardised_of(torch.tensor(math.inf)) == math.inf
