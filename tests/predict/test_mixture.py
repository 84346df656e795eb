"""Intervals, coverage and noise scaling of regression, compared with scipy and with sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.optimize import brentq

from varbnn.errors import InputError, VarbnnWarning
from varbnn.predict import NoiseScaling, Prediction, RegressionPrediction, evaluate


@pytest.fixture
def prediction():
    rng = np.random.default_rng(0)
    return RegressionPrediction(3 * rng.normal(size=(5, 7)), rng.uniform(0.01, 2, size=(5, 7)))


@pytest.mark.parametrize("level", [0.1, 0.5, 0.95, 0.999])
def test_an_interval_holds_its_level_on_both_sides(prediction, level):
    low, high = prediction.interval(level)
    means, deviations = prediction.means.numpy(), prediction.noise_variance.sqrt().numpy()
    for end, probability in ((low, (1 - level) / 2), (high, (1 + level) / 2)):
        for n in range(7):
            expected = brentq(
                lambda y, n=n, probability=probability: (
                    stats.norm.cdf(y, means[:, n], deviations[:, n]).mean() - probability
                ),
                -60,
                60,
            )
            assert float(end[n]) == pytest.approx(expected, abs=1e-8)


def test_of_one_network_it_is_the_normal_interval():
    low, high = RegressionPrediction([[2.0]], 9.0).interval(0.9)
    assert_allclose([low.item(), high.item()], stats.norm.interval(0.9, 2, 3))


def test_coverage_counts_targets_in_the_interval(prediction):
    low, high = prediction.interval(0.95)
    targets = torch.cat([low[:3] + 1e-6, high[3:5] - 1e-6, high[5:] + 1e-6])
    assert evaluate(prediction, targets)["coverage"] == pytest.approx(5 / 7)


def test_coverage_of_what_the_mixture_draws_is_its_level():
    rng = np.random.default_rng(1)
    means, count = rng.normal(size=(6, 1)), 20_000
    drawn = means[rng.integers(6, size=count), 0] + 0.5 * rng.normal(size=count)
    wide = RegressionPrediction(np.repeat(means, count, 1), 0.25)
    assert evaluate(wide, drawn)["coverage"] == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / count) ** 0.5)


@pytest.mark.parametrize("level", [0.3, 0.95])
def test_noise_of_one_input_does_not_blur_the_interval_of_another(level):
    deviations = [1e5, 1e-18, 3.0]
    prediction = RegressionPrediction([[0.0, 0.0, 7.0]], [[deviation**2 for deviation in deviations]])
    expected = stats.norm.interval(level, [0.0, 0.0, 7.0], deviations)
    for found, end in zip(prediction.interval(level), expected, strict=True):
        assert_allclose(found, end, rtol=1e-9)


@pytest.mark.parametrize("level", [0, 1, -0.1, float("nan")])
def test_a_level_is_a_probability(prediction, level):
    with pytest.raises(InputError, match="level must be a finite number > 0"):
        prediction.interval(level)


def test_without_noise_there_is_no_interval():
    with pytest.raises(InputError, match="needs a noise variance"):
        RegressionPrediction([[0.0], [1.0]]).interval()


def test_a_large_shift_leaves_the_disagreement_of_single_precision():
    means = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    prediction = RegressionPrediction(means, 0.01)
    assert_allclose(prediction.in_units(1.0, 1e8).epistemic, prediction.epistemic, rtol=1e-6)
    assert_allclose(prediction.in_units(1e-3, 1e5).total, 1e-6 * prediction.total, rtol=1e-6)


def test_other_units_scale_means_and_variances(prediction):
    other = prediction.in_units(2.0, 5.0)
    assert_allclose(other.mean, 2 * prediction.mean + 5)
    assert_allclose(other.total, 4 * prediction.total)
    targets = np.linspace(-3, 3, 7)
    shift = evaluate(other, 2 * targets + 5)["nll"] - evaluate(prediction, targets)["nll"]
    assert shift == pytest.approx(np.log(2))
    assert RegressionPrediction([[1.0]]).in_units(2.0).noise_variance is None
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="scale must be a finite number > 0"):
            prediction.in_units(scale)


def test_units_in_which_the_numbers_overflow_are_refused():
    for scale in (1e200, 1e-200):  # the square is no double
        with pytest.raises(InputError, match="noise_variance must be > 0 and finite in float64"):
            RegressionPrediction([[1.0]], 0.25).in_units(scale)
    with pytest.raises(InputError, match="means hold NaN or inf"):
        RegressionPrediction([[1e200]]).in_units(1e200)
    with pytest.raises(InputError, match="shift must be a finite number"):
        RegressionPrediction([[1.0]]).in_units(2.0, "a")


def test_scaling_finds_the_least_nll(prediction):
    targets = np.random.default_rng(2).normal(size=7)
    scaling = NoiseScaling().fit(prediction, targets)
    best = evaluate(scaling(prediction), targets)["nll"]
    for factor in np.exp(np.linspace(-8, 8, 200)):
        assert evaluate(NoiseScaling(factor)(prediction), targets)["nll"] >= best - 1e-9
    assert float(scaling) == scaling.factor


def test_of_one_network_the_factor_is_its_mean_squared_error():
    targets = np.array([1.0, -2.0, 0.5])
    scaling = NoiseScaling().fit(RegressionPrediction(np.zeros((1, 3))), targets)
    assert scaling.factor == pytest.approx((targets**2).mean(), rel=1e-4)
    assert NoiseScaling().fit(RegressionPrediction(np.zeros((1, 3)), 4.0), targets).factor == pytest.approx(
        (targets**2).mean() / 4, rel=1e-4
    )


def test_scaling_refuses_what_it_cannot_do():
    perfect = RegressionPrediction(np.zeros((2, 3)), 1.0)
    with pytest.raises(InputError, match="no noise variance is too small"):
        NoiseScaling().fit(perfect, np.zeros(3))
    with pytest.raises(InputError, match="no factor yet"):
        NoiseScaling()(perfect)
    with pytest.raises(InputError, match="reshape them"):
        NoiseScaling().fit(perfect, np.zeros((3, 1)))
    for factor in (0.0, -1.0, float("inf")):
        with pytest.raises(InputError, match="factor must be"):
            NoiseScaling(factor)
    with pytest.raises(InputError, match=r"noise is of regression.*got Prediction"):
        NoiseScaling(2.0)(Prediction([[[0.5, 0.5]]]))
    assert repr(NoiseScaling(0.5)) == "NoiseScaling(0.5)"
    assert repr(NoiseScaling()) == "NoiseScaling()"


def test_scaling_warns_where_no_noise_is_too_small():
    """One network meets every target: the smaller the noise, the likelier they are."""
    prediction = RegressionPrediction([[0.0, 1.0], [1.0, 3.0]], 1.0)
    with pytest.warns(VarbnnWarning, match="lies at the end"):
        NoiseScaling().fit(prediction, [0.0, 1.0])
