"""`varbnn continual`: task after task, and what is left of the earlier ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import varbnn as vb
from varbnn import continual
from varbnn.cli.arguments import at_least, destination, hidden, number_of, threads
from varbnn.cli.lifelong import STREAMS, network
from varbnn.cli.outcome import draw, found, scores
from varbnn.cli.resuming import differing, going_on
from varbnn.cli.strategies import METHODS, Asked
from varbnn.cli.training import fingerprint
from varbnn.continual.evaluation import PROTOCOLS
from varbnn.data import NAMES, Dataset, from_files, load
from varbnn.demo.comparison import alone
from varbnn.demo.output import CONTINUAL, REPORT, as_json, output
from varbnn.errors import InputError
from varbnn.presets import FEW
from varbnn.text import plural

STATE, SETTINGS, MODEL = "stream.pt", "stream.json", "model.pt"
"""Files of a run: to go on from, what it was asked for, what was learned."""

FEWER = 1000
"""Training inputs of a task, below which steps would be too few with batches of 50."""

SAVE_EVERY = 10.0
"""Seconds between two states inside a task."""


def add(commands: Any) -> None:
    about = "learn a stream of tasks one after the other, and measure what is left of the earlier ones"
    more = (
        f"{about}. A run that was interrupted or killed goes on where it was, also inside a task, when the same "
        "command is given again."
    )
    add = commands.add_parser("continual", help=about, description=more).add_argument
    about = f"an .npz with x_train and y_train (and x_test ...), a folder of idx files, or one of {', '.join(NAMES)}"
    add("data", metavar="DATA", help=f"{about}; default: digits", nargs="?", default="digits")
    add("--data-dir", metavar="DIR", help="where the files of named image sets lie")
    add("--stream", choices=list(STREAMS), default="permuted", help="default: permuted")
    about = "default: 5; of a split stream, which shares the classes among them, 2 classes each"
    add("--tasks", type=at_least(1), metavar="N", help=about)
    add("--method", choices=list(METHODS), default="prior", help="default: prior, the posterior as the next prior")
    about = "numbers of the method, such as strength=1 lr=0.02; default: measured ones, which are printed"
    add("--set", nargs="+", default=[], type=number_of, metavar="NAME=VALUE", help=about, dest="settings")
    add(
        "--keep",
        type=at_least(1),
        default=20,
        metavar="N",
        help="examples of each task that replay stores, or all it has; default: 20",
    )
    add("--hidden", type=hidden, metavar="WIDTHS", help="default: 400 for a few thousand inputs, else 100-100")
    add("--epochs", type=at_least(1), metavar="N", help="of each task; default: by the number of inputs of a task")
    add("--batch-size", type=at_least(1), metavar="N", help="default: by the number of inputs of a task")
    about = "batch norm and ReLU instead of layer norm and two-tailed units, and whose inputs its statistics are "
    about += "re-estimated from when a task is judged: task, newest (task), or running, as training left them"
    add("--batch-norm", choices=PROTOCOLS, nargs="+", metavar="WHOSE", help=about)
    add(
        "--samples",
        type=at_least(1),
        default=20,
        metavar="N",
        help="networks that a posterior predicts with; default: 20",
    )
    about = "judge tasks before they are learned, too, which forward transfer needs"
    add("--ahead", action="store_true", help=about)
    about = "judge by the data set aside instead of the test data, to choose settings"
    add("--validation", action="store_true", help=about)
    add("--seed", type=at_least(0), default=0, metavar="N", help="default: 0")
    add("--threads", type=threads, default=1, metavar="N", help="default: 1")
    add("--out", type=destination, default="varbnn-continual", metavar="DIR", help="default: varbnn-continual")
    add("--quiet", action="store_true", help="no progress bar")
    commands.choices["continual"].set_defaults(command=_run)


@dataclass(frozen=True)
class Plan:
    """What a run is asked for; a run that goes on must be asked for the same."""

    data: str
    stream: Mapping[str, Any]
    method: str
    settings: Mapping[str, float]
    keep: int
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    batch_norm: tuple[str, ...]
    samples: int
    ahead: bool
    validation: bool
    seed: int
    fingerprint: str

    def written(self) -> dict[str, Any]:
        return json.loads(json.dumps(vars(self)))  # tuples become lists, as they are when read again

    @property
    def norm(self) -> str:
        return "batch" if self.batch_norm else "layer"

    @property
    def evaluation(self) -> continual.EvaluationPlan:
        return continual.EvaluationPlan(
            self.samples,
            self.batch_norm or ("task",),
            "validation" if self.validation else "test",
            tasks="all" if self.ahead else "seen",
        )


def _run(chosen: argparse.Namespace) -> None:
    folder = Path(chosen.out)
    data = _data(chosen)
    stream = STREAMS[chosen.stream](data, chosen.tasks, chosen.seed)
    plan = _plan(chosen, data, stream)
    with output(folder, CONTINUAL):
        pass  # better to hear now that it cannot be written to
    model, strategy = _made(plan, stream)
    strategy.begin(model, stream[0], 0)  # refuses settings out of range before anything is written
    begun = going_on(folder / STATE, folder / SETTINGS, plan.written())
    finished = _finished(folder, plan) if begun else None
    if finished is not None:
        print(f"{folder} holds this very run, and it is finished; another --seed or --out makes another one\n")
        print(found(finished))
        return
    print(f"{_opening(plan, stream)}\n", flush=True)
    if begun:
        print(f"going on from {folder / STATE}", flush=True)
    with alone(chosen.threads):
        model, result = _learned(plan, stream, folder, chosen.quiet)
    files = ", ".join(_publish(plan, model, result, folder))
    print(found(result))
    other = "prior" if chosen.method == "finetune" else "finetune"
    print(f"\nWritten to {chosen.out}: {files}")
    print(f"Next: the same with --method {other} --out OTHER shows what the method is worth")


def _data(chosen: argparse.Namespace) -> Dataset:
    """The data, with a test part; a validation part only where it is asked for or was there."""
    if chosen.data in NAMES:
        return load(chosen.data, chosen.data_dir, chosen.seed, validation=chosen.validation)
    data = from_files(chosen.data, chosen.seed, validation=chosen.validation)
    if len(data.test_x):
        return data
    data = from_files(chosen.data, chosen.seed, validation=True)
    assert data.val_x is not None
    assert data.val_y is not None
    return replace(data, test_x=data.val_x, test_y=data.val_y)


def _plan(chosen: argparse.Namespace, data: Dataset, stream: continual.Stream) -> Plan:
    examples = len(stream[0])
    few = examples < FEW
    method = METHODS[chosen.method]
    settings = {**method.settings, **({} if few else method.many)}
    unknown = [name for name, _ in chosen.settings if name not in settings]
    if unknown:
        known = ", ".join(f"{name}={value:g}" for name, value in settings.items())
        raise InputError(f"argument --set: {chosen.method} has no {unknown[0]}; it has {known}")
    return Plan(
        data=chosen.data,
        stream=stream.settings,
        method=chosen.method,
        settings=settings | dict(chosen.settings),
        keep=chosen.keep,
        hidden=chosen.hidden or ((400,) if few else (100, 100)),
        epochs=chosen.epochs or (10 if few else 5),
        batch_size=chosen.batch_size or (20 if examples < FEWER else 50 if few else 200),
        batch_norm=tuple(dict.fromkeys(chosen.batch_norm or ())),
        samples=chosen.samples,
        ahead=chosen.ahead,
        validation=chosen.validation,
        seed=chosen.seed,
        fingerprint=fingerprint(data.test_x, data.test_y),  # the stream knows its training inputs
    )


def _finished(folder: Path, plan: Plan) -> continual.Result | None:
    """What the run in `folder` came to; None if it has no report, or that of another run, or a torn one."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        other = differing(report["plan"], plan.written())
        return None if other else continual.Result.from_dict(report["result"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _made(plan: Plan, stream: continual.Stream) -> tuple[nn.Module, continual.Strategy]:
    torch.manual_seed(plan.seed)
    method = METHODS[plan.method]
    model = network(stream, plan.hidden, method.posterior, plan.norm)
    return model, method.strategy(Asked(plan.settings, stream, plan.keep, plan.batch_size, plan.seed))


def _learned(plan: Plan, stream: continual.Stream, folder: Path, quiet: bool) -> tuple[nn.Module, continual.Result]:
    model, strategy = _made(plan, stream)
    options: dict[str, Any] = dict(epochs=plan.epochs, batch_size=plan.batch_size, seed=plan.seed)
    options |= dict(schedule=METHODS[plan.method].schedule, evaluation=plan.evaluation)
    options |= dict(checkpoint=folder / STATE, checkpoint_every=SAVE_EVERY, progress=not quiet)
    try:
        return model, continual.learn(model, stream, strategy, **options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where the last state was saved") from None


def _publish(plan: Plan, model: nn.Module, result: continual.Result, folder: Path) -> list[str]:
    """Write everything; returns the names of the files."""
    report: dict[str, Any] = {
        "program": CONTINUAL,
        "varbnn": vb.__version__,
        "torch": torch.__version__,
        "plan": plan.written(),
    }
    report |= {"scores": {name: scores(result, name) for name in result.accuracy}, "result": result.as_dict()}
    report |= {"bytes_kept": int(result.history[-1]["bytes_kept"])}
    with output(folder, CONTINUAL) as place:
        draw(place.draft, result)
        torch.save(model.state_dict(), place.draft / MODEL)
        report["files"] = sorted(path.name for path in place.draft.iterdir())
        (place.draft / REPORT).write_text(as_json(report), encoding="utf-8")
        return place.publish()


def _opening(plan: Plan, stream: continual.Stream) -> str:
    layers = "-".join(map(str, [stream.inputs, *plan.hidden, stream.outputs]))
    settings = ", ".join(f"{key} {value:.4g}" for key, value in plan.settings.items())
    weights = "±1" if METHODS[plan.method].posterior else "real"
    judged = "validation" if plan.validation else "test"
    count = len(stream[0].val_x if plan.validation and stream[0].val_x is not None else stream[0].test_x)
    return (
        f"stream    {stream.name}: {plural(len(stream), 'task')}, the first with {len(stream[0]):,} training and "
        f"{count:,} {judged} inputs\n"
        f"network   {layers}, every weight {weights}, with {plan.norm} norm\n"
        f"method    {plan.method}: {METHODS[plan.method].title}\n"
        f"settings  {settings}\n"
        f"budget    {plural(plan.epochs, 'epoch')} of each task in batches of {plan.batch_size}"
    )
