"""The tables of docs/streams.md from the committed results; `tables.py` writes them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from record import RESULTS, read, table

Runs = list[dict[str, Any]]
NAMES = {
    "bimu": "BiMU, published constants",
    "bayesbinn relaxed": "BayesBiNN as there: relaxed draws; boundaries",
    "bayesbinn relaxed, no guard": "the same, exact factor",
    "prior": "**exact draws, posterior as prior; boundaries**",
    "prior, larger step": "the same, a step of 1.5",
    "prior, stronger pull": "the same, a pull of 3e-5",
    "plain": "**`WindowedBayes`, plain**",
    "variance": "**`WindowedBayes`, variance**",
    "following": "**`FollowingPrior`**",
    "following, larger step": "the same, a step of 1.5",
    "ste": "straight-through (Adam)",
    "metaplastic": "`Metaplastic` (Laborieux)",
    "sign": "posterior as prior, units of `Sign`",
}
PUBLISHED = ["BiMU as published, batches of 1 (5 seeds)", "90.3 ± 0.2", "58.3", "20.8"]
"""After 100 tasks, from the notebooks of the authors' code."""
MILESTONES = {20: (1, 6, 11, 20), 100: (1, 26, 51, 100)}


def runs(results: dict[str, Any], row: str, tasks: int) -> Runs:
    """The test runs of a row with its own settings, by seed."""
    found = [r for r in results["runs"].values() if (r["row"], r["tasks"], r["part"]) == (row, tasks, "test")]
    return sorted(found, key=lambda r: r["seed"])


def last(count: int | None, draws: int) -> Callable[[dict[str, Any]], float]:
    """Accuracy in per cent at the end of the stream, over the newest `count` tasks, or all."""
    return lambda run: 100 * statistics.fmean(run["after"][str(draws)][-count if count else None :])


def current(where: slice) -> Callable[[dict[str, Any]], float]:
    """Accuracy in per cent on each task right after it was learned, mean over those of `where`."""
    return lambda run: 100 * statistics.fmean(run["newest"][where])


def cell(found: Runs, measure: Callable[[dict[str, Any]], float], digits: int) -> str:
    """Mean, ± standard deviation over the seeds if there are several."""
    values = [measure(run) for run in found]
    shown = f"{statistics.fmean(values):.{digits}f}"
    return f"{shown} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else shown


def mean(found: Runs, measure: Callable[[dict[str, Any]], float], digits: int) -> str:
    return f"{statistics.fmean(measure(run) for run in found):.{digits}f}"


def bits(found: Runs, tasks: int) -> str:
    """Entropy of a first-layer weight after some of the tasks; a point has none."""
    if not any(found[0]["entropy_bits"][0]):
        return ""
    after = [mean(found, lambda run, n=number: run["entropy_bits"][n - 1][0], 2) for number in MILESTONES[tasks]]  # type: ignore[misc]
    return " ".join(value.lstrip("0") for value in after)


def stream_table(results: dict[str, Any], tasks: int, draws: int, brief: bool = False) -> str:
    """A row per method: what is left at the end of the stream and, unless `brief`, what the network can still learn."""
    counts = {"last 5, %": 5, "last 20, %": 20, "all, %": None}
    if tasks == 20:
        del counts["last 20, %"]
    head = ["", *counts, "OOD AUROC"]
    if not brief:
        head += ["current, first 5 → last 5", "bits", "s per task"]
    rows = [PUBLISHED + [""] * (len(head) - len(PUBLISHED))] if tasks == 100 and draws == 5 else []
    for name, title in NAMES.items():
        found = [run for run in runs(results, name, tasks) if str(draws) in run["after"]]
        if not found:
            continue
        cells = [cell(found, last(count, draws), 1) for count in counts.values()]
        cells.append(mean(found, lambda run: run["ood_auroc"][f"total, {draws}"], 3))
        if not brief:
            early, late = (mean(found, current(where), 1) for where in (slice(5), slice(-5, None)))
            cells += [f"{early} → {late}", bits(found, tasks), mean(found, lambda run: run["training_seconds"], 1)]
        seeds = "" if len(found) > 2 else f" ({len(found)} seed{'s' * (len(found) > 1)})"
        rows.append([title + seeds, *cells])
    return table(head, rows)


def stream_tables() -> dict[str, str]:
    """By marker."""
    results = read(RESULTS / "bimu-protocol.json")
    return {
        "streams-20": stream_table(results, 20, 5),
        "streams-20-more": stream_table(results, 20, 20, brief=True),
        "streams-100": stream_table(results, 100, 5),
        "streams-100-20": stream_table(results, 100, 20, brief=True),
        "streams-100-50": stream_table(results, 100, 50, brief=True),
    }
