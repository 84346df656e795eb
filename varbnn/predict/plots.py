"""Pictures of predictions and of training; each returns a matplotlib figure, ready for ``figure.savefig(...)``.

No display is needed. All raise MissingExtraError where matplotlib is absent.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from varbnn.checks import Values, as_tensor, finite_number, whole_number
from varbnn.errors import InputError, import_extra
from varbnn.nn.batchnorm import device_of
from varbnn.packed import AveragePrediction, PackedEnsemble, Predictor
from varbnn.predict.average import predict
from varbnn.predict.checks import as_labels
from varbnn.predict.evaluation import UNCERTAINTY, Score, require_same_classes, require_score
from varbnn.predict.shift_plots import risk_coverage, severity_curves
from varbnn.predict.style import BLUE, COLOURS, INK, MARKERS, PALE, VERMILION, by_name, greys, legend_above, new_panels
from varbnn.predict.training_plots import layer_entropy, training_curves
from varbnn.predict.uncertainty import Averaged, Prediction, mean_of, require_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

__all__ = [
    "entropy_histogram",
    "layer_entropy",
    "reliability_diagram",
    "risk_coverage",
    "severity_curves",
    "training_curves",
    "uncertainty_map",
]

TOGETHER = 3
"""Predictions whose dots and bars one reliability diagram holds; with more they lie on top of each other."""


def reliability_diagram(
    predictions: Prediction | AveragePrediction | Mapping[str, Prediction | AveragePrediction],
    targets: Values,
    *,
    bins: int = 15,
    ax: Axes | None = None,
) -> Figure:
    """How often a prediction of a given confidence is right; on the diagonal it is as right as it is sure.

    The bins are those of the ECE, which the legend names; a bar is the 95 % Wilson interval of the accuracy in a bin,
    long where the bin holds few inputs. Without `ax`, a second panel shows how many those are, on a logarithmic scale;
    more than three predictions get a diagram each instead, side by side.

    Args:
        predictions: one, or several by name, for the same N inputs.
        targets: N class labels.
        bins: equal-width bins of the confidence; empty ones are left out.
        ax: draw only the diagram, here.

    Raises:
        InputError: no prediction, targets that do not fit, or `bins` that are no whole number ≥ 1.

    >>> figure = reliability_diagram(Prediction([[[0.9, 0.1], [0.4, 0.6]]]), [0, 0])
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['ECE 0.350']
    """
    from varbnn.predict.metrics import ExpectedCalibrationError

    named, bins = by_name(predictions), whole_number("bins", bins)
    for prediction in named.values():
        require_classes(prediction)
    if ax is None and len(named) > TOGETHER:
        return _side_by_side(named, targets, bins)
    figure, (main, spread) = new_panels(ax, 2, least=1, figsize=(4.8, 5.6), height_ratios=(4, 1), sharex=True)
    halo = import_extra("matplotlib.patheffects", "plot").withStroke(linewidth=3, foreground="white")
    main.plot([0, 1], [0, 1], color=PALE, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    for text, place, align in (
        ("underconfident", (0.03, 0.97), "left"),
        ("overconfident", (0.97, 0.03), "right"),
    ):
        vertical = "top" if align == "left" else "bottom"
        main.text(*place, text, color=PALE, style="italic", ha=align, va=vertical, zorder=2.5, path_effects=[halo])
    edges, most = np.linspace(0, 1, bins + 1), 0
    for (name, prediction), colour, marker in zip(named.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        metric = ExpectedCalibrationError(bins)
        metric.update(mean_of(prediction).cpu(), as_labels(targets, len(prediction), prediction.num_classes).cpu())
        full, most = metric.counts > 0, max(most, int(metric.counts.max()))
        share = (metric.counts / metric.counts.sum()).numpy()
        confidence = (metric.confidence_sum / metric.counts)[full].numpy()
        accuracy = (metric.correct_sum / metric.counts)[full].numpy()
        label = textwrap.fill(f"{name}{', ' if name else ''}ECE {float(metric.compute()):.3f}", LINE)
        low, high = _wilson(accuracy, metric.counts[full].numpy())
        main.vlines(confidence, low, high, color=colour, linewidth=1.4, alpha=0.6, zorder=2)
        dots = dict(color=colour, marker=marker, edgecolor="white", zorder=3, clip_on=False, label=label)
        main.scatter(confidence, accuracy, 24 + 110 * np.sqrt(share[full.numpy()]), **dots)
        if spread is not None:
            counts = np.maximum(metric.counts.numpy(), 0.5)  # an empty bin ends below the axis, which starts at 0.5
            spread.stairs(counts, edges, baseline=0.5, color=colour, linewidth=1.4, fill=len(named) == 1)
    main.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy in the bin")
    legend_above(main, columns=1)
    if spread is not None:
        spread.set(yscale="log", ylim=(0.5, None), ylabel="inputs")
        spread.tick_params(axis="y", which="minor", labelleft=False)
        if most < 10:
            spread.set_yticks(sorted({1, most}), sorted({1, most}))
    (spread or main).set_xlabel("confidence (largest mean probability)")
    return figure


LINE = 48
"""Letters in a line above a diagram."""


def _side_by_side(named: Mapping[str, Averaged], targets: Values, bins: int) -> Figure:
    columns = min(4, math.ceil(len(named) / 2))
    rows = math.ceil(len(named) / columns)
    size = (0.4 + 2.6 * columns, 0.3 + 2.9 * rows)
    figure, panels = new_panels(None, len(named), columns=columns, figsize=size, sharex=True, sharey=True)
    for place, ((name, prediction), panel) in enumerate(zip(named.items(), panels, strict=True)):
        reliability_diagram({name: prediction}, targets, bins=bins, ax=panel)
        legend = panel.get_legend()
        text = legend.get_texts()[0].get_text().strip().replace("ECE ", "ECE\xa0")  # which is not torn from its number
        panel.set_title(textwrap.fill(text, LINE // 2).replace("\xa0", " "), fontsize="medium")
        legend.remove()  # one of a long name would take the place of the diagram
        panel.set(xlabel="confidence" if place >= len(named) - columns else "")
        panel.tick_params(labelbottom=place >= len(named) - columns)
        if place % columns:
            panel.set(ylabel="")
    return figure


def _wilson(share: Array, count: Array) -> tuple[Array, Array]:
    """The 95 % interval of a probability of which `share` of `count` trials came out (Wilson 1927)."""
    z2 = 1.96**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = 1.96 * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return centre - reach, centre + reach


def entropy_histogram(
    prediction: Prediction | AveragePrediction,
    ood: Prediction | AveragePrediction | None = None,
    *,
    score: Score = "total",
    bins: int = 40,
    ax: Axes | None = None,
) -> Figure:
    """How unsure the networks are, in distribution and, given `ood`, out of it.

    Args:
        prediction: for familiar inputs.
        ood: for foreign inputs; the legend then names the AUROC of telling them apart.
        score: "total", "epistemic" or "aleatoric" in nats, or "confidence".
        bins: of the histogram.
        ax: draw here.

    Raises:
        InputError: an unknown `score`, "epistemic" for one sample, another number of classes in `ood`, or `bins` that
            are no whole number ≥ 1.

    >>> figure = entropy_histogram(Prediction([[[0.9, 0.1]]]), ood=Prediction([[[0.5, 0.5]]]))
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_legend().get_title().get_text()
    ('total uncertainty, nats', 'AUROC 1.000')
    """
    from varbnn.predict.metrics import ood_auroc

    require_classes(prediction)
    if ood is not None:
        require_same_classes(prediction, ood)
    require_score(score, *([prediction] if ood is None else [prediction, ood]))
    bins = whole_number("bins", bins)
    figure, (main,) = new_panels(ax, 1, figsize=(5.4, 3.4))
    groups = [("in distribution", prediction, BLUE, "-")] + (
        [("out of distribution", ood, VERMILION, "--")] if ood else []
    )
    highest = 1.0 if score == "confidence" else math.log(prediction.num_classes)
    if score == "epistemic":  # networks hardly ever disagree as much as they could
        highest = max(float(group.epistemic.max()) for _, group, *_ in groups) or highest
    edges = np.linspace(0, highest, bins + 1)
    for label, group, colour, line in groups:
        values = getattr(group, score).double().cpu().numpy().clip(0, highest)
        shares = np.histogram(values, edges)[0] / len(values)
        main.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
        main.stairs(shares, edges, color=colour, linewidth=1.6, linestyle=line, label=f"{label} ({len(values)})")
    unit = "confidence (largest mean probability)" if score == "confidence" else f"{score} uncertainty, nats"
    main.set(xlim=(0, highest), ylim=(0, None), xlabel=unit, ylabel="share of inputs")
    title = None
    if ood is not None:
        title = f"AUROC {ood_auroc(*(UNCERTAINTY[score](group).cpu() for group in (prediction, ood))):.3f}"
    legend_above(main, columns=2, title=title)
    return figure


def uncertainty_map(
    model: nn.Module | Predictor | Callable[[Tensor], Prediction | AveragePrediction],
    x: Values,
    y: Values,
    *,
    num_samples: int = 32,
    resolution: int = 120,
    margin: float = 0.35,
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Where in the plane the networks are unsure (total) and where they disagree (epistemic), with the data on top.

    Args:
        model: a network of two inputs, whose batch-norm statistics are re-estimated from `x` for each draw, packed
            networks, a `Predictor`, or a function from M×2 inputs to their `Prediction` or `AveragePrediction`.
        x: N×2 inputs; a function is given those of its dtype where it is a floating tensor, else float32.
        y: N class labels.
        num_samples: networks drawn, where `model` is a network.
        resolution: grid points along each axis.
        margin: how far the map reaches beyond the data, as a share of their extent.
        ax: two axes to draw on.

    Raises:
        InputError: inputs that are not N×2, labels that do not fit, or another number of axes.

    >>> def towards_the_right(points):
    ...     right = points[:, :1].sigmoid()
    ...     return Prediction(torch.cat([1 - right, right], 1)[None])
    >>> figure = uncertainty_map(towards_the_right, [[-1.0, 0.0], [1.0, 1.0]], [0, 1])
    >>> [panel.get_title() for panel in figure.axes[:2]]
    ['total uncertainty', 'epistemic uncertainty']
    """
    resolution, margin = whole_number("resolution", resolution, 2), finite_number("margin", margin, least=0)
    points = as_tensor(x, "x").double().cpu()
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise InputError(f"x must be N×2, a map has two axes, got shape {tuple(points.shape)}")
    extent = points.amax(0) - points.amin(0)
    reach = margin * extent.where(extent > 0, 1.0)  # a constant column has a map around it too
    low, high = points.amin(0) - reach, points.amax(0) + reach
    across, up = (torch.linspace(float(low[i]), float(high[i]), resolution, dtype=points.dtype) for i in (0, 1))
    grid = torch.cartesian_prod(up, across).flip(1)  # row by row from below, as pcolormesh wants it
    prediction: Averaged
    if isinstance(model, PackedEnsemble | Predictor):
        prediction = predict(model, grid.float())
    elif isinstance(model, nn.Module):
        generator = torch.Generator(device_of(model)).manual_seed(0)
        prediction = predict(model, grid.numpy(), num_samples, refresh_bn=points.numpy(), generator=generator)
    else:
        prediction = model(grid.to(x.dtype) if isinstance(x, Tensor) and x.is_floating_point() else grid.float())
    if len(prediction) != len(grid):
        raise InputError(
            f"the function must predict all {len(grid)} points of the grid it is given, got {len(prediction)}"
        )
    labels = as_labels(y, len(points), prediction.num_classes, "y").cpu()
    figure, panels = new_panels(ax, 2, figsize=(8.6, 4.0), columns=2, sharex=True, sharey=True)
    highest = math.log(prediction.num_classes)
    for panel, score in zip(panels, ("total", "epistemic"), strict=True):
        values = getattr(prediction, score).reshape(resolution, resolution).cpu().numpy()
        options = dict(cmap=greys(), vmin=0, vmax=highest, shading="gouraud", rasterized=True)
        mesh = panel.pcolormesh(across.numpy(), up.numpy(), values, **options)
        _decision_lines(panel, across, up, prediction)
        for index in range(prediction.num_classes):
            of_class = points[labels == index].T.numpy()
            dots = dict(
                color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)], label=f"class {index}"
            )
            panel.scatter(*of_class, s=18, edgecolor="white", linewidth=0.5, **dots)
        panel.set(title=f"{score} uncertainty", xlabel="input 1")
        panel.set(xlim=across[[0, -1]].tolist(), ylim=up[[0, -1]].tolist())
    panels[0].set_ylabel("input 2")
    figure.colorbar(mesh, ax=list(panels), label="nats", fraction=0.05, pad=0.02)
    if ax is None:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    return figure


def _decision_lines(panel: Axes, across: Tensor, up: Tensor, prediction: Averaged) -> None:
    """Where the label of the mean changes: the zero line between each class and its strongest rival."""
    mean = prediction.mean.reshape(len(up), len(across), -1).cpu()
    for index in range(prediction.num_classes - (prediction.num_classes == 2)):
        rivals = torch.cat([mean[..., :index], mean[..., index + 1 :]], -1).amax(-1)
        lead = (mean[..., index] - rivals).numpy()
        if lead.min() < 0 < lead.max():
            panel.contour(across.numpy(), up.numpy(), lead, levels=[0.0], colors=[INK], linewidths=1.2)
