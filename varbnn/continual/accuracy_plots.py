"""Pictures of a matrix of accuracies: whole, or along its columns; part of `varbnn.continual.plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from varbnn.continual.panels import (
    NUMBERED,
    Runs,
    blues,
    columns_of,
    label_outer,
    line,
    looks,
    named_runs,
    numbers,
    task_ticks,
    tidy,
    warm_to_cold,
)
from varbnn.continual.scores import average_accuracy
from varbnn.errors import InputError, import_extra
from varbnn.predict.style import fitted_legend, new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Show = Literal["each", "mean", "age"]

LABELLED = 6
"""Tasks up to which every curve can be named; more are told apart by a scale of colours."""
CURVES = 20
"""Tasks that one panel holds a curve of; of more every second, third, …"""


def heat_map(
    accuracy: Runs | Mapping[str, Runs],
    *,
    tasks: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    ax: Sequence[Axes] | Axes | None = None,
) -> Figure:
    """The matrix of accuracies, in %, a row after each task; white where nothing was measured.

    What is forgotten fades downwards along a column; a diagonal that fades is a network that learns worse and worse.

    Args:
        accuracy: a matrix, or several by the method's name, side by side; the mean of several runs.
        tasks: their names, in order; numbers from 1 when absent. Shown up to 12.
        value_range: accuracies that get the lightest and the darkest colour; when absent tens of percent that hold all.
        ax: draw here, one for each method.

    Raises:
        InputError: no matrix of accuracies, matrices of different size, another number of names or axes.

    >>> figure = heat_map([[0.9, None], [0.6, 0.9]])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['90.0', '60.0', '90.0']
    """
    named = named_runs(accuracy)
    size = next(iter(named.values())).shape[-1]
    if tasks is not None and len(tasks) != size:
        raise InputError(f"tasks must name each of {size} tasks, got {len(tasks)} names")
    low, high = _range(named, value_range)
    few = size <= NUMBERED
    columns = columns_of(len(named), 3 if size <= LABELLED or not few else 2)
    labels = max(map(len, tasks)) if tasks is not None and few else 0
    side = max(0.6 + 0.42 * size, 1.6) + 0.05 * labels if few else 3.2
    figsize = (1.6 + side * columns, 0.7 + (0.4 + side) * math.ceil(len(named) / columns))
    figure, panels = new_panels(ax, len(named), columns=columns, figsize=figsize)
    image: Any = None
    for panel, (name, runs) in zip(panels, named.items(), strict=True):
        matrix = 100 * runs.mean(0)
        image = panel.imshow(matrix.numpy(), cmap=blues(), vmin=low, vmax=high, interpolation="nearest")
        if few:
            numbers(panel, matrix, low, high)
        task_ticks(panel, size, tasks if few else None)
        panel.set_title(name)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0 if few else 3)
    label_outer(panels, columns, "accuracy on task", "after learning task")
    scale = figure.colorbar(
        image, ax=list(panels), label="accuracy, %", shrink=0.8, aspect=25, pad=0.02, ticks=_ticks()
    )
    scale.outline.set_visible(False)
    return figure


def forgetting_curves(
    accuracy: Runs | Mapping[str, Runs],
    show: Show = "each",
    *,
    tasks: Sequence[str] | None = None,
    ax: Sequence[Axes] | Axes | None = None,
) -> Figure:
    """Accuracy over the tasks learned.

    Args:
        accuracy: a matrix, or several by the method's name.
        show: ``"each"``: of every task from when it was learned, a panel for every method. ``"mean"``: of all tasks
            seen so far, a line for every method. ``"age"``: of every task at the end of the stream, over how many
            tasks came after it. The bands are a standard deviation of several runs. Lines join what was measured.
        tasks: their names, in order, for ``"each"``.
        ax: draw here; for ``"each"`` one for every method.

    Raises:
        InputError: no matrix of accuracies, another number of names or axes, an unknown `show`.

    >>> figure = forgetting_curves({"fine-tuning": [[0.9, None], [0.5, 0.9]]}, "mean")
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [90.0, 70.0]
    """
    if show not in get_args(Show):
        raise InputError(f"show must be one of {', '.join(get_args(Show))}, got {show!r}")
    named = named_runs(accuracy)
    if show == "each":
        return _each_task(named, tasks, ax)
    figure, panels = new_panels(ax, 1, figsize=(5.6, 3.5))
    panel = panels[0]
    for (name, runs), look in zip(named.items(), looks(), strict=False):
        size = runs.shape[-1]
        if show == "mean":
            heights = [[average_accuracy(run, number) for number in range(size)] for run in runs]
            places = np.arange(1, size + 1)
        else:
            heights = [run[-1].flip(0).tolist() for run in runs]
            places = np.arange(size)
        line(panel, places, 100 * torch.tensor(heights, dtype=torch.float64), name, look)
    panel.set_ylabel("accuracy on tasks so far, %" if show == "mean" else "accuracy at the end, %")
    panel.set_xlabel("tasks learned" if show == "mean" else "tasks learned since")
    tidy(panel)
    fitted_legend(panel, own=ax is None)
    return figure


def _each_task(named: Mapping[str, Tensor], tasks: Sequence[str] | None, ax: Any) -> Figure:
    """A panel for every method, a curve for every task."""
    size = next(iter(named.values())).shape[-1]
    if tasks is not None and len(tasks) != size:
        raise InputError(f"tasks must name each of {size} tasks, got {len(tasks)} names")
    columns = columns_of(len(named), 3)
    figsize = (0.9 + 3.4 * columns + 1.2 * (columns == 1), 0.8 + 2.4 * math.ceil(len(named) / columns))
    figure, panels = new_panels(ax, len(named), columns=columns, figsize=figsize, sharex=True, sharey=True)
    scale: Any = import_extra("matplotlib.cm", "plot").ScalarMappable(cmap=warm_to_cold())
    scale.set_clim(1, size)
    names = list(tasks) if tasks is not None else [f"task {number + 1}" for number in range(size)]
    places = np.arange(1, size + 1)
    for panel, (title, runs) in zip(panels, named.items(), strict=True):
        mean = 100 * runs.mean(0)
        for number, look in zip(range(0, size, math.ceil(size / CURVES)), looks(), strict=False):
            if size > LABELLED:
                look = dict(color=scale.to_rgba(number + 1), linewidth=1.2)
            curve = mean[number:, number].numpy()
            known = np.isfinite(curve)
            if known.sum() <= 2:  # a task that was judged at first and at last, or the newest
                look = {"marker": ".", **look}
            panel.plot(places[number:][known], curve[known], **{"markersize": 4, **look}, label=names[number])
        panel.set_title(title)
        tidy(panel)
    label_outer(panels, columns, "tasks learned", "accuracy, %")
    if size > LABELLED:
        bar: Any = figure.colorbar(scale, ax=list(panels), label="task", aspect=30, pad=0.02)
        bar.outline.set_visible(False)
        bar.locator.set_params(integer=True)
    else:
        fitted_legend(panels[0], own=ax is None)
    return figure


def _range(named: Mapping[str, Tensor], given: tuple[float, float] | None) -> tuple[float, float]:
    """Lowest and highest accuracy of the scale of colours, in %."""
    if given is not None:
        low, high = given
        if not 0 <= low < high <= 1:
            raise InputError(f"value_range must be (lowest, highest) within 0 … 1, got {given}")
        return 100 * low, 100 * high
    values = torch.cat([runs[runs.isfinite()] for runs in named.values()])
    if not len(values):
        return 0.0, 100.0
    lowest = min(9, math.floor(10 * float(values.min())))
    return 10.0 * lowest, 10.0 * max(lowest + 1, math.ceil(10 * float(values.max())))


def _ticks() -> Any:
    return import_extra("matplotlib.ticker", "plot").MaxNLocator(5, steps=[1, 2, 5, 10], integer=True)
