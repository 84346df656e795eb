"""Which digits should be labelled? Those that the sampled networks disagree about, those they doubt, or any.

Twenty handwritten digits are labelled at first. Every round a small binary network with a posterior is trained on what
is labelled and chooses twenty more of the rest: at random, those of highest mutual information (BALD), or drawn in
proportion to it, so that not all twenty are of a kind.

    python examples/08_active_learning.py            under a minute
    python examples/08_active_learning.py --smoke    a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import varbnn as vb
from varbnn import active, data
from varbnn.errors import MissingExtraError


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed. `lr` and temperature were chosen on 60 random labels and validation digits."""

    seeds: int = 3
    start: int = 20
    add: int = 20
    end: int = 160
    width: int = 64
    steps: int = 200
    batch_size: int = 20
    lr: float = 3e-3
    temperature: float = 1e-4
    num_samples: int = 16
    folder: str = "varbnn-demo"


SMOKE = dict(seeds=1, end=40, width=16, steps=20, num_samples=4)
STRATEGIES: dict[str, tuple[active.Acquisition, float | None]] = {
    "random": ("random", None),
    "highest BALD": ("bald", None),
    "drawn by BALD": ("bald", 1.0),
}


def trained(x: Tensor, y: Tensor, settings: Settings, seed: int) -> nn.Module:
    """From scratch, with the same number of steps however many labels there are."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(x.shape[1], settings.width, bias=False),
        nn.BatchNorm1d(settings.width),
        nn.ReLU(),
        nn.Linear(settings.width, 10, bias=False),
        nn.BatchNorm1d(10),
    )
    vb.binarize(model)
    optimizer = vb.optim.BayesBiNN(
        model.parameters(), lr=settings.lr, dataset_size=len(x), temperature=settings.temperature
    )
    loader = data.batches(x, y, settings.batch_size)
    epochs = max(1, round(settings.steps / len(loader)))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    vb.fit(model, optimizer, loader, epochs=epochs, scheduler=scheduler, progress=False)
    return model


def curve(strategy: str, digits: data.Dataset, settings: Settings, seed: int) -> dict[int, float]:
    """Accuracy on the test digits by number of labels."""
    x, y = digits.train_x, digits.train_y
    # the same seed starts with the same digits, whatever the strategy
    pool = active.Pool(len(x), settings.start, torch.Generator().manual_seed(seed))
    found = {}
    while True:
        model = trained(x[pool.labelled], y[pool.labelled], settings, seed)
        # batch-norm statistics need no labels: all digits of the pool give them
        options = dict(num_samples=settings.num_samples, refresh_bn=x)
        found[len(pool.labelled)] = vb.evaluate(vb.predict(model, digits.test_x, **options), digits.test_y)["accuracy"]
        if len(pool.labelled) >= settings.end:
            return found
        acquisition, power = STRATEGIES[strategy]
        pool.query(vb.predict(model, x[pool.unlabelled], **options), settings.add, acquisition, power=power)


def draw(curves: dict[str, list[dict[int, float]]], path: Path) -> None:
    """Mean over the seeds, with their range."""
    from varbnn.predict.style import COLOURS, legend_above, new_panels  # needs matplotlib

    figure, (panel,) = new_panels(None, 1, figsize=(5.4, 3.6))
    for (strategy, runs), colour in zip(curves.items(), COLOURS, strict=False):
        labels = list(runs[0])
        rows = [[run[count] for run in runs] for count in labels]
        panel.fill_between(labels, [min(row) for row in rows], [max(row) for row in rows], color=colour, alpha=0.15)
        panel.plot(
            labels, [statistics.fmean(row) for row in rows], color=colour, marker="o", markersize=3, label=strategy
        )
    panel.set(xlabel="labelled digits", ylabel="accuracy")
    legend_above(panel, columns=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(settings: Settings) -> dict[str, object]:
    start = time.perf_counter()
    try:
        digits = data.load("digits")
    except MissingExtraError as missing:
        raise SystemExit(str(missing)) from None
    curves = {
        strategy: [curve(strategy, digits, settings, seed) for seed in range(settings.seeds)] for strategy in STRATEGIES
    }
    means = {
        strategy: {count: round(statistics.fmean(run[count] for run in runs), 4) for count in runs[0]}
        for strategy, runs in curves.items()
    }
    for count in means["random"]:
        print(f"{count:4} labels  " + "  ".join(f"{name} {row[count]:.3f}" for name, row in means.items()))
    figure: str | None = str(Path(settings.folder) / "08_active_learning.png")
    try:
        draw(curves, Path(settings.folder) / "08_active_learning.png")
    except MissingExtraError as missing:
        figure = None
        print(missing)
    last = {strategy: row[max(row)] for strategy, row in means.items()}
    area = {strategy: round(statistics.fmean(row.values()), 4) for strategy, row in means.items()}
    seconds = round(time.perf_counter() - start, 1)
    return {"accuracy": means, "last": last, "area": area, "figure": figure, "seconds": seconds}


if __name__ == "__main__":
    torch.set_num_threads(1)  # for networks this small more threads gain little, and lose much where cores are shared
    chosen = replace(Settings(), **SMOKE) if "--smoke" in sys.argv[1:] else Settings()
    print(json.dumps(main(chosen)))
