"""What is remembered of a stream, written down slowly from the papers: lists and loops, counted from 1.

`r[i][j]` is the accuracy on task j after learning task i; `k` tasks have been learned.
"""

from __future__ import annotations


def average_accuracy(r, k) -> float:
    """Lopez-Paz & Ranzato 2017, ACC, for the first k tasks."""
    return sum(r[k - 1][i - 1] for i in range(1, k + 1)) / k


def last_accuracy(r, k, last) -> float:
    return sum(r[k - 1][i - 1] for i in range(k - last + 1, k + 1)) / last


def backward_transfer(r, k) -> float:
    """Lopez-Paz & Ranzato 2017, BWT."""
    return sum(r[k - 1][i - 1] - r[i - 1][i - 1] for i in range(1, k)) / (k - 1)


def forward_transfer(r, k, b) -> float:
    """Lopez-Paz & Ranzato 2017, FWT."""
    return sum(r[i - 2][i - 1] - b[i - 1] for i in range(2, k + 1)) / (k - 1)


def forgetting(r, k) -> float:
    """Chaudhry et al. 2018, F, the maximum from the task's own row on."""
    total = 0.0
    for j in range(1, k):
        best = -1.0
        for i in range(j, k):
            best = max(best, r[i - 1][j - 1])
        total += best - r[k - 1][j - 1]
    return total / (k - 1)


def farthest_points(points, first, size) -> list[int]:
    """Gonzalez 1985: each next centre is the point farthest from all so far, the first of equals."""
    chosen = [first]
    while len(chosen) < size:
        best, farthest = -1.0, -1
        for i, point in enumerate(points):
            if i in chosen:
                continue
            nearest = min(sum((a - b) ** 2 for a, b in zip(point, points[c], strict=True)) for c in chosen)
            if nearest > best:
                best, farthest = nearest, i
        chosen.append(farthest)
    return chosen
