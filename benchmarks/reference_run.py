"""Does ``numerics="reference"`` train like the published code? One whole run on the digits, seed by seed.

    python benchmarks/reference_run.py

The settings are those published for MNIST (relaxation 1e-10, λ = ±10, lr 1e-4, one draw per step): 64-256-256-10 with
batch norm without scale after every layer, 100 epochs of batches of 100, cosine to 1e-16 stepped at the start of an
epoch, prior 0, the last epoch's network, running batch-norm statistics. PUBLISHED holds what the authors' optimizer and
layers gave when they were run once under this protocol, per seed; they are not in this repository, so these twelve
numbers cannot be made again here, and they are no figures of the paper. Beside them: the published loop transcribed
here with nothing of varbnn in it, which shows what of a difference is the harness, and exact numerics with the same
settings.
"""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

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
NAMES = ("transcribed", "reference", "exact")


def network() -> nn.Sequential:
    """As published: no biases, batch norm without scale also after the head."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((64, 256), (256, 256), (256, 10)):
        norm = nn.BatchNorm1d(fan_out, eps=1e-4, momentum=0.15, affine=False)
        layers += [nn.Linear(fan_in, fan_out, bias=False), norm, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def transcribed(seed: int) -> dict[str, Any]:
    """The published loop: one flat vector, relaxed weights written into the model, a lagging mean, guards of 1e-10."""
    digits, relaxation, size = data.load("digits"), 1e-10, 1437
    torch.manual_seed(seed)
    model = network()
    weights = list(model.parameters())
    natural = 10.0 * (2 * torch.randint_like(parameters_to_vector(weights), 2) - 1).detach()
    mean = torch.tanh(natural)
    loader = data.batches(digits.train_x, digits.train_y, 100, torch.Generator().manual_seed(1000 + seed))
    for epoch in range(EPOCHS):
        total = 0.0
        for x, y in loader:
            noise = torch.rand_like(mean)
            drawn = torch.tanh((torch.log(noise / (1 - noise)) / 2 + natural) / relaxation)
            vector_to_parameters(drawn, weights)
            loss = F.cross_entropy(model(x), y)
            gradient = parameters_to_vector(torch.autograd.grad(loss, weights))
            factor = (1 - drawn * drawn + 1e-10) / relaxation / (1 - mean * mean + 1e-10)
            mean = torch.tanh(natural)
            natural = natural - 1e-4 * cosine(epoch + 1) * (size * factor * gradient + natural)
            total += loss.item() * len(x) / size
    vector_to_parameters(torch.where(mean > 0, 1.0, -1.0), weights)
    with torch.no_grad():
        pred = vb.Prediction(model.eval()(digits.test_x).softmax(1)[None])
    scores = vb.evaluate(pred, digits.test_y)
    return {"seed": seed, "train_loss": total, **{key: float(scores[key]) for key in ("accuracy", "nll", "ece")}}


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


def compare(results: dict[str, Any], name: str) -> dict[str, dict[str, float]]:
    """Means of `name`, and how far they are from the published and the transcribed ones, in standard errors."""
    table = {}
    for key, published in PUBLISHED.items():
        ours, transcription = ([r[key] for r in results[which]["runs"]] for which in (name, "transcribed"))
        table[key] = {
            "published": statistics.fmean(published),
            "ours": statistics.fmean(ours),
            "from_published": apart(ours, published),
            "from_transcribed": apart(ours, transcription),
        }
    return table


def apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Difference of the means, in standard errors of that difference."""
    errors = [statistics.stdev(v) / math.sqrt(len(v)) for v in (ours, theirs)]
    return (statistics.fmean(ours) - statistics.fmean(theirs)) / math.hypot(*errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS / "reference-run.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {"machine": machine()} | read(args.out)
    for name in NAMES:
        runs = results.setdefault(name, {"runs": []})["runs"]
        for seed in range(len(runs), args.seeds):
            runs.append(transcribed(seed) if name == "transcribed" else run(name, seed))
            say(name, runs[-1])
            write(args.out, results)
    for name in NAMES:
        results[name]["table"] = compare(results, name)
    write(args.out, results)
    for numerics in NAMES:
        for key, row in results[numerics]["table"].items():
            print(f"{numerics:10} {key:11}", *(f"{name} {value:.4f}" for name, value in row.items()), sep="  ")


if __name__ == "__main__":
    main()
