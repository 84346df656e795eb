"""Every picture of the demonstration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import varbnn as vb
from varbnn.data import Dataset
from varbnn.demo.methods import METHODS, Outcome
from varbnn.predict.style import SHARPNESS, legend_above, new_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(data: Dataset, outcomes: Mapping[str, Outcome], num_samples: int, folder: Path) -> None:
    """Write the pictures into `folder`.

    Raises:
        MissingExtraError: matplotlib is not installed; nothing is written.
    """
    predictions = {name: outcome.prediction for name, outcome in outcomes.items()}
    histories = {name: outcome.history for name, outcome in outcomes.items()}
    figures = {
        "reliability": vb.plots.reliability_diagram(predictions, data.test_y),
        "uncertainty": _uncertainty(outcomes),
        "training": vb.plots.training_curves(histories, ["loss", "accuracy", "entropy_bits", "flips"]),
    }
    drawing = {name: outcome for name, outcome in outcomes.items() if METHODS[name].draws}
    if drawing:
        figures["layers"] = _layers(drawing)
    if data.shape == (2,):
        for name, outcome in outcomes.items():
            figures[f"map-{name}"] = _map(data, outcome, num_samples if name in drawing else 0)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=SHARPNESS)


def _uncertainty(outcomes: Mapping[str, Outcome]) -> Figure:
    columns = 1 if len(outcomes) <= 2 else 2
    size = (0.4 + 5.2 * columns, 0.8 + 2.3 * math.ceil(len(outcomes) / columns))
    figure, panels = new_panels(None, len(outcomes), columns=columns, figsize=size, sharex=True, sharey=True)
    for place, ((name, outcome), panel) in enumerate(zip(outcomes.items(), panels, strict=True)):
        vb.plots.entropy_histogram(outcome.prediction, outcome.ood, ax=panel)
        legend = panel.get_legend()
        auroc = legend.get_title().get_text()
        panel.set_title(f"{name}, {auroc}" if auroc else name, loc="left")
        lowest = place >= len(outcomes) - columns
        panel.tick_params(labelbottom=lowest)
        panel.set_xlabel(panel.get_xlabel() if lowest else "")
        panel.set_ylabel("" if place % columns else panel.get_ylabel())
        legend.remove()  # one for all panels
    panels[0].set_ylim(0, 1.05 * max(panel.dataLim.y1 for panel in panels))  # of all, as they share it
    legend_above(panels[0], columns=2, whole=figure)
    return figure


def _layers(outcomes: Mapping[str, Outcome]) -> Figure:
    bits = {name: vb.health(outcome.model, warn=False).layer_entropy_bits for name, outcome in outcomes.items()}
    if len(bits) == 1:
        return vb.plots.layer_entropy(*bits.values())
    rows = sum(map(len, bits.values()))
    figure, panels = new_panels(None, len(bits), figsize=(5.4, 0.6 + 0.4 * len(bits) + 0.36 * rows), sharex=True)
    for (name, layers), panel in zip(bits.items(), panels, strict=True):
        vb.plots.layer_entropy(layers, ax=panel)
        panel.set_title(name, loc="left")
    for panel in panels[:-1]:
        panel.set_xlabel("")
    return figure


def _map(data: Dataset, outcome: Outcome, num_samples: int) -> Figure:
    def predict(points: torch.Tensor) -> vb.Prediction:
        generator = torch.Generator().manual_seed(0)
        return vb.predict(outcome.model, points, num_samples, refresh_bn=data.train_x, generator=generator)

    return vb.plots.uncertainty_map(predict, data.test_x, data.test_y, margin=0.6)
