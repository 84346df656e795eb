"""What came of a stream: pictures, scores, and what is said of them."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from varbnn import continual
from varbnn.errors import MissingExtraError
from varbnn.predict.style import SHARPNESS
from varbnn.text import percent, size, table

TITLES = {"task": "own statistics", "newest": "newest task's", "running": "as trained"}
"""Of matrices, by whose inputs the batch-norm statistics come from."""


def scores(result: continual.Result, protocol: str) -> dict[str, float]:
    """All of them by name; forward transfer where the untrained network was judged."""
    untrained = result.untrained.get(protocol)
    return continual.all_scores(result.accuracy[protocol], baseline=untrained)


def draw(folder: Path, result: continual.Result) -> None:
    """The heat-map, the forgetting curves and, of a posterior, its entropy, where matplotlib is installed."""
    named = {TITLES[name] if len(result.accuracy) > 1 else "": matrix for name, matrix in result.accuracy.items()}
    numbered = all(name.startswith("permutation") for name in result.tasks)  # then numbers say as much
    tasks = None if numbered else result.tasks
    try:
        figures = {
            "heat_map.png": continual.plots.heat_map(named, tasks=tasks),
            "forgetting.png": continual.plots.forgetting_curves(named, tasks=tasks),
        }
        if draws(result):
            figures["entropy.png"] = continual.plots.entropy_over_tasks(result.history)
        for name, figure in figures.items():
            figure.savefig(folder / name, dpi=SHARPNESS)
    except MissingExtraError as error:
        print(f"No pictures: {error}")


def draws(result: continual.Result) -> bool:
    """Whether its network was a posterior over binary weights."""
    divergence = result.history[-1].get("kl")
    return divergence is not None and not math.isnan(divergence)  # a point has none; JSON writes it as null


def found(result: continual.Result) -> str:
    """Accuracies and scores, and how full the network is."""
    last = len(result.tasks) - 1
    matrices = result.accuracy.values()
    titles = [TITLES[name] for name in result.accuracy] if len(result.accuracy) > 1 else ["accuracy"]
    rows = [["in the end", *titles]]
    for number, task in enumerate(result.tasks):
        rows.append([task, *(percent(float(matrix[last, number])) for matrix in matrices)])
    measured = [scores(result, name) for name in result.accuracy]
    rows += [["", *("" for _ in titles)]]
    rows += [[name.replace("_", " "), *(shown(own[name]) for own in measured)] for name in measured[0]]
    lines = [table(rows)]
    if draws(result):
        full = continual.capacity(result)
        lines.append(f"capacity  {full}")
        if full.warning:
            lines += textwrap.wrap(f"warning   {full.warning}", 100, subsequent_indent=" " * 10)
    lines.append(f"memory    {size(result.history[-1]['bytes_kept'])} kept from task to task, beside the network")
    return "\n".join(lines)


def shown(score: float) -> str:
    """
    >>> shown(0.5), shown(math.nan)
    ('50.00%', '-')
    """
    return "-" if math.isnan(score) else percent(score)  # after one task nothing can be forgotten
