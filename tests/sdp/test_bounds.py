"""A bound is never above the optimum: against all sign vectors, in rational arithmetic where rounding is the point."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.sdp.instances import exact_least_squares, exact_optimum, optimum, problem
from varbnn.sdp import binary_least_squares, quadratic
from varbnn.sdp.bound import bound_in_units, dual_of, lower_bound, proved_eigenvalue
from varbnn.sdp.lattice import lattice_of
from varbnn.sdp.low_rank import relax
from varbnn.sdp.problem import least_squares_problem, quadratic_problem
from varbnn.sdp.solve import minimise

FAMILIES = ("planted", "relu", "gaussian", "max-cut")


def check_families(family, count, largest):
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(count):
        made = problem(family, int(rng.integers(1, largest + 1)), rng)
        best, found = optimum(made), minimise(made)
        rounding = 1e-12 * float(np.abs(made.homogeneous).sum()) * made.unit
        assert found.lower_bound <= best
        assert found.objective >= best - rounding
        hits += found.objective <= best + rounding
    assert hits >= 0.95 * count


@pytest.mark.parametrize("family", FAMILIES)
def test_bound_optimum_found(family):
    check_families(family, 40, 12)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_bound_optimum_found_on_two_hundred_larger_ones(family):
    check_families(family, 200, 16)


def adversarial(kind, n, rng):
    """A, b, c that are hard on rounding."""
    a, b, c = rng.standard_normal((n, n)), rng.standard_normal(n), float(rng.standard_normal())
    a = a + a.T
    if kind == "integers":
        return np.round(3 * a), np.round(3 * b), 0.0
    if kind == "huge or tiny":
        factor = 10.0 ** int(rng.integers(-300, 290))
        return a * factor, b * factor, 0.0
    if kind == "mixed sizes":
        sizes = 10.0 ** rng.integers(-180, 140, n)
        return np.sqrt(sizes[:, None]) * a * np.sqrt(sizes), b * np.sqrt(sizes), c
    if kind == "one direction":
        v = rng.standard_normal(n)
        return np.outer(v, v), np.zeros(n), 0.0
    if kind == "subnormal":
        return np.round(a) * 1e-310, np.round(b) * 1e-310, 0.0
    if kind == "thirds":  # ties that only rounding breaks
        return np.round(a) / 3, np.round(b) / 3, 0.0
    return a, b, 1e15  # "large constant"


KINDS = ("integers", "huge or tiny", "mixed sizes", "one direction", "subnormal", "thirds", "large constant")


@pytest.mark.parametrize("kind", KINDS)
def test_bound_of_adversarial_quadratics_in_rational_arithmetic(kind):
    rng = np.random.default_rng(5)
    for _ in range(25):
        a, b, c = adversarial(kind, int(rng.integers(1, 6)), rng)
        a = np.triu(a) + np.triu(a, 1).T
        truth = exact_optimum(a, b, c)
        for method in ("low-rank", "exact"):
            found = quadratic(a, b, c, method=method)
            assert Fraction(found.lower_bound) <= truth
            assert found.objective >= found.lower_bound


@pytest.mark.parametrize("scale", [1.0, 1 / 3, 1e-150, 1e150])
def test_bound_of_least_squares_in_rational_arithmetic(scale):
    rng = np.random.default_rng(6)
    for trial in range(25):
        m, n = int(rng.integers(1, 6)), int(rng.integers(1, 6))
        x, y = rng.standard_normal((m, n)), rng.standard_normal(m) * scale
        if trial % 3 == 0:  # solvable without a rest, so the optimum is where rounding is all that is left
            x, y = np.round(4 * x), scale * (np.round(4 * x) @ np.ones(n))
        truth = exact_least_squares(x, y, scale)
        for method in ("low-rank", "exact", "residual"):
            found = binary_least_squares(x, y, scale, method=method)
            assert 0 <= Fraction(found.lower_bound) <= truth


def test_any_dual_gives_a_valid_bound():
    rng = np.random.default_rng(7)
    for _ in range(50):
        n = int(rng.integers(1, 7))
        made = problem("max-cut", n, rng)
        best = optimum(made)
        for size in (1e-3, 1.0, 1e8):
            assert lower_bound(made, size * rng.standard_normal(n + 1)) <= best
    assert lower_bound(made, np.full(n + 1, np.nan)) == -math.inf


def test_proved_eigenvalue_is_below_and_near():
    rng = np.random.default_rng(8)
    for size in (1, 2, 10, 60):
        factor = rng.standard_normal((size, max(1, size // 2)))
        singular = factor @ factor.T
        for matrix in (singular, singular - np.eye(size), np.zeros((size, size)), np.eye(size)):
            matrix = (matrix + matrix.T) / 2
            proved, near = proved_eigenvalue(matrix), np.linalg.eigvalsh(matrix)[0]
            assert proved <= near + 1e-13 * size
            assert proved >= near - 1e-11 * size**2


def test_the_proved_eigenvalue_of_an_integer_matrix_is_below_the_true_one():
    """Of J - I the smallest eigenvalue is exactly -1."""
    for size in (2, 3, 17, 64):
        assert proved_eigenvalue(np.ones((size, size)) - np.eye(size)) <= -1.0


def test_integers_close_the_gap_to_the_next_value_of_the_lattice():
    rng = np.random.default_rng(9)
    closed = 0
    for _ in range(30):
        n = int(rng.integers(2, 10))
        x, y = rng.choice([-1.0, 1.0], (12, n)), rng.integers(-5, 6, 12).astype(float)
        found = binary_least_squares(x, y, method="low-rank")
        best = optimum(least_squares_problem(x, y))
        assert found.lower_bound <= best
        assert (best - found.lower_bound) % 4 == 0
        closed += found.gap == 0
    assert closed >= 20


def test_values_lie_on_their_lattice():
    rng = np.random.default_rng(10)
    matrix = rng.integers(-6, 7, (5, 5)) * 0.125
    matrix = matrix + matrix.T
    lattice = lattice_of(matrix)
    for _ in range(20):
        z = rng.choice([-1.0, 1.0], 5)
        assert lattice.at_least(float(z @ matrix @ z)) == float(z @ matrix @ z)
    assert lattice_of(rng.standard_normal((5, 5))) is None
    assert lattice_of(np.array([[0.0, 1.0], [1.0, 1e-30]])) is None


def test_a_large_constant_does_not_spoil_the_search():
    rng = np.random.default_rng(12)
    a = rng.standard_normal((12, 12))
    a = a + a.T
    plain, moved = (quadratic(a, constant=c, method="low-rank") for c in (0.0, 1e12))
    assert np.array_equal(plain.weights, moved.weights)
    assert moved.lower_bound == pytest.approx(1e12 + plain.lower_bound, abs=1e-3)
    assert moved.lower_bound <= 1e12 + plain.objective


def test_tiny_matrices_are_solved_as_well_as_large_ones():
    rng = np.random.default_rng(13)
    a = rng.standard_normal((15, 15))
    a = a + a.T
    gaps = [quadratic(a * 2.0**power, method="low-rank").gap for power in (-900, -40, 0, 900)]
    assert gaps == pytest.approx([gaps[2]] * 4, rel=1e-9)


def test_the_relaxation_is_solved_to_its_tolerance():
    for family in FAMILIES:
        made = problem(family, 30, np.random.default_rng(3))
        *_, last = relax(made, 1e-6)
        assert last.value - last.bound <= 1e-6 * max(abs(last.value), made.unit)
        again = bound_in_units(made, dual_of(made, last.vectors))
        assert again == pytest.approx(last.raw, rel=1e-9)


def test_zero_and_single():
    assert quadratic_problem([[0.0]]).size == 1
    for method in ("low-rank", "exact"):
        zero = quadratic(np.zeros((3, 3)), method=method)
        assert (zero.objective, zero.lower_bound, zero.gap) == (0.0, 0.0, 0.0)
        one = binary_least_squares([[2.0]], [-2.0], method=method)
        assert one.weights.tolist() == [-1.0]
        assert one.gap == 0.0
        nothing = binary_least_squares([[1.0, 1.0]], [3.0], scale=0.0, method=method)
        assert (nothing.objective, nothing.lower_bound) == (9.0, 9.0)
