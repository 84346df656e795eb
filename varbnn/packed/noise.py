"""Forwards that draw random numbers by themselves: packed networks are functions of their input, and have none."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from varbnn.errors import InputError
from varbnn.packed.functional import TRAINING
from varbnn.packed.nodes import name_of, option

_DRAWS = torch.Tag.nondeterministic_seeded
_ALWAYS = ("gumbel_softmax", "fractional_max_pool2d", "fractional_max_pool3d")
"""Functions of Python, which torch's tags do not tell of."""


class Listening(TorchDispatchMode):
    """Refuses what draws random numbers while a forward is read: a number drawn then would stand there for ever."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _DRAWS in func.tags:
            raise _noise(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def refuse_noise(root: nn.Module, graph: fx.Graph) -> None:
    """Refuse a graph that draws random numbers whenever it runs.

    Raises:
        InputError: it does; the message names the call.
    """
    for node in graph.nodes:
        if node.op == "call_module":
            module = root.get_submodule(str(node.target))
            if isinstance(module, nn.FractionalMaxPool2d | nn.FractionalMaxPool3d):
                raise _noise(f"{node.target} ({type(module).__name__})")
        elif node.op in ("call_function", "call_method") and _draws(node):
            raise _noise(name_of(node))


def _draws(node: fx.Node) -> bool:
    name = name_of(node)
    if name == "scaled_dot_product_attention":
        return option(node, 4, 0.0, "dropout_p") != 0
    if name == "rrelu":
        return option(node, 3, False, *TRAINING) is not False
    if "dropout" in name:
        return option(node, 2, True, *TRAINING) is not False and option(node, 1, 0.5, "p") != 0
    packet = getattr(torch.ops.aten, name, None)
    return name in _ALWAYS or (
        packet is not None and any(_DRAWS in getattr(packet, overload).tags for overload in packet.overloads())
    )


def _noise(what: str) -> InputError:
    return InputError(
        f"the model's forward draws random numbers ({what}), also in eval mode; packed networks are functions of their "
        "input, and would share the numbers or keep them. varbnn.predict runs any model"
    )
