"""Tables and pictures of docs/uncertainty.md, from the committed results; `tables.py` writes the tables.

python benchmarks/uncertainty_tables.py draws the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from record import RESULTS, no_options, read
from record import table as grid
from wide_tables import wide_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
SHARPNESS = 150

WAYS = {
    "posterior": "**living posterior**, {num_samples} draws",
    "posterior, mode": "the posterior's mode, 1 network",
    "ste": "StraightThrough (Adam)",
    "ste, snapshots": "StraightThrough, its last epochs",
    "bop": "Bop",
    "bop, snapshots": "Bop, its last epochs",
    "deep ensemble": "{members} StraightThrough of {share} epochs each",
    "vispa": "VISPA, rank 4, {num_samples} draws",
    "published": "BayesBiNN as published, {num_samples} draws",
    "full ensemble": "{members} StraightThrough of {epochs} epochs, {members} × the cost",
    "float": "float twin (Adam)",
    "float, laplace": "float twin, Laplace of its last layer, {num_samples} draws",
    "dropout": "float twin, MC dropout, {num_samples} masks",
}
"""Rows, in the order they are shown in; those of a benchmark that has not come so far are left out."""

COLUMNS = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "brier": ("Brier", 1, 4),
    "ood_mnist": ("AUROC MNIST", 1, 3),
    "ood_notmnist": ("AUROC notMNIST", 1, 3),
}

OWN = {"ece_if_calibrated": "ECE if calibrated, %", "temperature": "temperature"}
"""Last columns of networks as trained and of calibrated ones."""

FOREIGN = {"letters": "EMNIST letters", "mnist": "MNIST", "notmnist": "notMNIST"}


def ways(results: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name, title and row."""
    about = {**results, "share": results["epochs"] // results["members"]}
    rows = {
        name: (title.format(**about), results["table"][name])
        for name, title in WAYS.items()
        if name in results["table"]
    }
    return {
        name: (f"{title} ({row['seeds']} seeds)" if row["seeds"] < 5 else title, row)
        for name, (title, row) in rows.items()
    }


def spread(row: dict[str, float], scale: float, digits: int) -> str:
    return f"{scale * row['mean']:.{digits}f} ± {scale * row['sd']:.{digits}f}"


def scores_table(results: dict[str, Any], kind: str) -> str:
    """Mean ± standard deviation over the seeds, with what the ECE would be by chance alone, or the temperature."""
    own, factor, digits = {"raw": ("ece_if_calibrated", 100, 2), "scaled": ("temperature", 1, 2)}[kind]
    head = ["", *(title for title, _, _ in COLUMNS.values()), OWN[own]]
    rows = []
    for title, row in ways(results).values():
        rows.append([title, *(spread(row[kind][key], s, d) for key, (_, s, d) in COLUMNS.items())])
        rows[-1].append(spread(row[own], factor, digits))
    return grid(head, rows)


def foreign_table(results: dict[str, Any]) -> str:
    """AUROC of foreign images by either score, as trained; the score that letters choose is bold."""
    head = [""]
    for name in FOREIGN.values():
        head += [f"{name}, by total", f"{name}, by disagreement"]
    rows = []
    for title, row in ways(results).values():
        cells = []
        for name, score in product(FOREIGN, ("total", "epistemic")):
            found = row["raw"].get(f"{name}_{score}")
            text = "" if found is None else spread(found, 1, 3)
            cells.append(f"**{text}**" if score == row["score"] and text else text)
        rows.append([title, *cells])
    return grid(head, rows)


def versus_table(results: dict[str, Any], kind: str) -> str:
    """The posterior less each other, paired over the seeds, with the p of the t-test in brackets."""
    keys = {key: column for key, column in COLUMNS.items() if key != "brier"}
    rows = []
    for title, row in ways(results).values():
        if found := row["tests"].get(kind):
            cells = [
                f"{s * found[key]['difference']:+.{d}f} ({chance(found[key]['p'])})" for key, (_, s, d) in keys.items()
            ]
            rows.append([title, *cells])
    return grid(["posterior less …", *(title for title, _, _ in keys.values())], rows)


def chance(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p {p:.3f}".replace("0.", ".")


STUDIES = {
    "conv": "two convolutions: 50,000 images, 12 epochs",
    "small": "784-200-200-10: 10,000 images, 20 epochs",
    "medium": "the same, 40 epochs",
    "long": "the same, 80 epochs",
    "full": "784-400-400-10: 50,000 images, 20 epochs",
}
"""By scale, in the order of the overview."""

RIVALS = {
    "ste": "straight-through",
    "ste, snapshots": "straight-through's last epochs",
    "bop": "Bop",
    "bop, snapshots": "Bop's last epochs",
    "deep ensemble": "the ensemble",
    "vispa": "VISPA",
    "published": "as published",
}
"""Binary methods of equal cost, and their short names."""


def overview_table(studies: dict[str, dict[str, Any]]) -> str:
    """By study and measure, the posterior and the best of the binary methods of its cost, with the p between them."""
    keys = ("nll", "ece", "ood_mnist", "ood_notmnist")
    rows = []
    for scale, results in studies.items():
        own, cells = results["table"]["posterior"], []
        for key in keys:
            _, factor, digits = COLUMNS[key]
            best = max if key.startswith("ood") else min
            name = best(RIVALS.keys() & results["table"].keys(), key=lambda n: results["table"][n]["raw"][key]["mean"])
            other = results["table"][name]
            ours, theirs = (f"{factor * row['raw'][key]['mean']:.{digits}f}" for row in (own, other))
            cells.append(f"{ours}; {RIVALS[name]} {theirs} ({chance(other['tests']['raw'][key]['p'])})")
        rows.append([STUDIES[scale], *cells, f"{100 * own['ece_if_calibrated']['mean']:.2f}"])
    return grid(["", *(COLUMNS[key][0] for key in keys), OWN["ece_if_calibrated"]], rows)


def cost_table(results: dict[str, Any]) -> str:
    """What is kept and what is read."""
    rows = []
    for title, row in ways(results).values():
        bits = "" if row["entropy_bits"] is None else f"{row['entropy_bits']:.2f}"
        step = "" if row["ms_per_step"] is None else f"{row['ms_per_step']:.1f}"
        rows.append(
            [title, f"{row['networks']:.1f}".removesuffix(".0"), bits, f"{row['bits_per_prediction'] / 1e6:.2f}", step]
        )
    return grid(
        ["", "networks", "entropy, bits per weight", "Mbit of weights per prediction", "ms per training step"], rows
    )


def settings_table(results: dict[str, Any]) -> str:
    """What every method was tuned over, and what won."""
    titles = {name: title.format(**results, share="") for name, title in WAYS.items()}
    names = {name: title.split(",")[0].strip("*") for name, title in titles.items()} | {
        "deep ensemble": "deep ensemble",
        "dropout": "float twin, MC dropout",
    }
    rows = []
    for name, trials in results["tuning"].items():
        if name not in results["chosen"]:
            continue
        losses = [trial["nll"] for trial in trials]
        chosen = ", ".join(f"`{key}={value:.3g}`" for key, value in results["chosen"][name].items())
        rows.append([names[name], str(len(trials)), chosen, " ".join(f"{loss:.4f}" for loss in losses)])
    return grid(["", "trials", "chosen", "validation NLL of each"], rows)


# --- pictures ---


def scores_figure(results: dict[str, Any]) -> Figure:
    """NLL against ECE, a point per way, with the standard deviation over the seeds."""
    from varbnn.predict.style import COLOURS, MARKERS, PALE, VERMILION, new_panels

    figure, panels = new_panels(None, 2, columns=2, figsize=(12.5, 4.4))
    colours = [colour for colour in COLOURS[:7] if colour != VERMILION]
    for panel, kind in zip(panels, ("raw", "scaled"), strict=True):
        for place, (name, (title, row)) in enumerate(ways(results).items()):
            nll, ece = row[kind]["nll"], row[kind]["ece"]
            colour = VERMILION if name == "posterior" else colours[place % len(colours)]
            look = dict(color=colour, marker=MARKERS[place % len(MARKERS)], linestyle="", label=title.replace("*", ""))
            panel.errorbar(nll["mean"], 100 * ece["mean"], 100 * ece["sd"], nll["sd"], **look)
        panel.set(xlabel="NLL", ylabel="ECE, %", title="as trained" if kind == "raw" else "calibrated", ylim=(0, None))
        panel.grid(color=PALE, alpha=0.2)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def foreign_figure(results: dict[str, Any]) -> Figure:
    """AUROC of foreign images by either score, a row per way: from total uncertainty to disagreement."""
    from varbnn.predict.style import BLUE, PALE, VERMILION, legend_above, new_panels

    shown = {name: title for name, (title, _) in ways(results).items() if not name.endswith(", mode")}
    figure, panels = new_panels(None, 2, columns=2, figsize=(10, 0.34 * len(shown) + 1.4))
    for panel, foreign in zip(panels, ("mnist", "notmnist"), strict=True):
        for place, name in enumerate(reversed(shown)):
            row = results["table"][name]["raw"]
            colour = VERMILION if name == "posterior" else BLUE
            total, other = row[f"{foreign}_total"], row.get(f"{foreign}_epistemic")
            look = dict(color=colour, capsize=2, markersize=6, linestyle="")
            panel.errorbar(total["mean"], place, xerr=total["sd"], marker="o", markerfacecolor="white", **look)
            if other is not None:
                panel.plot([total["mean"], other["mean"]], [place, place], color=PALE, linewidth=1.5, zorder=0)
                panel.errorbar(other["mean"], place, xerr=other["sd"], marker="s", **look)
        panel.set(xlabel=f"AUROC, {FOREIGN[foreign]}", xlim=(0.5, 1), yticks=range(len(shown)))
        panel.set_yticklabels([])
    panels[0].set_yticklabels([title.replace("*", "") for title in reversed(shown.values())])
    panels[0].plot([], [], "o", color=BLUE, markerfacecolor="white", label="by total uncertainty")
    panels[0].plot([], [], "s", color=BLUE, label="by disagreement")
    legend_above(panels[0], columns=2)
    return figure


PAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "uncertainty-raw": lambda r: scores_table(r, "raw"),
    "uncertainty-tests": lambda r: versus_table(r, "raw"),
    "uncertainty-scaled": lambda r: scores_table(r, "scaled"),
    "uncertainty-scaled-tests": lambda r: versus_table(r, "scaled"),
    "uncertainty-foreign": foreign_table,
    "uncertainty-cost": cost_table,
    "uncertainty-settings": settings_table,
}


OTHERS = {
    "conv": (
        "uncertainty-raw",
        "uncertainty-tests",
        "uncertainty-scaled",
        "uncertainty-scaled-tests",
        "uncertainty-foreign",
        "uncertainty-cost",
        "uncertainty-settings",
    ),
    "medium": ("uncertainty-raw", "uncertainty-tests", "uncertainty-scaled", "uncertainty-settings"),
    "long": ("uncertainty-raw", "uncertainty-tests", "uncertainty-scaled", "uncertainty-settings"),
    "full": (
        "uncertainty-raw",
        "uncertainty-tests",
        "uncertainty-scaled",
        "uncertainty-scaled-tests",
        "uncertainty-foreign",
        "uncertainty-settings",
    ),
}
"""Tables that the page has of the other studies too."""


def tables() -> dict[str, str]:
    """By the name of its marker in docs/uncertainty.md."""
    made = {name: wide_table(read(RESULTS / f"{name}.json")) for name in ("wide", "wide-dropout", "wide-dropout-long")}
    made = {f"uncertainty-{name}": table for name, table in made.items()}
    studies = {scale: read(RESULTS / f"uncertainty-fashion-{scale}.json") for scale in STUDIES}
    made["uncertainty-overview"] = overview_table(studies)
    made |= {name: table(studies["small"]) for name, table in PAGES.items()}
    for scale, names in OTHERS.items():
        made |= {name.replace("-", f"-{scale}-", 1): PAGES[name](studies[scale]) for name in names}
    return made


if __name__ == "__main__":
    no_options(__doc__)
    pictures = {
        "uncertainty_scores": scores_figure(read(RESULTS / "uncertainty-fashion-small.json")),
        "uncertainty_foreign": foreign_figure(read(RESULTS / "uncertainty-fashion-small.json")),
    }
    for name, picture in pictures.items():
        picture.savefig(FIGURES / f"{name}.png", dpi=SHARPNESS)
