"""The free scale: XNOR-Net's is the isotropic case, and one bound holds for all scales."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.sdp.test_batch import RNG, inputs, optimum
from varbnn.sdp import least_squares_batch
from varbnn.sdp.neuron import by_interior
from varbnn.sdp.shared import Design, Neuron, proved_eigenvalue


@pytest.mark.parametrize("rows, columns", [(12, 12), (30, 10), (5, 1)])
def test_for_isotropic_inputs_it_is_sign_and_mean_magnitude_without_a_gap(rows, columns):
    basis = np.linalg.qr(RNG(0).standard_normal((rows, columns)))[0]
    y = RNG(1).standard_normal((rows, 4))
    solved = least_squares_batch(basis, y, tolerance=1e-9)
    u = basis.T @ y
    assert np.array_equal(solved.weights, np.sign(u).T)
    assert solved.scales == pytest.approx(np.abs(u).mean(0), rel=1e-9)
    assert solved.gaps.max() < 1e-7


def test_its_bound_is_no_better_than_that_of_any_given_scale():
    x = inputs("correlated", 30, 10)
    y = x @ RNG(2).standard_normal((10, 1))
    free = least_squares_batch(x, y, tolerance=1e-8)
    scales = np.geomspace(0.1, 10, 21) * free.scales[0]
    given = [least_squares_batch(x, y, s, tolerance=1e-8).lower_bounds[0] for s in scales]
    assert free.lower_bounds[0] <= min(given) * (1 + 1e-6)
    near = [
        least_squares_batch(x, y, s, tolerance=1e-8).lower_bounds[0] for s in np.linspace(0.5, 2, 61) * free.scales[0]
    ]
    assert free.lower_bounds[0] == pytest.approx(min(near), rel=1e-2)


@pytest.mark.parametrize("free", [True, False])
def test_any_dual_gives_a_bound_that_holds(free):
    """Also one that is far from optimal, or infeasible: then it is 0."""
    x = inputs("correlated", 25, 8)
    y = RNG(3).standard_normal(25)
    neuron = Neuron.of(Design(x), y, 0.4)
    square = neuron.inner(0.4) ** 2
    best = optimum(x, y, "free" if free else 0.4)
    bounds = [neuron.lower_bound(r.dual, square, free) for r in by_interior(neuron, square, free) if r.gap > 1e-9]
    assert max(bounds) > 0.3 * best
    for seed in range(20):
        dual = torch.from_numpy(RNG(seed).standard_normal(9))
        bounds.append(neuron.lower_bound(dual, square, free))
    assert max(bounds) <= best


def test_a_proved_eigenvalue_is_below_the_smallest_and_refused_where_it_is_not():
    basis = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]
    matrix = (basis * torch.linspace(1e-3, 5, 20, dtype=torch.float64)) @ basis.T
    matrix = (matrix + matrix.T) / 2
    assert proved_eigenvalue(matrix, -1.1e-3) is None
    proved = proved_eigenvalue(matrix, -0.9e-3)
    assert proved == pytest.approx(0.9e-3, rel=1e-6)
    assert proved < 1e-3
    assert proved_eigenvalue(matrix * float("nan"), 1.0) is None
