"""Operations that write into their input: made into pure ones, or refused where something shares the memory.

In a packed program a value may be read later, by a step that was moved or merged, or be spread over the networks;
nothing may write into it.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from varbnn.errors import InputError
from varbnn.packed.sizes import gives_size

SKIPPED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Modules that do nothing in prediction."""

AUGMENTED: dict[Any, Callable[..., Any]] = {
    getattr(operator, f"i{name.removesuffix('_')}"): getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor")
}
"""What ``+=`` and its kin do to a tensor, and what does the same without writing."""
_VIEWS = frozenset(
    (*("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose"),
     *("swapaxes", "permute", "t", "movedim", "narrow", "select", "chunk", "split", "unbind", "expand", "expand_as"),
     *("detach", "contiguous", "to", "float", "getitem"))
)  # fmt: skip
_NOT_PURE = frozenset({"bernoulli", "random", "set", "resize", "requires_grad", "copy"})
"""Names without their underscore that mean something else, or nothing."""


def without_writing(root: nn.Module, graph: fx.Graph) -> None:
    """Rewrite `graph` so that no operation writes into its input.

    Raises:
        InputError: a value that shares memory with the one written into is used later; an operation without a pure
            form.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    shared: dict[fx.Node, set[fx.Node]] = {node: {node} for node in graph.nodes}
    sizes: set[fx.Node] = set()
    for node in graph.nodes:
        source = next(iter(node.all_input_nodes), None)
        if source is None or node.op == "output":
            continue
        if gives_size(node) or all(other in sizes for other in node.all_input_nodes):
            sizes.add(node)
        writes = _writes(root, node)
        if writes and node in sizes:  # numbers are not written into
            _make_pure(root, node)
            continue
        if writes:
            source = node.args[0]
            later = [m for m in shared[source] if any(order[user] > order[node] for user in m.users)]
            if any(member is not source for member in later):
                raise InputError(
                    f"{node.name} writes into a tensor that {' and '.join(str(m) for m in later if m is not source)} "
                    "shares and that is used later; packing keeps no memory between steps: leave the in-place "
                    "operation out. varbnn.predict runs any model"
                )
            now = order[node]
            source.replace_all_uses_with(node, delete_user_cb=lambda user, now=now: order[user] > now)
            _make_pure(root, node)
        if writes or _is_view(root, node):
            joint = shared[source] | shared[node]
            for member in joint:
                shared[member] = joint


def _named(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _is_view(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(root.get_submodule(str(node.target)), (*SKIPPED, nn.Flatten, nn.Unflatten))
    return _named(node) in _VIEWS or (_named(node) == "getattr" and node.args[1] in ("T", "mT", "data"))


def _writes(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return bool(getattr(module, "inplace", False)) and not isinstance(module, SKIPPED)
    name = _named(node)
    if node.op == "call_method":
        return name.endswith("_") and not name.startswith("__")
    if node.op != "call_function":
        return False
    return node.target in AUGMENTED or (name.endswith("_") and not name.startswith("_")) or _inplace(node) is True


def _inplace(node: fx.Node) -> Any:
    """The option `inplace` of a call, wherever it stands; None where there is none."""
    if "inplace" in node.kwargs:
        return node.kwargs["inplace"]
    place = _place_of_option(node.target)
    return node.args[place] if place is not None and len(node.args) > place else None


def _place_of_option(function: Any) -> int | None:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None  # of C, which takes no such option
    return names.index("inplace") if "inplace" in names else None


def _make_pure(root: nn.Module, node: fx.Node) -> None:
    """The same operation, giving a new tensor; of modules packing sees to it."""
    if node.op == "call_module":
        return
    name, target = _named(node), node.target
    if target in AUGMENTED:
        node.target = AUGMENTED[target]
    elif node.op == "call_method":
        pure = name[:-1]
        if pure in _NOT_PURE or not hasattr(Tensor, pure):
            raise _no_pure_form(node)
        node.target = pure
    elif name.endswith("_"):
        found = next((getattr(home, name[:-1]) for home in (F, torch) if hasattr(home, name[:-1])), None)
        if found is None:
            raise _no_pure_form(node)
        node.target = found
    place = _place_of_option(node.target) if node.op == "call_function" else None
    if "inplace" in node.kwargs:
        node.kwargs = {**node.kwargs, "inplace": False}
    elif place is not None and len(node.args) > place:
        node.args = (*node.args[:place], False, *node.args[place + 1 :])


def _no_pure_form(node: fx.Node) -> InputError:
    return InputError(f"{node.name} writes into its input and has no form that does not, which packing would need")
