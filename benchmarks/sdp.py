"""Binary least squares with proved bounds: how often right, how fast, and how it grows.

python benchmarks/sdp.py [--part NAME ...] [--out FILE.json]

Times are processor seconds of one thread, so that another program on the machine changes them little. The baseline is
the mixing method as one writes it first, in numpy: sweeps over coordinates, a product of one row with V for each.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, machine, read, say, write

from varbnn.sdp import binary_least_squares
from varbnn.sdp.arguments import Array
from varbnn.sdp.bound import bound_in_units, dual_of
from varbnn.sdp.branch import enumerated
from varbnn.sdp.exact import shor
from varbnn.sdp.low_rank import full_rank, relax
from varbnn.sdp.problem import Problem, least_squares_problem, quadratic_problem
from varbnn.sdp.solve import minimise


def planted(n: int, rng: np.random.Generator) -> Problem:
    """A square system with ±1 behind it, 6 dB of signal to noise."""
    x = rng.standard_normal((n, n)) / math.sqrt(n)
    return least_squares_problem(x, x @ rng.choice([-1.0, 1.0], n) + 0.5 * rng.standard_normal(n))


def relu(n: int, rng: np.random.Generator) -> Problem:
    """A float neuron behind correlated inputs that are never negative."""
    x = np.maximum(rng.standard_normal((2 * n, n)) @ rng.standard_normal((n, n)) / math.sqrt(n), 0)
    return least_squares_problem(x, x @ rng.standard_normal(n))


def gaussian(n: int, rng: np.random.Generator) -> Problem:
    """A float neuron behind independent inputs."""
    x = rng.standard_normal((2 * n, n))
    return least_squares_problem(x, x @ rng.standard_normal(n))


def max_cut(n: int, rng: np.random.Generator) -> Problem:
    """The largest cut of a random graph of n + 1 vertices with weights of both signs."""
    weights = np.triu(rng.standard_normal((n + 1, n + 1)) * (rng.random((n + 1, n + 1)) < 0.5), 1)
    weights = (weights + weights.T) / 4
    return quadratic_problem(weights[1:, 1:], weights[0, 1:])


FAMILIES: dict[str, Callable[[int, np.random.Generator], Problem]] = {
    "planted": planted, "relu": relu, "gaussian": gaussian, "max-cut": max_cut,
}  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def small(count: int = 200, largest: int = 16) -> dict[str, Any]:
    """Bound ≤ optimum ≤ found against all sign vectors, and how often the optimum was found."""
    rows = {}
    for family, make in FAMILIES.items():
        rng = np.random.default_rng(1)
        row = {"instances": count, "bound ≤ optimum ≤ found": 0, "optimum found": 0, "gap below 1e-6": 0}
        ratios = []
        for _ in range(count):
            problem = make(int(rng.integers(2, largest + 1)), rng)
            weights, _, _ = enumerated(problem)
            optimum = float(problem.objective(weights))
            found = minimise(problem)
            rounding = 1e-12 * float(np.abs(problem.homogeneous).sum()) * problem.unit
            row["bound ≤ optimum ≤ found"] += found.lower_bound <= optimum and found.objective >= optimum - rounding
            row["optimum found"] += found.objective <= optimum + rounding
            row["gap below 1e-6"] += found.gap < 1e-6
            ratios.append((optimum - found.lower_bound) / max(abs(optimum), 1e-9))
        rows[family] = row | {"median gap of the bound": float(np.median(ratios))}
        say("small", family, rows[family])
    return rows


def cuts(count: int = 40, n: int = 20, rounds: int = 15) -> dict[str, Any]:
    """How many instances triangle and pentagonal inequalities close."""
    rows = {}
    for family in ("planted", "relu", "gaussian"):
        rng = np.random.default_rng(2)
        closed, without, seconds = 0, 0, 0.0
        for _ in range(count):
            problem = FAMILIES[family](n, rng)
            found, took = timed(lambda problem=problem: minimise(problem, "clarabel", cuts=rounds))
            closed += found.gap < 1e-6
            without += minimise(problem).gap < 1e-6
            seconds += took
        rows[family] = {"instances": count, "n": n, "rounds": rounds, "closed": closed, "closed without": without,
                        "seconds": seconds / count}  # fmt: skip
        say("cuts", family, rows[family])
    return rows


def prototype(problem: Problem, gap: float, every: int = 50) -> tuple[int, float]:
    """Plain sweeps in numpy until the proved relative gap of the relaxation is `gap`: sweeps, and the gap reached."""
    matrix = problem.homogeneous
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((len(matrix), full_rank(len(matrix))))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for sweeps in range(1, 20_001):
        for i, row in enumerate(matrix):
            gradient = row @ vectors - row[i] * vectors[i]
            vectors[i] = -gradient / np.linalg.norm(gradient)
        if sweeps % every == 0:
            dual = dual_of(problem, vectors)
            reached = relative(float(dual.sum()), bound_in_units(problem, dual))
            if reached <= gap:
                break
    return sweeps, reached


def relative(value: float, bound: float) -> float:
    return (value - bound) / abs(value)


def against_prototype(n: int = 400) -> dict[str, Any]:
    """Seconds to the same proved gap of the relaxation."""
    rows = {}
    for gap in (1e-4, 1e-5):
        problem = relu(n, np.random.default_rng(3))
        (sweeps, theirs), slow = timed(lambda problem=problem, gap=gap: prototype(problem, gap))
        took, ours = [], 0.0
        for _ in range(3):
            points, seconds = timed(lambda problem=problem, gap=gap: list(relax(problem, gap)))
            took.append(seconds)
            ours = relative(points[-1].value, points[-1].bound)
        rows[f"{gap:.0e}"] = {"n": n, "prototype": {"seconds": slow, "sweeps": sweeps, "gap": theirs},
                              "low-rank": {"seconds": min(took), "gap": ours}, "ratio": slow / min(took)}  # fmt: skip
        say("prototype", rows[f"{gap:.0e}"])
    return rows


def against_scs(n: int = 200) -> dict[str, Any]:
    """A general first-order solver on the same relaxation, its bound proved from its dual vector."""
    problem = relu(n, np.random.default_rng(3))
    points, fast = timed(lambda: list(relax(problem)))
    best = points[-1].value
    (point, *_), slow = timed(lambda: list(shor(problem, "scs")))
    row = {"n": n, "scs": {"seconds": slow, "gap": relative(best, point.bound)},
           "low-rank": {"seconds": fast, "gap": relative(best, points[-1].bound)}, "ratio": slow / fast}  # fmt: skip
    say("scs", row)
    return row


def growth() -> dict[str, Any]:
    """Seconds of the low-rank relaxation over n, and the exponent of the fit through the last four."""
    rows = []
    for n in (50, 100, 200, 400, 800, 1600, 3200):
        problem = relu(n, np.random.default_rng(4))
        repeats = 3 if n <= 400 else 1
        runs = [timed(lambda problem=problem: list(relax(problem, 1e-5))) for _ in range(repeats)]
        point, seconds = runs[0][0][-1], min(run[1] for run in runs)
        rows.append({"n": n, "seconds": seconds, "gap": relative(point.value, point.bound), "rank": point.rank})
        say("growth", rows[-1])
    last = rows[-4:]
    slope = np.polyfit([math.log(row["n"]) for row in last], [math.log(row["seconds"]) for row in last], 1)[0]
    return {"rows": rows, "exponent": float(slope)}


def whole(n: int = 400) -> dict[str, Any]:
    """Everything from data to weights with a certificate."""
    rng = np.random.default_rng(5)
    x = np.maximum(rng.standard_normal((2 * n, n)) @ rng.standard_normal((n, n)) / math.sqrt(n), 0)
    y = x @ rng.standard_normal(n)
    found, seconds = timed(lambda: binary_least_squares(x, y))
    return {"n": n, "seconds": seconds, "gap": found.gap, "rank": found.rank}


PARTS: dict[str, Callable[[], Any]] = {
    "small": small, "prototype": against_prototype, "cuts": cuts, "growth": growth, "whole": whole, "scs": against_scs,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "sdp.json")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # to be said before numpy starts; its threads would count as time
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | alone)
    torch.set_num_threads(1)
    for part in args.part:
        found: dict[str, Array] = PARTS[part]()
        versions = {name: metadata.version(name) for name in ("scipy", "cvxpy", "clarabel", "scs")}
        results = read(args.out) | {part: found, "machine": machine() | versions}
        write(args.out, results)


if __name__ == "__main__":
    main()
