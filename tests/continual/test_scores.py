"""Scores of a stream against the papers' equations as loops, and against cases whose value is plain."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.oracles import continual as oracle
from varbnn.continual import (
    all_scores,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    last_accuracy,
    learning_accuracy,
    plasticity,
)
from varbnn.errors import InputError

SCORES = {
    "average_accuracy": average_accuracy,
    "last_accuracy": lambda r, after=-1: last_accuracy(r, 1, after),
    "learning_accuracy": learning_accuracy,
    "backward_transfer": backward_transfer,
    "forward_transfer": lambda r, after=-1: forward_transfer(r, 0.5, after),
    "forgetting": forgetting,
    "plasticity": lambda r, after=-1: plasticity(r, 1, after).lost,
}
each_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


def a_matrix(tasks: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(tasks, tasks, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tasks", [2, 3, 7, 100])
@pytest.mark.parametrize("learned", [None, 2])
def test_scores_are_the_papers(tasks, learned):
    matrix, baseline = a_matrix(tasks), a_matrix(tasks, seed=1)[0]
    r, b, k = matrix.tolist(), baseline.tolist(), learned or tasks
    after = -1 if learned is None else learned - 1
    assert average_accuracy(matrix, after) == pytest.approx(oracle.average_accuracy(r, k), abs=1e-12)
    assert backward_transfer(matrix, after) == pytest.approx(oracle.backward_transfer(r, k), abs=1e-12)
    assert forward_transfer(matrix, baseline, after) == pytest.approx(oracle.forward_transfer(r, k, b), abs=1e-12)
    assert forgetting(matrix, after) == pytest.approx(oracle.forgetting(r, k), abs=1e-12)
    for last in {1, 2, k}:
        assert last_accuracy(matrix, last, after) == pytest.approx(oracle.last_accuracy(r, k, last), abs=1e-12)
    diagonal = [r[i][i] for i in range(k)]
    half = (k + 1) // 2
    assert learning_accuracy(matrix, after) == pytest.approx(sum(diagonal) / k, abs=1e-12)
    assert plasticity(matrix, half, after) == pytest.approx(
        (sum(diagonal[:half]) / half, sum(diagonal[-half:]) / half), abs=1e-12
    )


@each_score
def test_what_comes_after_changes_nothing(score):
    """Rows of later tasks, and how tasks were judged long before they were learned."""
    matrix = a_matrix(6)
    other = matrix.clone()
    other[4:] = torch.nan
    other[:, 5:] = torch.nan
    other[0, 2:] = other[1, 3:] = torch.nan  # what forward transfer needs, the diagonal above, is left
    assert score(other, 3) == score(matrix, 3)


@each_score
def test_tensors_arrays_and_lists_with_none_are_the_same(score):
    matrix = a_matrix(4)
    matrix[0, 2:] = torch.nan
    plain = [[None if math.isnan(v) else v for v in row] for row in matrix.tolist()]
    assert score(matrix) == score(matrix.numpy()) == score(plain) == score(matrix.tolist())


def test_a_network_that_forgets_nothing():
    matrix = torch.full((5, 5), 0.875).tril() + torch.full((5, 5), torch.nan).triu(1)
    assert (average_accuracy(matrix), backward_transfer(matrix), forgetting(matrix)) == (0.875, 0.0, 0.0)
    assert plasticity(matrix, 2).lost == 0.0


def test_forgetting_and_backward_transfer_agree_where_tasks_only_get_worse():
    matrix = a_matrix(6).sort(0, descending=True).values
    assert forgetting(matrix) == pytest.approx(-backward_transfer(matrix), abs=1e-12)


def test_forgetting_counts_from_the_best_not_the_first():
    matrix = [[0.5, None, None], [0.75, 0.5, None], [0.5, 0.5, 0.5]]
    assert (forgetting(matrix), backward_transfer(matrix)) == (0.125, 0.0)


def test_forgetting_is_the_same_whether_or_not_tasks_were_judged_in_advance():
    matrix = torch.tensor([[0.5, 1.0], [0.5, 0.5]])  # the second was perfect before it was learned, if that can be
    assert forgetting(matrix) == forgetting(matrix.tril()) == 0.0


def test_forgetting_takes_the_best_of_what_was_measured():
    matrix = torch.tensor([[0.75, torch.nan, torch.nan], [torch.nan, 0.5, torch.nan], [0.25, 0.5, 1.0]])
    assert forgetting(matrix) == 0.25
    matrix[0, 0] = torch.nan
    assert math.isnan(forgetting(matrix))


def test_forward_transfer_tells_methods_apart():
    flat, rising = torch.full((3, 3), 0.5), torch.tensor([[0.5, 0.75, 0.5], [0.5, 0.5, 1.0], [0.5, 0.5, 0.5]])
    assert (forward_transfer(flat, 0.5), forward_transfer(rising, 0.5)) == (0.0, 0.375)
    assert forward_transfer(rising, [1.0, 0.25, 0.5]) == 0.5


@each_score
def test_what_was_not_measured_is_not_made_up(score):
    assert math.isnan(score(torch.full((4, 4), torch.nan)))


def test_transfer_and_forgetting_of_one_task_are_undefined():
    one = [[0.5]]
    assert math.isnan(backward_transfer(one))
    assert math.isnan(forgetting(one))
    assert math.isnan(forward_transfer(one, 0.5))
    assert (average_accuracy(one), learning_accuracy(one), last_accuracy(one, 1)) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("tasks", [1, 3, 20])
def test_all_scores_are_those_of_the_functions(tasks):
    matrix = a_matrix(tasks)
    found = all_scores(matrix, baseline=0.1)
    few, half = min(5, tasks), min(5, (tasks + 1) // 2)
    expected = {name: score(matrix) for name, score in SCORES.items() if name != "plasticity"} | {
        "last_accuracy": last_accuracy(matrix, few),
        "forward_transfer": forward_transfer(matrix, 0.1),
        "plasticity_lost": plasticity(matrix, half).lost,
    }
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda r: average_accuracy(r[:3]), "accuracy must be T×T, .*, got 3×4"),
        (lambda r: average_accuracy(torch.zeros(0, 0)), "accuracy must be T×T, .*, got 0×0"),
        (lambda r: average_accuracy(r[0]), "accuracy must be T×T, .*, got 4"),
        (lambda r: average_accuracy([[0.5, 0.5], [0.5]]), "accuracy must be a tensor, an array or nested lists"),
        (lambda r: forgetting(100 * r), "must lie in .0, 1., or be NaN, got .*; divide percentages by 100"),
        (lambda r: forgetting(-r), "must lie in"),
        (lambda r: backward_transfer(r * torch.inf), "must lie in .*got inf"),
        (
            lambda r: average_accuracy(r, 4),
            "after must be a whole number from -4 to 3, one of 4 tasks .* from the end, got 4",
        ),
        (lambda r: average_accuracy(r, -5), "after must be a whole number"),
        (lambda r: average_accuracy(r, True), "after must be a whole number"),
        (lambda r: last_accuracy(r, 5), "last must be a whole number from 1 to 4 .*, got 5"),
        (lambda r: last_accuracy(r, 3, after=1), "last must be a whole number from 1 to 2 .*, got 3"),
        (lambda r: last_accuracy(r, 0), "last must be a whole number from 1 to 4 .*, got 0"),
        (lambda r: plasticity(r, 3), "count must be a whole number from 1 to 2 .*, got 3"),
        (lambda r: forward_transfer(r, [0.1, 0.1]), "baseline must be the untrained network's accuracy on each of 4"),
        (lambda r: forward_transfer(r, 10), "baseline must be .* in .0, 1., or one number for all, got 10"),
        (lambda r: forward_transfer(r, np.full(4, np.nan)), "baseline must be"),
    ],
)
def test_what_is_no_matrix_of_accuracies_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(a_matrix(4) + 1e-3 - 1e-3)


def test_the_task_learned_last_may_be_numpys_or_torchs_number():
    r = [[0.9, None], [0.5, 0.7]]
    for number in (np.int64(0), torch.tensor(0)):
        assert average_accuracy(r, after=number) == average_accuracy(r, after=0) == 0.9
