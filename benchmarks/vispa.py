"""VISPA: a small replication, and what is left of it beside others that may average as many networks.

    python benchmarks/vispa.py
    python benchmarks/vispa.py --data mnist --data-dir DIR --seeds 3

Part "toy", on digits: pixels as thermometers, 256 bits; 256-256-256-10 with batch norm; 540 images to test; 40 draws,
learning rates as they were found on such a split, batches of 32; four seeds on one split, one on each of the others.
Part "equal", in `vispa_votes.py`: four methods with 16 networks each. Results are written after every run, and one that
is there already is not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn
from vispa_votes import SAMPLES, SETUPS, Split, accuracy, digits, equal, images, network, spread, trained

import varbnn as vb
from varbnn.optim import VISPA
from varbnn.posteriors import LowRankGaussian

WIDTHS = (256, 256, 256, 10)
EPOCHS, BATCH = 30, 32

TOY: dict[str, tuple[bool, int, float, str, str]] = {
    "1W1A K=0": (True, 0, 3.0, "none", "xavier"),
    "1W1A K=2": (True, 2, 3.0, "none", "xavier"),
    "1W1A K=4": (True, 4, 3.0, "none", "xavier"),
    "1W1A K=8": (True, 8, 3.0, "none", "xavier"),
    "1W32A K=0": (False, 0, 1.0, "none", "xavier"),
    "1W32A K=4": (False, 4, 1.0, "none", "xavier"),
    "1W32A K=8": (False, 8, 1.0, "none", "xavier"),
    "1W32A K=4, unit, lr 0.1": (False, 4, 0.1, "unit", "xavier"),
    "1W32A K=4, unit, lr 0.5": (False, 4, 0.5, "unit", "xavier"),
    "1W32A K=4, unit, lr 4": (False, 4, 4.0, "unit", "xavier"),
    "1W32A K=4, unit, lr 30": (False, 4, 30.0, "unit", "xavier"),
    "1W32A K=4, released start": (False, 4, 1.0, "none", "released"),
    "1W32A K=4, unit, lr 4, released start": (False, 4, 4.0, "unit", "released"),
}
"""Binary activations or not, rank, learning rate, constraint, start of the factors."""


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, draws: int, seed: int) -> Tensor:
    """Of `draws` networks with the batch-norm statistics of training, as the published code tests."""
    model.eval()
    generator, outputs = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        with vb.nn.sampled(model, generator):
            outputs.append(model(x))
    return torch.stack(outputs)


def toy_run(name: str, seed: int, splits: dict[str, Split]) -> dict[str, Any]:
    binary, rank, lr, constraint, init = TOY[name]
    torch.manual_seed(seed)
    model = network(LowRankGaussian(rank=rank, constraint=constraint, init=init), WIDTHS, binary)
    trained(model, VISPA(model.parameters(), lr=lr, weight_decay=1e-5), splits["whole"], (EPOCHS, BATCH), seed)
    x, y = splits["test"]
    networks = logits(model, x, 40, seed)
    with torch.no_grad():
        mode = model(x)
    layers = [layer for _, layer in vb.nn.binary_layers(model)]
    ratios = [(1 / layer.posterior.standardised(*layer.belief).abs()).flatten() for layer in layers]
    return {
        "seed": seed,
        "single": accuracy(networks, y),
        "ensemble": accuracy(networks.mean(0), y),
        "mode": accuracy(mode, y),
        "median_spread": float(torch.cat(ratios).median().detach()),
    }


def toy(results: dict[str, Any], path: Path, seeds: int, splits: int) -> None:
    """Several seeds on split 0, then one seed, the split's number, on each of the others."""
    part = results.setdefault("toy", {})
    for split, seed in [(0, seed) for seed in range(seeds)] + [(split, split) for split in range(1, splits)]:
        runs, images = part.setdefault("splits" if split else "runs", {}), digits(split)
        for name in TOY:
            own = runs.setdefault(name, [])
            if all(run["seed"] != seed for run in own):
                own.append(toy_run(name, seed, images))
                say(name, split, own[-1])
                write(path, results)
    keys = ("single", "ensemble", "mode", "median_spread")
    part["table"] = {name: {k: spread([run[k] for run in own]) for k in keys} for name, own in part["runs"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("toy", "equal"), default=("toy", "equal"))
    parser.add_argument("--data", choices=tuple(SETUPS), default="digits", help="of the part equal")
    parser.add_argument("--data-dir", help="where the files of mnist and fashion lie")
    parser.add_argument("--toy-seeds", type=int, default=4)
    parser.add_argument("--toy-splits", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    setup = SETUPS[args.data]
    path = args.out or RESULTS / ("vispa.json" if args.data == "digits" else f"vispa-{args.data}.json")
    results: dict[str, Any] = {"machine": machine(), "num_samples": SAMPLES, "epochs": setup.epochs} | read(path)
    if "toy" in args.parts and args.data == "digits":
        toy(results, path, args.toy_seeds, args.toy_splits)
    if "equal" in args.parts:
        splits = digits() if args.data == "digits" else images(args.data, args.data_dir)
        equal(results, path, args.seeds, setup, splits)
    write(path, results)


if __name__ == "__main__":
    main()
