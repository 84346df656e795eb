"""What every part of a rule shares: where its hyper-parameters and its state are, and how a group chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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
    """

    settings: dict[str, Any]
    pair: bool = False
    prior: bool = False


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


def must_be(group: Group, key: str, holds: bool, allowed: str) -> None:
    """Raise InputError naming the hyper-parameter `key` unless `holds`."""
    if not holds:
        raise InputError(f"{key} must be {allowed}, got {group[key]!r}")
