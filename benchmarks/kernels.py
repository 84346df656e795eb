"""How fast are packed products beside torch float32 on the same numbers?

    python benchmarks/kernels.py

S networks of ±1 weights, one thread. Each case runs on every instruction set of this machine, in turns with the same
product by torch of float32 weights (another matrix for every network, as the packed ones have); figures are
processor seconds, the ratio is of the smallest of many rounds. Whole networks: 784-2048-2048-2048-10, packed with
scale, shift and relu fused, beside Linear, BatchNorm1d (eval) and ReLU modules.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, say, write
from torch import Tensor, nn

from varbnn.kernels import backend_info, ops, usable_backends, using_backend

WIDTHS = (784, 2048, 2048, 2048, 10)
BATCHES = (1, 16, 128)
Timed = dict[str, Callable[[], Any]]


def random_blocks(samples: int, outputs: int, inputs: int) -> Tensor:
    """Fair coins as packed weights (sizes that fill blocks and words, or padding is cleared)."""
    return ops.sample_blocks(torch.zeros(outputs, inputs), torch.tensor(1), 0, 0, 1).repeat(samples, 1, 1, 1)


class Packed:
    """The networks as bits."""

    def __init__(self, samples: int, product: Callable[..., Tensor] = ops.linear) -> None:
        self.product = product
        self.layers = []
        for inputs, outputs in pairwise(WIDTHS):
            scale, shift = torch.rand(samples, outputs) + 0.5, torch.randn(samples, outputs)
            self.layers.append((random_blocks(samples, outputs, inputs), inputs, outputs, scale, shift))

    def __call__(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0)
        for weight, inputs, outputs, scale, shift in self.layers:
            activation = "none" if outputs == WIDTHS[-1] else "relu"
            x = self.product(x, weight, inputs, outputs, scale, shift, activation)
        return x


class Float:
    """The same sizes as float32 modules, one for each network."""

    def __init__(self, samples: int) -> None:
        self.networks = [self._network() for _ in range(samples)]

    @staticmethod
    def _network() -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(WIDTHS):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]
            if outputs != WIDTHS[-1]:
                layers.append(nn.ReLU())
        return nn.Sequential(*layers).eval()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks])


def on(level: str, run: Callable[[], Any]) -> Callable[[], Any]:
    def switched() -> Any:
        with using_backend(level):
            return run()

    return switched


def layer_cases(levels: list[str], batch: int, inputs: int = 2048, outputs: int = 2048) -> Timed:
    """One matrix, which stays in the caches on both sides."""
    x, weight = torch.randn(1, batch, inputs), random_blocks(1, outputs, inputs)
    dense = torch.randn(outputs, inputs)
    timed: Timed = {"torch": lambda: nn.functional.linear(x[0], dense)}
    for level in levels:
        timed[f"linear {level}"] = on(level, lambda: ops.linear(x, weight, inputs, outputs))
        timed[f"linear_int8 {level}"] = on(level, lambda: ops.linear_int8(x, weight, inputs, outputs))
    return timed


def network_cases(levels: list[str], batch: int, packed: Packed, dense: Float) -> Timed:
    x = torch.randn(batch, WIDTHS[0])
    timed: Timed = {"torch": lambda: dense(x)}
    for level in levels:
        timed[f"linear {level}"] = on(level, lambda: packed(x))
    return timed


@torch.inference_mode()
def measure(timed: Timed, seconds: float) -> dict[str, dict[str, float]]:
    """Smallest processor time of each, in turns until all together took `seconds`."""
    best = dict.fromkeys(timed, float("inf"))
    spent, rounds = 0.0, 0
    while spent < seconds or rounds < 3:
        for name, run in timed.items():
            start = time.thread_time()
            run()
            taken = time.thread_time() - start
            best[name] = min(best[name], taken)
            spent += taken
        rounds += 1
    return {name: {"ms": 1e3 * taken, "ratio_to_torch": best["torch"] / taken} for name, taken in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each case; default: 5")
    parser.add_argument("--samples", type=int, default=32, help="networks; default: 32")
    parser.add_argument("--levels", nargs="+", default=[level for level in usable_backends() if level != "reference"])
    parser.add_argument("--only", choices=["layer", "network"])
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table: dict[str, Any] = {}
    if args.only != "network":
        for batch in BATCHES:
            table[f"2048x2048, batch {batch}"] = measure(layer_cases(args.levels, batch), args.seconds)
    if args.only != "layer":
        packed, dense = Packed(args.samples), Float(args.samples)
        for batch in BATCHES:
            name = f"{args.samples} networks {'-'.join(map(str, WIDTHS))}, batch {batch}"
            table[name] = measure(network_cases(args.levels, batch, packed, dense), args.seconds)
    write(args.out, {"machine": machine(), "kernels": str(backend_info()).splitlines(), "table": table})
    for name, row in table.items():
        say(name)
        for what, figures in row.items():
            print(f"  {what:24} {figures['ms']:9.3f} ms  {figures['ratio_to_torch']:6.2f} x torch")


if __name__ == "__main__":
    main()
