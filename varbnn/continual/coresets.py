"""A few examples of every task, kept to be learned from again.

    coreset = Coreset(200, "k-center", withhold=True)
    for task in stream:
        x, y = coreset.rest(task)  # to train on, without what will be kept
        coreset.add(task)
    coreset.x, coreset.y, coreset.heads(stream.outputs)  # to learn from again

Replaying them beside new data, or learning from them last of all, is up to a `Strategy`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from varbnn.checks import described, whole_number
from varbnn.continual.choosing import CHOICES, Choice, Chooser
from varbnn.continual.evaluation import seed_of
from varbnn.continual.tasks import Task
from varbnn.errors import CheckpointError, InputError
from varbnn.text import plural


class Coreset:
    """Keeps `size` examples of every task it is given, and all of one that has fewer.

    Which ones depends on the seed, the task and how many came before, and on nothing else: asked again, it chooses the
    same.

    Args:
        size: examples per task.
        choose: ``"k-center"``, ``"random"``, or a function (inputs N×D, size, generator) → indices.
        seed: of the choice.
        balanced: the same number of every class that the task has, as far as they go. K-center left to itself likes
            what is unlike the rest: of 200 digits of MNIST one may be a 1.
        withhold: `rest` leaves out what will be kept, so that it says something new when it is learned from later.
        as_bytes: keep inputs in 256 levels from their lowest to their highest value: a quarter of the memory. Grey
            images of 8 bits that use the whole range come back as they were, all others within half a level.

    Attributes:
        classes: the classes of each task kept, in their order.

    Raises:
        InputError: a size below 1, an unknown choice.

    Source: Nguyen et al. 2018, section 2 (with ``withhold=True``).

    >>> x, y = torch.arange(8.0).reshape(8, 1), torch.arange(8) % 2
    >>> coreset = Coreset(3, "k-center", seed=1, withhold=True)
    >>> task = Task("line", x, y, x, y, classes=(0, 1))
    >>> coreset.rest(task)[0].flatten().tolist()
    [1.0, 2.0, 3.0, 5.0, 6.0]
    >>> coreset.add(task)
    >>> coreset
    Coreset(3 examples of 1 task, k-center, 36 bytes)
    """

    def __init__(
        self,
        size: int,
        choose: Choice | Chooser = "k-center",
        *,
        seed: int = 0,
        balanced: bool = False,
        withhold: bool = False,
        as_bytes: bool = False,
    ) -> None:
        self.size, self.seed = whole_number("size", size), whole_number("seed", seed, 0)
        if not callable(choose) and choose not in CHOICES:
            raise InputError(f"choose must be {' or '.join(CHOICES)}, or a function, got {choose!r}")
        self.choose = choose
        self.balanced, self.withhold, self.as_bytes = bool(balanced), bool(withhold), bool(as_bytes)
        self.classes: list[tuple[int, ...]] = []
        self._x: list[Tensor] = []
        self._y: list[Tensor] = []
        self._scales: list[tuple[float, float]] = []  # lowest value and height of a level, of inputs kept as bytes
        self._dtype = torch.float32
        self._picked: tuple[Task, Any, Tensor] | None = None  # the last choice: of what, how, and what it was

    def __len__(self) -> int:
        """Examples kept."""
        return sum(map(len, self._y))

    def __repr__(self) -> str:
        tasks = f"{len(self.classes)} task{'s' if len(self.classes) != 1 else ''}"
        return f"Coreset({len(self)} examples of {tasks}, {self.settings['choose']}, {self.nbytes:,} bytes)"

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that say how it chooses and what it keeps."""
        name = self.choose if isinstance(self.choose, str) else getattr(self.choose, "__name__", "a function")
        return {
            "size": self.size,
            "choose": name,
            "seed": self.seed,
            "balanced": self.balanced,
            "withhold": self.withhold,
            "as_bytes": self.as_bytes,
        }

    @property
    def nbytes(self) -> int:
        """Size of all inputs and labels kept."""
        return sum(kept.nbytes for kept in (*self._x, *self._y))

    @property
    def x(self) -> Tensor:
        """Inputs of all tasks kept, M×D, in the order of the tasks.

        Raises:
            InputError: none was added.
        """
        self._require_any()
        return torch.cat([self.of(number)[0] for number in range(len(self._x))])

    @property
    def y(self) -> Tensor:
        """Their labels, int64."""
        self._require_any()
        return torch.cat(self._y)

    def of(self, number: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels kept of the task of that number, from 0.

        Raises:
            InputError: no such task was added.
        """
        if not 0 <= number < len(self._x):
            raise InputError(f"the coreset has {len(self._x)} tasks, counted from 0; there is none of number {number}")
        x = self._x[number]
        if self.as_bytes:
            low, step = self._scales[number]
            x = (x.double() * step + low).to(self._dtype)
        return x, self._y[number]

    def heads(self, outputs: int) -> Tensor | None:
        """M×outputs, True where the task of an example may answer; None where every task may everywhere.

        Raises:
            InputError: none was added, or a task has classes beyond the outputs.
        """
        self._require_any()
        highest = max(classes[-1] for classes in self.classes)
        if highest >= outputs:
            raise InputError(f"a task kept has class {highest}, but the network has {outputs} outputs")
        if all(len(classes) == outputs for classes in self.classes):
            return None
        allowed = torch.zeros(len(self.classes), outputs, dtype=torch.bool)
        for row, classes in zip(allowed, self.classes, strict=True):
            row[list(classes)] = True
        return allowed.repeat_interleave(torch.tensor([len(y) for y in self._y]), 0)

    def pick(self, task: Task) -> Tensor:
        """Indices of the training examples that `add` would keep of `task`, int64.

        Raises:
            InputError: a function that does not choose as many different ones as it was asked for.
        """
        how = (self.choose, self.size, self.seed, self.balanced, len(self.classes))
        if self._picked is not None and self._picked[0] is task and self._picked[1] == how:
            return self._picked[2].clone()
        size = min(self.size, len(task))
        # a generator of its own for every task: learning that goes on where it stopped chooses the same
        function = CHOICES[self.choose] if isinstance(self.choose, str) else self.choose
        generator = torch.Generator().manual_seed(seed_of(self.seed, len(self.classes)))
        if self.balanced:
            members = [(task.train_y == label).nonzero().flatten() for label in task.train_y.unique()]
            shares = _shares([len(rows) for rows in members], size)
            chosen = [
                rows.cpu()[function(task.train_x[rows], share, generator)]
                for rows, share in zip(members, shares, strict=True)
                if share
            ]
            indices = torch.cat(chosen)
        else:
            indices = function(task.train_x, size, generator)
        if not isinstance(indices, Tensor) or indices.shape != (size,) or indices.dtype != torch.int64:
            raise InputError(f"choose must give {size} indices as an int64 tensor, got {described(indices)}")
        low, high = (int(end) for end in indices.aminmax())
        if low < 0 or high >= len(task) or len(indices.unique()) < size:
            raise InputError(
                f"choose must give {size} different indices from 0 to {len(task) - 1}, got from {low} to {high}"
            )
        self._picked = task, how, indices
        return indices.clone()

    def rest(self, task: Task) -> tuple[Tensor, Tensor]:
        """Inputs and labels to train on: without what `add` would keep if that is withheld, else all.

        Raises:
            InputError: nothing is left, of a task that has no more than `size`; or as for `pick`.
        """
        if not self.withhold:
            return task.train_x, task.train_y
        if len(task) <= self.size:
            raise InputError(
                f"task {task.name!r} has {plural(len(task), 'example')}, and withholding {self.size} leaves none to "
                "train on; take a smaller coreset, or one without withhold=True"
            )
        left = torch.ones(len(task), dtype=torch.bool)
        left[self.pick(task)] = False
        left = left.to(task.train_x.device)
        return task.train_x[left], task.train_y[left]

    def add(self, task: Task) -> None:
        """Keep some examples of `task`, on the CPU.

        Raises:
            InputError: as for `pick`; another number of inputs than the tasks before; NaN or infinite inputs.
        """
        if self._x and task.train_x.shape[1] != self._x[0].shape[1]:
            raise InputError(
                f"task {task.name!r} has {task.train_x.shape[1]} inputs, the tasks kept have {self._x[0].shape[1]}"
            )
        chosen = self.pick(task).to(task.train_x.device)
        x, y = task.train_x[chosen].cpu(), task.train_y[chosen].cpu()
        if not bool(x.isfinite().all()):
            raise InputError(f"task {task.name!r} has NaN or infinite inputs; clean the data first")
        if self.as_bytes:
            low, high = (float(end) for end in x.double().aminmax())
            step = (high - low) / 255 or 1.0
            self._scales.append((low, step))
            self._dtype, x = (self._dtype if self._x else x.dtype), ((x.double() - low) / step).round().to(torch.uint8)
        self._x.append(x)
        self._y.append(y)
        self.classes.append(task.classes)
        self._picked = None  # nobody asks again, and a task is large

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and the settings; `torch.load(weights_only=True)` reads it."""
        return {
            "settings": self.settings,
            "x": list(self._x),
            "y": list(self._y),
            "classes": [list(classes) for classes in self.classes],
            "scales": [list(scale) for scale in self._scales],
            "dtype": str(self._dtype).removeprefix("torch."),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what `state` says instead.

        Raises:
            CheckpointError: it is of a coreset with other settings, or does not fit together; nothing is changed then.
        """
        names = {"settings", "x", "y", "classes", "scales", "dtype"}
        missing = names - (state.keys() if isinstance(state, dict) else set())
        if missing:
            raise CheckpointError(f"the state of a coreset lacks {', '.join(sorted(missing))}; save it again")
        other = [key for key, value in self.settings.items() if state["settings"].get(key) != value]
        if other:
            raise CheckpointError(
                f"the coreset was saved with another {', '.join(other)}; make it as it was: {state['settings']}"
            )
        inputs, labels = ([len(kept) for kept in state[name]] for name in ("x", "y"))
        if inputs != labels or len(state["classes"]) != len(inputs) or len(state["scales"]) not in (0, len(inputs)):
            raise CheckpointError(
                f"the state of a coreset does not fit together: inputs of {inputs} examples, labels of {labels}, "
                f"classes of {len(state['classes'])} tasks; save it again"
            )
        self._x, self._y = list(state["x"]), list(state["y"])
        self.classes = [tuple(classes) for classes in state["classes"]]
        self._scales = [(float(low), float(step)) for low, step in state["scales"]]
        self._dtype = getattr(torch, state["dtype"])

    def _require_any(self) -> None:
        if not self._x:
            raise InputError("the coreset is empty; add a task first")


def _shares(counts: list[int], size: int) -> list[int]:
    """`size` in parts as equal as the counts allow.

    >>> _shares([5, 1, 5], 8)
    [3, 1, 4]
    """
    shares, left = [0] * len(counts), size
    for place, number in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        shares[number] = min(counts[number], left // (len(counts) - place))
        left -= shares[number]
    return shares
