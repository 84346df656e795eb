"""Regression on UCI tables: binary networks with a posterior beside MC dropout and one float network.

    python benchmarks/regression.py --data-dir DIR [--splits 5] [--sets yacht boston ...]

The published splits of Hernández-Lobato and Adams (2015); one hidden layer of 50 units, of the binary network also 200.
Every method gets the same number of steps (as many passes as make about 1000 steps of 32 rows), Adam's rate of 1e-2 or
the rule's falling along a cosine, and three trials per split: a fifth of the training data is set aside, the trial with
the highest validation log-likelihood wins, its noise is the likeliest for the validation data, and it is trained again
on all training data and tested once. The test data of a split are never used to choose. Binary networks choose their
temperature, dropout its rate (on inputs and hidden units), the float network its weight decay. "Splines" means that
every feature is first spread over eight hats on equally spaced knots (scikit-learn's `SplineTransformer`, degree 1),
fitted to the training data. Results are written after every split; what is there is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from torch import Tensor, nn

import varbnn as vb
from varbnn.bridges.tabular import KINDS, network
from varbnn.data import RegressionDataset, batches, load

SETS = ("yacht", "boston", "energy", "concrete", "wine-red")
STEPS, BATCH, LR, SAMPLES, KNOTS = 1000, 32, 1e-2, 64, 8

Ask = Callable[[Tensor], vb.RegressionPrediction]


def epochs_for(rows: int) -> int:
    """Passes that make about `STEPS` steps."""
    return max(1, round(STEPS / max(1, rows // BATCH)))


def binary(data: RegressionDataset, temperature: float, width: int) -> Ask:
    """Train a binary network; returns how to ask it."""
    kind = KINDS["bernoulli"]
    model = network(data.train_x.shape[1], (width,), 1, kind, (vb.nn.LearnedNoise(),))
    rows, epochs = len(data.train_x), epochs_for(len(data.train_x))
    optimizer = kind.rule(model.parameters(), lr=LR, dataset_size=rows, temperature=temperature, real_lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loader = batches(data.train_x, data.train_y, BATCH)
    vb.fit(model, optimizer, loader, epochs=epochs, loss=vb.nn.gaussian_nll, scheduler=schedule, progress=False)
    return lambda x: vb.predict(model, x, SAMPLES, task="gaussian")


def real(data: RegressionDataset, width: int, dropout: float = 0.0, decay: float = 0.0) -> Ask:
    """Train a float network by squares; with dropout it is asked `SAMPLES` times with other units left out."""
    inputs = data.train_x.shape[1]
    model = nn.Sequential(
        nn.Dropout(dropout), nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1)
    )
    epochs = epochs_for(len(data.train_x))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loader = batches(data.train_x, data.train_y, BATCH)
    vb.fit(model, optimizer, loader, epochs=epochs, loss=nn.MSELoss(), scheduler=schedule, progress=False)

    @torch.no_grad()
    def ask(x: Tensor) -> vb.RegressionPrediction:
        model.train(dropout > 0)
        return vb.RegressionPrediction(torch.stack([model(x) for _ in range(SAMPLES if dropout > 0 else 1)]))

    return ask


def splined(data: RegressionDataset) -> RegressionDataset:
    """Every feature as `KNOTS` piecewise linear hats, standardised; nothing but training data says how."""
    hats = make_pipeline(SplineTransformer(KNOTS, degree=1), StandardScaler()).fit(data.train_x.numpy())
    parts = {part: getattr(data, part) for part in ("train_x", "val_x", "test_x")}
    made = {name: torch.from_numpy(hats.transform(x.numpy())).float() for name, x in parts.items() if x is not None}
    return replace(data, **made)


@dataclass(frozen=True)
class Method:
    """How to train, the values that its one setting is chosen from, and whether splines come first."""

    train: Callable[[RegressionDataset, float], Ask]
    choices: tuple[float, ...]
    splines: bool = False


METHODS = {
    "binary, 50": Method(lambda data, value: binary(data, value, 50), (0.01, 0.1, 1.0)),
    "binary, 200": Method(lambda data, value: binary(data, value, 200), (0.01, 0.1, 1.0)),
    "MC dropout, 50": Method(lambda data, value: real(data, 50, dropout=value), (0.005, 0.02, 0.1)),
    "float, 50": Method(lambda data, value: real(data, 50, decay=value), (0.0, 0.1, 1.0)),
}
METHODS |= {
    f"{name}, splines": replace(METHODS[name], splines=True) for name in ("binary, 50", "MC dropout, 50", "float, 50")
}


def one(method: Method, name: str, folder: str, split: int) -> dict[str, Any]:
    """Choose on validation data, train on all training data, test."""
    begun = time.process_time()
    parts, whole = (load(f"uci-{name}", folder, split, validation=v, split=split) for v in (True, False))  # type: ignore[call-overload]
    if method.splines:
        parts, whole = splined(parts), splined(whole)
    trials = []
    for value in method.choices:
        torch.manual_seed(split)
        found = method.train(parts, value)(parts.val_x)
        scaling = vb.NoiseScaling().fit(found, parts.val_y)
        trials.append((-vb.evaluate(scaling(found), parts.val_y)["nll"], value, scaling.factor, found))
    _, value, factor, found = max(trials, key=lambda trial: trial[0])
    torch.manual_seed(split)
    ask = method.train(whole, value)
    # the noise of validation, in units of the target: standardised targets of two parts differ in scale
    scaling = vb.NoiseScaling(factor * (parts.target_scale / whole.target_scale) ** 2 if found.noise_variance is None
                              else factor)  # fmt: skip
    prediction = scaling(ask(whole.test_x)).in_units(whole.target_scale, whole.target_mean)
    measured = vb.evaluate(prediction, whole.undo_targets(whole.test_y))
    return {
        "split": split,
        "chosen": value,
        "rmse": measured["rmse"],
        "log_likelihood": -measured["nll"],
        "coverage": measured["coverage"],
        "aleatoric": float(prediction.aleatoric.mean().sqrt()),
        "epistemic": float(prediction.epistemic.mean().sqrt()),
        "seconds": time.process_time() - begun,
    }


def summarised(runs: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard error over the splits, and how often each value was chosen."""
    table: dict[str, Any] = {}
    for name, rows in runs.items():
        for title, own in rows.items():
            row: dict[str, Any] = {"splits": len(own), "chosen": [r["chosen"] for r in own]}
            for key in ("rmse", "log_likelihood", "coverage", "aleatoric", "epistemic"):
                values = [r[key] for r in own]
                error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
                row[key] = {"mean": statistics.fmean(values), "standard_error": error}
            table.setdefault(name, {})[title] = row
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--out", type=Path, default=RESULTS / "regression.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = read(args.out) or {"runs": {}}
    results |= {"steps": STEPS, "batch": BATCH, "samples": SAMPLES}
    results["choices"] = {title: method.choices for title, method in METHODS.items()}
    for split in range(args.splits):
        for name in args.sets:
            rows = results["runs"].setdefault(name, {})
            for title, method in METHODS.items():
                done = rows.setdefault(title, [])
                if len(done) > split:
                    continue
                done.append(one(method, name, args.data_dir, split))
                say(name, title, done[-1])
                results["machine"] = machine()
            results["table"] = summarised(results["runs"])
            write(args.out, results)


if __name__ == "__main__":
    main()
