"""Fit one network of ±1 weights to handwritten digits, look inside it, ask it, keep it.

    python examples/01_first_binary_network.py            about ten seconds
    python examples/01_first_binary_network.py --smoke    a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import varbnn as vb
from varbnn import data
from varbnn.errors import MissingExtraError


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed. `temperature` and `lr` were chosen on a validation split."""

    seed: int = 0
    width: int = 256
    epochs: int = 100
    batch_size: int = 64
    lr: float = 1e-3
    temperature: float = 1 / 1000
    num_samples: int = 32
    folder: str = "varbnn-demo"


SMOKE = dict(width=32, epochs=2, num_samples=2)


def network(width: int) -> nn.Module:
    """64 pixels, two hidden layers, 10 classes; the last batch norm gives the logits a learned scale."""
    return nn.Sequential(
        nn.Linear(64, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, 10, bias=False),
        nn.BatchNorm1d(10),
    )


def main(settings: Settings) -> dict[str, object]:
    start = time.perf_counter()
    torch.set_num_threads(1)  # fastest for a network this small
    torch.manual_seed(settings.seed)
    try:
        digits = data.load("digits")
    except MissingExtraError as missing:
        raise SystemExit(str(missing)) from None
    print(digits, "\n")

    print("== 1. Three layers become binary, the batch norms stay real")
    model = vb.binarize(network(settings.width))
    print(vb.summary(model, inputs=digits.train_x[:1]), "\n")

    print("== 2. Train: an ordinary loop around an ordinary optimizer")
    optimizer = vb.optim.BayesBiNN(
        model.parameters(), lr=settings.lr, dataset_size=len(digits.train_x), temperature=settings.temperature
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    loader = data.batches(digits.train_x, digits.train_y, settings.batch_size)
    vb.fit(model, optimizer, loader, epochs=settings.epochs, scheduler=scheduler, label="posterior")

    print("\n== 3. Is the posterior alive?")
    state = vb.health(model)
    print(f"{state.weights:,} weights, {state.entropy_bits:.2f} bit each, {state.saturated:.1%} saturated")
    print({name: round(bits, 2) for name, bits in state.layer_entropy_bits.items()}, "bit per weight, by layer\n")

    print(f"== 4. Ask {settings.num_samples} networks drawn from it")
    ask = dict(num_samples=settings.num_samples, refresh_bn=digits.train_x)
    prediction = vb.predict(model, digits.test_x, **ask)
    foreign = vb.predict(model, digits.ood_x, **ask)
    measured = vb.evaluate(prediction, digits.test_y, ood=foreign)
    print(prediction, measured, sep="\n", end="\n\n")

    print("== 5. The digits it is least sure of")
    for index in prediction.total.topk(3).indices.tolist():
        first, second = prediction.mean[index].topk(2).indices.tolist()
        truth, nats = int(digits.test_y[index]), float(prediction.total[index])
        print(f"test digit {index}: {first} or {second}? {nats:.2f} nats; it is a {truth}")

    print("\n== 6. Freeze the most probable network: plain torch layers, weights exactly ±1")
    frozen = vb.freeze(model, refresh_bn=digits.train_x).eval()
    with torch.no_grad():
        mode_accuracy = float((frozen(digits.test_x).argmax(1) == digits.test_y).double().mean())
    print(f"{type(frozen[0]).__name__} with weights {frozen[0].weight.unique().tolist()}, accuracy {mode_accuracy:.4f}")

    print("\n== 7. Save and load: the state dict is the posterior")
    path = Path(settings.folder) / "01_digits.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    again = vb.binarize(network(settings.width))
    again.load_state_dict(torch.load(path, weights_only=True))
    same = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    print(f"{path} holds {next(iter(again.state_dict()))} and the rest; the loaded posterior is the same: {same}")

    return {
        **{name: round(measured[name], 4) for name in ("accuracy", "nll", "brier", "ece", "ood_auroc")},
        "mode_accuracy": round(mode_accuracy, 4),
        "entropy_bits": round(state.entropy_bits, 4),
        "loaded_equal": same,
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    chosen = replace(Settings(), **SMOKE) if "--smoke" in sys.argv[1:] else Settings()
    print(json.dumps(main(chosen)))
