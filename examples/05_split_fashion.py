"""What can be kept of two classes after another, when it is known which task is asked about, and when it is not?

Classes 0 and 1, then 2 and 3, … are learned one after the other by networks of ±1 weights: without any care, with
yesterday's posterior as today's prior, with a few stored examples of every task, with both. Three scenarios: each task
has a head of its own (task), all share one (domain), or every class must be told from all others (class).

    python examples/05_split_fashion.py                   scikit-learn's digits, about a minute
    python examples/05_split_fashion.py --data-dir DIR    Fashion-MNIST from DIR, some minutes
    python examples/05_split_fashion.py --smoke           a size for tests

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
    batch_size: int = 20
    lr: float = 2e-2
    temperature: float = 0.03
    strength: float = 3.0  # of the prior; 1 with replay, which remembers too
    ste_lr: float = 1e-3
    keep: int = 20  # stored examples of each task
    num_samples: int = 20
    folder: str = "varbnn-demo"


FASHION = dict(data="fashion", widths=(200,), epochs=3, batch_size=100, temperature=0.1, keep=200)
SMOKE = dict(tasks=2, widths=(16,), epochs=1, num_samples=2)
METHODS = ("fine-tuning", "posterior as prior", "replay", "posterior and replay")
SCENARIOS: tuple[continual.streams.Scenario, ...] = ("task", "domain", "class")


def network(stream: continual.Stream, posterior: vb.posteriors.Posterior, settings: Settings) -> nn.Module:
    """Everything that is learned is a binary weight: real parameters know no prior and would be forgotten.

    Layer norm, because batch norm would learn what is usual in a batch of two classes.
    """
    torch.manual_seed(settings.seed)
    widths = [stream.inputs, *settings.widths]
    hidden = [
        layer
        for a, b in itertools.pairwise(widths)
        for layer in (nn.Linear(a, b, bias=False), nn.LayerNorm(b, elementwise_affine=False), vb.nn.Tails())
    ]
    head = nn.Linear(widths[-1], stream.outputs, bias=False)
    scale = vb.nn.Scale(stream.outputs, 3.0 / widths[-1] ** 0.5).requires_grad_(False)  # logits of a usual size
    return vb.binarize(nn.Sequential(*hidden, head, scale), posterior)


def learned(stream: continual.Stream, method: str, settings: Settings) -> continual.Result:
    """All tasks, one after the other."""

    def bayes(model: nn.Module, task: continual.Task, prior: continual.strategies.Prior) -> vb.optim.BayesBiNN:
        own, cold = (p for p in model.parameters() if p.requires_grad), settings.temperature
        return vb.optim.BayesBiNN(own, settings.lr, dataset_size=len(task), temperature=cold, prior=prior)

    def plain(model: nn.Module, task: continual.Task) -> vb.optim.StraightThrough:
        return vb.optim.StraightThrough((p for p in model.parameters() if p.requires_grad), settings.ste_lr)

    living, replays = "posterior" in method, "replay" in method
    posterior = vb.posteriors.Bernoulli() if living else vb.posteriors.Point()
    strategy: continual.Strategy = continual.FineTune(plain)
    if living:
        strategy = continual.PosteriorAsPrior(bayes, 1.0 if replays else settings.strength)
    if replays:
        strategy = continual.Replay(strategy, continual.Coreset(settings.keep, "random", seed=settings.seed))
    return continual.learn(
        network(stream, posterior, settings),
        stream,
        strategy,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        schedule=CosineAnnealingLR,
        evaluation=continual.EvaluationPlan(settings.num_samples),
        seed=settings.seed,
        progress=False,
    )


def draw(matrices: dict[str, Tensor], settings: Settings) -> str | None:
    """One heat-map for every scenario and method."""
    path = Path(settings.folder) / "05_split_fashion.png"
    try:
        drawing = continual.plots.heat_map(matrices)
    except MissingExtraError as missing:
        print(missing)
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=150)
    return str(path)


def main(settings: Settings) -> dict[str, object]:
    start = time.perf_counter()
    torch.set_num_threads(1)
    try:
        dataset = data.load(settings.data, settings.data_dir)
    except MissingExtraError as missing:
        raise SystemExit(str(missing)) from None
    streams = {scenario: continual.split(dataset, 2, scenario)[: settings.tasks] for scenario in SCENARIOS}
    print(f"{dataset}\naccuracy on all tasks in the end (right after each was learned)\n")
    print(" " * 20 + "".join(f"{scenario:>18}" for scenario in SCENARIOS))
    matrices: dict[str, Tensor] = {}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for method in METHODS:
        found[method], cells = {}, []
        for scenario, stream in streams.items():
            result = learned(stream, method, settings)
            matrices[f"{method} ({scenario})"] = result.accuracy["task"]
            scores = continual.all_scores(result.accuracy["task"])
            cells.append(f"{scores['average_accuracy']:.1%} ({scores['learning_accuracy']:.1%})")
            found[method][scenario] = {key: round(value, 4) for key, value in scores.items()}
            found[method][scenario]["bytes_kept"] = result.history[-1]["bytes_kept"]
        print(f"{method:<20}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    figure = draw(matrices, settings)
    return {"data": settings.data, "scores": found, "figure": figure, "seconds": round(time.perf_counter() - start, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="of Fashion-MNIST's files; without it the digits are scikit-learn's")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    chosen = Settings() if given.data_dir is None else Settings(data_dir=given.data_dir, **FASHION)
    print(json.dumps(main(replace(chosen, **SMOKE) if given.smoke else chosen)))
