"""CIFAR-10 with the published VGG-like network: one command trains, resumes, evaluates and records a run.

    python benchmarks/cifar10.py --data-dir DIR                                   the published recipe: a GPU's day
    python benchmarks/cifar10.py --data-dir DIR --width 0.125 --epochs 10 --train 10000    minutes on a CPU
    python benchmarks/cifar10.py --data-dir DIR --methods ste --seeds 0 1 2

128-128-pool, 256-256-pool, 512-512-pool, 1024-1024-10 times `--width`, all weights ±1, batch norm, ReLU; batches of 50,
images shifted by up to 4 pixels and mirrored at random, rates along a cosine to 0 over the epochs (500 published). An
interrupted run goes on from its last epoch and ends as if it had not been; one that is recorded is not repeated.

Published with these sizes, means over 5 runs: BayesBiNN 93.72 ± 0.16 %, straight-through Adam 93.55 ± 0.15 %, float
93.90 ± 0.17 %, the test accuracy of the epoch that was best on validation data; here it is that of the last epoch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn.data import Dataset, batches, load
from varbnn.optim import BayesBiNN, StraightThrough
from varbnn.posteriors import Bernoulli, Point, Posterior

BATCH, REFRESH, SHIFT = 50, 10_000, 4
AUGMENTATION = 10
"""How many times more than the images count for the published settings, whose images are varied."""
Parameters = Iterable[nn.Parameter]


@dataclass(frozen=True)
class Method:
    """A posterior (None: real weights), its rule, and whether batch norm has scale and shift.

    Attributes:
        rule: (parameters, number of training images) → optimizer.
    """

    posterior: Posterior | None
    rule: Callable[[Parameters, int], torch.optim.Optimizer]
    affine: bool = True


METHODS = {
    "posterior": Method(
        Bernoulli(), lambda p, n: BayesBiNN(p, lr=1e-3, dataset_size=n, temperature=1 / 60, real_lr=1e-2)
    ),
    "ste": Method(Point(), lambda p, n: StraightThrough(p, lr=1e-3, real_lr=3e-3)),
    "published bayesbinn": Method(
        Bernoulli("concrete", relaxation=1e-10, numerics="reference", init="sign", init_scale=10.0),
        lambda p, n: BayesBiNN(p, lr=3e-4, dataset_size=AUGMENTATION * n),
        affine=False,
    ),
    "published ste": Method(Point(), lambda p, n: StraightThrough(p, lr=1e-2, real_lr=1e-2), affine=False),
    "float": Method(None, lambda p, n: torch.optim.Adam(p, lr=1e-3)),
}
"""Of "posterior", "ste" and "float", rates and temperature are those that Fashion-MNIST chose, not tuned here."""


def network(width: float, affine: bool = True) -> nn.Sequential:
    """Takes flat images; pooling comes before batch norm, as published."""
    channels = [max(4, round(width * full)) for full in (128, 128, 256, 256, 512, 512)]
    dense = max(8, round(width * 1024))
    layers: list[nn.Module] = [nn.Unflatten(1, (3, 32, 32))]
    before = 3
    for number, after in enumerate(channels):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        if number % 2:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(after, momentum=0.2, affine=affine), nn.ReLU()]
        before = after
    layers.append(nn.Flatten())
    before *= 16
    for after in (dense, dense, 10):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after, affine=affine), nn.ReLU()]
        before = after
    return nn.Sequential(*layers[:-1])


class Varied:
    """Batches of flat images, each image shifted and mirrored anew; `generator` decides all, so that a run resumes."""

    def __init__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        self.loader, self.generator = batches(x, y, BATCH, generator), generator

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.loader:
            yield self.vary(x.view(-1, 3, 32, 32)).flatten(1), y

    def vary(self, images: Tensor) -> Tensor:
        """What comes in from outside is 0, the mean colour."""
        count = len(images)
        padded = F.pad(images, (SHIFT, SHIFT, SHIFT, SHIFT))
        corners = torch.randint(2 * SHIFT + 1, (2, count, 1), generator=self.generator)
        rows, columns = (corner + torch.arange(32) for corner in corners)
        mirrored = torch.rand(count, 1, generator=self.generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
        own = torch.arange(count)[:, None, None, None]
        return padded[own, torch.arange(3)[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def run(name: str, data: Dataset, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train once, to the end or on from where it was interrupted, and test."""
    method = METHODS[name]
    torch.manual_seed(seed)
    model = network(args.width, method.affine)
    if method.posterior is not None:
        vb.binarize(model, method.posterior)
    model.to(args.device)
    optimizer = method.rule(model.parameters(), len(data.train_x))
    args.checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoint = args.checkpoints / f"cifar10 {name} {args.width:g} {args.epochs} {len(data.train_x)} {seed}.pt"
    start = time.process_time()
    history = vb.fit(
        model,
        optimizer,
        Varied(data.train_x, data.train_y, torch.Generator().manual_seed(seed)),
        epochs=args.epochs,
        scheduler=CosineAnnealingLR(optimizer, args.epochs),
        checkpoint=checkpoint,
        label=f"{name}, seed {seed}",
    )
    seconds = time.process_time() - start
    scores = tested(name, model, data, args, seed)
    checkpoint.unlink()
    loss = history[-1]["loss"]
    return {"seed": seed, **scores, "train_loss": loss, "processor_seconds_since_last_start": seconds}


def tested(name: str, model: nn.Module, data: Dataset, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What the mean of draws scores, and the mode by itself."""
    device, refresh = args.device, data.train_x[:REFRESH].to(args.device)
    draws = isinstance(METHODS[name].posterior, Bernoulli)

    def asked(x: Tensor, samples: int) -> vb.Prediction:
        generator = torch.Generator(device).manual_seed(seed)  # the same networks for every x
        pred = vb.predict(model, x.to(device), samples, generator=generator, refresh_bn=refresh)
        return vb.Prediction(pred.probs.cpu())

    def scores(samples: int) -> dict[str, float]:
        ood = None if data.ood_x is None else asked(data.ood_x, samples)
        return dict(vb.evaluate(asked(data.test_x, samples), data.test_y, ood=ood))

    mode = scores(0)
    result: dict[str, Any] = {**scores(args.samples), "mode": mode} if draws else dict(mode)
    if draws:
        result["entropy_bits"] = vb.health(model, warn=False).entropy_bits
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=["posterior", "ste", "float"], metavar="METHOD"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--width", type=float, default=1.0, help="times the published numbers of channels and units")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--train", type=int, help="only so many of the training images")
    parser.add_argument("--test", type=int, help="only so many of the test images")
    parser.add_argument("--samples", type=int, default=16, help="draws of a prediction")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoints", type=Path, default=Path("varbnn-demo"))
    parser.add_argument("--out", type=Path, default=RESULTS / "cifar10.json")
    args = parser.parse_args()
    whole = load("cifar10", args.data_dir)
    train, test = slice(args.train), slice(args.test)
    data = replace(
        whole,
        train_x=whole.train_x[train],
        train_y=whole.train_y[train],
        test_x=whole.test_x[test],
        test_y=whole.test_y[test],
    )
    size = f"width {args.width:g}, {args.epochs} epochs, {len(data.train_x):,} images"
    for seed in args.seeds:
        for name in args.methods:
            results = read(args.out) or {"runs": {}}
            runs = results["runs"].setdefault(size, {}).setdefault(name, [])
            if all(done["seed"] != seed for done in runs):
                runs.append(run(name, data, args, seed) | {"device": args.device})
                write(args.out, {"machine": machine(), **{k: v for k, v in results.items() if k != "machine"}})
                say(size, name, runs[-1])


if __name__ == "__main__":
    main()
