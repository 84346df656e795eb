"""MNIST with the published network, 784-2048-2048-2048-10: draws of a posterior beside one binary network.

    python benchmarks/wide.py --data-dir DIR                            four methods, one seed: 80 min of one core
    python benchmarks/wide.py --data-dir DIR --tune --epochs 20         posterior and straight-through, tuned: 80 min

Without `--tune` binary methods take the settings that 784-400-400-10 chose on validation data (`accuracy.py`), the
float twin Adam at 1e-3. With it, posterior and straight-through first have four short trials each on this network, and
the lowest NLL on a sixth of the training data, set aside, decides. Every method has the same epochs along a cosine,
batches of 100, and batch norms re-estimated for every network that predicts; the posterior predicts with 32 draws, the
others with one network. A run goes on where its results file ends.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accuracy import summarise
from record import RESULTS, machine, read, say, write
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn import demo
from varbnn.data import Dataset, batches, load

WIDTHS, SAMPLES, FLOAT_LR = (2048, 2048, 2048), 32, 1e-3
TRIAL_EPOCHS, TRIAL_SEED = 5, 100
TRIALS: dict[str, list[dict[str, float]]] = {
    "posterior": [
        dict(lr=lr, temperature=temperature, real_lr=1e-2)
        for lr, temperature in ((1e-3, 1 / 100), (1e-3, 1 / 300), (1e-3, 1 / 1000), (3e-4, 1 / 1000))
    ],
    "ste": [dict(lr=lr, real_lr=real_lr) for lr, real_lr in ((1e-3, 1e-3), (3e-3, 1e-3), (1e-2, 1e-3), (3e-3, 1e-2))],
}


def tune(args: argparse.Namespace, recipe: demo.Recipe) -> dict[str, Any]:
    """The settings of each method with the lowest NLL on validation data, after as many trials each."""
    data = load("mnist", args.data_dir, validation=True)
    assert data.val_x is not None
    assert data.val_y is not None
    data, short = replace(data, test_x=data.val_x, test_y=data.val_y), replace(recipe, epochs=TRIAL_EPOCHS)
    chosen = {}
    for name in TRIALS:
        for settings in TRIALS[name]:
            done = read(args.out).get("tuning", {}).get(name, [])
            if any(trial["settings"] == settings for trial in done):
                continue
            found = demo.train(
                demo.METHODS[name], data, short, settings, num_samples=SAMPLES, seed=TRIAL_SEED, progress=True
            ).measures
            results = read(args.out)
            trial = {"settings": settings, **{key: found[key] for key in ("nll", "accuracy", "ece", "entropy_bits")}}
            results.setdefault("tuning", {}).setdefault(name, []).append(trial)
            write(args.out, results)
            print(name, trial, flush=True)
        chosen[name] = min(read(args.out)["tuning"][name], key=lambda trial: trial["nll"])["settings"]
    return chosen


def binary(
    name: str, data: Dataset, recipe: demo.Recipe, seed: int, settings: dict[str, float] | None = None
) -> dict[str, Any]:
    """Train and test once; "mode" adds what the posterior's one most probable network scores."""
    method = demo.METHODS[name]
    settings = settings or dict(recipe.settings[name])
    outcome = demo.train(method, data, recipe, settings, num_samples=SAMPLES, seed=seed, progress=True)
    result: dict[str, Any] = {
        **outcome.measures,
        "train_loss": outcome.history[-1]["loss"],
        "settings": settings,
    }
    if method.draws:
        mode = vb.predict(outcome.model, data.test_x, 0, refresh_bn=data.train_x[: recipe.refresh])
        result["mode"] = dict(vb.evaluate(mode, data.test_y))
    return result


def real(data: Dataset, recipe: demo.Recipe, seed: int) -> dict[str, Any]:
    """The float twin."""
    torch.manual_seed(seed)
    model = demo.network(data, recipe.widths, None)
    optimizer = torch.optim.Adam(model.parameters(), lr=FLOAT_LR)
    loader = batches(data.train_x, data.train_y, recipe.batch_size, torch.Generator().manual_seed(seed))
    schedule = CosineAnnealingLR(optimizer, recipe.epochs)
    history = vb.fit(model, optimizer, loader, epochs=recipe.epochs, scheduler=schedule, label="float")
    refresh = data.train_x[: recipe.refresh]
    assert data.ood_x is not None
    pred, ood = (vb.predict(model, x, 0, refresh_bn=refresh) for x in (data.test_x, data.ood_x))
    return {**vb.evaluate(pred, data.test_y, ood=ood), "train_loss": history[-1]["loss"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.out = args.out or RESULTS / ("wide-tuned.json" if args.tune else "wide.json")
    args.methods = args.methods or (list(TRIALS) if args.tune else ["posterior", "ste", "bop", "float"])
    torch.set_num_threads(1)
    data, recipe = load("mnist", args.data_dir), replace(demo.RECIPES["mnist"], widths=WIDTHS, epochs=args.epochs)
    chosen = tune(args, recipe) if args.tune else {}
    for seed in range(args.seeds):
        for name in args.methods:
            if any(run["seed"] == seed for run in read(args.out).get("runs", {}).get(name, [])):
                continue
            found = real(data, recipe, seed) if name == "float" else binary(name, data, recipe, seed, chosen.get(name))
            results = {"machine": machine(), "hidden": WIDTHS, "num_samples": SAMPLES} | read(args.out)
            results["epochs"] = args.epochs
            results.setdefault("runs", {}).setdefault(name, []).append({"seed": seed, **found})
            results["table"] = summarise(results)
            write(args.out, results)
            say(name, found)


if __name__ == "__main__":
    main()
