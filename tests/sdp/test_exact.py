"""Solvers through cvxpy, triangle cuts, enumeration and branch and bound."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from tests.sdp.instances import data, every_sign_vector, graph, optimum, problem
from varbnn.errors import BackendError, InputError, MissingExtraError
from varbnn.sdp import binary_least_squares, exact, max_cut, quadratic
from varbnn.sdp.bound import bound_in_units
from varbnn.sdp.branch import Search, enumerated, fixed_to
from varbnn.sdp.cuts import Cuts, _violated, violated
from varbnn.sdp.low_rank import relax
from varbnn.sdp.problem import least_squares_problem, quadratic_problem
from varbnn.sdp.solve import minimise

cvxpy = pytest.importorskip("cvxpy")


@pytest.mark.parametrize("family", ["planted", "relu", "gaussian", "max-cut"])
@pytest.mark.parametrize("n", [5, 20, 35])
def test_low_rank_agrees_with_an_interior_point_solver(family, n):
    made = problem(family, n, np.random.default_rng(n))
    *_, ours = relax(made)
    (theirs,) = exact.shor(made, "clarabel")
    assert ours.value == pytest.approx(theirs.value, rel=1e-5)
    assert ours.bound == pytest.approx(theirs.bound, rel=1e-5)


@pytest.mark.slow
def test_low_rank_agrees_with_an_interior_point_solver_at_sixty_weights():
    made = problem("relu", 60, np.random.default_rng(0))
    *_, ours = relax(made)
    (theirs,) = exact.shor(made, "clarabel")
    assert ours.value == pytest.approx(theirs.value, rel=1e-5)


@pytest.mark.parametrize(("solver", "rounds"), [("clarabel", 0), ("clarabel", 4), ("scs", 0), ("scs", 2)])
def test_bounds_from_solvers_are_never_above_the_optimum(solver, rounds):
    rng = np.random.default_rng(1)
    for family in ("planted", "relu", "max-cut"):
        for n in (1, 2, 8):
            made = problem(family, n, rng)
            before = -np.inf
            for point in exact.shor(made, solver, rounds):
                assert point.bound <= optimum(made)
                assert point.bound >= before
                before = point.bound


def test_cuts_close_nearly_all_gaps_of_twenty_weights():
    rng = np.random.default_rng(2)
    closed = 0
    for family in ("planted", "relu", "gaussian"):
        for _ in range(2):
            made = problem(family, 20, rng)
            found = minimise(made, "clarabel", cuts=15)
            _, least, proved = enumerated(made)
            assert proved <= least
            assert found.lower_bound <= least * made.unit
            closed += found.gap < 1e-6
    assert closed >= 5


def test_multipliers_of_any_size_give_valid_bounds():
    rng = np.random.default_rng(3)
    made = problem("max-cut", 7, rng)
    best = optimum(made)
    moments = rng.uniform(-1, 1, (8, 8))
    all_cuts = _violated(moments, 20, -2.0, 3).joined(_violated(moments, 20, -2.0, 5))
    assert len(all_cuts) == 40
    for size in (1e-6, 0.1, 1.0, 1e6):
        cuts = all_cuts.with_multipliers(size * rng.random(40))
        assert made.proved(bound_in_units(made, rng.standard_normal(8), cuts)) <= best


def test_every_sign_vector_satisfies_every_cut():
    cuts = violated(np.random.default_rng(4).uniform(-1, 1, (7, 7)), most=10**6, least=-20.0)
    assert len(cuts) == 35 * 4 + 21 * 16
    for z in every_sign_vector(7):
        rows, columns, signs = cuts.pairs()
        assert np.all((signs * z[rows] * z[columns]).sum(1) >= cuts.least)
        assert len(violated(np.outer(z, z))) == 0


@pytest.mark.parametrize("size", [3, 5])
def test_the_cut_of_a_clique_is_found(size):
    moments = np.full((size, size), -1 / (size - 1)) + size / (size - 1) * np.eye(size)
    found = _violated(moments, 150, 1e-3, size)
    assert found.members[0, :size].tolist() == list(range(size))
    assert found.signs[0, :size].tolist() == [1.0] * size
    assert (found.least == -(size - 1) / 2).all()
    assert found.members.shape[1] == 5


def test_subtracting_cuts_is_what_the_bound_says():
    rng = np.random.default_rng(4)
    matrix = rng.standard_normal((6, 6))
    matrix = matrix + matrix.T
    moments = rng.uniform(-1, 1, (6, 6))
    cuts = _violated(moments, 9, -2.0, 3).joined(_violated(moments, 9, -2.0, 5)).with_multipliers(rng.random(18))
    left, error = cuts.subtracted(matrix)
    for z in every_sign_vector(6):
        held = 0.0
        for members, s, m in zip(cuts.members, cuts.signs, cuts.multipliers, strict=True):
            total = float((s * z[members]).sum())
            held += m * (total**2 - np.abs(s).sum()) / 2
        assert z @ left @ z == pytest.approx(z @ matrix @ z - held, abs=1e-12)
        assert held >= -cuts.price - 1e-12
    assert 0 < error < 1e-10
    assert len(Cuts.none().joined(cuts).active()) == 18


@pytest.mark.parametrize("family", ["planted", "relu", "gaussian", "max-cut"])
def test_enumeration_equals_trying_everything(family):
    rng = np.random.default_rng(5)
    for n in (1, 2, 3, 8, 11):
        made = problem(family, n, rng)
        found = minimise(made, "exact")
        assert found.objective == pytest.approx(optimum(made), rel=1e-12)
        assert found.lower_bound <= optimum(made)
        assert found.gap < 1e-10
        assert found.complete


def test_fixing_a_weight_leaves_the_same_objectives():
    made = problem("relu", 5, np.random.default_rng(6))
    for sign in (-1.0, 1.0):
        smaller = fixed_to(made, 2, sign)
        for w in every_sign_vector(4):
            z = np.concatenate([[1.0], w])
            full = np.insert(w, 2, sign)
            assert z @ smaller.homogeneous @ z * made.unit == pytest.approx(float(made.objective(full)), abs=1e-9)
        assert smaller.slack > made.slack


def test_branch_and_bound_equals_enumeration(monkeypatch):
    monkeypatch.setattr("varbnn.sdp.branch.LEAF", 4)
    rng = np.random.default_rng(7)
    for family in ("planted", "relu", "max-cut"):
        made = problem(family, 12, rng)
        search = Search(made, 1e-9, time.perf_counter() + 600)
        search.run()
        assert search.complete
        assert search.value * made.unit == pytest.approx(optimum(made), rel=1e-12)
        assert made.proved(search.bound) <= optimum(made)
        assert made.proved(search.bound) == pytest.approx(optimum(made), rel=1e-6)


def test_exact_for_more_weights_than_are_enumerated():
    x, y = data("gaussian", 26, np.random.default_rng(8))
    found = binary_least_squares(x, y, method="exact", time_limit=600)
    assert found.complete
    assert found.gap < 1.1e-6
    assert found.objective <= binary_least_squares(x, y).objective * (1 + 1e-12)


def test_a_search_without_time_says_so_and_keeps_a_valid_bound():
    made = problem("relu", 30, np.random.default_rng(9))
    found = minimise(made, "exact", time_limit=0.0)
    assert not found.complete
    assert "stopped before its end" in found.method
    *_, relaxed = relax(made)
    assert found.lower_bound <= relaxed.value * (1 + 1e-6)


def test_what_the_root_has_proved_is_complete_though_time_is_over():
    """The deadline passed in the rounds of cuts that closed it: "stopped before its end after 0 relaxations"."""
    target = np.random.default_rng(9).standard_normal(30)
    found = binary_least_squares(np.eye(30), target, method="exact", time_limit=0.0)
    assert found.complete
    assert found.method.endswith("to its end")
    assert np.array_equal(found.weights, np.sign(target))
    assert found.gap <= 1e-6


def test_a_solver_that_fails_proves_nothing(monkeypatch):
    made = problem("relu", 6, np.random.default_rng(10))
    monkeypatch.setattr(exact, "guarded_solve", lambda *args, **kwargs: "infeasible")
    with pytest.raises(BackendError, match="clarabel found no solution"):
        minimise(made, "clarabel")


def test_a_solver_that_stops_early_has_a_worse_bound_but_a_valid_one(monkeypatch):
    made = problem("relu", 8, np.random.default_rng(11))
    monkeypatch.setitem(exact.OPTIONS, "scs", {"max_iters": 3})
    found = minimise(made, "scs")
    assert found.lower_bound <= optimum(made)


def test_the_wrong_bounds_of_expressions_are_an_error():
    """Known of cvxpy: 0 · ∞ in bounds of expressions; with HiGHS the optimum came out as 1 where it is 0."""
    a = cvxpy.Variable(2)
    x, y = np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([1.0, -1.0])
    cost = cvxpy.sum(cvxpy.pos(1 - cvxpy.multiply(y, x @ a)))
    program = cvxpy.Problem(cvxpy.Minimize(cost), [a >= -1, a <= 1])
    if cvxpy.__version__ == "1.9.3":
        with pytest.raises(BackendError, match="invalid value"):
            exact.guarded_solve(cvxpy, program, "highs")
    else:  # perhaps repaired; a wrong optimum without an error would not be
        with contextlib.suppress(BackendError):
            exact.guarded_solve(cvxpy, program, "highs")
            assert program.value == pytest.approx(0.0, abs=1e-9)


def test_without_cvxpy_the_error_names_the_extra(monkeypatch):
    def missing(module, extra):
        raise MissingExtraError(f'{module} is not installed; pip install "varbnn[{extra}]"')

    monkeypatch.setattr(exact, "import_extra", missing)
    with pytest.raises(MissingExtraError, match=r"varbnn\[sdp\]"):
        quadratic(np.eye(3), method="clarabel")


@pytest.mark.parametrize("option", ["constant", "linear", "scale"])
def test_max_cut_takes_no_part_of_the_problem_as_an_option(option):
    """A constant moved the bound and not the value."""
    with pytest.raises(TypeError, match=option):
        max_cut([[0.0, 1.0], [1.0, 0.0]], **{option: 1.0})


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_of_one_rounding_is_one_of_every_cut(seed):
    w = np.triu(np.random.default_rng(seed).integers(0, 5, (9, 9)), 1).astype(float)
    w += w.T
    sides = every_sign_vector(9)
    best = ((w[None] * (1 - sides[:, :, None] * sides[:, None, :])).sum((1, 2)) / 4).max()
    found = max_cut(w, method="low-rank", num_roundings=1, seed=seed, tolerance=0.1)
    assert found.value <= best <= found.upper_bound


def test_max_cut():
    rng = np.random.default_rng(12)
    w = graph(9, rng)
    best = max(w[s[:, None] != s].sum() / 2 for s in every_sign_vector(10))
    for method in ("low-rank", "exact"):
        cut = max_cut(w, method=method)
        assert cut.value == pytest.approx(best)
        assert cut.upper_bound >= best
        assert cut.value == pytest.approx(w[cut.side[:, None] != cut.side].sum() / 2)
    assert max_cut([[0.0]]).value == 0.0
    five = np.roll(np.eye(5), 1, axis=0) + np.roll(np.eye(5), -1, axis=0)  # a ring of five: four edges
    assert max_cut(five).upper_bound == 4.0


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [([[0, 1], [2, 0]], "symmetric"), ([[1]], "diagonal"), ([[0, 1]], "square"), ([[0, np.nan], [np.nan, 0]], "NaN")],
)
def test_max_cut_refuses(weights, sentence):
    with pytest.raises(InputError, match=sentence):
        max_cut(weights)


def test_integer_graphs_have_integer_bounds():
    w = np.triu(np.random.default_rng(13).integers(0, 3, (9, 9)), 1)
    cut = max_cut(w + w.T)
    assert cut.upper_bound == round(cut.upper_bound)
    assert quadratic_problem(np.eye(2)).lattice is not None
    assert least_squares_problem([[0.1]], [1.0]).lattice is None
