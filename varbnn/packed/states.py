"""The states that recurrent layers end with: their batch stands second, until one layer's is picked."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn


def state(output: Any, *path: Any) -> Any:
    """What lies at `path` in the output of a recurrent layer.

    >>> state(("every step", ("hidden", "cell")), 1, 0)
    'hidden'
    """
    for index in path:
        output = output[index]
    return output


def pick_states(root: nn.Module, graph: fx.Graph) -> None:
    """Rewrite ``_, (h, c) = lstm(x); h[-1]`` as one call, whose value has the batch first again, as every other."""
    for node in graph.nodes:
        layer, path = _path(node)
        if layer.op != "call_module" or not isinstance(module := root.get_submodule(str(layer.target)), nn.RNNBase):
            continue
        depth = 3 if isinstance(module, nn.LSTM) else 2  # of an LSTM the states are two
        if len(path) == depth and path[0] in (1, -1) and _picks_layer(path[-1]):
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_function(state, (layer, *path)))
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def _path(node: fx.Node) -> tuple[fx.Node, list[Any]]:
    """The node that a chain of indices starts at, and the indices."""
    path: list[Any] = []
    while node.op == "call_function" and node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        path.insert(0, node.args[1])
        node = node.args[0]
    return node, path


def _picks_layer(index: Any) -> bool:
    if isinstance(index, tuple):
        return type(index[0]) is int and (len(index) == 1 or index[1] == slice(None))
    return type(index) is int
