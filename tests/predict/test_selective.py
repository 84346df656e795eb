"""Risk and coverage against every order of tied inputs, written down slowly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import varbnn as vb
from varbnn import plots
from varbnn.errors import InputError
from varbnn.predict import Prediction, risk_coverage


def risks(wrong, uncertainty) -> np.ndarray:
    """Mean over every order in which uncertainty does not fall of the share of wrong ones among the first k."""
    orders = [
        order
        for order in itertools.permutations(range(len(wrong)))
        if all(uncertainty[a] <= uncertainty[b] for a, b in itertools.pairwise(order))
    ]
    return np.mean([[np.mean([wrong[i] for i in order[: k + 1]]) for k in range(len(wrong))] for order in orders], 0)


def binary_prediction(confidence) -> Prediction:
    return Prediction(torch.tensor([[[c, 1 - c] for c in confidence]], dtype=torch.float64))


@pytest.mark.parametrize("seed", range(20))
def test_the_curve_is_the_mean_over_all_orders_of_tied_inputs(seed):
    generator = np.random.default_rng(seed)
    confidence = generator.choice([0.6, 0.7, 0.8, 0.9], 6)  # six inputs at four levels: there are ties
    labels = generator.integers(0, 2, 6)
    curve = risk_coverage(binary_prediction(confidence), labels, score="confidence")
    expected = risks(labels != 0, 1 - confidence)
    np.testing.assert_allclose(curve.risk, expected, atol=1e-12)
    np.testing.assert_allclose(curve.coverage, np.arange(1, 7) / 6)
    assert curve.area == pytest.approx(expected.mean())
    best = risks(labels != 0, labels != 0)
    assert curve.least_area == pytest.approx(best.mean())
    assert curve.excess_area == pytest.approx(expected.mean() - best.mean(), abs=1e-12)
    for k in range(1, 7):
        assert curve.accuracy_at(k / 6) == pytest.approx(1 - expected[k - 1])
        assert curve.accuracy_at((k - 0.5) / 6) == pytest.approx(1 - expected[k - 1])


@pytest.mark.parametrize("score", ["total", "epistemic", "aleatoric", "confidence"])
def test_every_score_ranks_by_what_it_says(score):
    probs = torch.rand(5, 7, 3, dtype=torch.float64).softmax(-1)
    prediction, labels = Prediction(probs), torch.arange(7) % 3
    values = getattr(prediction, score).numpy() * (-1 if score == "confidence" else 1)
    wrong = (prediction.labels != labels).numpy()
    np.testing.assert_allclose(risk_coverage(prediction, labels, score=score).risk, risks(wrong, values), atol=1e-12)


def test_the_whole_risk_is_the_error_and_a_perfect_ranking_has_no_excess():
    labels = torch.tensor([0, 0, 0, 1])
    curve = vb.risk_coverage(binary_prediction([0.99, 0.9, 0.8, 0.6]), labels)
    assert float(curve.risk[-1]) == 0.25
    assert curve.excess_area == 0
    assert curve.accuracy_at(0.75) == 1
    assert risk_coverage(binary_prediction([0.99, 0.9]), [0, 0]).area == 0


def test_the_order_of_the_inputs_does_not_matter_even_among_equals():
    prediction, labels = binary_prediction([0.9, 0.9, 0.9, 0.6]), torch.tensor([1, 0, 0, 1])
    order = torch.tensor([2, 3, 0, 1])
    one, other = risk_coverage(prediction, labels), risk_coverage(prediction[order], labels[order])
    assert torch.equal(one.risk, other.risk)


def test_the_picture_shows_the_curve_and_names_its_area():
    predictions = {"a": binary_prediction([0.9, 0.6]), "b": binary_prediction([0.6, 0.9])}
    figure = plots.risk_coverage(predictions, [0, 1])
    first, second = figure.axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [[50, 0], [100, 50]])
    np.testing.assert_allclose(second.get_xydata(), [[50, 100], [100, 50]])
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["a, AURC 0.25", "b, AURC 0.75"]
    panel = Figure().subplots()
    assert plots.risk_coverage(predictions["a"], [0, 1], ax=panel) is panel.figure


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: risk_coverage(binary_prediction([0.9]), [0, 1]), "one label per input"),
        (lambda: risk_coverage(binary_prediction([0.9]), [0], score="entropy"), "score must be one of"),
        (lambda: plots.risk_coverage({}, [0]), "give at least one"),
    ],
)
def test_what_has_no_curve_is_refused_with_a_reason(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("coverage", ["0.5", 0, 1.5, float("nan"), None])
def test_a_coverage_is_a_share(coverage):
    curve = risk_coverage(Prediction([[[0.9, 0.1], [0.6, 0.4]]]), [0, 1])
    with pytest.raises(InputError, match="coverage must be a finite number > 0 and ≤ 1"):
        curve.accuracy_at(coverage)
