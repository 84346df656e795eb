"""What a run of `fit` goes on from, and whether it is the same run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from varbnn import saving
from varbnn.optim.belonging import chosen_settings, require_same_settings
from varbnn.training.epoch import Row


def several_ranks() -> bool:
    """Whether this process is one of several under torch.distributed."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def of_rank(path: Path) -> Path:
    """`path`, or where there are several ranks that of this one."""
    return path.with_name(f"{path.name}.{dist.get_rank()}") if several_ranks() else path


def _plain(value: Any) -> Any:
    """With numbers of Python in place of numpy's, which a checkpoint cannot be read back with."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if type(value) is list:
        return [_plain(part) for part in value]
    if type(value) in (dict, Counter):
        return type(value)({_plain(key): _plain(part) for key, part in value.items()})
    return value


class Run:
    """Everything a run needs to go on as if it had never stopped.

    Args:
        kept: whether it will be in a file.

    Attributes:
        history: a row per epoch.
        ended: whether the user's `after_epoch` ended it.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, loader: Iterable[Any], kept: bool
    ) -> None:
        stateful = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        self.stateful = {name: item for name, item in stateful.items() if item is not None}
        self.generators = saving.generators_of(loader)
        self.settings = chosen_settings(optimizer, scheduler) if kept else {}
        self.history: list[Row] = []
        self.ended = False

    def save(self, path: Path) -> None:
        """Write all of it to `path`."""
        state: dict[str, Any] = {name: _plain(item.state_dict()) for name, item in self.stateful.items()}
        state |= {"history": self.history, "ended": self.ended}
        state |= {"settings": _plain(self.settings), **saving.random_state()}
        state["generators"] = {name: generator.get_state() for name, generator in self.generators.items()}
        saving.save(path, state)

    def load(self, path: Path) -> None:
        """Go to where `path` says.

        Raises:
            CheckpointError: it cannot be read or is of another run; nothing is loaded then.
        """
        parts = {"model", "optimizer", "history", "ended", "settings", "rng", "generators"}
        state = saving.read(path, "varbnn.fit", parts)
        require_same_settings(state["settings"], self.settings, state["optimizer"], state.get("scheduler"), str(path))
        saving.restore(path, self.stateful, state, self.generators)
        saving.set_random_state(state)
        self.settings |= state["settings"]
        self.history = state["history"]
        self.ended = state["ended"]
