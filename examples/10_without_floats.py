"""Can a network of ±1 weights be trained with integers alone, and does it know when it does not know?

Every weight is the sign of a counter of 8 bits that is also a belief; inputs are thermometers, errors have 4 bits, the
learning rate is a shift. The same run is made twice, with products by float32 as a calculator of integers and by int32,
and ends in the same bits. The trained network then goes to the rest of the library: draws, calibration, a packed file.

    python examples/10_without_floats.py            half a minute
    python examples/10_without_floats.py --smoke    a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import varbnn as vb
from varbnn import data, integer
from varbnn.integer import IntegerNetwork, Thermometer


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed; bits, spread and shifts are those that benchmarks/integer.py chose."""

    seed: int = 0
    levels: int = 4
    width: int = 256
    bits: int = 8
    spread: int = 8
    shifts: tuple[int, int] = (2, 6)
    epochs: int = 30
    batch_size: int = 32
    num_samples: int = 32
    folder: str = "varbnn-demo"


SMOKE = dict(width=16, epochs=2, num_samples=4)


def trained(codes: torch.Tensor, labels: torch.Tensor, settings: Settings, products: str) -> IntegerNetwork:
    generator = torch.Generator().manual_seed(settings.seed)
    network = IntegerNetwork(
        [codes.shape[1], settings.width, settings.width, 10],
        bits=settings.bits,
        spread=settings.spread,
        products=products,
        generator=generator,
    )
    loader = data.batches(codes, labels, settings.batch_size, generator)
    history = integer.fit(
        network, loader, epochs=settings.epochs, shifts=settings.shifts, generator=generator, progress=False
    )
    for row in history[:: max(1, settings.epochs // 5)]:
        print("epoch {epoch:2}, shift {shift}: accuracy {accuracy:.3f}, {flips:,} flips".format(**row))
    return network


def main(settings: Settings) -> dict[str, Any]:
    begun = time.perf_counter()
    torch.set_num_threads(1)
    digits = data.load("digits", seed=settings.seed, validation=True)
    encoder = Thermometer.fit(digits.train_x, settings.levels)
    train, val, test, foreign = (encoder(x) for x in (digits.train_x, digits.val_x, digits.test_x, digits.ood_x))

    network = trained(train, digits.train_y, settings, "float32")
    print("\nthe same by int32:")
    again = trained(train, digits.train_y, settings, "int32").state_dict()
    same = all(torch.equal(value, again[name]) for name, value in network.state_dict().items())
    print(f"the same bits: {same}; the state holds {sorted({str(value.dtype) for value in again.values()})}")

    mode_accuracy = float((network(test).argmax(1) == digits.test_y).double().mean())
    model = integer.as_model(network)
    val_prediction, prediction, ood = (
        vb.predict(
            model, x.float(), settings.num_samples, generator=torch.Generator().manual_seed(settings.seed)
        )  # the same networks for all three
        for x in (val, test, foreign)
    )
    scaling = vb.TemperatureScaling().fit(val_prediction, digits.val_y)
    measured = vb.evaluate(scaling(prediction), digits.test_y, ood=scaling(ood))
    print(f"\naccuracy of the mode {mode_accuracy:.3f}; {settings.num_samples} drawn networks:\n{measured}")

    path = Path(settings.folder) / "10_without_floats.vbnn"
    path.parent.mkdir(exist_ok=True)
    vb.pack(model, 0).save(path)  # the mode, in one bit per weight
    logits = vb.load_packed(path)(test.float())[0]
    packed_equal = torch.equal(logits * (network.margin // 4), network(test).float())
    return {
        "same_bits": same,
        "mode_accuracy": round(mode_accuracy, 4),
        **{key: round(measured[key], 4) for key in ("accuracy", "nll", "ece", "ood_auroc")},
        "entropy_bits": round(vb.health(model, warn=False).entropy_bits, 3),
        "state_bytes": sum(value.nbytes for value in network.buffers()),
        "packed_bytes": path.stat().st_size,
        "packed_equal": packed_equal,
        "seconds": round(time.perf_counter() - begun, 1),
    }


if __name__ == "__main__":
    print(json.dumps(main(replace(Settings(), **SMOKE) if "--smoke" in sys.argv else Settings())))
