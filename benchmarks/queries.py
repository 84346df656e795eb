"""How few labels of a stream do: asking by disagreement of draws, beside all labels and as many at random.

    python benchmarks/queries.py --data-dir DIR

Permuted MNIST, five tasks in one pass, of whose training images the digits 5 to 9 are rare: 50 to 80 % of them are
left out. 784-100-10 with layer norm and `Gate("bits", reverse=True)`, `WindowedBayes`, five draws per step. Images come
in blocks of 50; a network is asked about all of a block, then learns from those that were labelled, with the same
draws (`varbnn.active.learn`). One at a time would let every answer count for the next question, and take fifty times
as long.

The step is chosen for every way to ask (for 10 % of the labels, with budgets) on validation images of another seed's
permutations. Results are written after every run, and a run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn

import varbnn as vb
from varbnn import active, continual
from varbnn.data import Dataset, load

TASKS, HIDDEN, BLOCK, DRAWS, TEST_DRAWS = 5, 100, 50, 5, 20
KEPT = {5: 0.5, 6: 0.425, 7: 0.35, 8: 0.275, 9: 0.2}  # share of the training images of these digits
BUDGETS = (0.1, 0.03)
WAYS: dict[str, dict[str, Any]] = {
    "all": {"threshold": 0.0},
    **{f"{score} {budget:g}": {"budget": budget, "acquisition": score}
       for budget in BUDGETS for score in ("variation_ratio", "random")},
}  # fmt: skip
TRIALS = tuple({"lr": lr, "window": 1e6} for lr in (2.0, 6.0, 18.0, 50.0))
TUNED, TUNING_SEED, TUNING_TASKS = ("all", "random 0.1", "variation_ratio 0.1"), 100, 3


def imbalanced(data: Dataset, seed: int) -> Dataset:
    """The rare digits are rare in training; the test set stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.tensor([KEPT.get(digit, 1.0) for digit in range(10)])
    kept = torch.rand(len(data.train_y), generator=generator) < share[data.train_y]
    return replace(data, train_x=data.train_x[kept], train_y=data.train_y[kept])


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    norms = [nn.LayerNorm(width, elementwise_affine=False) for width in (HIDDEN, 10)]
    first, last = nn.Linear(784, HIDDEN, bias=False), nn.Linear(HIDDEN, 10, bias=False)
    return vb.binarize(nn.Sequential(first, norms[0], vb.nn.Gate("bits", reverse=True), last, norms[1]))


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    prediction = vb.predict(model, x, TEST_DRAWS, generator=torch.Generator().manual_seed(0))
    return float((prediction.labels == y).double().mean())


def run(data: Dataset, way: dict[str, Any], settings: dict[str, float], seed: int, tasks: int) -> dict[str, Any]:
    """One pass through the stream; accuracy on every task when it was the newest, and on all of them at the end."""
    judged = "test" if data.val_x is None else "val"
    model, stream = network(seed), continual.permuted(imbalanced(data, seed), tasks=tasks, seed=seed)
    optimizer = vb.optim.WindowedBayes(model.parameters(), batch_size=BLOCK, decay="variance", **settings)
    query = active.StreamQuery(generator=torch.Generator().manual_seed(seed), **way)
    newest, labels_of_task, rare, steps = [], [], 0, 0
    start = time.process_time()
    for task in stream:
        before = query.labels_used
        order = torch.randperm(len(task), generator=torch.Generator().manual_seed(seed))
        for rows in order.split(BLOCK):
            x, y = task.train_x[rows], task.train_y[rows]
            asked = active.learn(model, optimizer, query, x, lambda mask, y=y: y[mask], num_samples=DRAWS)
            steps += int(asked.any())
            rare += int((y[asked] >= min(KEPT)).sum())
        labels_of_task.append(query.labels_used - before)
        newest.append(accuracy(model, *part(task, judged)))
    return {
        "seed": seed,
        "seconds": time.process_time() - start,
        "inputs": query.seen,
        "labels": query.labels_used,
        "labels_of_task": labels_of_task,
        "rare": rare / query.labels_used,
        "steps": steps,
        "newest": newest,
        "accuracy": [accuracy(model, *part(task, judged)) for task in stream],
        "entropy_bits": vb.health(model, warn=False).entropy_bits,
    }


def part(task: continual.Task, name: str) -> tuple[Tensor, Tensor]:
    return getattr(task, f"{name}_x"), getattr(task, f"{name}_y")


def tune(data: Dataset, results: dict[str, Any], path: Path) -> None:
    """Step and window of every way to ask, by the mean accuracy on validation images at the end."""
    for name in TUNED:
        done = results.setdefault("tuning", {}).setdefault(name, [])
        for settings in TRIALS[len(done) :]:
            done.append({"settings": settings, **run(data, WAYS[name], settings, TUNING_SEED, TUNING_TASKS)})
            say(name, settings, shown(done[-1]))
            write(path, results)
        best = max(done, key=lambda trial: mean(trial["accuracy"]))
        results.setdefault("chosen", {})[name.partition(" ")[0]] = best["settings"]


def shown(row: dict[str, Any]) -> str:
    newest, everything = (100 * mean(row[key]) for key in ("newest", "accuracy"))
    share = 100 * row["labels"] / row["inputs"]
    return f"{share:.2f} % of labels, all {everything:.2f}, newest {newest:.2f}, {row['seconds']:.0f} s"


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, in per cent where it is a share."""
    table: dict[str, Any] = {}
    for name, rows in runs.items():
        values = {
            "labels": [100 * row["labels"] / row["inputs"] for row in rows],
            "backward": [100 * row["steps"] * BLOCK / row["inputs"] for row in rows],
            "rare": [100 * row["rare"] for row in rows],
            "all": [100 * mean(row["accuracy"]) for row in rows],
            "newest": [100 * mean(row["newest"]) for row in rows],
            "seconds": [row["seconds"] for row in rows],
        }
        spread = {key: stdev(found) if len(found) > 1 else 0.0 for key, found in values.items()}
        table[name] = {key: {"mean": mean(found), "sd": spread[key]} for key, found in values.items()}
        table[name]["seeds"] = len(rows)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="where MNIST's files lie")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, default=RESULTS / "queries.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {"machine": machine()} | read(args.out)
    results["setting"] = dict(tasks=TASKS, hidden=HIDDEN, block=BLOCK, draws=DRAWS, test_draws=TEST_DRAWS, kept=KEPT)
    tune(load("mnist", args.data_dir, validation=True), results, args.out)
    data = load("mnist", args.data_dir)
    for seed in range(args.seeds):
        for name in args.ways:
            runs = results.setdefault("runs", {}).setdefault(name, [])
            if all(row["seed"] != seed for row in runs):
                settings = results["chosen"][name.partition(" ")[0].rstrip(",")]
                runs.append(run(data, WAYS[name], settings, seed, TASKS))
                say(name, seed, shown(runs[-1]))
                results["table"] = summarise(results["runs"])
                write(args.out, results)


if __name__ == "__main__":
    main()
