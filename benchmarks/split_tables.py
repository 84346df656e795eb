"""The tables of split MNIST and Fashion-MNIST from the committed results; `tables.py` writes them."""

from __future__ import annotations

import statistics
from typing import Any

from record import RESULTS, read, table

TITLES = {
    "joint": "all tasks so far (the ceiling)",
    "fine-tuning": "fine-tuning, straight-through",
    "metaplastic": "metaplastic latents",
    "published": "BayesBiNN, published settings",
    "ewc": "EWC, float",
    "online ewc": "online EWC, float",
    "vcl": "VCL, mean-field, float",
    "posterior": "**posterior as prior**",
    "replay": "replay, straight-through",
    "replay, reminded": "replay, and reminded before it is asked",
    "posterior, coreset": "**posterior as prior, and coreset**",
}
STORING = ("replay", "replay, reminded", "posterior, coreset")
SCENARIOS = {"task": "task-incremental", "domain": "domain-incremental", "class": "class-incremental"}
ROUNDED = {
    "posterior": "32 bits",
    "posterior, 8 bits": "8 bits, steps in λ",
    "posterior, 8 bits of the mean": "8 bits, steps in tanh λ",
    "posterior, 4 bits": "4 bits, steps in λ",
    "posterior, 4 bits of the mean": "4 bits, steps in tanh λ",
}
SHORT = {"activation": "", "late": "late ", "lr": "rate ", "head": "outputs × 1/10 · ", "remind_lr": "reminder's rate "}


def percent(value: dict[str, float], digits: int = 1) -> str:
    return f"{100 * value['mean']:.{digits}f} ± {100 * value['sd']:.{digits}f}"


def accuracy_table(results: dict[str, Any], data: str) -> str:
    """Average accuracy after the last task, and what is kept beside the network."""
    made = results["table"][data]
    rows = []
    for name, title in TITLES.items():
        if name in made["domain"]:
            cells = [percent(made[scenario][name]["accuracy"]) for scenario in SCENARIOS]
            kept = made["domain"][name]["bytes_kept"] / 1024
            examples = str(results["setting"]["stored"]) if name in STORING else "all" if name == "joint" else "–"
            rows.append([title, *cells, examples, f"{kept:,.0f}"])
    seeds = min(row["seeds"] for scenario in made.values() for row in scenario.values())
    return table(
        [f"{seeds} seed{'s' if seeds > 1 else ''}, %", *SCENARIOS.values(), "examples stored per task", "KB kept"], rows
    )


def learned_table(results: dict[str, Any], data: str) -> str:
    """What each task reached when it was new, and how much of that was lost: the price of not forgetting."""
    made = results["table"][data]
    rows = []
    for name, title in TITLES.items():
        if name in made["domain"]:
            cells = [f"{100 * made[scenario][name]['learned']['mean']:.1f}" for scenario in SCENARIOS]
            rows.append([title, *cells])
    return table(["accuracy on the newest task, %", *SCENARIOS.values()], rows)


def stored_table(results: dict[str, Any]) -> str:
    """Difference in points from 32 bits on the same seeds of MNIST."""
    rows = []
    for name, title in ROUNDED.items():
        cells = []
        for scenario in ("task", "domain"):
            lost = [
                100 * (one["accuracy"] - other["accuracy"])
                for methods in [results["runs"]["mnist"]]
                for one, other in paired(methods[scenario].get(name, []), methods[scenario]["posterior"])
            ]
            spread = statistics.stdev(lost) if len(lost) > 1 else 0.0
            cells.append(f"{statistics.fmean(lost):+.2f} ± {spread:.2f}" if lost else "")
        kept = [m["domain"][name]["bytes_kept"] for m in results["table"].values() if name in m["domain"]]
        if kept:
            rows.append([title, *(cells if name != "posterior" else ["", ""]), f"{kept[0] / 1024:,.0f}"])
    return table(["points beside 32 bits", SCENARIOS["task"], SCENARIOS["domain"], "KB kept"], rows)


def paired(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Runs of the same seed."""
    seeds = {row["seed"]: row for row in other}
    return [(row, seeds[row["seed"]]) for row in one if row["seed"] in seeds]


def ablation_table(results: dict[str, Any]) -> str:
    """Average accuracy and that on the newest task, with one thing changed; validation data, one seed."""
    scenarios = results["ablation"]
    rows = [
        [name, *(f"{100 * scenarios[s][name][key]:.1f}" for s in scenarios for key in ("accuracy", "learned"))]
        for name in scenarios["domain"]
    ]
    head = [f"{SCENARIOS[s]}{what}" for s in scenarios for what in (", average", ", when new")]
    return table(["validation data, one seed, %", *head], rows)


def settings_table(results: dict[str, Any]) -> str:
    """What was chosen out of how many trials."""
    rows = []
    for name, title in TITLES.items():
        if name in results["chosen"]["domain"]:
            tuning = results["tuning"]["domain"][name]
            trials = len({str(row["settings"]) for row in tuning})
            rows.append([title, *(written(results["chosen"][scenario][name]) for scenario in SCENARIOS), str(trials)])
    return table(["chosen on validation data", *SCENARIOS.values(), "trials each"], rows)


def written(settings: dict[str, Any]) -> str:
    """Settings in words; the activation only where it is another."""
    shown = [
        f"{SHORT.get(name, name + ' ')}{value if isinstance(value, str) else format(value, 'g')}"
        for name, value in settings.items()
        if (name, value) != ("activation", "relu")
    ]
    return ", ".join(shown)


def split_tables() -> dict[str, str]:
    """By the names of their markers."""
    results = read(RESULTS / "split.json")
    made = {f"split-{data}": accuracy_table(results, data) for data in results["table"]}
    made["split-learned"] = learned_table(results, "mnist")
    made["split-ablation"] = ablation_table(results)
    return made | {"split-stored": stored_table(results), "split-settings": settings_table(results)}
