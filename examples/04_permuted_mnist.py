"""Does a binary network still know the first task after the fifth? Yesterday's posterior is today's prior.

Five times the same digits, each time with the pixels in another order, learned one after the other. One network does
nothing about forgetting, another hands its posterior on. A third does so with batch norm, and is asked with statistics
re-estimated from inputs of the task in question, and with those of the newest task, which belong to no other.

    python examples/04_permuted_mnist.py                   scikit-learn's digits, under a minute
    python examples/04_permuted_mnist.py --data-dir DIR    MNIST from DIR, some minutes
    python examples/04_permuted_mnist.py --smoke           a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn import continual, data
from varbnn.errors import MissingExtraError


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed. `lr`, temperature and strength were chosen on validation data."""

    seed: int = 0
    data: str = "digits"
    data_dir: str | None = None
    tasks: int = 5
    widths: tuple[int, ...] = (400,)
    epochs: int = 10
    batch_size: int = 50
    lr: float = 2e-2
    temperature: float = 0.1
    strength: float = 2.0
    ste_lr: float = 1e-3
    num_samples: int = 20
    folder: str = "varbnn-demo"


MNIST = dict(data="mnist", widths=(100, 100), epochs=5, batch_size=200, lr=1e-2, temperature=1.0, strength=1.5)
SMOKE = dict(tasks=2, widths=(16,), epochs=1, num_samples=2)


def network(stream: continual.Stream, posterior: vb.posteriors.Posterior, norm: str, settings: Settings) -> nn.Module:
    """Everything that is learned is a binary weight: real parameters know no prior and would be forgotten."""
    torch.manual_seed(settings.seed)
    normed, options, unit = {
        "layer": (nn.LayerNorm, {"elementwise_affine": False}, vb.nn.Tails),
        "batch": (nn.BatchNorm1d, {"affine": False}, nn.ReLU),
    }[norm]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise([stream.inputs, *settings.widths, stream.outputs]):
        layers += [nn.Linear(a, b, bias=False), normed(b, **options), unit()]
    layers[-1] = vb.nn.Scale(stream.outputs, 3.0).requires_grad_(False)  # normalised logits are never sure
    return vb.binarize(nn.Sequential(*layers), posterior)


def learned(stream: continual.Stream, method: str, norm: str, settings: Settings) -> continual.Result:
    """All tasks, one after the other."""

    def bayes(model: nn.Module, task: continual.Task, prior: continual.strategies.Prior) -> vb.optim.BayesBiNN:
        own, cold = (p for p in model.parameters() if p.requires_grad), settings.temperature
        return vb.optim.BayesBiNN(own, settings.lr, dataset_size=len(task), temperature=cold, prior=prior)

    def plain(model: nn.Module, task: continual.Task) -> vb.optim.StraightThrough:
        return vb.optim.StraightThrough((p for p in model.parameters() if p.requires_grad), settings.ste_lr)

    posterior: vb.posteriors.Posterior = vb.posteriors.Bernoulli()
    strategy: continual.Strategy = continual.PosteriorAsPrior(bayes, settings.strength)
    if method == "fine-tuning":
        strategy, posterior = continual.FineTune(plain), vb.posteriors.Point()
    return continual.learn(
        network(stream, posterior, norm, settings),
        stream,
        strategy,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        schedule=CosineAnnealingLR,
        evaluation=continual.EvaluationPlan(settings.num_samples, ("task", "newest")),
        seed=settings.seed,
    )


def draw(matrices: dict[str, Tensor], settings: Settings) -> str | None:
    """One heat-map for every network."""
    path = Path(settings.folder) / "04_permuted_mnist.png"
    try:
        drawing = continual.plots.heat_map(matrices)
    except MissingExtraError as missing:
        print(missing)
        return None
    path.parent.mkdir(exist_ok=True)
    drawing.savefig(path, dpi=150)
    return str(path)


def main(settings: Settings) -> dict[str, object]:
    start = time.perf_counter()
    torch.set_num_threads(1)
    try:
        stream = continual.permuted(data.load(settings.data, settings.data_dir), settings.tasks, settings.seed)
    except MissingExtraError as missing:
        raise SystemExit(str(missing)) from None
    print(stream)
    forgetful = learned(stream, "fine-tuning", "layer", settings)
    living = learned(stream, "posterior as prior", "layer", settings)
    batch = learned(stream, "posterior as prior", "batch", settings)
    matrices = {
        "fine-tuning": forgetful.accuracy["task"],
        "posterior as prior": living.accuracy["task"],
        "with batch norm, re-estimated": batch.accuracy["task"],
        "with batch norm of the newest task": batch.accuracy["newest"],
    }
    scores = {name: continual.all_scores(matrix) for name, matrix in matrices.items()}
    print(f"\n{'':<36}{'accuracy':>9}{'when learned':>14}{'forgotten':>11}")
    for name, row in scores.items():
        cells = [row[key] for key in ("average_accuracy", "learning_accuracy", "forgetting")]
        print(f"{name:<36}{cells[0]:>9.1%}{cells[1]:>14.1%}{cells[2]:>11.1%}")
    full = continual.capacity(living)
    print(f"\n{full}\n{full.warning or 'there is room for more'}")
    figure = draw({name: matrix for name, matrix in matrices.items() if "re-estimated" not in name}, settings)
    return {
        "data": settings.data,
        "scores": {name: {key: round(value, 4) for key, value in row.items()} for name, row in scores.items()},
        "entropy_bits": [round(row["entropy_bits"], 4) for row in living.history],
        "figure": figure,
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="of MNIST's files; without it the digits are scikit-learn's")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    chosen = Settings() if given.data_dir is None else Settings(data_dir=given.data_dir, **MNIST)
    print(json.dumps(main(replace(chosen, **SMOKE) if given.smoke else chosen)))
