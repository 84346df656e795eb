"""The public functions: what they refuse, what they survive, and being interrupted."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.sdp.instances import data, every_sign_vector, exact_least_squares, optimum
from varbnn.errors import InputError
from varbnn.sdp import (
    binary_hinge,
    binary_least_squares,
    certify,
    least_squares_batch,
    low_rank,
    max_cut,
    quadratic,
    residual,
    rounding,
    solve,
)
from varbnn.sdp.problem import least_squares_problem, scaled
from varbnn.sdp.residual import box_bound, residual_sweep

METHODS = ("low-rank", "exact", "residual")
X, Y = data("gaussian", 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((X, Y[:-1]), {}, "one entry for each of the 10 rows"),
        ((X[0], Y), {}, "must have 2 dimensions"),
        ((X, Y[:, None]), {}, "must have 1 dimension"),
        ((np.zeros((0, 5)), []), {}, "at least one row and one column"),
        ((np.zeros((5, 0)), np.zeros(5)), {}, "at least one row and one column"),
        ((np.where(X > 1, np.nan, X), Y), {}, "NaN or infinite"),
        ((X, np.full(10, np.inf)), {}, "NaN or infinite"),
        ((X, Y, np.nan), {}, "scale must be finite"),
        ((X.astype(complex) + 1j, Y), {}, "real numbers"),
        (([["a"]], [1.0]), {}, "real numbers"),
        ((X * 1e160, Y), {}, "out of range; rescale"),
        ((X * 1e-160, Y * 1e-160), {}, "out of range; rescale"),
        ((X, Y), {"method": "magic"}, "method must be one of"),
        ((X, Y), {"rounding": "up"}, "rounding must be one of"),
        ((X, Y), {"num_roundings": 0}, "num_roundings must be a whole number"),
        ((X, Y), {"cuts": 3}, "cuts are rounds of inequalities"),
        ((X, Y), {"weight": -np.ones(10)}, "row weight ≥ 0"),
        ((X, Y), {"weight": np.ones(3)}, "row weight ≥ 0"),
    ],
)
def test_bad_input_is_refused(arguments, options, sentence):
    with pytest.raises(InputError, match=sentence):
        binary_least_squares(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([[0, 1], [2, 0]],), "differs from its transpose by up to 1"),
        (([[0, 1]],), "must be square"),
        ((np.zeros((0, 0)),), "at least one row"),
        (([[np.nan]],), "NaN or infinite"),
        ((np.eye(2), [1.0]), "must have 2 entries"),
        ((np.eye(2), None, np.inf), "constant must be finite"),
        ((np.full((2, 2), 1e308),), "out of range"),
    ],
)
def test_bad_quadratics_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        quadratic(*arguments)


@pytest.mark.parametrize("weights", [[1, 0.5, 1, 1, 1], [1, 1, 1], [[1] * 5], [np.nan] * 5, [0] * 5])
def test_certify_refuses_what_is_not_a_sign_vector(weights):
    with pytest.raises(InputError):
        certify(weights, X, Y)


def test_certify_judges_given_weights():
    problem = least_squares_problem(X, Y)
    for weights in every_sign_vector(5)[::7]:
        judged = certify(weights, X, Y)
        assert judged.objective == pytest.approx(((Y - X @ weights) ** 2).sum())
        assert judged.lower_bound <= optimum(problem)
        assert judged.weights.tolist() == weights.tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "case", ["duplicated columns", "fewer rows", "one row", "zero", "zero target", "integers", "float32 list"]
)
def test_degenerate_data(method, case):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 6)), rng.standard_normal(8)
    x, y = {
        "duplicated columns": lambda: (np.repeat(x[:, :2], 3, axis=1), y),
        "fewer rows": lambda: (x[:3], y[:3]),
        "one row": lambda: (x[:1], y[:1]),
        "zero": lambda: (np.zeros((4, 6)), y[:4]),
        "zero target": lambda: (x, np.zeros(8)),
        "integers": lambda: (np.rint(2 * x).astype(int), np.rint(y).astype(int)),
        "float32 list": lambda: (x.astype(np.float32).tolist(), y.astype(np.float32).tolist()),
    }[case]()
    found = binary_least_squares(x, y, method=method)
    best = exact_least_squares(x, y)
    assert found.lower_bound <= best
    assert found.objective == pytest.approx(
        float(((np.asarray(y) - np.asarray(x) @ found.weights) ** 2).sum()), rel=1e-9
    )
    assert found.objective == pytest.approx(float(best), rel=1e-9) or method == "residual"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("of_x", "of_y", "scale"), [(1e150, 1e150, 1), (1e-150, 1e-150, 1), (1e-150, 1, 1e150)])
def test_extreme_scales_change_nothing(method, of_x, of_y, scale):
    plain = binary_least_squares(X, Y, method=method)
    moved = binary_least_squares(X * of_x, Y * of_y, scale, method=method)
    assert moved.weights.tolist() == plain.weights.tolist()
    assert moved.objective / of_y / of_y == pytest.approx(plain.objective, rel=1e-9)
    assert moved.gap == pytest.approx(plain.gap, rel=1e-6, abs=1e-9)


def test_row_weights_are_those_of_a_weighted_sum():
    rng = np.random.default_rng(2)
    for h in (rng.random(10), np.full(10, 4.0), np.where(np.arange(10) < 5, 0.0, 1e200)):
        values = (h * (Y - every_sign_vector(5) @ X.T) ** 2).sum(1)
        for method in METHODS:
            found = binary_least_squares(X, Y, weight=h, method=method)
            assert found.lower_bound <= values.min() * (1 + 1e-12)
            assert found.objective == pytest.approx(values.min(), rel=1e-9)


def test_indefinite_quadratics_agree_with_trying_everything():
    rng = np.random.default_rng(3)
    for _ in range(20):
        a, b = rng.standard_normal((6, 6)), rng.standard_normal(6)
        a = a + a.T
        w = every_sign_vector(6)
        best = (((w @ a) * w).sum(1) + 2 * w @ b).min() + 0.5
        found = quadratic(a, b, 0.5, method="low-rank")
        assert found.lower_bound <= best
        assert found.objective == pytest.approx(best)


@pytest.mark.parametrize("rounding", ["homogeneous", "mean", "derandomised"])
def test_all_roundings_find_good_weights(rounding):
    found = binary_least_squares(X, Y, method="low-rank", rounding=rounding)
    assert found.objective == pytest.approx(optimum(least_squares_problem(X, Y)))


class Interrupt:
    """Stands in for a function and interrupts its call number `at`."""

    def __init__(self, function, at):
        self.function, self.left = function, at

    def __call__(self, *args, **kwargs):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.function(*args, **kwargs)


@pytest.mark.parametrize(
    ("module", "name", "method"),
    [
        (low_rank, "sweep", "low-rank"),
        (low_rank, "newton", "low-rank"),
        (solve, "polished", "low-rank"),
        (residual, "residual_sweep", "residual"),
        (residual, "_flipped", "residual"),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupted_search_returns_the_best_so_far(monkeypatch, module, name, method, at):
    x, y = data("relu", 12, np.random.default_rng(4))
    monkeypatch.setattr(module, name, Interrupt(getattr(module, name), at))
    found = binary_least_squares(x, y, method=method)
    assert at == 1 or not found.complete
    assert np.all(np.abs(found.weights) == 1)
    assert found.lower_bound <= optimum(least_squares_problem(x, y)) <= found.objective * (1 + 1e-12)


@pytest.mark.parametrize("at", [0, 1, 5])
def test_an_interrupted_tree_keeps_a_valid_bound(monkeypatch, at):
    from varbnn.sdp import branch

    x, y = data("relu", 13, np.random.default_rng(5))
    monkeypatch.setattr(solve, "ENUMERATED", 0)
    monkeypatch.setattr(branch, "LEAF", 4)
    best = optimum(least_squares_problem(x, y))
    whole = binary_least_squares(x, y, method="exact")
    assert whole.complete
    assert whole.objective == pytest.approx(best)
    monkeypatch.setattr(branch, "fixed_to", Interrupt(branch.fixed_to, at))
    found = binary_least_squares(x, y, method="exact")
    assert not found.complete
    assert found.lower_bound <= best
    assert found.objective >= best * (1 - 1e-12)


def test_residuals_move_vectors_as_the_gram_matrix_does():
    from varbnn.sdp.mixing import start, sweep

    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((4, 9)), rng.standard_normal(4)
    for momentum in (0.0, 0.4):
        one, other = start(1, 9, 8), start(1, 9, 8)
        lengths = sweep(np.ascontiguousarray(x.T @ x), -(x.T @ y)[None], one, 5, momentum)
        assert residual_sweep(x, y, other[0], 5, momentum) == pytest.approx(lengths[0], rel=1e-9)
        assert other == pytest.approx(one, abs=1e-9)


def test_the_bound_of_the_box_holds_for_any_direction():
    rng = np.random.default_rng(7)
    for _ in range(20):
        x, y = rng.standard_normal((5, 6)), 9 * rng.standard_normal(5)
        best = optimum(least_squares_problem(x, y))
        for direction in (y, rng.standard_normal(5), np.zeros(5)):
            assert 0 <= box_bound(x, y, direction) <= best


def test_many_weights_go_without_a_gram_matrix():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((3, 4500)), 100 * rng.standard_normal(3)
    found = binary_least_squares(x, y, num_roundings=4, tolerance=1e-2)
    assert "residuals" in found.method
    assert found.objective < 1e-2 * (y @ y)


def test_scaling_says_whether_it_rounded():
    assert scaled([[1.0, 3.0]], [2.0], 0.5).exact
    assert not scaled([[1.0, 3.0]], [2.0], 0.3).exact
    assert not scaled([[1.0, 3.0]], [2.0], 1.0, [3.0]).exact
    assert not scaled([[1e-300, 1e100]], [1e-310], 1.0).exact
    assert not scaled([[2.0**996, 2.0**-100]], [1.0], 2.0**-996).exact


def test_derandomised_rounding_without_the_matrix_is_that_with_it():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 12)), 3 * rng.standard_normal(7)
    vectors = rng.standard_normal((12, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    problem = least_squares_problem(x, y)
    whole = np.concatenate([np.eye(1, 4), vectors])
    expected = rounding.derandomised(problem, whole)
    np.testing.assert_array_equal(residual._derandomised(x, y, vectors[:, 0]), expected)
    found = binary_least_squares(x, y, method="residual", rounding="derandomised")
    assert "derandomised" in found.method


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(seed=-1), "seed must be a whole number"),
        (dict(num_roundings=1.5), "num_roundings must be a whole number"),
        (dict(tolerance="x"), "tolerance must be a real number"),
        (dict(tolerance=float("nan")), "tolerance must be a positive number"),
        (dict(tolerance=float("inf")), "tolerance must be a positive number"),
        (dict(tolerance=-1.0), "tolerance must be a positive number"),
        (dict(scale="free"), "scale must be a real number, got 'free'"),
        (dict(momentum="a"), "momentum must be a real number"),
        (dict(momentum=1.0), "momentum must be finite, ≥ 0, < 1"),
        (dict(cuts=1.5), "cuts must be a whole number"),
        (dict(time_limit="a"), "time_limit must be a real number"),
        (dict(time_limit=-1), "time_limit must be ≥ 0"),
        (dict(time_limit=float("nan")), "time_limit must be ≥ 0"),
    ],
)
@pytest.mark.parametrize("method", ["low-rank", "exact", "residual"])
def test_options_of_a_wrong_kind_are_refused(method, options, message):
    with pytest.raises(InputError, match=message):
        binary_least_squares(np.eye(3), np.ones(3), method=method, **options)


TOO_LARGE = 2**53 + 1


@pytest.mark.parametrize(
    "entry",
    [
        np.array([[0, TOO_LARGE], [TOO_LARGE, 0]]),
        [[0, TOO_LARGE], [TOO_LARGE, 0]],
        [[0, 10**30 + 1], [10**30 + 1, 0]],
        torch.tensor([[0, TOO_LARGE], [TOO_LARGE, 0]]),
        np.full((2, 2), np.longdouble(1) / 3),
    ],
    ids=["int64", "list", "beyond int64", "tensor", "longdouble"],
)
def test_what_float64_would_round_is_refused(entry):
    """With it rounded, the bound "proved" for it lay above the optimum."""
    if np.asarray(entry).dtype == np.float64:
        pytest.skip("longdouble is float64 here")
    with pytest.raises(InputError, match="numbers that float64 cannot hold"):
        quadratic(entry)


def test_tensors_and_whole_numbers_are_taken_as_they_are():
    want = quadratic(np.array([[1.0, 2.0], [2.0, 1.0]]), constant=3.0)
    for given in (
        torch.tensor([[1.0, 2.0], [2.0, 1.0]], requires_grad=True),
        torch.tensor([[1, 2], [2, 1]], dtype=torch.bfloat16),
        [[1, 2], [2, 1]],
        np.array([[1, 2], [2, 1]], dtype=object),
    ):
        found = quadratic(given, constant=torch.tensor(3.0))
        assert found.objective == want.objective
    assert quadratic([[0, 2**60], [2**60, 0]]).objective == -(2.0**61)
    with pytest.raises(InputError, match="real numbers"):
        quadratic(torch.eye(2, dtype=torch.complex64))
    with pytest.raises(InputError, match="the constant must be a real number"):
        quadratic(np.eye(2), constant="much")
    with pytest.raises(InputError, match="real numbers"):
        quadratic([["0.5"]])


@pytest.mark.parametrize("number", [2**53 + 3, Fraction(1, 3), torch.tensor(2**53 + 3), np.int64(2**53 + 3)])
def test_numbers_that_float64_would_round_are_refused(number):
    """A constant of 2^53 + 3 had a bound "proved" above the optimum."""
    half = 2.0**52
    with pytest.raises(InputError, match="the constant must be a number that float64 can hold"):
        quadratic([[0, half], [half, 0]], constant=number)
    with pytest.raises(InputError, match="scale must be a number that float64 can hold"):
        binary_least_squares([[1.0]], [2.0], scale=number)
    with pytest.raises(InputError, match="margin must be a number that float64 can hold"):
        binary_hinge([[1.0]], [1.0], margin=number)
    assert binary_least_squares([[1.0]], [0.5], scale=Fraction(1, 2)).objective == 0


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [3.0]], [torch.ones(2, requires_grad=True)] * 2, "X", None])
def test_rows_that_are_no_matrix_are_refused(rows):
    with pytest.raises(InputError, match="X must"):
        binary_least_squares(rows, [0.0, 0.0])


@pytest.mark.parametrize("scale", ["2", None, float("nan")])
def test_the_hinge_loss_takes_a_scale_that_is_a_number(scale):
    with pytest.raises(InputError, match="scale must be"):
        binary_hinge([[1.0]], [1.0], scale=scale)


def test_limits_may_be_infinite_in_any_type():
    for limit in (math.inf, np.float32("inf"), torch.tensor(math.inf)):
        assert binary_least_squares(np.eye(3), np.ones(3), method="exact", time_limit=limit).gap == 0
        assert binary_hinge(np.eye(3), np.ones(3), gap_limit=0.0, time_limit=60).gap >= 0


@pytest.mark.parametrize(("rows", "size"), [(2, 4), (3, 6), (6, 12), (2, 15)])
def test_few_weights_are_the_optimum_also_behind_fewer_rows(rows, size):
    """Roundings of the relaxation, whose value is 0 there, missed 12 of 200 at 6×12, by a factor of up to 3.6."""
    rng = np.random.default_rng(11)
    signs = every_sign_vector(size)
    for _ in range(40):
        x, y = rng.standard_normal((rows, size)), rng.standard_normal(rows) * np.sqrt(size)
        best = ((signs @ x.T - y) ** 2).sum(1).min()
        found = binary_least_squares(x, y)
        assert found.objective == pytest.approx(best, rel=1e-9, abs=1e-12)
        assert found.lower_bound <= best + 1e-12
        assert found.lower_bound == pytest.approx(best, rel=1e-6, abs=1e-9)
        same = quadratic(x.T @ x, -x.T @ y, y @ y)
        assert same.objective == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_many_more_weights_are_those_of_the_relaxation():
    x, y = data("gaussian", solve.FEW_WEIGHTS + 1, np.random.default_rng(0))
    assert binary_least_squares(x, y).method.startswith("low-rank")
    assert binary_least_squares(x[:, 1:], y).method.startswith("exact")


def test_solutions_are_equal_to_themselves_alone_and_can_be_keys():
    first, second = binary_least_squares(X, Y), binary_least_squares(X, Y)
    batch = least_squares_batch(X, Y[:, None])
    cut = max_cut([[0.0, 1.0], [1.0, 0.0]])
    hinge = binary_hinge(X, np.sign(Y))
    assert first == first
    assert first != second
    assert len({first, second, batch, cut, hinge}) == 5
