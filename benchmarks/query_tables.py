"""The table of docs/querying.md from the committed results; `tables.py` writes it."""

from __future__ import annotations

from record import RESULTS, read, table
from shift_tables import number

NAMES = {"variation_ratio": "by variation ratio", "random": "at random", "all": "all"}


def title(name: str) -> str:
    """ "random 0.1" for people."""
    way, _, budget = name.partition(" ")
    return NAMES[way] + (f", {100 * float(budget):g} %" if budget else "")


def tables() -> dict[str, str]:
    """Every table of the page by its marker."""
    results = read(RESULTS / "queries.json")
    rows = []
    for name, row in results["table"].items():
        shares = [number(row[key], 1, digits) for key, digits in (("all", 1), ("newest", 1), ("rare", 0))]
        used = f"{row['labels']['mean']:.2f} | {row['backward']['mean']:.0f} | {row['seconds']['mean']:.0f}"
        rows.append([title(name), str(row["seeds"]), used, *shares])
    head = [
        "labels", "seeds", "% of labels", "steps, % of blocks", "processor s", "accuracy, all tasks",
        "each when newest", "rare digits among labels, %",
    ]  # fmt: skip
    return {"queries": table(head, rows)}
