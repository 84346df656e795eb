"""What stands in a call that torch.fx has written down."""

from __future__ import annotations

from typing import Any

from torch import fx


def name_of(node: fx.Node) -> str:
    """What a call calls, without the module that it is from.

    >>> graph = fx.Graph()
    >>> name_of(graph.call_method("relu", (graph.placeholder("x"),)))
    'relu'
    """
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def option(node: fx.Node, place: int, default: Any, *names: str) -> Any:
    """An argument of a call, wherever it stands, under one of `names`.

    >>> graph = fx.Graph()
    >>> node = graph.call_method("clamp", (graph.placeholder("x"), 0), {"max": 1})
    >>> option(node, 1, None, "min"), option(node, 2, None, "max"), option(node, 3, "absent", "out")
    (0, 1, 'absent')
    """
    if len(node.args) > place:
        return node.args[place]
    return next((node.kwargs[name] for name in names if name in node.kwargs), default)
