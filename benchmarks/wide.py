"""MNIST with the published network, 784-2048-2048-2048-10: draws of a posterior beside one binary network.

    python benchmarks/wide.py --data-dir DIR                four methods, 15 epochs, one seed: 80 min of one core
    python benchmarks/wide.py --data-dir DIR --dropout      two of them, 20 epochs, inputs left out: 45 min

Binary methods take the settings that 784-400-400-10 with ReLU chose on validation data (`accuracy.py`), the float twin
Adam at 1e-3. With `--dropout` a fifth of the inputs is left out in training, as in the published network (which also
leaves out hidden units), and the posterior is at 1/300, colder than the small network's. Every method has the same
epochs along a cosine, batches of 100, and batch norms re-estimated for every network that predicts; the posterior
predicts with 32 draws, the others with one network. A run goes on where its results file ends.
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


DROPOUT = 0.2
WITH_DROPOUT = {"posterior": dict(lr=1e-3, temperature=1 / 300, real_lr=1e-2)}
"""Settings that differ from the small network's where inputs are left out."""


def binary(name: str, data: Dataset, recipe: demo.Recipe, seed: int, dropout: float) -> dict[str, Any]:
    """Train and test once; "mode" adds what the posterior's one most probable network scores."""
    method, settings = demo.METHODS[name], dict(recipe.settings[name])
    if dropout:
        settings |= WITH_DROPOUT.get(name, {})
    outcome = demo.train(method, data, recipe, settings, num_samples=SAMPLES, seed=seed, dropout=dropout, progress=True)
    result: dict[str, Any] = {
        **outcome.measures,
        "train_loss": outcome.history[-1]["loss"],
        "settings": {**settings, "dropout": dropout},
    }
    if method.draws:
        mode = vb.predict(outcome.model, data.test_x, 0, refresh_bn=data.train_x[: recipe.refresh])
        result["mode"] = dict(vb.evaluate(mode, data.test_y))
    return result


def real(data: Dataset, recipe: demo.Recipe, seed: int, dropout: float) -> dict[str, Any]:
    """The float twin."""
    torch.manual_seed(seed)
    model = demo.network(data, recipe.widths, None, dropout)
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
    parser.add_argument("--dropout", action="store_true", help="leave out a fifth of the inputs in training")
    parser.add_argument("--methods", nargs="+", choices=("posterior", "ste", "bop", "float"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="default: 15, with --dropout 20")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/wide.json or wide-dropout.json")
    args = parser.parse_args()
    dropout = DROPOUT if args.dropout else 0.0
    args.epochs = args.epochs or (20 if dropout else 15)
    args.out = args.out or RESULTS / ("wide-dropout.json" if dropout else "wide.json")
    args.methods = args.methods or ["posterior", "ste", *([] if dropout else ["bop", "float"])]
    torch.set_num_threads(1)
    data, recipe = load("mnist", args.data_dir), replace(demo.RECIPES["mnist"], widths=WIDTHS, epochs=args.epochs)
    for seed in range(args.seeds):
        for name in args.methods:
            if any(run["seed"] == seed for run in read(args.out).get("runs", {}).get(name, [])):
                continue
            found = real(data, recipe, seed, dropout) if name == "float" else binary(name, data, recipe, seed, dropout)
            results = {"machine": machine(), "hidden": WIDTHS, "num_samples": SAMPLES} | read(args.out)
            results["epochs"] = args.epochs
            results.setdefault("runs", {}).setdefault(name, []).append({"seed": seed, **found})
            results["table"] = summarise(results)
            write(args.out, results)
            say(name, found)


if __name__ == "__main__":
    main()
