"""What in a forward is about the shape of its values and not about the values."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from varbnn.packed.call import Call

METHODS = frozenset({"size", "dim", "numel", "nelement", "stride", "is_contiguous", "get_device", "type"})
ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "names", "itemsize"})


def asks_size(target: Any, args: Any) -> bool:
    """Whether a call of `target` asks a tensor for its size or kind."""
    return target in METHODS if isinstance(target, str) else target is getattr and args[1] in ATTRIBUTES


def gives_size(node: fx.Node) -> bool:
    return node.op in ("call_method", "call_function") and asks_size(node.target, node.args)


def fixed(step: Call, before: nn.Module | None) -> bool:
    """Whether `step` asks for a size or kind that is the same for every batch; `before` made its first value.

    A dimension counted from the end may be that of the batch.

    >>> from varbnn.packed.call import Ref
    >>> shape = Call(getattr, (Ref(0), "shape"), {})
    >>> [fixed(Call(operator.getitem, (Ref(0), place), {}), shape) for place in (0, 1, -1)]
    [False, True, False]
    """
    target, args = step.target, step.args
    if target is getattr:
        return args[1] in ATTRIBUTES - {"shape"}
    if target == "size":
        return _behind_batch(step.kwargs.get("dim", args[1] if len(args) > 1 else None))
    if target is operator.getitem:
        return isinstance(before, Call) and _is_shape(before) and _behind_batch(args[1])
    return target in ("dim", "get_device")


def _is_shape(call: Call) -> bool:
    if call.target is getattr:
        return bool(call.args[1] == "shape")
    return call.target == "size" and len(call.args) == 1 and not call.kwargs


def _behind_batch(dimension: Any) -> bool:
    return isinstance(dimension, int) and dimension > 0
