"""All neurons of a layer at once: every bound below the optimum by enumeration, every objective above it."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from varbnn.errors import InputError
from varbnn.sdp import batch, binary_least_squares, least_squares_batch

RNG = np.random.default_rng


def optimum(x, y, scale):
    """The least objective over all ±1 vectors; over all scales too, where `scale` is "free"."""
    outputs = np.array(list(itertools.product([-1.0, 1.0], repeat=x.shape[1]))) @ x.T
    if scale == "free":
        square, inner = (outputs * outputs).sum(1), outputs @ y
        scale = np.divide(inner, square, out=np.zeros_like(inner), where=square > 0)[:, None]
    return ((y - scale * outputs) ** 2).sum(1).min()


def inputs(kind, rows, columns):
    x = RNG(rows + 10 * columns).standard_normal((rows, columns))
    if kind == "correlated":
        x = np.maximum(x + 1.0, 0.0)
    if kind == "twice the same column":
        x[:, 1] = x[:, 0]
    if kind == "a dead column":
        x[:, -1] = 0.0
    return x


KINDS = ("gaussian", "correlated", "twice the same column", "a dead column")
SHAPES = ((20, 8), (5, 8), (3, 3), (2, 6), (10, 2))


@pytest.mark.parametrize("scale", ["free", 0.7, -0.3, 0.0])
@pytest.mark.parametrize("method", ["interior", "mixing", "descent"])
@pytest.mark.parametrize("kind", KINDS)
def test_bound_optimum_and_found_are_in_this_order(kind, method, scale):
    for rows, columns in SHAPES:
        x = inputs(kind, rows, columns)
        y = np.stack([x @ RNG(0).standard_normal(columns), RNG(1).standard_normal(rows), np.zeros(rows)], 1)
        solved = least_squares_batch(x, y, scale, method=method, tolerance=1e-6)
        for p, solution in enumerate(solved):
            best = optimum(x, y[:, p], scale)
            assert solution.lower_bound <= best * (1 + 1e-12) + 1e-14
            assert solution.objective >= best * (1 - 1e-9) - 1e-9
            residual = y[:, p] - solution.scale * x @ solution.weights
            assert solution.objective == pytest.approx(residual @ residual, rel=1e-9, abs=1e-12)
            assert set(np.unique(solution.weights)) <= {-1.0, 1.0}


def test_the_interior_point_finds_and_bounds_as_the_single_solver_does():
    x = inputs("correlated", 40, 12)
    y = x @ RNG(2).standard_normal((12, 6))
    solved = least_squares_batch(x, y, 0.5, tolerance=1e-7)
    for p in range(6):
        alone = binary_least_squares(x, y[:, p], 0.5, method="low-rank", tolerance=1e-8)
        assert solved.lower_bounds[p] == pytest.approx(alone.lower_bound, rel=1e-5)
        assert solved.objectives[p] == pytest.approx(alone.objective, rel=1e-9)


def test_a_neuron_has_the_same_solution_alone_and_among_others_and_for_any_number_of_threads():
    x = inputs("correlated", 60, 20)
    y = x @ RNG(3).standard_normal((20, 4))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = least_squares_batch(x, y)
        torch.set_num_threads(3)
        again = least_squares_batch(x, y)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    alone = least_squares_batch(x, y[:, :1])
    for name in ("weights", "scales", "objectives", "lower_bounds"):
        assert np.array_equal(getattr(together, name), getattr(again, name)), name
        assert np.array_equal(getattr(together, name)[:1], getattr(alone, name)), name


@pytest.mark.parametrize("size", [1e-120, 1e120])
def test_units_do_not_matter(size):
    x, y = inputs("correlated", 15, 6), RNG(4).standard_normal((15, 2))
    plain, other = least_squares_batch(x, y), least_squares_batch(x * size, y / size)
    assert np.array_equal(plain.weights, other.weights)
    assert other.lower_bounds * size * size == pytest.approx(plain.lower_bounds, rel=1e-9)
    assert other.scales * size * size == pytest.approx(plain.scales, rel=1e-9)


def test_rows_that_add_up_to_nothing_prove_nothing_over_all_scales():
    """As docs/layerwise.md says: with the vector of ones in its kernel the relaxation is real least squares."""
    rng = np.random.default_rng(0)
    x, real = rng.standard_normal((60, 12)), rng.standard_normal((12, 3))
    level = x - x.mean(1, keepdims=True)
    assert (least_squares_batch(x, x @ real).lower_bounds > 1).all()
    assert (least_squares_batch(level, level @ real).lower_bounds < 1e-9).all()


def test_starts_are_improved_on():
    x = inputs("correlated", 40, 16)
    planted = np.where(RNG(5).standard_normal((2, 16)) > 0, 1.0, -1.0)
    solved = least_squares_batch(x, 0.3 * x @ planted.T, method="descent", starts=planted)
    assert np.array_equal(solved.weights, planted)
    assert solved.objectives.max() < 1e-20


def test_interrupted_finished_neurons_keep_their_certificates(monkeypatch):
    x = inputs("correlated", 60, 20)
    y = x @ RNG(6).standard_normal((20, 5))
    whole = least_squares_batch(x, y)

    def one_then_ctrl_c(futures):
        yield next(iter(waiting(futures)))
        raise KeyboardInterrupt

    waiting = batch.as_completed
    monkeypatch.setattr(batch, "as_completed", one_then_ctrl_c)
    solved = least_squares_batch(x, y)
    assert solved.complete.any()
    assert not solved.complete.all()
    assert np.array_equal(solved.lower_bounds[solved.complete], whole.lower_bounds[solved.complete])
    assert (solved.lower_bounds >= 0).all()
    assert (solved.lower_bounds <= whole.objectives).all()
    for p, solution in enumerate(solved):
        residual = y[:, p] - solution.scale * x @ solution.weights
        assert solution.objective == pytest.approx(residual @ residual)


@pytest.mark.parametrize(
    "x, y, options, words",
    [
        (np.ones((3, 2)), np.full((3, 1), np.nan), {}, "Y has NaN"),
        (np.full((3, 2), np.inf), np.ones((3, 1)), {}, "X has NaN or inf"),
        (np.ones((3, 2)), np.ones((4, 1)), {}, "Y must have 3 rows"),
        (np.ones((3, 2)), np.ones((3, 0)), {}, "and a column"),
        (np.ones((3, 2)), np.ones(3), {}, "2 dimensions"),
        (np.ones((0, 2)), np.ones((0, 1)), {}, "at least one row"),
        (np.ones((3, 2)), np.ones((3, 1)), {"scale": "best"}, "'free'"),
        (np.ones((3, 2)), np.ones((3, 1)), {"scale": [1.0, 2.0]}, "one number or 1"),
        (np.ones((3, 2)), np.ones((3, 1)), {"scale": np.nan}, "scale has NaN"),
        (np.ones((3, 2)), np.ones((3, 1)), {"scale": ["a"]}, "scale must be an array of real numbers"),
        (np.ones((3, 2)), np.ones((3, 1)), {"scale": [1j]}, "scale must be an array of real numbers"),
        (np.ones((3, 2)), np.ones((3, 1)), {"method": "magic"}, "one of"),
        (np.ones((3, 2)), np.ones((3, 1)), {"tolerance": 0.0}, "positive"),
        (np.ones((3, 2)), np.ones((3, 1)), {"starts": np.zeros((1, 2))}, r"\+1 or -1"),
        (np.full((3, 2), 1e200), np.ones((3, 1)), {}, "out of range"),
        ([[1e-90], [2e-90]], [[1.0], [2.0]], {"scale": 1.0}, "out of range"),
    ],
)
def test_what_does_not_fit_is_refused(x, y, options, words):
    with pytest.raises(InputError, match=words):
        least_squares_batch(x, y, **options)


def test_targets_out_of_range_are_refused_and_the_smallest_prove_nothing_false():
    with pytest.raises(InputError, match="out of range"):
        least_squares_batch(np.zeros((4, 3)), np.full((4, 1), 1e200))
    found = least_squares_batch(np.zeros((1, 3)), [[1.5e-161]])
    assert Fraction(float(found.lower_bounds[0])) <= Fraction(1.5e-161) ** 2
    assert np.isfinite(found.gaps).all()


def test_with_a_given_scale_of_zero_the_objective_is_the_optimum():
    x, y = RNG(0).standard_normal((30, 6)), RNG(1).standard_normal((30, 2))
    found = least_squares_batch(x, y, 0.0)
    np.testing.assert_allclose(found.objectives, (y * y).sum(0), rtol=1e-14)
    assert all(0 <= solution.gap < 1e-12 for solution in found)


def test_one_neuron_is_picked_at_a_time():
    solved = least_squares_batch(inputs("gaussian", 20, 8), RNG(0).standard_normal((20, 3)))
    assert np.array_equal(solved[np.int64(-1)].weights, solved.weights[2])
    for index in (slice(0, 1), [0], 1.0):
        with pytest.raises(InputError, match="index one neuron with a whole number"):
            solved[index]
    with pytest.raises(IndexError):
        solved[3]
