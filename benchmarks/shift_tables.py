"""The tables of docs/shift.md from the committed results; `tables.py` writes them."""

from __future__ import annotations

from typing import Any

from record import RESULTS, read, table
from uncertainty_tables import chance

NAMES = {
    "float": "float",
    "ste": "straight-through",
    "bop": "Bop",
    "posterior, mode": "posterior, mode",
    "posterior": "posterior, {} draws",
}
TITLES = {
    "mnist": "MNIST",
    "fashion": "Fashion",
    "notmnist": "notMNIST",
    "emnist-letters": "letters",
    "emnist-unlike-digits": "letters unlike digits",
}


def number(value: dict[str, float], scale: float, digits: int, spread: bool = True) -> str:
    """Mean, ± standard deviation over the seeds if there are several."""
    shown = f"{scale * value['mean']:.{digits}f}"
    return f"{shown} ± {scale * value['sd']:.{digits}f}" if spread else shown


def ood_table(results: dict[str, Any], data: str) -> str:
    """AUROC and, below it, FPR95 in per cent; the posterior's sampled networks by disagreement too."""
    made = results["table"][data]
    others = list(made["float"]["ood"])
    rows = []
    for name, title in NAMES.items():
        row = made[name]
        for score in ("total", "epistemic"):
            if score in row["ood"][others[0]]:
                found = [row["ood"][other][score] for other in others]
                several = row["seeds"] > 1
                cells = [f"{number(f['auroc'], 1, 3, several)}<br>{number(f['fpr95'], 100, 1, several)}" for f in found]
                by = "" if score == "total" else ", by disagreement"
                rows.append([title.format(results["setting"]["num_samples"]) + by, *cells])
    return table([_head(made), *(TITLES[other] for other in others)], rows)


def selective_table(results: dict[str, Any], data: str) -> str:
    """The test set as it is: accuracy, NLL, and what refusing does."""
    made = results["table"][data]
    columns = {
        "accuracy": ("accuracy, %", 100, 2),
        "nll": ("NLL", 1, 4),
        "ece": ("ECE, %", 100, 2),
        "aurc": ("AURC, ‰", 1000, 2),
        "excess": ("in excess, ‰", 1000, 2),
        "accuracy_at_90": ("accuracy on the surest 90 %", 100, 2),
    }
    rows = [
        [
            title.format(results["setting"]["num_samples"]),
            *(
                number(made[name][k], scale, digits, made[name]["seeds"] > 1)
                for k, (_, scale, digits) in columns.items()
            ),
        ]
        for name, title in NAMES.items()
    ]
    return table([_head(made), *(title for title, _, _ in columns.values())], rows)


def worn_table(results: dict[str, Any], data: str) -> str:
    """Accuracy in per cent and, below it, NLL: means over severities 1 to 5; the last column is the ECE over all."""
    made = results["table"][data]
    kinds = list(made["float"]["worn_mean"])
    rows = []
    for name, title in NAMES.items():
        row, several = made[name]["worn_mean"], made[name]["seeds"] > 1
        cells = [
            f"{number(row[kind]['accuracy'], 100, 1, several)}<br>{number(row[kind]['nll'], 1, 2, several)}"
            for kind in kinds
        ]
        error = sum(row[kind]["ece"]["mean"] for kind in kinds) / len(kinds)
        rows.append([title.format(results["setting"]["num_samples"]), *cells, f"{100 * error:.1f}"])
    return table([_head(made), *kinds, "ECE over all four, %"], rows)


def _head(made: dict[str, Any]) -> str:
    seeds = {row["seeds"] for row in made.values()}
    return f"{max(seeds)} seed" + "s" * (max(seeds) > 1)


STRATEGIES = {
    "random": "at random",
    "entropy": "highest entropy",
    "entropy, drawn": "drawn by entropy",
    "bald": "highest BALD",
    "bald, drawn": "drawn by BALD",
}
SHOWN = (40, 60, 100, 200, 300)


def active_table(results: dict[str, Any]) -> str:
    """Accuracy in per cent by number of labels."""
    made = results["table"]
    rows = []
    for name, title in STRATEGIES.items():
        if name in made:
            row = made[name]
            places = [row["labels"].index(count) for count in SHOWN]
            cells = [f"{100 * row['mean'][p]:.1f} ± {100 * row['sd'][p]:.1f}" for p in places]
            needed = [str(count or "–") for count in row["needed"].values()]
            less = [
                f"{100 * row['tests'][k]['difference']:+.1f} ({chance(row['tests'][k]['p'])})" for k in row["tests"]
            ]
            rows.append([title, *cells, *(less or ["", ""]), " / ".join(needed)])
    seeds = len(results["runs"]["random"])
    goals = " / ".join(f"{100 * float(goal):.0f}" for goal in made["random"]["needed"])
    less = ("curve less random", f"{SHOWN[-1]} less random")
    head = [f"{seeds} seeds; labels:", *map(str, SHOWN), *less, f"labels for {goals} %"]
    return table(head, rows)


def shift_tables() -> dict[str, str]:
    """Every table of the page by its marker."""
    results = read(RESULTS / "shift.json")
    made = {}
    for data in results["table"]:
        made[f"ood-{data}"] = ood_table(results, data)
        made[f"selective-{data}"] = selective_table(results, data)
        made[f"worn-{data}"] = worn_table(results, data)
    return made | {"active": active_table(read(RESULTS / "active.json"))}
