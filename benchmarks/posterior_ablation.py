"""Why a posterior's defaults are what they are: temperature × draws × batch-norm re-estimation × estimator.

    python benchmarks/posterior_ablation.py

scikit-learn's digits, network and rates of ``varbnn demo``, 60 epochs, judged on validation data; every seed sets other
digits aside. Each network is trained once and asked in every way: 1, 4, 16 or 64 draws, disjoint groups of the same 64,
with batch-norm statistics re-estimated for each draw and with those of training. Results are written after every run,
and a run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn.data import batches, load
from varbnn.demo.methods import network
from varbnn.errors import VarbnnWarning
from varbnn.posteriors import Bernoulli
from varbnn.presets import PRESETS

PRESET = PRESETS["digits"]
ESTIMATORS = {
    "straight-through": Bernoulli(),
    "concrete": Bernoulli("concrete", relaxation=0.1),
    "moments": Bernoulli("moments"),
}
COLDS = (30, 100, 300, 1000, 3000)
"""Inverse temperatures."""

EPOCHS = 60

DRAWS = (1, 4, 16, 64)
MEASURES = ("accuracy", "nll", "ece")
Result = dict[str, Any]


def run(estimator: str, cold: int, seed: int) -> Result:
    """Train once; scores by batch-norm statistics and number of draws."""
    data = load("digits", seed=seed, validation=True)
    assert data.val_x is not None
    torch.manual_seed(seed)
    model = network(data, PRESET.widths, ESTIMATORS[estimator])
    size = len(data.train_x)
    optimizer = vb.optim.BayesBiNN(model.parameters(), PRESET.lr, size, 1 / cold, real_lr=PRESET.real_lr)
    loader = batches(data.train_x, data.train_y, PRESET.batch_size, torch.Generator().manual_seed(seed))
    schedule = CosineAnnealingLR(optimizer, EPOCHS)
    vb.fit(model, optimizer, loader, epochs=EPOCHS, scheduler=schedule, progress=False)
    result: Result = {"estimator": estimator, "cold": cold, "seed": seed}
    result["entropy_bits"] = vb.health(model, warn=False).entropy_bits
    for name, refresh in (("re-estimated", data.train_x), ("of training", None)):
        generator = torch.Generator().manual_seed(seed)
        networks = vb.predict(model, data.val_x, max(DRAWS), refresh_bn=refresh, generator=generator).probs
        result[name] = {str(count): scores(networks, count, data.val_y) for count in DRAWS}
    return result


def scores(networks: torch.Tensor, count: int, targets: torch.Tensor | None) -> dict[str, float]:
    """Of groups of `count` networks, averaged over the groups."""
    every = [vb.evaluate(vb.Prediction(group), targets) for group in networks.split(count)]
    return {key: statistics.fmean(found[key] for found in every) for key in MEASURES}


def summarise(runs: list[Result]) -> list[Result]:
    """Mean and standard error over the seeds, a row per case."""
    table = []
    for estimator, cold in product(ESTIMATORS, COLDS):
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
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "posterior-ablation.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: Result = {"machine": machine(), "runs": []} | read(args.out)
    for seed, estimator, cold in product(range(args.seeds), ESTIMATORS, COLDS):
        if any((r["estimator"], r["cold"], r["seed"]) == (estimator, cold, seed) for r in results["runs"]):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VarbnnWarning)  # statistics of training and cold posteriors are on purpose
            results["runs"].append(run(estimator, cold, seed))
        last = results["runs"][-1]
        say(estimator, cold, seed, f"{last['entropy_bits']:.2f} bits", last["re-estimated"]["16"])
        write(args.out, results)
    results["table"] = summarise(results["runs"])
    write(args.out, results)
    for row in results["table"]:
        cells = [f"{key} {row['re-estimated']['16'][key]['mean']:.4f}" for key in MEASURES]
        print(f"{row['estimator']:16} 1/{row['cold']:<6} {row['entropy_bits']:.2f} bits ", *cells)


if __name__ == "__main__":
    main()
