"""Does an optimizer belong to this model, and to this run?"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from varbnn.errors import CheckpointError, InputError, VarbnnWarning
from varbnn.optim.parts import Group
from varbnn.optim.rule import Rule
from varbnn.posteriors import belief_of

_UNTOLD = object()
HOW = {"foreach", "fused", "capturable", "differentiable"}
"""Options that say how a step is computed, not what it is."""
OF_SCHEDULER = " of the scheduler"


def require_own(parameters: Iterable[Tensor], optimizer: Any, stacklevel: int = 3) -> None:
    """Raise InputError where `optimizer` would move none of `parameters`, or none of the beliefs among them.

    Warns:
        VarbnnWarning: it holds some of the beliefs and not others.
    """
    name = type(optimizer).__name__
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    moving = [p for p in parameters if p.requires_grad]
    beliefs = [p for p in moving if belief_of(p) is not None]
    left = sum(id(p) not in held for p in beliefs)
    if beliefs and left == len(beliefs):
        raise InputError(
            f"the {name} holds none of the model's {left} beliefs, so no weight would move; build it from "
            "model.parameters() after varbnn.binarize(model)"
        )
    if moving and all(id(p) not in held for p in moving):
        raise InputError(f"the {name} holds none of the model's parameters; build it from this model's parameters()")
    if left:
        text = f"the {name} does not hold {left} of the model's {len(beliefs)} beliefs, which stay as they are"
        warnings.warn(f"{text}; give it all of model.parameters()", VarbnnWarning, stacklevel=stacklevel)


def advance(scheduler: Any, loss: float) -> None:
    """A step of any torch scheduler; one that looks for a plateau is shown the loss."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)
    else:
        scheduler.step()


def chosen_settings(optimizer: Optimizer, scheduler: Any = None) -> dict[str, Any]:
    """What their user chose, in plain values; of a run these are taken when it is built, before schedules move any."""
    options = dict(getattr(optimizer, "defaults", {}))
    if isinstance(optimizer, Rule):
        options |= {f"real_{key}": value for key, value in optimizer._real.items()}
    rates = [float(group["initial_lr"]) for group in optimizer.param_groups if "initial_lr" in group]
    options |= {"initial_lr": rates} if rates else {}  # of each group, where a schedule moves them
    states = [optimizer.state.get(p, {}) for group in optimizer.param_groups for p in group["params"]]
    kinds = {"optimizer": type(optimizer).__name__, "scheduler": _kind(scheduler)}
    schedule = {} if scheduler is None else _of_schedule(scheduler.state_dict())
    return {**kinds, **_kept(options), **_of_groups(optimizer.param_groups, states), **schedule}


def require_same_settings(saved: Any, own: dict[str, Any], stood: Any, schedule: Any, where: str) -> None:
    """Raise CheckpointError where the run in the file `where` was begun with another optimizer or scheduler.

    Args:
        saved: the `chosen_settings` of that run.
        own: those of this one, whose optimizer may have been trained and moved by schedules.
        stood: the state of the optimizer when the file was written. What had moved by then is not compared.
        schedule: that of the scheduler. The numbers of one that has made steps are not compared.
    """
    state = stood if isinstance(stood, dict) else {}
    groups, states = state.get("param_groups", []), state.get("state", {})
    now = _of_groups(groups, [states.get(index, {}) for group in groups for index in group["params"]])
    now |= _of_schedule(schedule)
    first = saved if isinstance(saved, dict) else {}
    stepped = any(key.startswith("last_epoch of") and own.get(key) != value for key, value in first.items())
    for key, value in first.items():
        name, scheduled = key.removesuffix(OF_SCHEDULER), key.endswith(OF_SCHEDULER)
        if key not in own or (scheduled and stepped):
            continue
        if not _same(own[key], value) and _same(now.get(key, value), value):
            owner = "scheduler" if scheduled else "optimizer"
            given = "given is" if key == "scheduler" else f"the {owner} given has"
            raise CheckpointError(
                f"{where} was begun with {name}={value!r}, {given} {own[key]!r}; give it the settings the run began "
                "with, or another file"
            )


def _kind(scheduler: Any) -> str:
    """Its class, with those of the schedulers inside it."""
    parts = ", ".join(map(_kind, getattr(scheduler, "_schedulers", ())))
    return "none" if scheduler is None else f"{type(scheduler).__name__}{f'({parts})' if parts else ''}"


def _of_schedule(state: Any, place: str = "") -> dict[str, Any]:
    """What a scheduler's `state` has, and what those inside it have; its last lr is the optimizer's."""
    found: dict[str, Any] = {}
    for key, value in state.items() if isinstance(state, Mapping) else ():
        if key == "_schedulers":
            for index, part in enumerate(value):
                found |= _of_schedule(part, f"{place} part {index}")
        elif key != "_last_lr" and (plain := _plain(value)) is not _UNTOLD:
            found[f"{key}{' of' + place if place else ''}{OF_SCHEDULER}"] = plain
    return found


def _of_groups(groups: list[Group], states: list[dict[str, Any]]) -> dict[str, Any]:
    """What each group has, and the digest of all prior tensors."""
    found: dict[str, Any] = {}
    for index, group in enumerate(groups):
        covered = {"params", "param_names", *(["lr"] if "initial_lr" in group else [])}
        own = _kept({key: value for key, value in group.items() if key not in covered})
        found |= {f"{key} of group {index}": value for key, value in own.items()}
    priors = [state["prior"] for state in states if isinstance(state.get("prior"), Tensor)]
    digest = hashlib.sha256()
    for prior in priors:
        local = prior.to_local() if hasattr(prior, "to_local") else prior  # of a sharded one
        digest.update(local.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {**found, "prior tensors": f"sha256 {digest.hexdigest()[:16]}" if priors else "none"}


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    plain = {key: _plain(value) for key, value in options.items() if key not in HOW}
    return {key: value for key, value in plain.items() if value is not _UNTOLD}


def _plain(value: Any) -> Any:
    """As a checkpoint holds it; `_UNTOLD` for what is no number, word or row of them. Schedules move tensors."""
    if isinstance(value, Mapping):
        value = sorted(value.items(), key=str)
    if isinstance(value, tuple | list):
        parts = [_plain(part) for part in value]
        return _UNTOLD if any(part is _UNTOLD for part in parts) else parts
    return value if value is None or isinstance(value, bool | int | float | str) else _UNTOLD


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6)  # an initial rate may have been a tensor in float32
    return bool(one == other)
