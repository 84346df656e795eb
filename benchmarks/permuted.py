"""Permuted MNIST: what is left of the earlier tasks, by method; 784-100-100-10, one shared head of ten outputs.

    python benchmarks/permuted.py --data-dir DIR STAGE ...

Stages: ``tune`` (5 tasks of 5 epochs, judged on the validation split), ``main`` (5 tasks of 20 epochs), ``slow`` (the
published settings with all their 100 epochs), ``ten`` (10 tasks of 5 epochs), ``long`` (100 tasks of one epoch) and
``curve`` (as ``tune``, one setting of the posterior varied at a time). Settings are chosen in ``tune`` and used by all
others. A run that is there is not repeated, and one that was interrupted goes on from its last state, so the script can
be stopped and started.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from permuted_methods import METHODS, Method, Settings
from record import RESULTS, machine, read, say, write
from torch import Tensor

import varbnn as vb
from varbnn import continual
from varbnn.cli.lifelong import falling
from varbnn.continual import EvaluationPlan
from varbnn.data import Dataset, load

TUNING_SEED = 100
PROTOCOLS = ("task", "newest")


@dataclass(frozen=True)
class Size:
    """A stream: so many tasks of so many epochs, for these seeds and methods, in batches of another size if given."""

    tasks: int
    epochs: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    draws: int = 20
    batch: int | None = None


OURS = ("posterior, layer norm", "posterior, batch norm")
SIZES = {
    "main": Size(
        5,
        20,
        (0, 1, 2),
        (*OURS, "fine-tuning", "online ewc"),
    ),
    "others": Size(5, 20, (0, 1, 2), ("joint, posterior", "joint, float", "published", "metaplastic", "mean field")),
    "slow": Size(5, 20, (0, 1, 2), ("published, 100 epochs",)),
    "ten": Size(10, 5, (0, 1, 2), ("posterior, 10 tasks", "online ewc", "fine-tuning"), batch=256),
    "long": Size(100, 1, (0,), ("posterior, 100 tasks", "online ewc", "fine-tuning"), draws=5, batch=256),
}
CENTRE = {"norm": "layer", "lr": 2e-2, "late": 0.3, "temperature": 1.0, "strength": 1.5}
"""Where the curve varies one setting at a time."""
CURVE: dict[str, tuple[float, ...]] = {
    "strength": (1.0, 3.0),
    "temperature": (3.0, 0.2),
    "lr": (5e-3,),
    "late": (0.0,),
}


def learned(
    data: Dataset, method: Method, settings: Settings, size: Size, seed: int, part: str, checkpoint: Path | None
) -> dict[str, Any]:
    """One stream: accuracy, NLL and ECE by protocol and task, and what happened on the way."""
    torch.manual_seed(seed)
    stream = continual.permuted(data, tasks=size.tasks, seed=seed)
    model = method.network(settings)
    start = time.process_time()
    final = part == "test"
    evaluation = EvaluationPlan(
        num_samples=size.draws,
        batchnorm=PROTOCOLS,
        part="test" if final else "validation",
        tasks="newest",
    )
    if method.joint:
        scores = all_at_once(data, model, method, settings, size, stream, evaluation, seed)
    else:
        result = continual.learn(
            model,
            stream,
            method.strategy(settings),
            epochs=size.epochs * method.epochs,
            batch_size=settings.get("batch", size.batch or method.batch_size),
            schedule=falling,
            evaluation=evaluation,
            seed=seed,
            checkpoint=checkpoint,
            progress=False,
        )
        scores = {key: value for key, value in result.as_dict().items() if key not in ("stream", "size", "tasks")}
    return {
        "seed": seed,
        "settings": settings,
        **rounded(slim(scores)),
        "cpu_seconds": round(time.process_time() - start),
    }


class Mixed:
    """Batches of all tasks in random order, each of one task, so that batch norm sees one kind of input at a time."""

    def __init__(self, data: Dataset, tasks: int, batch_size: int, seed: int) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, torch.Generator().manual_seed(seed)
        numbers = torch.arange(data.train_x.shape[1], dtype=torch.float32)[None]
        one = replace(data, train_x=numbers, train_y=data.train_y[:1], test_x=numbers, test_y=data.train_y[:1])
        one = replace(one, val_x=None, val_y=None)
        # an image whose pixels are their own numbers tells each task's order
        self.orders = [task.train_x[0].long() for task in continual.permuted(one, tasks, seed)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.data.train_y)
        parts = [
            (number, part)
            for number in range(len(self.orders))
            for part in torch.randperm(count, generator=self.generator).split(self.batch_size)
        ]
        for index in torch.randperm(len(parts), generator=self.generator).tolist():
            number, part = parts[index]
            yield self.data.train_x[part].index_select(1, self.orders[number]), self.data.train_y[part]


def all_at_once(
    data: Dataset,
    model: torch.nn.Module,
    method: Method,
    settings: Settings,
    size: Size,
    stream: continual.Stream,
    evaluation: EvaluationPlan,
    seed: int,
) -> dict[str, Any]:
    """The ceiling: all tasks are there from the beginning, and stay."""
    loader = Mixed(data, len(stream), method.batch_size, seed)
    whole = range(len(data.train_y) * len(stream))  # only its length is asked for
    strategy = method.strategy(settings)
    optimizer = strategy.begin(model, whole, 0)  # type: ignore[arg-type]
    every = falling(optimizer, size.epochs)
    vb.fit(model, optimizer, loader, epochs=size.epochs, scheduler=every, progress=False)
    found: dict[str, list[float]] = {"accuracy": [], "nll": [], "ece": []}
    for number, task in enumerate(stream):
        x, y = (task.test_x, task.test_y) if evaluation.part == "test" else (task.val_x, task.val_y)
        generator = torch.Generator().manual_seed(1000 * seed + number)
        refresh = task.train_x[: evaluation.refresh]
        prediction = strategy.predict(model, x, evaluation.num_samples, refresh, generator)
        for name, value in vb.evaluate(prediction, y).items():
            if name in found:
                found[name].append(value)
    return {name: {"task": [values]} for name, values in found.items()}


def rounded(value: Any) -> Any:
    """Numbers with as many digits as say something."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def slim(scores: dict[str, Any]) -> dict[str, Any]:
    """Of long streams only what was measured: the diagonal of each matrix, and its last row."""
    for name in ("accuracy", "nll", "ece"):
        for protocol, matrix in scores[name].items():
            if len(matrix) > 10:
                new = [row[number] for number, row in enumerate(matrix)]
                scores[name][protocol] = {"new": new, "end": matrix[-1]}
    return scores


def average(row: dict[str, Any], protocol: str) -> float:
    """Mean accuracy over all tasks after the last."""
    matrix = row["accuracy"][protocol]
    return statistics.fmean(matrix["end"] if isinstance(matrix, dict) else matrix[-1])


def tune(data: Dataset, results: dict[str, Any], path: Path, only: str) -> None:
    """Every method's trials, and its best: by the mean of both protocols."""
    for name, method in METHODS.items():
        if only not in name:
            continue
        if len(method.trials) == 1:
            results.setdefault("chosen", {})[name] = method.trials[0]
            continue
        done = results.setdefault("tuning", {}).setdefault(name, [])
        for settings in method.trials:
            if not any(row["settings"] == settings for row in done):
                done.append(trial(data, method, settings))
                say(name, done[-1])
                write(path, results)
        best = max(done, key=lambda row: statistics.fmean(row[p] for p in PROTOCOLS if p in row))
        results.setdefault("chosen", {})[name] = best["settings"]
    write(path, results)


def trial(data: Dataset, method: Method, settings: Settings) -> dict[str, Any]:
    """A few tasks of a few epochs: averages at the end, and what each task reached when it was new."""
    row = learned(data, method, settings, Size(*method.tried, (), (), draws=5), TUNING_SEED, "validation", None)
    found = {"settings": settings, **{protocol: average(row, protocol) for protocol in row["accuracy"]}}
    if not method.joint:
        matrix = row["accuracy"]["task"]
        found["matrix"] = matrix
        new = matrix["new"] if isinstance(matrix, dict) else [row[number] for number, row in enumerate(matrix)]
        found["learned"] = statistics.fmean(new)
        found["entropy_bits"] = row["history"][-1].get("entropy_bits")
    return found


def curve(data: Dataset, results: dict[str, Any], path: Path) -> None:
    """One setting of the posterior varied at a time."""
    method = METHODS["posterior, layer norm"]
    tuned = results["tuning"]["posterior, layer norm"]
    done = results.setdefault("curve", sorted(tuned, key=lambda row: row["settings"] != CENTRE))
    asked = [CENTRE, *({**CENTRE, name: value} for name, values in CURVE.items() for value in values)]
    for settings in asked:
        if not any(row["settings"] == settings for row in done):
            done.append(trial(data, method, settings))
            say("curve", done[-1])
            write(path, results)


def final(data: Dataset, stage: str, results: dict[str, Any], path: Path, most: int, only: str) -> None:
    """The chosen settings on the test data, seed by seed."""
    size = SIZES[stage]
    for seed in size.seeds[:most]:
        for name in size.methods:
            if only not in name:
                continue
            settings = results["chosen"][name]
            runs = results.setdefault(stage, {}).setdefault(name, [])
            runs[:] = [row for row in runs if row["settings"] == settings]
            if any(row["seed"] == seed for row in runs):
                continue
            checkpoint = path.with_name(f"{path.stem}-{stage}-{name.replace(' ', '-').replace(',', '')}-{seed}.part.pt")
            runs.append(learned(data, METHODS[name], settings, size, seed, "test", checkpoint))
            averages = (f"{100 * average(runs[-1], p):.2f}" for p in runs[-1]["accuracy"])
            say(stage, name, seed, *averages, f"{runs[-1]['cpu_seconds']} s")
            write(path, results)
            checkpoint.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=("tune", *SIZES, "curve"))
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", type=Path, default=RESULTS / "permuted.json")
    parser.add_argument("--seeds", type=int, default=3, help="at most so many")
    parser.add_argument("--only", default="", help="methods whose name contains this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = read(args.out)
    results["machine"] = machine()
    results["setting"] = {name: [size.tasks, size.epochs, size.draws] for name, size in SIZES.items()}
    for stage in args.stages:
        data = load("mnist", args.data_dir, validation=stage in ("tune", "curve"))
        if stage == "tune":
            tune(data, results, args.out, args.only)
        elif stage == "curve":
            curve(data, results, args.out)
        else:
            final(data, stage, results, args.out, args.seeds, args.only)


if __name__ == "__main__":
    main()
