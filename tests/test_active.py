"""Which inputs are chosen: every score against its definition, the pool against its bookkeeping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.oracles import metrics
from varbnn import active
from varbnn.errors import InputError
from varbnn.predict import Prediction

PROBS = torch.rand(6, 40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).mul(4).softmax(-1)
PREDICTION = Prediction(PROBS)


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
        (lambda: active.Pool(10, 0), "start must be from 1 to 10, the size of the pool, got 0"),
        (lambda: active.Pool(10, 11), "got 11"),
        (lambda: active.Pool(10, []), "distinct indices from 0 to 9"),
        (lambda: active.Pool(10, [1, 1]), "distinct indices"),
        (lambda: active.Pool(10, torch.tensor([10])), "distinct indices"),
        (lambda: active.Pool(50, 9).query(PREDICTION, 1), "for the 41 unlabelled inputs, got 40; predict x"),
        (lambda: active.Pool(50, 10).query(PREDICTION, 41), "count must be an integer from 1 to 40"),
        (lambda: active.Pool(50, 10).query(PREDICTION, 0), "count must be"),
        (
            lambda: active.Pool(50, 10).query(PREDICTION, 2, "variance"),
            "bald, entropy, margin, variation_ratio, random, got 'variance'",
        ),
        (lambda: active.top(torch.tensor([math.nan]), 1), "N finite numbers"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_a_reason(call, message):
    with pytest.raises(InputError, match=message):
        call()
