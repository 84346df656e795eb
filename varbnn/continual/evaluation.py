"""How good the networks are at each task, and with whose batch-norm statistics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from varbnn.checks import whole_number
from varbnn.continual.strategies import Strategy, heads_of, outputs_of
from varbnn.continual.tasks import Stream, Task
from varbnn.data import some_rows
from varbnn.errors import InputError, VarbnnWarning
from varbnn.nn.batchnorm import batchnorms
from varbnn.predict import Prediction, evaluate

PROTOCOLS = ("task", "newest", "running")
MEASURES = ("accuracy", "nll", "ece")
LEAST = 1e-20
"""Probability of all outputs of a task's own head below which float32 no longer tells them apart well."""


@dataclass(frozen=True)
class EvaluationPlan:
    """What is measured after every task.

    Attributes:
        num_samples: networks drawn, where anything is drawn.
        batchnorm: whose inputs the batch-norm statistics of each network come from; several are measured beside each
            other. ``"task"``: unlabelled training inputs of the task being judged, which must then be known.
            ``"newest"``: those of the task learned last. ``"running"``: the averages that training left behind, which
            belong to the newest task and to no network. Without batch norm all are the same, and measured once.
        part: ``"test"``, or ``"validation"`` to choose settings by.
        refresh: inputs, at most, that statistics are re-estimated from.
        tasks: ``"seen"``: after every task all tasks so far; ``"newest"``: after every task that one, and all of them
            at the end, for long streams; ``"all"``: those still to come too, and the untrained network on all of them,
            which `forward_transfer` asks for.

    Raises:
        InputError: an option outside these.
    """

    num_samples: int = 20
    batchnorm: tuple[str, ...] = ("task",)
    part: Literal["test", "validation"] = "test"
    refresh: int = 2000
    tasks: Literal["seen", "newest", "all"] = "seen"

    def __post_init__(self) -> None:
        given: Any = (self.batchnorm,) if isinstance(self.batchnorm, str) else self.batchnorm
        if not isinstance(given, Collection) or not given or any(name not in PROTOCOLS for name in given):
            raise InputError(f"batchnorm must be some of {PROTOCOLS}, got {self.batchnorm!r}")
        object.__setattr__(self, "batchnorm", tuple(given))
        if self.part not in ("test", "validation") or self.tasks not in ("seen", "newest", "all"):
            raise InputError(
                "part must be 'test' or 'validation' and tasks 'seen', 'newest' or 'all', got "
                f"{self.part!r} and {self.tasks!r}"
            )
        for name in ("num_samples", "refresh"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))

    def judged(self, number: int, count: int) -> Iterable[int]:
        """The tasks to judge after the one of that number, of so many."""
        if self.tasks == "all" or number == count - 1:
            return range(count)
        return [number] if self.tasks == "newest" else range(number + 1)


@dataclass
class Result:
    """What came of a stream.

    Attributes:
        stream: its name.
        size: T, the tasks it has.
        tasks: the names of those learned.
        accuracy, nll, ece: by batch-norm protocol, T×T float64: [i, j] on task j after learning task i; NaN where it
            was not measured. NLL in nats per example.
        history: one row per task learned: loss, seconds and bytes_kept; with binary layers the entropy in bits per
            weight, in the mean (entropy_bits) and of the layer that has least (fullest_bits), the saturated share, the
            divergence from fair coins (kl, in nats per weight; NaN of points) and the flips.
        untrained: by protocol, T float64: accuracy before the first task; with ``EvaluationPlan(tasks="all")``.
    """

    stream: str
    size: int
    tasks: list[str] = field(default_factory=list)
    accuracy: dict[str, Tensor] = field(default_factory=dict)
    nll: dict[str, Tensor] = field(default_factory=dict)
    ece: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    untrained: dict[str, Tensor] = field(default_factory=dict)

    def note(self, protocol: str, learned: int, judged: int, found: dict[str, float]) -> None:
        """Write one judgement down."""
        for name in MEASURES:
            matrices = getattr(self, name)
            if protocol not in matrices:
                matrices[protocol] = torch.full((self.size, self.size), torch.nan, dtype=torch.float64)
            matrices[protocol][learned, judged] = found[name]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them; None where nothing was measured."""
        content: dict[str, Any] = {
            "stream": self.stream,
            "size": self.size,
            "tasks": self.tasks,
            "history": [{key: _or_none(value) for key, value in row.items()} for row in self.history],
            "untrained": {protocol: list(map(_or_none, own.tolist())) for protocol, own in self.untrained.items()},
        }
        for name in MEASURES:
            content[name] = {
                protocol: [list(map(_or_none, row)) for row in matrix.tolist()]
                for protocol, matrix in getattr(self, name).items()
            }
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Result:
        """The inverse of `as_dict`."""
        history = [{key: _or_nan(value) for key, value in row.items()} for row in content["history"]]
        result = cls(content["stream"], content["size"], list(content["tasks"]), history=history)
        for protocol, row in content.get("untrained", {}).items():
            result.untrained[protocol] = torch.tensor(list(map(_or_nan, row)), dtype=torch.float64)
        for name in MEASURES:
            for protocol, rows in content[name].items():
                values = [list(map(_or_nan, row)) for row in rows]
                getattr(result, name)[protocol] = torch.tensor(values, dtype=torch.float64)
        return result


def _or_none(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def judge(
    model: nn.Module,
    strategy: Strategy,
    stream: Stream,
    newest: Task,
    number: int,
    evaluation: EvaluationPlan,
    seed: int,
    result: Result,
) -> None:
    """Measure `model`, which has learned the tasks up to `newest`, the one of that `number`; note it in `result`."""
    asked = strategy.for_prediction(model, newest, number)
    normed = bool(batchnorms(asked))
    for index in evaluation.judged(number, len(stream)):
        task = newest if index == number else stream[index]
        x, y = examples_to_judge(task, evaluation.part)
        for protocol in evaluation.batchnorm if normed else evaluation.batchnorm[:1]:
            refresh = _inputs_for(protocol, task, newest, evaluation.refresh) if normed else None
            answer = partial(strategy.predict, asked, x, evaluation.num_samples, refresh)
            own_seed = seed_of(seed, number, index)
            with warnings.catch_warnings():
                if protocol == "running":  # the warning is about what was asked for here
                    warnings.simplefilter("ignore", VarbnnWarning)
                prediction = answer(torch.Generator().manual_seed(own_seed))
                if drowned(prediction, task):
                    with only_outputs(asked, task.classes):
                        prediction = answer(torch.Generator().manual_seed(own_seed))
            found = evaluate(*among(prediction, y, task))
            result.note(protocol, number, index, found)
        if not normed:
            for other in evaluation.batchnorm[1:]:
                result.note(other, number, index, found)


def judge_untrained(model: nn.Module, stream: Stream, evaluation: EvaluationPlan, seed: int, result: Result) -> None:
    """Measure `model` on every task before it has learned any; ``"newest"`` is the first.

    Raises:
        InputError: it has not as many outputs as the stream.
    """
    found, first = Result(stream.name, len(stream)), stream[0]
    require_outputs((1, outputs_of(model, first)), 1, stream)
    judge(model, Strategy(), stream, first, 0, evaluation, seed, found)
    result.untrained = {protocol: matrix[0].clone() for protocol, matrix in found.accuracy.items()}


def require_outputs(shape: Sequence[int], count: int, stream: Stream) -> None:
    """Raise InputError unless `shape` is that of logits for so many inputs from `stream`."""
    if tuple(shape) != (count, stream.outputs):
        raise InputError(
            f"the model gives {tuple(shape)} for {count} input{'s' if count > 1 else ''}, but {stream.name} has "
            f"{stream.outputs} outputs; give the network as many"
        )


def examples_to_judge(task: Task, part: str) -> tuple[Tensor, Tensor]:
    """Inputs and labels that were not learned from.

    Raises:
        InputError: the task has no validation examples.
    """
    if part == "test":
        return task.test_x, task.test_y
    if task.val_x is None or task.val_y is None:
        raise InputError(
            f"task {task.name!r} has no validation examples; load the data with validation=True, or judge part='test'"
        )
    return task.val_x, task.val_y


def among(prediction: Prediction, labels: Tensor, task: Task) -> tuple[Prediction, Tensor]:
    """The prediction among the classes of `task` alone, and labels counted among them."""
    classes = torch.tensor(task.classes)
    if prediction.num_classes > len(classes):
        own = prediction.probs[..., classes]
        whole = own.sum(-1, keepdim=True)
        if not bool((whole > 0).all()):
            raise InputError(f"a prediction for task {task.name!r} gives 0 to each of its classes {task.classes}")
        prediction = Prediction(own / whole)
    return prediction, torch.searchsorted(classes, labels.cpu().contiguous())


def drowned(prediction: Prediction, task: Task) -> bool:
    """Whether other heads are so sure that too little is left of a probability of the task's own to compare them."""
    if heads_of(task, prediction.num_classes) is None:
        return False
    return bool((prediction.probs[..., list(task.classes)].sum(-1) < LEAST).any())


@contextmanager
def only_outputs(model: nn.Module, outputs: tuple[int, ...]) -> Iterator[None]:
    """With a model that gives these outputs alone."""
    hook = model.register_forward_hook(lambda module, inputs, logits: logits[..., list(outputs)])
    try:
        yield
    finally:
        hook.remove()


def _inputs_for(protocol: str, task: Task, newest: Task, count: int) -> Tensor | None:
    if protocol == "running":
        return None
    return some_rows((task if protocol == "task" else newest).train_x, count)


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, such that neighbours have nothing in common, nor (0, 1) and (0, 1, 0)."""
    counted = [len(numbers), *numbers]  # numpy fills up with zeros
    return int(np.random.SeedSequence(counted).generate_state(1, np.uint64)[0] >> 1)
