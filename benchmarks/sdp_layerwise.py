"""What is left of a float network whose layers are made binary from calibration inputs alone?

    python benchmarks/sdp_layerwise.py                             digits, 64-64-10, first layer and both
    python benchmarks/sdp_layerwise.py --data-dir FOLDER           MNIST, 784-400-10

Rows: what XNOR-Net's rule leaves, single flips with the best scale, and the relaxation with its bound. Where the last
layer stays real it is fitted again, for XNOR's first layer too. What is in the results already is not run again.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import nn

import varbnn as vb
from varbnn import data
from varbnn.sdp import binarize_layerwise
from varbnn.sdp.refit import refitted

SEEDS = {"digits": 5, "mnist": 1}
WIDTHS = {"digits": (64, 64, 10), "mnist": (784, 400, 10)}
METHODS = {"digits": ("descent", "mixing", "interior"), "mnist": ("descent", "interior")}


@torch.no_grad()
def accuracy(model: nn.Module, digits: data.Dataset) -> float:
    return float((model(digits.test_x).argmax(1) == digits.test_y).double().mean())


def trained(name: str, digits: data.Dataset, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    a, b, c = WIDTHS[name]
    net = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))
    epochs = 60 if name == "digits" else 8
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3 if name == "digits" else 1e-3)
    loader = data.batches(digits.train_x, digits.train_y, 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    vb.fit(net, optimizer, loader, epochs=epochs, scheduler=schedule, progress=False)
    return net.eval()


@torch.no_grad()
def xnor(net: nn.Sequential, layers: tuple[str, ...]) -> nn.Module:
    """The weights' signs, with their mean magnitude."""
    copied = copy.deepcopy(net)
    for name in layers:
        weight = copied.get_submodule(name).weight
        weight.copy_(weight.sign() * weight.abs().mean(1, keepdim=True))
    return copied


@torch.no_grad()
def last_fitted(net: nn.Sequential, binary: nn.Module, images: torch.Tensor) -> nn.Module:
    """The first layer of `binary`, and the last one of `net` fitted again to the outputs that it had."""
    copied = copy.deepcopy(net)
    copied[0] = copy.deepcopy(binary.get_submodule("0"))
    real, seen = (model[:2](images)[None].double() for model in (net, copied))
    for name, value in refitted(net[2], real, seen).items():
        copied[2].get_parameter(name).copy_(value)
    return copied


def rows_of(
    net: nn.Sequential, digits: data.Dataset, rows: int, methods: tuple[str, ...], tolerance: float
) -> dict[str, Any]:
    """By part of the network that is binary and method: accuracy, the first layer's error, what it took."""
    images = digits.train_x[torch.randperm(len(digits.train_x), generator=torch.Generator().manual_seed(0))[:rows]]
    real = {"float": {"accuracy": accuracy(net, digits)}}
    first, both = xnor(net, ("0",)), xnor(net, ("0", "2"))
    found: dict[str, Any] = {
        "first layer": real | {"xnor": {"accuracy": accuracy(first, digits)}},
        "both layers": real | {"xnor": {"accuracy": accuracy(both, digits)}},
    }
    fitted = last_fitted(net, first, images)
    found["first layer"]["xnor, fitted"] = {"accuracy": accuracy(fitted, digits)}
    for method in methods:
        begun = time.process_time()
        binary, report = binarize_layerwise(net, images, method=method, max_rows=rows, tolerance=tolerance)
        seconds = time.process_time() - begun
        layer = report["0"]
        row = {"error": layer.error, "processor_seconds": seconds}
        if method == "interior":
            ratio = layer.lower_bounds / layer.objectives
            row |= {
                "bound": layer.bound,
                "bound_by_found_mean": float(ratio.mean()),
                "bound_by_found_least": float(ratio.min()),
                "certified": int((layer.lower_bounds > 0).sum()),
            }
            say(report)
        # the layers are done one after the other, so the first is the same whether or not the second becomes binary
        fitted = last_fitted(net, binary, images)
        found["first layer"][method] = row | {"accuracy": accuracy(fitted, digits)}
        found["both layers"][method] = row | {"accuracy": accuracy(binary, digits)}
        if method == "interior":
            alone = copy.deepcopy(net)
            alone[0] = copy.deepcopy(binary.get_submodule("0"))
            found["first layer"]["interior, last as it was"] = row | {"accuracy": accuracy(alone, digits)}
        for part in found.values():
            for name in ("xnor", "xnor, fitted"):
                if name in part:
                    part[name]["error"] = layer.xnor_error
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "sdp-layerwise.json")
    args = parser.parse_args()
    name = "digits" if args.data_dir is None else "mnist"
    digits = data.load(name, args.data_dir)
    runs = read(args.out).get(name, {}).get("runs", [])
    for seed in range(len(runs), SEEDS[name]):
        torch.set_num_threads(1)  # so small a network trains no faster with more
        net = trained(name, digits, seed)
        torch.set_num_threads(args.threads)
        runs.append(rows_of(net, digits, args.rows, METHODS[name], args.tolerance))
        content = read(args.out) | {"machine": machine()}
        rows = min(args.rows, len(digits.train_x))
        content[name] = {"rows": rows, "tolerance": args.tolerance, "runs": runs, "table": table(runs)}
        write(args.out, content)


def table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the standard deviation of accuracies."""
    made: dict[str, Any] = {}
    for part in runs[0]:
        made[part] = {}
        for method, row in runs[0][part].items():
            values = {key: [run[part][method][key] for run in runs] for key in row}
            made[part][method] = {key: statistics.fmean(value) for key, value in values.items()}
            if len(runs) > 1:
                made[part][method]["accuracy_sd"] = statistics.stdev(values["accuracy"])
    return made


if __name__ == "__main__":
    main()
