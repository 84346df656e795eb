"""Calls that do what a module of torch.nn does: packing knows each in one form, that of the module."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from varbnn.packed.nodes import name_of, option

TRAINING = ("training", "train")
_RELU: frozenset[Any] = frozenset({torch.relu, F.relu, "relu"})
_CLAMP: frozenset[Any] = frozenset({torch.clamp, torch.clip, torch.clamp_min, "clamp", "clip", "clamp_min"})
_MAX_POOLS: dict[Any, type[nn.Module]] = {
    function: kind
    for kind, functions in {
        nn.MaxPool1d: (F.max_pool1d, torch.max_pool1d),
        nn.MaxPool2d: (F.max_pool2d, torch.max_pool2d),
        nn.MaxPool3d: (F.max_pool3d, torch.max_pool3d),
    }.items()
    for function in functions
}
_POOLING = {
    "kernel_size": None,
    "stride": None,
    "padding": 0,
    "dilation": 1,
    "ceil_mode": False,
    "return_indices": False,
}
_FLATTEN: frozenset[Any] = frozenset({torch.flatten, "flatten"})


def module_of(node: fx.Node) -> nn.Module | None:
    """The module that does what the call `node` does to its first input; None where there is none.

    >>> graph = fx.Graph()
    >>> module_of(graph.call_function(torch.clamp, (graph.placeholder("x"),), {"min": 0}))
    ReLU()
    """
    if node.target in _RELU or (node.target in _CLAMP and _from_zero(node)):
        return nn.ReLU()
    if node.target in _FLATTEN:
        start, end = option(node, 1, 0, "start_dim"), option(node, 2, -1, "end_dim")
        if type(start) is int and type(end) is int:
            return nn.Flatten(start, end)
    if node.target in _MAX_POOLS:
        options = {
            name: option(node, place, default, name) for place, (name, default) in enumerate(_POOLING.items(), 1)
        }
        if len(node.all_input_nodes) == 1 and options["kernel_size"] is not None:
            stride, ceil = options["stride"] or None, bool(options["ceil_mode"])  # [] is the kernel's, as for torch
            return _MAX_POOLS[node.target](**{**options, "stride": stride, "ceil_mode": ceil})
    if "dropout" in name_of(node) and option(node, 2, True, *TRAINING) is False:
        return nn.Identity()
    return None


def _from_zero(node: fx.Node) -> bool:
    low, high = option(node, 1, None, "min"), option(node, 2, None, "max")
    return type(low) in (int, float) and low == 0 and high is None
