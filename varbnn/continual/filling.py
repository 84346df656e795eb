"""Is the network filling up? Every task makes some weights sure of their signs, and there are only so many of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch

from varbnn.checks import finite_number, whole_number
from varbnn.continual.evaluation import Result
from varbnn.errors import InputError

FLAT = 1e-3
"""Bits per weight: a smaller change from one task to the next is none."""
FULL = 0.05
"""Bits per weight, below which a posterior has nothing left that could fall."""


@dataclass(frozen=True)
class Capacity:
    """What is left to learn with.

    Attributes:
        entropy_bits: mean per weight after the newest task: 1 is a network that knows nothing, 0 one that is full.
        fullest_bits: the same of the layer that has least.
        saturated: share of the weights below 0.01 bit, which later tasks can hardly move.
        falling: after how many tasks in a row, up to the newest, the entropy was lower than before.
        per_task: bits per weight used up by each of those, in the mean; 0 where there are none.
        tasks_left: how many more there is room for if each uses as much; inf where none does.
        gained: accuracy on the newest task, compared with as many tasks before as the alarm looks back; NaN where one
            of the two was not measured.
        warning: what is wrong and what to change, or None.
    """

    entropy_bits: float
    fullest_bits: float
    saturated: float
    falling: int
    per_task: float
    tasks_left: float
    gained: float
    warning: str | None

    def __str__(self) -> str:
        since = "the last task" if self.falling == 1 else f"each of the last {self.falling} tasks"
        pace = f", {self.per_task:.2f} less after {since}" if self.falling else ""
        left = f"{self.entropy_bits:.2f} bit per weight left ({self.fullest_bits:.2f} in the fullest layer)"
        return f"{left}, {self.saturated:.0%} settled{pace}"


def capacity(result: Result, *, tasks: int = 3, below: float = 0.5, tolerance: float = 0.01) -> Capacity:
    """How full the network is, and a warning where it fills up without learning any better.

    The warning needs all three: the entropy has fallen after each of the last `tasks` tasks, or less than 0.05 bit is
    left to fall; the accuracy on the newest task has not risen meanwhile by more than `tolerance`; less than `below`
    bits per weight are left. Networks of points, whose entropy is 0 from the start, are not meant.

    Args:
        result: of `learn`, with binary layers that draw; the accuracy of its first batch-norm protocol counts.
        tasks: how far to look back.
        below: bits per weight; 1 warns of any fall.
        tolerance: in accuracy, [0, 1].

    Raises:
        InputError: nothing learned yet, a network without binary weights, an argument out of range.

    >>> import torch
    >>> bits = [0.8, 0.6, 0.4, 0.2]
    >>> history = [{"entropy_bits": b, "fullest_bits": b / 2, "saturated": 1 - b} for b in bits]
    >>> accuracy = {"task": torch.eye(4, dtype=torch.float64) * 0.9}
    >>> full = capacity(Result("made up", 4, list("abcd"), accuracy, history=history))
    >>> print(full)
    0.20 bit per weight left (0.10 in the fullest layer), 80% settled, 0.20 less after each of the last 3 tasks
    >>> full.warning is None
    False
    """
    tasks = whole_number("tasks", tasks)
    below = finite_number("below", below, least=0, most=1)
    tolerance = finite_number("tolerance", tolerance, least=0, most=1)
    if not result.history or any("entropy_bits" not in row for row in result.history):
        reason = "its network has no binary weights" if result.history else "no task was learned yet"
        raise InputError(f"there is no entropy in the history of {result.stream}: {reason}")
    entropy = [row["entropy_bits"] for row in result.history]
    falls = [before - after for before, after in itertools.pairwise(entropy)]
    falling = len(list(itertools.takewhile(lambda fall: fall > FLAT, reversed(falls))))
    per_task = (entropy[-1 - falling] - entropy[-1]) / falling if falling else 0.0
    newest = result.history[-1]
    found = Capacity(
        entropy_bits=entropy[-1],
        fullest_bits=newest.get("fullest_bits", torch.nan),
        saturated=newest.get("saturated", torch.nan),
        falling=falling,
        per_task=per_task,
        tasks_left=entropy[-1] / per_task if falling else torch.inf,
        gained=_gained(result, tasks),
        warning=None,
    )
    idle = found.gained <= tolerance  # False where it is unknown
    full = found.entropy_bits < FULL and max(entropy) > 0
    if (falling >= tasks or full) and idle and found.entropy_bits < below:
        return replace(found, warning=_warning(found, tasks, full))
    return found


def _gained(result: Result, tasks: int) -> float:
    last = len(result.history) - 1
    if last < tasks or not result.accuracy:
        return torch.nan
    newest = next(iter(result.accuracy.values())).diagonal()
    return float(newest[last] - newest[last - tasks])


def _warning(found: Capacity, tasks: int, full: bool) -> str:
    pace = "" if full else f"; at this pace it is full after {found.tasks_left:.1f} more"
    return (
        f"the network is {'full' if full else 'filling up'} ({found.entropy_bits:.2f} bit per weight left) while the "
        f"newest task is learned no better than {tasks} tasks ago ({found.gained:+.1%}){pace}: take a wider network, a "
        "smaller strength, or a rule with a window that forgets"
    )
