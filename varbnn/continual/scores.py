"""What a network remembers of a stream, read off the matrix of its accuracies.

The matrix R is T×T: row i was measured after learning task i, column j on task j. Rows and columns are counted from 0.
NaN stands for what was not measured; a score that needs it is NaN. A network that has learned only some of the tasks
is asked about by `after`, the task it learned last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import as_tensor, whole_number
from varbnn.errors import InputError

Matrix = Tensor | np.ndarray | Sequence[Sequence[float | None]]  # None, as in JSON, is NaN


def average_accuracy(accuracy: Matrix, after: int = -1) -> float:
    """Mean accuracy on all tasks learned so far, in [0, 1].

    Args:
        accuracy: R, T×T.
        after: the task learned last, counted from 0, or from the end as -1.

    Raises:
        InputError: no square matrix of numbers in [0, 1] or NaN, or a task it does not have.

    Source: Lopez-Paz & Ranzato 2017 (ACC); Chaudhry et al. 2018 (A).

    >>> average_accuracy([[0.9, None, None], [0.7, 0.9, None], [0.5, 0.8, 0.8]])
    0.7000000000000001
    >>> average_accuracy([[0.9, None, None], [0.7, 0.9, None], [0.5, 0.8, 0.8]], after=0)
    0.9
    """
    matrix, now = _checked(accuracy, after)
    return _mean(matrix[now, : now + 1])


def last_accuracy(accuracy: Matrix, last: int = 5, after: int = -1) -> float:
    """Mean accuracy on the `last` tasks learned: what a network with a short memory is judged by, in [0, 1].

    Arguments and errors are those of `average_accuracy`; `last` is from 1 to the number of tasks learned.

    >>> last_accuracy([[0.9, None, None], [0.7, 0.9, None], [0.5, 0.7, 0.9]], last=2)
    0.8
    """
    matrix, now = _checked(accuracy, after)
    last = whole_number("last", last, most=now + 1, note=" for so few tasks")
    return _mean(matrix[now, now + 1 - last : now + 1])


def learning_accuracy(accuracy: Matrix, after: int = -1) -> float:
    """Mean accuracy on each task right after it was learned, in [0, 1]: the mean of the diagonal.

    What is missing here was never learned; what `average_accuracy` lacks beyond that was forgotten. Arguments and
    errors are those of `average_accuracy`.

    Source: Riemer et al. 2019 (LA).

    >>> learning_accuracy([[0.9, None], [0.5, 0.7]])
    0.8
    """
    matrix, now = _checked(accuracy, after)
    return _mean(matrix.diagonal()[: now + 1])


def backward_transfer(accuracy: Matrix, after: int = -1) -> float:
    """What later tasks did to the accuracy on earlier ones: the mean of R[after, j] - R[j, j] over all j < after.

    Negative where something was forgotten; NaN after the first task. Arguments and errors are those of
    `average_accuracy`.

    Source: Lopez-Paz & Ranzato 2017 (BWT).

    >>> backward_transfer([[0.75, None], [0.5, 0.9]])
    -0.25
    """
    matrix, now = _checked(accuracy, after)
    return _mean(matrix[now, :now] - matrix.diagonal()[:now])


def forward_transfer(
    accuracy: Matrix, baseline: float | Sequence[float] | Tensor | np.ndarray, after: int = -1
) -> float:
    """What earlier tasks did for one not yet learned: the mean of R[j - 1, j] - baseline[j] over j = 1 … after.

    The diagonal above the main one must have been measured; see `EvaluationPlan.tasks`.

    Args:
        accuracy: R, T×T.
        baseline: accuracy of the untrained network on each task, T numbers, or one for all, such as 1 / classes.
        after: the task learned last, counted from 0, or from the end as -1.

    Returns:
        NaN after the first task.

    Raises:
        InputError: as for `average_accuracy`; a baseline that is not T numbers in [0, 1].

    Source: Lopez-Paz & Ranzato 2017 (FWT).

    >>> forward_transfer([[0.9, 0.25], [0.5, 0.9]], baseline=0.125)
    0.125
    """
    matrix, now = _checked(accuracy, after)
    untrained = as_tensor(baseline, "baseline").double().cpu()
    if untrained.ndim == 0:
        untrained = untrained.expand(len(matrix))
    if untrained.shape != (len(matrix),) or not bool(((untrained >= 0) & (untrained <= 1)).all()):
        raise InputError(
            f"baseline must be the untrained network's accuracy on each of {len(matrix)} tasks, in [0, 1], or one "
            f"number for all, got {baseline}"
        )
    return _mean(matrix.diagonal(1)[:now] - untrained[1 : now + 1])


def forgetting(accuracy: Matrix, after: int = -1) -> float:
    """How far each earlier task has come down from its best, in the mean over all j < after.

    That is max R[i, j] over j ≤ i < after, minus R[after, j]; negative where a task is better than it ever was; NaN
    after the first task. The maximum is that of what was measured; rows before j count in the source, but not here, so
    that measuring more in advance changes nothing. Arguments and errors are those of `average_accuracy`.

    Source: Chaudhry et al. 2018 (F).

    >>> forgetting([[0.5, None, None], [0.75, 0.9, None], [0.25, 0.9, 0.8]])
    0.25
    """
    matrix, now = _checked(accuracy, after)
    if not now:
        return torch.nan
    past = matrix[:now, :now]
    counts = torch.ones_like(past).tril().bool() & ~past.isnan()
    best = past.where(counts, -torch.inf).amax(0).where(counts.any(0), torch.nan)
    return _mean(best - matrix[now, :now])


class Plasticity(NamedTuple):
    """How well new tasks are learned at first and at last.

    Attributes:
        early, late: mean accuracy on the first and the last few tasks, each right after it was learned.
    """

    early: float
    late: float

    @property
    def lost(self) -> float:
        """Early minus late: positive where the network learns worse than when it was new."""
        return self.early - self.late


def plasticity(accuracy: Matrix, count: int = 5, after: int = -1) -> Plasticity:
    """Mean of the first and of the last `count` entries of the diagonal: does the network learn as when it was new?

    Tasks must be equally hard for the two to be compared, as permutations are. Other arguments and errors are those of
    `average_accuracy`; `count` is from 1 to half the number of tasks learned, rounded up.

    Source: Dohare et al. 2024 ("loss of plasticity").

    >>> plasticity([[0.75, None], [0.5, 0.5]], count=1)
    Plasticity(early=0.75, late=0.5)
    >>> plasticity([[0.75, None], [0.5, 0.5]], count=1).lost
    0.25
    """
    matrix, now = _checked(accuracy, after)
    count = whole_number("count", count, most=(now + 2) // 2, note=" for so few tasks")
    newest = matrix.diagonal()[: now + 1]
    return Plasticity(_mean(newest[:count]), _mean(newest[-count:]))


def all_scores(
    accuracy: Matrix, *, baseline: float | Sequence[float] | Tensor | None = None, last: int = 5, after: int = -1
) -> dict[str, float]:
    """All scores of this module by their names, for a table or a file.

    Args:
        accuracy: R, T×T.
        baseline: of `forward_transfer`, which is left out without one.
        last: of `last_accuracy`, or as many tasks as were learned.
        after: the task learned last, counted from 0, or from the end as -1.

    Raises:
        InputError: as for each of them.

    >>> list(all_scores([[0.9, None], [0.5, 0.7]]))
    ['average_accuracy', 'last_accuracy', 'learning_accuracy', 'backward_transfer', 'forgetting', 'plasticity_lost']
    """
    _, now = _checked(accuracy, after)
    found = {
        "average_accuracy": average_accuracy(accuracy, after),
        "last_accuracy": last_accuracy(accuracy, min(last, now + 1), after),
        "learning_accuracy": learning_accuracy(accuracy, after),
        "backward_transfer": backward_transfer(accuracy, after),
        "forgetting": forgetting(accuracy, after),
        "plasticity_lost": plasticity(accuracy, min(5, (now + 2) // 2), after).lost,
    }
    if baseline is not None:
        found["forward_transfer"] = forward_transfer(accuracy, baseline, after)
    return found


def as_matrix(accuracy: Matrix, name: str = "accuracy") -> Tensor:
    """A checked T×T float64 matrix on the CPU; None becomes NaN.

    Raises:
        InputError: not square, empty, or a value that is neither NaN nor in [0, 1].
    """
    values: Any = accuracy
    if isinstance(values, list | tuple):
        values = [[torch.nan if v is None else v for v in r] if isinstance(r, list | tuple) else r for r in values]
    matrix = as_tensor(values, name).double().cpu()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise InputError(
            f"{name} must be T×T, a row after each task and a column for each, got {'×'.join(map(str, matrix.shape))}"
        )
    strange = matrix[(matrix < 0) | (matrix > 1)]
    if len(strange):
        raise InputError(f"{name} must lie in [0, 1], or be NaN, got {float(strange[0]):g}; divide percentages by 100")
    return matrix


def _checked(accuracy: Matrix, after: int) -> tuple[Tensor, int]:
    """The matrix, and the task learned last, counted from 0."""
    matrix = as_matrix(accuracy)
    tasks = len(matrix)
    note = f", one of {tasks} tasks counted from 0 or from the end"
    return matrix, whole_number("after", after, -tasks, tasks - 1, note=note) % tasks


def _mean(values: Tensor) -> float:
    return float(values.mean())  # of nothing, NaN
