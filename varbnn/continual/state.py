"""What a stream under way goes on from, and whether it is the same stream."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from varbnn import saving
from varbnn.continual.coresets import Coreset
from varbnn.continual.evaluation import EvaluationPlan, Result
from varbnn.continual.run import Run
from varbnn.continual.strategies import Strategy
from varbnn.continual.tasks import Stream
from varbnn.errors import CheckpointError, InputError
from varbnn.nn import binary_layers

Settings = dict[str, Any]
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of a function in a posterior of one's own: another one in every process
KEYS = {"settings", "number", "place", "result", "model", "modes", "strategy", "rng"}


def settings_of(
    model: nn.Module, stream: Stream, strategy: Strategy, evaluation: EvaluationPlan, plan: dict[str, Any]
) -> Settings:
    """What makes a run this one, in plain values. What an optimizer factory does cannot be seen from here."""
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    judged = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(evaluation).items()}
    return {
        "stream": stream.settings,
        "strategy": _plain(strategy.describe()),
        "parameters": shapes,
        "modules": {name: type(module).__name__ for name, module in model.named_modules()},
        "posteriors": {name: ADDRESS.sub("", repr(layer.posterior)) for name, layer in binary_layers(model)},
        "evaluation": judged,
        **plan,
    }


def _plain(value: Any) -> Any:
    """As a file holds it, from which no code is run: numbers of numpy become Python's."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"describe() of a strategy must give plain values, got {type(value).__name__}")


def save(path: Path, run: Run, settings: Settings) -> None:
    """Write everything down; inside a task with the optimizer, between tasks without."""
    state: dict[str, Any] = {
        "settings": settings,
        "number": run.number,
        "place": vars(run.place),
        "result": run.result.as_dict(),
        "model": run.model.state_dict(),
        "modes": run.modes,
        "strategy": run.strategy.state_dict(),
        **saving.random_state(),
    }
    for name, item in (("optimizer", run.optimizer), ("scheduler", run.scheduler)):
        if item is not None:
            state[name] = item.state_dict()
    saving.save(path, state)


def load(path: Path, run: Run, settings: Settings) -> None:
    """Put `run` where `path` says it was.

    Raises:
        CheckpointError: it cannot be read, belongs to a run with other settings, or does not fit; nothing is loaded
            then.
    """
    state = saving.read(path, "varbnn.continual.learn", KEYS)
    other = [key for key, value in settings.items() if state["settings"].get(key) != value]
    if other:
        raise CheckpointError(
            f"{path} belongs to a run with another setting of {', '.join(other)}; give the settings it was started "
            "with, or another file"
        )
    before = _held(run.strategy)
    try:
        run.strategy.load_state_dict(state["strategy"])
        run.number = state["number"]
        items: dict[str, Any] = {"model": run.model}
        if "optimizer" in state:
            items["optimizer"] = run.begin_task()[0]
            if run.scheduler is not None:
                items["scheduler"] = run.scheduler
        saving.restore(path, items, state)
    except Exception:
        for item, values in before:
            vars(item).clear()
            vars(item).update(values)
        raise
    run.modes = state["modes"]
    run.place = type(run.place)(**state["place"])
    run.result = Result.from_dict(state["result"])
    saving.set_random_state(state)


def require_memory(strategy: Strategy) -> None:
    """Raise InputError where what a strategy remembers would not come back from a file."""
    for item in (item for item, _ in _held(strategy) if isinstance(item, Strategy)):
        kind = type(item)
        end, state, load = (_written(kind, name) for name in ("end", "state_dict", "load_state_dict"))
        newer, older = ("end", "state_dict") if state[0] > end[0] else ("state_dict", "load_state_dict")
        if state[0] > end[0] or load[-1] > state[-1]:
            base = next(base.__name__ for base in kind.__mro__[1:] if hasattr(base, "state_dict"))
            raise InputError(
                f"{kind.__name__} has its own {newer} and no {older}, so a run that goes on from its checkpoint would "
                f"forget what it remembers; write state_dict and load_state_dict, or where it remembers nothing more "
                f"than {base}: state_dict = {base}.state_dict"
            )


def _written(kind: type, name: str) -> list[int]:
    """In which classes, from `kind` upwards, the method `name` that `kind` uses is to be found."""
    used = inspect.getattr_static(kind, name)  # as it stands in the class: getattr unwraps static methods
    return [index for index, base in enumerate(kind.__mro__) if vars(base).get(name) is used]


def _held(item: Strategy | Coreset) -> list[tuple[Strategy | Coreset, dict[str, Any]]]:
    """What a strategy and everything inside it hold; loading a state replaces such values and changes none in place."""
    values = dict(vars(item))
    inside = [value for value in values.values() if isinstance(value, Strategy | Coreset)]
    return [(item, values), *(pair for value in inside for pair in _held(value))]


class Saver:
    """Writes a state when the last one is old enough; never without a path."""

    def __init__(self, path: Path | None, run: Run, settings: Settings, every: float) -> None:
        self.path, self.run, self.settings, self.every = path, run, settings, every
        self._last = time.monotonic()

    def now_and_then(self) -> None:
        """Called after every step."""
        if self.path is not None and time.monotonic() - self._last >= self.every:
            self.now()

    def now(self) -> None:
        """Called after every task."""
        if self.path is not None:
            save(self.path, self.run, self.settings)
            self._last = time.monotonic()
