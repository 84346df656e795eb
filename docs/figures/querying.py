"""The picture of docs/querying.md, drawn from benchmarks/results/queries.json.

python docs/figures/querying.py
"""

from __future__ import annotations

import json
from typing import Any

from common import RESULTS, save

from varbnn.predict.style import COLOURS, legend_above, new_panels
from varbnn.predict.training_plots import LINES

WAYS = {"variation_ratio": "by variation ratio", "random": "at random"}


def curves(table: dict[str, Any]) -> Any:
    """Accuracy over the share of labels used, mean and standard deviation over the seeds."""
    figure, panels = new_panels(None, 2, columns=2, figsize=(8.4, 3.6))
    for panel, key, what in zip(panels, ("all", "newest"), ("all tasks at the end", "each when newest"), strict=True):
        full = table["all"][key]
        panel.axhline(full["mean"], color="#777777", linewidth=1.0, linestyle=":", label="all labels")
        for (way, label), colour, line in zip(WAYS.items(), COLOURS, LINES, strict=False):
            rows = [row for name, row in table.items() if name.startswith(way + " ")]
            rows.sort(key=lambda row: row["labels"]["mean"])
            x, y, sd = ([row[k][v] for row in rows] for k, v in (("labels", "mean"), (key, "mean"), (key, "sd")))
            panel.errorbar(x, y, sd, color=colour, linestyle=line, linewidth=1.6, marker="o", markersize=4, label=label)
        panel.set(xscale="log", xlabel="labels used, % of the inputs")
        panel.set_xticks([3, 10], ["3", "10"])
        panel.minorticks_off()
        panel.set_xlim(2.5, 12)
        panel.set_title(what)
        panel.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    panels[0].set_ylabel("accuracy on the test sets, %")
    legend_above(panels[0], columns=3, whole=figure)
    return figure


def main() -> None:
    results = json.loads((RESULTS / "queries.json").read_text(encoding="utf-8"))
    save(curves(results["table"]), "querying.png")


if __name__ == "__main__":
    main()
