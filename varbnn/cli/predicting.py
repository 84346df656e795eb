"""`varbnn predict`: answers of a packed file."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import varbnn as vb
from varbnn.cli.arguments import as_taken, destination, inputs, threads, written
from varbnn.cli.evaluating import Run
from varbnn.cli.judging import answers
from varbnn.cli.training import INPUTS, MODEL
from varbnn.demo.comparison import alone
from varbnn.demo.output import REPORT
from varbnn.errors import InputError
from varbnn.text import plural, table

SHOWN = 10
"""Inputs in the terminal; the file has all."""

Array = np.ndarray[Any, Any]


def add(commands: Any) -> None:
    about = "let the networks of a packed file predict: class probabilities and their uncertainty"
    add = commands.add_parser("predict", help=about, description=about).add_argument
    about = "a packed file, usually *.vbnn, which takes inputs as its networks do; or the folder that varbnn train "
    about += "wrote, which takes them in the units of the training inputs"
    add("file", metavar="FILE", help=about)
    add("inputs", metavar="INPUTS", help=".npy or .npz, inputs along the first axis")
    add("--key", metavar="NAME", help="which array of an .npz file")
    add(
        "--out",
        type=destination,
        metavar="FILE",
        help="write all to .npz or .csv; default: show the first in the terminal",
    )
    about = "mean: class probabilities and uncertainty; none: the outputs of each network, into .npz; default: mean"
    add("--reduce", choices=["mean", "none"], default="mean", help=about)
    about = "as probabilities with logits divided by the temperature that suits the run's validation data"
    add("--calibrated", action="store_true", help=about)
    add("--threads", type=threads, metavar="N", help="default: those of torch")
    commands.choices["predict"].set_defaults(command=_run)


def _run(chosen: argparse.Namespace) -> None:
    kind = "" if chosen.out is None else chosen.out.rpartition(".")[2].lower()
    if chosen.out is not None and kind not in ("npz", "csv"):
        raise InputError(f"--out must end in .npz or .csv, got {chosen.out}")
    if chosen.reduce == "none" and chosen.calibrated:
        raise InputError("--calibrated is about probabilities; --reduce none gives the outputs of each network")
    if chosen.reduce == "none" and kind != "npz":
        raise InputError("--reduce none gives networks × inputs × outputs; write them with --out FILE.npz")
    file, data, scaling = _asked(chosen)
    with alone(chosen.threads), vb.Predictor(file) as predictor:
        start = time.perf_counter()
        found = _found(predictor, data, chosen.reduce, scaling if chosen.calibrated else None)
        milliseconds = 1e3 * (time.perf_counter() - start)
        who = plural(predictor.num_samples, "network")
    about = f"{chosen.file}: {who}, {plural(len(data), 'input')}, {milliseconds:,.1f} ms"
    if scaling is not None and chosen.reduce == "mean":
        how = "logits divided by" if chosen.calibrated else "as trained; --calibrated divides logits by"
        about += f"\n{how} {scaling.temperature:.3f}, which suits the run's validation data"
    if chosen.out is None:
        print(f"{about}\n\n{_shown(found)}")
        return
    written(chosen.out, _npz(found) if kind == "npz" else _csv(found))
    print(f"{about}\n{chosen.out}: {', '.join(found if kind == 'npz' else _columns(found))}")


def _asked(chosen: argparse.Namespace) -> tuple[Path, torch.Tensor, vb.TemperatureScaling | None]:
    """The packed file, the inputs as its networks take them, and the temperature of a run."""
    file = Path(chosen.file)
    if os.path.isdir(file):
        run = Run.open(file)
        scaling = vb.TemperatureScaling(run.report["temperature"])
        return file / MODEL, run.prepared(inputs(chosen.inputs, chosen.key), chosen.inputs), scaling
    if chosen.calibrated:
        raise InputError(f"--calibrated takes the folder that varbnn train wrote, {file} is a packed file")
    if file.name == MODEL and (file.parent / REPORT).exists() and (file.parent / INPUTS).exists():
        print(
            f"varbnn: {chosen.inputs} is taken as the networks take it, standardised; varbnn predict {file.parent} "
            "takes inputs in the units of the training inputs",
            file=sys.stderr,
        )
    return file, inputs(chosen.inputs, chosen.key), None


def _found(
    predictor: vb.Predictor, data: torch.Tensor, reduce: str, scaling: vb.TemperatureScaling | None
) -> dict[str, Array]:
    answer: vb.AveragePrediction | vb.Prediction
    data = as_taken(data, "tokens" in (predictor.ensemble.program.takes() or {}))
    if reduce == "none":
        return {"outputs": predictor(data).numpy()}
    answer = predictor(data, reduce="mean") if scaling is None else scaling(answers(predictor, data))
    uncertainty = {name: getattr(answer, name).numpy() for name in ("total", "aleatoric", "epistemic")}
    return {"class": answer.mean.argmax(-1).numpy(), **uncertainty, "probs": answer.mean.numpy()}


def _shown(found: dict[str, Array]) -> str:
    names = ("total", "aleatoric", "epistemic")
    rows = [["input", "class", "probability", *names]]
    for index, label in enumerate(found["class"][:SHOWN]):
        numbers = [found["probs"][index, label], *(found[name][index] for name in names)]
        rows.append([str(index), str(label), *(f"{number:.4f}" for number in numbers)])
    if len(found["class"]):
        means = [found["probs"].max(-1), *(found[name] for name in names)]
        rows.append(["mean", "", *(f"{values.mean():.4f}" for values in means)])
    rest = len(found["class"]) - SHOWN
    more = f"; {plural(rest, 'input')} more: write all with --out FILE.csv or FILE.npz" if rest > 0 else ""
    return f"{table(rows, left=())}\n\nuncertainty in nats{more}"


def _npz(found: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **found)  # type: ignore[arg-type]
    return buffer.getvalue()


def _columns(found: dict[str, Array]) -> list[str]:
    """Of a .csv file, which has one for each class where an .npz file has an array."""
    names = [name for name in found if name != "probs"]
    return ["input", *names, *(f"p{index}" for index in range(found["probs"].shape[1]))]


def _csv(found: dict[str, Array]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    names = [name for name in found if name != "probs"]
    rows.writerow(_columns(found))
    for index, probs in enumerate(found["probs"]):
        numbers = [f"{found[name][index]:.9g}" for name in names]
        rows.writerow([index, *numbers, *(f"{value:.9g}" for value in probs)])
    return text.getvalue().encode()
