"""The kinds of steps that a packed file may hold, each with how it is written down and how it is made again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from varbnn.bits import BLOCK, blocks, words
from varbnn.errors import InputError
from varbnn.nn import Gate
from varbnn.packed.call import Call, Constant, Real
from varbnn.packed.file.modules import fill, made, options_of
from varbnn.packed.file.values import DTYPES, LARGEST, Fields, decode, encode, require, shown
from varbnn.packed.gates import GateStep, PackShut
from varbnn.packed.pools import PoolSigns
from varbnn.packed.steps import Affine, PackedConv, PackedLinear, PackedProduct, PackSigns, Spread

ACTIVATIONS = ("none", "relu", "sign")
GATE_VALUES = ("signs", "bits")
LARGEST_STATE = 16


class Tensors(Protocol):
    """The tensors of a file by name."""

    def __call__(self, name: Any, where: str) -> Tensor: ...


Name = Callable[[Tensor, str], str]
"""Gives a tensor a name in the file; the second argument is what it is in its step."""


@dataclass(frozen=True)
class Scope:
    """What a step is made from, besides its own fields.

    Attributes:
        tensors: by name.
        num_samples: S.
        inputs: how many values it takes.
    """

    tensors: Tensors
    num_samples: int
    inputs: int

    def per_output(self, fields: Fields, name: str, width: int | None) -> Tensor | None:
        """``float32`` (1 or S, width), or None; any width for `width` None."""
        key = fields.take(name)
        if key is None:
            return None
        tensor = self.tensors(key, f"{fields.where}: {name}")
        right = tensor.dim() == 2 and len(tensor) in (1, self.num_samples) and tensor.shape[1] == (
            tensor.shape[1] if width is None else width
        )  # fmt: skip
        require(
            right and tensor.dtype == torch.float32 and tensor.shape[1] > 0,
            f"{fields.where}: {name} must be float32 of shape (1 or {self.num_samples}, {width or 'channels'}), found "
            f"{tensor.dtype} of shape {tuple(tensor.shape)}",
        )
        return tensor

    def blocks(self, fields: Fields, count: int, inputs: int) -> Tensor:
        weight = self.tensors(fields.take("weight"), f"{fields.where}: weight")
        shape = (self.num_samples, count, words(inputs), BLOCK)
        require(
            weight.dtype == torch.int32 and tuple(weight.shape) == shape,
            f"{fields.where}: weight must be int32 of shape {shape}, found {weight.dtype} of shape "
            f"{tuple(weight.shape)}",
        )
        return weight


def _finish(step: PackedProduct, name: Name) -> dict[str, Any]:
    return {
        "weight": name(step.weight, "weight"),
        "scale": None if step.scale is None else name(step.scale, "scale"),
        "shift": None if step.shift is None else name(step.shift, "shift"),
        "activation": step.activation,
        "shared": step.shared,
    }


def _finished(fields: Fields, scope: Scope, width: int) -> dict[str, Any]:
    return {
        "scale": scope.per_output(fields, "scale", width),
        "shift": scope.per_output(fields, "shift", width),
        "activation": fields.choice("activation", ACTIVATIONS),
        "shared": fields.flag("shared"),
    }


def _linear(step: PackedLinear, name: Name) -> dict[str, Any]:
    own = {"in_features": step.in_features, "out_features": step.out_features, "flat": step.flat, "int8": step.int8}
    return own | _finish(step, name)


def _make_linear(fields: Fields, scope: Scope) -> PackedLinear:
    inputs, outputs = (fields.integer(key, 1, LARGEST) for key in ("in_features", "out_features"))
    weight = scope.blocks(fields, blocks(outputs), inputs)
    step = PackedLinear(weight, inputs, outputs, **_finished(fields, scope, outputs))
    step.flat, step.int8 = fields.flag("flat"), fields.flag("int8")
    return step


def _conv(step: PackedConv, name: Name) -> dict[str, Any]:
    own = {
        "channels": list(step.channels),
        "kernel": step.kernel,
        "stride": step.stride,
        "padding": step.padding,
        "dilation": step.dilation,
        "groups": step.groups,
    }
    return own | _finish(step, name)


def _make_conv(fields: Fields, scope: Scope) -> PackedConv:
    channels = fields.integers("channels", 2, 1, LARGEST)
    groups = fields.integer("groups", 1, LARGEST)
    require(all(count % groups == 0 for count in channels), f"{fields.where}: {groups} groups do not divide {channels}")
    kernel = _kernel(fields)
    stride, dilation = (fields.integers(key, len(kernel), 1, LARGEST) for key in ("stride", "dilation"))
    padding = fields.integers("padding", 2 * len(kernel), 0, LARGEST)
    weight = scope.blocks(
        fields, groups * blocks(channels[1] // groups), math.prod(kernel) * (channels[0] // groups)
    )  # fmt: skip
    finish = _finished(fields, scope, channels[1])
    return PackedConv(weight, (channels[0], channels[1]), kernel, stride, padding, dilation, groups, **finish)


def _affine(step: Affine, name: Name) -> dict[str, Any]:
    return {
        "scale": None if step.scale is None else name(step.scale, "scale"),
        "shift": None if step.shift is None else name(step.shift, "shift"),
        "activation": step.activation,
        "channel_last": step.channel_last,
    }


def _make_affine(fields: Fields, scope: Scope) -> Affine:
    scale = scope.per_output(fields, "scale", None)
    shift = scope.per_output(fields, "shift", None if scale is None else scale.shape[1])
    return Affine(scale, shift, fields.choice("activation", ACTIVATIONS), fields.flag("channel_last"))


def _pool(step: PoolSigns, name: Name) -> dict[str, Any]:
    return {
        "kernel": step.kernel,
        "stride": step.stride,
        "padding": step.padding,
        "dilation": step.dilation,
        "turned": None if step.turned is None else name(step.turned, "turned"),
    }


def _make_pool(fields: Fields, scope: Scope) -> PoolSigns:
    kernel = _kernel(fields)
    stride, dilation = (fields.integers(key, len(kernel), 1, LARGEST) for key in ("stride", "dilation"))
    padding = fields.integers("padding", len(kernel), 0, LARGEST)
    require(
        all(2 * around <= width for around, width in zip(padding, kernel, strict=True)),
        f"{fields.where}: padding must be at most half of the kernel, found {padding} for {kernel}",
    )
    key = fields.take("turned")
    turned = None if key is None else scope.tensors(key, f"{fields.where}: turned")
    require(
        turned is None or (turned.dtype == torch.int32 and turned.dim() == 2 and len(turned) in (1, scope.num_samples)),
        f"{fields.where}: turned must be int32 of shape (1 or {scope.num_samples}, words)",
    )
    return PoolSigns(kernel, stride, padding, dilation, turned)


def _kernel(fields: Fields) -> list[int]:
    kernel = fields.integers("kernel", None, 1, LARGEST)
    require(1 <= len(kernel) <= 3, f"{fields.where}: kernel must have 1 to 3 dimensions, found {shown(kernel)}")
    return kernel


def _gate(gate: Gate) -> dict[str, Any]:
    return {"values": gate.values, "reverse": gate.reverse, "width": gate.width}


def _make_gate(fields: Fields) -> Gate:
    values, reverse = fields.choice("values", GATE_VALUES), fields.flag("reverse")
    return Gate(values, reverse=reverse, width=fields.number("width"))


def _call(step: Call, name: Name) -> dict[str, Any]:
    function = step.name()  # before its arguments, whose error would say less
    return {"function": function, "args": encode(list(step.args)), "kwargs": encode(step.kwargs)}


def _make_call(fields: Fields, scope: Scope) -> Call:
    args = tuple(decode(item, scope.inputs) for item in fields.items("args", 1000))
    kwargs = decode(fields.take("kwargs"), scope.inputs)
    require(isinstance(kwargs, dict), f"{fields.where}: kwargs must be a dict of constants")
    return Call.named(fields.text("function"), args, kwargs)


def _constant(step: Constant, name: Name) -> dict[str, Any]:
    if str(step.value.dtype).removeprefix("torch.") not in DTYPES:
        raise InputError(f"a packed file cannot hold a constant of {step.value.dtype}")
    return {"value": name(step.value, "value")}


def _make_constant(fields: Fields, scope: Scope) -> Constant:
    return Constant(scope.tensors(fields.take("value"), f"{fields.where}: value"))


def _module(step: Real, name: Name) -> dict[str, Any]:
    options = options_of(step.module)
    state = {key: name(tensor, key) for key, tensor in step.module.state_dict().items()}
    return {"module": type(step.module).__name__, "options": options, "state": state}


def _make_module(fields: Fields, scope: Scope) -> Real:
    module = made(fields.take("module"), fields.take("options"))
    state = fields.take("state")
    require(
        isinstance(state, dict) and len(state) <= LARGEST_STATE,
        f"{fields.where}: state must be an object of names of tensors, found {shown(state)}",
    )
    tensors = {key: scope.tensors(held, f"{fields.where}: {shown(key)}") for key, held in state.items()}
    fill(module, tensors, f"{fields.where}: its {type(module).__name__}")
    return Real(module)


@dataclass(frozen=True)
class Kind:
    """How steps of one class are written and made.

    Attributes:
        step: the class.
        describe: fields of a step, without its kind and wires.
        make: a step from its fields.
        inputs: how many values it takes; None for any number.
    """

    step: type[nn.Module]
    describe: Callable[[Any, Name], dict[str, Any]]
    make: Callable[[Fields, Scope], nn.Module]
    inputs: int | None = 1


KINDS = {
    "linear": Kind(PackedLinear, _linear, _make_linear),
    "conv": Kind(PackedConv, _conv, _make_conv),
    "affine": Kind(Affine, _affine, _make_affine),
    "pack_signs": Kind(
        PackSigns,
        lambda step, name: {"channels_first": step.channels_first},
        lambda fields, scope: PackSigns(fields.flag("channels_first")),
    ),
    "pool_signs": Kind(PoolSigns, _pool, _make_pool),
    "gate": Kind(GateStep, lambda step, name: _gate(step.gate), lambda fields, scope: GateStep(_make_gate(fields))),
    "pack_shut": Kind(
        PackShut,
        lambda step, name: {**_gate(step.gate), "channels_first": step.channels_first},
        lambda fields, scope: PackShut(_make_gate(fields), fields.flag("channels_first")),
    ),
    "spread": Kind(Spread, lambda step, name: {}, lambda fields, scope: Spread(scope.num_samples)),
    "call": Kind(Call, _call, _make_call, None),
    "constant": Kind(Constant, _constant, _make_constant, 0),
    "module": Kind(Real, _module, _make_module, None),
}
"""The closed set."""
