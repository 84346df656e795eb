"""Training without floating point beside its float twins, every method with as many trials of its settings.

    python benchmarks/integer.py
    python benchmarks/integer.py --data mnist --data-dir DIR --seeds 3 --methods int8 spread adam

Pixels as thermometers, two hidden layers of signs: digits 64 pixels at 4 levels, 256-256-256-10; MNIST 784 at 1 level,
784-256-256-10. The twins have the same layers with batch norm behind each of them and train in float32: latent weights
straight through with Adam, and a `Bernoulli` posterior with `BayesBiNN`. A method's settings are those of least
validation NLL; the calibration temperature is fitted on validation data as well. Validation data train nothing. Results
are written after every run, and a run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn

import varbnn as vb
from varbnn import data, integer
from varbnn.data import Dataset
from varbnn.integer import IntegerNetwork, Thermometer
from varbnn.optim import BayesBiNN, StraightThrough
from varbnn.posteriors import Bernoulli, Point

DRAWS, REFRESH = 32, 5_000
Settings = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """A data set's code, layers and budget; `trials` of every method are the first so many of its list."""

    levels: int
    hidden: tuple[int, ...]
    epochs: int
    batch: int
    trials: int
    tuning_seeds: tuple[int, ...]


SETUPS = {
    "digits": Setup(levels=4, hidden=(256, 256), epochs=30, batch=32, trials=8, tuning_seeds=(100, 101, 102)),
    "mnist": Setup(levels=1, hidden=(256, 256), epochs=5, batch=64, trials=3, tuning_seeds=(100,)),
}


@dataclass(frozen=True)
class Split:
    """Codes as float32, labels, and foreign codes."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    ood: Tensor


def split(found: Dataset, levels: int) -> Split:
    encoder = Thermometer.fit(found.train_x, levels)
    assert found.val_x is not None
    assert found.val_y is not None
    assert found.ood_x is not None
    train, val, test, ood = (encoder(x).float() for x in (found.train_x, found.val_x, found.test_x, found.ood_x))
    return Split((train, found.train_y), (val, found.val_y), (test, found.test_y), ood)


def counters(parts: Split, setup: Setup, seed: int, *, shifts: tuple[int, int], **settings: int) -> tuple[Any, float]:
    x, y = parts.train
    generator = torch.Generator().manual_seed(seed)
    network = IntegerNetwork([x.shape[1], *setup.hidden, 10], **settings, generator=generator)
    loader = data.batches(x.to(torch.int8), y, setup.batch, generator)
    integer.fit(network, loader, epochs=setup.epochs, shifts=shifts, generator=generator, progress=False)
    weights = sum(layer.counter.numel() for layer in network.counters)
    held = weights * network.bits / 8 + 4 * sum(setup.hidden)
    return integer.as_model(network), held / weights


def twin(parts: Split, setup: Setup, seed: int, posterior: Any, make: Callable[..., Any]) -> tuple[Any, float]:
    torch.manual_seed(seed)
    x, y = parts.train
    widths, layers = [x.shape[1], *setup.hidden, 10], []
    for number in range(1, len(widths)):
        layers += [nn.Linear(widths[number - 1], widths[number], bias=False), nn.BatchNorm1d(widths[number])]
        layers += [vb.nn.Sign()] * (number + 1 < len(widths))
    model = vb.binarize(nn.Sequential(*layers), posterior)
    optimizer = make(model.parameters(), len(x))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setup.epochs)
    loader = data.batches(x, y, setup.batch)
    vb.fit(model, optimizer, loader, epochs=setup.epochs, scheduler=schedule, progress=False)
    weights = sum(layer.belief[0].numel() for _, layer in vb.nn.binary_layers(model))
    tensors = [*model.state_dict().values()]
    tensors += [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    return model, sum(tensor.nbytes for tensor in tensors) / weights


def adam(parts: Split, setup: Setup, seed: int, *, lr: float, real_lr: float) -> tuple[Any, float]:
    return twin(parts, setup, seed, Point(clip=1.0), lambda p, n: StraightThrough(p, lr=lr, real_lr=real_lr))


def bayes(parts: Split, setup: Setup, seed: int, *, lr: float, temperature: float) -> tuple[Any, float]:
    def make(parameters: Any, size: int) -> BayesBiNN:
        return BayesBiNN(parameters, lr=lr, dataset_size=size, temperature=temperature, real_lr=1e-2)

    return twin(parts, setup, seed, Bernoulli(), make)


def shifting(*shifts: tuple[int, int], **settings: int) -> list[Settings]:
    return [{"shifts": pair, **settings} for pair in shifts]


PAIRS = ((2, 6), (2, 7), (3, 7), (1, 6), (2, 5), (3, 6), (1, 5), (3, 8))
METHODS: dict[str, tuple[Callable[..., tuple[Any, float]], list[Settings]]] = {
    "int8": (counters, shifting(*PAIRS, bits=8)),
    "int4": (counters, shifting(*PAIRS, bits=4)),
    "spread": (
        counters,
        [{"shifts": pair, "bits": 8, "spread": r} for r in (16, 8, 32, 64) for pair in ((2, 7), (2, 6))],
    ),
    "adam": (adam, [{"lr": lr, "real_lr": r} for r in (1e-2, 3e-2) for lr in (1e-2, 3e-3, 1e-3, 3e-2)]),
    "bayes": (bayes, [{"lr": lr, "temperature": t} for t in (1e-2, 1e-3) for lr in (3e-3, 1e-2, 1e-3, 3e-4)]),
}
DRAWN = {"spread": "spread, mode", "bayes": "bayes, mode"}  # methods with draws, and the name of their mode
MEASURES = ("accuracy", "nll", "ece", "ood_auroc")


def measured(model: Any, parts: Split, draws: int, seed: int) -> dict[str, float]:
    """After temperature scaling, fitted on the validation part; `val_nll` is what is left there."""

    def said(x: Tensor) -> vb.Prediction:
        generator = torch.Generator().manual_seed(seed)  # the same networks every time
        refresh = parts.train[0][:REFRESH] if any(isinstance(m, nn.BatchNorm1d) for m in model.modules()) else None
        return vb.predict(model, x, draws, generator=generator, refresh_bn=refresh)

    val = said(parts.val[0])
    scaling = vb.TemperatureScaling().fit(val, parts.val[1])
    found = vb.evaluate(scaling(said(parts.test[0])), parts.test[1], ood=scaling(said(parts.ood)))
    aside = vb.evaluate(scaling(val), parts.val[1])
    kept = {key: float(found[key]) for key in MEASURES}
    return kept | {"val_accuracy": aside["accuracy"], "val_nll": aside["nll"], "temperature": float(scaling)}


def run(name: str, settings: Settings, parts: Split, setup: Setup, seed: int) -> dict[str, Any]:
    make, start = METHODS[name][0], time.process_time()
    model, held = make(parts, setup, seed, **settings)
    seconds = time.process_time() - start
    modes = {name: 0} if name not in DRAWN else {name: DRAWS, DRAWN[name]: 0}
    rows = {title: measured(model, parts, draws, seed) for title, draws in modes.items()}
    return {"seed": seed, "settings": settings, "seconds": seconds, "bytes_per_weight": held, "rows": rows}


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for own in runs.values():
        for title in own[0]["rows"]:
            values = {key: [one["rows"][title][key] for one in own] for key in MEASURES}
            values |= {key: [one[key] for one in own] for key in ("seconds", "bytes_per_weight")}
            spread = {key: stdev(v) if len(v) > 1 else 0.0 for key, v in values.items()}
            table[title] = {key: {"mean": fmean(v), "sd": spread[key]} for key, v in values.items()}
            table[title] |= {"seeds": len(own), "settings": own[0]["settings"]}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=tuple(SETUPS), default="digits")
    parser.add_argument("--data-dir", help="where the files of mnist lie")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    setup = SETUPS[args.data]
    path = args.out or RESULTS / ("integer.json" if args.data == "digits" else f"integer-{args.data}.json")
    results: dict[str, Any] = {"machine": machine(), "draws": DRAWS, "epochs": setup.epochs} | read(path)
    results["hidden"], results["levels"] = setup.hidden, setup.levels

    def parts(seed: int) -> Split:
        return split(data.load(args.data, args.data_dir, seed, validation=True), setup.levels)

    tuning = {seed: parts(seed) for seed in setup.tuning_seeds}
    for name in args.methods:
        done = results.setdefault("tuning", {}).setdefault(name, [])
        for settings in METHODS[name][1][len(done) : setup.trials]:
            runs = [run(name, settings, tuning[seed], setup, seed) for seed in setup.tuning_seeds]
            found = {key: fmean(one["rows"][name][key] for one in runs) for key in ("val_nll", "val_accuracy")}
            done.append({"settings": settings, **found})
            say(name, done[-1])
            write(path, results)
        results.setdefault("chosen", {})[name] = min(done, key=lambda trial: trial["val_nll"])["settings"]
    for seed in range(args.seeds):
        own = parts(seed)
        for name in args.methods:
            runs = results.setdefault("runs", {}).setdefault(name, [])
            if all(one["seed"] != seed for one in runs):
                runs.append(run(name, results["chosen"][name], own, setup, seed))
                say(name, seed, {title: f"{row['accuracy']:.4f}" for title, row in runs[-1]["rows"].items()})
                results["table"] = summarise(results["runs"])
                write(path, results)


if __name__ == "__main__":
    main()
