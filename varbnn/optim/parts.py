"""What every part of a rule shares: where its hyper-parameters and its state are, and how a group chooses one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import described
from varbnn.errors import InputError

Group = dict[str, Any]
States = list[dict[str, Any]]

Part = TypeVar("Part")


@dataclass(frozen=True)
class Compiled:
    """How the compiled step (`varbnn.kernels.steps`) says one part of a rule.

    Attributes:
        settings: its choice and numbers.
        pair: whether it moves a location and its precision together.
        prior: whether it pulls to state["prior"] where there is one.
        afterwards: what torch has still to do with the beliefs.
    """

    settings: dict[str, Any]
    pair: bool = False
    prior: bool = False
    afterwards: Callable[[list[Any]], None] | None = None


class OneOf(Generic[Part]):
    """Parts of one kind of which every parameter group chooses one, by the value of its hyper-parameter `key`."""

    def __init__(self, key: str, options: Mapping[str, Part]) -> None:
        self.key, self.options = key, dict(options)

    def chosen(self, group: Group) -> Part:
        """The part that `group` asks for.

        Raises:
            InputError: there is none of that name.
        """
        must_be(group, self.key, group[self.key] in self.options, f"one of {tuple(self.options)}")
        return self.options[group[self.key]]


def chosen(part: Part | OneOf[Part], group: Group) -> Part:
    """`part`, or where there is a choice the one that `group` asks for."""
    return part.chosen(group) if isinstance(part, OneOf) else part


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with numpy's numbers as Python's, which states saved by torch can hold."""

    def of(value: Any) -> Any:
        if isinstance(value, tuple | list) and any(isinstance(item, np.generic) for item in value):
            return type(value)(map(of, value))
        return value.item() if isinstance(value, np.generic) else value

    return {key: of(value) for key, value in settings.items()}


class _NoNumber(float):
    """What is compared as NaN, which no bounds hold, and otherwise is the word or list it was."""

    value: object

    def __new__(cls, value: object) -> Self:
        self = super().__new__(cls, "nan")
        self.value = value
        return self

    def __eq__(self, other: object) -> bool:
        return self.value == other

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return repr(self.value)


def check_types(check: Callable[[Group], None], group: Group, name: str, keys: Iterable[str]) -> None:
    """`check` the `group` of the rule `name`; a comparison with what is no number is an InputError too."""
    try:
        try:
            check(group)
        except TypeError:
            check({key: _NoNumber(value) if isinstance(value, str | list) else value for key, value in group.items()})
            raise
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # also of arrays and of huge numbers
        if isinstance(error, InputError):
            raise
        given = ", ".join(f"{key}={_shown(group[key])}" for key in keys if key in group)
        raise InputError(f"a hyper-parameter of {name} is of a wrong type ({error}): {given}") from None


def check_gain(gain: float, group: Group) -> None:
    """Raise InputError where float32 could not hold what gradients are multiplied by."""
    if not abs(gain) <= torch.finfo(torch.float32).max:
        makers = ("dataset_size", "temperature", "likelihood_multiplier", "batch_size")
        given = ", ".join(f"{key}={group[key]!r}" for key in makers if key in group)
        raise InputError(f"gradients would be multiplied by {gain:.3g}, which float32 cannot hold; look at {given}")


def must_be(group: Group, key: str, holds: bool, allowed: str) -> None:
    """Raise InputError naming the hyper-parameter `key` unless `holds`."""
    if not holds:
        raise InputError(f"{key} must be {allowed}, got {_shown(group[key])}")


def _shown(value: Any) -> str:
    """As Python shows it; of arrays, tensors and lists of them only what they are."""
    if isinstance(value, Sequence) and any(isinstance(item, Tensor | np.ndarray) for item in value):
        return f"{described(value)} of {', '.join(map(described, value[:3]))}{', …' * (len(value) > 3)}"
    return described(value) if getattr(value, "ndim", 0) else repr(value)
