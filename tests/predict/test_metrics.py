"""The torchmetrics classes: textbook values, edges of the bins, batches, ranks, and what is refused."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassCalibrationError

from tests.oracles import metrics as oracle
from tests.predict.distributions import labelled_probs, random_probs
from varbnn.errors import InputError
from varbnn.predict.metrics import FPR95, Brier, ExpectedCalibrationError, NegativeLogLikelihood, ood_auroc

SCORES = {
    NegativeLogLikelihood: oracle.negative_log_likelihood,
    Brier: oracle.brier,
    ExpectedCalibrationError: oracle.expected_calibration_error,
}
each_score = pytest.mark.parametrize("metric_class", SCORES, ids=lambda c: c.__name__)


def value(metric, *data) -> float:
    metric.update(*data)
    return metric.compute().item()


@each_score
@settings(deadline=None, max_examples=60)
@given(data=labelled_probs(), dtype=st.sampled_from([np.float32, np.float64]))
def test_the_score_is_its_definition(metric_class, data, dtype):
    probs, labels = data[0].astype(dtype), data[1]
    assert value(metric_class(), probs, labels) == pytest.approx(
        SCORES[metric_class](probs, labels), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("bins", [1, 2, 3, 10, 15, 100])
def test_the_calibration_error_is_its_definition_for_every_number_of_bins(bins):
    probs = random_probs(300, 4)
    labels = np.random.default_rng(1).integers(0, 4, 300)
    expected = oracle.expected_calibration_error(probs, labels, bins)
    assert value(ExpectedCalibrationError(bins), probs, labels) == pytest.approx(expected, rel=1e-12)


def test_a_confidence_of_one_shares_the_last_bin():
    # torchmetrics 1.9 gives 0.525 here: it puts a confidence of exactly 1 into a bin of its own
    probs, labels = torch.tensor([[0.0, 1.0], [0.05, 0.95]]), torch.tensor([1, 0])
    assert value(ExpectedCalibrationError(10), probs, labels) == pytest.approx(0.475, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [10, 15])
def test_an_edge_belongs_to_the_bin_that_ends_there(bins, dtype):
    for k in range(bins // 2 + 1, bins + 1):
        edge = torch.tensor(k / bins, dtype=torch.float64).to(dtype)
        metric = ExpectedCalibrationError(bins)
        metric.update(torch.stack([edge, 1 - edge])[None], [0])
        assert metric.counts.nonzero().tolist() == [[k - 1]]


def test_away_from_the_edges_the_calibration_error_is_that_of_torchmetrics():
    probs = torch.tensor(random_probs(500, 5, sharpness=0.7))
    labels = torch.randint(5, (500,))
    theirs = MulticlassCalibrationError(num_classes=5, n_bins=15)
    assert value(ExpectedCalibrationError(), probs, labels) == pytest.approx(value(theirs, probs, labels), abs=1e-6)


def test_right_and_certain_scores_zero_everywhere():
    for metric_class in SCORES:
        assert value(metric_class(), np.eye(4), np.arange(4)) == 0


def test_an_impossible_label_costs_the_floor_and_infinity_without_one():
    probs, labels = [[1.0, 0.0]], [1]
    assert value(NegativeLogLikelihood(), probs, labels) == pytest.approx(87.3365, abs=1e-4)
    assert value(NegativeLogLikelihood(floor=1e-3), probs, labels) == pytest.approx(math.log(1000))
    assert value(NegativeLogLikelihood(floor=0.0), probs, labels) == math.inf


def test_the_scores_agree_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn, which is not installed")
    probs, labels = random_probs(200, 2), np.random.default_rng(0).integers(0, 2, 200)
    expected = sklearn.log_loss(labels, probs)
    assert value(NegativeLogLikelihood(), probs, labels) == pytest.approx(expected, rel=1e-9)
    expected = 2 * sklearn.brier_score_loss(labels, probs[:, 1])  # theirs is one-sided for two classes
    assert value(Brier(), probs, labels) == pytest.approx(expected, rel=1e-9)


# --- batches and ranks ---


@each_score
def test_batches_add_up_and_an_empty_one_changes_nothing(metric_class):
    probs, labels = random_probs(50, 3), np.random.default_rng(0).integers(0, 3, 50)
    metric = metric_class()
    for part in (slice(0, 7), slice(7, 7), slice(7, 50)):
        metric.update(probs[part], labels[part])
    assert metric.compute().item() == pytest.approx(value(metric_class(), probs, labels), rel=1e-12)


@each_score
def test_two_ranks_together_are_one_metric_on_all_data(metric_class):
    probs, labels = random_probs(50, 3), np.random.default_rng(0).integers(0, 3, 50)
    here, there = metric_class(), metric_class()
    here.update(probs[:20], labels[:20])
    there.update(probs[20:], labels[20:])
    expected = pytest.approx(value(metric_class(), probs, labels), rel=1e-12)
    assert synchronised(here, there).compute().item() == expected
    here.merge_state(there)
    assert here.compute().item() == expected


def test_two_ranks_together_are_one_fpr95_on_all_scores():
    scores, foreign = np.random.default_rng(0).normal(size=90), np.arange(90) % 3 == 0
    here, there = FPR95(), FPR95()
    here.update(scores[:40], foreign[:40])
    there.update(scores[40:], foreign[40:])
    assert synchronised(here, there).compute().item() == value(FPR95(), scores, foreign)
    here.merge_state(there)
    assert here.compute().item() == value(FPR95(), scores, foreign)


def synchronised(here, there):
    """`here`, whose next compute gathers from `there`, as torch.distributed would between two ranks."""
    there = copy.deepcopy(there)
    queue = [torch.cat(s) if isinstance(s, list) else s for s in (getattr(there, name) for name in there._defaults)]
    metric = type(here)(
        dist_sync_fn=lambda state, group=None: [state, queue.pop(0)], distributed_available_fn=lambda: True
    )
    for name in here._defaults:
        setattr(metric, name, getattr(here, name))
    metric._update_count = 1
    return metric


@each_score
def test_the_state_does_not_grow_with_the_data(metric_class):
    metric = metric_class()
    sizes = set()
    for _ in range(3):
        metric.update(random_probs(100, 3), np.zeros(100, int))
        sizes.add(sum(getattr(metric, name).numel() for name in metric._defaults))
    assert len(sizes) == 1


def test_a_collection_keeps_metrics_apart_that_begin_with_equal_values():
    # torchmetrics shares states that are equal after the first batch; a perfect one makes NLL and Brier both 0
    collection = MetricCollection([NegativeLogLikelihood(), Brier(), ExpectedCalibrationError()])
    collection.update(torch.eye(3), torch.arange(3))
    probs, labels = random_probs(20, 3), np.zeros(20, int)
    collection.update(torch.tensor(probs), torch.tensor(labels))
    probs, labels = np.concatenate([np.eye(3), probs]), np.concatenate([np.arange(3), labels])
    for metric_class, definition in SCORES.items():
        assert collection.compute()[metric_class.__name__].item() == pytest.approx(definition(probs, labels), rel=1e-9)


@each_score
def test_reset_forgets_and_nothing_seen_is_nan(metric_class):
    metric = metric_class()
    metric.update(random_probs(5, 3), np.zeros(5, int))
    metric.reset()
    metric.update(np.empty((0, 3)), np.empty(0, int))
    assert math.isnan(metric.compute().item())


# --- what is refused ---


@each_score
@pytest.mark.parametrize(
    "probs, target, message",
    [
        (random_probs(2, 3, 4), [0, 1, 2], "N×C"),
        (np.ones((3, 1)), [0, 0, 0], "two columns"),
        (np.log(random_probs(2, 3)), [0, 1], "softmax"),
        (np.eye(3, dtype=int), [0, 1, 2], r"\.float\(\)"),
        (random_probs(2, 3), [0, 3], r"0 … 2 \(3 classes\), got 3"),
        (random_probs(2, 3), [0, -1], "got -1"),
        (random_probs(2, 3), [0.0, 1.0], "integer class labels"),
        (random_probs(2, 2), [True, False], "integer class labels"),
        (random_probs(2, 3), np.eye(3, dtype=int)[:2], r"one-hot, pass target.argmax\(1\)"),
        (random_probs(2, 3), [0], r"shape \(2,\), got \(1,\)"),
        (random_probs(2, 3), [[0], [1]], "one label per input"),
    ],
)
def test_bad_input_is_refused_with_a_reason_and_leaves_the_state(metric_class, probs, target, message):
    metric = metric_class()
    metric.update([[0.5, 0.25, 0.25]], [0])
    before = metric.compute().item()
    metric._computed = None
    with pytest.raises(InputError, match=message):
        metric.update(probs, target)
    assert metric.compute().item() == before


@pytest.mark.parametrize("bins", [0, -1, 2.5, True, "ten"])
def test_a_number_of_bins_that_is_none_is_refused(bins):
    with pytest.raises(InputError, match="bins must be a whole number ≥ 1"):
        ExpectedCalibrationError(bins)


@pytest.mark.parametrize("floor", [-1e-3, 1.0, math.nan, None, "a"])
def test_a_floor_that_is_no_probability_is_refused(floor):
    with pytest.raises(InputError, match="floor must be a finite number ≥ 0 and ≤"):
        NegativeLogLikelihood(floor)


# --- telling foreign inputs apart ---

some_scores = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.3, 2.0, 2.5]) | st.floats(0, 7), min_size=1, max_size=25)


@settings(deadline=None, max_examples=80)
@given(some_scores, some_scores)
def test_auroc_is_the_share_of_pairs_in_the_right_order(familiar, foreign):
    found = ood_auroc(torch.tensor(familiar, dtype=torch.float64), torch.tensor(foreign, dtype=torch.float64))
    assert found == pytest.approx(oracle.auroc(familiar, foreign), abs=1e-6)  # torchmetrics integrates in float32


def test_auroc_keeps_apart_scores_that_a_sigmoid_would_merge():
    familiar = torch.tensor([1e-18, 50.0, 60.0], dtype=torch.float64)
    foreign = torch.tensor([2e-18, 70.0], dtype=torch.float64)
    assert ood_auroc(familiar, foreign) == pytest.approx(4 / 6)


def test_auroc_of_constant_scores_is_one_half():
    assert ood_auroc(torch.zeros(5), torch.zeros(7)) == 0.5


def test_auroc_agrees_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn, which is not installed")
    familiar, foreign = torch.randn(300), torch.randn(200) + 0.5
    expected = sklearn.roc_auc_score(np.arange(500) >= 300, torch.cat([familiar, foreign]))
    assert ood_auroc(familiar, foreign) == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=80)
@given(some_scores, some_scores)
def test_fpr95_is_the_least_share_accepted_with_95_percent_of_the_familiar(familiar, foreign):
    found = value(FPR95(), familiar + foreign, [False] * len(familiar) + [True] * len(foreign))
    assert found == oracle.fpr95(familiar, foreign)


@pytest.mark.parametrize("count, accepted", [(1, 1), (19, 19), (20, 19), (21, 20), (40, 38), (60, 57), (100, 95)])
def test_fpr95_accepts_as_few_familiar_inputs_as_95_percent_allow(count, accepted):
    familiar = np.arange(count)
    scores = np.concatenate([familiar, [accepted - 1, accepted - 0.5]])  # at the threshold, and just above
    assert value(FPR95(), scores, np.arange(count + 2) >= count) == 0.5


def test_fpr95_without_one_of_the_groups_is_nan():
    assert math.isnan(value(FPR95(), [0.1, 0.2], [False, False]))
    assert math.isnan(value(FPR95(), [], np.empty(0, bool)))


@pytest.mark.parametrize(
    "scores, mask, message",
    [
        ([0.1, 0.2], [0, 1], "N booleans"),
        ([0.1, 0.2], [True], "N booleans"),
        ([[0.1]], [[True]], "N numbers"),
        ([math.nan, 0.2], [True, False], "NaN"),
    ],
)
def test_fpr95_refuses_what_has_no_order(scores, mask, message):
    with pytest.raises(InputError, match=message):
        FPR95().update(scores, mask)


def test_a_collection_keeps_two_floors_apart():
    low, high = NegativeLogLikelihood(), NegativeLogLikelihood(floor=0.1)
    collection = MetricCollection({"low": low, "high": high})
    probs = torch.tensor([[0.5, 0.5], [0.99, 0.01]], dtype=torch.float64)
    collection.update(probs[:1], torch.tensor([1]))  # equal so far
    collection.update(probs[1:], torch.tensor([1]))
    found = {name: float(value) for name, value in collection.compute().items()}
    assert found == {
        "low": pytest.approx(-math.log(0.5 * 0.01) / 2),
        "high": pytest.approx(-math.log(0.5 * 0.1) / 2),
    }


@pytest.mark.parametrize(
    "familiar, foreign, message",
    [
        (torch.tensor([torch.nan, 1.0]), torch.tensor([2.0]), "familiar holds NaN"),
        ([0.1], [float("nan")], "foreign holds NaN"),
        (torch.zeros(0), torch.ones(3), r"familiar must be .* N ≥ 1 inputs, got shape \(0,\)"),
        (torch.ones(3), [], r"foreign must be .* N ≥ 1 inputs"),
        (torch.ones(2, 3), torch.ones(3), r"familiar must be .* got shape \(2, 3\)"),
        (torch.ones(3), torch.tensor(1.0), r"foreign must be .* got shape \(\)"),
    ],
)
def test_no_auroc_of_what_has_no_order(familiar, foreign, message):
    with pytest.raises(InputError, match=message):
        ood_auroc(familiar, foreign)


def test_an_auroc_of_lists_and_arrays_is_that_of_tensors():
    familiar, foreign = [1.0, 2.0, float("inf")], [2.0, 3.0]
    assert ood_auroc(familiar, np.array(foreign)[::-1]) == pytest.approx(oracle.auroc(familiar, foreign), abs=1e-6)
