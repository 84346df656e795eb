"""As many networks for everybody: what VISPA's vote is worth beside a vote of snapshots or of other draws.

The part "equal" of `vispa.py`. Each method gets the same number of trials for its learning rate, chosen by the
validation NLL of its 16 networks, which are draws of a posterior, or snapshots along the second half of the run where
there is no posterior. All train on the training part alone, so that the validation part can also name the best network.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import say, write
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

import varbnn as vb
from varbnn.data import load
from varbnn.optim import VISPA, BayesBiNN, Rule, StraightThrough
from varbnn.posteriors import Bernoulli, LowRankGaussian, Point, Posterior

THRESHOLDS = (2, 6, 10, 14)
SAMPLES = 16
KINDS, MEASURES = ("mode", "single", "ensemble", "best"), ("accuracy", "nll")
Split = tuple[Tensor, Tensor]
Make = Callable[[list[nn.Parameter], float, float, int], Rule]
Rates = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Setup:
    """A data set's network, budget and trials.

    Attributes:
        widths: of the layers, inputs and outputs included.
        epochs, batch: the budget of every run.
        gap: between two snapshots, as a share of the run, with the end of which the last one is taken.
        refresh: training inputs, at most, from which a network's batch norms are re-estimated.
        tuning_seeds: whose mean decides a trial.
        methods: posterior, optimizer of (parameters, lr, real_lr, size of the training data), pairs of lr and real_lr
            (of the batch norms) to try, and whether its networks are draws (else snapshots).
    """

    widths: tuple[int, ...]
    epochs: int
    batch: int
    gap: float
    refresh: int
    tuning_seeds: tuple[int, ...]
    methods: dict[str, tuple[Posterior, Make, Rates, bool]]

    def trials(self, method: str) -> list[dict[str, float]]:
        return [{"lr": lr, "real_lr": real_lr} for lr, real_lr in self.methods[method][2]]


def around(low: float, high: float, other: float) -> Rates:
    """Four trials: three rates, and `low` with a larger one of the batch norms."""
    return ((low, 1e-2), (high, 1e-2), (other, 1e-2), (low, 3e-2))


def methods(
    vispa: Rates, ste: Rates, bayes: Rates, temperature: float
) -> dict[str, tuple[Posterior, Make, Rates, bool]]:
    """The four methods with their learning rates to try."""

    def latent(p: list[nn.Parameter], lr: float, real_lr: float, size: int) -> Rule:
        return VISPA(p, lr=lr, weight_decay=1e-5, real_lr=real_lr)

    def adam(p: list[nn.Parameter], lr: float, real_lr: float, size: int) -> Rule:
        return StraightThrough(p, lr=lr, real_lr=real_lr)

    def natural(p: list[nn.Parameter], lr: float, real_lr: float, size: int) -> Rule:
        return BayesBiNN(p, lr=lr, real_lr=real_lr, dataset_size=size, temperature=temperature)

    return {
        "vispa": (LowRankGaussian(rank=4), latent, vispa, True),
        "no factors": (LowRankGaussian(rank=0), latent, vispa, False),
        "ste": (Point(), adam, ste, False),
        "bayesbinn": (Bernoulli(), natural, bayes, True),
    }


DIGITS = Setup(
    widths=(256, 256, 256, 10),
    epochs=30,
    batch=64,
    gap=1 / 30,
    refresh=10_000,
    tuning_seeds=(100, 101),
    methods=methods(
        tuple((lr, 1e-2) for lr in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)),
        tuple((lr, 1e-2) for lr in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)),
        tuple((lr, 1e-2) for lr in (1e-3, 3e-3, 1e-2, 3e-2, 3e-4, 1e-1, 1e-4)),
        temperature=1e-3,
    ),
)
IMAGES = Setup(
    widths=(784, 256, 256, 10),
    epochs=3,
    batch=100,
    gap=0.5 / SAMPLES,
    refresh=5_000,
    tuning_seeds=(100,),
    methods=methods(
        around(10.0, 30.0, 3.0),
        around(3e-3, 1e-2, 1e-3),
        around(1e-3, 3e-3, 1e-2),
        temperature=1e-2,
    ),
)
SETUPS = {"digits": DIGITS, "mnist": IMAGES, "fashion": IMAGES}


def digits(split: int = 0) -> dict[str, Split]:
    """Train 1006, validation 251, test 540 images as ±1 thermometers; `split` says which images are the test."""
    found = load_digits()
    x = torch.from_numpy(found.data)
    bits = torch.cat([torch.where(x > t, 1.0, -1.0) for t in THRESHOLDS], 1).float()
    places = torch.arange(len(bits)).numpy()
    whole, test = train_test_split(places, test_size=540, random_state=split, stratify=found.target)
    train, val = train_test_split(whole, test_size=251, random_state=split, stratify=found.target[whole])
    target = torch.from_numpy(found.target)
    chosen = {"whole": whole, "train": train, "val": val, "test": test}
    return {name: (bits[i], target[i]) for name, i in chosen.items()}


def images(name: str, data_dir: str | None) -> dict[str, Split]:
    """Train 50000, validation 10000, test 10000 standardised images of MNIST or Fashion-MNIST."""
    found = load(name, data_dir, validation=True)
    assert found.val_x is not None
    assert found.val_y is not None
    pairs = {"train": (found.train_x, found.train_y), "val": (found.val_x, found.val_y)}
    return {**pairs, "test": (found.test_x, found.test_y)}


def network(posterior: Posterior, widths: tuple[int, ...], binary: bool = False) -> nn.Module:
    layers: list[nn.Module] = []
    for number in range(1, len(widths)):
        layers += [nn.Linear(widths[number - 1], widths[number], bias=False), nn.BatchNorm1d(widths[number])]
        layers += [vb.nn.Sign("polynomial") if binary else nn.ReLU()] * (number + 1 < len(widths))
    return vb.binarize(nn.Sequential(*layers), posterior)


def trained(
    model: nn.Module,
    optimizer: Rule,
    split: Split,
    setup: tuple[int, int],
    seed: int,
    after: Callable[[int, int], None] | None = None,
) -> None:
    """So many epochs in batches of that size, along a cosine to 0; `after` is called with every step and their number.

    A last batch that is not full is left out.
    """
    (x, y), (epochs, batch) = split, setup
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator, step = torch.Generator().manual_seed(seed), 0
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            if len(rows) < batch:
                continue
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
            step += 1
            if after is not None:
                after(step, steps)


def accuracy(scores: Tensor, y: Tensor) -> float:
    """Per cent; of each network where `scores` are S×N×C, averaged."""
    return 100 * float((scores.argmax(-1) == y).double().mean())


def nll(probs: Tensor, y: Tensor) -> float:
    return float(F.nll_loss(probs.double().clamp_min(1e-12).log(), y))


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def run(setup: Setup, method: str, rates: dict[str, float], seed: int, splits: dict[str, Split]) -> dict[str, Any]:
    """Train on the training part; look at mode, single networks, their average and the best one on validation data."""
    posterior, make, _, draws = setup.methods[method]
    torch.manual_seed(seed)
    model, snapshots = network(posterior, setup.widths), []
    x, y = splits["train"]
    gap = round(setup.gap * setup.epochs * (len(x) // setup.batch))

    def snapshot(step: int, steps: int) -> None:
        left = steps - step
        if left % gap == 0 and left < SAMPLES * gap:
            snapshots.append({key: value.clone() for key, value in model.state_dict().items()})

    optimizer = make(list(model.parameters()), rates["lr"], rates["real_lr"], len(x))
    trained(model, optimizer, splits["train"], (setup.epochs, setup.batch), seed, None if draws else snapshot)
    both = torch.cat([splits["val"][0], splits["test"][0]])

    def probabilities(count: int) -> Tensor:
        generator, inputs = torch.Generator().manual_seed(seed), x[: setup.refresh]
        return torch.as_tensor(vb.predict(model, both, count, generator=generator, refresh_bn=inputs).probs)

    mode = probabilities(0)[0]
    if draws:
        networks = probabilities(SAMPLES)
    else:
        every = []
        for state in snapshots:
            model.load_state_dict(state)
            every.append(probabilities(0)[0])
        networks = torch.stack(every)
    assert len(networks) == SAMPLES
    cut = len(splits["val"][0])
    val, test = networks[:, :cut], networks[:, cut:]
    best = min(range(SAMPLES), key=lambda s: nll(val[s], splits["val"][1]))
    y = splits["test"][1]
    shown = {"mode": mode[cut:], "ensemble": test.mean(0), "best": test[best]}
    row: dict[str, Any] = {name: {"accuracy": accuracy(p, y), "nll": nll(p, y)} for name, p in shown.items()}
    row["single"] = {"accuracy": accuracy(test, y), "nll": statistics.fmean(nll(p, y) for p in test)}
    return {"seed": seed, **rates, "val_nll": nll(val.mean(0), splits["val"][1]), **row}


def equal(results: dict[str, Any], path: Path, seeds: int, setup: Setup, splits: dict[str, Split]) -> None:
    """Choose every method's learning rate, then run it with every seed."""
    part = results.setdefault("equal", {})
    for method in setup.methods:
        trials = part.setdefault("tuning", {}).setdefault(method, [])
        for rates in setup.trials(method)[len(trials) :]:
            runs = [run(setup, method, rates, seed, splits) for seed in setup.tuning_seeds]
            trials.append({**rates, "val_nll": statistics.fmean(one["val_nll"] for one in runs)})
            say(method, trials[-1])
            write(path, results)
        best = min(trials, key=lambda trial: trial["val_nll"])
        part.setdefault("chosen", {})[method] = {key: best[key] for key in ("lr", "real_lr")}
    for seed in range(seeds):
        for method in setup.methods:
            own = part.setdefault("runs", {}).setdefault(method, [])
            chosen = part["chosen"][method]
            own[:] = [one for one in own if chosen.items() <= one.items()]
            if all(one["seed"] != seed for one in own):
                own.append(run(setup, method, chosen, seed, splits))
                say(method, own[-1])
                write(path, results)
    part["table"] = {
        method: {
            **{kind: {m: spread([one[kind][m] for one in own]) for m in MEASURES} for kind in KINDS},
            "gain": {m: spread([one["ensemble"][m] - one["single"][m] for one in own]) for m in MEASURES},
        }
        for method, own in part["runs"].items()
    }
