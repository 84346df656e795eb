"""The tables of the permuted-MNIST page from the committed results; `tables.py` writes them."""

from __future__ import annotations

import statistics
from typing import Any

from permuted_methods import METHODS
from record import RESULTS, no_options, read, table

Row = dict[str, Any]
NAMES = {"batch": "batch norm, ReLU", "layer": "layer norm, tails"}


def results() -> dict[str, Any]:
    return read(RESULTS / "permuted.json")


def ended(run: Row, protocol: str, measure: str = "accuracy", last: int | None = None) -> float:
    """Mean over the tasks, or the last few, after the last."""
    matrix = run[measure][protocol]
    values = matrix["end"] if isinstance(matrix, dict) else matrix[-1]
    return statistics.fmean(values if last is None else values[-last:])


def when_new(run: Row) -> float | None:
    """Mean accuracy on each task right after it was learned; None where all were learned at once."""
    matrix = run["accuracy"]["task"]
    return statistics.fmean(row[number] for number, row in enumerate(matrix)) if len(matrix) > 1 else None


def spread(values: list[float | None], scale: float = 100, digits: int = 2) -> str:
    """Mean ± standard deviation over the seeds; nothing where there is nothing."""
    known = [scale * value for value in values if value is not None]
    if not known:
        return ""
    shown = f"{statistics.fmean(known):.{digits}f}"
    return f"{shown} ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else shown


def titled(name: str, runs: list[Row]) -> str:
    title, norm = METHODS[name].title, runs[0]["settings"]["norm"]
    return title if "norm" in title else f"{title} ({NAMES[norm]})"


def five(made: dict[str, Any]) -> str:
    """Five tasks: one row per method."""
    head = [
        "5 tasks of 20 epochs",
        "seeds",
        "average accuracy, %",
        "newest task's statistics",
        "first task",
        "when new",
        "NLL",
        "ECE, %",
        "bits",
    ]
    rows = []
    for name, runs in {**made["main"], **made.get("others", {}), **made.get("slow", {})}.items():
        if not runs:
            continue
        newest = [ended(run, "newest") for run in runs if "newest" in run["accuracy"]]
        bits = [run["history"][-1].get("entropy_bits") for run in runs if "history" in run]
        living = bool(bits) and bits[0] is not None and METHODS[name].posterior is not None and bits[0] > 0
        rows.append(
            [
                titled(name, runs),
                str(len(runs)),
                spread([ended(run, "task") for run in runs]),
                spread(newest),  # type: ignore[arg-type]
                spread([run["accuracy"]["task"][-1][0] for run in runs]),
                spread([when_new(run) for run in runs]),
                spread([ended(run, "task", "nll") for run in runs], 1, 3),
                spread([ended(run, "task", "ece") for run in runs], 100, 1),
                spread(bits, 1, 2) if living else "",
            ]
        )
    return table(head, rows)


def ten(made: dict[str, Any]) -> str:
    head = ["10 tasks of 5 epochs", "seeds", "average accuracy, %", "newest task's statistics", "when new"]
    rows = [
        [
            titled(name, runs),
            str(len(runs)),
            spread([ended(run, "task") for run in runs]),
            spread([ended(run, "newest") for run in runs]),
            spread([when_new(run) for run in runs]),
        ]
        for name, runs in made.get("ten", {}).items()
        if runs
    ]
    return table(head, rows)


def long(made: dict[str, Any]) -> str:
    ended_at = ["last 5, %", "last 20, %", "all 100, %"]
    head = ["100 tasks of one epoch", "seeds", *ended_at, "when new: first 5", "last 5", "bits"]
    rows = []
    for name, runs in made.get("long", {}).items():
        if not runs:
            continue
        new = [run["accuracy"]["task"]["new"] for run in runs]
        bits = [run["history"][-1].get("entropy_bits") or None for run in runs]
        rows.append(
            [
                titled(name, runs),
                str(len(runs)),
                *(spread([ended(run, "task", last=last) for run in runs]) for last in (5, 20, None)),
                spread([statistics.fmean(values[:5]) for values in new]),
                spread([statistics.fmean(values[-5:]) for values in new]),
                spread(bits, 1, 2),
            ]
        )
    return table(head, rows)


def shown(settings: Row) -> str:
    return ", ".join(
        f"`{key}={value}`" if isinstance(value, str) else f"`{key}={value:g}`" for key, value in settings.items()
    )


def settings(made: dict[str, Any]) -> str:
    """What every method was tuned over, and what won."""
    rows = ["| | trials | chosen | validation accuracy of the trials, % |", "|---|---:|---|---|"]
    for name, trials in made["tuning"].items():
        if name not in made["chosen"]:
            continue  # its trials are not done
        method = METHODS[name]
        title = method.title if method.tried == (5, 5) else f"{method.title}, {method.tried[0]} tasks"
        found = sorted((statistics.fmean(t[p] for p in ("task", "newest") if p in t) for t in trials), reverse=True)
        values = ", ".join(f"{100 * value:.1f}" for value in found)
        rows.append(f"| {title} | {len(trials)} | {shown(made['chosen'][name])} | {values} |")
    return "\n".join(rows)


def curve(made: dict[str, Any]) -> str:
    """One setting of the posterior varied at a time."""
    trials = made["curve"]
    centre = trials[0]["settings"]
    rows = []
    for trial in trials:
        changed = {key: value for key, value in trial["settings"].items() if value != centre[key]}
        matrix = trial["matrix"]
        numbers = (trial["task"], trial["learned"], matrix[-1][0])
        entropy = f"{trial['entropy_bits']:.2f}"
        rows.append([shown(changed) or f"as they are: {shown(centre)}", *(f"{100 * v:.2f}" for v in numbers), entropy])
    return table(["one seed, 5 epochs, validation data", "average accuracy, %", "when new", "first task", "bits"], rows)


EXPLORED = {
    "`Gate`": {"activation": "Gate(bits, reverse)"},
    "`Gate`, strength 1.5": {"activation": "Gate(bits, reverse)", "strength": 1.5},
    "`Tails`": {},
    "`Tails`, strength 1.5": {"strength": 1.5},
    "`Tails`, strength 1.5, late start": {"strength": 1.5, "late": 0.3},
    "the same, temperature 0.5": {"strength": 1.5, "late": 0.3, "temperature": 0.5},
    "ReLU, strength 1.5": {"activation": "ReLU", "strength": 1.5},
    "batch norm, ReLU, strength 1.5, lr 5e-3": {
        "norm": "batch",
        "head": "batch",
        "activation": "ReLU",
        "strength": 1.5,
        "lr": 5e-3,
    },
    "batch norm, ReLU, strength 1.5, late start": {
        "norm": "batch",
        "head": "batch",
        "activation": "ReLU",
        "strength": 1.5,
        "late": 0.3,
    },
    "batch norm, `Tails`, strength 1.5, lr 5e-3": {"norm": "batch", "head": "batch", "strength": 1.5, "lr": 5e-3},
    "`Gate`, opposite pairs of draws": {
        "activation": "Gate(bits, reverse)",
        "num_samples": 2,
        "antithetic": True,
    },
    "`Gate`, temperature 0.5": {"activation": "Gate(bits, reverse)", "temperature": 0.5},
    '`Gate`, `estimator="moments"`': {"activation": "Gate(bits, reverse)", "estimator": "moments"},
}
"""What differs from `FIRST`, by what it is called."""
FIRST = {
    "epochs": 5,
    "batch": 256,
    "norm": "layer",
    "head": "layer",
    "activation": "Tails(0.7)",
    "estimator": "straight-through",
    "temperature": 1.0,
    "strength": 1.0,
    "lr": 1e-2,
    "late": 0.0,
    "head_scale": 3.0,
    "num_samples": 1,
    "antithetic": False,
}


def explored() -> str:
    """The runs that decided how the network and its prior are."""
    runs = read(RESULTS / "permuted-explored.json")["runs"]
    rows = []
    for title, changed in EXPLORED.items():
        wanted = {**FIRST, **changed}
        # of two of the same setting the second: the first was before the products were in bfloat16
        run = [r for r in runs if all(r["settings"][key] == value for key, value in wanted.items())][-1]
        newest = f"{run['newest']:.1f}" if "newest" in run else ""
        numbers = (run["average"], run["accuracy"][0], statistics.fmean(run["when_new"]))
        average, first, new = (f"{value:.1f}" for value in numbers)
        rows.append([title, average, newest, first, new])
    return table(["one seed", "average accuracy, %", "newest task's statistics", "first task", "when new"], rows)


def permuted_tables() -> dict[str, str]:
    """Every table of the page by its marker."""
    made = results()
    tables = {"permuted-explored": explored(), "permuted-five": five(made), "permuted-settings": settings(made)}
    for name, block in (("ten", ten), ("long", long), ("curve", curve)):
        if made.get(name):
            tables[f"permuted-{name}"] = block(made)
    return tables


if __name__ == "__main__":
    no_options(__doc__)
    for marker, text in permuted_tables().items():
        print(f"{marker}\n{text}\n")
