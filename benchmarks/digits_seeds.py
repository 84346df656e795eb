"""How much of a lead on the digits is the luck of the seeds?

    python benchmarks/digits_seeds.py
    python benchmarks/digits_seeds.py --activation relu

The demo's two methods with the demo's settings, which stay as they were chosen, over more seeds than a table usually
has. All seeds share the 360 test digits; training order, start and draws differ.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, say, write

from varbnn import backend_info, demo
from varbnn.data import load
from varbnn.demo.comparison import NETWORKS

MEASURED = ("accuracy", "nll", "ece", "ood_auroc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--activation", choices=list(NETWORKS), default="sign", help="between the layers")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = NETWORKS[args.activation]["digits"]
    out = args.out or RESULTS / ("digits-seeds.json" if args.activation == "sign" else "digits-seeds-relu.json")
    runs: dict[str, list[dict[str, Any]]] = {"ste": [], "posterior": []}
    for seed in range(args.seeds):
        for method, row in runs.items():
            dataset = load("digits", None, seed)
            measures = demo.train(
                demo.METHODS[method], dataset, recipe, recipe.settings[method], num_samples=16, seed=seed
            ).measures
            row.append({key: measures[key] for key in MEASURED})
        say(seed, *(f"{method} {row[-1]['nll']:.4f}" for method, row in runs.items()))
    table = {
        method: {
            key: {"mean": statistics.fmean(values), "standard_error": statistics.stdev(values) / math.sqrt(len(values))}
            for key in MEASURED
            if (values := [run[key] for run in row])
        }
        for method, row in runs.items()
    }
    differences = [p["nll"] - s["nll"] for p, s in zip(runs["posterior"], runs["ste"], strict=True)]
    paired = {
        "mean": statistics.fmean(differences),
        "standard_error": statistics.stdev(differences) / math.sqrt(len(differences)),
    }
    level = backend_info().cpu
    write(out, {"machine": machine(), "level": level, "table": table, "nll_difference": paired, "runs": runs})
    for method, row in table.items():
        cells = [f"{key} {row[key]['mean']:.4f} ± {row[key]['standard_error']:.4f}" for key in MEASURED]
        print(f"{method:10} {', '.join(cells)}")
    print(f"NLL of the posterior minus straight-through: {paired['mean']:+.4f} ± {paired['standard_error']:.4f}")


if __name__ == "__main__":
    main()
