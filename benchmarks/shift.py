"""What binary networks say of inputs they were not trained for: other data, worn images, and whom to refuse.

    python benchmarks/shift.py --data-dir DIR

Four networks of the same shape are trained on MNIST and on Fashion-MNIST with every seed: a float one, a binary one
by straight-through, a binary one by Bop, and a posterior, which is asked through sampled networks and through its mode.
The settings are those that `accuracy.py --activation relu` chose on MNIST's validation data; the float network's
learning rate is chosen here, likewise. They were chosen for 20 epochs, while the networks here get half of that;
Fashion-MNIST takes MNIST's. DIR holds MNIST, Fashion-MNIST, notMNIST and EMNIST letters as `varbnn.data.load` reads
them. Trained networks are kept in a folder and results written after every network, so the script can be stopped and
started again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn import demo
from varbnn.data import Dataset, batches, load
from varbnn.predict.evaluation import UNCERTAINTY
from varbnn.predict.metrics import FPR95, ood_auroc

Predictor = Callable[[Tensor], vb.Prediction]

SAMPLES, EPOCHS, REFRESH = 16, 10, 10_000
METHODS = ("float", "ste", "bop", "posterior")
FLOAT_TRIALS, FLOAT_EPOCHS = (3e-4, 1e-3, 3e-3), 20
FOREIGN = {
    "mnist": ("fashion", "notmnist", "emnist-letters", "emnist-unlike-digits"),
    "fashion": ("mnist", "notmnist", "emnist-letters"),
}
SCORES = ("total", "epistemic", "confidence")
WORN = 5000  # test images that are worn out
MEASURES = ("accuracy", "nll", "brier", "ece")
COVERAGES = tuple(k / 50 for k in range(1, 51))


def float_network(data: Dataset, widths: tuple[int, ...]) -> nn.Module:
    """The twin of `varbnn.demo.network` with real weights."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = data.train_x.shape[1]
    for number, outputs in enumerate(widths, 1):
        layers[f"hidden{number}"] = nn.Linear(inputs, outputs, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm1d(outputs)
        layers[f"relu{number}"] = nn.ReLU()
        inputs = outputs
    layers["head"] = nn.Linear(inputs, data.num_classes, bias=False)
    layers["norm"] = nn.BatchNorm1d(data.num_classes)
    return nn.Sequential(layers)


def trained(
    method: str, data: Dataset, settings: dict[str, float], seed: int, path: Path | None, epochs: int = EPOCHS
) -> nn.Module:
    """The network, from its file if it was trained before."""
    recipe = replace(demo.RECIPES[data.name], epochs=epochs)
    torch.manual_seed(seed)
    if method == "float":
        model = float_network(data, recipe.widths)
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), **settings)
    else:
        model = demo.network(data, recipe.widths, demo.METHODS[method].posterior)
        optimizer = demo.METHODS[method].optimizer(model, settings, len(data.train_x))
    if path is not None and path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    start = time.process_time()
    loader = batches(data.train_x, data.train_y, recipe.batch_size, torch.Generator().manual_seed(seed))
    schedule = CosineAnnealingLR(optimizer, recipe.epochs)
    vb.fit(model, optimizer, loader, epochs=recipe.epochs, scheduler=schedule, progress=False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    say("trained", method, data.name, seed, f"{time.process_time() - start:.0f} s")
    return model


def tune_float(data: Dataset, results: dict[str, Any], path: Path) -> None:
    """The float network's learning rate, by NLL on validation data."""
    assert data.val_x is not None
    assert data.val_y is not None
    done = results.setdefault("tuning", {}).setdefault("float", [])
    for lr in FLOAT_TRIALS[len(done) :]:
        model = trained("float", data, {"lr": lr}, 100, None, FLOAT_EPOCHS).eval()
        validation = vb.predict(model, data.val_x, 0, refresh_bn=data.train_x[:REFRESH])
        done.append({"settings": {"lr": lr}, **vb.evaluate(validation, data.val_y)})
        write(path, results)
    results["chosen"]["float"] = min(done, key=lambda trial: trial["nll"])["settings"]
    write(path, results)


def predictors(method: str, model: nn.Module, data: Dataset, seed: int) -> dict[str, Predictor]:
    """Functions from inputs to predictions, with batch-norm statistics estimated once for all inputs, on clean data."""
    known = data.train_x[:REFRESH]
    found: dict[str, Predictor] = {}
    if method == "posterior":
        generator = torch.Generator().manual_seed(seed)
        ensemble = vb.pack(model, SAMPLES, refresh_bn=known, generator=generator)
        found["posterior"] = lambda x: in_parts(x, lambda part: ensemble(part).softmax(-1))
        method = "posterior, mode"
    vb.refresh_batchnorm(model.eval(), known)
    found[method] = lambda x: in_parts(x, lambda part: model(part).softmax(-1)[None])
    return found


@torch.no_grad()
def in_parts(x: Tensor, probabilities: Callable[[Tensor], Tensor]) -> vb.Prediction:
    return vb.Prediction(torch.cat([probabilities(part) for part in x.split(1000)], 1))


def measured(ask: Predictor, data: Dataset, foreign: dict[str, Tensor], seed: int) -> dict[str, Any]:
    """Everything the page shows of one network or one set of sampled networks."""
    familiar = ask(data.test_x)
    curve = vb.risk_coverage(familiar, data.test_y)
    result: dict[str, Any] = {"seed": seed, **vb.evaluate(familiar, data.test_y)}
    result["selective"] = {
        "aurc": curve.area,
        "excess": curve.excess_area,
        "accuracy_at_90": curve.accuracy_at(0.9),
        "accuracy_at_80": curve.accuracy_at(0.8),
        "risk": [1 - curve.accuracy_at(coverage) for coverage in COVERAGES],
    }
    result["ood"] = {name: detection(familiar, ask(inputs)) for name, inputs in foreign.items()}
    curves = vb.severity_curves(
        ask,
        data.undo(data.test_x[:WORN]),
        data.test_y[:WORN],
        value_range=data.value_range or (0, 255),
        inputs=data.standardise,
        seed=seed,
    )
    result["worn"] = {kind: [{m: step[m] for m in MEASURES} for step in steps] for kind, steps in curves.items()}
    return result


def detection(familiar: vb.Prediction, foreign: vb.Prediction) -> dict[str, dict[str, float]]:
    """AUROC and FPR95 by score; one network has no epistemic uncertainty."""
    found = {}
    for score in SCORES:
        if score == "epistemic" and familiar.num_samples == 1:
            continue
        known, other = (UNCERTAINTY[score](p) for p in (familiar, foreign))
        rate = FPR95()
        rate.update(known, torch.zeros(len(known), dtype=torch.bool))
        rate.update(other, torch.ones(len(other), dtype=torch.bool))
        found[score] = {"auroc": ood_auroc(known, other), "fpr95": float(rate.compute())}
    return found


def both(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, of everything but curves, whose means are given."""
    first = runs[0]
    row: dict[str, Any] = {key: both([r[key] for r in runs]) for key in MEASURES}
    row["seeds"] = len(runs)
    for key in ("aurc", "excess", "accuracy_at_90", "accuracy_at_80"):
        row[key] = both([r["selective"][key] for r in runs])
    row["risk"] = [statistics.fmean(points) for points in zip(*(r["selective"]["risk"] for r in runs), strict=True)]
    row["ood"] = {
        name: {s: {m: both([r["ood"][name][s][m] for r in runs]) for m in found} for s, found in scores.items()}
        for name, scores in first["ood"].items()
    }
    row["worn"] = {
        kind: [{m: statistics.fmean(r["worn"][kind][s][m] for r in runs) for m in MEASURES} for s in range(6)]
        for kind in first["worn"]
    }
    row["worn_mean"] = {
        kind: {m: both([statistics.fmean(step[m] for step in r["worn"][kind][1:]) for r in runs]) for m in MEASURES}
        for kind in first["worn"]
    }
    return row


def foreign_inputs(name: str, folder: str) -> tuple[Dataset, dict[str, Tensor]]:
    """The data set, and its foreign inputs by name, standardised as it is."""
    found = {}
    for other in FOREIGN[name]:
        data = load(name, folder, ood=other)
        assert data.ood_x is not None
        found[other] = data.ood_x
    return data, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="where the files lie")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--models", type=Path, default=Path("build/shift"), help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "shift.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": machine(), "runs": {}} | read(args.out)
    results["setting"] = dict(epochs=EPOCHS, num_samples=SAMPLES, worn_images=WORN, coverages=COVERAGES)
    if "chosen" not in results:
        published = read(RESULTS / "accuracy-mnist-relu.json")["chosen"]
        results["chosen"] = {method: published[method][0] for method in METHODS if method != "float"}
    if "float" not in results["chosen"]:
        tune_float(load("mnist", args.data_dir, validation=True), results, args.out)
    for seed in range(args.seeds):
        for name in FOREIGN:
            own = results["runs"].setdefault(name, {})
            missing = [m for m in METHODS if all(r["seed"] != seed for r in own.get(m, []))]
            if not missing:
                continue
            data, foreign = foreign_inputs(name, args.data_dir)
            for method in missing:
                path = args.models / f"{name}-{method}-{seed}.pt"
                model = trained(method, data, results["chosen"][method], seed, path)
                for title, ask in predictors(method, model, data, seed).items():
                    own.setdefault(title, []).append(measured(ask, data, foreign, seed))
                    say(name, title, seed, {m: round(own[title][-1][m], 4) for m in MEASURES})
                results.setdefault("table", {})[name] = {title: summarise(runs) for title, runs in own.items()}
                write(args.out, results)
    for name, table in results["table"].items():
        for title, row in table.items():
            auroc = " ".join(f"{other} {found['total']['auroc']['mean']:.3f}" for other, found in row["ood"].items())
            print(f"{name:8} {title:16} accuracy {row['accuracy']['mean']:.4f} NLL {row['nll']['mean']:.4f}  {auroc}")


if __name__ == "__main__":
    main()
