"""The tables of docs/methods/vispa.md, and how far the small replication is from the prototype."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

PROTOTYPE = {
    "1W1A K=0": (97.08, 97.08, 97.08),
    "1W1A K=2": (96.66, 97.55, 97.22),
    "1W1A K=4": (96.65, 97.73, 97.55),
    "1W1A K=8": (96.05, 97.59, 97.22),
    "1W32A K=0": (97.69, 97.69, 97.69),
    "1W32A K=4": (97.51, 98.15, 97.64),
    "1W32A K=8": (96.61, 97.27, 97.13),
    "1W32A K=4, unit, lr 0.1": (None, 90.5, None),
    "1W32A K=4, unit, lr 0.5": (None, 95.6, None),
    "1W32A K=4, unit, lr 4": (None, 98.3, None),
    "1W32A K=4, unit, lr 30": (None, 97.6, None),
    "1W32A K=4, released start": (97.51, 98.15, 97.64),
    "1W32A K=4, unit, lr 4, released start": (None, 98.3, None),
}
"""Accuracy of a single draw, of the vote of 40 and of the mode, each a mean of 4 seeds, of our first implementation."""

THEIR_SEEDS = 4
KINDS = ("single", "ensemble", "mode")
Row = dict[str, Any]


def standard_error(seeds: Sequence[float], splits: Sequence[float]) -> float:
    """Of the difference between the mean of `splits`, a seed each, and a mean of four seeds on one other split.

    With b² the variance between splits and w² that between seeds on a split, theirs has the variance b² + w² / 4 and
    ours (b² + w²) / n. The n values of `splits` estimate b² + w², those of `seeds`, all on one split, w².

    >>> round(standard_error([1.0, 1.0, 1.0], [0.0, 2.0]), 3)  # b² = 2, w² = 0: √(2 + 2 / 2)
    1.732
    """
    total, within = statistics.variance(splits), statistics.variance(seeds)
    between = max(total - within, 0.0)
    return float((between + within / THEIR_SEEDS + total / len(splits)) ** 0.5)


def _values(part: Row, name: str, kind: str) -> tuple[list[float], list[float]]:
    """Over the seeds on one split, and over the splits, of which the first is that one with its first seed."""
    seeds, others = part["runs"][name], part["splits"][name]
    first = [run for run in seeds if run["seed"] == 0]
    return [run[kind] for run in seeds], [run[kind] for run in first + others]


def _less(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(ones, others, strict=True)]


def _cells(part: Row, name: str, base: str | None) -> tuple[list[str], list[str], list[str]]:
    """Ours, theirs and the distance, of the kinds in turn; less those of `base` on the same split and seed."""
    ours, theirs, apart = [], [], []
    for kind, number in zip(KINDS, PROTOTYPE[name], strict=True):
        seeds, splits = _values(part, name, kind)
        if base is not None:
            less_seeds, less_splits = _values(part, base, kind)
            seeds, splits = _less(seeds, less_seeds), _less(splits, less_splits)
            least = PROTOTYPE[base][KINDS.index(kind)]
            number = None if number is None or least is None else number - least
        sign = "" if base is None else "+"
        mean = statistics.fmean(splits)
        ours.append(f"{mean:{sign}.2f} ± {statistics.stdev(splits):.2f}")
        theirs.append("–" if number is None else f"{number:{sign}.2f}")
        apart.append("–" if number is None else f"{(mean - number) / standard_error(seeds, splits):+.1f}")
    return ours, theirs, apart


def toy_table(results: Row) -> str:
    """Mean ± standard deviation over splits, beside the prototype's means and their distances."""
    part = results["toy"]
    splits = 1 + min(len(own) for own in part["splits"].values())
    lines = [
        f"| weights, activations, rank; {splits} splits | one draw | vote of 40 | mode | median σ/\\|m\\| "
        "| prototype | standard errors apart |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in part["table"].items():
        ours, theirs, apart = _cells(part, name, None)
        shown = [*ours, f"{row['median_spread']['mean']:.2f}", " / ".join(theirs), " / ".join(apart)]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def factors_table(results: Row) -> str:
    """What the factors add to rank 0 on the same split, ours and the prototype's."""
    part = results["toy"]
    lines = [
        "| less rank 0 on the same split | one draw | vote of 40 | mode | prototype | standard errors apart |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in PROTOTYPE:
        base = name.split()[0] + " K=0"
        if name != base:
            ours, theirs, apart = _cells(part, name, base)
            lines.append(f"| {name} | {' | '.join([*ours, ' / '.join(theirs), ' / '.join(apart)])} |")
    return "\n".join(lines)


VOTERS = {
    "vispa": "VISPA, rank 4, draws",
    "no factors": "VISPA, rank 0, snapshots",
    "ste": "StraightThrough (Adam), snapshots",
    "bayesbinn": "BayesBiNN, draws",
}


def equal_table(results: Row) -> str:
    """Accuracy and NLL of the mode, one network, all together and the best one, and what the vote gains."""
    part, columns = results["equal"], ("mode", "single", "ensemble", "best", "gain")
    seeds = max(len(own) for own in part["runs"].values())
    votes = results["num_samples"]
    head = (
        f"| {seeds} seeds | lr; of batch norms | mode or last | one network | vote of {votes} | best | vote less one |"
    )
    lines = [head, "|---|---:|---:|---:|---:|---:|---:|"]
    for name, title in VOTERS.items():
        row, rates = part["table"][name], part["chosen"][name]
        cells = [
            f"{row[k]['accuracy']['mean']:{sign}.2f} ± {row[k]['accuracy']['sd']:.2f}<br>"
            f"{row[k]['nll']['mean']:{sign}.4f} ± {row[k]['nll']['sd']:.4f}"
            for k, sign in zip(columns, ("", "", "", "", "+"), strict=True)
        ]
        lines.append(f"| {title} | {rates['lr']:g}; {rates['real_lr']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def trials_table(results: Row) -> str:
    """Validation NLL of the vote in every trial, the rates in ascending order."""
    lines = ["| validation NLL of the vote | lr; of batch norms: NLL |", "|---|---|"]
    for name, title in VOTERS.items():
        trials = sorted(results["equal"]["tuning"][name], key=lambda trial: (trial["real_lr"], trial["lr"]))
        shown = [f"{trial['lr']:g}; {trial['real_lr']:g}: {trial['val_nll']:.4f}" for trial in trials]
        lines.append(f"| {title} | {', '.join(shown)} |")
    return "\n".join(lines)


def page(digits: Row, *others: tuple[str, Row]) -> dict[str, str]:
    """Every table by the name of its marker."""
    made = {"vispa-toy": toy_table(digits), "vispa-factors": factors_table(digits)}
    for suffix, results in (("", digits), *((f"-{name}", results) for name, results in others)):
        made[f"vispa-equal{suffix}"] = equal_table(results)
        made[f"vispa-trials{suffix}"] = trials_table(results)
    return made
