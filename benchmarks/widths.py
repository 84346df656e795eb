"""How wide must a network be before draws gain nothing? Two hidden layers of 32 to 256 units on the digits.

    python benchmarks/widths.py
    python benchmarks/widths.py --activation sign

One network trained straight-through beside a posterior with 16 draws, with the demo's budget. For every width, method
and split each of six trials is judged on two validation parts of that split's training data, and the best is trained on
all of it and tested: ten seeds, which take turns among five splits that test every digit once. Results are written
after every run, and a run that is there is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accuracy import SAMPLES, run
from record import RESULTS, machine, read, say, write
from scipy.stats import ttest_rel
from trials import TRIALS as ALL
from trials import Settings

from varbnn import demo
from varbnn.data import Dataset, load

WIDTHS = (32, 64, 128, 256)
SPLITS = 5
TUNING_SEEDS = (100, 101)
TRIALS = {method: ALL["digits"][method] for method in ("ste", "posterior")}
MEASURED = ("accuracy", "nll", "ece", "ood_auroc", "entropy_bits")


def data(split: int, validation_seed: int | None = None) -> Dataset:
    """One split, or what is set aside of its training data in place of its test data."""
    if validation_seed is None:
        return load("digits", split=split)
    found = load("digits", None, validation_seed, validation=True, split=split)
    assert found.val_x is not None
    assert found.val_y is not None
    return replace(found, test_x=found.val_x, test_y=found.val_y, ood_x=None)


def tune(method: str, recipe: demo.Recipe, cell: dict[str, Any], split: int) -> Settings:
    """The trial with the lowest NLL on what is set aside; trials that are there already are not repeated."""
    done = cell.setdefault("tuning", {}).setdefault(str(split), [])
    for settings in TRIALS[method][len(done) :]:
        losses = [run(method, settings, data(split, seed), recipe, seed)["nll"] for seed in TUNING_SEEDS]
        done.append({"settings": settings, "nll": statistics.fmean(losses)})
    chosen: Settings = min(done, key=lambda trial: trial["nll"])["settings"]
    return chosen


def summarise(cells: dict[str, Any]) -> dict[str, Any]:
    """By width and method mean and standard error over the seeds; the posterior's NLL beside that of one network."""
    table: dict[str, Any] = {}
    for width, methods in cells.items():
        row: dict[str, Any] = {}
        for method, cell in methods.items():
            values = {key: [r[key] for r in cell["runs"]] for key in MEASURED}
            row[method] = {
                key: {"mean": statistics.fmean(v), "standard_error": statistics.stdev(v) / len(v) ** 0.5}
                for key, v in values.items()
            }
        ours, theirs = ([r["nll"] for r in methods[name]["runs"]] for name in ("posterior", "ste"))
        row["ratio"] = statistics.fmean(ours) / statistics.fmean(theirs)
        row["p"] = float(ttest_rel(ours, theirs).pvalue)
        table[width] = row
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--activation", choices=list(demo.ACTIVATIONS), default="relu", help="between the layers")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.out or RESULTS / f"widths-{args.activation}.json"
    fixed = {"data": "digits", "activation": args.activation, "machine": machine(), "num_samples": SAMPLES}
    results = fixed | read(path)
    for width in WIDTHS:
        recipe = replace(demo.RECIPES["digits"], widths=(width, width), activation=args.activation)
        for method in TRIALS:
            cell = results.setdefault("cells", {}).setdefault(str(width), {}).setdefault(method, {"runs": []})
            for seed in range(len(cell["runs"]), args.seeds):
                settings = tune(method, recipe, cell, seed % SPLITS)
                found = run(method, settings, data(seed % SPLITS), recipe, seed)
                cell["runs"].append({"split": seed % SPLITS, "settings": settings} | found)
                write(path, results)
                say(width, method, seed, f"{found['nll']:.4f}", settings)
    results["table"] = summarise(results["cells"])
    write(path, results)
    for width, row in results["table"].items():
        for method in TRIALS:
            print(f"{width:4} {method:10}", *(f"{key} {row[method][key]['mean']:.4f}" for key in MEASURED), sep="  ")
        print(f"     ratio {row['ratio']:.2f}, p {row['p']:.3f}")


if __name__ == "__main__":
    main()
