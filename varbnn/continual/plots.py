"""Pictures of a stream: what each task did to the others; each function returns a matplotlib figure.

No display is needed. All raise MissingExtraError where matplotlib is absent. A matrix of accuracies is T×T, rows after
each task, columns on each, as in `varbnn.continual.average_accuracy`; several runs of one method are S×T×T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from varbnn.continual.accuracy_plots import forgetting_curves, heat_map
from varbnn.continual.panels import Runs, as_runs, line, looks, tidy
from varbnn.continual.scores import average_accuracy, learning_accuracy
from varbnn.errors import InputError
from varbnn.predict.style import PALE, by_name, fitted_legend, new_panels
from varbnn.predict.training_plots import AXIS_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["entropy_over_tasks", "forgetting_curves", "heat_map", "trade_off"]

History = Sequence[Mapping[str, float | None]]

CORNERS: tuple[dict[str, Any], ...] = (
    {"xytext": (5, 4)},
    {"xytext": (-5, -10), "ha": "right"},
    {"xytext": (-5, 4), "ha": "right"},
    {"xytext": (5, -10)},
)
"""Where the settings of one method after another are written beside their points."""


def entropy_over_tasks(
    history: History | Sequence[float] | Mapping[str, History | Sequence[float]],
    key: str = "entropy_bits",
    *,
    ax: Axes | None = None,
) -> Figure:
    """What is left undecided after each task: at 0 bit per weight all capacity is used up.

    Args:
        history: what `learn` writes down after every task, or only the numbers; several by the method's name.
        key: which quantity of a history; ``"saturated"`` is the share of settled weights.
        ax: draw here.

    Raises:
        InputError: nothing to draw, a history without that quantity or where it is no number.

    >>> entropy_over_tasks([{"entropy_bits": 0.9}, {"entropy_bits": 0.7}]).axes[0].get_xlabel()
    'tasks learned'
    """
    named = by_name(history)
    if not all(len(rows) for rows in named.values()):
        raise InputError("give at least one number of at least one method")
    figure, (panel,) = new_panels(ax, 1, figsize=(5.6, 3.2))
    for (name, rows), look in zip(named.items(), looks(), strict=False):
        heights = torch.tensor([[_number(row, key, name) for row in rows]], dtype=torch.float64)
        if not bool(heights.isfinite().any()):
            whose = f" of {name!r}" if name else ""
            raise InputError(f"the history{whose} has no finite {key!r}; a network of points has no entropy and no kl")
        line(panel, np.arange(1, len(rows) + 1), heights, name, look)
    panel.set(xlabel="tasks learned", ylabel=AXIS_LABELS.get(key, key).replace(", ", ",\n"))
    tidy(panel)
    top = 1.0 if key in ("entropy_bits", "saturated") else None
    panel.set_ylim(0 if panel.dataLim.ymin >= 0 else None, top)
    fitted_legend(panel, own=ax is None)
    return figure


def trade_off(
    accuracy: Mapping[str, Mapping[Any, Runs]],
    *,
    parameter: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """What is learned against what is kept, a point for every setting: whoever learns more keeps less.

    Across: accuracy on each task right after it was learned, the mean. Up: accuracy on all tasks at the end. On the
    pale line, where it is in sight, nothing is forgotten. Bars are a standard deviation of several runs.

    Args:
        accuracy: by the method's name, by the value of its parameter in the order to be joined, a matrix.
        parameter: name of the parameter, for the legend.
        ax: draw here.

    Raises:
        InputError: no method, a method without a setting, no matrix of accuracies.

    >>> weak, strong = [[0.9, None], [0.5, 0.9]], [[0.9, None], [0.8, 0.7]]
    >>> figure = trade_off({"posterior as prior": {0.5: weak, 1.0: strong}}, parameter="strength")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['0.5', '1']
    """
    if not accuracy or not all(accuracy.values()):
        raise InputError("give at least one method, and of each method at least one setting")
    figure, (panel,) = new_panels(ax, 1, figsize=(5.4, 4.2))
    for (name, settings), look, corner in zip(by_name(accuracy).items(), looks(), cycle(CORNERS), strict=False):
        runs = [as_runs(given, name) for given in settings.values()]
        across = [100 * torch.tensor([learning_accuracy(run) for run in own]) for own in runs]
        up = [100 * torch.tensor([average_accuracy(run) for run in own]) for own in runs]
        x, y = ([float(values.mean()) for values in axis] for axis in (across, up))
        spread = dict(xerr=_deviations(across), yerr=_deviations(up), elinewidth=1.0)
        panel.errorbar(x, y, **spread, markersize=5, linewidth=1.5, label=name, **look)
        for place, value in zip(zip(x, y, strict=True), settings, strict=True):
            style = dict(textcoords="offset points", fontsize=8, color=look["color"], **corner)
            panel.annotate(_written(value), place, **style)
    longest = max(len(_written(value)) for settings in accuracy.values() for value in settings)
    panel.margins(x=0.08 + 0.02 * longest, y=0.12)  # what is written beside a point stays inside
    _no_forgetting(panel)
    panel.set(xlabel="accuracy on new tasks, %", ylabel="accuracy on all tasks at the end, %")
    panel.grid(color="#E5E5E5", linewidth=0.8)
    panel.set_axisbelow(True)
    fitted_legend(panel, own=ax is None, title=f"along {parameter}" if parameter else None)
    return figure


def _number(row: Mapping[str, float | None] | float, key: str, name: str) -> float:
    if not isinstance(row, Mapping):
        return float(row)
    if key not in row:
        raise InputError(f"the history{f' of {name!r}' if name else ''} has no {key!r}, only {', '.join(row)}")
    value = row[key]
    return torch.nan if value is None else float(value)  # None, as in JSON


def _deviations(axis: Sequence[Tensor]) -> list[float] | None:
    """Standard deviations of several runs; None where there is one of each."""
    if all(len(values) == 1 for values in axis):
        return None
    return [float(values.std()) if len(values) > 1 else 0.0 for values in axis]


def _written(value: object) -> str:
    """300,000 rather than 3e+05."""
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:g}"


def _no_forgetting(panel: Any) -> None:
    """The line on which all tasks are at the end as they were when they were learned."""
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    first, last = max(left, low), min(right, high)
    if first >= last:
        return  # everything forgets so much that it is out of sight
    panel.plot([first, last], [first, last], color=PALE, linewidth=1.0, zorder=0, label="nothing forgotten")
    panel.set(xlim=(left, right), ylim=(low, high))
