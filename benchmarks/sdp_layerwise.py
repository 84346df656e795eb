"""What is left of a float network whose layers are made binary from calibration inputs alone?

    python benchmarks/sdp_layerwise.py                             digits, 64-64-10, first layer and both
    python benchmarks/sdp_layerwise.py --data-dir FOLDER           MNIST, 784-400-10

Rows: what XNOR-Net's rule leaves, the signs with the best scale, single flips, and the relaxation with its bound.
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

SEEDS = {"digits": 5, "mnist": 1}
WIDTHS = {"digits": (64, 64, 10), "mnist": (784, 400, 10)}


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


def rows_of(net: nn.Sequential, digits: data.Dataset, layers: tuple[str, ...], rows: int) -> dict[str, Any]:
    skip = [name for name in ("0", "2") if name not in layers]
    found: dict[str, Any] = {
        "float": {"accuracy": accuracy(net, digits)},
        "xnor": {"accuracy": accuracy(xnor(net, layers), digits)},
    }
    for method in ("descent", "mixing", "interior"):
        begun = time.process_time()
        binary, report = binarize_layerwise(
            net, digits.train_x, skip=skip, method=method, max_rows=rows, tolerance=0.05, progress=False
        )
        first = report["0"]
        found[method] = {
            "accuracy": accuracy(binary, digits),
            "error": first.error,
            "processor_seconds": time.process_time() - begun,
        }
        found["xnor"]["error"] = first.xnor_error
        if method == "interior":
            ratio = first.lower_bounds / first.objectives
            found[method] |= {
                "bound": first.bound,
                "bound_by_found_mean": float(ratio.mean()),
                "bound_by_found_least": float(ratio.min()),
            }
            say(report)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS / "sdp-layerwise.json")
    args = parser.parse_args()
    torch.set_num_threads(2)
    name = "digits" if args.data_dir is None else "mnist"
    digits = data.load(name, args.data_dir)
    content = read(args.out)
    runs = []
    for seed in range(SEEDS[name]):
        net = trained(name, digits, seed)
        runs.append({"first layer": rows_of(net, digits, ("0",), args.rows)})
        if name == "digits":
            runs[-1]["both layers"] = rows_of(net, digits, ("0", "2"), args.rows)
    content["machine"] = machine()
    content[name] = {"rows": args.rows, "runs": runs, "table": table(runs)}
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
