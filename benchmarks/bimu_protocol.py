"""Streams without boundaries: permuted MNIST as the authors of BiMU run it, in batches of 50.

    python benchmarks/bimu_protocol.py --data-dir DIR                       # 20 tasks, three seeds, every row
    python benchmarks/bimu_protocol.py --data-dir DIR --tasks 100 --seeds 1 --rows bimu tracked
    python benchmarks/bimu_protocol.py --data-dir DIR --validation --tasks 8 --rows ste --set lr=1e-3

784-100-10, layer norm without scale after both layers, units that open in both tails, one epoch per task, every task
permuted, one shared head, predictions of 5 networks. Results are written after every run, and what is there is not run
again. With --validation nothing but the numbers of a run on held-out training data is printed and kept: this is how
settings were chosen.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, kernels, machine, read, say, write
from torch import Tensor, nn
from torch.nn import functional as F

import varbnn as vb
from varbnn import continual, data

BATCH = 50
GUARD = 1e-7


@dataclass(frozen=True, repr=False)
class Guarded(vb.posteriors.Bernoulli):
    """Relaxed draws whose factor has a small number added above and below, as in the code of BiMU's authors.

    Without it the factor of a weight that is nearly decided has no bound.
    """

    def draw(self, *belief: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        value = belief[0].detach()
        noise = torch.empty_like(value).uniform_(generator=generator) if noise is None else noise
        weight = torch.tanh((value + torch.logit(noise) / 2) / self.relaxation)
        factor = (1 - weight**2 + GUARD) / (self.relaxation * (1 - torch.tanh(value) ** 2 + GUARD))
        return vb.posteriors.pull_back(weight, belief[0], factor)


EXACT = vb.posteriors.Bernoulli()
GUARDED = Guarded("concrete", relaxation=1.0)
RELAXED = vb.posteriors.Bernoulli("concrete", relaxation=1.0)
IN_LAMBDA = vb.posteriors.Bernoulli("concrete", relaxation=1.0, gradient="euclidean")
POINT = vb.posteriors.Point()
Settings = dict[str, Any]
Found = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A method with its settings; `optimizer` makes it from the model, the settings and the prior."""

    optimizer: Callable[[nn.Module, Settings, Any], torch.optim.Optimizer]
    settings: Settings
    posterior: vb.posteriors.Posterior = EXACT
    boundaries: bool = False
    gate: bool = True
    start: Callable[[nn.Module], None] = field(default=lambda model: None)


def pulled(model: nn.Module, s: Settings, prior: Any) -> torch.optim.Optimizer:
    """A step of s["lr"] and a pull of s["pull"] to the prior for every example, as shares of BayesBiNN."""
    return vb.optim.BayesBiNN(model.parameters(), lr=BATCH * s["pull"], dataset_size=s["lr"] / s["pull"], prior=prior)


def windowed(model: nn.Module, s: Settings, prior: Any) -> torch.optim.Optimizer:
    return vb.optim.WindowedBayes(model.parameters(), batch_size=BATCH, **s)


def following(model: nn.Module, s: Settings, prior: Any) -> torch.optim.Optimizer:
    return vb.optim.FollowingPrior(model.parameters(), batch_size=BATCH, **s)


def bimu(model: nn.Module, s: Settings, prior: Any) -> torch.optim.Optimizer:
    return vb.optim.BiMU(model.parameters(), batch_size=BATCH, **s)


def ste(model: nn.Module, s: Settings, prior: Any) -> torch.optim.Optimizer:
    return vb.optim.StraightThrough(model.parameters(), **s)


def metaplastic(model: nn.Module, s: Settings, prior: Any) -> torch.optim.Optimizer:
    return vb.optim.Metaplastic(model.parameters(), **s)


def start_uniform(model: nn.Module) -> None:
    """Natural parameters from U(±1 / √inputs), where the published code starts."""
    for _, layer in vb.nn.binary_layers(model):
        (natural,) = layer.belief
        nn.init.uniform_(natural, -1 / math.sqrt(natural.shape[1]), 1 / math.sqrt(natural.shape[1]))


PUBLISHED = dict(lr=4.9, likelihood_multiplier=161.3, kl_multiplier=3.76, lr_max=0.0023, memory=700)
ROWS = {
    "bimu": Row(bimu, PUBLISHED, IN_LAMBDA, start=start_uniform),
    "following": Row(following, dict(lr=1.15, window=5e5, settling=1e5)),
    "following, larger step": Row(following, dict(lr=1.5, window=5e5, settling=1e5)),
    "bayesbinn relaxed": Row(pulled, dict(lr=0.77, pull=9.6e-6), GUARDED, boundaries=True),
    "bayesbinn relaxed, no guard": Row(pulled, dict(lr=0.77, pull=9.6e-6), RELAXED, boundaries=True),
    "prior": Row(pulled, dict(lr=0.77, pull=9.6e-6), boundaries=True),
    "prior, larger step": Row(pulled, dict(lr=1.5, pull=9.6e-6), boundaries=True),
    "prior, stronger pull": Row(pulled, dict(lr=0.77, pull=3e-5), boundaries=True),
    "plain": Row(windowed, dict(lr=0.77, window=1e6, decay="plain")),
    "variance": Row(windowed, dict(lr=0.77, window=3e5, decay="variance")),
    "ste": Row(ste, dict(lr=1e-4, clip=None), POINT),
    "metaplastic": Row(metaplastic, dict(lr=1e-3, metaplasticity=3.0), POINT),
    "sign": Row(pulled, dict(lr=0.77, pull=9.6e-6), boundaries=True, gate=False),
}


def network(row: Row) -> nn.Sequential:
    hidden = vb.nn.Gate("bits", reverse=True) if row.gate else vb.nn.Sign()
    first, second = (nn.Linear(a, b, bias=False) for a, b in ((784, 100), (100, 10)))
    norms = (nn.LayerNorm(n, elementwise_affine=False) for n in (100, 10))
    model = nn.Sequential(first, next(norms), hidden, second, next(norms))
    vb.binarize(model, row.posterior)
    row.start(model)
    return model


def run(row: Row, settings: Settings, dataset: data.Dataset, tasks: int, seed: int, draws: Sequence[int]) -> Found:
    """One stream from its beginning to its end."""
    torch.manual_seed(seed)
    model, stream = network(row), continual.permuted(dataset, tasks, seed)
    tests = continual.permuted(tests_alone(dataset), tasks, seed)
    layers = [layer for _, layer in vb.nn.binary_layers(model)]
    start, newest, entropies, seconds = time.process_time(), [], [], []
    optimizer = row.optimizer(model, settings, 0.0)
    for number, task in enumerate(stream):
        if row.boundaries and number > 0:
            optimizer = row.optimizer(model, settings, vb.as_prior(model))
        seconds.append(learn(model, task, optimizer))
        newest.append(accuracies(model, tests[number], draws[:1], seed)[0])
        entropies.append([float(layer.distribution.entropy().detach().mean()) / math.log(2) for layer in layers])
    columns = zip(*(accuracies(model, task, draws, seed) for task in tests), strict=True)
    return {
        "newest": newest,
        "after": {str(number): list(column) for number, column in zip(draws, columns, strict=True)},
        "entropy_bits": entropies,
        "ood_auroc": foreign(model, tests, dataset, seed, draws) if dataset.ood_x is not None else {},
        "training_seconds": statistics.fmean(seconds),
        "seconds": time.process_time() - start,
    }


def learn(model: nn.Module, task: continual.Task, optimizer: torch.optim.Optimizer) -> float:
    """One epoch; the processor time it took. The loop of `continual.learn`, which judges more often than we need."""
    start = time.process_time()
    model.train()
    for part in torch.randperm(len(task)).split(BATCH):
        optimizer.zero_grad()
        F.cross_entropy(model(task.train_x[part]), task.train_y[part]).backward()
        optimizer.step()
    return time.process_time() - start


def tests_alone(dataset: data.Dataset) -> data.Dataset:
    """The data with hardly anything to train on, so that a task to be judged is quickly made."""
    x, y = dataset.test_x, dataset.test_y
    if dataset.val_x is not None and dataset.val_y is not None:
        x, y = dataset.val_x, dataset.val_y
    few_x, few_y = dataset.train_x[:BATCH], dataset.train_y[:BATCH]
    return dataclasses.replace(dataset, train_x=few_x, train_y=few_y, val_x=None, val_y=None, test_x=x, test_y=y)


def accuracies(model: nn.Module, task: continual.Task, draws: Sequence[int], seed: int) -> list[float]:
    """Accuracy of the first so many of the networks drawn, by the mean of their probabilities."""
    probs = vb.predict(model, task.test_x, max(draws), generator=torch.Generator().manual_seed(seed)).probs
    return [float((probs[:number].mean(0).argmax(1) == task.test_y).double().mean()) for number in draws]


def foreign(
    model: nn.Module, tests: continual.Stream, dataset: data.Dataset, seed: int, draws: Sequence[int]
) -> dict[str, float]:
    """AUROC of the newest task's test images against Fashion-MNIST, standardised and permuted like them."""
    assert dataset.ood_x is not None
    labels = torch.zeros(len(dataset.ood_x), dtype=torch.int64)
    clothes = dataclasses.replace(tests_alone(dataset), test_x=dataset.ood_x, test_y=labels)
    own, other = (stream[-1] for stream in (tests, continual.permuted(clothes, len(tests), seed)))
    familiar, strange = (
        vb.predict(model, task.test_x, max(draws), generator=torch.Generator().manual_seed(seed)).probs
        for task in (own, other)
    )
    found = {}
    for number in draws:
        for score in ("total", "epistemic"):
            one, two = vb.Prediction(familiar[:number]), vb.Prediction(strange[:number])
            found[f"{score}, {number}"] = vb.evaluate(one, own.test_y, ood=two, score=score)["ood_auroc"]
    return found


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    dataset = data.load("mnist", args.data_dir, validation=args.validation, ood="fashion")
    if args.validation:
        dataset = dataclasses.replace(dataset, ood_x=None)
    content = read(args.out)
    content.setdefault("runs", {})
    for name in args.rows:
        row = ROWS[name]
        settings = {**row.settings, **dict(args.set)}
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            key = f"{name}, {args.tasks} tasks, seed {seed}"
            if args.validation:
                key += f", validation, {settings}"
            if key in content["runs"]:
                continue
            part = "validation" if args.validation else "test"
            found = run(row, settings, dataset, args.tasks, seed, args.draws)
            about = {"row": name, "tasks": args.tasks, "seed": seed, "part": part, "settings": settings}
            content = read(args.out) or {"runs": {}}
            content["runs"][key] = {**about, **found, "machine": machine()}
            content |= {"machine": machine(), "kernels": kernels(), "batch": BATCH}
            write(args.out, content)
            say(key, summary(found))


def summary(found: Found) -> str:
    parts = [f"newest {100 * found['newest'][-1]:.1f}, bits {found['entropy_bits'][-1][0]:.2f}"]
    for draws, after in found["after"].items():
        last, many, every = (100 * statistics.fmean(after[-count:]) for count in (5, 20, len(after)))
        parts.append(f"{draws} draws {last:.2f} {many:.1f} {every:.1f}")
    parts += [f"{name} {value:.3f}" for name, value in found["ood_auroc"].items()]
    return ", ".join([*parts, f"{found['seconds']:.0f} s"])


def setting(text: str) -> tuple[str, Any]:
    name, value = text.split("=", 1)
    return name, ast.literal_eval(value)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder with mnist and fashion_mnist")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument(
        "--draws", type=int, nargs="+", default=[5, 20], help="networks a prediction asks; 5: published"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--validation", action="store_true", help="judge on held-out training data")
    parser.add_argument("--set", type=setting, nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS / "bimu-protocol.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
