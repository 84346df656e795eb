"""`varbnn evaluate`: what a trained run is worth on labelled inputs, and what it says about foreign ones."""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

import varbnn as vb
from varbnn.checks import finite_number, whole_number
from varbnn.cli.arguments import LARGEST_SEED, destination, inputs, threads, written
from varbnn.cli.judging import answers
from varbnn.cli.training import INPUTS, MODEL, PICTURE, draw, fingerprint, judged, learned, measures, read
from varbnn.data.dataset import standardised
from varbnn.data.files import reason_of
from varbnn.data.own import archive_of, below, labels, names_in
from varbnn.data.units import Units
from varbnn.demo.comparison import alone
from varbnn.demo.output import REPORT, as_json
from varbnn.errors import InputError
from varbnn.predict.evaluation import Score
from varbnn.text import plural

PAIRS = (("x_test", "y_test"), ("x", "y"), ("x_val", "y_val"))
"""Names of labelled inputs in an archive, by preference."""


def add(commands: Any) -> None:
    about = "measure a run of `varbnn train`: accuracy, NLL, Brier, ECE, reliability, foreign inputs"
    add = commands.add_parser("evaluate", help=about, description=about).add_argument
    add("run", metavar="RUN", help="the folder that varbnn train wrote")
    about = "an .npz with x_test and y_test, or x and y, in their own units; default: the data of the run"
    add("data", metavar="DATA", nargs="?", help=about)
    add("--ood", metavar="FILE", help="foreign inputs, .npy or .npz, in the units of the training inputs")
    add("--key", metavar="NAME", help="which array of an .npz file of foreign inputs")
    about = "by what foreign inputs are told from familiar ones; default: total"
    add("--score", choices=get_args(Score), help=about)
    add("--threads", type=threads, default=1, metavar="N", help="default: 1")
    add("--out", type=destination, metavar="DIR", help="for evaluation.json and the picture; default: RUN")
    commands.choices["evaluate"].set_defaults(command=_command)


@dataclass(frozen=True)
class Run:
    """A folder of `varbnn train`, opened.

    Attributes:
        report: what it says of itself.
        mean, std: by which inputs are standardised.
        shape: of one input.
        units: of the training inputs; None in runs that do not say.
    """

    folder: Path
    report: dict[str, Any]
    mean: Tensor
    std: Tensor
    shape: tuple[int, ...]
    units: Units | None

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Raises: InputError where it is no finished run."""
        try:
            report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            shape = _shape(report)
        except OSError as error:
            about = f"{folder} is no finished run of varbnn train: cannot read {REPORT}"
            raise InputError(f"{about}: {reason_of(error)}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{folder} is no run of varbnn train: {REPORT} is of something else") from None
        arrays = archive_of(folder / INPUTS, ["mean", "std", "units"])
        size = math.prod(shape)
        for name in ("mean", "std"):
            if name not in arrays or arrays[name].dtype.kind != "f" or arrays[name].shape not in ((), (size,)):
                raise InputError(f"{folder / INPUTS} lacks {name} for inputs of {size} numbers; train again")
        units = None
        if "units" in arrays:
            if arrays["units"].dtype != np.float64 or arrays["units"].shape != (4,):
                raise InputError(f"{folder / INPUTS}: units are of something else; train again")
            low, high, whole, images = arrays["units"].tolist()
            units = Units(low, high, bool(whole), bool(images))
        return cls(folder, report, torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["std"]), shape, units)

    def prepared(self, x: Tensor, where: str) -> Tensor:
        """Inputs in their own units as the networks know them, N×D."""
        size = math.prod(self.shape)
        if x.ndim < 2 or len(x) == 0 or tuple(x.shape[1:]) not in (self.shape, (size,)):
            given, own = ("×".join(map(str, shape)) for shape in (x.shape, self.shape))
            raise InputError(f"{where} must be N×{own}, as in training, with N ≥ 1, got {given or 'a single number'}")
        x = x.double()
        if not bool(x.isfinite().all()):
            raise InputError(f"{where} has NaN or infinite entries; clean the data first")
        if self.units is not None:
            self.units.require_same(x.numpy(), where)
        return standardised(x.reshape(len(x), size), self.mean, self.std, where)

    def predict(self, x: Tensor) -> vb.Prediction:
        with vb.Predictor(self.folder / MODEL) as predictor:
            return answers(predictor, x)


def _shape(report: Any) -> tuple[int, ...]:
    """The shape of one input, after everything else that is asked of a report is found to be there."""
    plan, where = report["plan"], report["where"]
    optional = plan["data_dir"], where["data_dir"]
    if not all(isinstance(text, str) for text in (plan["data"], plan["fingerprint"], where["data"], report["judged"])):
        raise TypeError
    if not all(isinstance(text, str | None) for text in optional):
        raise TypeError
    whole_number("seed", plan["seed"], 0, LARGEST_SEED)
    whole_number("num_classes", report["num_classes"])
    finite_number("temperature", report["temperature"], above=0)
    return tuple(whole_number("shape", length) for length in report["shape"])


def _command(chosen: argparse.Namespace) -> None:
    for option in ("score", "key"):
        if getattr(chosen, option) is not None and chosen.ood is None:
            raise InputError(f"--{option} is about foreign inputs; give them with --ood, or leave it out")
    run = Run.open(Path(chosen.run))
    x, y, what = _labelled(run, chosen.data)
    foreign = None if chosen.ood is None else run.prepared(inputs(chosen.ood, chosen.key), chosen.ood)
    with alone(chosen.threads):
        prediction = run.predict(x)
        ood = None if foreign is None else run.predict(foreign)
    scaling = vb.TemperatureScaling(run.report["temperature"])
    score: Score = chosen.score or "total"
    columns = {
        "as trained": dict(vb.evaluate(prediction, y, ood=ood, score=score)),
        "calibrated": dict(vb.evaluate(scaling(prediction), y, ood=None if ood is None else scaling(ood), score=score)),
    }
    folder = Path(chosen.out or chosen.run)
    result = {"data": what, "inputs": len(y), "ood": chosen.ood, "score": score if chosen.ood else None}
    result |= {"temperature": scaling.temperature, **columns}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {reason_of(error)}") from None
    print(f"{what}: {plural(len(y), 'input')}, {plural(prediction.num_samples, 'network')}\n\n{measures(columns)}")
    print(f"\ncalibrated: logits divided by {scaling.temperature:.3f}, which suits the run's validation data")
    if ood is not None:
        kind = "uncertainty" if score != "confidence" else "(the largest mean probability)"
        print(f"foreign: {plural(len(ood), 'input')} of {chosen.ood}, told apart by {score} {kind}")
    written(str(folder / "evaluation.json"), as_json(result).encode())
    draw(folder / PICTURE, prediction, y)


def _there(run: Run, name: str) -> Any:
    """The path of the run's data: where it was in training, or else as it was given, for a folder that was moved."""
    given, absolute = run.report["plan"][name], run.report["where"][name]
    return absolute if absolute is not None and os.path.exists(absolute) else given


def _labelled(run: Run, path: str | None) -> tuple[Tensor, Tensor, str]:
    """Prepared inputs, their labels, and what they are called."""
    if path is None:
        plan = run.report["plan"]
        data = read(_there(run, "data"), _there(run, "data_dir"), plan["seed"])
        if fingerprint(*learned(data)) != plan["fingerprint"]:  # the validation part would hold what was trained on
            raise InputError(
                f"{plan['data']} holds other training data than when {run.folder} was trained; give the data to judge "
                "by, or train again"
            )
        part = "test" if len(data.test_x) else "validation"
        if fingerprint(*judged(data)) != run.report["judged"]:
            raise InputError(
                f"{plan['data']} holds other {part} data than when {run.folder} was trained; give the data to judge "
                "by, or train again"
            )
        return *judged(data), f"{part} data of {plan['data']}"
    arrays = archive_of(Path(path), [name for pair in PAIRS for name in pair])
    names = next((pair for pair in PAIRS if set(pair) <= set(arrays)), None)
    if names is None:
        raise InputError(f"{path} must hold x_test and y_test, or x and y; it holds {names_in(Path(path))}")
    x, y = arrays[names[0]], arrays[names[1]]
    if x.dtype.kind not in "fiub":
        raise InputError(f"{path}: {names[0]} must be numbers, got {x.dtype}")
    prepared = run.prepared(torch.from_numpy(x.astype(np.float64)), f"{path}: {names[0]}")
    targets = labels(y, len(x), f"{path}: {names[1]}")
    below(targets, run.report["num_classes"], f"{path}: {names[1]}")
    return prepared, torch.from_numpy(targets), path
