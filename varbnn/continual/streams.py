"""Data that come task after task: permuted, turned or split.

    stream = varbnn.continual.permuted(varbnn.data.load("digits"), tasks=5, seed=0)
    for task in stream:
        ...

A task is made when it is asked for, the same each time, and not kept: a hundred tasks need the memory of one.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import finite_number, whole_number
from varbnn.continual.tasks import PARTS, Stream, Task, fingerprint
from varbnn.data import Dataset
from varbnn.data.corruptions import turn
from varbnn.errors import InputError

Scenario = Literal["task", "domain", "class"]
CHUNK = 4096  # images turned at a time: what is needed besides the result stays small
FEW_INPUTS = 12  # up to here two permutations of a stream may well be the same


def permuted(data: Dataset, tasks: int = 5, seed: int = 0, *, keep_first: bool = False) -> Stream:
    """The same labels every time, the inputs in another random order for every task; one shared head.

    Task i depends on the seed and i alone, so a longer stream begins like a shorter one.

    Args:
        data: of `varbnn.data`; validation parts are carried along.
        tasks: how many.
        seed: of the permutations.
        keep_first: leave the first task's inputs as they are.

    Raises:
        InputError: tasks below 1, a negative seed, data with real targets or without examples, so few inputs that two
            tasks are the same.

    Source: Goodfellow et al. 2013; the permutations with seeds of their own are ours.

    >>> from varbnn import data
    >>> stream = permuted(data.load("digits"), tasks=100)
    >>> stream
    Stream(permuted digits: 100 tasks, 64 inputs, 10 outputs)
    >>> stream[99]
    Task(permutation 100: 1437 train, 360 test; 64 inputs, 10 outputs)
    """
    data, tasks, seed = _with_classes(data), whole_number("tasks", tasks), whole_number("seed", seed, 0)
    inputs = data.train_x.shape[1]
    if inputs <= FEW_INPUTS:
        orders = {tuple(_order(inputs, seed, number, keep_first)) for number in range(tasks)}
        if len(orders) < tasks:
            raise InputError(
                f"{tasks} permutations of {inputs} inputs repeat (there are {math.factorial(inputs)}); take fewer "
                "tasks, another seed or data with more inputs"
            )
    settings = {"kind": "permuted", **_described(data), "tasks": tasks, "seed": seed, "keep_first": bool(keep_first)}
    make = partial(_permuted_task, data, seed, bool(keep_first))
    return Stream(f"permuted {data.name}", tasks, make, inputs=inputs, outputs=data.num_classes, settings=settings)


def rotated(data: Dataset, tasks: int = 5, degrees: float = 180.0) -> Stream:
    """The same labels every time, the images turned by i · degrees / tasks in task i = 0 … tasks - 1; one shared head.

    Turned counterclockwise about the centre, bilinear; the lowest grey level comes in from outside.

    Args:
        data: images of `varbnn.data`, H×W or C×H×W; validation parts are carried along.
        tasks: how many.
        degrees: what the turns would come to after all tasks; 180 leaves the last of 5 tasks at 144.

    Raises:
        InputError: tasks below 1, data that are no images, angles that come back to one that was there.

    Source: rotated MNIST of Lopez-Paz & Ranzato 2017, with angles in equal steps.

    >>> from varbnn import data
    >>> [task.name for task in rotated(data.load("digits"), tasks=3, degrees=90)]
    ['turned by 0°', 'turned by 30°', 'turned by 60°']
    """
    data, tasks, degrees = _with_classes(data), whole_number("tasks", tasks), finite_number("degrees", degrees)
    _require_images(data)
    angles = [number * degrees / tasks for number in range(tasks)]
    if len({round(angle % 360.0, 6) % 360.0 for angle in angles}) < tasks:
        raise InputError(
            f"turning {tasks} tasks by {angles[1]:g}° each comes back to an angle that was there; give degrees other "
            "than 0 and up to ±360"
        )
    settings = {"kind": "rotated", **_described(data), "tasks": tasks, "degrees": degrees}
    make = partial(_rotated_task, data, tuple(angles), _lowest(data))
    inputs = data.train_x.shape[1]
    return Stream(f"rotated {data.name}", tasks, make, inputs=inputs, outputs=data.num_classes, settings=settings)


def split(data: Dataset, classes_per_task: int = 2, scenario: Scenario = "task") -> Stream:
    """A few classes after another: 0 and 1, then 2 and 3, …

    The scenario says what is known when the network is asked:

    - ``"task"`` (task-incremental): which task it is. The network has an output for every class; `Task.classes` are the
      outputs in question, so each task has a head of its own, rows of one output layer.
    - ``"domain"`` (domain-incremental): nothing, and it need not say. The labels of every task are
      0 … classes_per_task - 1; all share one head of that size.
    - ``"class"`` (class-incremental): nothing, and it must tell all classes apart that there are.

    Args:
        data: of `varbnn.data`; validation parts are carried along.
        classes_per_task: divides the number of classes.
        scenario: one of these.

    Raises:
        InputError: a number of classes that does not divide, one class where there is nothing to tell apart, a class
            without examples, data with real targets, another scenario.

    Source: van de Ven & Tolias 2019, table 1.

    >>> from varbnn import data
    >>> split(data.load("digits"), scenario="domain")
    Stream(split digits, domain-incremental: 5 tasks, 64 inputs, 2 outputs)
    >>> split(data.load("digits"))[1]
    Task(2 and 3: 288 train, 72 test; 64 inputs, outputs 2, 3)
    """
    data, width = _with_classes(data), whole_number("classes_per_task", classes_per_task)
    if scenario not in get_args(Scenario):
        raise InputError(f"scenario must be one of {', '.join(get_args(Scenario))}, got {scenario!r}")
    if data.num_classes % width:
        divisors = [n for n in range(1, data.num_classes + 1) if data.num_classes % n == 0]
        raise InputError(
            f"{data.name} has {data.num_classes} classes, which cannot be split into tasks of {width}; "
            f"classes_per_task can be {', '.join(map(str, divisors))}"
        )
    if width == 1 and scenario != "class":
        raise InputError(
            "with one class per task there is nothing to tell apart within a task; give classes_per_task ≥ 2, or "
            'scenario="class"'
        )
    for part, labels in (("training", data.train_y), ("test", data.test_y)):
        missing = torch.bincount(labels, minlength=data.num_classes).eq(0).nonzero().flatten().tolist()
        if missing:
            raise InputError(
                f"class {missing[0]} of {data.name} has no {part} example; a task of zero examples is none"
            )
    settings = {"kind": "split", **_described(data), "classes_per_task": width, "scenario": scenario}
    return Stream(
        f"split {data.name}, {scenario}-incremental",
        data.num_classes // width,
        partial(_split_task, data, width, scenario),
        inputs=data.train_x.shape[1],
        outputs=width if scenario == "domain" else data.num_classes,
        settings=settings,
    )


def _permuted_task(data: Dataset, seed: int, keep_first: bool, number: int) -> Task:
    order = torch.from_numpy(_order(data.train_x.shape[1], seed, number, keep_first))
    name = "as they are" if keep_first and number == 0 else f"permutation {number + 1}"
    x = {f"{part}_x": own.index_select(1, order.to(own.device)) for part, own in _inputs(data).items()}
    return Task(name, classes=tuple(range(data.num_classes)), **x, **_labels(data))


def _order(inputs: int, seed: int, number: int, keep_first: bool) -> np.ndarray:
    if keep_first and number == 0:
        return np.arange(inputs)
    return np.random.default_rng([seed, number]).permutation(inputs)


def _rotated_task(data: Dataset, angles: tuple[float, ...], lowest: float, number: int) -> Task:
    angle = angles[number]
    x = {f"{part}_x": _turned(data, own, angle, lowest) for part, own in _inputs(data).items()}
    return Task(f"turned by {angle:g}°", classes=tuple(range(data.num_classes)), **x, **_labels(data))


def _turned(data: Dataset, x: Tensor, degrees: float, lowest: float) -> Tensor:
    if degrees == 0:
        return x
    result = torch.empty_like(x)
    for rows, target in zip(x.split(CHUNK), result.split(CHUNK), strict=True):
        target.copy_(data.standardise(turn(data.undo(rows), degrees, fill=lowest)))
    return result


def _lowest(data: Dataset) -> float:
    """What is black in the images' own units, which is what comes in from outside when they turn."""
    if data.value_range is not None:
        return float(data.value_range[0])
    return min(float(data.undo(rows).min()) for rows in data.train_x.split(CHUNK))


def _split_task(data: Dataset, width: int, scenario: Scenario, number: int) -> Task:
    first = number * width
    shift = first if scenario == "domain" else 0
    own = tuple(range(first - shift, first - shift + width))
    x, y = _inputs(data), _labels(data)
    rows: dict[str, Tensor] = {}
    for part in x:
        labels = y[f"{part}_y"]
        chosen = (labels >= first) & (labels < first + width)
        if bool(chosen.any()):  # of a small validation part there may be nothing; of the others there is
            rows |= {f"{part}_x": x[part][chosen], f"{part}_y": labels[chosen] - shift}
    *others, last = map(str, range(first, first + width))
    name = f"{', '.join(others)} and {last}" if others else last
    return Task(name, classes=tuple(range(data.num_classes)) if scenario == "class" else own, **rows)


def _inputs(data: Dataset) -> dict[str, Tensor]:
    """Inputs of the parts that are there; a validation part may be missing, or empty in data of one's own."""
    return {part: x for part in PARTS if (x := getattr(data, f"{part}_x")) is not None and len(x)}


def _labels(data: Dataset) -> dict[str, Tensor]:
    return {f"{part}_y": getattr(data, f"{part}_y") for part in _inputs(data)}


def _described(data: Dataset) -> dict[str, Any]:
    return {"data": data.name, **fingerprint(data)}


def _with_classes(data: Dataset) -> Dataset:
    if not isinstance(data, Dataset):
        raise InputError(
            f"a stream needs a Dataset with classes, as varbnn.data.load gives for digits or mnist, got "
            f"{type(data).__name__}; tasks of your own become a stream by from_tasks"
        )
    for part in ("train", "test"):
        if not len(getattr(data, f"{part}_x")):
            raise InputError(f"{data.name} has zero examples in {part}_x, so every task would; give it some")
    return data


def _require_images(data: Dataset) -> None:
    shape = "×".join(map(str, data.shape))
    if len(data.shape) not in (2, 3):
        raise InputError(f"only images can be turned, H×W or C×H×W, but one input of {data.name} is of shape {shape}")
    if len(data.shape) == 3 and data.shape[2] in (1, 3) and data.shape[0] not in (1, 3):
        raise InputError(f"images of {data.name} are {shape}, colours last; they must come first, C×H×W, to be turned")
