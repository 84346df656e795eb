"""How fast are draws of packed weights, and packed products, beside torch float32 on the same numbers?

    python benchmarks/kernels.py

S networks of ±1 weights, one thread. Each case runs on every instruction set of this machine, in turns with the same
product by torch of float32 weights (another matrix for every network, as the packed ones have); figures are
processor seconds, the ratio is of the smallest of many rounds. "kernel" is a call of the compiled library that
writes over results of before, the others are operations as users call them: from Python, through torch's dispatcher,
with fresh results. Whole networks: 784-2048-2048-2048-10, packed with scale, shift and activation (relu, or signs,
which make the products after the first XNOR ones) fused, beside Linear, BatchNorm1d (eval) and ReLU or sign modules.
Draws: 2048x2048 weights with a probability each, beside torch.bernoulli, which writes over its results of before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, kernels, machine, say, write
from torch import Tensor, nn

from varbnn.kernels import native, ops, reference, usable_backends, using_backend
from varbnn.kernels.backend import BEST

WIDTHS = (784, 2048, 2048, 2048, 10)
BATCHES = (1, 16, 128)
Timed = dict[str, Callable[[], Any]]


def random_blocks(samples: int, outputs: int, inputs: int) -> Tensor:
    """Fair coins as packed weights (sizes that fill blocks and words, or padding is cleared)."""
    return ops.sample_blocks(torch.zeros(outputs, inputs), torch.tensor(1), 0, 0, 1).repeat(samples, 1, 1, 1)


class Packed:
    """The networks as bits."""

    def __init__(self, samples: int, activation: str = "relu") -> None:
        self.activation = activation
        self.layers = []
        for inputs, outputs in pairwise(WIDTHS):
            scale, shift = torch.rand(samples, outputs) + 0.5, torch.randn(samples, outputs)
            self.layers.append((random_blocks(samples, outputs, inputs), inputs, outputs, scale, shift))

    def __call__(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0)
        for weight, inputs, outputs, scale, shift in self.layers:
            activation = "none" if outputs == WIDTHS[-1] else self.activation
            x = ops.linear(x, weight, inputs, outputs, scale, shift, activation)
        return x


class Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


class Float:
    """The same sizes as float32 modules, one for each network."""

    def __init__(self, samples: int, activation: type[nn.Module] = nn.ReLU) -> None:
        self.networks = [self._network(activation) for _ in range(samples)]

    @staticmethod
    def _network(activation: type[nn.Module]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(WIDTHS):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]
            if outputs != WIDTHS[-1]:
                layers.append(activation())
        return nn.Sequential(*layers).eval()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks])


def on(level: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """`run`, marked with the level that `measure` switches to before it looks at the clock."""
    run.level = level  # type: ignore[attr-defined]
    return run


def kernel(signs: Tensor, weight: Tensor, inputs: int, out: Tensor) -> Callable[[], int]:
    """The XNOR product by itself."""
    call, address = native.library().varbnn_cpu_linear_signs, native.pointer
    samples, rows, outputs = out.shape

    def run() -> int:
        shared = (address(signs), signs.shape[0] > 1, address(weight), samples, rows, inputs, outputs)
        return call(*shared, None, False, None, False, native.ACTIVATIONS["none"], address(out), 1)

    return run


def layer_cases(levels: list[str], batch: int, inputs: int = 2048, outputs: int = 2048) -> Timed:
    """One matrix, which stays in the caches on both sides."""
    x, weight = torch.randn(1, batch, inputs), random_blocks(1, outputs, inputs)
    signs = ops.pack_signs(x)[0]
    scale, shift = torch.rand(1, outputs), torch.randn(1, outputs)
    dense, out = torch.randn(outputs, inputs), torch.empty(1, batch, outputs)
    timed: Timed = {"torch": lambda: nn.functional.linear(x[0], dense)}
    for level in levels:
        timed[f"linear {level}"] = on(level, lambda: ops.linear(x, weight, inputs, outputs))
        timed[f"linear_int8 {level}"] = on(level, lambda: ops.linear_int8(x, weight, inputs, outputs))
        timed[f"xnor kernel {level}"] = on(level, kernel(signs, weight, inputs, out))
        timed[f"xnor {level}"] = on(level, lambda: ops.linear(signs, weight, inputs, outputs))
        timed[f"xnor to signs {level}"] = on(
            level, lambda: ops.linear(signs, weight, inputs, outputs, scale, shift, "sign")
        )
        timed[f"pack_signs {level}"] = on(level, lambda: ops.pack_signs(x))
    return timed


def xnor_cases(levels: list[str], samples: int, batch: int, inputs: int = 2048, outputs: int = 2048) -> Timed:
    """The XNOR products of S networks, whole numbers and nothing after them, in one call; torch has S matrices too."""
    signs = ops.pack_signs(torch.randn(samples, batch, inputs))[0]
    weight = random_blocks(samples, outputs, inputs)
    dense, x = [torch.randn(outputs, inputs) for _ in range(samples)], torch.randn(samples, batch, inputs)
    timed: Timed = {"torch": lambda: [nn.functional.linear(rows, own) for rows, own in zip(x, dense, strict=True)]}
    for level in levels:
        timed[f"xnor {level}"] = on(level, lambda: ops.linear(signs, weight, inputs, outputs))
    return timed


def draw_cases(levels: list[str], samples: int, outputs: int = 2048, inputs: int = 2048) -> Timed:
    """S samples to bits, and where S is 1 also the draw of a training step, to floats."""
    natural, seed = torch.randn(outputs, inputs), torch.tensor(1)
    chance = torch.sigmoid(2 * natural)
    one, bits = torch.empty(outputs, inputs), random_blocks(samples, outputs, inputs)
    timed: Timed = {"torch": lambda: [torch.bernoulli(chance, out=one) for _ in range(samples)]}

    def kernel() -> int:
        address = native.pointer
        call = native.library().varbnn_cpu_sample_blocks
        return call(address(natural), outputs, inputs, 1, 0, 0, samples, address(bits), 1)

    for level in levels:
        timed[f"sample_blocks kernel {level}"] = on(level, lambda: kernel())
        timed[f"sample_blocks {level}"] = on(level, lambda: ops.sample_blocks(natural, seed, 0, 0, samples))
        if samples == 1:
            timed[f"draw {level}"] = on(level, lambda: ops.draw(natural, seed))
    if samples == 1:
        timed["draw by torch's noise"] = lambda: reference.draw_signs(natural)
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
            with using_backend(getattr(run, "level", BEST)):
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
    parser.add_argument("--only", choices=["draw", "layer", "network"])
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table: dict[str, Any] = {}
    if args.only in (None, "draw"):
        for samples in (1, 8, 32):
            table[f"draw of 2048x2048, {samples} samples"] = measure(draw_cases(args.levels, samples), args.seconds)
    if args.only in (None, "layer"):
        for batch in BATCHES:
            table[f"2048x2048, batch {batch}"] = measure(layer_cases(args.levels, batch), args.seconds)
        for batch in BATCHES:
            name = f"{args.samples} XNOR products 2048x2048, batch {batch}"
            table[name] = measure(xnor_cases(args.levels, args.samples, batch), args.seconds)
    if args.only in (None, "network"):
        for activation, module in (("relu", nn.ReLU), ("sign", Sign)):
            packed, dense = Packed(args.samples, activation), Float(args.samples, module)
            for batch in BATCHES:
                name = f"{args.samples} networks {'-'.join(map(str, WIDTHS))}, {activation}, batch {batch}"
                table[name] = measure(network_cases(args.levels, batch, packed, dense), args.seconds)
    write(args.out, {"machine": machine(), "kernels": kernels(), "table": table})
    for name, row in table.items():
        say(name)
        for what, figures in row.items():
            print(f"  {what:24} {figures['ms']:9.3f} ms  {figures['ratio_to_torch']:6.2f} x torch")


if __name__ == "__main__":
    main()
