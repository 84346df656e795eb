"""Tables and pictures of docs/uncertainty.md, from the committed results; `tables.py` writes the tables.

python benchmarks/uncertainty_tables.py draws the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from record import RESULTS, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
SHARPNESS = 150

WAYS = {
    "posterior": "**living posterior**, {num_samples} draws",
    "posterior, mode": "the posterior's mode, 1 network",
    "posterior ensemble": "**posteriors from {starts:g} starts**, {num_samples} draws together",
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

SUBJECTS = {"posterior": "posterior", "posterior ensemble": "several starts"}

COLUMNS = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "brier": ("Brier", 1, 4),
    "ood_mnist": ("AUROC MNIST", 1, 3),
    "ood_notmnist": ("AUROC notMNIST", 1, 3),
}


def ways(results: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name, title and row."""
    starts = results.get("chosen", {}).get("posterior ensemble", {}).get("members", 0)
    about = {**results, "share": results["epochs"] // results["members"], "starts": starts}
    rows = {
        name: (title.format(**about), results["table"][name])
        for name, title in WAYS.items()
        if name in results["table"]
    }
    return {
        name: (f"{title} ({row['seeds']} seeds)" if row["seeds"] < 5 else title, row)
        for name, (title, row) in rows.items()
    }


def grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(row: dict[str, float], scale: float, digits: int) -> str:
    return f"{scale * row['mean']:.{digits}f} ± {scale * row['sd']:.{digits}f}"


def scores_table(results: dict[str, Any], kind: str) -> str:
    """Mean ± standard deviation over the seeds; calibrated rows begin with the temperature."""
    head = ["", *(["temperature"] if kind == "scaled" else []), *(title for title, _, _ in COLUMNS.values())]
    rows = []
    for title, row in ways(results).values():
        first = [spread(row["temperature"], 1, 2)] if kind == "scaled" else []
        rows.append([title, *first, *(spread(row[kind][key], s, d) for key, (_, s, d) in COLUMNS.items())])
    return grid(head, rows)


def versus_table(results: dict[str, Any], kind: str, subject: str) -> str:
    """The subject less each other, paired over the seeds, with the p of the t-test in brackets."""
    keys = {key: column for key, column in COLUMNS.items() if key != "brier"}
    rows = []
    for title, row in ways(results).values():
        if found := row["tests"].get(subject, {}).get(kind):
            cells = [
                f"{s * found[key]['difference']:+.{d}f} ({chance(found[key]['p'])})" for key, (_, s, d) in keys.items()
            ]
            rows.append([title, *cells])
    return grid([f"{SUBJECTS[subject]} less …", *(title for title, _, _ in keys.values())], rows)


def chance(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p {p:.3f}".replace("0.", ".")


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
    titles = {name: title.format(**results, share="", starts=0) for name, title in WAYS.items()}
    names = {name: title.split(",")[0].strip("*") for name, title in titles.items()} | {
        "deep ensemble": "deep ensemble",
        "posterior ensemble": "posteriors from several starts",
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


# --- the ablation ---

SHOWN = {"nll": ("NLL", 1, 3), "ece": ("ECE, %", 100, 1), "accuracy": ("accuracy, %", 100, 1)}


def cell(row: dict[str, Any], norm: str, count: int, key: str) -> str:
    _, scale, digits = SHOWN[key]
    found = row[norm][str(count)][key]
    return f"{scale * found['mean']:.{digits}f} ± {scale * found['error']:.{digits}f}"


def estimators_table(results: dict[str, Any]) -> str:
    """Estimator × temperature, 16 draws with statistics of their own."""
    head = ["estimator", "temperature", "bits", *(title for title, _, _ in SHOWN.values())]
    return grid(
        head,
        [
            [
                row["estimator"],
                f"1/{row['cold']}",
                f"{row['entropy_bits']:.2f}",
                *(cell(row, "re-estimated", 16, k) for k in SHOWN),
            ]
            for row in results["table"]
        ],
    )


def draws_table(results: dict[str, Any]) -> str:
    """Draws × batch-norm statistics, for the straight-through estimator at each temperature; NLL."""
    counts = (1, 4, 16, 64)
    rows = []
    for row in results["table"]:
        if row["estimator"] == "straight-through":
            for norm in ("re-estimated", "of training"):
                rows.append([f"1/{row['cold']}", norm, *(cell(row, norm, count, "nll") for count in counts)])
    return grid(["temperature", "batch-norm statistics", *(f"{c} draw{'s' * (c > 1)}" for c in counts)], rows)


# --- pictures ---


def ablation_figure(results: dict[str, Any]) -> Figure:
    """NLL and ECE by temperature, and NLL by draws."""
    from varbnn.predict.style import COLOURS, MARKERS, legend_above, new_panels

    figure, panels = new_panels(None, 3, columns=3, figsize=(11, 3.6))
    lines = [(name, "re-estimated", "-") for name in dict.fromkeys(row["estimator"] for row in results["table"])]
    lines.append(("straight-through", "of training", ":"))
    for place, (estimator, norm, style) in enumerate(lines):
        rows = [row for row in results["table"] if row["estimator"] == estimator]
        for panel, key in zip(panels, ("nll", "ece"), strict=False):
            found = [row[norm]["16"][key] for row in rows]
            label = estimator if norm == "re-estimated" else f"{estimator}, statistics of training"
            look = dict(color=COLOURS[place % 3], marker=MARKERS[place], linestyle=style, markersize=4, capsize=2)
            means, errors = ([point[which] for point in found] for which in ("mean", "error"))
            panel.errorbar([1 / row["cold"] for row in rows], means, errors, label=label, **look)
    for panel, key in zip(panels, ("NLL, 16 draws", "ECE, 16 draws"), strict=False):
        panel.set(xscale="log", xlabel="temperature", ylabel=key, ylim=(0, None))
    legend_above(panels[0], columns=1)
    rows = [row for row in results["table"] if row["estimator"] == "straight-through"]
    for place, row in enumerate(rows):
        counts = sorted(map(int, row["re-estimated"]))
        means = [row["re-estimated"][str(count)]["nll"]["mean"] for count in counts]
        look = dict(color=COLOURS[place], marker=MARKERS[place], markersize=4)
        panels[2].plot(counts, means, label=f"1/{row['cold']}", **look)
    panels[2].set(xscale="log", xlabel="draws", ylabel="NLL, straight-through", xticks=[1, 4, 16, 64], ylim=(0, None))
    panels[2].set_xticklabels(["1", "4", "16", "64"])
    panels[2].minorticks_off()
    legend_above(panels[2], columns=3, title="temperature")
    return figure


def scores_figure(results: dict[str, Any]) -> Figure:
    """NLL against ECE, a point per way, with the standard deviation over the seeds."""
    from varbnn.predict.style import COLOURS, MARKERS, PALE, VERMILION, new_panels

    figure, panels = new_panels(None, 2, columns=2, figsize=(10.5, 4.4))
    colours = [colour for colour in COLOURS[:7] if colour != VERMILION]
    for panel, kind in zip(panels, ("raw", "scaled"), strict=True):
        for place, (name, (_, row)) in enumerate(ways(results).items()):
            nll, ece = row[kind]["nll"], row[kind]["ece"]
            colour = VERMILION if name == "posterior" else colours[place % len(colours)]
            look = dict(color=colour, marker=MARKERS[place % len(MARKERS)], linestyle="", label=name)
            panel.errorbar(nll["mean"], 100 * ece["mean"], 100 * ece["sd"], nll["sd"], **look)
        panel.set(xlabel="NLL", ylabel="ECE, %", title="as trained" if kind == "raw" else "calibrated", ylim=(0, None))
        panel.grid(color=PALE, alpha=0.2)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


PAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "uncertainty-raw": lambda r: scores_table(r, "raw"),
    "uncertainty-tests": lambda r: versus_table(r, "raw", "posterior"),
    "uncertainty-starts-tests": lambda r: versus_table(r, "raw", "posterior ensemble"),
    "uncertainty-scaled": lambda r: scores_table(r, "scaled"),
    "uncertainty-scaled-tests": lambda r: versus_table(r, "scaled", "posterior"),
    "uncertainty-scaled-starts-tests": lambda r: versus_table(r, "scaled", "posterior ensemble"),
    "uncertainty-cost": cost_table,
    "uncertainty-settings": settings_table,
}


OF_FULL = ("uncertainty-raw", "uncertainty-tests", "uncertainty-scaled", "uncertainty-settings")
"""Tables that the page has of the larger study too."""

WIDE = {
    "posterior": "**living posterior**, {num_samples} draws",
    "posterior, mode": "the posterior's mode, 1 network",
    "ste": "StraightThrough (Adam)",
    "bop": "Bop",
    "float": "float twin (Adam)",
}
OF_WIDE = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "ood_auroc": ("AUROC Fashion", 1, 3),
    "entropy_bits": ("bits per weight", 1, 2),
}


def wide_table(results: dict[str, Any]) -> str:
    """The published network on MNIST, mean ± standard deviation where there is more than one seed."""
    lines = [
        f"|  | seeds | {' | '.join(title for title, _, _ in OF_WIDE.values())} |",
        f"| --- | ---: | {' | '.join('---:' for _ in OF_WIDE)} |",
    ]
    for name, title in WIDE.items():
        row = results["table"].get(name)
        if row is None:
            continue
        seeds = len(results["runs"][name.removesuffix(", mode")])
        cells = []
        for key, (_, scale, digits) in OF_WIDE.items():
            spread = f" ± {scale * row[key]['sd']:.{digits}f}" if key in row and seeds > 1 else ""
            cells.append(f"{scale * row[key]['mean']:.{digits}f}{spread}" if key in row else "")
        lines.append(f"| {title.format(**results)} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """By the name of its marker in docs/uncertainty.md."""
    made = {name: wide_table(read(RESULTS / f"{name}.json")) for name in ("wide", "wide-dropout")}
    made = {f"uncertainty-{name}": table for name, table in made.items()}
    made |= {name: table(read(RESULTS / "uncertainty-fashion-small.json")) for name, table in PAGES.items()}
    full = read(RESULTS / "uncertainty-fashion-full.json")
    made |= {name.replace("-", "-full-", 1): PAGES[name](full) for name in OF_FULL}
    ablation = read(RESULTS / "posterior-ablation.json")
    return made | {"ablation-estimators": estimators_table(ablation), "ablation-draws": draws_table(ablation)}


if __name__ == "__main__":
    pictures = {
        "uncertainty_scores": scores_figure(read(RESULTS / "uncertainty-fashion-small.json")),
        "posterior_ablation": ablation_figure(read(RESULTS / "posterior-ablation.json")),
    }
    for name, picture in pictures.items():
        picture.savefig(FIGURES / f"{name}.png", dpi=SHARPNESS)
