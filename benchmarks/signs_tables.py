"""The tables of docs/signs.md, from the committed results; `tables.py` writes them."""

from __future__ import annotations

from typing import Any

from record import RESULTS, read
from uncertainty_tables import PAGES, grid, spread
from wide_tables import wide_table

METHODS = {
    "ste": "StraightThrough (Adam)",
    "bop": "Bop",
    "posterior": "**living posterior**, {num_samples} draws",
    "posterior, mode": "the posterior's mode, 1 network",
}
COLUMNS = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "ood_auroc": ("AUROC foreign", 1, 3),
    "entropy_bits": ("bits per weight", 1, 2),
}
KINDS = ("relu", "sign")


def beside(studies: dict[str, dict[str, Any]]) -> str:
    """Every method with ReLU and with signs, mean ± standard deviation over the seeds."""
    rows = []
    for name, title in METHODS.items():
        for kind in KINDS:
            row = studies[kind]["table"][name]
            cells = [spread(row[key], s, d) if key in row else "" for key, (_, s, d) in COLUMNS.items()]
            rows.append([title.format(**studies[kind]), f"`{kind}`", *cells])
    return grid(["", "activation", *(title for title, _, _ in COLUMNS.values())], rows)


def ratios(studies: dict[str, dict[str, Any]]) -> dict[str, float]:
    """By activation, the posterior's NLL as a share of straight-through training's."""
    tables = {kind: study["table"] for kind, study in studies.items()}
    return {kind: table["posterior"]["nll"]["mean"] / table["ste"]["nll"]["mean"] for kind, table in tables.items()}


def settings(results: dict[str, Any]) -> str:
    """What every method was tuned over, and what won."""
    rows = []
    for name, trials in results["tuning"].items():
        chosen = ", ".join(f"`{key}={value:.3g}`" for key, value in results["chosen"][name][0].items())
        losses = " ".join(f"{trial['nll']:.4f}" for trial in trials)
        rows.append([METHODS[name].split(",")[0].strip("*"), str(len(trials)), chosen, losses])
    return grid(["", "trials", "chosen", "validation NLL of each"], rows)


def summary(every: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The posterior's NLL and accuracy less straight-through training's, by data and activation."""
    rows = []
    for data, studies in every.items():
        for kind, ratio in ratios(studies).items():
            table = studies[kind]["table"]
            more = 100 * (table["posterior"]["accuracy"]["mean"] - table["ste"]["accuracy"]["mean"])
            nll = [f"{table[name]['nll']['mean']:.4f}" for name in ("ste", "posterior")]
            rows.append([data, f"`{kind}`", *nll, f"{ratio:.2f}", f"{more:+.2f}"])
    return grid(["", "activation", "NLL, straight-through", "NLL, posterior", "ratio", "accuracy gained, %"], rows)


def tables() -> dict[str, str]:
    """By the name of its marker in docs/signs.md."""
    every = {
        data: {kind: read(RESULTS / f"accuracy-{data}{'-signs' * (kind == 'sign')}.json") for kind in KINDS}
        for data in ("mnist", "digits")
    }
    made = {f"signs-{data}": beside(studies) for data, studies in every.items()}
    made |= {f"signs-{data}-settings": settings(studies["sign"]) for data, studies in every.items()}
    made["signs-summary"] = summary(every)
    made["signs-wide"] = wide_table(read(RESULTS / "wide-signs-dropout.json"))
    fashion = read(RESULTS / "uncertainty-fashion-signs.json")
    for name in ("raw", "tests", "scaled", "scaled-tests", "settings"):
        made[f"signs-fashion-{name}"] = PAGES[f"uncertainty-{name}"](fashion)
    return made
