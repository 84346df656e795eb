"""Binary classifiers: hinge loss by integer programs, logistic loss by the box."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.sdp.instances import every_sign_vector, exact_hinge
from varbnn.errors import BackendError, InputError
from varbnn.sdp import binary_hinge, hinge

pytest.importorskip("cvxpy")


def instance(n, m, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, n))
    return x, np.where(x @ rng.standard_normal(n) + 0.5 * rng.standard_normal(m) > 0, 1.0, -1.0)


def losses(x, y, loss, margin=1.0, scale=1.0):
    short = margin - scale * y[:, None] * (x @ every_sign_vector(x.shape[1]).T)
    return (np.maximum(short, 0) if loss == "hinge" else np.logaddexp(0, short)).sum(0)


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 9), (9, 30)])
def test_the_optimum_is_found_and_proved(loss, n, m):
    x, y = instance(n, m, n)
    best = losses(x, y, loss, 1.5, 0.3).min()
    found = binary_hinge(x, y, margin=1.5, scale=0.3, loss=loss)
    assert found.objective == pytest.approx(best, abs=1e-12)
    assert found.lower_bound <= best + 1e-15
    assert found.lower_bound == pytest.approx(best, abs=1e-10)


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
def test_the_bound_of_the_box_is_below_the_optimum(loss, monkeypatch):
    monkeypatch.setattr(hinge, "ENUMERATED", 0)
    for seed in range(10):
        x, y = instance(8, 25, seed)
        best = losses(x, y, loss).min()
        found = binary_hinge(x, y, loss=loss)
        assert 0.1 * best <= found.lower_bound <= best
        assert found.objective >= best - 1e-12
        if loss == "hinge":
            assert found.objective == pytest.approx(best)  # the solver's optimum
            assert found.solver_bound == pytest.approx(best, rel=1e-6)
            assert found.solver_gap < 1e-6


def test_any_multipliers_prove_a_valid_bound():
    rng = np.random.default_rng(0)
    x, y = instance(6, 15, 0)
    for loss in ("hinge", "logistic"):
        for size in (0.1, 1.0, 10.0):
            rows = y[:, None] * x
            proved = hinge._dual_bound(rows, 1.0, size * rng.standard_normal(15), loss == "logistic")
            assert proved <= losses(x, y, loss).min()


def test_where_the_solver_fails_the_result_says_so(monkeypatch):
    def fails(*args, **options):
        raise BackendError("no")

    monkeypatch.setattr(hinge, "guarded_solve", fails)
    x, y = instance(20, 30, 1)
    found = binary_hinge(x, y)
    assert not found.complete
    assert found.solver_bound == -np.inf
    assert 0 <= found.lower_bound <= found.objective


@pytest.mark.parametrize(
    ("x", "y", "options", "sentence"),
    [
        ([[1.0]], [0.0], {}, "labels must be"),
        ([[1.0]], [1.0, 1.0], {}, "one label for each"),
        (np.zeros((0, 3)), [], {}, "at least one row"),
        ([[np.inf]], [1.0], {}, "NaN or infinite"),
        ([[1.0]], [1.0], {"loss": "square"}, "loss must be"),
        ([[1.0]], [1.0], {"time_limit": 0.0}, "time_limit"),
        ([[1e308]], [1.0], {"scale": 1e10, "loss": "logistic"}, "NaN or infinite"),
        ([[1e308], [1e308]], [1.0, -1.0], {"scale": 1e10}, "out of range"),
    ],
)
def test_bad_input_is_refused(x, y, options, sentence):
    with pytest.raises(InputError, match=sentence):
        binary_hinge(x, y, **options)


@pytest.mark.parametrize("unit", [1e-300, 1e-146, 1e-10, 1e-7, 1e8, 1e145, 1e300])
def test_units_do_not_matter(unit):
    for seed in range(3):
        x, y = instance(17, 60, seed)
        found, scaled = binary_hinge(x, y), binary_hinge(x * unit, y, margin=unit)
        assert scaled.objective == pytest.approx(unit * found.objective, rel=1e-9)
        assert scaled.lower_bound == pytest.approx(unit * found.lower_bound, rel=1e-6)
        assert scaled.solver_bound <= scaled.objective
        assert scaled.solver_gap < 1e-5


@pytest.mark.parametrize("enumerated", [0, 16])
@pytest.mark.parametrize(
    ("unit", "scale"), [(1e-158, 1e-158), (1e-158, 1e-164), (1e-310, 0.3), (1e-310, 3e-5), (1e-3, 1e-318), (1e5, 1e300)]
)
def test_the_bound_holds_in_rational_arithmetic_at_every_size(unit, scale, enumerated, monkeypatch):
    """Digits that scale · X has lost to underflow are not made up for by another unit."""
    monkeypatch.setattr(hinge, "ENUMERATED", enumerated)
    rng = np.random.default_rng(1)
    for _ in range(6):
        x, y = rng.standard_normal((3, 4)) * unit, [1.0, 1.0, -1.0]
        margin = 2 * scale * unit
        best = exact_hinge(x, y, margin, scale)
        found = binary_hinge(x, y, margin=margin, scale=scale)
        assert Fraction(found.lower_bound) <= best
        if enumerated:
            assert found.lower_bound == pytest.approx(float(best), rel=1e-12, abs=5e-324)


def test_what_the_margin_dwarfs_and_a_scale_of_zero_leave_the_margin():
    for options in ({"margin": 1e-300, "scale": 0.0}, {"margin": 1.0, "scale": 1e-320}):
        found = binary_hinge([[1.0, 1e-300], [2.0, 1e300]], [1, -1], **options)
        rows = np.array([[1.0, 1e-300], [-2.0, -1e300]]) * options["scale"]
        best = np.maximum(options["margin"] - every_sign_vector(2) @ rows.T, 0).sum(1).min()
        assert found.objective == pytest.approx(best)
        assert found.lower_bound == pytest.approx(best)


def test_losses_out_of_range_are_refused():
    with pytest.raises(InputError, match="out of range"):
        binary_hinge(np.full((40, 3), 1.7e307), -np.ones(40) * np.array([1, -1] * 20), margin=1.7e308)
