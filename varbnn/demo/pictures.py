"""Every picture of the demonstration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import varbnn as vb
from varbnn.data import Dataset
from varbnn.demo.methods import METHODS, Outcome
from varbnn.predict.style import new_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARPNESS = 150  # dots per inch


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
    for name, outcome in outcomes.items():
        if METHODS[name].draws:
            figures["layers"] = vb.plots.layer_entropy(vb.health(outcome.model, warn=False).layer_entropy_bits)
        if data.shape == (2,):
            figures[f"map-{name}"] = _map(data, outcome, num_samples if METHODS[name].draws else 0)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=SHARPNESS)


def _uncertainty(outcomes: Mapping[str, Outcome]) -> Figure:
    figure, panels = new_panels(None, len(outcomes), figsize=(5.6, 0.6 + 2.8 * len(outcomes)), sharex=True)
    for (name, outcome), panel in zip(outcomes.items(), panels, strict=True):
        vb.plots.entropy_histogram(outcome.prediction, outcome.ood, ax=panel)
        panel.text(0.99, 0.97, name, transform=panel.transAxes, ha="right", va="top", weight="bold")
    for panel in panels[:-1]:
        panel.set_xlabel("")
    return figure


def _map(data: Dataset, outcome: Outcome, num_samples: int) -> Figure:
    def predict(points: torch.Tensor) -> vb.Prediction:
        generator = torch.Generator().manual_seed(0)
        return vb.predict(outcome.model, points, num_samples, refresh_bn=data.train_x, generator=generator)

    return vb.plots.uncertainty_map(predict, data.test_x, data.test_y, margin=0.6)
