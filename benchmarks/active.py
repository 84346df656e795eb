"""How many labels a posterior saves by asking for the right ones.

    python benchmarks/active.py --data-dir DIR

Of 10,000 MNIST training images, 20 drawn at random are labelled at first; every round a small binary network with a
posterior is trained from scratch on what is labelled, its accuracy on the test set is noted, and 20 more images are
labelled: any, those of highest entropy or highest mutual information (BALD), or drawn in proportion to either. All
strategies of a seed start from the same images. The settings are chosen on 100 random labels and validation images by
NLL; no strategy takes part in that. Results are written after every run, and a run that is there already is not
repeated.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from uncertainty_summary import paired

import varbnn as vb
from varbnn import active
from varbnn.data import Dataset, batches, load

POOL, START, ADD, END = 10_000, 20, 20, 300
WIDTHS, BATCH, STEPS, SAMPLES, REFRESH = (128, 128), 20, 200, 16, 1000
STRATEGIES: dict[str, tuple[active.Acquisition, float | None]] = {
    "random": ("random", None),
    "entropy": ("entropy", None),
    "bald": ("bald", None),
    "entropy, drawn": ("entropy", 1.0),
    "bald, drawn": ("bald", 1.0),
}
"""Scores, and the power in proportion to which inputs are drawn."""
TRIALS = tuple({"lr": lr, "temperature": t} for t in (1e-2, 1e-3, 1e-4) for lr in (3e-3, 1e-2, 3e-2))
REAL_LR = 1e-2


def trained(x: Tensor, y: Tensor, settings: dict[str, float], seed: int) -> nn.Module:
    """A network fitted from scratch; the number of steps does not depend on the number of labels."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    inputs = x.shape[1]
    for width in WIDTHS:
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    model = vb.binarize(nn.Sequential(*layers, nn.Linear(inputs, 10, bias=False), nn.BatchNorm1d(10)))
    optimizer = vb.optim.BayesBiNN(model.parameters(), dataset_size=len(x), real_lr=REAL_LR, **settings)
    loader = batches(x, y, BATCH, torch.Generator().manual_seed(seed))
    epochs = round(STEPS / len(loader))
    schedule = CosineAnnealingLR(optimizer, epochs)
    vb.fit(model, optimizer, loader, epochs=epochs, scheduler=schedule, progress=False)
    return model


def ask(model: nn.Module, inputs: Tensor, known: Tensor, seed: int) -> vb.Prediction:
    """Sampled networks; batch-norm statistics need no labels, so images of the pool give them."""
    generator = torch.Generator().manual_seed(seed)
    return vb.predict(model, inputs, SAMPLES, refresh_bn=known[:REFRESH], generator=generator)


def run(strategy: str, data: Dataset, settings: dict[str, float], seed: int) -> dict[str, Any]:
    """One curve: measures on the test set by number of labels."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.train_x), generator=generator)[:POOL]
    x, y = data.train_x[chosen], data.train_y[chosen]
    pool = active.Pool(POOL, START, generator)
    result: dict[str, Any] = {"seed": seed, "labels": [], "accuracy": [], "nll": []}
    start = time.process_time()
    while True:
        model = trained(x[pool.labelled], y[pool.labelled], settings, seed)
        count = len(pool.unlabelled)
        both = ask(model, torch.cat([x[pool.unlabelled], data.test_x]), x, seed)
        measured = vb.evaluate(both[count:], data.test_y)
        result["labels"].append(len(pool.labelled))
        for key in ("accuracy", "nll"):
            result[key].append(measured[key])
        if len(pool.labelled) >= END:
            break
        acquisition, power = STRATEGIES[strategy]
        pool.query(both[:count], ADD, acquisition, power=power)
    result["classes"] = torch.bincount(y[pool.labelled], minlength=10).tolist()
    return result | {"seconds": time.process_time() - start}


def tune(data: Dataset, results: dict[str, Any], path: Path) -> None:
    """The posterior's settings, on random labels and validation images."""
    assert data.val_x is not None
    assert data.val_y is not None
    done = results.setdefault("tuning", [])
    for settings in TRIALS[len(done) :]:
        few = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(100))[:100]
        model = trained(data.train_x[few], data.train_y[few], settings, 100)
        measured = vb.evaluate(ask(model, data.val_x, data.train_x, 100), data.val_y)
        bits = vb.health(model, warn=False).entropy_bits
        done.append({"settings": settings, **measured, "entropy_bits": bits})
        say(done[-1])
        write(path, results)
    results["chosen"] = min(done, key=lambda trial: trial["nll"])["settings"]


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, and how many labels a strategy needs."""
    table: dict[str, Any] = {}
    random = torch.tensor([r["accuracy"] for r in results["runs"].get("random", [])], dtype=torch.float64)
    for strategy, runs in results["runs"].items():
        accuracy = torch.tensor([r["accuracy"] for r in runs], dtype=torch.float64)
        spread = accuracy.std(0) if len(runs) > 1 else torch.zeros_like(accuracy[0])
        table[strategy] = {
            "labels": runs[0]["labels"],
            "mean": accuracy.mean(0).tolist(),
            "sd": spread.tolist(),
            "area": accuracy.mean(1).tolist(),
            "tests": {} if strategy == "random" else tests(accuracy, random),
            "needed": {str(goal): needed(runs[0]["labels"], accuracy.mean(0), goal) for goal in (0.6, 0.7, 0.8)},
        }
    return table


def tests(ours: Tensor, random: Tensor) -> dict[str, dict[str, float]]:
    """Less random, paired over the seeds that both have: of the whole curve's mean, and of its end."""
    shared = min(len(ours), len(random))
    if shared < 2:
        return {}
    both = ours[:shared], random[:shared]
    return {
        "mean": paired(*(rows.mean(1).tolist() for rows in both)),
        "end": paired(*(rows[:, -1].tolist() for rows in both)),
    }


def needed(labels: list[int], accuracy: Tensor, goal: float) -> int | None:
    """The least number of labels from which on the mean accuracy stays at `goal`."""
    below = (accuracy < goal).nonzero().flatten().tolist()
    place = below[-1] + 1 if below else 0
    return labels[place] if place < len(labels) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="where MNIST's files lie")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--out", type=Path, default=RESULTS / "active.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {"machine": machine()} | read(args.out)
    results["setting"] = dict(
        pool=POOL, start=START, add=ADD, widths=WIDTHS, batch_size=BATCH, steps=STEPS, num_samples=SAMPLES
    )
    if len(results.get("tuning", [])) < len(TRIALS):
        tune(load("mnist", args.data_dir, validation=True), results, args.out)
    data = load("mnist", args.data_dir)
    for seed in range(args.seeds):
        for strategy in args.strategies:
            runs = results.setdefault("runs", {}).setdefault(strategy, [])
            if all(r["seed"] != seed for r in runs):
                runs.append(run(strategy, data, results["chosen"], seed))
                say(strategy, seed, [f"{a:.3f}" for a in runs[-1]["accuracy"]], f"{runs[-1]['seconds']:.0f} s")
                results["table"] = summarise(results)
                write(args.out, results)
    results["table"] = summarise(results)
    write(args.out, results)
    for strategy, row in results["table"].items():
        print(f"{strategy:8}", *(f"{a:.3f}" for a in row["mean"]), row["needed"])


if __name__ == "__main__":
    main()
