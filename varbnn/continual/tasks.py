"""A task, and a stream of them: what is learned one after another, checked before anything learns from it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, overload

import torch
from torch import Tensor

from varbnn.checks import whole_number
from varbnn.errors import InputError

PARTS = ("train", "val", "test")
SAMPLED = 1000  # examples of each part of a task whose inputs enter the checksum


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """Examples to learn from and to be judged by, and the outputs of the network they are about.

    Attributes:
        name: for people: "permutation 3", "2 and 3".
        train_x, train_y: what a model learns from: floating N×D, int64 N with numbers of outputs.
        test_x, test_y: what it is judged by.
        classes: the outputs this task is about, in increasing order: of a network with several heads those of its own
            head, else all.
        val_x, val_y: set aside to choose settings by; None unless the data had some.

    Raises:
        InputError: no example, inputs and labels that do not fit each other, a label that is none of `classes`.

    >>> x, y = torch.randn(6, 4), torch.tensor([2, 3, 2, 3, 2, 3])
    >>> Task("2 and 3", x, y, x[:2], y[:2], classes=(2, 3))
    Task(2 and 3: 6 train, 2 test; 4 inputs, outputs 2, 3)
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[int, ...]
    val_x: Tensor | None = None
    val_y: Tensor | None = None

    def __post_init__(self) -> None:
        known = self.classes
        whole = all(isinstance(c, Integral) and not isinstance(c, bool) and c >= 0 for c in known)
        if not len(known) or not whole or sorted(set(known)) != list(known):
            raise InputError(
                f"classes of task {self.name!r} must be numbers of outputs ≥ 0, each once and in increasing order, "
                f"got {known}"
            )
        object.__setattr__(self, "classes", tuple(int(c) for c in known))
        if (self.val_x is None) != (self.val_y is None):
            raise InputError(f"task {self.name!r} has one of val_x and val_y; give both or neither")
        for part in PARTS:
            x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
            if x is not None:
                _require_examples(f"{part}_x", x, f"{part}_y", y, self)
                object.__setattr__(self, f"{part}_x", x.detach())  # data: steps share no graph

    def __len__(self) -> int:
        """Examples to learn from."""
        return len(self.train_x)

    def __repr__(self) -> str:
        counts = [f"{len(x)} {part}" for part in PARTS if (x := getattr(self, f"{part}_x")) is not None]
        outputs = ", ".join(map(str, self.classes)) if len(self.classes) < 4 else f"{len(self.classes)} outputs"
        prefix = "outputs " if len(self.classes) < 4 else ""
        return f"Task({self.name}: {', '.join(counts)}; {self.train_x.shape[1]} inputs, {prefix}{outputs})"


def _require_examples(x_name: str, x: Tensor, y_name: str, y: Tensor, task: Task) -> None:
    where = f"task {task.name!r}"
    if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point():
        given = f"{x.dtype} {'×'.join(map(str, x.shape))}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{x_name} of {where} must be a floating tensor N×D, one flat row per example, got {given}")
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != x.shape[:1]:
        given = f"{y.dtype} {'×'.join(map(str, y.shape))}" if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"{y_name} of {where} must be int64, one label for each of {len(x)} examples, got {given}")
    if not len(x):
        raise InputError(f"{where} has zero examples in {x_name}; leave the task out or give it some")
    if x.shape[1] != task.train_x.shape[1]:
        raise InputError(f"{x_name} of {where} has {x.shape[1]} inputs, but train_x has {task.train_x.shape[1]}")
    labels = set(torch.unique(y).tolist())
    if not labels <= set(task.classes):
        strange = ", ".join(map(str, sorted(labels - set(task.classes))))
        raise InputError(
            f"{y_name} of {where} has labels no output of its classes {_listed(task.classes)} stands for: {strange}; "
            "name every output the task is about in classes="
        )


class Stream(Sequence[Task]):
    """Tasks in the order in which they come; each is made when asked for, always the same one, and not kept.

    Hold on to a task while you use it: `stream[3]` twice is the work of making it twice. A slice is a stream of some of
    the tasks, of the same network. Made by `permuted`, `rotated`, `split` or `from_tasks`.

    Attributes:
        name: for people: "permuted mnist".
        inputs: of a network for this stream, D.
        outputs: of a network for this stream; labels are 0 … outputs - 1.
        settings: plain values that say what makes the stream, to compare when learning goes on where it stopped.
    """

    def __init__(
        self,
        name: str,
        tasks: int,
        make: Callable[[int], Task],
        *,
        inputs: int,
        outputs: int,
        settings: dict[str, Any],
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self.settings = settings
        self._make = make
        self._numbers = range(whole_number("tasks", tasks))

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> Stream: ...

    def __getitem__(self, index: int | slice) -> Task | Stream:
        if isinstance(index, slice):
            return self._part(self._numbers[index])
        try:
            number = self._numbers[index]
        except IndexError:
            raise IndexError(f"{self.name} has {len(self)} tasks, 0 … {len(self) - 1}, got {index}") from None
        return self._make(number)

    def __iter__(self) -> Iterator[Task]:
        return map(self._make, self._numbers)

    def __repr__(self) -> str:
        plural = "s" if len(self) > 1 else ""
        return f"Stream({self.name}: {len(self)} task{plural}, {self.inputs} inputs, {self.outputs} outputs)"

    def _part(self, numbers: range) -> Stream:
        if not numbers:
            raise InputError(f"a stream needs a task, and this part of {self.name}, which has {len(self)}, has none")
        settings = {**self.settings, "chosen": list(numbers)}
        options = dict(inputs=self.inputs, outputs=self.outputs, settings=settings)
        part = Stream(self.name, len(numbers), self._make, **options)  # type: ignore[arg-type]
        part._numbers = numbers
        return part


def from_tasks(tasks: Sequence[Task], outputs: int | None = None, name: str = "own tasks") -> Stream:
    """A stream of tasks of one's own.

    Args:
        tasks: in their order; the stream holds them.
        outputs: of the network; when absent one more than the highest class of any task.
        name: of the stream, for people.

    Raises:
        InputError: no task, two of one name, tasks of different numbers of inputs, a task of a single class,
            a class the network has no output for, NaN or infinite inputs.

    >>> x, y = torch.randn(8, 4), torch.tensor([0, 1] * 4)
    >>> from_tasks([Task(name, x, y, x, y, classes=(0, 1)) for name in ("before", "after")])
    Stream(own tasks: 2 tasks, 4 inputs, 2 outputs)
    """
    own = tuple(tasks)
    for task in own:
        if not isinstance(task, Task):
            raise InputError(f"tasks must be of varbnn.continual.Task, got {type(task).__name__}")
    if not own:
        raise InputError("a stream needs at least one task, got none")
    repeated = [name for name, count in Counter(task.name for task in own).items() if count > 1]
    if repeated:
        raise InputError(
            f"tasks need names of their own, got {repeated[0]!r} twice; a return of a task needs a name too"
        )
    inputs, highest = own[0].train_x.shape[1], max(task.classes[-1] for task in own)
    outputs = highest + 1 if outputs is None else whole_number("outputs", outputs)
    for task in own:
        if task.train_x.shape[1] != inputs:
            raise InputError(
                f"all tasks need the same number of inputs: {own[0].name!r} has {inputs}, {task.name!r} has "
                f"{task.train_x.shape[1]}"
            )
        require_several(task)
        if task.classes[-1] >= outputs:
            raise InputError(
                f"task {task.name!r} is about output {task.classes[-1]}, but the network has {outputs}, "
                f"0 … {outputs - 1}; give outputs={highest + 1}"
            )
        for part in PARTS:
            x = getattr(task, f"{part}_x")
            if x is not None and not bool(x.isfinite().all()):
                raise InputError(f"{part}_x of task {task.name!r} has NaN or infinite entries; clean the data first")
    described = [{"name": task.name, "classes": list(task.classes), **fingerprint(task)} for task in own]
    settings = {"kind": "own", "name": name, "outputs": outputs, "tasks": described}
    return Stream(name, len(own), partial(_given, own), inputs=inputs, outputs=outputs, settings=settings)


def _given(tasks: tuple[Task, ...], number: int) -> Task:
    return tasks[number]


def fingerprint(data: Any) -> dict[str, Any]:
    """Counts of the parts of a task or data set, and a checksum of their labels and some of their inputs.

    Enough to notice that a stream goes on with other data, is judged by others, or has another part of them set aside.
    """
    parts = {part: x for part in PARTS if (x := getattr(data, f"{part}_x")) is not None and len(x)}
    checksum = 0
    for part, x in parts.items():
        rows = x[:: max(1, len(x) // SAMPLED)]
        for tensor in (getattr(data, f"{part}_y"), rows.float()):
            checksum = zlib.crc32(tensor.detach().cpu().numpy().tobytes(), checksum)
    return {"examples": {part: len(x) for part, x in parts.items()}, "checksum": checksum}


def require_several(task: Task) -> None:
    """Raise InputError where the task is about one output alone."""
    if len(task.classes) < 2:
        raise InputError(
            f"task {task.name!r} is about output {task.classes[0]} alone, of which any network is sure; name all "
            "outputs it is to be told apart from in classes="
        )


def _listed(classes: tuple[int, ...]) -> str:
    return ", ".join(map(str, classes)) if len(classes) < 12 else f"{classes[0]} … {classes[-1]}"
