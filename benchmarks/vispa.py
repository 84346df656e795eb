"""VISPA on digits: a small replication, and what is left of it beside others that may average as many networks.

    python benchmarks/vispa.py

Pixels as thermometers, 256 bits; 256-256-256-10 with batch norm; 540 images to test. Part "toy": 40 draws, learning
rates as they were found on such a split, batches of 32. Part "equal": each method gets the same number of trials for
its learning rate, chosen by the validation NLL of its 16 networks, which are draws of a posterior, or snapshots after
each of the last 16 epochs where there is no posterior. Results are written after every run, and one that is there
already is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

import varbnn as vb
from varbnn.optim import VISPA, BayesBiNN, Rule, StraightThrough
from varbnn.posteriors import Bernoulli, LowRankGaussian, Point, Posterior

EPOCHS, HIDDEN, TOY_BATCH, BATCH = 30, 256, 32, 64
THRESHOLDS = (2, 6, 10, 14)
Split = tuple[Tensor, Tensor]

TOY: dict[str, tuple[bool, int, float, str]] = {
    "1W1A K=0": (True, 0, 3.0, "none"),
    "1W1A K=2": (True, 2, 3.0, "none"),
    "1W1A K=4": (True, 4, 3.0, "none"),
    "1W1A K=8": (True, 8, 3.0, "none"),
    "1W32A K=0": (False, 0, 1.0, "none"),
    "1W32A K=4": (False, 4, 1.0, "none"),
    "1W32A K=8": (False, 8, 1.0, "none"),
    "1W32A K=4, unit, lr 0.1": (False, 4, 0.1, "unit"),
    "1W32A K=4, unit, lr 0.5": (False, 4, 0.5, "unit"),
    "1W32A K=4, unit, lr 4": (False, 4, 4.0, "unit"),
    "1W32A K=4, unit, lr 30": (False, 4, 30.0, "unit"),
}
"""Binary activations or not, rank, learning rate, constraint."""

SAMPLES, TUNING_SEEDS = 16, (100, 101)
Make = Callable[[list[nn.Parameter], float, int], Rule]
METHODS: dict[str, tuple[Posterior, Make, tuple[float, ...], bool]] = {
    "vispa": (
        LowRankGaussian(rank=4),
        lambda p, lr, n: VISPA(p, lr=lr, weight_decay=1e-5),
        (0.3, 1.0, 3.0, 10.0, 30.0),
        True,
    ),
    "no factors": (
        LowRankGaussian(rank=0),
        lambda p, lr, n: VISPA(p, lr=lr, weight_decay=1e-5),
        (0.3, 1.0, 3.0, 10.0, 30.0),
        False,
    ),
    "ste": (Point(), lambda p, lr, n: StraightThrough(p, lr=lr), (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), False),
    "bayesbinn": (
        Bernoulli(),
        lambda p, lr, n: BayesBiNN(p, lr=lr, dataset_size=n, temperature=1e-3),
        (1e-3, 3e-3, 1e-2, 3e-2, 3e-4),
        True,
    ),
}
"""Posterior, optimizer, learning rates to try, whether its networks are draws (else snapshots)."""


def data() -> dict[str, Split]:
    """Train 1006, validation 251, test 540 images as ±1 thermometers."""
    digits = load_digits()
    x = torch.from_numpy(digits.data)
    bits = torch.cat([torch.where(x > t, 1.0, -1.0) for t in THRESHOLDS], 1).float()
    places = torch.arange(len(bits)).numpy()
    whole, test = train_test_split(places, test_size=540, random_state=0, stratify=digits.target)
    train, val = train_test_split(whole, test_size=251, random_state=0, stratify=digits.target[whole])
    target = torch.from_numpy(digits.target)
    chosen = {"whole": whole, "train": train, "val": val, "test": test}
    return {name: (bits[i], target[i]) for name, i in chosen.items()}


def network(posterior: Posterior, binary: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((256, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 10)):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]
        layers += [vb.nn.Sign("polynomial") if binary else nn.ReLU()] * (outputs != 10)
    return vb.binarize(nn.Sequential(*layers), posterior)


def trained(
    model: nn.Module,
    optimizer: Rule,
    split: Split,
    batch: int,
    seed: int,
    after: Callable[[int], None] | None = None,
) -> None:
    """Thirty epochs along a cosine to 0; `after` is called with the number of every epoch."""
    x, y = split
    steps = EPOCHS * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            if len(rows) < batch:
                continue
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
        if after is not None:
            after(epoch)


def accuracy(scores: Tensor, y: Tensor) -> float:
    """Per cent; of each network where `scores` are S×N×C, averaged."""
    return 100 * float((scores.argmax(-1) == y).double().mean())


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, draws: int, seed: int) -> Tensor:
    """Of `draws` networks with the batch-norm statistics of training, as the published code tests."""
    model.eval()
    generator, outputs = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        with vb.nn.sampled(model, generator):
            outputs.append(model(x))
    return torch.stack(outputs)


def toy_run(name: str, seed: int, splits: dict[str, Split]) -> dict[str, Any]:
    binary, rank, lr, constraint = TOY[name]
    torch.manual_seed(seed)
    model = network(LowRankGaussian(rank=rank, constraint=constraint), binary)
    trained(model, VISPA(model.parameters(), lr=lr, weight_decay=1e-5), splits["whole"], TOY_BATCH, seed)
    x, y = splits["test"]
    networks = logits(model, x, 40, seed)
    with torch.no_grad():
        mode = model(x)
    layers = [layer for _, layer in vb.nn.binary_layers(model)]
    ratios = [(1 / layer.posterior.standardised(*layer.belief).abs()).flatten() for layer in layers]
    return {
        "seed": seed,
        "single": accuracy(networks, y),
        "ensemble": accuracy(networks.mean(0), y),
        "mode": accuracy(mode, y),
        "median_spread": float(torch.cat(ratios).median().detach()),
    }


def equal_run(method: str, lr: float, seed: int, splits: dict[str, Split]) -> dict[str, Any]:
    """Train on the training part; look at mode, single networks, their average and the best one on validation data."""
    posterior, make, _, draws = METHODS[method]
    torch.manual_seed(seed)
    model, snapshots = network(posterior, binary=False), []
    x, y = splits["train"]

    def snapshot(epoch: int) -> None:
        if not draws and epoch > EPOCHS - SAMPLES:
            snapshots.append({key: value.clone() for key, value in model.state_dict().items()})

    trained(model, make(list(model.parameters()), lr, len(x)), splits["train"], BATCH, seed, snapshot)
    both = torch.cat([splits["val"][0], splits["test"][0]])

    def probabilities(count: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.as_tensor(vb.predict(model, both, count, generator=generator, refresh_bn=x).probs)

    mode = probabilities(0)[0]
    if draws:
        networks = probabilities(SAMPLES)
    else:
        every = []
        for state in snapshots:
            model.load_state_dict(state)
            every.append(probabilities(0)[0])
        networks = torch.stack(every)
    cut = len(splits["val"][0])
    val, test = networks[:, :cut], networks[:, cut:]
    best = min(range(SAMPLES), key=lambda s: nll(val[s], splits["val"][1]))
    y = splits["test"][1]
    shown = {"mode": mode[cut:], "ensemble": test.mean(0), "best": test[best]}
    row: dict[str, Any] = {name: {"accuracy": accuracy(p, y), "nll": nll(p, y)} for name, p in shown.items()}
    row["single"] = {"accuracy": accuracy(test, y), "nll": statistics.fmean(nll(p, y) for p in test)}
    return {"seed": seed, "lr": lr, "val_nll": nll(val.mean(0), splits["val"][1]), **row}


def nll(probs: Tensor, y: Tensor) -> float:
    return float(F.nll_loss(probs.double().clamp_min(1e-12).log(), y))


def toy(results: dict[str, Any], path: Path, seeds: int, splits: dict[str, Split]) -> None:
    runs = results.setdefault("toy", {}).setdefault("runs", {})
    for seed in range(seeds):
        for name in TOY:
            own = runs.setdefault(name, [])
            if all(run["seed"] != seed for run in own):
                own.append(toy_run(name, seed, splits))
                say(name, own[-1])
                write(path, results)
    keys = ("single", "ensemble", "mode", "median_spread")
    results["toy"]["table"] = {name: {k: spread([run[k] for run in own]) for k in keys} for name, own in runs.items()}


def equal(results: dict[str, Any], path: Path, seeds: int, splits: dict[str, Split]) -> None:
    part = results.setdefault("equal", {})
    for method, (_, _, rates, _) in METHODS.items():
        trials = part.setdefault("tuning", {}).setdefault(method, [])
        for lr in rates[len(trials) :]:
            losses = [equal_run(method, lr, seed, splits)["val_nll"] for seed in TUNING_SEEDS]
            trials.append({"lr": lr, "val_nll": statistics.fmean(losses)})
            say(method, trials[-1])
            write(path, results)
        part.setdefault("chosen", {})[method] = min(trials, key=lambda trial: trial["val_nll"])["lr"]
    for seed in range(seeds):
        for method in METHODS:
            own = part.setdefault("runs", {}).setdefault(method, [])
            own[:] = [run for run in own if run["lr"] == part["chosen"][method]]
            if all(run["seed"] != seed for run in own):
                own.append(equal_run(method, part["chosen"][method], seed, splits))
                say(method, own[-1])
                write(path, results)
    kinds, measures = ("mode", "single", "ensemble", "best"), ("accuracy", "nll")
    part["table"] = {
        method: {kind: {m: spread([run[kind][m] for run in own]) for m in measures} for kind in kinds}
        for method, own in part["runs"].items()
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("toy", "equal"), default=("toy", "equal"))
    parser.add_argument("--toy-seeds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "vispa.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    splits = data()
    results: dict[str, Any] = {"machine": machine(), "num_samples": SAMPLES, "epochs": EPOCHS} | read(args.out)
    if "toy" in args.parts:
        toy(results, args.out, args.toy_seeds, splits)
    if "equal" in args.parts:
        equal(results, args.out, args.seeds, splits)
    write(args.out, results)


if __name__ == "__main__":
    main()
