"""The compiled step: where every part of a rule has a compiled form, one pass over memory does all of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from varbnn.kernels import steps
from varbnn.kernels.steps import Memory
from varbnn.optim.blocks import blocks
from varbnn.optim.decisions import Decision
from varbnn.optim.filters import Filter
from varbnn.optim.forgetting import Forgetting
from varbnn.optim.parts import Compiled, Group, States


def step_fused(
    parts: tuple[Filter, Forgetting, Decision],
    beliefs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: States,
    group: Group,
    *,
    skip: bool,
    coupled: bool,
    gain: float,
    together: int,
) -> bool:
    """Do the whole step of `beliefs` in compiled code, if that can be; the result differs by float32 rounding only.

    Args:
        parts: filter, forgetting, decision.
        skip: whether the filter is the identity and remembers nothing.
        coupled: whether the pull goes through the filter.
        gain: what gradients are multiplied by.
        together: how many parameters in a row make one belief.

    Returns:
        False, with nothing changed, where a part has no compiled form or a tensor is not of the plain kind.
    """
    if torch.compiler.is_compiling():
        return False  # before anything is read that would break the graph
    filter, forgetting, decision = parts
    pull, decided = forgetting.compiled(group, coupled), decision.compiled(group)
    if pull is None or decided is None or pull.pair != decided.pair:
        return False
    filtered = [Compiled({"filter": "identity"}) if skip else filter.compiled(state, group) for state in states]
    pulled, decides = pull.settings["pull"], decided.settings["decision"]
    if not all(own is not None and steps.combine(own.settings["filter"], pulled, decides) for own in filtered):
        return False
    names = () if skip else filter.names(group)
    memories = [
        Memory(p, g, tuple(state[name] for name in names), state.get("prior") if pull.prior else None)
        for p, g, state in zip(beliefs, gradients, states, strict=True)
    ]
    if not steps.can_step(memories):
        return False
    priors = [memory.prior is None for memory in memories]
    if pull.pair and priors[::2] != priors[1::2]:
        return False
    for index in range(0, len(memories), 2 if pull.pair else 1):
        own = filtered[index]
        assert own is not None
        how = steps.settings(gain=gain, **own.settings, **pull.settings, **decided.settings)
        if pull.pair:
            steps.step_pair(how, memories[index], memories[index + 1])
        else:
            steps.step(how, memories[index])
    if decided.afterwards is not None:
        for piece, _, _ in blocks(list(beliefs), list(gradients), states, together):
            decided.afterwards(piece)
    return True
