"""Temperature scaling: the best temperature, found every time, applied to every sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from tests.oracles import metrics as oracle
from tests.predict.allocations import largest_allocation
from tests.predict.distributions import random_probs
from varbnn.errors import InputError, VarbnnWarning
from varbnn.predict import Prediction, TemperatureScaling


def labels_drawn_from(probs) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([rng.choice(len(row), p=row) for row in probs])


def overconfident(num_samples: int, num_inputs: int = 400, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Samples whose logits are `factor` times too large, and labels drawn from the right ones."""
    right = random_probs(num_samples, num_inputs, 4, sharpness=1.0)
    return oracle.scaled(right, 1 / factor), labels_drawn_from(right.mean(axis=0))


@pytest.mark.parametrize("num_samples, factor", [(1, 0.4), (1, 1.0), (1, 1.7), (1, 2.0), (1, 2.4), (1, 9.0), (8, 3.0)])
def test_no_other_temperature_gives_the_mean_a_lower_nll(num_samples, factor):
    samples, labels = overconfident(num_samples, 200, factor)

    def nll(temperature):
        return oracle.negative_log_likelihood(oracle.scaled(samples, temperature).mean(axis=0), labels)

    found = TemperatureScaling().fit(Prediction(samples), labels).temperature
    assert nll(found) <= min(nll(t) for t in np.geomspace(0.01, 100, 400)) + 1e-9
    assert nll(found) < min(nll(found * 1.01), nll(found / 1.01))  # a minimum, not a plateau


def test_labels_drawn_from_the_right_probabilities_bring_the_temperature_back():
    samples, labels = overconfident(1, num_inputs=2000)
    assert TemperatureScaling().fit(Prediction(samples), labels).temperature == pytest.approx(3, rel=0.1)


def test_fitting_twice_gives_the_same_number_to_the_last_bit():
    samples, labels = overconfident(3)
    first, second = (TemperatureScaling().fit(Prediction(samples), labels).temperature for _ in range(2))
    assert first == second


def test_every_sample_is_scaled_by_the_same_temperature():
    samples = random_probs(3, 5, 4)
    scaled = TemperatureScaling(2.5)(Prediction(samples))
    assert_allclose(scaled.probs, oracle.scaled(samples, 2.5), rtol=1e-12)
    assert torch.equal(scaled.probs.argmax(-1), torch.tensor(samples.argmax(-1)))


def test_temperature_one_changes_nothing():
    samples = random_probs(3, 5, 4)
    assert_allclose(TemperatureScaling(1.0)(Prediction(samples)).probs, samples, rtol=1e-12)


def test_the_precision_of_the_prediction_stays():
    samples = torch.tensor(random_probs(3, 5, 4), dtype=torch.float32)
    assert TemperatureScaling(2.0)(Prediction(samples)).probs.dtype == torch.float32


@pytest.mark.parametrize("shape", ["S×N×C", "N×C"])
def test_logits_and_their_probabilities_fit_alike(shape):
    samples, labels = overconfident(1 if shape == "N×C" else 4)
    logits = (
        np.log(samples) + np.random.default_rng(1).normal(size=samples.shape[:2])[..., None]
    )  # any constant per row
    by_logits = TemperatureScaling().fit(logits[0] if shape == "N×C" else logits, labels)
    by_probs = TemperatureScaling().fit(Prediction(samples), labels)
    assert by_logits.temperature == pytest.approx(by_probs.temperature, rel=1e-4)


def test_certain_and_sometimes_wrong_can_be_cooled_down():
    prediction = Prediction(np.eye(2)[[0] * 9 + [1]][None])
    scaling = TemperatureScaling().fit(prediction, [0] * 10)  # 9 of 10 right
    assert scaling(prediction).confidence[0].item() == pytest.approx(0.9, abs=1e-3)


def test_the_fit_survives_as_a_number():
    samples, labels = overconfident(2, num_inputs=50)
    scaling = TemperatureScaling().fit(Prediction(samples), labels)
    again = TemperatureScaling(float(scaling))
    assert torch.equal(again(Prediction(samples)).probs, scaling(Prediction(samples)).probs)
    assert repr(again) == f"TemperatureScaling({float(scaling):.6g})"


def test_labels_that_are_all_right_warn_that_nothing_holds_the_temperature():
    probs = random_probs(1, 20, 3)
    with pytest.warns(VarbnnWarning, match="every label is right"):
        scaling = TemperatureScaling().fit(Prediction(probs), probs[0].argmax(1))
    assert scaling.temperature == 1.0


def test_scaling_makes_one_array_of_the_size_of_the_probabilities_and_fitting_none():
    samples, labels = (torch.tensor(a) for a in overconfident(1, num_inputs=50))
    prediction = Prediction(samples.repeat(64, 1, 1))
    scaling = TemperatureScaling()
    scaling.fit(prediction, labels)  # imports, once
    assert largest_allocation(lambda: scaling.fit(prediction, labels)) <= prediction.probs.nbytes // 16
    assert largest_allocation(lambda: scaling(prediction)) == prediction.probs.nbytes


def test_using_it_before_the_fit_says_what_to_do():
    with pytest.raises(InputError, match=r"call fit\("):
        TemperatureScaling()(Prediction(random_probs(1, 2, 3)))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, True, "2"])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(InputError, match="temperature must be a finite number > 0"):
        TemperatureScaling(temperature)


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (np.zeros((3, 4)), [0.0, 1.0, 2.0], "integer class labels"),
        (np.zeros((3, 4)), [0, 1], r"shape \(3,\)"),
        (np.zeros((3, 4)), [0, 1, 4], "0 … 3"),
        (np.zeros(3), [0, 1, 2], "N×C or S×N×C"),
        (np.zeros((0, 4)), [], "N×C or S×N×C"),
        (np.zeros((3, 4), int), [0, 1, 2], "floating"),
        (np.full((3, 4), np.nan), [0, 1, 2], "NaN or inf"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_leaves_the_old_fit(logits, labels, message):
    scaling = TemperatureScaling(2.0)
    with pytest.raises(InputError, match=message):
        scaling.fit(logits, labels)
    assert scaling.temperature == 2.0


def test_logits_may_be_anything_that_is_an_array():
    class Frame:
        def __array__(self, dtype=None, copy=None):
            return np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=dtype)

        def __len__(self):
            return 3

    expected = TemperatureScaling().fit(np.asarray(Frame()), [0, 1, 1]).temperature
    assert TemperatureScaling().fit(Frame(), [0, 1, 1]).temperature == expected


def test_the_temperature_is_one_where_all_are_equally_good():
    assert TemperatureScaling().fit(Prediction(np.full((2, 6, 3), 1 / 3)), [0, 1, 2, 0, 0, 0]).temperature == 1


def test_probabilities_in_place_of_logits_are_refused():
    torch.manual_seed(0)
    logits = 3 * torch.randn(50, 4)
    targets = (logits + 3 * torch.randn(50, 4)).argmax(1)
    by_logits = TemperatureScaling().fit(logits, targets).temperature
    by_probs = TemperatureScaling().fit(Prediction(logits.softmax(-1)[None]), targets).temperature
    assert_allclose(by_logits, by_probs, rtol=1e-3)
    with pytest.raises(InputError, match="wrap them: Prediction"):
        TemperatureScaling().fit(logits.softmax(-1), targets)


@pytest.mark.parametrize("size", [1.0, 8.0, 20.0])
def test_without_an_error_there_is_no_temperature_to_find(size):
    """The likelihood has no end, and what the search ended at made later errors ten times as dear."""
    labels = torch.arange(30) % 3
    sure = Prediction((size * torch.nn.functional.one_hot(labels, 3).float()).softmax(-1)[None])
    with pytest.warns(VarbnnWarning, match="every label is right"):
        assert TemperatureScaling().fit(sure, labels).temperature == 1.0


@pytest.mark.parametrize("margin", [20.0, 28.0, 40.0, 700.0])
def test_logits_so_sure_that_no_error_is_left_to_rounding_stay_as_they_are(margin):
    labels = torch.arange(30) % 3
    logits = margin * torch.eye(3, dtype=torch.float64)[labels]
    with pytest.warns(VarbnnWarning, match="every label is right"):
        assert TemperatureScaling().fit(logits, labels).temperature == 1.0
    with pytest.warns(VarbnnWarning, match="every label is right"):
        assert TemperatureScaling().fit(Prediction(logits.softmax(-1)[None]), labels).temperature == 1.0


def test_wrong_labels_are_not_called_right_where_the_coldest_is_likeliest():
    """The networks cancel out on two wrong inputs, which costs log 2 however cold it gets."""
    first = torch.tensor([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 2)
    second = torch.tensor([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 2)
    prediction = Prediction(torch.stack([first, second]))
    with pytest.warns(VarbnnWarning, match=r"lies at the end of \[0.01, 100\]") as caught:
        found = TemperatureScaling().fit(prediction, [0] * 12).temperature
    assert "right" not in str(caught[0].message)
    samples = prediction.probs.double().numpy()

    def nll(temperature):
        return oracle.negative_log_likelihood(oracle.scaled(samples, temperature).mean(axis=0), np.zeros(12, int))

    assert nll(found) <= min(nll(t) for t in np.geomspace(0.01, 100, 400)) + 1e-9
    with pytest.warns(VarbnnWarning, match="lies at the end"):
        by_logits = TemperatureScaling().fit(prediction.probs.log(), [0] * 12).temperature
    assert nll(by_logits) <= nll(found) + 1e-9


def test_logits_are_not_scaled_but_refused_with_the_way_to_a_prediction():
    with pytest.raises(InputError, match=r"got Tensor; .*Prediction\(logits.softmax\(-1\)\)"):
        TemperatureScaling(2.0)(torch.randn(4, 3))
