"""The pictures of docs/streams.md, drawn from benchmarks/results/bimu-protocol.json.

python docs/figures/streams.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, save
from torch import Tensor

from varbnn.continual import plots

OF_20 = {
    "following": "FollowingPrior",
    "variance": "variance leak",
    "plain": "plain leak",
    "bimu": "BiMU",
    "prior, stronger pull": "posterior as prior (boundaries)",
    "bayesbinn relaxed": "BayesBiNN, relaxed (boundaries)",
}
OF_100 = {name: OF_20[name] for name in ("following", "plain", "bimu")}


def runs(results: dict[str, Any], row: str, tasks: int) -> list[dict[str, Any]]:
    return [r for r in results["runs"].values() if (r["row"], r["tasks"], r["part"]) == (row, tasks, "test")]


def matrix(run: dict[str, Any], draws: int) -> Tensor:
    """What was measured: each task when it was the newest, and all at the end."""
    made = torch.diag(torch.tensor(run["newest"], dtype=torch.float64))
    made[made == 0] = torch.nan
    made[-1] = torch.tensor(run["after"][str(draws)])
    return made


def forgetting(results: dict[str, Any], names: dict[str, str], tasks: int, draws: int) -> Any:
    found = {title: [matrix(run, draws) for run in runs(results, name, tasks)] for name, title in names.items()}
    return plots.forgetting_curves({title: torch.stack(made) for title, made in found.items() if made}, "age")


def entropy(results: dict[str, Any], names: dict[str, str], tasks: int) -> Any:
    """Of the first layer, the first seed."""
    found = {title: runs(results, name, tasks) for name, title in names.items()}
    return plots.entropy_over_tasks(
        {title: [bits[0] for bits in made[0]["entropy_bits"]] for title, made in found.items() if made}
    )


if __name__ == "__main__":
    file = Path(sys.argv[1]) if sys.argv[1:] else RESULTS / "bimu-protocol.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    save(forgetting(content, OF_20, 20, 20), "streams_forgetting.png")
    save(entropy(content, OF_100, 100), "streams_entropy.png")
