"""What a posterior over ±1 weights knows that one binary network does not.

A straight-through network and a living posterior of the same shape, trained equally long on handwritten digits, are
asked about digits they have not seen and about photograph patches, which are no digits.

    python examples/02_uncertainty.py            under a minute
    python examples/02_uncertainty.py --smoke    a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import varbnn as vb
from varbnn import data
from varbnn.errors import MissingExtraError, VarbnnWarning


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed. Both `lr` and the temperature were chosen on a validation split."""

    seed: int = 0
    width: int = 256
    epochs: int = 100
    batch_size: int = 64
    lr: float = 1e-3
    temperature: float = 1 / 1000
    ste_lr: float = 1e-2
    num_samples: int = 64
    folder: str = "varbnn-demo"


SMOKE = dict(width=32, epochs=2, num_samples=4)


def trained(posterior: vb.posteriors.Posterior, settings: Settings, x: Tensor, y: Tensor) -> nn.Module:
    """The same network, start, batches and schedule for both posteriors."""
    torch.manual_seed(settings.seed)
    widths = [x.shape[1], settings.width, settings.width]
    hidden = [
        layer
        for a, b in itertools.pairwise(widths)
        for layer in (nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU())
    ]
    model = nn.Sequential(*hidden, nn.Linear(settings.width, 10, bias=False), nn.BatchNorm1d(10))
    vb.binarize(model, posterior)
    if isinstance(posterior, vb.posteriors.Point):
        optimizer = vb.optim.StraightThrough(model.parameters(), lr=settings.ste_lr)
    else:
        optimizer = vb.optim.BayesBiNN(
            model.parameters(), lr=settings.lr, dataset_size=len(x), temperature=settings.temperature
        )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    loader = data.batches(x, y, settings.batch_size)
    vb.fit(model, optimizer, loader, epochs=settings.epochs, scheduler=scheduler, label=type(posterior).__name__)
    return model


def show(rows: dict[str, dict[str, float]]) -> None:
    """One line per row."""
    for name, row in rows.items():
        print(f"{name:<28}" + "  ".join(f"{key} {value:.4f}" for key, value in row.items() if key != "num_samples"))
    print()


def main(settings: Settings) -> dict[str, object]:
    start = time.perf_counter()
    torch.set_num_threads(1)  # fastest for a network this small
    try:
        digits = data.load("digits")
    except MissingExtraError as missing:
        raise SystemExit(str(missing)) from None
    ste = trained(vb.posteriors.Point(), settings, digits.train_x, digits.train_y)
    living = trained(vb.posteriors.Bernoulli(), settings, digits.train_x, digits.train_y)

    def ask(model: nn.Module, num_samples: int, refresh: bool = True) -> tuple[vb.Prediction, vb.Prediction]:
        options = dict(num_samples=num_samples, refresh_bn=digits.train_x if refresh else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VarbnnWarning)  # it says what part 2 below measures
            return vb.predict(model, digits.test_x, **options), vb.predict(model, digits.ood_x, **options)

    def measure(pair: tuple[vb.Prediction, vb.Prediction]) -> dict[str, float]:
        return {k: round(v, 4) for k, v in vb.evaluate(pair[0], digits.test_y, ood=pair[1]).items()}

    print("\n== 1. One network against many")
    point, mode, many = ask(ste, 0), ask(living, 0), ask(living, settings.num_samples)
    methods = {"ste": measure(point), "mode": measure(mode), "posterior": measure(many)}
    show(methods)

    print("== 2. Batch-norm statistics belong to a draw: re-estimated or left as training kept them")
    refresh = {
        "mode, kept": measure(ask(living, 0, refresh=False)),
        "mode, re-estimated": methods["mode"],
        "draws, kept": measure(ask(living, settings.num_samples, refresh=False)),
        "draws, re-estimated": methods["posterior"],
    }
    show(refresh)

    print("== 3. How many draws are enough? The first k of the same draws")
    counts = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= settings.num_samples]
    by_count = {str(k): measure((vb.Prediction(many[0].probs[:k]), vb.Prediction(many[1].probs[:k]))) for k in counts}
    show({f"{k} draw{'s' * (k != '1')}": row for k, row in by_count.items()})

    print("== 4. Two kinds of doubt, mean nats per input")
    groups = {"digits": many[0], "patches": many[1], "digits, ste": point[0], "patches, ste": point[1]}
    kinds = ("total", "aleatoric", "epistemic")
    split = {name: {kind: round(float(getattr(p, kind).mean()), 4) for kind in kinds} for name, p in groups.items()}
    show(split)

    print("== 5. Is it as sure as it is right?")
    figure: str | None = str(Path(settings.folder) / "02_reliability.png")
    try:
        # few bins: nearly all test digits lie in the last one, and a bin of one digit shows nothing
        drawing = vb.plots.reliability_diagram({"one (STE)": point[0], "posterior": many[0]}, digits.test_y, bins=5)
        Path(settings.folder).mkdir(parents=True, exist_ok=True)
        drawing.savefig(figure, dpi=150)
    except MissingExtraError as missing:
        figure = None
        print(missing)
    print(figure)
    seconds = round(time.perf_counter() - start, 1)
    return {**methods, "refresh_bn": refresh, "draws": by_count, "doubt": split, "figure": figure, "seconds": seconds}


if __name__ == "__main__":
    chosen = replace(Settings(), **SMOKE) if "--smoke" in sys.argv[1:] else Settings()
    print(json.dumps(main(chosen)))
