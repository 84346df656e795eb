"""One neuron of a layer: vectors of its relaxation, ±1 weights from them, and the dual that bounds all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from varbnn.sdp.arguments import Array
from varbnn.sdp.interior import far_out, follow
from varbnn.sdp.mixing import start, sweep
from varbnn.sdp.rounding import signs
from varbnn.sdp.shared import Neuron

KEPT = 12
"""Of the roundings, at least these many of the best are polished; more where there are few weights."""

RANK, SWEEPS = 16, 100
"""Of the mixing method."""


@dataclass(frozen=True)
class Relaxation:
    """Vectors with rows of lengths 1, √t, …, √t, and what they prove.

    Attributes:
        vectors: N×k, float64.
        dual: d.
        square: t.
        gap: of the dual to the optimum at most, about; relative to the dual's value.
    """

    vectors: Tensor
    dual: Tensor
    square: float
    gap: float


def by_interior(neuron: Neuron, square: float, free: bool) -> Iterator[Relaxation]:
    """By the interior point, each better than the ones before; where the short way gets stuck, from far out."""
    least, best = 1e-4 * float(neuron.matrix[0, 0]), math.inf
    for begin in (neuron.start, lambda square: far_out(neuron.matrix, square)):
        for point in follow(neuron.matrix, begin(square), free):
            relative = point.gap / max(abs(point.value(free)), least, 1e-300)
            if relative < best:
                best = relative
                yield Relaxation(point.primal, point.dual, point.square, relative)


def by_mixing(neuron: Neuron, square: float, free: bool, seed: int) -> Relaxation:
    """By the mixing method: roundings nearly as good for less time, but a weak bound where inputs are correlated."""
    first, gram = -neuron.matrix[0, 1:].numpy(), neuron.design.gram
    vectors = start(1, neuron.design.size, RANK, seed)
    for _ in range(4 if free else 1):
        linear = np.ascontiguousarray(-first[None] / math.sqrt(square))
        lengths = sweep(gram, linear, vectors, SWEEPS // 4 if free else SWEEPS, tolerance=1e-9)[0]
        if free:
            mean = first @ vectors[0]
            vectors[0] = _turned(vectors[0], mean)
            square = (float(np.linalg.norm(mean)) / float((vectors[0] * (gram @ vectors[0])).sum())) ** 2 or square
    scale = math.sqrt(square)
    dual = torch.from_numpy(np.concatenate([[0.0], np.diag(gram) - lengths]))
    dual[0] = float(neuron.matrix[0, 0]) - scale * float(first @ vectors[0][:, 0])
    rows = torch.from_numpy(np.concatenate([np.eye(1, RANK), scale * vectors[0]]))
    measure = torch.cat([torch.ones(1, dtype=dual.dtype), torch.full((len(dual) - 1,), 1 / square, dtype=dual.dtype)])
    root = measure.rsqrt()
    smallest = float(torch.linalg.eigvalsh(root[:, None] * (neuron.matrix - torch.diag(dual)) * root)[0])
    margin = 1e-12 * float(neuron.matrix.diagonal().sum())
    return Relaxation(rows, dual + min(smallest - margin, 0.0) * measure, square, math.inf)


def _turned(vectors: Array, mean: Array) -> Array:
    """All vectors reflected so that `mean` comes to lie along the first axis."""
    length = float(np.linalg.norm(mean))
    if length == 0:
        return vectors
    normal = mean / length
    normal[0] -= 1.0
    size = float(normal @ normal)
    return vectors if size < 1e-30 else vectors - np.outer(vectors @ normal, 2 * normal / size)


def rounded(relaxation: Relaxation, count: int, generator: np.random.Generator) -> Array:
    """`count` ±1 vectors, sign(g · v_i) sign(g · v_0) with g normal (Goemans, Williamson 1995)."""
    vectors = relaxation.vectors
    if vectors.shape[0] == vectors.shape[1]:  # M itself
        vectors = torch.linalg.cholesky_ex(vectors)[0]
    noise = torch.from_numpy(generator.standard_normal((vectors.shape[1], count)))
    projected = (vectors @ noise).T.numpy()
    return signs(projected[:, 1:]) * signs(projected[:, :1])


@dataclass(frozen=True)
class Found:
    """±1 weights with a scale in units of C, and zᵀ C z."""

    weights: Array
    scale: float
    value: float


def best_of(neuron: Neuron, candidates: Array, square: float, free: bool) -> Found:
    """The best of ±1 vectors after single flips; a free scale is the best for each, and flips follow it."""
    values, scales = _values(neuron, candidates, square, free)
    chosen = np.unique(candidates[np.argsort(values)[: max(KEPT, 10000 // neuron.design.size)]], axis=0)
    best: Found | None = None
    for _ in range(8):
        values, scales = _values(neuron, chosen, square, free)
        flipped = (
            np.stack([_polished(neuron, w[None], s)[0] for w, s in zip(chosen, scales, strict=True)])
            if free
            else (_polished(neuron, chosen, float(scales[0])))
        )
        values, scales = _values(neuron, flipped, square, free)
        i = int(values.argmin())
        if best is not None and values[i] >= best.value:
            break
        best = Found(flipped[i], float(scales[i]), float(values[i]))
        chosen = flipped[i : i + 1]
        if not free:
            break
    assert best is not None
    return best


def _values(neuron: Neuron, weights: Array, square: float, free: bool) -> tuple[Array, Array]:
    """zᵀ C z of each, and the scale."""
    fields = (torch.from_numpy(weights) @ torch.from_numpy(neuron.design.gram)).numpy()
    quadratic = (fields * weights).sum(1)
    linear = weights @ -neuron.matrix[0, 1:].numpy()
    scales = np.full(len(weights), math.sqrt(square))
    if free:
        scales = np.divide(linear, quadratic, out=np.zeros_like(linear), where=quadratic > 0)
    return float(neuron.matrix[0, 0]) - 2 * scales * linear + scales * scales * quadratic, scales


def _polished(neuron: Neuron, weights: Array, scale: float) -> Array:
    """Each after single flips, the best one first, until none lowers the objective at this scale."""
    gram, linear = neuron.design.gram, -neuron.matrix[0, 1:].numpy()
    if scale == 0:
        return weights
    points = weights.copy()
    fields = (torch.from_numpy(points) @ torch.from_numpy(gram)).numpy() - linear / scale
    diagonal = np.diag(gram)
    smallest = 1e-13 * float(np.abs(diagonal).sum() + np.abs(linear).sum() / abs(scale))
    for _ in range(20 * points.shape[1] + 100):
        gains = points * fields - diagonal
        best = gains.argmax(1)
        active = np.flatnonzero(gains[np.arange(len(points)), best] > smallest)
        if not len(active):
            break
        columns = best[active]
        change = -2 * points[active, columns]
        fields[active] += change[:, None] * gram[columns]
        points[active, columns] *= -1
    return points


Stop = Callable[[], bool]


def relaxed(
    neuron: Neuron, square: float, free: bool, *, mixing: bool, tolerance: float, seed: int, stop: Stop
) -> tuple[Relaxation | None, bool]:
    """The last relaxation, and whether it came to its end before `stop` asked for it."""
    if mixing:
        return by_mixing(neuron, square, free, seed), True
    last = None
    for relaxation in by_interior(neuron, square, free):
        last = relaxation
        if relaxation.gap <= tolerance:
            break
        if stop():
            return last, False
    return last, True
