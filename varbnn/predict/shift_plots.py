"""Pictures of what corruptions do and of whom to refuse; part of `varbnn.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from varbnn.checks import Values
from varbnn.errors import InputError
from varbnn.packed import AveragePrediction
from varbnn.predict.evaluation import Score
from varbnn.predict.selective import risk_coverage as curve_of
from varbnn.predict.shift import SeverityCurves
from varbnn.predict.style import COLOURS, MARKERS, by_name, fitted_legend, new_panels
from varbnn.predict.training_plots import LINES
from varbnn.predict.uncertainty import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = {"accuracy": "accuracy", "nll": "NLL, nats", "brier": "Brier score", "ece": "calibration error (ECE)"}


def severity_curves(
    curves: SeverityCurves | Mapping[str, SeverityCurves],
    measures: Sequence[str] = ("accuracy", "nll", "ece"),
    *,
    ax: Sequence[Axes] | Axes | None = None,
) -> Figure:
    """A column for every corruption, a row for every measure, a line for every model, over the severity.

    Args:
        curves: what `varbnn.severity_curves` returns, or several of those by the model's name.
        measures: of "accuracy", "nll", "brier", "ece", one or several.
        ax: draw here, one for every panel, row by row.

    Raises:
        InputError: nothing to draw, models measured under different corruptions, an unknown measure or one that was
            not measured, another number of axes than panels.

    >>> from varbnn.predict import Evaluation
    >>> steps = [Evaluation(accuracy=1 - severity / 10) for severity in range(6)]
    >>> [panel.get_title() for panel in severity_curves({"blur": steps}, ("accuracy",)).axes]
    ['blur']
    """
    one = all(isinstance(value, list) for value in curves.values())
    named: dict[str, SeverityCurves] = {"": curves} if one else by_name(curves)  # type: ignore[dict-item]
    measures = [measures] if isinstance(measures, str) else list(measures)
    kinds = list(next(iter(named.values()), ()))
    if not kinds or not measures:
        raise InputError("give at least one corruption of one model, and one measure")
    if any(list(own) != kinds for own in named.values()):
        raise InputError(f"all models need the same corruptions, {', '.join(kinds)}; measure them alike")
    unknown = [measure for measure in measures if measure not in MEASURES]
    if unknown:
        raise InputError(f"measures must be of {', '.join(MEASURES)}, got {', '.join(unknown)}")
    for name, own in named.items():
        lacking = [measure for measure in measures if any(measure not in step for kind in kinds for step in own[kind])]
        if lacking:
            whose = f"the curves of {name!r}" if name else "these curves"
            raise InputError(f"{whose} lack {', '.join(lacking)}; choose measures= among what was measured")
    size = (max(0.7 + 2.3 * len(kinds), 3.0 if one else 4.4), 0.7 + 2.0 * len(measures))
    figure, panels = new_panels(
        ax, len(kinds) * len(measures), columns=len(kinds), figsize=size, sharex=True, sharey="row"
    )
    places = [(measure, kind) for measure in measures for kind in kinds]
    for number, (panel, (measure, kind)) in enumerate(zip(panels, places, strict=True)):
        styles = zip(cycle(COLOURS), cycle(LINES), cycle(MARKERS), strict=False)
        for (name, own), (colour, line, marker) in zip(named.items(), styles, strict=False):
            heights = [step[measure] for step in own[kind]]
            panel.plot(heights, color=colour, linestyle=line, marker=marker, markersize=4, linewidth=1.5, label=name)
        panel.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.set_xticks(range(len(named[next(iter(named))][kind])))
        if number < len(kinds):
            panel.set_title(kind)
        if number >= len(places) - len(kinds):
            panel.set_xlabel("severity")
        if number % len(kinds) == 0:
            panel.set_ylabel(MEASURES[measure])
    for panel, (measure, _) in zip(panels, places, strict=True):  # once all is drawn: a row shares its axis
        panel.set_ylim(0, 1 if measure == "accuracy" else None)
    if not one:
        fitted_legend(panels[0], own=ax is None)
    return figure


def risk_coverage(
    predictions: Prediction | AveragePrediction | Mapping[str, Prediction | AveragePrediction],
    targets: Values,
    *,
    score: Score = "total",
    ax: Axes | None = None,
) -> Figure:
    """The share of wrong labels among the surest inputs, over the share of inputs answered; the legend has the AURC.

    Args:
        predictions: one, or several by name, for the same N inputs.
        targets: N class labels.
        score: what counts as unsure, as for `varbnn.risk_coverage`.
        ax: draw here.

    Raises:
        InputError: no prediction, targets that do not fit, an unknown `score`, "epistemic" where one of them has one
            sample; nothing is drawn then.

    >>> figure = risk_coverage(Prediction([[[0.9, 0.1], [0.6, 0.4]]]), [0, 1])
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['AURC 0.25']
    """
    named = by_name(predictions)
    curves = {name: curve_of(prediction, targets, score=score) for name, prediction in named.items()}
    figure, (main,) = new_panels(ax, 1, figsize=(5.4, 3.6))
    for (name, curve), colour, line in zip(curves.items(), cycle(COLOURS), cycle(LINES), strict=False):
        label = f"{name}{', ' if name else ''}AURC\xa0{curve.area:.3g}"
        look = dict(color=colour, linestyle=line, linewidth=1.6, clip_on=False, zorder=3)  # above the axis, risks of 0
        main.plot(100 * curve.coverage, 100 * curve.risk, label=label, **look)
    main.set(xlim=(0, 100), ylim=(0, None), xlabel="inputs answered, % (surest first)", ylabel="of them wrong, %")
    main.set_ylim(top=max(1.0, main.get_ylim()[1]))
    fitted_legend(main, own=ax is None, above_all=False)
    return figure
