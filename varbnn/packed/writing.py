"""Operations that write into their input: made into pure ones, or refused where something shares the memory.

In a packed program a value may be read later, by a step that was moved or merged, or be spread over the networks;
nothing may write into it.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from varbnn.errors import InputError
from varbnn.packed.nodes import name_of
from varbnn.packed.sizes import gives_size

SKIPPED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Modules that do nothing in prediction."""

ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor")
AUGMENTED: dict[Any, Callable[..., Any]] = {
    getattr(operator, f"i{name.removesuffix('_')}"): getattr(operator, name) for name in ARITHMETIC
}
"""What ``+=`` and its kin do to a tensor, and what does the same without writing."""

_FRESH = frozenset(
    (*("add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "neg", "and_", "or_", "xor", "matmul", "mm"),
     *("bmm", "linear", "conv1d", "conv2d", "conv3d", "bilinear", "embedding", "one_hot", "clone"),
     *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus"),
     *("hardtanh", "hardswish", "hardsigmoid", "prelu", "glu", "softmax", "log_softmax", "exp", "log", "sqrt", "rsqrt"),
     *("abs", "sign", "square", "sin", "cos", "round", "floor", "ceil", "clamp", "maximum", "minimum", "where"),
     *("mean", "sum", "prod", "amax", "amin", "std", "var", "norm", "logsumexp", "cumsum", "argmax", "argmin"),
     *("cat", "concat", "concatenate", "stack", "masked_fill", "normalize", "layer_norm", "group_norm", "batch_norm"),
     *("instance_norm", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
     *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "scaled_dot_product_attention"),
     *("eq", "ne", "lt", "le", "gt", "ge", "pad", "interpolate", "flip", "roll", "repeat", "index_select", "gather"),
     *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones"),
     *("multiply", "subtract", "divide", "negative", "absolute", "clip", "reciprocal", "erf", "logsigmoid", "lerp"),
     *("addmm", "baddbmm", "addcmul", "addcdiv", "outer", "logical_and", "logical_or", "logical_not"))
)  # fmt: skip
"""Operations whose result has memory of its own. All others may share that of any of their inputs."""

_PARTS = ("chunk", "split", "unbind", "tensor_split")
_NOT_PURE = frozenset({"bernoulli", "random", "set", "resize", "requires_grad", "copy"})
"""Names without their underscore that mean something else, or nothing."""


def without_writing(root: nn.Module, graph: fx.Graph) -> None:
    """Rewrite `graph` so that no operation writes into its input, and leave out what nobody uses.

    Raises:
        InputError: a value that shares memory with the one written into is used later; an operation without a pure
            form.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    memory = _Memory()
    sizes: set[fx.Node] = set()
    for node in graph.nodes:
        memory.add(node)
        inputs = node.all_input_nodes
        if not inputs or node.op == "output":
            continue
        if gives_size(node) or (_is_arithmetic(node) and all(other in sizes for other in inputs)):
            sizes.add(node)
        elif _writes(root, node):
            source = node.args[0] if node.args else node.kwargs.get("input")
            if not isinstance(source, fx.Node):
                raise _no_pure_form(node)
            if source not in sizes:  # numbers are not written into
                now = order[node]
                later = [m for m in memory.sharing(source) if any(order[user] > now for user in m.users)]
                if any(member is not source for member in later):
                    raise _shared(node, [member for member in later if member is not source])
                source.replace_all_uses_with(node, delete_user_cb=functools.partial(_is_later, order, now))
                memory.join(node, [source])
            _make_pure(root, node)
        elif not _is_fresh(root, node):
            memory.join(node, [other for other in inputs if other not in sizes])
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def _is_later(order: dict[fx.Node, int], now: int, user: fx.Node) -> bool:
    return order[user] > now


class _Memory:
    """Which values may share memory with which."""

    def __init__(self) -> None:
        self._sharing: dict[fx.Node, set[fx.Node]] = {}
        self._part: dict[fx.Node, set[tuple[fx.Node, Any]]] = {}  # of what, and which: others do not overlap

    def add(self, node: fx.Node) -> None:
        self._sharing[node], self._part[node] = {node}, set()

    def sharing(self, node: fx.Node) -> set[fx.Node]:
        return self._sharing[node]

    def join(self, node: fx.Node, sources: list[fx.Node]) -> None:
        """`node` may be another look at the memory of `sources`."""
        parts = set[tuple[fx.Node, Any]]().union(*(self._part[source] for source in sources))
        if name_of(node) == "getitem" and name_of(sources[0]) in _PARTS and isinstance(node.args[1], int):
            parts.add((sources[0], node.args[1]))
        self._part[node] = parts
        every = set[fx.Node]().union(*(self._sharing[source] for source in sources))
        for other in every:
            if not any(a is b and i != j for a, i in parts for b, j in self._part[other]):
                self._sharing[node].add(other)
                self._sharing[other].add(node)


def _is_arithmetic(node: fx.Node) -> bool:
    return node.op == "call_function" and (name_of(node) in (*ARITHMETIC, "getitem", "neg") or node.target in AUGMENTED)


def _is_fresh(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return not isinstance(root.get_submodule(str(node.target)), (*SKIPPED, nn.Flatten, nn.Unflatten))
    return name_of(node) in _FRESH


def _writes(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return bool(getattr(module, "inplace", False)) and not isinstance(module, SKIPPED)
    name = name_of(node)
    if node.op == "call_method":
        return name.endswith("_") and not name.startswith("__")
    if node.op != "call_function":
        return False
    written = name.endswith("_") and not name.startswith("_") and name not in ARITHMETIC
    return node.target in AUGMENTED or written or _inplace(node) is True


def _inplace(node: fx.Node) -> Any:
    """The option `inplace` of a call, wherever it stands; None where there is none."""
    if "inplace" in node.kwargs:
        return node.kwargs["inplace"]
    place = _place_of_option(node.target)
    return node.args[place] if place is not None and len(node.args) > place else None


@functools.cache
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
    name, target = name_of(node), node.target
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


def _shared(node: fx.Node, others: list[fx.Node]) -> InputError:
    return InputError(
        f"{node.name} writes into a tensor whose memory {' and '.join(map(str, others))} may share and that is used "
        "later; packing keeps no memory between steps: leave the in-place operation out. varbnn.predict runs any model"
    )


def _no_pure_form(node: fx.Node) -> InputError:
    return InputError(f"{node.name} writes into its input and has no form that does not, which packing would need")
