"""What the demonstration says, on the screen and in its report."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

import varbnn as vb
from varbnn import text
from varbnn.data import Dataset
from varbnn.demo.methods import METHODS, Outcome
from varbnn.demo.networks import between, layers_of
from varbnn.demo.recipes import Recipe

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("accuracy ↑", "{:.2%}".format),
    "nll": ("NLL ↓", "{:.4f}".format),
    "brier": ("Brier ↓", "{:.4f}".format),
    "ece": ("ECE ↓", "{:.4f}".format),
    "ood_auroc": ("OOD AUROC ↑", "{:.4f}".format),
    "entropy_bits": ("bits/weight", "{:.2f}".format),
    "flips_per_step": ("flips/step", "{:.1f}".format),
    "ms_per_step": ("ms/step", "{:.1f}".format),
    "bytes_per_weight": ("bytes/weight", "{:.0f}".format),
}
"""Heading and format of every measure."""


def opening(data: Dataset, recipe: Recipe) -> str:
    """What is about to happen."""
    foreign = data.note if data.ood_x is None else f"{len(data.ood_x):,} {data.ood_name}"
    kind = "×".join(map(str, data.shape)) + " images" if len(data.shape) == 2 else "points in the plane"
    return (
        f"data      {data.name}: {len(data.train_x):,} training and {len(data.test_x):,} test {kind}, "
        f"{data.num_classes} classes\n"
        f"foreign   {foreign}\n"
        f"network   {layers_of(data, recipe.widths, recipe.channels)}, {between(recipe.activation)}\n"
        f"budget    {recipe.epochs} epoch{'s' * (recipe.epochs > 1)} in batches of {recipe.batch_size} for each method"
    )


def table(measures: Mapping[str, Mapping[str, float | None]]) -> str:
    """Methods by measures, right-aligned; the columns are as wide as they must be.

    >>> print(table({"ste": {**dict.fromkeys(COLUMNS, 0.5), "ood_auroc": None}}))
         accuracy ↑   NLL ↓  Brier ↓   ECE ↓  OOD AUROC ↑  bits/weight  flips/step  ms/step  bytes/weight
    ste      50.00%  0.5000   0.5000  0.5000            -         0.50         0.5      0.5             0
    """
    rows = [["", *(heading for heading, _ in COLUMNS.values())]]
    for name, row in measures.items():
        values = ((row[key], form) for key, (_, form) in COLUMNS.items())
        rows.append([name, *("-" if value is None else form(value) for value, form in values)])
    return text.table(rows)


def reading(data: Dataset, measures: Mapping[str, Mapping[str, float | None]], num_samples: int) -> str:
    """How to read the table, and what it says about networks that are drawn against networks that are not."""
    lines = []
    drawing = [name for name in measures if METHODS[name].draws]
    if drawing:
        networks = f"{num_samples} sampled networks" if num_samples > 1 else "1 sampled network"
        who = f"{listed(drawing)} each predict" if len(drawing) > 1 else "The posterior predicts"
        lines.append(f"{who} with the mean of {networks}.")
    if data.ood_x is not None:
        lines.append(f"OOD AUROC: how well total uncertainty tells {data.ood_name} from test inputs; 0.5 is chance.")
    losses = {name: float(row["nll"] or 0) for name, row in measures.items()}
    single = {name: nll for name, nll in losses.items() if name not in drawing}
    if drawing and min(single.values(), default=0.0) > 0:
        one, many = min(single, key=losses.__getitem__), min(drawing, key=losses.__getitem__)
        change = losses[many] / losses[one] - 1
        by = f"{abs(change):.0%} {'lower' if change < 0 else 'higher'}"
        if len(losses) == 2:
            lines.append(f"Against one network the posterior's NLL is {by}.")
        else:
            lines.append(f"The best NLL of those that draw ({many}) is {by} than that of those that do not ({one}).")
        lines.append(
            f"One seed, {len(data.test_x):,} test inputs: another seed may say otherwise; see Results in the README."
        )
    return "\n".join(lines)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["ste", "bop", "filter"])
    'ste, bop and filter'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def report(
    recipe: Recipe, data: Dataset, seed: int, num_samples: int, outcomes: Mapping[str, Outcome], files: list[str]
) -> dict[str, Any]:
    """The content of report.json: plain numbers, strings and lists."""
    return {
        "methods": {name: outcome.measures for name, outcome in outcomes.items()},
        "data": data.name,
        "seed": seed,
        "settings": {
            **asdict(recipe),
            "num_samples": num_samples,
            "train": len(data.train_x),
            "test": len(data.test_x),
            "ood": data.ood_name or None,
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "varbnn": vb.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "history": {name: outcome.history for name, outcome in outcomes.items()},
        "files": files,
    }


def suggestions(
    data: str, data_dir: str | None, out: str, packed: Sequence[str] = (), activation: str | None = None
) -> str:
    """Three commands to go on with."""
    out = out.rstrip("/")
    again = "" if data == "digits" else f" --data {data}"
    again += "" if activation is None else f" --activation {activation}"
    again += "" if data_dir is None else f" --data-dir {shlex.quote(data_dir)}"
    if data == "moons":
        other = (f"varbnn demo --data digits --out {shlex.quote(out + '-digits')}", "handwritten digits")
    else:
        other = (
            f"varbnn demo{again} --samples 2 --out {shlex.quote(out + '-2')}",
            "how much the number of networks matters",
        )
    if packed:
        about = (f"varbnn info {shlex.quote(f'{out}/{packed[-1]}')}", "the sampled networks, 1 bit per weight")
    else:
        about = ("varbnn info", "versions, threads, optional extras")
    rows = [
        other,
        (f"varbnn demo{again} --seed 1 --samples 128 --out {shlex.quote(out + '-1')}", "another seed, more networks"),
        about,
    ]
    width = max(len(command) for command, _ in rows)
    return "\n".join(["Next:", *(f"  {command.ljust(width)}  {why}" for command, why in rows)])
