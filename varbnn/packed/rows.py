"""Packed networks share one batch, so a row must not see another: what says so in a graph, and what shows in a run."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from varbnn.kernels.backend import implementation
from varbnn.packed.call import Call
from varbnn.packed.nodes import name_of
from varbnn.packed.sizes import gives_size

ROWS = 8
"""Inputs that packed networks are tried with."""

# by name: where the dimension stands among the arguments, and what is meant without it (None: all of them)
_DIMENSION: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("mean", "sum", "prod", "std", "var", "amax", "amin", "argmax", "argmin", "logsumexp"), (1, None)),
    **dict.fromkeys(("max", "min", "median", "all", "any", "softmax", "log_softmax", "cumsum", "flip"), (1, None)),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "unbind"), (1, 0)),
    **dict.fromkeys(("chunk", "split"), (2, 0)),
    **dict.fromkeys(("sort", "argsort"), (1, -1)),
    "roll": (2, None),
    "normalize": (2, 1),
    "topk": (2, -1),
}
FAILURES = (RuntimeError, AttributeError, TypeError, ValueError, IndexError)
"""Of the model's code."""
_RECURRENT = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def mixing(root: nn.Module, graph: fx.Graph) -> str | None:
    """The first operation of `graph` that says it works across the batch, as a sentence; None where none does."""
    rows: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            rows.add(node)
        if node.op == "output" or not any(other in rows for other in node.all_input_nodes) or gives_size(node):
            continue
        rows.add(node)
        module = root.get_submodule(str(node.target)) if node.op == "call_module" else None
        if (_module_mixes(module) if module is not None else _call_mixes(root, node, rows)) and node.op != "get_attr":
            what = f"{node.target} ({module})" if module is not None else _written(node)
            return sentence(what)
    return None


def sentence(what: str) -> str:
    return (
        f"{what} works across the batch, or moves it to another dimension; packing takes models that treat the rows of "
        "a batch (dimension 0) independently at every step. varbnn.predict runs any model"
    )


def _written(node: fx.Node) -> str:
    return f"{name_of(node)}({', '.join([*map(str, node.args), *(f'{k}={v}' for k, v in node.kwargs.items())])})"


def _module_mixes(module: nn.Module) -> bool:
    if isinstance(module, _RECURRENT):
        attention: Any = getattr(module, "self_attn", module)
        return not attention.batch_first
    dim: Any = getattr(module, "dim", None)
    return isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin) and (dim is None or dim == 0)


def _call_mixes(root: nn.Module, node: fx.Node, rows: Container[Any]) -> bool:
    name = name_of(node)
    if name == "getitem":
        if node.args[0] not in rows:  # the model's own table, looked up by the input
            return False
        index = node.args[1][0] if isinstance(node.args[1], tuple) else node.args[1]
        return not _gives_parts(root, node.args[0]) and not (index is Ellipsis or index == slice(None))
    if name == "getattr":
        return node.args[1] == "T"
    if name in ("transpose", "swapaxes"):
        return 0 in node.args[1:3]
    if name == "permute":
        dims: Any = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
        return bool(dims) and dims[0] != 0
    if name == "t":
        return True
    if name not in _DIMENSION:
        return False
    place, default = _DIMENSION[name]
    dim = node.kwargs.get("dim", node.kwargs.get("axis", node.args[place] if len(node.args) > place else default))
    return not isinstance(dim, fx.Node) and (dim is None or 0 in (dim if isinstance(dim, tuple | list) else (dim,)))


def _gives_parts(root: nn.Module, node: Any) -> bool:
    """Whether the value is a tuple of tensors, so that an index picks one of them."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return isinstance(module, (*_RECURRENT, nn.LSTMCell)) or bool(getattr(module, "return_indices", False))
    name = name_of(node)
    return name in ("max", "min", "median", "sort", "topk", "std_mean", "var_mean", "chunk", "split", "unbind")


class Probe:
    """Two rows through a program, step by step, and each row alone: does a step give each what it gives both?

    Attributes:
        problem: a sentence on the first step where it does not; None where all do.
        row_bytes: of the largest value for one row; 0 where a lone row could not be joined by another, and nothing is
            known.
    """

    def __init__(self, steps: Iterable[nn.Module], wires: Sequence[Sequence[int]], num_samples: int) -> None:
        self.steps, self.wires, self.num_samples = list(steps), wires, num_samples
        self.problem: str | None = None
        self.row_bytes = 1

    def run(self, rows: Tensor) -> Probe:
        """`rows`: 1 or more inputs, of which two are tried; one is joined by another made from it, as are two equal.

        Raises:
            InputError: ``VARBNN_BACKEND`` asks for what cannot run here.
        """
        implementation(rows.device)  # first, for that is no fault of a step
        lone = len(rows) == 1 or torch.equal(rows[0], rows[1])
        rows = torch.cat([rows[:1], _another(rows[:1])]) if lone else rows[:2].clone()
        both: list[Any] = [rows]
        alone: list[list[Any]] = [[rows[:1]], [rows[1:]]]
        follows, networks = [True], [1]
        for step, wire in zip(self.steps, self.wires, strict=True):
            inputs = [both[value] for value in wire]
            try:
                result = step(*inputs)
                each = [step(*(one[value] for value in wire)) for one in alone] if _may_mix(step) else []
            except FAILURES as error:
                if lone and [_fails(step, [one[value] for value in wire]) for one in alone] == [False, True]:
                    self.row_bytes = 0  # the row that was made up is none of this model's, which tells nothing
                    return self
                self.problem = f"{_name(step)} fails on two inputs: {str(error).partition(chr(10))[0]}"
                return self
            own = any(networks[value] > 1 for value in wire if follows[value])
            count = self.num_samples if own or _per_network(step) else 1
            singles: list[Any]
            if isinstance(result, Tensor):
                self.row_bytes = max(self.row_bytes, result.nbytes // 2)
            touched = any(follows[value] for value in wire) and not _is_plain(result)
            if touched and not _may_mix(step):
                singles = [_row(result, count, m) for m in (0, 1)]
            else:
                singles = each or [step(*(one[value] for value in wire)) for one in alone]
                if touched and isinstance(result, Tensor) and not _same(result, singles, count):
                    self.problem = sentence(_name(step))
                    return self
            both.append(result)
            follows.append(touched)
            networks.append(count)
            for one, single in zip(alone, singles, strict=True):
                one.append(single)
        return self


def _fails(step: nn.Module, inputs: Sequence[Any]) -> bool:
    try:
        step(*inputs)
    except FAILURES:
        return True
    return False


def _another(row: Tensor) -> Tensor:
    """An input of its kind that differs everywhere: floats by 0.25 or more, in [0, 1] where this one is; tokens by 1.

    >>> _another(torch.tensor([-1.0, 0.0, 0.5, 1.0]))
    tensor([0.0000, 0.5000, 0.2500, 0.5000])
    """
    return 0.5 * row + 0.5 * (row < 0.5) if row.is_floating_point() else torch.where(row > 0, row - 1, 1)


def _per_network(step: nn.Module) -> bool:
    return bool(getattr(step, "per_network", False))


def _may_mix(step: nn.Module) -> bool:
    return bool(getattr(step, "foreign", False))


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Tensor | list | tuple) or isinstance(value, torch.Size)


def _row(value: Tensor, networks: int, m: int) -> Tensor:
    return value.unflatten(0, (networks, 2, -1))[:, m].flatten(0, 1)


def _same(both: Tensor, singles: Sequence[Any], networks: int) -> bool:
    if any(both.dim() == 0 or s.dim() != both.dim() or 2 * len(s) != len(both) for s in singles):
        return False
    if len(both) % (2 * networks) or any(s.shape[1:] != both.shape[1:] for s in singles):
        return False
    near = 1e-3 * both.double().nan_to_num(0.0, 0.0, 0.0).abs().max().item()
    pairs = ((_row(both, networks, m).double(), singles[m].double()) for m in (0, 1))
    return all(torch.allclose(a, b, rtol=1e-3, atol=near, equal_nan=True) for a, b in pairs)


def _name(step: nn.Module) -> str:
    inner = getattr(step, "module", step)
    return inner.written() if isinstance(inner, Call) else str(inner)
