"""`varbnn train`: a network of your own data, and what is known of it."""

from __future__ import annotations

import argparse
import io
import json
import textwrap
import zlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn import demo, presets
from varbnn.cli.arguments import at_least, destination, hidden, threads, written
from varbnn.cli.judging import judgement
from varbnn.cli.resuming import going_on
from varbnn.data import NAMES, Dataset, batches, from_files, load, some_rows
from varbnn.demo.comparison import alone
from varbnn.demo.networks import between, image_shape, layers_of
from varbnn.demo.output import REPORT, TRAIN, as_json, output
from varbnn.demo.recipes import BY_PRESET
from varbnn.errors import MissingExtraError
from varbnn.predict.style import SHARPNESS
from varbnn.text import percent, plural, table

STATE, SETTINGS, MODEL, INPUTS, PICTURE = "training.pt", "training.json", "model.vbnn", "inputs.npz", "reliability.png"
"""Files of a run: to go on from, what it was asked for, its networks, how inputs are prepared, a picture."""

MEASURES = ("accuracy", "nll", "brier", "ece", "ood_auroc")


def add(commands: Any) -> None:
    about = "train a binary network on your own data and write it as a packed file with a report"
    more = (
        f"{about}. An interrupted run goes on from its last whole epoch when the same command is given again. A sixth "
        "of the training data is set aside for validation unless they bring x_val."
    )
    add = commands.add_parser("train", help=about, description=more).add_argument
    about = (
        f"an .npz with x_train and y_train (and x_val, x_test ...), a folder of idx files, or one of {', '.join(NAMES)}"
    )
    add("data", metavar="DATA", help=about)
    add("--data-dir", metavar="DIR", help="where the files of named image sets lie")
    add("--method", choices=list(demo.METHODS), default="posterior", help="default: posterior")
    about = "layers, settings, batches, epochs, and inputs left out of a posterior's training; default: by their number"
    add("--preset", choices=list(presets.PRESETS), help=about)
    add("--hidden", type=hidden, metavar="WIDTHS", help="of the hidden layers, such as 400-400; default: the preset's")
    about = "of 3×3 convolutions in front of the hidden layers, each with a 2×2 pooling, such as 16-32"
    add("--channels", type=hidden, metavar="WIDTHS", help=about)
    about = "between the layers; with signs packed products count bits; default: the preset's"
    add("--activation", choices=list(demo.ACTIVATIONS), help=about)
    add("--epochs", type=at_least(1), metavar="N", help="default: the preset's")
    add("--samples", type=at_least(1), default=32, metavar="N", help="networks of a posterior; default: 32")
    add("--seed", type=at_least(0), default=0, metavar="N", help="default: 0")
    add("--threads", type=threads, default=1, metavar="N", help="default: 1")
    add("--out", type=destination, default="varbnn-run", metavar="DIR", help="default: varbnn-run")
    add("--quiet", action="store_true", help="no progress bar")
    commands.choices["train"].set_defaults(command=_run)


def read(name: str, data_dir: str | None, seed: int) -> Dataset:
    """Data by name or from files, with a validation part."""
    return load(name, data_dir, seed, validation=True) if name in NAMES else from_files(name, seed, validation=True)


@dataclass(frozen=True)
class Plan:
    """What a run is asked for; a run that goes on must be asked for the same."""

    data: str
    data_dir: str | None
    method: str
    preset: str
    widths: tuple[int, ...]
    epochs: int
    batch_size: int
    settings: Mapping[str, float]
    dropout: float
    samples: int
    seed: int
    fingerprint: str
    channels: tuple[int, ...]
    activation: str

    def written(self) -> dict[str, Any]:
        return json.loads(json.dumps(vars(self)))  # tuples become lists, as they are when read again


def _run(chosen: argparse.Namespace) -> None:
    folder = Path(chosen.out)
    data = read(chosen.data, chosen.data_dir, chosen.seed)
    plan = _plan(chosen, data)
    with output(folder, TRAIN):
        pass  # better to hear now that it cannot be written to
    going_on(folder / STATE, folder / SETTINGS, plan.written())
    print(f"{_opening(plan, data)}\n", flush=True)
    try:
        report, files = _made(chosen, plan, data, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on after the last whole epoch") from None
    print(measures({part: report[part] for part in ("validation", "test") if part in report}))
    if report["remark"]:
        print(f"\n{textwrap.fill(report['remark'], 100, break_on_hyphens=False)}")
    print(f"\nWritten to {chosen.out}: {', '.join(files)}\nNext: varbnn evaluate {chosen.out} --ood OTHER.npy")
    print(f"      varbnn predict {chosen.out} NEW.npy     (inputs in the units of {chosen.data})")


def _made(chosen: argparse.Namespace, plan: Plan, data: Dataset, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Train, measure and write everything; returns the report and the names of the files."""
    with alone(chosen.threads):
        model, history = _trained(plan, data, folder, chosen.quiet)
        packed = _packed(plan, data, model)
        found = judgement(data, packed)
        with output(folder, TRAIN) as place:
            report = {
                "program": TRAIN,
                "varbnn": vb.__version__,
                "torch": torch.__version__,
                "plan": plan.written(),
                **found["report"],
            }
            report |= {"entropy_bits": vb.health(model, warn=False).entropy_bits}
            report |= {"num_classes": data.num_classes, "shape": list(data.shape), "history": history}
            report["judged"] = fingerprint(*judged(data))
            report["where"] = {name: _absolute(getattr(plan, name)) for name in ("data", "data_dir")}
            packed.save(place.draft / MODEL)
            (place.draft / INPUTS).write_bytes(_inputs(data))
            draw(place.draft / PICTURE, found["judged"], found["targets"])
            report["files"] = sorted(path.name for path in place.draft.iterdir())
            (place.draft / REPORT).write_text(as_json(report), encoding="utf-8")
            return report, place.publish()


def _absolute(path: str | None) -> str | None:
    """The same from any folder; names of known data sets are no paths."""
    return path if path is None or path in NAMES else str(Path(path).resolve())


def _plan(chosen: argparse.Namespace, data: Dataset) -> Plan:
    name = chosen.preset or presets.fitting(len(data.train_x))
    preset = presets.PRESETS[name]
    channels = chosen.channels or preset.channels
    if channels:
        image_shape(data, len(channels))
    return Plan(
        data=chosen.data,
        data_dir=chosen.data_dir,
        method=chosen.method,
        preset=name,
        widths=chosen.hidden or preset.widths,
        epochs=chosen.epochs or preset.epochs,
        batch_size=preset.batch_size,
        settings=dict(BY_PRESET[name][chosen.method]),
        dropout=preset.dropout if chosen.method == "posterior" else 0.0,
        samples=chosen.samples,
        seed=chosen.seed,
        fingerprint=fingerprint(*learned(data)),
        channels=channels,
        activation=chosen.activation or preset.activation,
    )


def learned(data: Dataset) -> tuple[Tensor, ...]:
    """What a run has learned from."""
    own = (data.mean, data.std) if data.mean.dtype == torch.float64 else ()  # standardised, moved tables are the same
    return data.train_x, data.train_y, *own


def judged(data: Dataset) -> tuple[Tensor, Tensor]:
    """What a run is judged by: the test part, or the validation part of data without one."""
    assert data.val_x is not None
    assert data.val_y is not None
    return (data.test_x, data.test_y) if len(data.test_x) else (data.val_x, data.val_y)


def fingerprint(x: Tensor, *more: Tensor) -> str:
    """What tells these data from others."""
    code = 0
    for tensor in (x, *more):
        code = zlib.crc32(tensor.contiguous().numpy().tobytes(), code)
    return f"{len(x)} inputs, {code:08x}"


def _trained(plan: Plan, data: Dataset, folder: Path, quiet: bool) -> tuple[nn.Module, list[dict[str, float]]]:
    torch.manual_seed(plan.seed)
    method = demo.METHODS[plan.method]
    model = demo.network(
        data, plan.widths, method.posterior, plan.dropout, channels=plan.channels, activation=plan.activation
    )
    optimizer = method.optimizer(model, plan.settings, len(data.train_x))
    loader = batches(data.train_x, data.train_y, plan.batch_size, torch.Generator().manual_seed(plan.seed))
    schedule = CosineAnnealingLR(optimizer, plan.epochs)
    options: dict[str, Any] = dict(epochs=plan.epochs, scheduler=schedule, checkpoint=folder / STATE)
    return model, vb.fit(model, optimizer, loader, progress=not quiet, label=plan.method, **options)


def _packed(plan: Plan, data: Dataset, model: nn.Module) -> vb.PackedEnsemble:
    samples = plan.samples if demo.METHODS[plan.method].draws else 0
    refresh = some_rows(data.train_x, presets.PRESETS[plan.preset].refresh)
    return vb.pack(model, samples, refresh_bn=refresh, generator=torch.Generator().manual_seed(plan.seed))


def measures(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A table of measures, a column for each set that was judged."""
    names = [name for name in MEASURES if any(name in column for column in columns.values())]
    rows = [["", *columns]]
    for name in names:
        cells = [percent(c[name]) if name == "accuracy" else f"{c[name]:.4f}" for c in columns.values()]
        rows.append([name, *cells])
    return table(rows)


def draw(path: Path, prediction: vb.Prediction, targets: Tensor) -> None:
    """The reliability diagram, where matplotlib is installed."""
    try:
        figure = vb.plots.reliability_diagram(prediction, targets)
    except MissingExtraError as error:
        print(f"No picture: {error}")
        return
    picture = io.BytesIO()
    figure.savefig(picture, dpi=SHARPNESS)
    written(str(path), picture.getvalue())


def _opening(plan: Plan, data: Dataset) -> str:
    assert data.val_x is not None
    test = f", {len(data.test_x):,} test" if len(data.test_x) else ""
    drawn = f"{plural(plan.samples, 'network')} of the posterior" if demo.METHODS[plan.method].draws else "1 network"
    numbers = {**plan.settings, **({"dropout": plan.dropout} if plan.dropout else {})}
    settings = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
    return (
        f"data      {data.name}: {len(data.train_x):,} training, {len(data.val_x):,} validation{test} inputs, "
        f"{plural(data.num_classes, 'class')}\n"
        f"network   {layers_of(data, plan.widths, plan.channels)}, {between(plan.activation)}\n"
        f"method    {plan.method}, preset {plan.preset}: {settings}\n"
        f"budget    {plural(plan.epochs, 'epoch')} in batches of {plan.batch_size}\n"
        f"answer    of {drawn}"
    )


def _inputs(data: Dataset) -> bytes:
    """An archive of what must be known to prepare others."""
    assert data.units is not None
    buffer = io.BytesIO()
    units = np.array(astuple(data.units), dtype=np.float64)
    np.savez(buffer, mean=data.mean.numpy(), std=data.std.numpy(), units=units)
    return buffer.getvalue()
