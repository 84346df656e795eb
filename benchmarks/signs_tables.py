"""The tables of docs/signs.md, from the committed results; `tables.py` writes them."""

from __future__ import annotations

from typing import Any

from record import RESULTS, read
from uncertainty_tables import PAGES, grid, spread
from widths_tables import widths_table

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


def settings(results: dict[str, Any]) -> str:
    """What every method was tuned over, and what won."""
    rows = []
    for name in (name for name in METHODS if name in results["tuning"]):
        trials = results["tuning"][name]
        chosen = ", ".join(f"`{key}={value:.3g}`" for key, value in results["chosen"][name][0].items())
        losses = " ".join(f"{trial['nll']:.4f}" for trial in trials)
        rows.append([METHODS[name].split(",")[0].strip("*"), str(len(trials)), chosen, losses])
    return grid(["", "trials", "chosen", "validation NLL of each"], rows)


def summary(rows: dict[str, dict[str, dict[str, Any]]]) -> str:
    """What the posterior gains on straight-through training, by study and activation."""
    lines = []
    for study, kinds in rows.items():
        for kind, table in kinds.items():
            ours, theirs = table["posterior"], table["ste"]
            nll = [row["nll"]["mean"] for row in (theirs, ours)]
            more = 100 * (ours["accuracy"]["mean"] - theirs["accuracy"]["mean"])
            lines.append([study, f"`{kind}`", *(f"{n:.4f}" for n in nll), f"{nll[1] / nll[0]:.2f}", f"{more:+.2f}"])
    head = ["", "activation", "NLL, straight-through", "NLL, posterior", "ratio", "accuracy gained, %"]
    return grid(head, lines)


def raw(results: dict[str, Any]) -> dict[str, Any]:
    """A study of `uncertainty.py` as trained."""
    return {name: row["raw"] for name, row in results["table"].items()}


def tables() -> dict[str, str]:
    """By the name of its marker in docs/signs.md."""
    mnist = {"relu": read(RESULTS / "accuracy-mnist-relu.json"), "sign": read(RESULTS / "accuracy-mnist.json")}
    relu, fashion = (read(RESULTS / f"uncertainty-fashion-{kind}.json") for kind in ("small", "signs"))
    made = {"widths": widths_table(), "signs-mnist": beside(mnist), "signs-mnist-settings": settings(mnist["sign"])}
    made["signs-summary"] = summary(
        {
            "MNIST, 784-400-400-10": {kind: study["table"] for kind, study in mnist.items()},
            "10,000 images of Fashion-MNIST, 784-200-200-10": {"relu": raw(relu), "sign": raw(fashion)},
        }
    )
    for name in ("raw", "tests", "scaled", "scaled-tests", "settings"):
        made[f"signs-fashion-{name}"] = PAGES[f"uncertainty-{name}"](fashion)
    return made
