"""Beliefs of several tensors that a rule moves together: in a row, with the same options, all of them or none."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from varbnn.errors import InputError
from varbnn.optim.filters import Filter
from varbnn.optim.parts import Group, OneOf, chosen
from varbnn.optim.real import AVERAGES
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
    given = [p.grad is not None for p in params]
    if given[0::2] != given[1::2]:
        raise InputError(
            f"a {names[0]} has a gradient and its {names[1]} has none, or the other way round; they move together, so "
            f"freeze both or neither ({advice})"
        )


def refuse_other(saved: list[Group], own: list[Group], option: str) -> None:
    """Raise InputError where a saved group belongs to posteriors with another value of `option` than one's own."""
    for index, (there, here) in enumerate(zip(saved, own, strict=False)):
        mine, theirs = here.get(option), there.get(option)
        if mine != theirs:
            raise InputError(
                f"group {index} has posteriors of {option} {mine!r}, the saved state {theirs!r}; "
                "binarize the model as it was when the state was saved"
            )


OF_TORCH = {"maximize", "differentiable"}
"""Options that torch adds to an optimizer when it is copied or loaded, so that a state may lack them."""


def refuse_foreign(saved: list[Group], optimizer: Optimizer) -> None:
    """Raise InputError where a saved group lacks what `optimizer` knows of its own, or is of another kind."""
    for index, (there, here) in enumerate(zip(saved, optimizer.param_groups, strict=False)):
        known = optimizer.defaults if here["kind"] == "belief" else ("lr", "betas", "eps", "weight_decay")
        missing = [key for key in known if key not in there and key not in OF_TORCH]
        if missing or there.get("kind") != here["kind"]:
            found = f"lacks {missing[0]}" if missing else f"is of kind {there.get('kind')!r}, not {here['kind']!r}"
            raise InputError(
                f"group {index} of the saved state {found}: it is no state of this {type(optimizer).__name__}; build "
                "the optimizer as it was when the state was saved"
            )


def refuse_other_shapes(saved: dict[str, Any], groups: list[Group], filter: Filter | OneOf[Filter]) -> None:
    """Raise InputError where a saved tensor is not shaped like the parameter whose state it would become."""
    for there, here in zip(saved["param_groups"], groups, strict=False):
        names = (*chosen(filter, here).names(here), "prior") if here["kind"] == "belief" else AVERAGES
        for index, p in zip(there["params"], here["params"], strict=False):
            state = saved["state"].get(index, {})
            for name in names:
                value = state.get(name)
                if isinstance(value, Tensor) and value.shape != p.shape:
                    raise InputError(
                        f"the saved {name} of parameter {index} has shape {tuple(value.shape)}, the parameter "
                        f"{tuple(p.shape)}: it is the state of another model; build the optimizer as it was when the "
                        "state was saved"
                    )
