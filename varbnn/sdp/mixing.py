"""The mixing method: each unit vector in turn goes where the others want it (Wang, Chang, Kolter 2017).

For many programs that share their matrix G, minimise <G, Wᵀ W> + 2 Σ b_i v_0 · v_i over unit vectors v_1 … v_n with
v_0 fixed: v_i ← -g / ‖g‖ with g = Σ_{j≠i} G_ij v_j + b_i v_0. No step size; every update lowers the objective. With
``momentum`` β the new vector is taken from (1 + β) times the step (after Kim, Lavaei, Kyrillidis 2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from varbnn.kernels import native
from varbnn.kernels.backend import REFERENCE, active_backend
from varbnn.sdp.arguments import Array

SMALLEST = 1e-300
"""A vector on which the others act less than this stays where it is."""

WIDEST = 1024
"""The largest rank that the compiled sweep has room for."""


def start(programs: int, count: int, rank: int, seed: int = 0) -> Array:
    """Random unit vectors, shape (programs, count, rank)."""
    vectors = np.random.default_rng(seed).standard_normal((programs, count, rank))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def sweep(
    gram: Array, linear: Array, vectors: Array, sweeps: int, momentum: float = 0.0, tolerance: float = 0.0
) -> Array:
    """Run sweeps over all vectors of each program, in place.

    Args:
        gram: G, n×n, symmetric; its diagonal does not matter.
        linear: b of each program, (programs, n).
        vectors: unit vectors, (programs, n, rank), contiguous; changed in place. Compiled where
            the rank is a multiple of 8.
        sweeps: how many, at most.
        momentum: β in [0, 1).
        tolerance: a program stops early once the sum of its ‖g‖ changes by less than this part of itself in a sweep.

    Returns:
        ‖g_i‖ as each vector met it in the last sweep, (programs, n): at rest, G_ii - ‖g_i‖ is the dual vector.
    """
    lengths = np.zeros(vectors.shape[:2])
    programs, count, rank = vectors.shape
    if active_backend() == REFERENCE or rank % 8 or rank > WIDEST:
        for program in range(len(vectors)):
            _in_numpy(gram, linear[program], vectors[program], lengths[program], sweeps, momentum, tolerance)
        return lengths
    status = native.library().varbnn_cpu_mixing(
        _pointer(gram), _pointer(linear), programs, count, rank, sweeps,
        momentum, tolerance, _pointer(vectors), _pointer(lengths),
        native.threads(),
    )  # fmt: skip
    native.check(status, "the programs")
    return lengths


def _pointer(array: NDArray[np.float64]) -> int:
    assert array.flags.c_contiguous
    assert array.dtype == np.float64
    return int(array.ctypes.data)


def _in_numpy(
    gram: Array, linear: Array, vectors: Array, lengths: Array, sweeps: int, momentum: float, tolerance: float
) -> None:
    """The plain form of one program."""
    before = 0.0
    for number in range(sweeps):
        for i in range(len(vectors)):
            gradient = gram[i] @ vectors - gram[i, i] * vectors[i]
            gradient[0] += linear[i]
            lengths[i] = np.linalg.norm(gradient)
            if lengths[i] > SMALLEST:
                moved = gradient * (-(1.0 + momentum) / lengths[i]) - momentum * vectors[i]
                vectors[i] = moved / np.linalg.norm(moved)
        total = float(lengths.sum())
        if number > 0 and abs(total - before) <= tolerance * total:
            return
        before = total
