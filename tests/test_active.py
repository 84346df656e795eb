"""Which inputs are chosen: every score against its definition, the pool against its bookkeeping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import varbnn as vb
from tests.oracles import metrics
from tests.tolerance import assert_within_standard_errors
from varbnn import active
from varbnn.errors import InputError
from varbnn.predict import Prediction

PROBS = torch.rand(6, 40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).mul(4).softmax(-1)
PREDICTION = Prediction(PROBS)
PREDICTION_OF_ONE = Prediction(PROBS[:1])


def test_scores_are_what_they_are_called():
    samples = PROBS.numpy()
    np.testing.assert_allclose(active.bald(PREDICTION), metrics.mutual_information(samples), atol=1e-12)
    np.testing.assert_allclose(active.entropy(PREDICTION), metrics.total(samples), atol=1e-12)
    ranked = np.sort(samples.mean(0), axis=1)
    winners = samples.mean(0).argmax(-1)
    disagree = [sum(row[n].argmax() != winners[n] for row in samples) / len(samples) for n in range(len(winners))]
    assert active.variation_ratio(PREDICTION).tolist() == disagree
    assert sum(disagree) > 0
    np.testing.assert_allclose(active.margin(PREDICTION), ranked[:, -2] - ranked[:, -1], atol=1e-12)


def test_random_scores_follow_the_generator_alone():
    first, again = (active.random(PREDICTION, torch.Generator().manual_seed(3)) for _ in range(2))
    other = active.random(Prediction(PROBS.flip(1)), torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert torch.equal(first, other)


def test_a_function_of_ones_own_scores_as_the_name_does():
    by_name, by_function = active.Pool(50, range(10)), active.Pool(50, range(10))
    assert torch.equal(by_name.query(PREDICTION, 5, "margin"), by_function.query(PREDICTION, 5, active.margin))
    pool = active.Pool(50, range(10))
    assert pool.query(PREDICTION, 1, lambda p: -np.arange(40.0)).tolist() == [10]


def test_regression_is_asked_by_a_function():
    prediction = vb.RegressionPrediction([[0.0, 1.0, 5.0], [0.0, 3.0, 5.5]])
    assert active.Pool(4, [0]).query(prediction, 2, lambda p: p.epistemic).tolist() == [2, 3]


def test_regression_with_an_axis_of_outputs_is_asked_as_the_docstring_says():
    prediction = vb.RegressionPrediction([[[0.0], [1.0], [5.0]], [[0.0], [3.0], [5.5]]])
    pool = active.Pool(4, [0])
    with pytest.raises(InputError, match="must be a Prediction, of class probabilities"):
        pool.query(prediction, 1, "entropy")
    assert pool.query(prediction, 2, lambda p: p.epistemic.reshape(len(p), -1).sum(1)).tolist() == [2, 3]


@pytest.mark.parametrize("acquisition", [["bald"], lambda p: None, lambda p: "high"])
def test_what_is_no_score_is_refused_and_asks_for_nothing(acquisition):
    pool = active.Pool(50, range(10))
    with pytest.raises(InputError, match="acquisition must"):
        pool.query(PREDICTION, 1, acquisition)
    assert len(pool.unlabelled) == 40


@pytest.mark.parametrize("start", [[[1], [2, 3]], None, "3", ["a"]])
def test_a_start_that_is_none_is_refused(start):
    with pytest.raises(InputError, match="start must be"):
        active.Pool(10, start)


def test_an_average_of_packed_networks_will_do():
    average = vb.AveragePrediction(PREDICTION.mean, PREDICTION.aleatoric, PREDICTION.num_samples)
    for acquisition in ("bald", "entropy", "margin"):
        one, other = active.Pool(50, range(10)), active.Pool(50, range(10))
        assert torch.equal(one.query(average, 3, acquisition), other.query(PREDICTION, 3, acquisition))
    with pytest.raises(InputError, match="needs what each network says"):
        active.Pool(50, range(10)).query(average, 3, "variation_ratio")


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (lambda p: p.mean, r"one score for each of 40 inputs, got shape \(40, "),
        (lambda p: p.total[:3], r"one score for each of 40 inputs, got shape \(3,\)"),
        (lambda p: p.total * torch.nan, "finite"),
    ],
)
def test_scores_that_are_none_are_refused_and_move_nothing(score, reason):
    pool = active.Pool(50, range(10))
    with pytest.raises(InputError, match=reason):
        pool.query(PREDICTION, 1, score)
    assert len(pool.labelled) == 10


@pytest.mark.parametrize("count", [1, 7, 40])
@pytest.mark.parametrize("acquisition", active.ACQUISITIONS)
def test_a_query_moves_the_highest_scores_and_loses_none(acquisition, count):
    pool = active.Pool(50, start=10, generator=torch.Generator().manual_seed(0))
    before, unlabelled = pool.labelled, pool.unlabelled
    state = pool.generator.get_state()
    chosen = pool.query(PREDICTION, count, acquisition)
    pool.generator.set_state(state)
    scores = active.ACQUISITIONS[acquisition](PREDICTION, pool.generator)
    by_hand = sorted(range(40), key=lambda i: -float(scores[i]))[:count]
    assert chosen.tolist() == unlabelled[by_hand].tolist()
    assert pool.labelled.tolist() == before.tolist() + chosen.tolist()
    assert sorted(pool.labelled.tolist() + pool.unlabelled.tolist()) == list(range(50))
    assert pool.unlabelled.tolist() == sorted(pool.unlabelled.tolist())


def test_equal_scores_are_taken_in_order():
    assert active.top(torch.zeros(5), 3).tolist() == [0, 1, 2]


def test_a_random_start_follows_the_generator():
    one, other = (active.Pool(100, 20, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.labelled, other.labelled)
    assert len(one.labelled.unique()) == 20
    assert repr(one) == "Pool(20 labelled, 80 not)"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: active.Pool(10, 0), "start must be a whole number from 1 to 10, .*got 0"),
        (lambda: active.Pool(10, 11), "got 11"),
        (lambda: active.Pool(10, []), "distinct indices from 0 to 9"),
        (lambda: active.Pool(10, [1, 1]), "distinct indices"),
        (lambda: active.Pool(10, torch.tensor([10])), "distinct indices"),
        (lambda: active.Pool(50, 9).query(PREDICTION, 1), "for the 41 unlabelled inputs, got 40; predict x"),
        (lambda: active.Pool(50, 10).query(PREDICTION, 41), "count must be a whole number from 1 to 40"),
        (lambda: active.Pool(50, 10).query(PREDICTION, 0), "count must be"),
        (
            lambda: active.Pool(50, 10).query(PREDICTION, 2, "variance"),
            "bald, entropy, margin, variation_ratio, random, or a function of .*, got 'variance'",
        ),
        (lambda: active.top(torch.tensor([math.nan]), 1), "N finite numbers"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_a_reason(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_draws_are_one_after_the_other_in_proportion_to_the_power_of_the_score():
    scores, power, rounds = torch.tensor([0.3, 0.1, 0.6, 0.4]), 2.0, 20_000
    weights = (scores.double() ** power).tolist()
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(4, 4, dtype=torch.float64)
    for _ in range(rounds):
        first, second = active.drawn(scores, 2, power, generator).tolist()
        found[first, second] += 1 / rounds
    expected = torch.tensor(
        [
            [0.0 if i == j else a / sum(weights) * b / (sum(weights) - a) for j, b in enumerate(weights)]
            for i, a in enumerate(weights)
        ]
    )
    assert_within_standard_errors(found, expected, (expected * (1 - expected) / rounds).sqrt())


def test_a_power_can_take_any_or_the_highest_and_loses_no_input():
    scores = active.bald(PREDICTION)
    assert torch.equal(active.drawn(scores, 40, 1e6), active.top(scores, 40))
    some = torch.tensor([0.0, 0.2, 0.0, 1e-30])
    for power in (1e-6, 1.0, 1e6):
        orders = {tuple(active.drawn(some, 4, power).tolist()) for _ in range(100)}
        assert {order[:2] for order in orders} <= {(1, 3), (3, 1)}  # those of 0 come last, at any power
        assert {order[2:] for order in orders} == {(0, 2), (2, 0)}  # and in any order


def test_scores_of_zero_can_be_drawn_where_the_processor_flushes_small_numbers():
    assert torch.set_flush_denormal(True)
    try:
        assert active.drawn(torch.tensor([0.0, 1.0, 0.0]), 1, 1.0).tolist() == [1]
    finally:
        torch.set_flush_denormal(False)


def test_a_pool_draws_by_its_own_generator_and_keeps_its_books():
    pools = [active.Pool(50, 10, torch.Generator().manual_seed(5)) for _ in range(2)]
    chosen, again = (pool.query(PREDICTION, 7, "bald", power=1.0) for pool in pools)
    assert torch.equal(chosen, again)
    assert sorted([*pools[0].labelled.tolist(), *pools[0].unlabelled.tolist()]) == list(range(50))
    highest = active.Pool(50, 10, torch.Generator().manual_seed(5)).query(PREDICTION, 7, "bald")
    assert not torch.equal(chosen, highest)


@pytest.mark.parametrize("power", [0, -1.0, math.inf, math.nan, True, "1", 10**400])
def test_a_power_that_means_nothing_is_refused_and_moves_nothing(power):
    pool = active.Pool(50, 10, torch.Generator().manual_seed(0))
    before = pool.generator.get_state()
    with pytest.raises(InputError, match="power must be a finite number > 0"):
        pool.query(PREDICTION, 3, "bald", power=power)
    with pytest.raises(InputError, match="count must be"):
        pool.query(PREDICTION, 99, "bald", power=1.0)
    assert len(pool.labelled) == 10
    assert torch.equal(pool.generator.get_state(), before)


def test_negative_scores_and_nan_cannot_be_drawn():
    with pytest.raises(InputError, match="these are negative"):
        active.Pool(50, 10).query(PREDICTION, 3, "margin", power=1.0)
    with pytest.raises(InputError, match="NaN or inf"):
        active.drawn(torch.tensor([0.1, math.nan]), 1, 1.0)
    for shape in ((4, 3), ()):
        with pytest.raises(InputError, match="N finite numbers, got shape"):
            active.drawn(torch.ones(shape), 1, 1.0)


@pytest.mark.parametrize("start", [torch.tensor([0.5, 1.9]), [0.7, 2.2], [True, False], True])
def test_a_start_of_no_whole_numbers_is_refused(start):
    with pytest.raises(InputError, match="start must be"):
        active.Pool(6, start=start)


def test_a_count_that_is_refused_leaves_the_generator():
    generator = torch.Generator().manual_seed(0)
    pool = active.Pool(6, start=[0], generator=generator)
    before = generator.get_state()
    with pytest.raises(InputError, match="count must be"):
        pool.query(Prediction(torch.full((1, 5, 2), 0.5)), 9, "random")
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("acquisition", ["bald", "variation_ratio", active.bald, active.variation_ratio])
def test_one_network_disagrees_with_nobody_and_moves_nothing(acquisition):
    pool = active.Pool(50, range(10))
    with pytest.raises(InputError, match="one has nobody to disagree with; predict with num_samples ≥ 2"):
        pool.query(PREDICTION_OF_ONE, 5, acquisition)
    assert len(pool.unlabelled) == 40
    expected = metrics.total(PREDICTION_OF_ONE.numpy()).argsort()[::-1][:5] + 10
    assert pool.query(PREDICTION_OF_ONE, 5, "entropy").tolist() == expected.tolist()


def test_the_average_of_one_network_disagrees_with_nobody_either():
    average = vb.AveragePrediction(PREDICTION_OF_ONE.mean, PREDICTION_OF_ONE.aleatoric, 1)
    with pytest.raises(InputError, match="nobody to disagree with"):
        active.Pool(50, range(10)).query(average, 5)


def test_a_start_is_copied_and_may_run_backwards():
    start = torch.tensor([4, 1])
    pool = active.Pool(6, start)
    start[0] = 5
    assert pool.labelled.tolist() == [4, 1]
    assert active.Pool(6, np.arange(6)[::-2]).labelled.tolist() == [5, 3, 1]


def test_scores_may_run_backwards():
    pool = active.Pool(50, range(10))
    assert pool.query(PREDICTION, 2, lambda p: np.arange(40.0)[::-1]).tolist() == [10, 11]
