"""The table of all pairs of rules that are known to be one, and what an entry says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from varbnn.optim.mappings.conditions import State
from varbnn.optim.rule import Rule


@dataclass(frozen=True)
class Mapping:
    """What a pair of rules comes to in one parameter group.

    Attributes:
        settings: constructor arguments of the target.
        carry: from a belief and its state under the source to those under the target.
        start: what `carry` does, in words, for the belief and for each state.
        exact: conditions that lie outside the settings.
        notes: such as what a schedule has to do.
    """

    settings: dict[str, Any]
    carry: Callable[[Tensor, State], tuple[Tensor, State]]
    start: dict[str, str]
    exact: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


TABLE: dict[tuple[type[Rule], type[Rule]], Callable[..., Mapping]] = {}
"""All pairs that are known."""


def between(source: type[Rule], target: type[Rule]) -> Callable[[Callable[..., Mapping]], Callable[..., Mapping]]:
    """Enter the function below it into `TABLE`."""

    def enter(function: Callable[..., Mapping]) -> Callable[..., Mapping]:
        TABLE[source, target] = function
        return function

    return enter
