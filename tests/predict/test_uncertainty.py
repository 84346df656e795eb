"""Prediction: the split of uncertainty, what is refused, and how little memory it takes."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.testing import assert_allclose

import varbnn as vb
from tests.oracles import metrics as oracle
from tests.predict.allocations import largest_allocation
from tests.predict.distributions import random_probs, sample_arrays
from varbnn.errors import InputError
from varbnn.predict import Prediction, RegressionPrediction


@settings(deadline=None, max_examples=60)
@given(sample_arrays())
def test_the_three_uncertainties_are_their_definitions(samples):
    prediction = Prediction(samples)
    assert_allclose(prediction.mean, samples.mean(axis=0), rtol=1e-12)
    assert_allclose(prediction.total, oracle.total(samples), rtol=1e-11, atol=1e-14)
    assert_allclose(prediction.aleatoric, oracle.aleatoric(samples), rtol=1e-11, atol=1e-14)
    # the oracle's mean divergence does not cancel, the difference of entropies does: absolute tolerance only
    assert_allclose(prediction.epistemic, oracle.mutual_information(samples), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(sample_arrays())
def test_uncertainties_stay_within_their_bounds_also_in_float32(samples):
    prediction = Prediction(torch.tensor(samples, dtype=torch.float32))
    num_samples, _, num_classes = samples.shape
    assert (prediction.epistemic >= 0).all()
    assert (prediction.epistemic <= math.log(min(num_samples, num_classes)) + 1e-6).all()
    assert (prediction.aleatoric >= 0).all()
    assert (prediction.total <= math.log(num_classes) + 1e-6).all()
    assert (prediction.aleatoric <= prediction.total + 1e-6).all()


@settings(deadline=None, max_examples=30)
@given(sample_arrays(max_inputs=1))
def test_the_order_of_samples_and_of_classes_does_not_matter(samples):
    shuffled = samples[::-1, :, ::-1].copy()
    for name in ("total", "aleatoric", "epistemic", "confidence"):
        assert_allclose(getattr(Prediction(samples), name), getattr(Prediction(shuffled), name), atol=1e-13)


def test_networks_that_are_sure_and_disagree_are_wholly_epistemic():
    prediction = Prediction(np.eye(3)[:, None])  # three networks, one input, each certain of another class
    assert prediction.total.item() == pytest.approx(math.log(3), abs=1e-15)
    assert prediction.aleatoric.item() == 0
    assert prediction.epistemic.item() == prediction.total.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_samples", [2, 3, 10, 30, 32, 1000])
def test_networks_that_agree_have_no_epistemic_uncertainty(num_samples, dtype):
    """Rounding was ranked: 30 equal networks told foreign inputs with an AUROC of 0.585."""
    sure, unsure = (
        torch.tensor(random_probs(1, 50, 10, sharpness=sharpness), dtype=dtype).expand(num_samples, -1, -1)
        for sharpness in (6.0, 0.7)
    )
    familiar, foreign = Prediction(sure), Prediction(unsure)
    for prediction in (familiar, foreign):
        assert not prediction.epistemic.any()
        assert_allclose(prediction.total, prediction.aleatoric, rtol=1e-6 if dtype == torch.float32 else 1e-12)
    found = vb.evaluate(familiar, [0] * 50, ood=foreign, score="epistemic")
    assert (found["ood_auroc"], found["ood_fpr95"]) == (0.5, 1.0)
    curve = vb.risk_coverage(familiar, [0] * 50, score="epistemic")
    assert_allclose(curve.risk, curve.risk[-1], rtol=1e-12)  # in a random order
    means = torch.tensor(random_probs(1, 50, 10)[..., 0], dtype=dtype).expand(num_samples, -1)
    assert not vb.RegressionPrediction(means).epistemic.any()


@pytest.mark.parametrize("num_samples", [3, 30])
def test_packed_networks_that_agree_have_none_either(num_samples):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 5))
    vb.binarize(model, posterior=vb.posteriors.Bernoulli(init="sign", init_scale=10.0))
    average = vb.pack(model, num_samples)(0.1 * torch.randn(200, 20), reduce="mean")
    assert (average.total != average.aleatoric).any()  # by rounding
    assert not average.epistemic.any()


@pytest.mark.parametrize("num_samples", [2, 30, 100])
@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6])
def test_a_small_disagreement_stays(distance, num_samples):
    """Half the networks give (1 + d)/2, half (1 - d)/2; the closed form does not cancel."""
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(num_samples // 2)
    probs = torch.stack([(1 + signs * distance) / 2, (1 - signs * distance) / 2], 1)[:, None]
    right = ((1 + distance) * math.log1p(distance) + (1 - distance) * math.log1p(-distance)) / 2
    assert Prediction(probs).epistemic.item() == pytest.approx(right, rel=1e-3 if distance == 1e-6 else 1e-6)
    if distance == 1e-2:  # float32 knows its total to 1e-7
        prediction = Prediction(probs.float())
        average = vb.AveragePrediction(prediction.mean, prediction.aleatoric, num_samples)
        assert average.epistemic.item() == pytest.approx(right, rel=0.01)


def test_epistemic_is_never_below_zero_where_rounding_would_put_it_there():
    prediction = Prediction(np.repeat(random_probs(1, 50, 10), 3, axis=0))
    assert (prediction.total < prediction.aleatoric).any()  # by rounding, for equal samples
    assert (prediction.epistemic >= 0).all()


def test_one_sample_is_its_own_mean_and_wholly_aleatoric():
    probs = torch.tensor(random_probs(1, 20, 4))
    prediction = Prediction(probs)
    assert torch.equal(prediction.mean, probs[0])
    assert torch.equal(prediction.epistemic, torch.zeros(20, dtype=torch.float64))


def test_certain_rows_have_entropy_zero_and_not_minus_zero():
    total = Prediction([[[1.0, 0.0], [0.0, 1.0]]]).total
    assert total.tolist() == [0.0, 0.0]
    assert not torch.signbit(total).any()


def test_labels_are_the_classes_of_the_mean_and_ties_go_to_the_first():
    prediction = Prediction([[[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]], [[0.4, 0.4, 0.2], [0.1, 0.9, 0.0]]])
    assert prediction.labels.tolist() == [0, 1]
    assert_allclose(prediction.confidence, [0.4, 0.55], rtol=1e-6)


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_results_have_the_precision_of_the_probabilities_whatever_the_default(default):
    torch.set_default_dtype(default)
    try:
        for dtype in (torch.float32, torch.float64):
            prediction = Prediction(torch.tensor(random_probs(3, 4, 5)).to(dtype))
            for name in ("probs", "mean", "total", "aleatoric", "epistemic", "confidence"):
                assert getattr(prediction, name).dtype == dtype, name
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accepted_and_becomes_float32(dtype):
    prediction = Prediction(torch.tensor(random_probs(2, 30, 1000)).to(dtype))
    assert prediction.probs.dtype == torch.float32


def test_memory_is_shared_with_what_was_given():
    array = random_probs(2, 3, 4)
    assert np.shares_memory(Prediction(array).numpy(), array)


def test_read_only_and_reversed_arrays_are_accepted():
    array = random_probs(2, 3, 4)
    array.flags.writeable = False
    assert_allclose(Prediction(array[::-1]).probs, array[::-1])


def test_a_list_of_each_networks_probabilities_is_stacked():
    probs = torch.tensor(random_probs(3, 4, 5))
    assert torch.equal(Prediction(list(probs)).probs, probs)


def test_gradients_are_left_behind():
    probs = torch.tensor(random_probs(2, 3, 4), requires_grad=True)
    assert not Prediction(probs).total.requires_grad


@pytest.mark.parametrize("name", ["mean", "labels", "confidence", "total", "aleatoric", "epistemic"])
def test_nothing_of_the_size_of_the_probabilities_is_made(name):
    prediction = Prediction(torch.tensor(random_probs(64, 100, 10), dtype=torch.float32))
    size = prediction.probs.nbytes
    assert largest_allocation(lambda: getattr(prediction, name)) <= size // 16  # float64 N×C is size / 32
    assert largest_allocation(lambda: Prediction(prediction.probs)) <= size // 16


@pytest.mark.parametrize(
    "index, kept",
    [
        (3, [3]),
        (-1, [9]),
        (np.int64(2), [2]),
        (slice(2, 5), [2, 3, 4]),
        ([7, 1], [7, 1]),
        (torch.tensor([0, 0]), [0, 0]),
        (torch.arange(10) > 7, [8, 9]),
        (np.arange(10) < 2, [0, 1]),
        (torch.tensor([1, 0, 3], dtype=torch.uint8), [1, 0, 3]),
        (torch.tensor([1, 0, -1], dtype=torch.int8), [1, 0, 9]),
        (slice(None, None, -1), list(range(9, -1, -1))),
        (slice(8, 1, -3), [8, 5, 2]),
        (np.arange(10)[::-1] > 7, [0, 1]),
        ([True] + [False] * 8 + [True], [0, 9]),
    ],
)
def test_an_index_selects_inputs_and_keeps_all_samples(index, kept):
    prediction = Prediction(random_probs(4, 10, 3))
    assert torch.equal(prediction[index].probs, prediction.probs[:, kept])


def test_a_loop_goes_over_the_inputs_and_ends():
    assert [len(one) for one in Prediction(random_probs(4, 3, 2))] == [1, 1, 1]


@pytest.mark.parametrize("index", [(0, 1), None, ..., (slice(None), 0)])
def test_an_index_into_more_than_the_inputs_is_refused(index):
    with pytest.raises(InputError, match="index the inputs only"):
        Prediction(random_probs(4, 10, 3))[index]


@pytest.mark.parametrize("index", [slice(5, 5), [], torch.zeros(0, dtype=torch.int64), np.zeros(10, bool)])
@pytest.mark.parametrize("prediction", [Prediction(random_probs(4, 10, 3)), vb.RegressionPrediction(np.ones((4, 10)))])
def test_selecting_no_input_is_refused(prediction, index):
    with pytest.raises(InputError, match=r"N ≥ 1|at least one of the 10 inputs"):
        prediction[index]


@pytest.mark.parametrize(
    "index, message",
    [
        (1.5, "integers or a mask, got float64"),
        (True, "integers or a mask, got bool"),
        (np.True_, "integers or a mask, got bool"),
        (torch.tensor(True), "integers or a mask, got bool"),
        (torch.ones(10), "integers or a mask, got float32"),
        ("all", "must be a tensor, an array"),
        (slice(0.5, 3), "slice of integers"),
        (slice(None, None, 0), "slice of integers"),
        (torch.ones(9, dtype=torch.bool), "one of the 10 inputs, got 9 values"),
        (np.ones(11, bool), "one of the 10 inputs, got 11 values"),
        ([[0, 1], [2, 3]], r"one axis .* got shape \(2, 2\)"),
    ],
)
@pytest.mark.parametrize("prediction", [Prediction(random_probs(4, 10, 3)), vb.RegressionPrediction(np.ones((4, 10)))])
def test_what_is_no_index_is_refused(prediction, index, message):
    with pytest.raises(InputError, match=message):
        prediction[index]


@pytest.mark.parametrize("index", [10, -11, [3, 10], torch.tensor([200], dtype=torch.uint8)])
def test_an_index_outside_the_inputs_is_an_index_error(index):
    with pytest.raises(IndexError):
        Prediction(random_probs(4, 10, 3))[index]


def test_regression_is_indexed_alike_with_its_noise():
    means, noise = torch.randn(3, 6), torch.rand(3, 6) + 0.1
    prediction = vb.RegressionPrediction(means, noise)
    for index, kept in ((slice(None, None, -2), [5, 3, 1]), (torch.tensor([1, 0], dtype=torch.uint8), [1, 0])):
        assert torch.equal(prediction[index].means, means[:, kept])
        assert torch.equal(prediction[index].noise_variance, noise[:, kept])


def test_it_prints_its_shape_and_its_uncertainty():
    prediction = Prediction([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert repr(prediction) == "Prediction(2 samples × 1 input × 2 classes, float64)"
    assert "0.6931 total = 0.0000 aleatoric + 0.6931 epistemic" in str(prediction)


@pytest.mark.parametrize("through", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_it_can_be_copied_and_pickled(through):
    prediction = Prediction(random_probs(2, 3, 4))
    assert torch.equal(through(prediction).total, prediction.total)


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        Prediction(random_probs(2, 3, 4)).probs = None


GOOD = random_probs(2, 3, 4)


@pytest.mark.parametrize(
    "probs, message",
    [
        (GOOD[0], r"pass probs\[None\]"),
        (GOOD[0, 0], "S×N×C"),
        (GOOD[None], "S×N×C"),
        (GOOD[:0], "S ≥ 1"),
        (GOOD[:, :0], "N ≥ 1"),
        (np.ones((2, 3, 1)), "two columns 1 - p, p"),
        (np.log(GOOD), r"probs\[0\] must be ≥ 0.*softmax"),
        (GOOD * 2, "must sum to 1.*row . sums to 2"),
        (np.where(np.arange(24).reshape(2, 3, 4) == 20, np.nan, GOOD), r"probs\[1\] holds NaN"),
        (np.where(np.arange(24).reshape(2, 3, 4) == 20, np.inf, GOOD), "NaN or inf"),
        (np.eye(4)[None].astype(int), r"call \.float\(\)"),
        (GOOD + 0j, "real"),
        ("three", "must be a tensor, an array"),
        ([[[0.5, 0.5], [1.0]]], "must be a tensor, an array"),
        (None, "must be a tensor, an array"),
    ],
)
def test_what_is_no_prediction_is_refused_with_a_reason(probs, message):
    with pytest.raises(InputError, match=message):
        Prediction(probs)


def test_probabilities_rounded_to_four_digits_are_accepted():
    Prediction(np.full((1, 1, 3), 0.3333))
    with pytest.raises(InputError, match=r"row 0 sums to 0\.99"):
        Prediction(np.full((1, 1, 3), 0.33))


def test_inputs_are_picked_by_what_argmax_and_argsort_give():
    pred = Prediction(torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0)).softmax(-1))
    worst = pred.total.argmax()
    assert torch.equal(pred[worst].probs, pred.probs[:, [int(worst)]])
    assert torch.equal(pred[worst.numpy()].probs, pred.probs[:, [int(worst)]])
    order = np.argsort(pred.total.numpy())[::-1]
    assert torch.equal(pred[order].probs, pred.probs[:, order.copy()])
    assert torch.equal(pred[np.array([True, False] * 3)].probs, pred.probs[:, ::2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_precise_enough(dtype):
    probs = torch.randn(3, 500, 10, generator=torch.Generator().manual_seed(0)).to(dtype).softmax(-1)
    assert Prediction(probs).probs.dtype == torch.float32
    with pytest.raises(InputError, match="must sum to 1"):
        Prediction((probs.float() * 1.05).to(dtype))


def test_bfloat16_can_be_measured_and_picked_from():
    probs = torch.randn(3, 500, 10, generator=torch.Generator().manual_seed(0)).bfloat16().softmax(-1)
    pred = Prediction(probs)
    torch.testing.assert_close(pred.probs.sum(-1), torch.ones(3, 500))
    assert vb.evaluate(pred, torch.zeros(500, dtype=torch.int64))["accuracy"] < 1
    assert torch.equal(pred[3:9].probs, pred.probs[:, 3:9])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64, np.int16, ">i8", np.int64])
def test_any_integers_pick_inputs(dtype):
    pred = Prediction(torch.rand(2, 5, 3).softmax(-1))
    assert torch.equal(pred[np.array([1, 4], dtype=dtype)].probs, pred.probs[:, [1, 4]])


def test_other_arrays_pick_nothing():
    with pytest.raises(InputError, match="an index of inputs must be"):
        Prediction(torch.rand(2, 5, 3).softmax(-1))[np.array(["a"])]


def test_an_integer_outside_the_inputs_is_an_index_error_however_large():
    prediction = Prediction(torch.rand(2, 3, 4).softmax(-1))
    for index in (3, -4, 2**70):
        with pytest.raises(IndexError):
            prediction[index]


def test_a_disagreement_far_above_rounding_counts_however_many_networks_there_are():
    """Of 1000 networks 28 μnats were taken for rounding, 240 times of what it makes."""
    mean = torch.tensor([[0.9999, 0.0001]])
    aleatoric = vb.AveragePrediction(mean, torch.zeros(1), 10).total - 5e-6
    for num_samples in (10, 1000):
        assert vb.AveragePrediction(mean, aleatoric, num_samples).epistemic.item() == pytest.approx(5e-6, rel=0.05)


@pytest.mark.parametrize(
    "prediction, values",
    [
        (Prediction([[[0.25, 0.75], [0.5, 0.5]]]), [[[0.25, 0.75], [0.5, 0.5]]]),
        (RegressionPrediction([[1.0, 2.0]], noise_variance=0.5), [[1.0, 2.0]]),
    ],
)
def test_numpy_reads_a_prediction_as_its_numbers(prediction, values):
    np.testing.assert_array_equal(np.asarray(prediction), np.asarray(values))
    assert np.shares_memory(np.asarray(prediction), prediction.numpy())
    assert not np.shares_memory(np.array(prediction), prediction.numpy())
    assert np.asarray(prediction, dtype=np.float32).dtype == np.float32
    assert np.sum(np.asarray(prediction)) == np.sum(values)
