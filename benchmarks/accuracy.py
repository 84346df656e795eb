"""Every method on the same network with the same budget, tuned on validation data with the same number of trials.

    python benchmarks/accuracy.py --data digits --seeds 10
    python benchmarks/accuracy.py --data mnist --data-dir DIR --seeds 3
    python benchmarks/accuracy.py --data digits --activation relu
    python benchmarks/accuracy.py --data mnist --data-dir DIR --seeds 3 --activation relu
    python benchmarks/accuracy.py --data digits --convolutions --methods ste posterior --seeds 25

Network, budget and measures are those of ``varbnn demo``, where activations are ±1 like the weights, or of
``varbnn demo --activation relu``; with ``--convolutions`` the network is that of the preset digits-conv. Settings are
chosen on validation data: every method gets the same number of trials, each trial the same epochs, and the trial with
the lowest validation NLL wins. The winner is then trained on all training data with every seed and tested once. Digits,
with signs and with convolutions, are split five ways, and every seed tests another fifth of them (`split` of
`varbnn.data.load`), with settings chosen on the training data of that split alone. Results are written after every
run, and a run that is there already is not repeated, so the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from trials import TRIALS, Settings

import varbnn as vb
from varbnn import demo
from varbnn.data import Dataset, load
from varbnn.demo.comparison import NETWORKS

SAMPLES = 16
SPLITS = {"digits": 5, "digits, convolutions": 5}
"""Splits into training and test data, by study; seeds take turns. The others have one."""
TUNING_SEEDS = {"digits": (100, 101), "digits, convolutions": (100, 101), "digits, relu": (100, 101, 102, 103, 104)}
"""Small data need more than one run per trial and split to choose by; the others get seed 100 alone."""

UNTUNED = {"ste, published lr": ("ste", {"lr": 1e-2, "real_lr": 1e-2})}
"""Run with these settings beside the tuned ones: Adam at 1e-2 for everything is how the baseline was published."""


def run(method: str, settings: Settings, dataset: Dataset, recipe: demo.Recipe, seed: int) -> dict[str, Any]:
    """Train and test once; "mode" adds what the posterior's one most probable network scores."""
    outcome = demo.train(demo.METHODS[method], dataset, recipe, settings, num_samples=SAMPLES, seed=seed)
    result: dict[str, Any] = {"seed": seed, **outcome.measures, "train_loss": outcome.history[-1]["loss"]}
    if demo.METHODS[method].draws:
        mode = vb.predict(outcome.model, dataset.test_x, 0, refresh_bn=dataset.train_x[: recipe.refresh])
        result["mode"] = dict(vb.evaluate(mode, dataset.test_y))
    return result


def tune(args: argparse.Namespace, results: dict[str, Any], path: Path) -> None:
    """Fill in the missing trials and name each method's best."""
    missing = {m: t for m, t in args.trials.items() if len(results.get("tuning", {}).get(m, [])) < len(t)}
    if not missing:
        return
    seeds, splits = TUNING_SEEDS.get(args.which, (100,)), SPLITS.get(args.which, 1)
    parts = [[validation_part(args, seed if splits > 1 else 0, split) for seed in seeds] for split in range(splits)]
    for method, trials in missing.items():
        done = results.setdefault("tuning", {}).setdefault(method, [])
        for settings in trials[len(done) :]:
            runs = [
                [run(method, settings, part, args.recipe, seed) for seed, part in zip(seeds, of_split, strict=True)]
                for of_split in parts
            ]
            every = [r for row in runs for r in row]
            mean = {key: statistics.fmean(r[key] for r in every) for key in ("nll", "accuracy", "entropy_bits")}
            done.append(
                {"settings": settings, **mean, "splits": [statistics.fmean(r["nll"] for r in row) for row in runs]}
            )
            say(method, done[-1])
            write(path, results)
        best = [min(done, key=lambda trial: trial["splits"][split])["settings"] for split in range(splits)]
        results.setdefault("chosen", {})[method] = best
    write(path, results)


def validation_part(args: argparse.Namespace, seed: int, split: int) -> Dataset:
    """What is tested while settings are chosen: data set aside from the training data."""
    data = load(args.data, args.data_dir, seed, validation=True, **({"split": split} if split else {}))
    assert data.val_x is not None
    assert data.val_y is not None
    return replace(data, test_x=data.val_x, test_y=data.val_y, ood_x=None)


def final(args: argparse.Namespace, results: dict[str, Any], path: Path) -> None:
    """Train the chosen settings on everything, with every seed, and test once."""
    splits = SPLITS.get(args.which, 1)
    chosen = {method: (method, results["chosen"][method]) for method in args.trials}
    chosen |= {name: (method, [settings] * splits) for name, (method, settings) in UNTUNED.items() if method in chosen}
    if all(len(results.get("runs", {}).get(name, [])) >= args.seeds for name in chosen):
        return
    whole = [load(args.data, args.data_dir, **({"split": split} if split else {})) for split in range(splits)]
    for seed in range(args.seeds):
        split = seed % splits
        for name, (method, settings) in chosen.items():
            runs = results.setdefault("runs", {}).setdefault(name, [])
            if all(r["seed"] != seed for r in runs):
                runs.append({"split": split, **run(method, settings[split], whole[split], args.recipe, seed)})
                say(name, runs[-1])
                write(path, results)


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds."""
    table: dict[str, Any] = {}
    for method, runs in results["runs"].items():
        rows = {method: runs} | ({f"{method}, mode": [r["mode"] for r in runs]} if "mode" in runs[0] else {})
        for name, row in rows.items():
            keys = [
                k
                for k in row[0]
                if k not in ("seed", "split", "mode", "num_samples", "settings") and row[0][k] is not None
            ]
            values = {k: [r[k] for r in row if k in r] for k in keys}
            table[name] = {
                k: {"mean": statistics.fmean(v), "sd": statistics.stdev(v) if len(v) > 1 else 0.0}
                for k, v in values.items()
            }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=sorted({which.split(",")[0] for which in TRIALS}), default="digits")
    parser.add_argument("--convolutions", action="store_true", help="a convolutional network instead, for digits")
    parser.add_argument("--activation", choices=list(demo.ACTIVATIONS), help="between the layers, if not the demo's")
    parser.add_argument("--data-dir", help="where the files of mnist and fashion lie")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.convolutions and args.data != "digits":
        parser.error(f"--convolutions are for --data digits, got {args.data}")
    if args.convolutions and args.activation == "sign":
        parser.error("settings for convolutions with signs between them were not looked for")
    activation = args.activation or ("relu" if args.convolutions else "sign")
    recipes = demo.CONVOLUTIONAL if args.convolutions else NETWORKS[activation]
    kind = ", convolutions" if args.convolutions else ", relu" if activation == "relu" else ""
    args.which = which = args.data + kind
    if which not in TRIALS:
        parser.error(f"there are no trials for {which}; known are {'; '.join(TRIALS)}")
    args.recipe = recipes[args.data]
    args.trials = {name: trials for name, trials in TRIALS[which].items() if name in (args.methods or TRIALS[which])}
    torch.set_num_threads(args.threads)
    path = args.out or RESULTS / f"accuracy-{which.replace(', ', '-')}.json"
    results = {"data": args.data, "machine": machine(), "num_samples": SAMPLES} | read(path)
    recipe = args.recipe
    results["network"] = {"hidden": recipe.widths, "epochs": recipe.epochs, "batch_size": recipe.batch_size}
    if recipe.channels:
        results["network"]["channels"] = recipe.channels
    if recipe.activation != "relu":
        results["network"]["activation"] = recipe.activation
    tune(args, results, path)
    final(args, results, path)
    results["table"] = summarise(results)
    write(path, results)
    for name, row in results["table"].items():
        print(f"{name:16}", *(f"{key} {v['mean']:.4f} ± {v['sd']:.4f}" for key, v in row.items()), sep="  ")


if __name__ == "__main__":
    main()
