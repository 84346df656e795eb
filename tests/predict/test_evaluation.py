"""evaluate: the whole table against the definitions, JSON, and targets refused before anything is computed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.oracles import metrics as oracle
from tests.predict.allocations import largest_allocation
from tests.predict.distributions import random_probs
from varbnn.errors import InputError
from varbnn.predict import Evaluation, Prediction, calibration_test, evaluate, evaluation, plots, risk_coverage

SAMPLES = random_probs(4, 60, 5)
LABELS = np.random.default_rng(0).integers(0, 5, 60)
FOREIGN = random_probs(4, 40, 5, seed=1, sharpness=2.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [5, 15])
def test_every_entry_is_its_definition_on_the_mean(dtype, bins):
    samples = SAMPLES.astype(dtype)
    mean = samples.astype(np.float64).mean(axis=0)
    result = evaluate(Prediction(samples), LABELS, bins=bins)
    assert result == pytest.approx(
        {
            "accuracy": oracle.accuracy(mean, LABELS),
            "nll": oracle.negative_log_likelihood(mean, LABELS),
            "brier": oracle.brier(mean, LABELS),
            "ece": oracle.expected_calibration_error(mean, LABELS, bins),
            "num_samples": 4,
        },
        rel=1e-6,  # torchmetrics' accuracy is float32
    )


@pytest.mark.parametrize(
    "score, uncertainty",
    [
        ("total", oracle.total),
        ("aleatoric", oracle.aleatoric),
        ("epistemic", oracle.mutual_information),
        ("confidence", lambda samples: -samples.mean(axis=0).max(axis=1)),
    ],
)
def test_detection_uses_the_score_that_was_asked_for(score, uncertainty):
    result = evaluate(Prediction(SAMPLES), LABELS, ood=Prediction(FOREIGN), score=score)
    familiar, foreign = uncertainty(SAMPLES), uncertainty(FOREIGN)
    assert result["ood_auroc"] == pytest.approx(oracle.auroc(familiar, foreign), abs=1e-6)
    assert result["ood_fpr95"] == pytest.approx(oracle.fpr95(familiar, foreign), abs=1e-12)


def test_total_uncertainty_is_the_score_when_none_is_named():
    ood = Prediction(FOREIGN)
    assert evaluate(Prediction(SAMPLES), LABELS, ood) == evaluate(Prediction(SAMPLES), LABELS, ood, score="total")


def test_the_mode_alone_can_be_measured():
    result = evaluate(Prediction(SAMPLES[:1]), LABELS)
    assert result["num_samples"] == 1
    assert result["nll"] == pytest.approx(oracle.negative_log_likelihood(SAMPLES[0], LABELS))


def test_a_class_missing_from_the_targets_changes_nothing_about_the_rest():
    labels = np.where(LABELS == 4, 0, LABELS)
    result = evaluate(Prediction(SAMPLES), labels)
    assert result["accuracy"] == pytest.approx(oracle.accuracy(SAMPLES.mean(axis=0), labels), rel=1e-6)


def test_certain_and_wrong_everywhere_is_finite():
    result = evaluate(Prediction(np.eye(3)[None]), [1, 2, 0])
    assert result == pytest.approx({"accuracy": 0, "nll": 87.3365, "brier": 2, "ece": 1, "num_samples": 1}, abs=1e-4)


def test_entries_are_plain_numbers_that_survive_json():
    result = evaluate(Prediction(SAMPLES), LABELS, ood=Prediction(FOREIGN))
    assert all(type(value) in (float, int) for value in result.values())
    assert json.loads(json.dumps(result)) == result
    assert list(result) == ["accuracy", "nll", "brier", "ece", "ood_auroc", "ood_fpr95", "num_samples"]


def test_it_prints_one_line_per_measure():
    lines = str(evaluate(Prediction(SAMPLES), LABELS, ood=Prediction(FOREIGN))).splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["accuracy", "nll", "brier", "ece", "ood_auroc", "ood_fpr95"]
    assert lines[-1] == "(mean of 4 samples)"
    assert str(Evaluation(mine=0.5)) == "mine        0.5000"


def test_no_second_array_of_the_size_of_the_probabilities_is_made():
    prediction = Prediction(torch.tensor(random_probs(64, 200, 5), dtype=torch.float32))
    labels = torch.zeros(200, dtype=torch.int64)
    evaluate(prediction, labels, ood=prediction)  # imports, once
    assert largest_allocation(lambda: evaluate(prediction, labels, ood=prediction)) <= prediction.probs.nbytes // 8


@pytest.mark.parametrize(
    "targets, message",
    [
        (LABELS.astype(float), "integer class labels"),
        (np.eye(5, dtype=int)[LABELS], "one-hot"),
        (LABELS[:-1], r"\(60,\), got \(59,\)"),
        (LABELS[:, None], "one label per input"),
        (LABELS + 1, "0 … 4"),
        (LABELS - 1, "got -1"),
        (["cat"] * 60, "targets must be a tensor, an array"),
    ],
)
def test_targets_that_do_not_fit_are_refused_before_anything_is_computed(monkeypatch, targets, message):
    monkeypatch.setattr(evaluation, "mean64", lambda _: pytest.fail("computed before the targets were checked"))
    with pytest.raises(InputError, match=message):
        evaluate(Prediction(SAMPLES), targets)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(score="entropy"), "score must be one of total, epistemic, aleatoric, confidence"),
        (dict(bins=0), "bins must be a whole number ≥ 1"),
        (dict(ood=FOREIGN), "ood must be a Prediction"),
        (dict(ood=Prediction(random_probs(2, 3, 4))), "the same 5 classes"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        evaluate(Prediction(SAMPLES), LABELS, **options)


def test_a_bare_array_is_refused_with_the_way_to_wrap_it():
    with pytest.raises(InputError, match=r"Prediction\(probs\)"):
        evaluate(SAMPLES, LABELS)


def test_one_network_has_no_disagreement_to_tell_foreign_inputs_by():
    one, many = Prediction(SAMPLES[:1]), Prediction(SAMPLES)
    for known, foreign in ((one, Prediction(FOREIGN)), (many, Prediction(FOREIGN[:1]))):
        with pytest.raises(InputError, match="one network has nobody to disagree with"):
            evaluate(known, LABELS, ood=foreign, score="epistemic")
        with pytest.raises(InputError, match="num_samples ≥ 2"):
            plots.entropy_histogram(known, foreign, score="epistemic")
    with pytest.raises(InputError, match="take score='total'"):
        risk_coverage(one, LABELS, score="epistemic")
    assert evaluate(one, LABELS, score="epistemic") == evaluate(one, LABELS)  # without foreign inputs nothing is told
    axes = plots.risk_coverage(many, LABELS).axes[0]
    before = len(axes.lines)
    with pytest.raises(InputError, match="one network"):
        plots.risk_coverage({"many": many, "one": one}, LABELS, score="epistemic", ax=axes)
    assert len(axes.lines) == before


NEARLY = 0.25 - 2.0**-26  # the float32 below a quarter


def test_labels_at_a_near_tie_are_those_of_the_exact_mean_everywhere():
    """In float32 the mean of the first class rounds up to a quarter too, and the first of equals would be the label."""
    rows = [[[0.25, 0.25, 0.2, 0.2, 0.1]], [[NEARLY, 0.25, 0.2, 0.2, 0.1]]]
    prediction = Prediction(torch.tensor(rows, dtype=torch.float32))
    assert prediction.labels.tolist() == [1]
    assert evaluate(prediction, [1])["accuracy"] == 1
    assert evaluate(prediction, [1])["ece"] == pytest.approx(0.75)
    assert calibration_test(prediction, [1], repeats=1).ece == pytest.approx(0.75)
    figure = plots.reliability_diagram(prediction, [1])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["ECE 0.750"]


def test_the_accuracy_has_the_digits_of_float64():
    probs, labels = np.eye(2)[[0] * 504 + [1] * 496], [0] * 1000
    assert evaluate(Prediction(probs[None]), labels)["accuracy"] == 0.504


def test_foreign_values_are_named_by_type_and_shape():
    with pytest.raises(
        InputError, match=r"varbnn.predict\(model, foreign_inputs, …\), got Tensor of shape \(1000, 5\)$"
    ):
        evaluate(Prediction(SAMPLES), LABELS, ood=torch.rand(1000, 5))
