"""Tables and picture of docs/defaults.md, from the committed results; `tables.py` writes the tables.

python benchmarks/posterior_ablation_tables.py draws the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from record import RESULTS, no_options, read
from uncertainty_tables import FIGURES, SHARPNESS, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = {"digits": "posterior-ablation", "fashion": "posterior-ablation-fashion"}
SHOWN = {"nll": ("NLL", 1, 3), "ece": ("ECE, %", 100, 1), "accuracy": ("accuracy, %", 100, 1)}


def cell(row: dict[str, Any], norm: str, count: int, key: str) -> str:
    _, scale, digits = SHOWN[key]
    found = row[norm][str(count)][key]
    return f"{scale * found['mean']:.{digits}f} ± {scale * found['error']:.{digits}f}"


def estimators_table(results: dict[str, Any]) -> str:
    """Estimator × temperature, 16 draws with statistics of their own."""
    head = ["estimator", "temperature", "bits", *(title for title, _, _ in SHOWN.values())]
    return grid(
        head,
        [
            [
                row["estimator"],
                f"1/{row['cold']}",
                f"{row['entropy_bits']:.2f}",
                *(cell(row, "re-estimated", 16, k) for k in SHOWN),
            ]
            for row in results["table"]
        ],
    )


def draws_table(results: dict[str, Any]) -> str:
    """Draws × batch-norm statistics, for the straight-through estimator at each temperature; NLL."""
    counts = (1, 4, 16, 64)
    rows = []
    for row in results["table"]:
        if row["estimator"] == "straight-through":
            for norm in ("re-estimated", "of training"):
                rows.append([f"1/{row['cold']}", norm, *(cell(row, norm, count, "nll") for count in counts)])
    return grid(["temperature", "batch-norm statistics", *(f"{c} draw{'s' * (c > 1)}" for c in counts)], rows)


def ablation_figure(results: dict[str, Any]) -> Figure:
    """NLL and ECE by temperature, and NLL by draws."""
    from varbnn.predict.style import COLOURS, MARKERS, legend_above, new_panels

    figure, panels = new_panels(None, 3, columns=3, figsize=(12, 3.6))
    lines = [(name, "re-estimated", "-") for name in dict.fromkeys(row["estimator"] for row in results["table"])]
    lines.append(("straight-through", "of training", ":"))
    for place, (estimator, norm, style) in enumerate(lines):
        rows = [row for row in results["table"] if row["estimator"] == estimator]
        for panel, key in zip(panels, ("nll", "ece"), strict=False):
            scale = SHOWN[key][1]
            found = [row[norm]["16"][key] for row in rows]
            label = estimator if norm == "re-estimated" else f"{estimator}, statistics of training"
            look = dict(color=COLOURS[place % 3], marker=MARKERS[place], linestyle=style, markersize=4, capsize=2)
            means, errors = ([scale * point[which] for point in found] for which in ("mean", "error"))
            panel.errorbar([1 / row["cold"] for row in rows], means, errors, label=label, **look)
    for panel, key in zip(panels, ("NLL, 16 draws", "ECE, %, 16 draws"), strict=False):
        panel.set(xscale="log", xlabel="temperature", ylabel=key)
        colds = sorted({row["cold"] for row in results["table"]})
        panel.set_xticks([1 / cold for cold in colds], [f"1/{cold}" for cold in colds], fontsize=8.5)
        panel.minorticks_off()
    panels[1].set_ylim(0, None)
    legend_above(panels[0], columns=1)
    rows = [row for row in results["table"] if row["estimator"] == "straight-through"]
    for place, row in enumerate(rows):
        counts = sorted(map(int, row["re-estimated"]))
        means = [row["re-estimated"][str(count)]["nll"]["mean"] for count in counts]
        look = dict(color=COLOURS[place], marker=MARKERS[place], markersize=4)
        panels[2].plot(counts, means, label=f"1/{row['cold']}", **look)
    panels[2].set(xscale="log", xlabel="draws", ylabel="NLL, straight-through", xticks=[1, 4, 16, 64])
    panels[2].set_xticklabels(["1", "4", "16", "64"])
    panels[2].minorticks_off()
    legend_above(panels[2], columns=3, title="temperature")
    return figure


def tables() -> dict[str, str]:
    """By the name of its marker in docs/defaults.md."""
    made = {}
    for data, file in FILES.items():
        results = read(RESULTS / f"{file}.json")
        made |= {f"{data}-estimators": estimators_table(results), f"{data}-draws": draws_table(results)}
    return made


if __name__ == "__main__":
    no_options(__doc__)
    for data, file in FILES.items():
        picture = ablation_figure(read(RESULTS / f"{file}.json"))
        picture.savefig(FIGURES / f"posterior_ablation_{data}.png", dpi=SHARPNESS)
