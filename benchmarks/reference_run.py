"""Does ``numerics="reference"`` train like the published code? One whole run on the digits, seed by seed.

    python benchmarks/reference_run.py

The settings are those published for MNIST (relaxation 1e-10, λ = ±10, lr 1e-4, one draw per step): 64-256-256-10 with
batch norm without scale after every layer, 100 epochs of batches of 100, cosine to 1e-16 stepped at the start of an
epoch, prior 0, the last epoch's network, running batch-norm statistics. PUBLISHED holds what the authors' optimizer and
layers gave under this protocol, per seed. Exact numerics with the same settings are reported beside it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import nn

import varbnn as vb
from varbnn import data
from varbnn.errors import VarbnnWarning

PUBLISHED = {
    "accuracy": (0.9889, 0.9861, 0.9833),
    "nll": (0.3793, 0.3761, 0.3735),
    "ece": (0.2904, 0.2816, 0.2751),
    "train_loss": (0.328, 0.335, 0.339),
}
EPOCHS = 100


def network() -> nn.Sequential:
    """As published: no biases, batch norm without scale also after the head."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((64, 256), (256, 256), (256, 10)):
        norm = nn.BatchNorm1d(fan_out, eps=1e-4, momentum=0.15, affine=False)
        layers += [nn.Linear(fan_in, fan_out, bias=False), norm, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def run(numerics: str, seed: int) -> dict[str, Any]:
    """One training run and its test scores, with the mode as the published code takes it."""
    digits = data.load("digits")
    torch.manual_seed(seed)
    posterior = vb.posteriors.Bernoulli("concrete", relaxation=1e-10, numerics=numerics, init="sign", init_scale=10.0)
    model = vb.binarize(network(), posterior)
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=1e-4, dataset_size=len(digits.train_x))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: cosine(epoch + 1))
    loader = data.batches(digits.train_x, digits.train_y, 100, torch.Generator().manual_seed(1000 + seed))
    history = vb.fit(model, optimizer, loader, epochs=EPOCHS, scheduler=schedule, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VarbnnWarning)  # the published evaluation keeps the running statistics
        scores = vb.evaluate(vb.predict(model, digits.test_x, num_samples=0), digits.test_y)
    return {
        "seed": seed,
        "train_loss": history[-1]["loss"],
        "entropy_bits": history[-1]["entropy_bits"],
        **{key: float(scores[key]) for key in ("accuracy", "nll", "ece")},
    }


def cosine(epoch: int) -> float:
    """The published schedule: 1 at epoch 0, nothing at the last."""
    return max((1 + math.cos(math.pi * epoch / EPOCHS)) / 2, 1e-12)


def compare(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Difference from the published numbers, in standard errors of that difference."""
    table = {}
    for key, published in PUBLISHED.items():
        ours = [r[key] for r in runs]
        errors = [statistics.stdev(v) / math.sqrt(len(v)) for v in (ours, published)]
        difference = statistics.fmean(ours) - statistics.fmean(published)
        table[key] = {
            "published": statistics.fmean(published),
            "ours": statistics.fmean(ours),
            "standard_errors_apart": difference / math.hypot(*errors),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS / "reference-run.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = read(args.out) | {"machine": machine()}
    for numerics in ("reference", "exact"):
        runs = results.setdefault(numerics, {"runs": []})["runs"]
        for seed in range(len(runs), args.seeds):
            runs.append(run(numerics, seed))
            say(numerics, runs[-1])
            write(args.out, results)
        results[numerics]["table"] = compare(runs)
    write(args.out, results)
    for numerics in ("reference", "exact"):
        for key, row in results[numerics]["table"].items():
            print(f"{numerics:10} {key:11}", *(f"{name} {value:.4f}" for name, value in row.items()), sep="  ")


if __name__ == "__main__":
    main()
