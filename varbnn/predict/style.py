"""How all pictures look, decided once.

Figures are made without pyplot: nothing global changes, no window opens. Colours are those of Okabe & Ito, which
colour-blind readers can tell apart; markers and line styles differ as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from varbnn.errors import import_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, BLACK, YELLOW = COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#D55E00", "#000000", "#F0E442"),
)  # yellow last: a thin line of it on white is hardly seen
MARKERS = "o^sDvPX"
INK, PALE = "#333333", "#999999"


def new_panels(ax: Any, number: int, *, columns: int = 1, **options: Any) -> tuple[Figure, tuple[Any, ...]]:
    """A new figure with `number` tidy panels; or the given axes and their figure, with None for panels they lack."""
    module = import_extra("matplotlib.figure", "plot")
    if ax is None:
        figsize = options.pop("figsize")
        figure = module.Figure(figsize=figsize, layout="constrained")
        every = figure.subplots(math.ceil(number / columns), columns, squeeze=False, **options).ravel().tolist()
        panels = every[:number]
        for panel in every[number:]:
            panel.remove()
    else:
        panels = list(ax) if isinstance(ax, Sequence | np.ndarray) else [ax]
        figure = panels[0].figure
        panels += [None] * (number - len(panels))
    for panel in filter(None, panels):
        panel.spines[["top", "right"]].set_visible(False)
        panel.title.set(fontsize=11)
    return figure, tuple(panels)


def legend_above(panel: Any, columns: int, title: str | None = None, whole: Figure | None = None) -> None:
    """A legend of the panel's lines over the panel, or over the `whole` figure, where it cannot cover data."""
    style = dict(frameon=False, ncols=columns, title=title, alignment="left", handletextpad=0.5)
    if whole is None:
        panel.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.2, **style)
    else:
        whole.legend(*panel.get_legend_handles_labels(), loc="outside upper left", **style)


def greys() -> Any:
    """White to middle grey: dark enough to read values from, light enough for coloured data on top."""
    colours = import_extra("matplotlib.colors", "plot")
    return colours.LinearSegmentedColormap.from_list("white to grey", ["#FFFFFF", "#6E6E6E"])
