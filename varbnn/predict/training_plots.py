"""Pictures of training and of the posterior; part of `varbnn.plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from varbnn.errors import InputError
from varbnn.predict.style import BLUE, COLOURS, INK, LETTERS, by_name, fitted_legend, new_panels
from varbnn.predict.uncertainty import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS_LABELS = {
    "loss": "loss, nats per example",
    "val_loss": "validation loss, nats per example",
    "nll": "NLL, nats per example",
    "accuracy": "accuracy",
    "val_accuracy": "validation accuracy",
    "entropy_bits": "posterior entropy, bits per weight",
    "entropy": "posterior entropy, bits per weight",
    "kl": "KL from fair coins, nats per weight",
    "flips": "flipped weights",
    "step_flips": "flipped weights, in one step",
    "saturated": "saturated beliefs, share",
    "lr": "learning rate",
}
NOT_A_CURVE = ("epoch", "step", "lr", "seconds")
COUNTS = ("flips", "step_flips")
"""What falls from tens of thousands to a handful, or to 0: on an axis that is linear below 1 and logarithmic above."""
LOSSES = ("loss", "val_loss", "nll")
"""What still falls when it looks like 0: on a logarithmic axis where it falls to less than a tenth."""
VALIDATION = "val_"
"""In front of a quantity: the same on validation data, drawn into its panel in a fainter and thinner line."""
FAINT = dict(alpha=0.55, linewidth=1.1)
LINES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)))
"""One more than half the colours, so that colour and line together repeat only after 40 runs."""


LONGEST = 60
"""Letters of a layer's name; of longer ones the middle is left out."""


def layer_entropy(entropies: Mapping[str, float], *, ax: Axes | None = None) -> Figure:
    """How undecided the weights of each layer are: 0 bit is a fixed sign, 1 bit a fair coin.

    Args:
        entropies: mean entropy per weight by layer, in bits, drawn from top to bottom.
        ax: draw here.

    Raises:
        InputError: no mapping, no layer, or a value outside [0, 1].

    >>> layer_entropy({"features": 0.93, "head": 0.41}).axes[0].get_xlabel()
    'posterior entropy, bits per weight'
    """
    if not isinstance(entropies, Mapping):
        raise InputError(
            f"entropies must be those of each layer by its name, got a {type(entropies).__name__}; of a model they are "
            "varbnn.health(model).layer_entropy_bits"
        )
    if not entropies:
        raise InputError("give the entropy of at least one layer")
    wrong = {name: value for name, value in entropies.items() if not 0 <= value <= 1 + 1e-6}
    if wrong:
        name, value = next(iter(wrong.items()))
        raise InputError(
            f"entropies must lie in [0, 1] bit per weight, got {value:.4g} for {name!r}; divide nats by log 2"
        )
    names = [
        name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 :]}"
        for name in map(str, entropies)
    ]
    beyond = max(0, max(map(len, names)) - 12) / LETTERS
    figure, (main,) = new_panels(ax, 1, figsize=(5.4 + beyond, 0.9 + 0.36 * len(entropies)))
    rows = np.arange(len(entropies))
    values = list(entropies.values())
    main.barh(rows, [1.0] * len(rows), height=0.62, color="#EEEEEE")
    main.barh(rows, values, height=0.62, color=BLUE)
    for row, value in zip(rows, values, strict=True):
        inside = value > 0.85
        main.text(
            value + (-0.012 if inside else 0.012),
            row,
            f"{value:.2f}",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else INK,
        )
    main.set_yticks(rows, names)
    main.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="posterior entropy, bits per weight")
    main.tick_params(axis="y", length=0)
    main.spines["left"].set_visible(False)
    return figure


def training_curves(
    history: Sequence[Mapping[str, float]] | Mapping[str, Sequence[Mapping[str, float]]],
    keys: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """One panel per quantity over the epochs, one line per run, and a fainter one of the same on validation data.

    Args:
        history: one record (quantity → value) per epoch, or such a list for each of several named runs. A record may
            carry its own "epoch" or "step"; else they are counted from 1. Quantities may be missing from some records;
            NaN leaves a gap in the line. What `varbnn.fit` returns will do; its ``val_loss`` goes into the panel of
            ``loss``, where both are chosen.
        keys: which quantities, in which order, or one; if absent all that occur but the learning rate and the seconds.
        ax: draw here; allowed for a single quantity.

    Raises:
        InputError: no record of a quantity to draw, a quantity that never occurs, or `ax` with several quantities.

    >>> epochs = [{"loss": 0.9, "accuracy": 0.6}, {"loss": 0.4, "accuracy": 0.8}]
    >>> [panel.get_ylabel() for panel in training_curves(epochs).axes]
    ['loss,\\nnats per example', 'accuracy']
    """
    runs = by_name(history)
    records = [record for run in runs.values() for record in run]
    axis = next((name for name in ("epoch", "step") if all(name in record for record in records)), None)
    present = list(dict.fromkeys(key for record in records for key in record if _is_number(record[key])))
    asked = [keys] if isinstance(keys, str) else keys
    chosen = list(asked) if asked is not None else [key for key in present if key not in NOT_A_CURVE]
    if asked is None and not chosen:
        found = f"only {', '.join(present)}, to be named with keys=" if present else "no numbers"
        raise InputError(f"nothing to draw: {count(len(records), 'record')} with {found}")
    if not chosen or not set(chosen) <= set(present):
        raise InputError(f"keys must be among the recorded quantities {present}, got {chosen}")
    shown = [key for key in chosen if not (key.startswith(VALIDATION) and key.removeprefix(VALIDATION) in chosen)]
    if ax is not None and len(shown) > 1:
        raise InputError(f"one ax shows one quantity, got {shown}; name it with keys=")
    columns = 1 if len(shown) <= 3 else 2
    figsize = (0.8 + 4.6 * columns, 0.7 + 1.8 * math.ceil(len(shown) / columns))
    figure, panels = new_panels(ax, len(shown), columns=columns, figsize=figsize)
    both = any(VALIDATION + key in chosen for key in shown)
    for key, panel in zip(shown, panels, strict=True):
        beside = VALIDATION + key if VALIDATION + key in chosen else None
        for (name, run), colour, line in zip(runs.items(), cycle(COLOURS), cycle(LINES), strict=False):
            look = dict(color=colour, linestyle=line, linewidth=1.8 if len(runs) <= 3 else 1.3)
            judged = dict(label=f"{name}, validation" if name else "validation", **look | FAINT)
            alone = both and key.startswith(VALIDATION)  # drawn as the legend of the other panels says
            _draw(panel, run, axis, key, **judged if alone else dict(label=name or "training", **look))
            if beside is not None:
                _draw(panel, run, axis, beside, **judged)
        panel.set_ylabel(AXIS_LABELS.get(key, key).replace(", ", ",\n"))
        panel.set_xlabel(axis or "epoch")
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        drawn = [record.get(name) for record in records for name in (key, beside) if name is not None]
        _scale(panel, key, [float(value) for value in drawn if value is not None and _is_number(value)])
        panel.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        panel.set_axisbelow(True)
    for panel in panels[:-columns]:
        panel.set_xlabel("")
    fullest = max(panels, key=lambda panel: len(panel.lines))
    if len(fullest.lines) > 1:
        fitted_legend(fullest, own=ax is None)
    return figure


def _draw(panel: Axes, run: Sequence[Mapping[str, float]], axis: str | None, key: str, **look: Any) -> None:
    rows = [(record[axis] if axis else number, record.get(key)) for number, record in enumerate(run, 1)]
    points = [(place, value if _is_number(value) else math.nan) for place, value in rows if value is not None]
    marks = range(len(points)) if len(points) < 3 else _alone([math.isfinite(value) for _, value in points])
    panel.plot(*zip(*points, strict=True), marker="o" if marks else None, markersize=4, markevery=list(marks), **look)


def _alone(finite: Sequence[bool]) -> list[int]:
    """Which points no line leads to."""
    beside = zip([False, *finite], finite, [*finite[1:], False], strict=False)
    return [number for number, (before, own, after) in enumerate(beside) if own and not (before or after)]


def _scale(panel: Axes, key: str, values: Sequence[float]) -> None:
    if key in COUNTS:
        panel.set_yscale("symlog", linthresh=1)
        panel.set_ylim(bottom=0)
    elif key in LOSSES and 0 < 10 * min(values) < max(values):
        panel.set_yscale("log")


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # None, a word, a tensor of several
        return False
