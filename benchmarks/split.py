"""Split MNIST and Fashion-MNIST in three scenarios: posterior as prior beside what is used instead.

    python benchmarks/split.py --data-dir DIR

Five tasks of two classes, 784-100-100-outputs, 2,000 training images per task, 5 epochs of batches of 100, a cosine for
every method. 10,000 other training images are kept aside: each method's settings are chosen on those of MNIST, three
trials per scenario, and used for both data sets. Then every seed is learned and tested once.

Results are written after every run and a run that is there is not repeated, so the script can be stopped and started.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from split_methods import ABLATED, METHODS, ROUNDED, STORED, Method, Settings

from varbnn import continual
from varbnn.cli.lifelong import falling
from varbnn.continual import EvaluationPlan
from varbnn.data import Dataset, load

SCENARIOS = ("task", "domain", "class")
DATA = ("mnist", "fashion")
TUNED_ON, TUNING_SEED = "mnist", 100
PER_CLASS, EPOCHS, BATCH, SAMPLES = 1000, 5, 100, 20
Results = dict[str, Any]


def images(name: str, data_dir: str) -> Dataset:
    """As many training images of every class on average as are learned from; the validation part stays whole."""
    data = load(name, data_dir, validation=True)
    chosen = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(0))[: 10 * PER_CLASS]
    return replace(data, train_x=data.train_x[chosen], train_y=data.train_y[chosen])


def learned(data: Dataset, scenario: Any, method: Method, settings: Settings, seed: int, part: Any) -> Results:
    """One stream, from a fresh network to its scores."""
    stream = continual.split(data, scenario=scenario)
    torch.manual_seed(seed)
    model = method.network(stream.outputs, settings)
    final, start = part == "test", time.process_time()
    result = continual.learn(
        model,
        stream,
        method.strategy(settings, stream),
        epochs=EPOCHS,
        batch_size=BATCH,
        schedule=falling,
        evaluation=EvaluationPlan(SAMPLES if final else 10, part=part, tasks="newest"),
        seed=seed,
        progress=False,
    )
    accuracy = result.accuracy["task"]
    row: Results = {
        "seed": seed,
        "settings": settings,
        "accuracy": round(continual.average_accuracy(accuracy), 5),
        "learned": round(float(accuracy.diagonal().mean()), 5),
        "nll": round(float(result.nll["task"][-1].mean()), 4),
        "ece": round(float(result.ece["task"][-1].mean()), 4),
        "bytes_kept": int(max(strategy_row["bytes_kept"] for strategy_row in result.history)),
        "entropy_bits": [round(r["entropy_bits"], 3) for r in result.history if "entropy_bits" in r],
        "cpu_seconds": round(time.process_time() - start, 1),
    }
    row["last"] = [round(value, 4) for value in accuracy[-1].tolist()]
    return row


def tune(data: Dataset, results: Results, path: Path, only: str) -> None:
    """Every method's trials in every scenario, and its best."""
    for scenario, (name, method) in product(SCENARIOS, METHODS.items()):
        if only not in name:
            continue
        done = results.setdefault("tuning", {}).setdefault(scenario, {}).setdefault(name, [])
        seeds = range(TUNING_SEED, TUNING_SEED + (1 if scenario == "task" else method.tuned))
        for settings, seed in product(method.trials(scenario), seeds):
            if not any((row["settings"], row["seed"]) == (settings, seed) for row in done):
                done.append(learned(data, scenario, method, settings, seed, "validation"))
                say(scenario, name, settings, done[-1]["accuracy"], done[-1]["learned"], done[-1]["cpu_seconds"])
                write(path, results)
        results.setdefault("chosen", {}).setdefault(scenario, {})[name] = best(done)
    write(path, results)


def best(done: list[Results]) -> Settings:
    """Those of the highest mean over their seeds."""
    means: list[tuple[float, Settings]] = []
    for row in done:
        own = [other["accuracy"] for other in done if other["settings"] == row["settings"]]
        means.append((statistics.fmean(own), row["settings"]))
    return max(means, key=lambda pair: pair[0])[1]


def ablate(data: Dataset, results: Results, path: Path) -> None:
    """Ours with one thing changed, on validation data."""
    for scenario, (name, change) in product(("task", "domain"), ABLATED.items()):
        done = results.setdefault("ablation", {}).setdefault(scenario, {})
        if name not in done:
            settings = {**results["chosen"][scenario]["posterior"], **change}
            done[name] = learned(data, scenario, METHODS["posterior"], settings, TUNING_SEED, "validation")
            say(scenario, name, done[name]["accuracy"], done[name]["learned"])
            write(path, results)


def runs(results: Results, only: str) -> Iterator[tuple[str, str, Method, Settings]]:
    """Scenario, name, method and settings of everything that is tested."""
    for scenario in SCENARIOS:
        for name, method in METHODS.items():
            if only in name:
                yield scenario, name, method, results["chosen"][scenario][name]


def rounded_runs(results: Results, only: str) -> Iterator[tuple[str, str, Method, Settings]]:
    """The same of ours with a posterior of fewer bits, where there is something to lose."""
    for scenario, (name, rounding) in product(("task", "domain"), ROUNDED.items()):
        if only in name:
            yield scenario, name, METHODS["posterior"], {**results["chosen"][scenario]["posterior"], **rounding}


def final(data: Dataset, name: str, results: Results, path: Path, seed: int, every: Iterator[Any]) -> None:
    """The chosen settings with one seed, each tested once."""
    for scenario, title, method, settings in every:
        done = results.setdefault("runs", {}).setdefault(name, {}).setdefault(scenario, {}).setdefault(title, [])
        done[:] = [row for row in done if row["settings"] == settings]
        if not any(row["seed"] == seed for row in done):
            done.append(learned(data, scenario, method, settings, seed, "test"))
            say(name, scenario, title, seed, done[-1]["accuracy"], done[-1]["learned"], done[-1]["cpu_seconds"])
            write(path, results)


def summarise(results: Results) -> None:
    """Mean and standard deviation over the seeds."""
    table: Results = {}
    for name, scenarios in results["runs"].items():
        for scenario, methods in scenarios.items():
            for title, done in methods.items():
                row: Results = {"seeds": len(done), "bytes_kept": done[0]["bytes_kept"]}
                for key in ("accuracy", "learned", "nll", "ece"):
                    values = [run[key] for run in done]
                    spread = statistics.stdev(values) if len(values) > 1 else 0.0
                    row[key] = {"mean": statistics.fmean(values), "sd": spread}
                table.setdefault(name, {}).setdefault(scenario, {})[title] = row
    results["table"] = table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="where mnist.npz and fashion_mnist.npz lie")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="methods whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS / "split.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    setting = {"per_class": PER_CLASS, "stored": STORED, "epochs": EPOCHS, "batch_size": BATCH, "num_samples": SAMPLES}
    results = {"machine": machine(), "setting": setting} | read(args.out)
    tune(images(TUNED_ON, args.data_dir), results, args.out, args.only)
    ablate(images(TUNED_ON, args.data_dir), results, args.out)
    loaded = {name: images(name, args.data_dir) for name in DATA}
    for seed in range(args.seeds):
        final(loaded["mnist"], "mnist", results, args.out, seed, runs(results, args.only))
    for seed in range(args.seeds):
        final(loaded["mnist"], "mnist", results, args.out, seed, rounded_runs(results, args.only))
    for seed in range(args.seeds):
        final(loaded["fashion"], "fashion", results, args.out, seed, runs(results, args.only))
    summarise(results)
    write(args.out, results)


if __name__ == "__main__":
    main()
