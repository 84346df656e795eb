"""The pictures of docs/shift.md, drawn from benchmarks/results/shift.json and active.json.

python docs/figures/shift.py
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from common import RESULTS, save

from varbnn import plots
from varbnn.predict.style import COLOURS, legend_above, new_panels
from varbnn.predict.training_plots import LINES

NAMES = {
    "posterior": "posterior, 16 draws",
    "posterior, mode": "posterior, mode",
    "ste": "straight-through",
    "bop": "Bop",
    "float": "float",
}
TITLES = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
STRATEGIES = {
    "bald, drawn": "drawn by BALD",
    "entropy, drawn": "drawn by entropy",
    "random": "at random",
    "entropy": "highest entropy",
    "bald": "highest BALD",
}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def worn(results: dict[str, Any], data: str) -> Any:
    """Means over the seeds at every severity."""
    made = results["table"][data]
    return plots.severity_curves({title: made[name]["worn"] for name, title in NAMES.items()})


def refused(results: dict[str, Any]) -> Any:
    """Risk over coverage, mean over the seeds."""
    figure, panels = new_panels(None, 2, columns=2, figsize=(8.4, 3.6))
    coverage = 100 * np.array(results["setting"]["coverages"])
    for panel, (data, title) in zip(panels, TITLES.items(), strict=True):
        for (name, label), colour, line in zip(NAMES.items(), COLOURS, LINES, strict=False):
            risk = 100 * np.array(results["table"][data][name]["risk"])
            panel.plot(coverage, risk, color=colour, linestyle=line, linewidth=1.6, label=label)
        panel.set(xlim=(0, 100), ylim=(0, None), xlabel="inputs answered, % (surest first)")
        panel.set_title(title)
    panels[0].set_ylabel("of them wrong, %")
    legend_above(panels[0], columns=5, whole=figure)
    return figure


def labels(results: dict[str, Any]) -> Any:
    """Accuracy over the number of labels, mean and standard deviation over the seeds."""
    figure, (panel,) = new_panels(None, 1, figsize=(6.0, 3.8))
    made = {name: results["table"][name] for name in STRATEGIES if name in results["table"]}
    for (name, row), colour, line in zip(made.items(), COLOURS, LINES, strict=False):
        mean, spread = 100 * np.array(row["mean"]), 100 * np.array(row["sd"])
        panel.fill_between(row["labels"], mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        panel.plot(row["labels"], mean, color=colour, linestyle=line, linewidth=1.6, label=STRATEGIES[name])
    panel.set(xlabel="labelled images", ylabel="accuracy on the test set, %")
    panel.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    legend_above(panel, columns=3)
    return figure


def main() -> None:
    results = read("shift")
    for data in TITLES:
        save(worn(results, data), f"shift_worn_{data}.png")
    save(refused(results), "shift_refused.png")
    save(labels(read("active")), "active.png")


if __name__ == "__main__":
    main()
