"""What in a forward is about the shape of its values and not about the values."""

from __future__ import annotations

from typing import Any

from torch import fx

METHODS = frozenset({"size", "dim", "numel", "nelement", "stride", "is_contiguous", "get_device", "type"})
ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "names", "itemsize"})


def asks_size(target: Any, args: Any) -> bool:
    """Whether a call of `target` asks a tensor for its size or kind."""
    return target in METHODS if isinstance(target, str) else target is getattr and args[1] in ATTRIBUTES


def gives_size(node: fx.Node) -> bool:
    return node.op in ("call_method", "call_function") and asks_size(node.target, node.args)
