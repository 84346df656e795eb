"""The pictures of docs/continual.md: five permutations of the digits, learned in front of you in under a minute.

python docs/figures/continual.py
"""

from __future__ import annotations

import torch
from common import save

from varbnn import continual, data
from varbnn.cli.lifelong import network
from varbnn.cli.strategies import METHODS, Asked

WIDTHS, EPOCHS, BATCH_SIZE = (400,), 10, 50


def learned(stream: continual.Stream, name: str, norm: str) -> continual.Result:
    """As ``varbnn continual digits --method NAME`` does, judged with both kinds of batch-norm statistics."""
    torch.manual_seed(0)
    method = METHODS[name]
    strategy = method.strategy(Asked(method.settings, stream, 20, BATCH_SIZE, seed=0))
    return continual.learn(
        network(stream, WIDTHS, method.posterior, norm),
        stream,
        strategy,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        schedule=method.schedule,
        evaluation=continual.EvaluationPlan(20, ("task", "newest")),
    )


def main() -> None:
    torch.set_num_threads(1)
    stream = continual.permuted(data.load("digits"), tasks=5)
    batch = learned(stream, "prior", "batch").accuracy
    matrices = {
        "fine-tuning, layer norm": learned(stream, "finetune", "layer").accuracy["task"],
        "posterior as prior, layer norm": learned(stream, "prior", "layer").accuracy["task"],
        "posterior as prior, batch norm,\nnewest task's statistics": batch["newest"],
    }
    for name, matrix in {**matrices, "posterior as prior, batch norm, re-estimated": batch["task"]}.items():
        print(f"{' '.join(name.split())}: {continual.average_accuracy(matrix):.1%}")
    save(continual.plots.heat_map(matrices), "continual_heat_map.png")
    save(continual.plots.forgetting_curves(matrices), "continual_forgetting.png")


if __name__ == "__main__":
    main()
