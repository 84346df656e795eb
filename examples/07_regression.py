"""How sure is a binary network of a curve, where there are data and where there are none?

One hidden layer of ±1 weights with a posterior and learned noise is fitted to 160 noisy points. Beyond them the bands
widen: that is what the drawn networks disagree about, and what one network with a noise does not show.

    python examples/07_regression.py                       the built-in curve, a quarter of a minute
    python examples/07_regression.py --data-dir DIR        Snelson's data, from snelson.npz or its text files
    python examples/07_regression.py --smoke               a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import varbnn as vb
from varbnn import data
from varbnn.data import RegressionDataset
from varbnn.errors import MissingExtraError


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    width: int = 200
    epochs: int = 400
    batch_size: int = 32
    lr: float = 1e-2
    temperature: float = 0.3
    real_lr: float = 1e-2
    num_samples: int = 64
    folder: str = "varbnn-demo"


SMOKE = dict(width=20, epochs=5, num_samples=8)


def network(settings: Settings) -> nn.Module:
    """One input, hidden units relu(±x · scale + shift), a real head, and the noise; shifts start spread out."""
    scale = vb.nn.Scale(settings.width, initial=4.0, shift=True)
    nn.init.normal_(scale.shift, std=5.0)
    hidden, head = nn.Linear(1, settings.width, bias=False), nn.Linear(settings.width, 1)
    return vb.binarize(nn.Sequential(hidden, scale, nn.ReLU(), head, vb.nn.LearnedNoise(initial=0.1)), skip=[head])


def fitted(curve: RegressionDataset, settings: Settings) -> nn.Module:
    torch.manual_seed(settings.seed)
    model = network(settings)
    optimizer = vb.optim.BayesBiNN(
        model.parameters(), lr=settings.lr, dataset_size=len(curve.train_x), temperature=settings.temperature,
        real_lr=settings.real_lr,
    )  # fmt: skip
    loader = data.batches(curve.train_x, curve.train_y, settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    vb.fit(
        model, optimizer, loader, epochs=settings.epochs, loss=vb.nn.gaussian_nll, scheduler=schedule, progress=False
    )
    return model


def asked(model: nn.Module, x: Tensor, curve: RegressionDataset, settings: Settings) -> vb.RegressionPrediction:
    """What the drawn networks say, in units of the target; the same networks for every x.

    The noise that training learns holds the scatter of single draws. The likeliest for points set aside does not.
    """
    generators = [torch.Generator().manual_seed(settings.seed) for _ in range(2)]
    aside, found = (
        vb.predict(model, inputs, settings.num_samples, task="gaussian", generator=generator)
        for inputs, generator in zip((curve.val_x, x), generators, strict=True)
    )
    scaling = vb.NoiseScaling().fit(aside, curve.val_y)
    return scaling(found).in_units(curve.target_scale, curve.target_mean)


def draw(curve: RegressionDataset, grid: Tensor, found: vb.RegressionPrediction, path: Path) -> str | None:
    """The data, the mean, and two bands of two standard deviations: noise alone, and noise with disagreement."""
    try:
        from varbnn.predict.style import BLUE, INK, SKY, legend_above, new_panels

        figure, (panel,) = new_panels(None, 1, figsize=(7.2, 3.8))
    except MissingExtraError as missing:
        print(missing)
        return None
    x = curve.undo(grid)[:, 0].numpy()
    mean, noise, total = (t[:, 0].numpy() for t in (found.mean, found.aleatoric.sqrt(), found.std))
    panel.fill_between(x, mean - 2 * total, mean + 2 * total, color=SKY, alpha=0.35, linewidth=0, label="total, ±2 sd")
    panel.fill_between(x, mean - 2 * noise, mean + 2 * noise, color=BLUE, alpha=0.35, linewidth=0, label="noise alone")
    panel.plot(x, mean, color=BLUE, label=f"mean of {found.num_samples} networks")
    points = curve.undo(curve.train_x)[:, 0].numpy(), curve.undo_targets(curve.train_y)[:, 0].numpy()
    panel.plot(*points, ".", color=INK, markersize=3, label="training data")
    panel.set(xlabel="input", ylabel="target", xlim=(x.min(), x.max()))
    legend_above(panel, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return str(path)


def main(settings: Settings, data_dir: str | None) -> dict[str, Any]:
    begun = time.perf_counter()
    torch.set_num_threads(1)
    if data_dir is None:
        curve = data.load("curve", seed=settings.seed, validation=True)
    else:
        curve = data.load("snelson", data_dir, seed=settings.seed, validation=True)
    model = fitted(curve, settings)
    low, high = float(curve.train_x.min()), float(curve.train_x.max())
    grid = torch.linspace(low - (high - low) / 3, high + (high - low) / 3, 400)[:, None]
    found = asked(model, grid, curve, settings)
    inside = ((grid >= low) & (grid <= high))[:, 0]
    far = {"data": found.epistemic[inside].mean().sqrt(), "beyond": found.epistemic[~inside].mean().sqrt()}
    known = curve.train_x if curve.test_y is None else curve.test_x
    truth = curve.train_y if curve.test_y is None else curve.test_y
    measured = vb.evaluate(asked(model, known, curve, settings), curve.undo_targets(truth))
    print(measured)
    print(f"\nnoise {found.aleatoric[0].sqrt().item():.3f}")
    print("the networks disagree by " + ", ".join(f"{value:.3f} ({where})" for where, value in far.items()))
    figure = draw(curve, grid, found, Path(settings.folder) / "07_regression.png")
    noise = found.aleatoric[0].sqrt().item()
    return {
        "data": curve.name,
        "measured_on": "training data" if curve.test_y is None else "test data",
        **{key: round(measured[key], 4) for key in ("rmse", "nll", "coverage")},
        "noise": round(noise, 4),
        **{f"epistemic_{where}": round(float(value), 4) for where, value in far.items()},
        "figure": figure,
        "seconds": round(time.perf_counter() - begun, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    print(json.dumps(main(replace(Settings(), **SMOKE) if args.smoke else Settings(), args.data_dir)))
