"""Every rule on the same network: what each remembers, how it decides, and what comes of it.

Eight pairs of a posterior and an optimizer train one network each on handwritten digits, for the same epochs on the
same batches. They differ in one line, which `RULES` below has for each.

    python examples/03_compare_rules.py            under two minutes
    python examples/03_compare_rules.py --smoke    a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import varbnn as vb
from varbnn import data
from varbnn.errors import MissingExtraError
from varbnn.optim import VISPA, BayesBiNN, Bop, Bop2ndOrder, GaussianBLR, GradientFilter, Rule, StraightThrough
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point, Posterior, belief_of

RULES: dict[str, tuple[Posterior, Callable[..., Rule]]] = {
    # one network: a real number for every weight, whose sign is the weight
    "straight-through": (Point(), lambda p, size: StraightThrough(p, lr=3e-3, real_lr=1e-2)),
    # one network, no such number: the weight is kept, and flips when an average of its gradient says so,
    "Bop": (Point(), lambda p, size: Bop(p, gamma=1e-3, threshold=1e-8, real_lr=2e-2)),
    # ... when the average is large beside its own spread,
    "second-order Bop": (Point(), lambda p, size: Bop2ndOrder(p, gamma=1e-2, sigma=1e-3, threshold=1e-3, real_lr=1e-2)),
    # ... or as soon as an average of averages turns
    "gradient filter": (Point(), lambda p, size: GradientFilter(p, alpha=1e-4, gamma=0.1, real_lr=1e-2)),
    # a coin for every weight, tossed at every step
    "BayesBiNN": (
        Bernoulli(),
        lambda p, size: BayesBiNN(p, lr=3e-3, dataset_size=size, temperature=1 / 1000, real_lr=3e-2),
    ),
    # the same coins, but in training a layer draws its outputs and not its weights
    "moment propagation": (
        Bernoulli(estimator="moments"),
        lambda p, size: BayesBiNN(p, lr=3e-3, dataset_size=size, temperature=1 / 1000, real_lr=2e-2),
    ),
    # the sign of a normal latent, drawn at every step
    "Gaussian BLR": (
        Gaussian(),
        lambda p, size: GaussianBLR(p, lr=1e-2, dataset_size=size, temperature=1 / 1000, real_lr=2e-2),
    ),
    # the signs of latents that a few normal numbers move together
    "VISPA": (LowRankGaussian(rank=4), lambda p, size: VISPA(p, lr=30.0, weight_decay=1e-5, real_lr=1e-2)),
}


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed but the rules' own numbers, which are in `RULES`."""

    seed: int = 0
    width: int = 256
    epochs: int = 100
    batch_size: int = 100
    num_samples: int = 32
    folder: str = "varbnn-demo"


SMOKE = dict(width=32, epochs=2, num_samples=2)

COLUMNS = dict.fromkeys(("accuracy", "nll", "ece", "ood_auroc"), "{:.4f}")
COLUMNS |= dict(entropy_bits="{:.2f}", flips_per_step="{:.1f}", ms_per_step="{:.1f}", bytes_per_weight="{:.0f}")


def network(inputs: int, width: int) -> nn.Sequential:
    """Two hidden layers, 10 classes; the last batch norm gives the logits a learned scale."""
    hidden = [
        layer
        for a, b in itertools.pairwise((inputs, width, width))
        for layer in (nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(width, 10, bias=False), nn.BatchNorm1d(10))


def compared(name: str, settings: Settings, digits: data.Dataset) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Train with one of the `RULES`: what the network is worth and what the rule costs, and how it went."""
    posterior, rule = RULES[name]
    torch.manual_seed(settings.seed)
    model = vb.binarize(network(digits.train_x.shape[1], settings.width), posterior)
    optimizer = rule(model.parameters(), len(digits.train_x))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    order = torch.Generator().manual_seed(settings.seed)  # its own, as draws take from torch's
    loader = data.batches(digits.train_x, digits.train_y, settings.batch_size, order)
    start = time.process_time()
    history = vb.fit(model, optimizer, loader, epochs=settings.epochs, scheduler=scheduler, label=f"{name:<18}")
    seconds = time.process_time() - start

    ask = dict(num_samples=0 if isinstance(posterior, Point) else settings.num_samples, refresh_bn=digits.train_x)
    measured = vb.evaluate(
        vb.predict(model, digits.test_x, **ask), digits.test_y, ood=vb.predict(model, digits.ood_x, **ask)
    )
    state = vb.health(model, warn=False)
    beliefs = [p for p in model.parameters() if belief_of(p) is not None]
    kept = [tensor for p in beliefs for tensor in (p, *optimizer.state[p].values())]
    found = {
        **measured,
        "entropy_bits": state.entropy_bits,
        "flips_per_step": statistics.fmean(row["step_flips"] for row in history[1:] or history),
        "ms_per_step": 1e3 * seconds / (settings.epochs * len(loader)),
        "bytes_per_weight": sum(t.numel() * t.element_size() for t in kept) / state.weights,
    }
    return {column: round(found[column], 4) for column in COLUMNS}, history


def main(settings: Settings) -> dict[str, object]:
    begun = time.perf_counter()
    torch.set_num_threads(1)  # fastest for a network this small
    try:
        digits = data.load("digits")
    except MissingExtraError as missing:
        raise SystemExit(str(missing)) from None
    rows, histories = {}, {}
    for name in RULES:
        rows[name], histories[name] = compared(name, settings, digits)

    print("\n" + " " * 18 + "".join(f"  {column:>6}" for column in COLUMNS))
    for name, row in rows.items():
        cells = (f"  {form.format(row[key]):>{max(6, len(key))}}" for key, form in COLUMNS.items())
        print(f"{name:<18}" + "".join(cells))
    print("\nflips: of the most probable signs, in the first step of an epoch, mean over all epochs but the first")
    print("ms: processor time of both passes and the rule; bytes: of the belief and of the rule's memory of it")
    figure: str | None = str(Path(settings.folder) / "03_rules.png")
    try:
        drawing = vb.plots.training_curves(histories, ["loss", "accuracy", "entropy_bits", "flips"])
        Path(settings.folder).mkdir(parents=True, exist_ok=True)
        drawing.savefig(figure, dpi=150)
    except MissingExtraError as missing:
        figure = None
        print(missing)
    print(figure)
    return {"rules": rows, "figure": figure, "seconds": round(time.perf_counter() - begun, 1)}


if __name__ == "__main__":
    chosen = replace(Settings(), **SMOKE) if "--smoke" in sys.argv[1:] else Settings()
    print(json.dumps(main(chosen)))
