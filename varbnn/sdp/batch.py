"""Least squares over ±1 weights for all neurons of a layer at once: they share X, and with it most of the work."""

from __future__ import annotations

import math
import operator
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from varbnn.errors import InputError
from varbnn.progress import progress_bar
from varbnn.sdp.arguments import Array, finite, require_draws
from varbnn.sdp.neuron import best_of, relaxed, rounded
from varbnn.sdp.problem import UNDERFLOW, UNIT
from varbnn.sdp.rounding import signs
from varbnn.sdp.shared import Design, Neuron
from varbnn.sdp.solution import Solution

LARGEST_INTERIOR = 2048
"""Weights of a neuron up to which ``"auto"`` takes the interior point."""

METHODS = ("auto", "interior", "mixing", "descent")


@dataclass(frozen=True, eq=False)
class SolutionBatch:
    """±1 weights of P neurons, each with a certificate of its own.

    Attributes:
        weights: ±1, (P, n).
        scales: α of each, (P,).
        objectives: ‖y - α X w‖² of each, (P,).
        lower_bounds: proved: no ±1 weights of that neuron (and, for a free scale, with any scale) have less; (P,).
        complete: False for a neuron that an interruption cut short, (P,).
        seconds: wall time of each, (P,).
        method: how they were found and the bounds were proved.
    """

    weights: Array = field(repr=False)
    scales: Array = field(repr=False)
    objectives: Array = field(repr=False)
    lower_bounds: Array = field(repr=False)
    complete: np.ndarray = field(repr=False)
    seconds: Array = field(repr=False)
    method: str

    @property
    def gaps(self) -> Array:
        """(objective - lower bound) / objective of each neuron; 0 where both are 0."""
        difference = np.maximum(self.objectives - self.lower_bounds, 0.0)
        return np.divide(difference, self.objectives, out=np.zeros_like(difference), where=self.objectives > 0)

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: int) -> Solution:
        """The solution of one neuron.

        Raises:
            InputError: no whole number, such as a slice.
            IndexError: an integer outside the neurons.
        """
        try:
            index = operator.index(index)
        except TypeError:
            raise InputError(
                f"index one neuron with a whole number, got {index!r}; several have batch.weights[:3]"
            ) from None
        return Solution(
            self.weights[index], float(self.objectives[index]), float(self.lower_bounds[index]), 0,
            float(self.seconds[index]), self.method, float(self.scales[index]), bool(self.complete[index]),
        )  # fmt: skip

    def __iter__(self) -> Iterator[Solution]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class _Options:
    free: bool
    method: str
    tolerance: float
    num_roundings: int
    seed: int


def least_squares_batch(
    design: ArrayLike,
    targets: ArrayLike,
    scale: float | ArrayLike | Literal["free"] = "free",
    *,
    method: str = "auto",
    tolerance: float = 0.02,
    num_roundings: int = 100,
    starts: ArrayLike | None = None,
    seed: int = 0,
    progress: bool = False,
) -> SolutionBatch:
    """Minimise ‖y_p - α_p · X w_p‖² over w_p in {-1, +1}ⁿ for every column y_p of Y.

    The matrix XᵀX is formed once, neurons are spread over torch's threads, and results do not depend on their number.
    Columns of X that are all zero are left out; their weights are +1.

    Args:
        design: X, m×n.
        targets: Y, m×P.
        scale: α of all neurons, or one for each, or ``"free"``: each neuron has the best for its weights, and its
            bound holds for all scales.
        method: ``"interior"``: relaxation by an interior point, whatever the inputs; its time grows with n³.
            ``"mixing"``: by the mixing method, which bounds well only where inputs are hardly correlated (and
            hardly anything for a free scale). ``"auto"``: the first up to 2048 inputs, the second beyond.
            ``"descent"``: no relaxation, single flips from sign(Xᵀy) and from `starts`; nothing but 0 is proved.
        tolerance: of the relaxation, relative to its value.
        num_roundings: ±1 vectors drawn from each relaxation; the best are improved by single flips.
        starts: ±1 weights to improve on too, P×n.
        seed: of the roundings.
        progress: show a bar, where there is a terminal or a notebook.

    Returns:
        Interrupted (Ctrl-C): neurons that were finished keep their certificates, the others have sign(Xᵀy) and what
        was proved, at least 0.

    Raises:
        InputError: shapes that do not fit, NaN or infinite entries, an unknown option.

    >>> x = np.random.default_rng(0).standard_normal((60, 12))
    >>> w = np.where(np.arange(24).reshape(12, 2) % 3 == 0, -0.5, 0.5)
    >>> found = least_squares_batch(x, x @ w)
    >>> found.scales.round(6).tolist(), bool((found.objectives < 1e-20).all())
    ([0.5, 0.5], True)
    """
    shared, y = Design(design), finite("Y", targets, 2)
    if len(y) != len(shared.values) or y.shape[1] == 0:
        raise InputError(f"Y must have {len(shared.values)} rows as X has, and a column, got shape {y.shape}")
    if method not in METHODS:
        raise InputError(f"method must be one of {METHODS}, got {method!r}")
    require_draws(num_roundings, seed, tolerance)
    if method == "auto":
        method = "interior" if shared.size <= LARGEST_INTERIOR else "mixing"
    scales = _scales(scale, y.shape[1])
    given = None if starts is None else _starts(starts, y.shape[1], shared)
    options = _Options(scales is None, method, tolerance, num_roundings, seed)
    stopped = threading.Event()

    def one(p: int) -> Solution:
        # every neuron has noise of its own, so that threads may take them in any order
        own = None if given is None else given[p]
        return solve_one(shared, y[:, p], None if scales is None else float(scales[p]), options, own, p, stopped)

    return _collected(shared, y, scales, options, _over_threads(one, y.shape[1], stopped, progress))


def _over_threads(
    one: Callable[[int], Solution], count: int, stopped: threading.Event, progress: bool
) -> dict[int, Solution]:
    """What `one` gives for every number below `count`; after Ctrl-C, for those that were begun."""
    threads = torch.get_num_threads()
    found: dict[int, Solution] = {}
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    bar = progress_bar(progress, total=count, unit="neuron")
    futures: dict[Future[Solution], int] = {}
    try:
        futures = {pool.submit(one, p): p for p in range(count)}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            bar.update()
    except KeyboardInterrupt:
        stopped.set()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        bar.close()
        torch.set_num_threads(threads)
    for future, p in futures.items():
        if p not in found and future.done() and not future.cancelled():
            found[p] = future.result()
    return found


def solve_one(
    shared: Design, target: Array, scale: float | None, options: _Options, start: Array | None, number: int,
    stopped: threading.Event,
) -> Solution:  # fmt: skip
    """One neuron; `scale` None is free."""
    began = time.perf_counter()
    sign = -1.0 if scale is not None and scale < 0 else 1.0
    first = signs(shared.values.T @ target)
    guess = abs(scale) if scale is not None else _guess(shared, target, first)
    if guess == 0 or not shared.size:
        return _trivial(shared, target, scale, first, began)
    neuron = Neuron.of(shared, sign * target, guess)
    square = neuron.inner(guess) ** 2
    candidates = [sign * first[None]] if start is None else [sign * first[None], start[None]]
    bound, complete = 0.0, not stopped.is_set()
    if options.free and options.method != "descent" and complete:
        # a start with about the right scale saves most of the way
        early = best_of(neuron, np.concatenate(candidates), square, True)
        if early.scale != 0:
            candidates.append(early.weights[None] * (1.0 if early.scale > 0 else -1.0))
            guess = abs(neuron.outer(early.scale))
            neuron = Neuron.of(shared, target, guess)
            square = neuron.inner(guess) ** 2
    if options.method != "descent" and complete:
        relaxation, complete = relaxed(
            neuron, square, options.free, mixing=options.method == "mixing", tolerance=options.tolerance,
            seed=options.seed, stop=stopped.is_set,
        )  # fmt: skip
        if relaxation is not None:
            generator = np.random.default_rng([options.seed, number])
            candidates.append(rounded(relaxation, options.num_roundings, generator))
            bound = neuron.lower_bound(relaxation.dual, square, options.free)
    found = best_of(neuron, np.concatenate(candidates), square, options.free)
    weights, inner = found.weights, found.scale
    alpha = scale if scale is not None else neuron.outer(inner)
    if scale is None and alpha < 0:
        alpha, weights = -alpha, -weights
    return Solution(
        _whole(shared, weights), _objective(shared, target, alpha, weights), bound, 0, time.perf_counter() - began,
        options.method, alpha, complete,
    )  # fmt: skip


def _guess(shared: Design, target: Array, first: Array) -> float:
    """The best scale of sign(Xᵀy), in the units given."""
    outputs = shared.values @ first
    square = float(outputs @ outputs)
    best = float(outputs @ target) / square if square > 0 else 0.0
    return math.ldexp(abs(best), -shared.exponent)


def _objective(shared: Design, target: Array, scale: float, weights: Array) -> float:
    residual = target - math.ldexp(scale, shared.exponent) * (shared.values @ weights)
    with np.errstate(over="ignore"):  # infinite then
        return float(residual @ residual)


def _trivial(shared: Design, target: Array, scale: float | None, weights: Array, began: float) -> Solution:
    """Without inputs or with scale 0 all weights are as good as each other; without Xᵀy no scale beats 0."""
    given, scale = scale is not None, scale or 0.0
    value = _objective(shared, target, scale, weights)
    if not math.isfinite(value):
        raise InputError(f"the squares of numbers like {float(np.abs(target).max()):.1g} are out of range; rescale Y")
    known = not shared.size or given or not target.any()
    bound = max(value * (1 - 4 * (len(target) + 4) * UNIT) - (len(target) + 1) * UNDERFLOW, 0.0) if known else 0.0
    return Solution(_whole(shared, weights), value, bound, 0, time.perf_counter() - began, "closed form", scale)


def _whole(shared: Design, weights: Array) -> Array:
    full = np.ones(shared.columns)
    full[shared.alive] = weights
    return full


def _scales(scale: float | ArrayLike | Literal["free"], count: int) -> Array | None:
    if isinstance(scale, str):
        if scale != "free":
            raise InputError(f"scale must be a number, one for each neuron, or 'free', got {scale!r}")
        return None
    values = finite("scale", scale, 0, 1)
    if values.shape not in ((), (count,)):
        raise InputError(f"scale must be one number or {count}, got shape {values.shape}")
    return np.broadcast_to(values, (count,))


def _starts(starts: ArrayLike, count: int, shared: Design) -> Array:
    given = finite("starts", starts, 2)
    if given.shape != (count, shared.columns) or not np.all(np.abs(given) == 1):
        raise InputError(f"starts must be {count}×{shared.columns} numbers that are +1 or -1, got shape {given.shape}")
    return given[:, shared.alive]


def _collected(
    shared: Design, y: Array, scales: Array | None, options: _Options, found: dict[int, Solution]
) -> SolutionBatch:
    """One row for each neuron, also for those that were not begun."""
    rows = []
    for p in range(y.shape[1]):
        solution = found.get(p)
        if solution is None:
            first = signs(shared.values.T @ y[:, p])
            alpha = _guess(shared, y[:, p], first) if scales is None else float(scales[p])
            weights = -first if alpha < 0 else first
            solution = Solution(
                _whole(shared, weights), _objective(shared, y[:, p], alpha, weights), 0.0, 0, 0.0, "", alpha, False
            )
        rows.append(solution)
    return SolutionBatch(
        np.stack([r.weights for r in rows]), np.array([r.scale for r in rows]), np.array([r.objective for r in rows]),
        np.array([r.lower_bound for r in rows]), np.array([r.complete for r in rows]),
        np.array([r.seconds for r in rows]), options.method,
    )  # fmt: skip
