"""How good are binary weights that training has found? A proved answer, for one layer and five ways to find them.

One layer with 40 correlated inputs and 16 outputs is fitted by least squares. Straight-through, Bop, BayesBiNN and
VISPA train it on batches; the relaxation rounds and proves for every output what no ±1 weights can beat.

    python examples/06_certified_gap.py            under a minute
    python examples/06_certified_gap.py --smoke    a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import varbnn as vb
from varbnn import data
from varbnn.errors import MissingExtraError
from varbnn.optim import VISPA, BayesBiNN, Bop, Rule, StraightThrough
from varbnn.posteriors import Bernoulli, LowRankGaussian, Point, Posterior
from varbnn.sdp import least_squares_batch

# each with the best of a few learning rates or thresholds
RULES: dict[str, tuple[Posterior, Callable[[nn.Module, int], Rule]]] = {
    "straight-through": (Point(), lambda m, steps: StraightThrough(m.parameters(), lr=0.1)),
    "Bop": (Point(), lambda m, steps: Bop(m.parameters(), gamma=1e-2, threshold=1e-2)),
    "BayesBiNN": (
        Bernoulli(),
        lambda m, steps: BayesBiNN(m.parameters(), lr=1e-2, dataset_size=1, temperature=1e-2),
    ),
    "VISPA": (LowRankGaussian(rank=4), lambda m, steps: VISPA(m.parameters(), lr=1e-3)),
}


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    rows: int = 400
    inputs: int = 40
    outputs: int = 16
    epochs: int = 300
    batch_size: int = 50
    folder: str = "varbnn-demo"


SMOKE = dict(rows=60, inputs=12, outputs=4, epochs=3)


def problem(settings: Settings) -> tuple[Tensor, Tensor]:
    """Inputs as after a ReLU layer, and the outputs of a float layer, both with a mean square of about 1."""
    generator = torch.Generator().manual_seed(settings.seed)
    mixing = torch.randn(settings.inputs, settings.inputs, generator=generator) / settings.inputs**0.5
    x = (torch.randn(settings.rows, settings.inputs, generator=generator) @ mixing).relu()
    y = x @ torch.randn(settings.inputs, settings.outputs, generator=generator)
    return x, y


def trained(name: str, x: Tensor, y: Tensor, settings: Settings) -> np.ndarray:
    """The ±1 weights a rule ends with, outputs × inputs."""
    torch.manual_seed(settings.seed)
    posterior, rule = RULES[name]
    model = vb.binarize(nn.Linear(x.shape[1], y.shape[1], bias=False), posterior)
    optimizer = rule(model, settings.epochs)
    loader = data.batches(x, y, settings.batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    loss = nn.MSELoss()
    vb.fit(model, optimizer, loader, epochs=settings.epochs, loss=loss, scheduler=scheduler, progress=False)
    return model.eval().weight.detach().double().numpy()


def draw(found: dict[str, np.ndarray], bounds: np.ndarray, path: Path) -> str | None:
    """For every output how far each rule's weights are from what is proved."""
    try:
        from varbnn.predict.style import BLUE, INK, legend_above, new_panels

        figure, (panel,) = new_panels(None, 1, figsize=(7.2, 3.6))
    except MissingExtraError as missing:
        print(missing)
        return None
    order = np.argsort(bounds / found["relaxation"])
    places = np.arange(1, len(order) + 1)
    for (name, objectives), marker in zip(found.items(), "os^Dv", strict=True):
        strong = name == "relaxation"
        panel.plot(
            places, (bounds / objectives)[order], marker, label=name, markersize=7, linestyle="none",
            color=BLUE if strong else INK, markerfacecolor=BLUE if strong else "none", zorder=3 if strong else 2,
        )  # fmt: skip
    panel.axhline(1, color=INK, linewidth=0.8)
    panel.set(xlabel="output, by the bound of the relaxation", ylabel="proved bound / objective", ylim=(0, 1.05))
    legend_above(panel, 5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return str(path)


def main(settings: Settings) -> dict[str, Any]:
    begun = time.perf_counter()
    torch.set_num_threads(1)
    x, y = problem(settings)
    design, targets = x.double().numpy(), y.double().numpy()
    best = least_squares_batch(design, targets, scale=1.0, tolerance=1e-4)
    found = {"relaxation": best.objectives}
    for name in RULES:
        weights = trained(name, x, y, settings)
        found[name] = ((targets - design @ weights.T) ** 2).sum(0)
    bounds = best.lower_bounds
    rows = {
        name: {
            "objective": round(float(objectives.sum()), 2),
            "gap": round(float((objectives.sum() - bounds.sum()) / objectives.sum()), 4),
            "worst_gap": round(float((1 - bounds / objectives).max()), 4),
            "above_best": round(float(objectives.sum() / best.objectives.sum() - 1), 4),
        }
        for name, objectives in found.items()
    }
    print(f"\n{'':<18}{'objective':>10}{'certified gap':>15}{'worst':>8}{'above the best':>16}")
    for name, row in rows.items():
        cells = f"{row['gap']:>15.1%}{row['worst_gap']:>8.1%}{row['above_best']:>16.1%}"
        print(f"{name:<18}{row['objective']:>10.1f}{cells}")
    print(f"\nno ±1 weights have less than {bounds.sum():.1f}: proved for each of the {len(bounds)} outputs")
    figure = draw(found, bounds, Path(settings.folder) / "06_certified_gap.png")
    return {"rules": rows, "bound": round(float(bounds.sum()), 2), "figure": figure,
            "seconds": round(time.perf_counter() - begun, 1)}  # fmt: skip


if __name__ == "__main__":
    chosen = replace(Settings(), **SMOKE) if "--smoke" in sys.argv[1:] else Settings()
    print(json.dumps(main(chosen)))
