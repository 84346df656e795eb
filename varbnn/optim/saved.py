"""Is a saved state one of this optimizer? Asked before the first of its tensors is taken over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from varbnn.errors import CheckpointError, InputError
from varbnn.optim.filters import Filter
from varbnn.optim.finite import is_finite
from varbnn.optim.parts import Group, OneOf, chosen
from varbnn.optim.real import AVERAGES

OF_TORCH = {"maximize", "differentiable"}
"""Options that torch adds to an optimizer when it is copied or loaded, so that a state may lack them."""

ADVICE = "build the optimizer as it was when the state was saved"


def load_checked(
    load: Callable[[dict[str, Any]], None], optimizer: Optimizer, state_dict: dict[str, Any], *expected: Any
) -> dict[str, Any]:
    """Let torch's `load` take `state_dict` over, once every hook has had its turn and `refuse_foreign` finds no fault.

    Args:
        expected: further arguments of `refuse_foreign`.

    Returns:
        The state as the last hook has left it.
    """
    taken: list[dict[str, Any]] = []

    def look(optimizer: Optimizer, state: dict[str, Any]) -> None:
        refuse_foreign(state, optimizer, *expected)
        taken.append(state)

    if not isinstance(state_dict, dict):  # torch copies it before the first hook
        refuse_foreign(state_dict, optimizer, *expected)
    handle = optimizer.register_load_state_dict_pre_hook(look)
    try:
        load(state_dict)
    finally:
        handle.remove()
    return taken[0]


def refuse_foreign(
    saved: dict[str, Any],
    optimizer: Optimizer,
    filter: Filter | OneOf[Filter],
    options: Iterable[str],
    check: Callable[[Group], None],
) -> None:
    """Raise CheckpointError unless `saved` is the state of an optimizer such as this, for parameters such as its own.

    Args:
        filter: of the rule.
        options: of the groups that the posteriors decide.
        check: raises InputError for a group with hyper-parameters that the rule cannot use.
    """
    name, groups = type(optimizer).__name__, optimizer.param_groups
    if not isinstance(saved, dict) or not {"state", "param_groups"} <= saved.keys():
        holds = f" of {', '.join(map(str, list(saved)[:3])) or 'nothing'}" if isinstance(saved, dict) else ""
        given = f"a {type(saved).__name__}{holds}"
        raise CheckpointError(f"the state of an optimizer has state and param_groups, got {given}; give {name}'s own")
    if not _are_groups(saved["param_groups"]) or not _are_states(saved["state"]):
        raise CheckpointError(
            "the state of an optimizer has a list of dicts with params as param_groups and a dict of dicts as state; "
            f"this one has not, so it is damaged; give {name}'s own"
        )
    for index, (there, here) in enumerate(zip(saved["param_groups"], groups, strict=False)):
        _refuse_group(index, there, here, optimizer)
        for option in options:
            mine, theirs = here.get(option), there.get(option)
            if mine != theirs:
                raise CheckpointError(
                    f"group {index} has posteriors of {option} {mine!r}, the saved state {theirs!r}; "
                    "binarize the model as it was when the state was saved"
                )
    sizes, own = ([len(group["params"]) for group in each] for each in (saved["param_groups"], groups))
    if sizes != own:
        raise CheckpointError(f"this {name} has groups of {own} parameters, the saved state of {sizes}; {ADVICE}")
    for index, group in enumerate(saved["param_groups"]):
        try:
            check(group)
        except InputError as error:
            raise CheckpointError(f"group {index} of the saved state: {error}") from None
    _refuse_damaged(saved, groups, filter)


def _are_groups(value: Any) -> bool:
    lists = list | tuple
    groups = isinstance(value, lists) and all(isinstance(group, dict) for group in value)
    params = [group.get("params") for group in value] if groups else [None]
    return all(isinstance(own, lists) and all(isinstance(index, int | str) for index in own) for own in params)


def _are_states(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(state, dict) for state in value.values())


def _refuse_group(index: int, there: Group, here: Group, optimizer: Optimizer) -> None:
    known = optimizer.defaults if here["kind"] == "belief" else ("lr", "betas", "eps", "weight_decay")
    missing = [key for key in known if key not in there and key not in OF_TORCH]
    if missing or there.get("kind") != here["kind"]:
        found = f"lacks {missing[0]}" if missing else f"is of kind {there.get('kind')!r}, not {here['kind']!r}"
        raise CheckpointError(
            f"group {index} of the saved state {found}: it is no state of this {type(optimizer).__name__}; {ADVICE}"
        )


def _refuse_damaged(saved: dict[str, Any], groups: list[Group], filter: Filter | OneOf[Filter]) -> None:
    """Raise CheckpointError unless each parameter has all that is kept of it or nothing, in its shape and finite."""
    for there, here in zip(saved["param_groups"], groups, strict=True):
        if here["kind"] == "belief":
            own = chosen(filter, there)
            shaped, numbers = own.names(there), tuple(own.weights(there).values())
        else:
            shaped, numbers = AVERAGES, ("step",)
        for index, p in zip(there["params"], here["params"], strict=True):
            state = saved["state"].get(index, {})
            missing = [name for name in (*shaped, *numbers) if name not in state]
            if missing and any(name in state for name in (*shaped, *numbers)):
                raise CheckpointError(f"the saved state of parameter {index} lacks {missing[0]}, so it is damaged")
            for name in (*shaped, *numbers, "prior"):
                if name in state:
                    _refuse_value(state[name], f"the saved {name} of parameter {index}", p, shaped=name not in numbers)


def _refuse_value(value: Any, name: str, p: Tensor, shaped: bool) -> None:
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{name} is a {type(value).__name__} and no tensor: the state is damaged")
    if shaped and value.shape != p.shape:
        raise CheckpointError(
            f"{name} has shape {tuple(value.shape)}, the parameter {tuple(p.shape)}: it is the state of another model; "
            f"{ADVICE}"
        )
    if not is_finite(value):
        raise CheckpointError(f"{name} has NaN or infinite entries: the state is damaged")
