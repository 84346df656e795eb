"""What the pictures of streams have in common: runs as tensors, lines with bands, axes that count tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varbnn.continual.scores import Matrix, as_matrix
from varbnn.errors import InputError, import_extra
from varbnn.predict.style import BLUE, COLOURS, INK, MARKERS, ORANGE, PINK, VERMILION, by_name
from varbnn.predict.training_plots import LINES

Runs = Matrix | Sequence[Matrix]  # T×T, or S×T×T: several runs of one method

NUMBERED = 12
"""Tasks up to which every cell of a heat map can hold its number, and every task its name."""


def named_runs(accuracy: Runs | Mapping[str, Runs]) -> dict[str, Tensor]:
    """Every method's matrices, S×T×T float64, with the same T; a method without a name is named "".

    Raises:
        InputError: none, no matrices of accuracies, different T.
    """
    runs = {name: as_runs(given, name) for name, given in by_name(accuracy).items()}
    sizes = {name: own.shape[-1] for name, own in runs.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"all methods need the same number of tasks, got {sizes}")
    return runs


def as_runs(given: Runs, name: str) -> Tensor:
    """The matrices of one method, S×T×T float64."""
    own = f"accuracy of {name!r}" if name else "accuracy"
    values: Any = given
    inner, dimensions = values, 0
    while isinstance(inner, list | tuple) and inner:
        inner, dimensions = inner[0], dimensions + 1
    if dimensions + getattr(inner, "ndim", 0) != 3:
        return as_matrix(values, own)[None]
    matrices = [as_matrix(run, own) for run in values]
    if not matrices:
        raise InputError(f"{own} has no run; give at least one matrix")
    if len({len(matrix) for matrix in matrices}) > 1:
        raise InputError(f"{own}: all runs need the same number of tasks, got {[len(matrix) for matrix in matrices]}")
    return torch.stack(matrices)


def looks() -> Iterator[dict[str, Any]]:
    """Colour, line and marker of one method after another."""
    for colour, line, marker in zip(cycle(COLOURS), cycle(LINES), cycle(MARKERS), strict=False):
        yield {"color": colour, "linestyle": line, "marker": marker}


def line(panel: Any, x: np.ndarray, y: Tensor, name: str, look: Mapping[str, Any]) -> None:
    """The mean of the runs, S×T, where it was measured; with a band of a standard deviation where there are several."""
    known = y.mean(0).isfinite()
    x, y = x[known.numpy()], y[:, known]
    mean = y.mean(0).numpy()
    look = {**look, "marker": look["marker"] if len(x) <= 20 else None}  # more would hide the line
    panel.plot(x, mean, linewidth=1.6, markersize=4, label=name, **look)
    if len(y) > 1:
        deviation = y.std(0).numpy()
        panel.fill_between(x, mean - deviation, mean + deviation, color=look["color"], alpha=0.18, linewidth=0)


def tidy(panel: Any) -> None:
    """A grid across, whole numbers of tasks below."""
    first, last = panel.dataLim.intervalx
    if first == last:  # one task, around which a locator of whole numbers finds fractions
        panel.set_xticks([first], [f"{first:.0f}"])
    else:
        panel.xaxis.get_major_locator().set_params(integer=True)
    panel.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    panel.set_axisbelow(True)


def columns_of(number: int, most: int) -> int:
    """Columns for so many panels, so that few places of the last row stay empty."""
    return number if number <= most else min(most, math.ceil(number / 2))


def label_outer(panels: Sequence[Any], columns: int, x: str, y: str) -> None:
    """Names of the axes at the left panels, and at those with nothing below, which also get their ticks' labels."""
    for number, panel in enumerate(panels):
        if number % columns == 0:
            panel.set_ylabel(y)
        if number + columns >= len(panels):
            panel.set_xlabel(x)
            panel.tick_params(labelbottom=True)


def blues() -> Any:
    """Pale to dark blue; the palest is not white, which stands for what was not measured."""
    colours = import_extra("matplotlib.colors", "plot")
    return colours.LinearSegmentedColormap.from_list("pale to dark blue", ["#EAF3F9", "#7FB8DA", BLUE, "#003B5E"])


def warm_to_cold() -> Any:
    """From the first task to the last: colours that stay apart from white and from each other."""
    colours = import_extra("matplotlib.colors", "plot")
    return colours.LinearSegmentedColormap.from_list("warm to cold", [ORANGE, VERMILION, PINK, BLUE, "#00263D"])


def numbers(panel: Any, matrix: Tensor, low: float, high: float) -> None:
    """Write every measured value of the matrix, in %, into its cell."""
    digits = 1 if len(matrix) <= 6 else 0
    for row, column in torch.isfinite(matrix).nonzero().tolist():
        value = float(matrix[row, column])
        colour = "white" if value > low + 0.45 * (high - low) else INK
        panel.text(column, row, f"{value:.{digits}f}", ha="center", va="center", color=colour, fontsize=8)


def task_ticks(panel: Any, size: int, tasks: Sequence[str] | None) -> None:
    """Names or numbers of the tasks on both axes of a matrix; of many every fifth, tenth, …"""
    if size <= NUMBERED:
        labels = list(tasks) if tasks is not None else [str(number + 1) for number in range(size)]
        turned = any(len(label) > 4 for label in labels)
        panel.set_xticks(range(size), labels, rotation=45 if turned else 0, ha="right" if turned else "center")
        panel.set_yticks(range(size), labels)
        return
    step = next(step for step in (5, 10, 20, 50, 10 ** len(str(size))) if size <= 6 * step)
    places = [0, *range(step - 1, size, step)]
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_ticks(places, [str(place + 1) for place in places])
