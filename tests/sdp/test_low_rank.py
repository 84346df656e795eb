"""Mixing, Newton's method and the laws of the roundings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.sdp.instances import every_sign_vector, problem
from varbnn.kernels import using_backend
from varbnn.kernels.backend import REFERENCE
from varbnn.sdp.bound import dual_of
from varbnn.sdp.low_rank import full_rank, relax
from varbnn.sdp.mixing import start, sweep
from varbnn.sdp.newton import newton, unit_rows
from varbnn.sdp.rounding import derandomised, polished, rounded


@pytest.mark.parametrize("momentum", [0.0, 0.3])
@pytest.mark.parametrize(("programs", "count", "rank"), [(1, 1, 8), (3, 17, 8), (2, 40, 16), (1, 60, 56)])
def test_compiled_mixing_equals_its_twin(programs, count, rank, momentum):
    rng = np.random.default_rng(count)
    gram = rng.standard_normal((count, count))
    gram, linear = gram + gram.T, rng.standard_normal((programs, count))
    one, other = start(programs, count, rank), start(programs, count, rank)
    lengths = sweep(gram, linear, one, 7, momentum)
    with using_backend(REFERENCE):
        twin = sweep(gram, linear, other, 7, momentum)
    assert lengths == pytest.approx(twin, rel=1e-9)
    assert one == pytest.approx(other, abs=1e-9)


def test_a_sweep_never_raises_the_objective_and_momentum_arrives_too():
    rng = np.random.default_rng(0)
    gram = rng.standard_normal((30, 30))
    gram, linear = gram + gram.T, rng.standard_normal((1, 30))
    np.fill_diagonal(gram, 0.0)

    def value(v):
        return float((gram * (v @ v.T)).sum() + 2 * linear[0] @ v[:, 0])

    vectors, before = start(1, 30, 16), np.inf
    for _ in range(300):
        sweep(gram, linear, vectors, 1)
        assert value(vectors[0]) <= before + 1e-9
        before = value(vectors[0])
    quick = start(1, 30, 16, seed=1)
    sweep(gram, linear, quick, 300, momentum=0.4)
    assert value(quick[0]) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("rank", [5, 1032])
def test_ranks_that_are_not_compiled_run_all_the_same(rank):
    gram = np.array([[0.0, 1.0], [1.0, 0.0]])
    vectors = start(1, 2, rank)
    sweep(gram, np.zeros((1, 2)), vectors, 50)
    assert vectors[0, 0] @ vectors[0, 1] == pytest.approx(-1.0)


def test_a_start_rank_above_the_number_of_weights():
    made = problem("relu", 4, np.random.default_rng(1))
    *_, wide = relax(made, rank=40)
    *_, usual = relax(made)
    assert wide.value == pytest.approx(usual.value, rel=1e-6)
    assert full_rank(5) % 8 == 0


@pytest.mark.parametrize("family", ["planted", "relu", "max-cut"])
def test_newton_arrives_at_a_stationary_point_below_its_start(family):
    made = problem(family, 25, np.random.default_rng(2))
    matrix = made.homogeneous
    begin = unit_rows(np.random.default_rng(3).standard_normal((26, 8)))
    end = newton(matrix, begin, steps=100)
    gradient = matrix @ end - dual_of(made, end)[:, None] * end
    assert np.linalg.norm(gradient) < 1e-7 * np.abs(matrix).sum(1).max()
    assert (end * (matrix @ end)).sum() < (begin * (matrix @ begin)).sum()


def laws(rounding, means):
    if rounding == "homogeneous":
        return 2 / math.pi * np.arcsin(means)
    return np.array([math.erf(m / math.sqrt(2 * (1 - m * m))) for m in means])


@pytest.mark.parametrize("rounding", ["homogeneous", "mean"])
def test_the_law_of_a_rounding_is_its_closed_form(rounding):
    count = 200_000
    rng = np.random.default_rng(4)
    vectors = unit_rows(rng.standard_normal((7, 5)))
    drawn = rounded(vectors, count, rounding, rng)
    expected = laws(rounding, vectors[1:] @ vectors[0])
    deviations = (drawn.mean(0) - expected) / np.sqrt((1 - expected**2) / count)
    assert np.abs(deviations).max() < 4.5
    wrong = laws("mean" if rounding == "homogeneous" else "homogeneous", vectors[1:] @ vectors[0])
    assert np.abs((drawn.mean(0) - wrong) / np.sqrt((1 - wrong**2) / count)).max() > 10


def test_pairs_follow_the_arcsine_law():
    count = 200_000
    rng = np.random.default_rng(5)
    vectors = unit_rows(rng.standard_normal((4, 3)))
    z = np.concatenate([np.ones((count, 1)), rounded(vectors, count, "homogeneous", rng)], axis=1)
    expected = 2 / math.pi * np.arcsin(np.clip(vectors @ vectors.T, -1, 1))
    assert np.abs(z.T @ z / count - expected).max() < 4.5 / math.sqrt(count)


def test_derandomised_is_no_worse_than_the_expectation_of_independent_weights():
    rng = np.random.default_rng(6)
    for family in ("planted", "relu", "max-cut"):
        made = problem(family, 9, rng)
        vectors = unit_rows(rng.standard_normal((10, 4)))
        means = vectors[1:] @ vectors[0]
        everyone = every_sign_vector(9)
        chances = ((1 + everyone * means) / 2).prod(1)
        expectation = float(chances @ made.objective(everyone))
        assert float(made.objective(derandomised(made, vectors))) <= expectation + 1e-9


def test_polished_vectors_have_no_flip_that_helps():
    rng = np.random.default_rng(7)
    made = problem("max-cut", 15, rng)
    starts = rng.choice([-1.0, 1.0], (10, 15))
    for begin, end in zip(starts, polished(made, starts), strict=True):
        value = float(made.objective(end))
        assert value <= float(made.objective(begin)) + 1e-12
        for i in range(15):
            other = end.copy()
            other[i] *= -1
            assert float(made.objective(other)) >= value - 1e-9
