"""How all pictures look, decided once.

Figures are made without pyplot: nothing global changes, no window opens. Colours are those of Okabe & Ito, which
colour-blind readers can tell apart; markers and line styles differ as well.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from varbnn.errors import InputError, import_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, BLACK, YELLOW = COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#D55E00", "#000000", "#F0E442"),
)  # yellow last: a thin line of it on white is hardly seen
MARKERS = "o^sDvPX"
INK, PALE = "#333333", "#999999"
SHARPNESS = 150  # of pictures in files, dots per inch


def new_panels(
    ax: Any, number: int, *, least: int | None = None, columns: int = 1, **options: Any
) -> tuple[Figure, tuple[Any, ...]]:
    """A new figure with `number` tidy panels; or the given axes and their figure, with None for panels they lack.

    Raises:
        InputError: more axes than panels, or fewer than `least`, which is all of them unless given.
    """
    module = import_extra("matplotlib.figure", "plot")
    if ax is None:
        figsize = options.pop("figsize")
        figure = module.Figure(figsize=figsize, layout="constrained")
        every = figure.subplots(math.ceil(number / columns), columns, squeeze=False, **options).ravel().tolist()
        panels = every[:number]
        for panel in every[number:]:
            panel.remove()
    else:
        panels = list(np.ravel(ax))
        if not (number if least is None else least) <= len(panels) <= number:
            allowed = f"{number}" if least is None else f"{least} to {number}"
            raise InputError(f"ax must be {allowed} axes, one for every panel, got {len(panels)}")
        figure = panels[0].figure
        panels += [None] * (number - len(panels))
    for panel in filter(None, panels):
        panel.spines[["top", "right"]].set_visible(False)
        panel.title.set(fontsize=11)
    return figure, tuple(panels)


def by_name(given: Any) -> dict[str, Any]:
    """What is drawn under which name in the legend; one alone has the name "".

    Names become text. matplotlib hides those that start with "_", so that these get a space in front.

    Raises:
        InputError: nothing, or two names with the same text.

    >>> by_name({0: "a", "_base": "b"}), by_name(["a"])
    ({'0': 'a', ' _base': 'b'}, {'': ['a']})
    """
    if not isinstance(given, Mapping):
        return {"": given}
    named = {f" {name}" if str(name).startswith("_") else str(name): value for name, value in given.items()}
    if not named or len(named) < len(given):
        raise InputError(f"give at least one, each under a name of its own, got {list(given)}")
    return named


LETTERS = 12
"""In an inch of text; the line beside a name in a legend and the gap behind it take the room of `BESIDE`."""
BESIDE = 7
LINE_HEIGHT = 0.24
"""Of a name in a legend, inches."""


def legend_above(
    panel: Any,
    columns: int,
    title: str | None = None,
    whole: Figure | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """A legend of the panel's lines over the panel, or over the `whole` figure, where it cannot cover data."""
    handles, labels = panel.get_legend_handles_labels()
    style = dict(frameon=False, ncols=columns, title=title, alignment="left", handletextpad=0.5)
    if whole is None:
        place = dict(loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.2)
        panel.legend(handles, names or labels, **place, **style)
    else:
        whole.legend(handles, names or labels, loc="outside upper left", **style)


def fitted_legend(panel: Any, *, own: bool, above_all: bool = True, title: str | None = None) -> None:
    """The same in as many columns as fit, long names in several lines, not torn at a "\\xa0"; nothing without names.

    Args:
        own: the figure is ours: it grows by the legend's height, so that the panels stay as they are.
        above_all: in a figure of ours the legend stands over all panels.
    """
    figure = panel.figure
    over_figure = own and above_all
    inches = figure.bbox.width / figure.dpi * (1 if over_figure else 0.85 if own else panel.get_position().width)
    room = int(LETTERS * inches)
    given = panel.get_legend_handles_labels()[1]
    wrapped = [textwrap.wrap(name, max(room - BESIDE, LETTERS)) or [name] for name in given]
    if not wrapped:
        return
    columns = next((number for number in range(min(len(wrapped), 6), 1, -1) if _width(wrapped, number) <= room), 1)
    if own:
        lines = sum(len(lines) for lines in wrapped) / columns  # of columns that are equally long
        figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * max(0, math.ceil(lines) - 2))
    names = ["\n".join(lines).replace("\xa0", " ") for lines in wrapped]
    legend_above(panel, columns, title, figure if over_figure else None, names)


def _width(wrapped: Sequence[Sequence[str]], columns: int) -> int:
    """Letters beside each other in a legend of so many columns, which are filled one after the other."""
    rows = math.ceil(len(wrapped) / columns)
    groups = [wrapped[first : first + rows] for first in range(0, len(wrapped), rows)]
    return sum(BESIDE + max(len(line) for lines in group for line in lines) for group in groups)


def greys() -> Any:
    """White to middle grey: dark enough to read values from, light enough for coloured data on top."""
    colours = import_extra("matplotlib.colors", "plot")
    return colours.LinearSegmentedColormap.from_list("white to grey", ["#FFFFFF", "#6E6E6E"])
