"""The picture of the permuted-MNIST page, drawn from benchmarks/results/permuted.json.

python docs/figures/permuted.py
"""

from __future__ import annotations

import json
from typing import Any

from common import HERE, RESULTS

from varbnn.continual.plots import trade_off

Trials = list[dict[str, Any]]


def along(name: str, trials: Trials) -> dict[float, Any]:
    """The matrices of those that differ from the first in nothing but `name`, in its order."""
    centre = trials[0]["settings"]
    own = [t for t in trials if all(t["settings"][key] == centre[key] for key in centre if key != name)]
    own.sort(key=lambda trial: float(trial["settings"][name]))
    return {trial["settings"][name]: trial["matrix"] for trial in own}


def traded(results: dict[str, Any]) -> Any:
    """What is learned against what is kept: the posterior's strength and temperature, and the springs of EWC."""
    springs = [t for t in results["tuning"]["online ewc"] if t["settings"]["norm"] == "layer"]
    springs = [t for t in springs if t["settings"]["strength"] < 100]  # far to the left of the others
    figure = trade_off(
        {
            "posterior as prior, strength": along("strength", results["curve"]),
            "posterior as prior, temperature": along("temperature", results["curve"]),
            "online EWC, strength": along("strength", springs),
        }
    )
    (crowded,) = (text for text in figure.axes[0].texts if text.get_text() == "0.2")
    crowded.set(position=(6, -3), ha="left")  # to the left of its point another setting is written
    return figure


if __name__ == "__main__":
    content = json.loads((RESULTS / "permuted.json").read_text(encoding="utf-8"))
    traded(content).savefig(HERE / "permuted_trade_off.png", dpi=150)
