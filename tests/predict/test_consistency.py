"""The calibration test against the binomial distribution, and its p-values against the uniform one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchmetrics.functional.classification import multiclass_calibration_error

import varbnn as vb
from varbnn.errors import InputError
from varbnn.predict import Prediction, calibration_test, consistency
from varbnn.predict.metrics import bin_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_classes(confidence) -> Prediction:
    confidence = torch.as_tensor(confidence, dtype=torch.float64)
    return Prediction(torch.stack([confidence, 1 - confidence], 1)[None])


def binomial(confidence: float, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Every ECE that inputs of one confidence can show, and its probability."""
    right = np.arange(number + 1)
    return np.abs(right / number - confidence), stats.binom.pmf(right, number, confidence)


@pytest.mark.parametrize("confidence, number", [(0.6, 5), (0.9, 40), (0.75, 300)])
def test_one_bin_is_the_binomial(confidence, number):
    repeats, wrong = 20_000, number // 3
    errors, chance = binomial(confidence, number)
    mean = (errors * chance).sum()
    sd = math.sqrt(((errors - mean) ** 2 * chance).sum())
    labels = [1] * wrong + [0] * (number - wrong)
    found = calibration_test(two_classes([confidence] * number), labels, repeats=repeats, generator=seeded())
    assert found.ece == pytest.approx(abs(1 - wrong / number - confidence))
    assert abs(found.expected - mean) < 4 * sd / math.sqrt(repeats)
    fourth = ((errors - mean) ** 4 * chance).sum()
    assert abs(found.sd**2 - sd**2) < 4 * math.sqrt((fourth - sd**4) / repeats)
    tail = chance[errors >= found.ece - 1e-12].sum()
    assert abs(found.p_value - tail) < 4 * math.sqrt(tail * (1 - tail) / repeats) + 1 / repeats


def test_bins_add_up():
    """Two bins, whose binomials are independent: the mean is the weighted sum of both."""
    means = [(errors * chance).sum() for errors, chance in (binomial(0.6, 30), binomial(0.9, 10))]
    found = calibration_test(
        two_classes([0.6] * 30 + [0.9] * 10), [0] * 40, bins=10, repeats=20_000, generator=seeded()
    )
    assert abs(found.expected - (30 * means[0] + 10 * means[1]) / 40) < 4 * found.sd / math.sqrt(20_000)


def test_the_p_value_of_calibrated_networks_is_uniform():
    generator, values = seeded(1), []
    for _ in range(300):
        probs = torch.rand(1, 400, 3, generator=generator, dtype=torch.float64).mul(3).softmax(2)
        labels = torch.multinomial(probs[0], 1, generator=generator)[:, 0]
        values.append(calibration_test(Prediction(probs), labels, repeats=200, generator=generator).p_value)
    assert stats.kstest(values, "uniform").pvalue > 1e-3


def test_a_network_that_is_too_sure_is_found():
    probs = torch.rand(1, 2000, 3, generator=seeded(2), dtype=torch.float64).mul(3).softmax(2)
    labels = torch.multinomial(probs[0], 1, generator=seeded(3))[:, 0]
    sure = Prediction(probs.log().mul(2).softmax(2))
    found = calibration_test(sure, labels, repeats=200, generator=seeded())
    assert found.p_value == pytest.approx(1 / 201)
    assert found.ece == vb.evaluate(sure, labels)["ece"] > found.expected + 5 * found.sd


def test_the_resampled_error_is_that_of_torchmetrics():
    """One set of labels, drawn with the same numbers, measured by the function that the field uses."""
    confidence = 0.5 + 0.5 * torch.rand(500, generator=seeded(4), dtype=torch.float64)
    (found,) = consistency.resampled_errors(confidence, bin_of(confidence, 15), 15, 1, seeded(5))
    right = torch.rand(1, 500, generator=seeded(5), dtype=torch.float64)[0] < confidence
    expected = multiclass_calibration_error(two_classes(confidence).mean, (~right).long(), 2, n_bins=15)
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_parts_are_as_good_as_one(monkeypatch):
    prediction, labels = two_classes([0.7] * 50), [0] * 35 + [1] * 15
    whole = calibration_test(prediction, labels, repeats=100, generator=seeded())
    monkeypatch.setattr(consistency, "NUMBERS_AT_ONCE", 7 * 50)
    assert calibration_test(prediction, labels, repeats=100, generator=seeded()) == whole


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(repeats=0), "repeats must be a whole number ≥ 1 .*got 0"),
        (dict(repeats=10.0), "repeats must be a whole number ≥ 1"),
        (dict(bins=0), "bins must be a whole number ≥ 1"),
        (dict(targets=[0, 1]), "one label per input"),
        (dict(targets=[0, 1, 2]), "must lie in 0 … 1"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_drawn(change, message):
    generator = seeded()
    before = generator.get_state()
    with pytest.raises(InputError, match=message):
        calibration_test(**dict(prediction=two_classes([0.7] * 3), targets=[0, 0, 1], generator=generator) | change)
    assert torch.equal(generator.get_state(), before)


def test_what_is_no_prediction_is_refused():
    with pytest.raises(InputError, match="must be a Prediction, of class probabilities, got Tensor; wrap S×N×C"):
        calibration_test(torch.rand(3, 2), [0, 0, 0])


def test_a_seed_is_no_generator():
    with pytest.raises(InputError, match=r"generator must be a torch.Generator or None, got 0"):
        calibration_test(Prediction([[[0.9, 0.1]]]), [0], generator=0)
