"""How fast are packed convolutional networks beside float32 ones by torch?

    python benchmarks/convolutions.py

S networks for 32x32 colour images (VGG-like: 128-128-pool, 256-256-pool, 512-512-pool, 1024-1024-10; 14 M weights
each), one thread, packed beside float32 Conv2d, BatchNorm2d (eval), ReLU and MaxPool2d modules of its own for every
network, in turns. Torch is given both memory orders (default and channels_last) and the faster one counts. Figures are
processor seconds, the smallest of many rounds. The packed networks run in groups of a few, so that what
flows between their layers stays in the caches.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from kernels import Timed, measure, on
from record import RESULTS, kernels, machine, say, write
from torch import Tensor, nn

from varbnn.kernels import ops, usable_backends

CHANNELS = (3, 128, 128, 256, 256, 512, 512)
WIDTHS = (8192, 1024, 1024, 10)
BATCHES = (1, 4, 16, 64)
CACHED = 2**24
"""Bytes of one layer's activations that a group of networks may have."""


def fair_coins(outputs: int, inputs: int, layer: int, samples: int) -> Tensor:
    return ops.sample_blocks(torch.zeros(outputs, inputs), torch.tensor(1), layer, 0, samples)


def pool(x: Tensor) -> Tensor:
    """The largest of 2x2 pixels of (S, M, H, W, C), which torch sees as a channels_last image."""
    images = x.flatten(0, 1).permute(0, 3, 1, 2)
    return nn.functional.max_pool2d(images, 2).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class Packed:
    """The networks as bits; batch norm and ReLU are in the products (pooling commutes with both: the scale is > 0)."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        sizes = [(9 * inputs, outputs) for inputs, outputs in pairwise(CHANNELS)] + list(pairwise(WIDTHS))
        self.layers = []
        for layer, (inputs, outputs) in enumerate(sizes):
            norm = (torch.rand(samples, outputs) + 0.5) / inputs**0.5, torch.randn(samples, outputs)
            self.layers.append((fair_coins(outputs, inputs, layer, samples), *norm))

    def weight_bytes(self) -> int:
        return sum(weight.nbytes for weight, *_ in self.layers)

    def __call__(self, x: Tensor) -> Tensor:
        largest = 4 * x.shape[0] * 32 * 32 * CHANNELS[1]
        group = max(1, min(self.samples, CACHED // largest))
        return torch.cat([self.some(x, slice(s, s + group)) for s in range(0, self.samples, group)])

    def some(self, images: Tensor, which: slice) -> Tensor:
        x = images.unsqueeze(0)
        for number, (weight, scale, shift) in enumerate(self.layers):
            own = weight[which], scale[which], shift[which]
            if number < len(CHANNELS) - 1:
                inputs, outputs = CHANNELS[number : number + 2]
                options = ([3, 3], [1, 1], [1] * 4, [1, 1], 1)
                x = ops.conv(x, own[0], inputs, outputs, *options, *own[1:], "relu")
                x = pool(x) if number % 2 else x
            else:
                inputs, outputs = WIDTHS[number - len(CHANNELS) + 1 :][:2]
                x = x.flatten(2) if x.dim() == 5 else x
                x = ops.linear(x, own[0], inputs, outputs, *own[1:], "none" if outputs == 10 else "relu")
        return x


class Float:
    """The same networks as float32 modules."""

    def __init__(self, samples: int) -> None:
        self.networks = [self._network() for _ in range(samples)]

    @staticmethod
    def _network() -> nn.Sequential:
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise(CHANNELS)):
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
            layers += [nn.MaxPool2d(2)] if number % 2 else []
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.Flatten())
        for inputs, outputs in pairwise(WIDTHS):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]
            layers += [nn.ReLU()] if outputs != 10 else []
        return nn.Sequential(*layers).eval()

    def to(self, memory_format: torch.memory_format) -> Float:
        for network in self.networks:
            network.to(memory_format=memory_format)
        return self

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks])


def cases(levels: list[str], batch: int, packed: Packed, default: Float, last: Float) -> Timed:
    x = torch.randn(batch, 32, 32, 3)
    images, plain = x.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2).contiguous()
    timed: Timed = {"torch": lambda: default(plain), "torch channels_last": lambda: last(images)}
    for level in levels:
        timed[level] = on(level, lambda: packed(x))
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each batch; default: 60")
    parser.add_argument("--samples", type=int, default=16, help="networks; default: 16")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--levels", nargs="+", default=[usable_backends()[-1]], help="default: the best")
    parser.add_argument("--out", type=Path, default=RESULTS / "convolutions.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    packed, default = Packed(args.samples), Float(args.samples)
    last = Float(args.samples).to(torch.channels_last)
    parameters = sum(p.numel() for p in default.networks[0].parameters() if p.dim() > 1)
    table: dict[str, Any] = {}
    for batch in args.batches:
        row = measure(cases(args.levels, batch, packed, default, last), args.seconds)
        fastest = min(row["torch"]["ms"], row["torch channels_last"]["ms"])
        for figures in row.values():
            figures["ratio_to_torch"] = fastest / figures["ms"]
        table[f"{args.samples} networks, batch {batch}"] = row
        say(batch, row)
    memory = 4 * parameters * args.samples / packed.weight_bytes()
    write(args.out, {"machine": machine(), "kernels": kernels(), "memory": memory, "table": table})
    for name, row in table.items():
        print(name)
        for what, figures in row.items():
            print(f"  {what:24} {figures['ms']:9.2f} ms  {figures['ratio_to_torch']:6.2f} x the faster torch")
    print(f"weights take 1/{memory:.1f} of the memory")


if __name__ == "__main__":
    main()
