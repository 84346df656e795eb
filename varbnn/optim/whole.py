"""Beliefs of several tensors that a rule moves together: in a row, with the same options, all of them or none."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from varbnn.errors import InputError
from varbnn.optim.given import moves
from varbnn.posteriors import Posterior, belief_of


def shared_option(beliefs: list[Tensor], kind: type[Posterior], option: str, default: Any) -> Any:
    """The value of `option` that the posteriors of all `beliefs` have; `default` where there are none.

    Raises:
        InputError: they differ.
    """
    marks = [mark for mark in map(belief_of, beliefs) if mark is not None]
    found = {getattr(mark.posterior, option) for mark in marks if isinstance(mark.posterior, kind)}
    if len(found) > 1:
        values = " and ".join(map(str, sorted(found)))
        raise InputError(
            f"one group holds {kind.__name__} posteriors of the {option}s {values}; give "
            f"each {option} a group of its own: [{{'params': first.parameters()}}, {{'params': second.parameters()}}]"
        )
    return found.pop() if found else default


def require_in_row(beliefs: list[Tensor], names: tuple[str, str]) -> None:
    """Raise InputError unless `beliefs` are pairs of these names, each of one layer.

    The second of a pair may have axes of its own before those of the first.
    """
    found = [mark.name for mark in map(belief_of, beliefs) if mark is not None]
    paired = found == list(names) * (len(found) // 2)
    pairs = zip(beliefs[0::2], beliefs[1::2], strict=False)
    if not paired or any(second.shape[second.dim() - first.dim() :] != first.shape for first, second in pairs):
        raise InputError(
            f"each {names[0]} must be followed by the {names[1]} of the same layer, as model.parameters() gives them; "
            f"got {', '.join(f'{name} {tuple(p.shape)}' for name, p in zip(found, beliefs, strict=True))}"
        )


def require_whole(params: list[Tensor], names: tuple[str, str], advice: str) -> None:
    """Raise InputError where one tensor of a pair has a gradient and the other has none."""
    given = [moves(p) for p in params]
    if given[0::2] != given[1::2]:
        raise InputError(
            f"a {names[0]} has a gradient and its {names[1]} has none, or the other way round; they move together, so "
            f"freeze both or neither ({advice})"
        )
