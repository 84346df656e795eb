"""From a model to a packed program: what the model computes, read by torch.fx, with packed layers in place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from varbnn.errors import InputError
from varbnn.nn import Gate, Sign
from varbnn.nn.conv import BinaryConv1d, BinaryConv2d, BinaryConv3d
from varbnn.nn.draws import evaluating
from varbnn.nn.layer import BinaryLayer
from varbnn.nn.linear import BinaryLinear
from varbnn.packed.call import Call, Constant, Real, Ref
from varbnn.packed.functional import module_of
from varbnn.packed.gates import GateStep
from varbnn.packed.graph import KNOWN, attribute, traced
from varbnn.packed.steps import Affine, PackedConv, PackedLinear
from varbnn.packed.untouched import ONE_AT_A_TIME
from varbnn.packed.writing import SKIPPED

PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


@dataclass
class Plan:
    """A program in the making: each step with the numbers of the values it takes; value 0 is the input.

    The value that step i gives has the number i + 1.
    """

    steps: list[nn.Module] = field(default_factory=list)
    wires: list[tuple[int, ...]] = field(default_factory=list)
    output: int = 0

    def add(self, step: nn.Module, *inputs: int) -> int:
        self.steps.append(step)
        self.wires.append(inputs)
        return len(self.steps)


@dataclass(frozen=True)
class Drawn:
    """What differs between the S networks.

    Attributes:
        weights: blocks (S, outputs / 16, inputs / 32, 16) of each binary layer, inputs in the order of its weight.
        statistics: running mean and variance of each batch-norm layer, (S or 1, C).
        norms: what takes the place of batch-norm layers instead.
    """

    weights: Mapping[nn.Module, Tensor]
    statistics: Mapping[nn.Module, tuple[Tensor, Tensor]]
    norms: Mapping[nn.Module, nn.Module] = field(default_factory=dict)


def plan(model: nn.Module, drawn: Drawn) -> Plan:
    """The program of `model`, one step per operation, nothing folded yet."""
    result, values = Plan(), dict[fx.Node, int]()
    with ONE_AT_A_TIME, evaluating(model):
        root, graph = traced(model)
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = 0
            elif node.op == "output":
                (answer,) = node.args
                if not isinstance(answer, fx.Node):
                    raise InputError(f"packing takes models that return one tensor, got {answer}")
                result.output = values[answer]
            elif node.op == "get_attr":
                values[node] = result.add(Constant(attribute(root, graph, str(node.target))))
            elif node.op == "call_module":
                module = root.get_submodule(str(node.target))
                values[node] = _add_module(result, module, node, values, drawn)
            elif (functional := module_of(node)) is not None:
                values[node] = _add_step(result, functional, values[node.all_input_nodes[0]], str(node), drawn)
            else:
                values[node] = _add_call(result, node.target, node, values)
    return result


def _add_call(result: Plan, target: Any, node: fx.Node, values: Mapping[fx.Node, int]) -> int:
    """`target` with the arguments of `node`: a function, a method's name or a module."""
    inputs: list[fx.Node] = []

    def reference(other: fx.Node) -> Any:
        if other not in inputs:
            inputs.append(other)
        return Ref(inputs.index(other))

    args = _plain(fx.node.map_arg(node.args, reference))
    kwargs = _plain(fx.node.map_arg(node.kwargs, reference))
    return result.add(Call(target, args, kwargs), *(values[other] for other in inputs))


def _plain(value: Any) -> Any:
    """Without fx's immutable containers."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _add_module(result: Plan, module: nn.Module, node: fx.Node, values: Mapping[fx.Node, int], drawn: Drawn) -> int:
    name, given = str(node.target), [*node.args, *node.kwargs.values()]
    if len(given) == 1 and isinstance(given[0], fx.Node):
        return _add_step(result, module, values[given[0]], name, drawn)
    if isinstance(module, (*KNOWN, *SKIPPED, nn.ReLU)):
        raise InputError(f"{name} ({type(module).__name__}) is called with options; packing calls it with one tensor")
    tensors = [values[arg] for arg in node.args if isinstance(arg, fx.Node)]
    if len(tensors) == len(given) and not node.kwargs:
        return result.add(Real(_kept(module, name)), *tensors)
    return _add_call(result, _kept(module, name), node, values)


def _add_step(result: Plan, module: nn.Module, value: int, name: str, drawn: Drawn) -> int:
    """`module`, called with one value."""
    if isinstance(module, SKIPPED):
        return value
    if isinstance(module, BinaryLinear):
        return result.add(_packed_linear(module, drawn.weights[module]), value)
    if isinstance(module, BinaryConv1d | BinaryConv2d | BinaryConv3d):
        return _add_conv(result, module, drawn.weights[module], value)
    if module in drawn.norms:
        return result.add(copy.copy(drawn.norms[module]), value)  # one for each use; what they measure is pooled
    if isinstance(module, _BatchNorm):
        return result.add(batchnorm(module, drawn.statistics.get(module), name), value)
    if isinstance(module, Sign):
        shift = None if module.shift is None else -module.shift.detach().float().reshape(1, -1)
        return result.add(Affine(None, shift, "sign"), value)
    if isinstance(module, Gate):
        return result.add(GateStep(Gate(module.values, reverse=module.reverse, width=module.width)), value)
    if isinstance(module, nn.ReLU):
        return result.add(Affine(None, None, "relu"), value)
    return result.add(Real(_kept(module, name)), value)


def _kept(module: nn.Module, name: str) -> nn.Module:
    """A copy that predicts, in float32, and writes into no input."""
    try:
        kept = copy.deepcopy(module).float().eval().requires_grad_(False)
    except RuntimeError as error:  # old weight_norm holds a tensor with a graph after a step
        raise InputError(f"{name} ({type(module).__name__}) cannot be copied: {error}") from error
    for option in kept.modules():
        if getattr(option, "inplace", False):
            option.inplace = False  # type: ignore[assignment]  # another step may still need the value
    return kept


def batchnorm(module: _BatchNorm, statistics: tuple[Tensor, Tensor] | None, name: str) -> Affine:
    """Batch norm with fixed statistics, as the scale and shift that torch rounds it to: what it says of 1 and 0."""
    if statistics is None:
        raise InputError(
            f"{name} normalises by the statistics of each batch (track_running_stats=False), which mix examples; "
            "packing takes batch norm with running statistics"
        )
    mean, variance = (t.float() for t in torch.broadcast_tensors(*statistics))
    weight, bias = (None if t is None else t.detach().float() for t in (module.weight, module.bias))
    zero = torch.zeros_like(mean[:1])
    of_one = [F.batch_norm(zero + 1, zero[0], own, weight, None, eps=module.eps) for own in variance]
    of_zero = [
        F.batch_norm(zero, own_mean, own_variance, weight, bias, eps=module.eps)
        for own_mean, own_variance in zip(mean, variance, strict=True)
    ]
    scale, shift = torch.cat(of_one), torch.cat(of_zero)
    scale, shift = (t[:1] if bool((t == t[:1]).all()) else t for t in (scale, shift))
    return Affine(scale, shift)


def _bias(module: BinaryLayer) -> Tensor | None:
    bias = module.bias
    return None if bias is None else bias.detach().float().reshape(1, -1).clone()  # type: ignore[operator]


def _packed_linear(module: BinaryLinear, weight: Tensor) -> PackedLinear:
    return PackedLinear(weight, module.in_features, module.out_features, shift=_bias(module))


def _add_conv(result: Plan, module: Any, weight: Tensor, value: int) -> int:
    dims = len(module.kernel_size)
    both = module._reversed_padding_repeated_twice
    # torch keeps them last dimension first: (before, after) pairs from the end
    pairs = list(zip(both[::2], both[1::2], strict=True))
    margins = [margin for pair in reversed(pairs) for margin in pair]
    if module.padding_mode != "zeros" and any(margins):
        options = {"mode": PAD_MODES[module.padding_mode]}
        given = [margin for pair in pairs for margin in pair]
        value = result.add(Call(torch.nn.functional.pad, (Ref(0), given), options), value)
        margins = [0] * (2 * dims)
    step = PackedConv(
        weight, (module.in_channels, module.out_channels), module.kernel_size, module.stride, margins,
        module.dilation, module.groups, shift=_bias(module),
    )  # fmt: skip
    return result.add(step, value)
