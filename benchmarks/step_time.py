"""What does a posterior cost per training step, beside the float twin?

    python benchmarks/step_time.py

784-2048-2048-2048-10 with batch norm, batch 100, one thread. The twins take turns within one run, so that a change of
the machine's speed hits all of them; figures are processor seconds, ratios are formed round by round and their median
is quoted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from record import RESULTS, machine, write
from torch import nn
from torch.nn import functional as F

import varbnn as vb

WIDTHS = (784, 2048, 2048, 2048, 10)
BATCH = 100


def network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(WIDTHS):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def steps() -> dict[str, Callable[[], None]]:
    """What is timed, by name."""
    x, y = torch.randn(BATCH, WIDTHS[0]), torch.randint(WIDTHS[-1], (BATCH,))

    def stepper(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Callable[[], None]:
        def step() -> None:
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if optimizer is not None:
                optimizer.step()

        return step

    twin = network()
    bernoulli = vb.binarize(network())
    point = vb.binarize(network(), vb.posteriors.Point())
    concrete = vb.binarize(network(), vb.posteriors.Bernoulli("concrete", relaxation=1e-2))
    rule = {"lr": 1e-4, "dataset_size": 60000, "temperature": 1 / 300}
    return {
        "forward+backward, float": stepper(network(), None),
        "step, float, fused Adam": stepper(twin, torch.optim.Adam(twin.parameters(), fused=True)),
        "step, Bernoulli, BayesBiNN": stepper(bernoulli, vb.optim.BayesBiNN(bernoulli.parameters(), **rule)),
        "step, concrete, BayesBiNN": stepper(concrete, vb.optim.BayesBiNN(concrete.parameters(), **rule)),
        "step, Point, StraightThrough": stepper(point, vb.optim.StraightThrough(point.parameters())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS / "step-time.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    timed = steps()
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for round_number in range(args.rounds + 2):
        for name, step in timed.items():
            start = time.process_time()
            step()
            if round_number >= 2:  # the first rounds allocate
                seconds[name].append(time.process_time() - start)
    base = seconds["forward+backward, float"]
    table = {
        name: {
            "median_ms": 1e3 * statistics.median(taken),
            "min_ms": 1e3 * min(taken),
            "ratio_to_forward_backward": statistics.median(t / b for t, b in zip(taken, base, strict=True)),
        }
        for name, taken in seconds.items()
    }
    write(args.out, {"machine": machine(), "network": WIDTHS, "batch": BATCH, "rounds": args.rounds, "table": table})
    for name, row in table.items():
        print(f"{name:30} {row['median_ms']:7.1f} ms  {row['ratio_to_forward_backward']:.2f} x forward+backward")


if __name__ == "__main__":
    main()
