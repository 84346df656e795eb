"""How fast are packed models beside float32 networks asked one after the other, and how fast is predict?

    python benchmarks/packed.py

`varbnn.pack` of whole models against a loop over as many plain torch networks, each with weights of its own: first
784-2048-2048-2048-10 with batch norm and ReLU (`mlp`) or signs (`signs`), 32 networks, then a VGG-like net for 32x32
colour images (`vgg`: 128-128-pool, 256-256-pool, 512-512-pool, 1024-1024-10), 16 networks, with ReLU or signs
(`vgg-signs`). `gates` are 784-100-10 and 784-2000-10 with layer norm and `Gate("bits", reverse=True)`, 32 networks. The
float ones have signs and gates as one writes them in torch, without care for NaN and gradients, and images in both of
torch's memory orders, of which the faster counts. `predict` takes the time of
`varbnn.predict` with 32 networks from the call to the result, drawing and batch-norm statistics included, packed and as
a loop (what ``VARBNN_BACKEND=reference`` gives). One thread, processor seconds, the smallest of rounds taken in turns.
"""

from __future__ import annotations

import argparse
import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from kernels import Timed, measure, on
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn

import varbnn as vb
from varbnn.kernels import backend_info, usable_backends

BATCHES = (1, 16, 128)
IMAGE_BATCHES = (1, 4, 16, 64)
PARTS = ["mlp", "signs", "gates", "vgg", "vgg-signs", "predict"]


def mlp(widths: tuple[int, ...], activation: type[nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), activation()]
    return vb.binarize(settled(nn.Sequential(*layers[:-1])))


def vgg(activation: type[nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise((3, 128, 128, 256, 256, 512, 512))):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [nn.MaxPool2d(2)] * (index % 2) + [nn.BatchNorm2d(outputs), activation()]
    layers.append(nn.Flatten())
    for inputs, outputs in pairwise((8192, 1024, 1024, 10)):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), activation()]
    return vb.binarize(settled(nn.Sequential(*layers[:-1])))


class Signs(nn.Module):
    """The values of `varbnn.nn.Sign`, but at 0, in the fewest steps of torch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


class Tails(nn.Module):
    """The values of `Gate("bits", reverse=True)` in the fewest steps of torch."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.abs() > 1).to(x.dtype)


def gated(width: int) -> nn.Module:
    norms = [nn.LayerNorm(n, elementwise_affine=False) for n in (width, 10)]
    first, last = nn.Linear(784, width, bias=False), nn.Linear(width, 10, bias=False)
    return vb.binarize(nn.Sequential(first, norms[0], vb.nn.Gate("bits", reverse=True), last, norms[1]))


PLAIN = {vb.nn.Gate: Tails, vb.nn.Sign: Signs}


def settled(model: nn.Module) -> nn.Module:
    """Variances as the sums of ±1 weights have them, so that activations keep their size."""
    fan_in = 1.0
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.fill_(fan_in)
    return model


def against_torch(model: nn.Module, samples: int, inputs: tuple[int, ...], batches: tuple[int, ...],
                  levels: list[str], seconds: float) -> dict[str, Any]:  # fmt: skip
    """One packed ensemble and as many float networks as it has."""
    packed = vb.pack(model, samples, generator=torch.Generator().manual_seed(0))
    floats = [vb.freeze(model, "sample").eval() for _ in range(samples)]
    for net in floats:
        for name, module in list(net.named_children()):
            if type(module) in PLAIN:
                setattr(net, name, PLAIN[type(module)]())
    others = [copy.deepcopy(net).to(memory_format=torch.channels_last) for net in floats] if len(inputs) == 3 else []
    found: dict[str, Any] = {"samples": samples, "packed_bytes": packed.nbytes, "batches": {}}
    found["float_bytes"] = sum(t.nbytes for net in floats for t in [*net.parameters(), *net.buffers()])
    found["error_to_float64"] = error(packed, torch.randn(4, *inputs))

    def loop(networks: list[Any], x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.stack([net(x) for net in networks])

    for batch in batches:
        x = torch.randn(batch, *inputs)
        timed: Timed = {"torch": lambda x=x: loop(floats, x)}  # type: ignore[misc]
        if others:
            images = x.to(memory_format=torch.channels_last)
            timed["torch channels_last"] = lambda x=images: loop(others, x)  # type: ignore[misc]
        for level in levels:
            timed[level] = on(level, lambda x=x: packed(x))  # type: ignore[misc]
        row = measure(timed, seconds)
        fastest = min(row[name]["ms"] for name in row if name.startswith("torch"))
        found["batches"][str(batch)] = {
            n: figures | {"ratio_to_torch": fastest / figures["ms"]} for n, figures in row.items()
        }
        say(batch, {name: round(row["ratio_to_torch"], 2) for name, row in found["batches"][str(batch)].items()})
    return found


def error(packed: vb.PackedEnsemble, x: Tensor) -> float:
    """Largest difference of the first network from itself in float64, relative to the largest output."""
    expected = packed.member(0).double()(x.double()).detach()
    return float((packed(x)[0].double() - expected).abs().max() / expected.abs().max())


def predicting(widths: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """`predict` of 1000 inputs with statistics from 1000 others."""
    model, x, train = mlp(widths, nn.ReLU), torch.randn(1000, widths[0]), torch.randn(1000, widths[0])
    timed: Timed = {
        "torch": on("reference", lambda: vb.predict(model, x, 32, refresh_bn=train)),
        "packed": lambda: vb.predict(model, x, 32, refresh_bn=train),
    }
    found = measure(timed, seconds)
    say(widths, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each case; default: 5")
    parser.add_argument(
        "--levels", nargs="+", default=[x for x in usable_backends() if x in ("avx2", "avx512", "neon")]
    )
    parser.add_argument("--only", choices=PARTS, nargs="+")
    parser.add_argument("--image-batches", type=int, nargs="+", default=IMAGE_BATCHES)
    parser.add_argument("--out", type=Path, default=RESULTS / "packed.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wide, chosen = (784, 2048, 2048, 2048, 10), args.only or PARTS
    table: dict[str, Any] = read(args.out).get("table", {}) if args.only else {}
    for name, activation in (("mlp", nn.ReLU), ("signs", vb.nn.Sign)):
        if name in chosen:
            model = mlp(wide, activation)
            table[name] = against_torch(model, 32, (784,), BATCHES, args.levels, args.seconds)
    if "gates" in chosen:
        for width in (100, 2000):
            table[f"gates-{width}"] = against_torch(gated(width), 32, (784,), BATCHES, args.levels, args.seconds)
    for name, activation in (("vgg", nn.ReLU), ("vgg-signs", vb.nn.Sign)):
        if name in chosen:
            model, batches = vgg(activation), tuple(args.image_batches)
            table[name] = against_torch(model, 16, (3, 32, 32), batches, args.levels, args.seconds)
    if "predict" in chosen:
        networks = {"784-400-400-10": (784, 400, 400, 10), "784-2048-2048-2048-10": wide}
        table["predict"] = {name: predicting(widths, args.seconds) for name, widths in networks.items()}
    info = backend_info()
    write(args.out, {"machine": machine() | {"compiler": info.compiler}, "table": table})


if __name__ == "__main__":
    main()
