"""Ask 32 sampled networks at once: 1 bit per weight, one file, the same answers.

    python examples/04_packed.py            about ten seconds
    python examples/04_packed.py --smoke    a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import json
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


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed; the training is that of example 01."""

    seed: int = 0
    width: int = 256
    epochs: int = 60
    num_samples: int = 32
    folder: str = "varbnn-demo"


SMOKE = dict(width=32, epochs=2, num_samples=4)


def network(width: int) -> nn.Module:
    """64 pixels, two hidden layers, 10 classes."""
    return nn.Sequential(
        nn.Linear(64, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Linear(width, 10, bias=False), nn.BatchNorm1d(10),
    )  # fmt: skip


def milliseconds(run: Callable[[], object]) -> float:
    """Of the fastest of ten runs."""
    taken = []
    for _ in range(10):
        start = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - start))
    return min(taken)


def main(settings: Settings) -> dict[str, object]:
    start = time.perf_counter()
    torch.set_num_threads(1)  # fastest for a network this small
    torch.manual_seed(settings.seed)
    try:
        digits = data.load("digits")
    except MissingExtraError as missing:
        raise SystemExit(str(missing)) from None
    model = vb.binarize(network(settings.width))
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=1e-3, dataset_size=len(digits.train_x), temperature=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    loader = data.batches(digits.train_x, digits.train_y, 64)
    vb.fit(model, optimizer, loader, epochs=settings.epochs, scheduler=scheduler, label="posterior")

    print(f"\n== 1. Draw {settings.num_samples} networks to bits, each with its own batch-norm statistics")
    packed = vb.pack(model, settings.num_samples, refresh_bn=digits.train_x)
    print(packed)

    print("\n== 2. Beside as many float networks: the same answers")
    floats = [packed.member(s) for s in range(packed.num_samples)]
    float_bytes = sum(t.nbytes for net in floats for t in [*net.parameters(), *net.buffers()])

    def loop() -> torch.Tensor:
        with torch.no_grad():
            return torch.stack([net(digits.test_x) for net in floats])

    logits = packed(digits.test_x)
    difference = float((logits - loop()).abs().max() / logits.abs().max())
    slow, fast = milliseconds(loop), milliseconds(lambda: packed(digits.test_x))
    print(f"{float_bytes:,} bytes -> {packed.nbytes:,}; {slow:.1f} ms -> {fast:.1f} ms on {vb.backend_info().cpu}")
    print(f"largest difference {difference:.1e} of the largest logit")

    print("\n== 3. What they say together, without the logits of each")
    together, foreign = packed(digits.test_x, reduce="mean"), packed(digits.ood_x, reduce="mean")
    measured = vb.evaluate(vb.Prediction(logits.softmax(-1)), digits.test_y)
    doubt = {name: float(part.epistemic.mean()) for name, part in (("digits", together), ("patches", foreign))}
    print(
        f"accuracy {measured['accuracy']:.4f}, epistemic doubt in nats { ({k: round(v, 3) for k, v in doubt.items()}) }"
    )

    print("\n== 4. One file, mapped")
    path = Path(settings.folder) / "04_digits.vbnn"
    path.parent.mkdir(parents=True, exist_ok=True)
    packed.save(path)
    with vb.Predictor(path) as predictor:
        same = torch.equal(predictor(digits.test_x), logits)
    print(f"{path}: {path.stat().st_size:,} bytes, the same answers to the bit: {same}")

    return {
        "accuracy": round(measured["accuracy"], 4),
        "difference": difference,
        "times_smaller": round(float_bytes / packed.nbytes, 1),
        "times_faster": round(slow / fast, 1),
        "epistemic": {name: round(value, 4) for name, value in doubt.items()},
        "loaded_equal": same,
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    chosen = replace(Settings(), **SMOKE) if "--smoke" in sys.argv[1:] else Settings()
    print(json.dumps(main(chosen)))
