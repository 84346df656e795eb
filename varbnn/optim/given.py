"""What a rule is given: parameters, among which it has to find the beliefs that it trains, and a prior."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from varbnn.errors import InputError
from varbnn.posteriors import Posterior, belief_of


def require_params(params: Any, name: str) -> None:
    """Raise InputError unless `params` can be gone through; `name` is that of the rule."""
    if isinstance(params, torch.nn.Module):
        raise InputError(f"give the parameters, not the model: {name}(model.parameters(), ...)")
    if not isinstance(params, Iterable):
        how = "call it: model.parameters()" if callable(params) else "give model.parameters()"
        raise InputError(f"{name} takes parameters, or groups of them, got a {type(params).__name__}; {how}")


def require_prior(prior: Any, params: Iterable[Any]) -> None:
    """Raise InputError unless `prior` is a number, or a list of tensors beside which no group of `params` has one."""
    listed = isinstance(prior, Sequence) and all(isinstance(value, Tensor) for value in prior)
    if not listed and not (isinstance(prior, int | float) or (isinstance(prior, Tensor) and prior.dim() == 0)):
        raise InputError(
            "prior must be a number, or a list with one tensor per belief such as varbnn.as_prior(model), got "
            f"{type(prior).__name__}"
        )
    own = [group for group in params if isinstance(group, dict) and "kind" not in group]  # no rule wrote those
    if listed and any("prior" in group for group in own):
        raise InputError(
            "a group has a prior of its own beside a list of tensors, which is for the beliefs of all groups; leave "
            "the group's out, or put it into the list as a tensor"
        )


def moves(parameter: Tensor) -> bool:
    """Whether a step moves it: what is frozen keeps its place, whatever gradient it has left.

    Not so in a compiled step, for torch would not notice when it is frozen or set free again.
    """
    return parameter.grad is not None and (torch.compiler.is_compiling() or parameter.requires_grad)


def require_group_prior(param_group: dict[str, Any], beliefs: Sequence[Any], listed: bool) -> None:
    """Raise InputError where `beliefs` come without a prior to an optimizer whose others have tensors (`listed`)."""
    if listed and beliefs and "prior" not in param_group:
        raise InputError(
            "this optimizer has tensors for a prior, and the new group holds beliefs without one: give it a number "
            "as prior, or a list with one tensor per belief such as varbnn.as_prior(layer)"
        )


def listed_prior(param_group: Any) -> tuple[Any, Sequence[Tensor] | None]:
    """A group with a number for prior, and the tensors it had instead."""
    prior = param_group.get("prior") if isinstance(param_group, dict) else None
    if not isinstance(prior, Sequence) or not all(isinstance(value, Tensor) for value in prior):
        return param_group, None
    return {**param_group, "prior": 0.0}, prior


def refuse_misspelt(keys: Iterable[Any], known: Collection[str]) -> None:
    """Raise InputError where one of `keys` is nearly one of those `known`; others are notes of the user or torch."""
    for key in keys:
        close = [] if key in known else get_close_matches(str(key), known, n=1, cutoff=0.85)
        if close:
            raise InputError(
                f"a group has {key!r}, which nothing reads: did you mean {close[0]!r}? Rename a note of your own"
            )


def items_of(param_group: Any) -> list[Any]:
    """The parameters of a group, each alone or behind its name.

    Raises:
        InputError: the group has none, or has them in no order.
    """
    if not isinstance(param_group, dict) or "params" not in param_group:
        found = ", ".join(map(str, param_group)) if isinstance(param_group, dict) else type(param_group).__name__
        raise InputError(f"a group is a dict with params, such as {{'params': model.parameters()}}, got {found}")
    given = param_group["params"]
    if isinstance(given, set | frozenset):
        raise InputError("params is a set, whose order differs from run to run; pass a list")
    require_params(given, "a group")
    return [given] if isinstance(given, Tensor) else list(given)


def kind_of(parameter: Any, name: str, posterior: type[Posterior], gradient: str) -> str:
    """ "belief" or "real".

    Args:
        name: of the rule.
        posterior, gradient: what it trains.

    Raises:
        InputError: nothing that can be trained, or a belief that this rule does not train.
    """
    if not isinstance(parameter, Tensor):
        raise InputError(f"parameters are tensors, got {type(parameter).__name__}; pass model.parameters()")
    if not parameter.is_floating_point():
        raise InputError(f"a parameter has dtype {parameter.dtype}; only floating-point parameters can be trained")
    belief = belief_of(parameter)
    if belief is None:
        return "real"
    if not isinstance(belief.posterior, posterior):
        raise InputError(
            f"{name} trains {posterior.__name__} posteriors, but a parameter is the {belief.name} of "
            f"{belief.posterior!r}; binarize the model with {posterior.__name__}(), or take another optimizer"
        )
    given = getattr(belief.posterior, "gradient", gradient)
    if given != gradient:
        raise InputError(
            f"{name} takes the {gradient} gradient, but {belief.posterior!r} gives the {given} one; binarize the model "
            f"with gradient={gradient!r}, or take another optimizer"
        )
    return "belief"
