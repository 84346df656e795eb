"""RegressionPrediction: the law of total variance, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose
from torch import nn

import varbnn
from tests.oracles import metrics as oracle
from tests.predict.allocations import largest_allocation
from varbnn.errors import InputError
from varbnn.predict import NoiseScaling, Prediction, RegressionPrediction, evaluate

VALUES = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=3, max_side=5), elements=VALUES), st.floats(1e-3, 1e3))
def test_the_variances_are_those_of_the_mixture(means, noise):
    prediction = RegressionPrediction(means, noise)
    assert_allclose(prediction.mean, means.mean(axis=0), atol=1e-12)
    assert_allclose(prediction.epistemic, means.var(axis=0), rtol=1e-9, atol=1e-9)
    assert_allclose(prediction.total, means.var(axis=0) + noise, rtol=1e-9)
    assert_allclose(prediction.std**2, prediction.total, rtol=1e-12)


def test_a_noise_variance_of_each_network_is_averaged():
    noise = np.array([[0.5, 2.0], [1.5, 4.0]])
    prediction = RegressionPrediction(np.zeros((2, 2)), noise)
    assert prediction.aleatoric.tolist() == [1.0, 3.0]
    assert torch.equal(prediction.total, prediction.aleatoric)


def test_without_noise_all_uncertainty_is_epistemic():
    prediction = RegressionPrediction([[0.0, 1.0], [2.0, 1.0]])
    assert prediction.aleatoric.tolist() == [0.0, 0.0]
    assert torch.equal(prediction.total, prediction.epistemic)


def test_a_large_offset_does_not_cost_the_variance_its_digits():
    means = 1e8 + np.random.default_rng(0).normal(size=(16, 4))
    assert_allclose(RegressionPrediction(means).epistemic, (means - 1e8).var(axis=0), rtol=1e-6)


def test_nothing_of_the_size_of_the_means_is_made():
    prediction = RegressionPrediction(torch.randn(64, 1000), 0.5)
    for name in ("mean", "total", "aleatoric", "epistemic", "std"):
        assert largest_allocation(lambda name=name: getattr(prediction, name)) <= prediction.means.nbytes // 16


def test_an_index_selects_inputs_with_their_noise():
    means, noise = np.arange(12.0).reshape(2, 6), np.arange(1.0, 13.0).reshape(2, 6)
    part = RegressionPrediction(means, noise)[[4, 0]]
    assert part.means.tolist() == [[4, 0], [10, 6]]
    assert part.noise_variance.tolist() == [[5, 1], [11, 7]]
    assert len(RegressionPrediction(means, 0.5)[2]) == 1


@pytest.mark.parametrize("outputs", [(), (1,), (3,)])
@pytest.mark.parametrize("each", [False, True])
def test_the_nll_is_that_of_the_gaussian_mixture(outputs, each):
    rng = np.random.default_rng(1)
    means, targets = rng.normal(size=(5, 7, *outputs)), rng.normal(size=(7, *outputs))
    noise = rng.uniform(0.1, 2, size=means.shape) if each else 0.7
    result = evaluate(RegressionPrediction(means, noise), targets)
    expected = oracle.gaussian_mixture_nll(means, np.broadcast_to(noise, means.shape), targets)
    assert result["nll"] == pytest.approx(expected, rel=1e-12)
    assert result["rmse"] == pytest.approx(np.sqrt(np.mean((means.mean(axis=0) - targets) ** 2)), rel=1e-12)
    assert result["num_samples"] == 5


def test_the_nll_of_far_targets_does_not_overflow():
    result = evaluate(RegressionPrediction(np.zeros((3, 1)), 1e-4), [100.0])
    assert result["nll"] == pytest.approx(100**2 / (2 * 1e-4) + 0.5 * np.log(2 * np.pi * 1e-4), rel=1e-6)


def test_without_noise_there_is_no_density_and_no_nll():
    assert set(evaluate(RegressionPrediction([[0.0], [1.0]]), [0.5])) == {"rmse", "num_samples"}


@pytest.mark.parametrize(
    "means, noise, message",
    [
        (np.zeros(3), None, "S×N or S×N×D"),
        (np.zeros((0, 3)), None, "none of them 0"),
        (np.zeros((2, 0)), None, "none of them 0"),
        (np.zeros((2, 3), int), None, r"call \.float\(\)"),
        (np.full((2, 3), np.nan), None, "NaN or inf"),
        (np.zeros((2, 3)), 0.0, "must be > 0"),
        (np.zeros((2, 3)), -1.0, "must be > 0"),
        (np.zeros((2, 3)), np.inf, "must be > 0 and finite"),
        (np.zeros((2, 3)), np.ones(3), "shaped like means"),
    ],
)
def test_what_is_no_prediction_is_refused_with_a_reason(means, noise, message):
    with pytest.raises(InputError, match=message):
        RegressionPrediction(means, noise)


@pytest.mark.parametrize(
    "targets, message",
    [
        (np.zeros((3, 1)), r"shape of one network's output, \(3,\)"),
        (np.zeros(2), "reshape them"),
        ([0.0, np.nan, 0.0], "NaN or inf"),
        ([True, False, True], "bool"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(InputError, match=message):
        evaluate(RegressionPrediction(np.zeros((2, 3))), targets)


def test_foreign_inputs_are_for_classification():
    prediction = RegressionPrediction(np.zeros((2, 3)))
    with pytest.raises(InputError, match="class probabilities"):
        evaluate(prediction, np.zeros(3), ood=prediction)


def test_it_prints_its_shape():
    assert repr(RegressionPrediction(np.zeros((2, 3, 4)), 1.0)) == (
        "RegressionPrediction(2 samples × 3 inputs × 4 outputs, with noise variance)"
    )


@pytest.mark.parametrize("noise", [1e-46, 1e39])
def test_a_noise_variance_that_float32_cannot_hold_is_refused(noise):
    with pytest.raises(InputError, match=r"> 0 and finite in float32, got 1e"):
        RegressionPrediction(np.zeros((1, 2), np.float32), noise)
    assert RegressionPrediction(np.zeros((1, 2)), noise).noise_variance == noise


@pytest.mark.parametrize("level", [0, 1, 1 - 1e-16, np.nan, "0.9", True])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(InputError, match="level must be a finite number > 0"):
        RegressionPrediction([[0.0]], 1.0).interval(level)


def test_the_highest_level_has_finite_ends():
    low, high = RegressionPrediction([[0.0]], 1.0).interval(1 - 2.0**-52)
    assert -10 < float(low) < -8 < 8 < float(high) < 10


def test_n_targets_are_those_of_one_output():
    means, targets = torch.randn(4, 20, 1), torch.randn(20)
    prediction = RegressionPrediction(means, noise_variance=0.5)
    assert dict(evaluate(prediction, targets)) == dict(evaluate(prediction, targets[:, None]))
    with pytest.raises(InputError, match="reshape"):
        evaluate(RegressionPrediction(torch.randn(4, 20, 2)), targets)
    with pytest.raises(InputError, match="RegressionPrediction"):
        NoiseScaling().fit(Prediction([[[0.5, 0.5]]]), [0.0])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_model_that_says_its_noise_is_asked_for_it(task):
    model = varbnn.binarize(nn.Sequential(nn.Linear(4, 1), varbnn.nn.LearnedNoise()))
    with pytest.raises(InputError, match="it says means and variances: pass task='gaussian'"):
        varbnn.predict(model, torch.randn(5, 4), 2, task=task)
    assert varbnn.predict(model, torch.randn(5, 4), 2, task="gaussian").noise_variance is not None
