"""Results of `uncertainty.py` over the seeds: means, standard deviations, and paired tests."""

from __future__ import annotations

import statistics
from typing import Any

from scipy.stats import ttest_rel
from uncertainty_methods import Result, Scale, bits_per_prediction

from varbnn.data import Dataset

SUBJECT = "posterior"
"""What the others are tested against."""

UNTESTED = (SUBJECT, "full ensemble")
"""The latter's seeds share members and are not independent."""

REAL = ("float", "dropout")
KINDS = ("raw", "scaled")
TESTED = ("mnist", "notmnist")
CHOOSING = "letters"
"""Foreign inputs by which each way's score is chosen; they are tested nowhere."""


def summarise(results: Result, data: Dataset, scale: Scale) -> None:
    """Mean and standard deviation over the seeds, and the posterior against each way on the same seeds."""
    measured = {
        way: with_choice({run["seed"]: run["ways"][way] for run in runs})
        for runs in results["runs"].values()
        for way in (runs[0]["ways"] if runs else ())
    }
    table: dict[str, Any] = {}
    for name, runs in results["runs"].items():
        for way in runs[0]["ways"] if runs else ():
            theirs = measured[way]
            rows = list(theirs.values())
            row: dict[str, Any] = {"method": name, "seeds": len(rows), "score": rows[0]["score"]}
            for kind in KINDS:
                row[kind] = {key: spread([r[kind][key] for r in rows]) for key in rows[0][kind] if key != "temperature"}
            row["tests"] = {} if way in UNTESTED else test(measured.get(SUBJECT, {}), theirs)
            row["networks"] = statistics.fmean(r["networks"] for r in rows)
            row["temperature"] = spread([r["scaled"]["temperature"] for r in rows])
            row["ece_if_calibrated"] = spread([r["ece_if_calibrated"] for r in rows])
            about = (row["networks"], 32 if name in REAL else 1, way == "float, laplace")
            row["bits_per_prediction"] = bits_per_prediction(data, scale, *about)
            for key in ("entropy_bits", "ms_per_step", "train_loss"):
                values = [r[key] for r in runs if r.get(key) is not None]
                row[key] = statistics.fmean(values) if values else None
            table[way] = row
    results["table"] = table


def with_choice(rows: dict[int, Result]) -> dict[int, Result]:
    """One way's rows by seed, with `ood_…` by the score that tells letters best: one choice for all seeds."""

    def told(score: str) -> float:
        return statistics.fmean(row["raw"].get(f"{CHOOSING}_{score}", 0.0) for row in rows.values())

    score = max(("total", "epistemic"), key=told)
    chosen = {}
    for seed, row in rows.items():
        kinds = {kind: row[kind] | {f"ood_{name}": row[kind][f"{name}_{score}"] for name in TESTED} for kind in KINDS}
        chosen[seed] = row | kinds | {"score": score}
    return chosen


def test(ours: dict[int, Result], theirs: dict[int, Result]) -> Result:
    """Ours against theirs on the seeds that both have, raw and calibrated; nothing for fewer than two."""
    shared = sorted(set(ours) & set(theirs))
    if len(shared) < 2:
        return {}
    keys = ("accuracy", "nll", "ece", "brier", *(f"ood_{name}" for name in TESTED))
    return {
        kind: {key: paired(*([rows[s][kind][key] for s in shared] for rows in (ours, theirs))) for key in keys}
        for kind in KINDS
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def paired(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Mean difference, ours less theirs, and the two-sided p of the paired t-test."""
    difference = statistics.fmean(a - b for a, b in zip(ours, theirs, strict=True))
    return {"difference": difference, "p": float(ttest_rel(ours, theirs).pvalue)}
