"""Why a posterior's defaults are what they are: temperature × draws × batch-norm re-estimation × estimator.

    python benchmarks/posterior_ablation.py                                      scikit-learn's digits, 60 epochs
    python benchmarks/posterior_ablation.py --data fashion --data-dir DIR        10,000 images of Fashion-MNIST, 20

Network, rates and dropout of the preset, judged on validation data; every seed sets other images aside. Each network
is trained once and asked in every way: 1, 4, 16 or 64 draws, disjoint groups of the same 64, with batch-norm
statistics re-estimated for each draw and with those of training. Results are written after every run, and a run that is
there already is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn.data import Dataset, batches, load
from varbnn.demo.networks import network
from varbnn.errors import VarbnnWarning
from varbnn.posteriors import Bernoulli
from varbnn.presets import PRESETS, Preset

ESTIMATORS = {
    "straight-through": Bernoulli(),
    "concrete": Bernoulli("concrete", relaxation=0.1),
    "moments": Bernoulli("moments"),
}
DRAWS = (1, 4, 16, 64)
MEASURES = ("accuracy", "nll", "ece")
Result = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """What is measured for one data set.

    Attributes:
        preset: all settings that are not tried.
        colds: inverse temperatures to try.
        epochs: of the training.
        limit: how many of the training images are used, or None for all.
        results: name of the file they go to.
    """

    preset: Preset
    colds: tuple[int, ...]
    epochs: int
    limit: int | None
    results: str

    def data(self, name: str, data_dir: str | None, seed: int) -> Dataset:
        """With as many training images as are used."""
        data = load(name, data_dir, seed, validation=True)
        if self.limit is None:
            return data
        few = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(0))[: self.limit]
        return replace(data, train_x=data.train_x[few], train_y=data.train_y[few])


STUDIES = {
    "digits": Study(PRESETS["digits"], (30, 100, 300, 1000, 3000), 60, None, "posterior-ablation"),
    "fashion": Study(PRESETS["fashion"], (15, 30, 60, 150, 400), 20, 10_000, "posterior-ablation-fashion"),
}


def run(study: Study, data: Dataset, estimator: str, cold: int, seed: int) -> Result:
    """Train once; scores by batch-norm statistics and number of draws."""
    assert data.val_x is not None
    preset = study.preset
    torch.manual_seed(seed)
    model = network(data, preset.widths, ESTIMATORS[estimator], preset.dropout)
    size = len(data.train_x)
    optimizer = vb.optim.BayesBiNN(
        model.parameters(), preset.lr, dataset_size=size, temperature=1 / cold, real_lr=preset.real_lr
    )
    loader = batches(data.train_x, data.train_y, preset.batch_size, torch.Generator().manual_seed(seed))
    schedule = CosineAnnealingLR(optimizer, study.epochs)
    vb.fit(model, optimizer, loader, epochs=study.epochs, scheduler=schedule, progress=False)
    result: Result = {"estimator": estimator, "cold": cold, "seed": seed}
    result["entropy_bits"] = vb.health(model, warn=False).entropy_bits
    for name, refresh in (("re-estimated", data.train_x[: preset.refresh]), ("of training", None)):
        generator = torch.Generator().manual_seed(seed)
        networks = vb.predict(model, data.val_x, max(DRAWS), refresh_bn=refresh, generator=generator).probs
        result[name] = {str(count): scores(networks, count, data.val_y) for count in DRAWS}
    return result


def scores(networks: torch.Tensor, count: int, targets: torch.Tensor | None) -> dict[str, float]:
    """Of groups of `count` networks, averaged over the groups."""
    every = [vb.evaluate(vb.Prediction(group), targets) for group in networks.split(count)]
    return {key: statistics.fmean(found[key] for found in every) for key in MEASURES}


def summarise(runs: list[Result], colds: tuple[int, ...]) -> list[Result]:
    """Mean and standard error over the seeds, a row per case."""
    table = []
    for estimator, cold in product(ESTIMATORS, colds):
        own = [row for row in runs if (row["estimator"], row["cold"]) == (estimator, cold)]
        if not own:
            continue
        case: Result = {"estimator": estimator, "cold": cold, "seeds": len(own)}
        case["entropy_bits"] = statistics.fmean(row["entropy_bits"] for row in own)
        for norm, count in product(("re-estimated", "of training"), map(str, DRAWS)):
            cell = case.setdefault(norm, {})[count] = {}
            for key in MEASURES:
                values = [row[norm][count][key] for row in own]
                error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
                cell[key] = {"mean": statistics.fmean(values), "error": error}
        table.append(case)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(STUDIES), default="digits")
    parser.add_argument("--data-dir", help="where fashion_mnist.npz lies")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/posterior-ablation….json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    study = STUDIES[args.data]
    path = args.out or RESULTS / f"{study.results}.json"
    results: Result = {"machine": machine(), "runs": []} | read(path)
    for seed in range(args.seeds):
        data = study.data(args.data, args.data_dir, seed)
        for estimator, cold in product(ESTIMATORS, study.colds):
            if any((r["estimator"], r["cold"], r["seed"]) == (estimator, cold, seed) for r in results["runs"]):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VarbnnWarning)  # statistics of training and cold ones are on purpose
                results["runs"].append(run(study, data, estimator, cold, seed))
            last = results["runs"][-1]
            say(estimator, cold, seed, f"{last['entropy_bits']:.2f} bits", last["re-estimated"]["16"])
            write(path, results)
    results["table"] = summarise(results["runs"], study.colds)
    write(path, results)
    for row in results["table"]:
        cells = [f"{key} {row['re-estimated']['16'][key]['mean']:.4f}" for key in MEASURES]
        print(f"{row['estimator']:16} 1/{row['cold']:<6} {row['entropy_bits']:.2f} bits ", *cells)


if __name__ == "__main__":
    main()
