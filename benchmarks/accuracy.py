"""Does a living posterior pay? Straight-through training against the Bernoulli posterior, same network, same budget.

    python benchmarks/accuracy.py --data digits
    python benchmarks/accuracy.py --data mnist --data-dir DIR --seeds 3

Settings are chosen on validation data: every method gets the same number of trials, each trial the same epochs, and the
trial with the lowest validation NLL wins. The winner is then trained on all training data with every seed and tested
once. Results are written after every run, and a run that is there already is not repeated, so the script can be stopped
and started again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn

import varbnn as vb
from varbnn import data

TUNING_SEEDS = {"digits": (100, 101, 102)}
SAMPLES = 16


@dataclass(frozen=True)
class Task:
    """A data set, the network on it and its budget."""

    widths: tuple[int, ...]
    epochs: int
    batch_size: int
    trials: dict[str, list[dict[str, float]]]


STE = [{"lr": lr, "real_lr": real_lr} for lr in (1e-3, 3e-3, 1e-2, 3e-2) for real_lr in (1e-3, 1e-2)]

TASKS = {
    "digits": Task(
        widths=(64, 256, 256, 10),
        epochs=100,
        batch_size=100,
        trials={
            "ste": STE,
            "posterior": [
                {"lr": lr, "temperature": temperature, "real_lr": 1e-2}
                for lr in (1e-3, 3e-3)
                for temperature in (1 / 10, 1 / 30, 1 / 100, 1 / 300)
            ],
        },
    ),
    "mnist": Task(
        widths=(784, 400, 400, 10),
        epochs=20,
        batch_size=100,
        trials={
            "ste": [{"lr": lr, "real_lr": r} for lr, r in ((1e-3, 1e-2), (3e-3, 1e-2), (1e-2, 1e-2), (3e-3, 1e-3))],
            "posterior": [
                {"lr": lr, "temperature": temperature, "real_lr": 1e-2}
                for lr, temperature in ((1e-4, 1 / 300), (3e-4, 1 / 300), (3e-4, 1 / 1000), (1e-3, 1 / 300))
            ],
        },
    ),
}
TASKS["fashion"] = TASKS["mnist"]


def network(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear, batch norm with scale (also after the head), ReLU."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(task: Task, method: str, settings: dict[str, float], x: Tensor, y: Tensor, seed: int) -> dict[str, Any]:
    """One run; the model is under "model"."""
    torch.manual_seed(seed)
    point = method == "ste"
    model = vb.binarize(network(task.widths), vb.posteriors.Point() if point else vb.posteriors.Bernoulli())
    if point:
        optimizer: vb.optim.Rule = vb.optim.StraightThrough(model.parameters(), **settings)
    else:
        optimizer = vb.optim.BayesBiNN(model.parameters(), dataset_size=len(x), **settings)
    loader = data.batches(x, y, task.batch_size, torch.Generator().manual_seed(seed))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.epochs)
    start = time.perf_counter()
    history = vb.fit(model, optimizer, loader, epochs=task.epochs, scheduler=schedule, progress=False)
    seconds = time.perf_counter() - start
    last = history[-1]
    return {"model": model, "seconds": seconds, "entropy_bits": last["entropy_bits"], "train_loss": last["loss"]}


def score(model: nn.Module, method: str, train_x: Tensor, x: Tensor, y: Tensor, ood: Tensor | None) -> dict[str, Any]:
    """The mode, and for a posterior the mean of draws; batch norm is re-estimated for both."""
    scores = {}
    for name, samples in (("mode", 0), *((("mean", SAMPLES),) if method == "posterior" else ())):
        generator = torch.Generator().manual_seed(0)
        pred = vb.predict(model, x, num_samples=samples, refresh_bn=train_x, generator=generator)
        foreign = None
        if ood is not None:
            generator = torch.Generator().manual_seed(0)
            foreign = vb.predict(model, ood, num_samples=samples, refresh_bn=train_x, generator=generator)
        scores[name] = {k: float(v) for k, v in vb.evaluate(pred, y, ood=foreign).items()}
    return scores


def predictor(method: str) -> str:
    """What a user of the method would predict with."""
    return "mean" if method == "posterior" else "mode"


def tune(args: argparse.Namespace, task: Task, results: dict[str, Any], path: Path) -> None:
    """Fill in the missing trials and name each method's best."""
    split = data.load(args.data, args.data_dir, validation=True)
    assert split.val_x is not None
    assert split.val_y is not None
    for method, trials in task.trials.items():
        done = results.setdefault("tuning", {}).setdefault(method, [])
        for settings in trials[len(done) :]:
            runs = []
            for seed in TUNING_SEEDS.get(args.data, (100,)):
                run = train(task, method, settings, split.train_x, split.train_y, seed)
                scores = score(run["model"], method, split.train_x, split.val_x, split.val_y, None)[predictor(method)]
                runs.append({"nll": scores["nll"], "accuracy": scores["accuracy"], "bits": run["entropy_bits"]})
            mean = {key: statistics.fmean(r[key] for r in runs) for key in runs[0]}
            done.append({"settings": settings, **mean})
            say(method, done[-1])
            write(path, results)
        best = min(done, key=lambda trial: trial["nll"])
        results.setdefault("chosen", {})[method] = best["settings"]
    write(path, results)


def final(args: argparse.Namespace, task: Task, results: dict[str, Any], path: Path) -> None:
    """Train the chosen settings on everything, with every seed, and test once."""
    whole = data.load(args.data, args.data_dir)
    for seed in range(args.seeds):
        for method in task.trials:
            runs = results.setdefault("runs", {}).setdefault(method, [])
            if any(run["seed"] == seed for run in runs):
                continue
            run = train(task, method, results["chosen"][method], whole.train_x, whole.train_y, seed)
            scores = score(run.pop("model"), method, whole.train_x, whole.test_x, whole.test_y, whole.ood_x)
            runs.append({"seed": seed, **run, **scores})
            say(method, runs[-1])
            write(path, results)


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of what each predictor scored."""
    table: dict[str, Any] = {}
    for method, runs in results["runs"].items():
        for name in [n for n in ("mode", "mean") if n in runs[0]]:
            row = {key: [run[name][key] for run in runs] for key in runs[0][name] if key != "num_samples"}
            row |= {"entropy_bits": [run["entropy_bits"] for run in runs], "seconds": [r["seconds"] for r in runs]}
            table[f"{method}, {name}"] = {
                key: {"mean": statistics.fmean(v), "sd": statistics.stdev(v) if len(v) > 1 else 0.0}
                for key, v in row.items()
            }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=sorted(TASKS), default="digits")
    parser.add_argument("--data-dir", help="where the files of mnist and fashion lie")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    task, path = TASKS[args.data], args.out or RESULTS / f"accuracy-{args.data}.json"
    results = read(path)
    results |= {"data": args.data, "machine": machine(), "num_samples": SAMPLES}
    results["network"] = {"widths": task.widths, "epochs": task.epochs, "batch_size": task.batch_size}
    tune(args, task, results, path)
    final(args, task, results, path)
    results["table"] = summarise(results)
    write(path, results)
    for name, row in results["table"].items():
        print(f"{name:16}", *(f"{key} {v['mean']:.4f} ± {v['sd']:.4f}" for key, v in row.items()), sep="  ")


if __name__ == "__main__":
    main()
