"""The tables of docs/integer.md from the committed results; `tables.py` writes them."""

from __future__ import annotations

from typing import Any

from record import RESULTS, read, table

NAMES = {
    "int8": "counters of 8 bits",
    "int4": "counters of 4 bits",
    "spread": "**counters of 8 bits with spread, {draws} draws**",
    "spread, mode": "the same, mode",
    "adam": "float: straight-through, Adam, batch norm",
    "bayes": "float: `Bernoulli`, `BayesBiNN`, batch norm, {draws} draws",
    "bayes, mode": "the same, mode",
}
COLUMNS = {"accuracy": (100, 2), "nll": (1, 3), "ece": (100, 2), "ood_auroc": (1, 4)}


def chosen(settings: dict[str, Any]) -> str:
    """Settings as they are written in a call."""
    return ", ".join(
        f"shifts {value[0]} → {value[1]}" if key == "shifts" else f"{key} {value:g}"
        for key, value in settings.items()
        if key != "bits"
    )


def made(name: str) -> str:
    """Mean ± standard deviation over the seeds, a row per method."""
    results = read(RESULTS / name)
    head = [
        f"{min(row['seeds'] for row in results['table'].values())} seeds", "accuracy, %", "NLL", "ECE, %", "OOD AUROC",
        "bytes per weight", "processor s", "chosen",
    ]  # fmt: skip
    rows = []
    for key, title in NAMES.items():
        if key not in results["table"]:
            continue
        row = results["table"][key]
        cells = [
            f"{scale * row[measure]['mean']:.{digits}f} ± {scale * row[measure]['sd']:.{digits}f}"
            for measure, (scale, digits) in COLUMNS.items()
        ]
        mode = key.endswith("mode")
        held = [] if mode else [f"{row['bytes_per_weight']['mean']:.2f}", f"{row['seconds']['mean']:.0f}"]
        held += [] if mode else [chosen(row["settings"])]
        rows.append([title.format(draws=results["draws"]), *cells, *(held or [""] * 3)])
    return table(head, rows)


def tables() -> dict[str, str]:
    """Every table of the page by its marker."""
    return {"integer-digits": made("integer.json"), "integer-mnist": made("integer-mnist.json")}
