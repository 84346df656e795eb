"""Where the bits are: what is binary, what is real and why, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from textwrap import wrap

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from varbnn.bits import WORD, words
from varbnn.errors import InputError
from varbnn.nn.batchnorm import answer
from varbnn.nn.binarize import TWINS, parameter_owners, reason_to_stay_real
from varbnn.nn.compiled import uncompiled
from varbnn.nn.draws import binary_layers, evaluating
from varbnn.nn.layer import BinaryLayer
from varbnn.nn.scaling import unnormalised, unscaled_head
from varbnn.text import size, table


@dataclass(frozen=True)
class LayerSummary:
    """One row: a module that owns parameters. What several modules share is counted in the first of them.

    Attributes:
        name, kind: dotted name and class.
        binary: whether its weight is ±1.
        reason: why it stayed real; empty for a binary layer.
        binary_weights, real_weights: how many of each.
        bits: of one weight when deployed: 1 if it is binary, else those of its dtype.
        training_bytes: of its parameters and buffers as they are now.
        deployed_bytes: with ±1 weights packed to 1 bit, in rows of 32-bit words, and the rest as it is.
        entropy_bits: mean posterior entropy per binary weight, in bits; None for a real layer.
        binary_macs: multiply-accumulates with a 1-bit weight, per example; None unless inputs were given.
    """

    name: str
    kind: str
    binary: bool
    reason: str
    binary_weights: int
    real_weights: int
    bits: int
    training_bytes: int
    deployed_bytes: int
    entropy_bits: float | None
    binary_macs: int | None


@dataclass(frozen=True)
class Summary:
    """What `summary` found; print it for the table.

    Attributes:
        layers: the rows.
        lacks: what the model lacks to keep sums of ±1 weights small, with what to do.
    """

    layers: tuple[LayerSummary, ...] = field(repr=False)
    lacks: tuple[str, ...] = ()

    @property
    def binary_weights(self) -> int:
        return sum(layer.binary_weights for layer in self.layers)

    @property
    def real_weights(self) -> int:
        return sum(layer.real_weights for layer in self.layers)

    @property
    def training_bytes(self) -> int:
        return sum(layer.training_bytes for layer in self.layers)

    @property
    def deployed_bytes(self) -> int:
        return sum(layer.deployed_bytes for layer in self.layers)

    def __str__(self) -> str:
        texts = {_HEAD.index(name) for name in ("layer", "type", "why real")}
        lines = table([_HEAD, *(_cells(layer) for layer in self.layers)], texts).split("\n")
        rule = "─" * max(map(len, lines))
        real = size(4 * (self.binary_weights + self.real_weights))
        total = (
            f"{self.binary_weights:,} binary and {self.real_weights:,} real weights: {size(self.training_bytes)} in "
            f"training, {size(self.deployed_bytes)} deployed (float32 network: {real})"
        )
        notes = [line for lack in self.lacks for line in wrap(f"Note: {lack}.", len(rule))]
        return "\n".join([lines[0], rule, *lines[1:], rule, total, *notes])


def summary(model: nn.Module, inputs: Tensor | None = None) -> Summary:
    """List every module of `model` that owns parameters: bits per weight, bytes, work, entropy, and why it is real.

    Args:
        model: any module.
        inputs: N ≥ 1 example inputs; with them 1-bit multiply-accumulates are counted, in one forward pass in eval
            mode.

    Returns:
        One row per module, and what the model lacks to keep sums of ±1 weights small. Print it.

    Raises:
        InputError: no inputs in `inputs`, a shape or several inputs in their place, or binary layers on the meta
            device, which has no numbers.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Sequential(nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32)))
    >>> print(summary(model))  # doctest: +ELLIPSIS
    layer  type          weights  bits   train  deployed  1-bit MACs  entropy  why real
    ─...
    0      BinaryLinear    2,048     1  8.2 kB     256 B           -     0.99
    1      BatchNorm1d        64    32   520 B     520 B           -        -  no binary twin
    ─...
    2,048 binary and 64 real weights: 8.7 kB in training, 776 B deployed (float32 network: 8.4 kB)
    """
    if any(belief.is_meta for _, layer in binary_layers(model) for belief in layer.belief):
        raise InputError("the model is on the meta device, so its beliefs have no values; to_empty and load it first")
    if isinstance(inputs, tuple):
        raise InputError(
            f"inputs must be one batch of examples, such as torch.zeros(1, 64), not its shape and not several inputs; "
            f"got {inputs!r:.60}"
        )
    macs = {} if inputs is None else _binary_macs(model, torch.as_tensor(inputs))
    spared = "kept real on request" if any(binary_layers(model)) else "real; varbnn.binarize makes it binary"
    owners, seen = parameter_owners(model), set[int]()
    rows = [
        _row(name, module, owners, None if inputs is None else macs.get(module, 0), seen, spared)
        for name, module in model.named_modules()
        if any(p is not None for p in module._parameters.values())
    ]
    lacks = (unnormalised(model), unscaled_head(model))
    return Summary(tuple(rows), tuple(lack for lack in lacks if lack is not None))


def _row(
    name: str, module: nn.Module, owners: Mapping[int, int], macs: int | None, seen: set[int], spared: str
) -> LayerSummary:
    """`spared` is why a layer that could be binary is not."""
    tensors = (*module._parameters.values(), *module._buffers.values())
    own = [t for t in tensors if t is not None and not is_lazy(t) and id(t) not in seen]
    seen.update(map(id, own))
    taken = sum(t.nbytes for t in own)
    kind, real = type(module).__name__, sum(t.numel() for t in own if isinstance(t, nn.Parameter))
    if not isinstance(module, BinaryLayer):
        reason = reason_to_stay_real(module, owners)
        why = spared if reason is None and type(module) in TWINS else reason or ""
        bits = 8 * next(p.dtype.itemsize for p in module._parameters.values() if p is not None)
        return LayerSummary(name, kind, False, why, 0, real, bits, taken, taken, None, None if macs is None else 0)
    belief = module.belief
    shape = belief[0].shape
    held = [t for t in own if any(t is other for other in belief)]
    count = belief[0].numel() if any(t is belief[0] for t in held) else 0
    packed = shape[0] * words(math.prod(shape[1:])) * (WORD // 8) if count else 0
    rest = taken - sum(t.nbytes for t in held)
    trained = sum(t.numel() for t in held if isinstance(t, nn.Parameter))
    with torch.no_grad():
        entropies = module.posterior.entropy(*belief)
        entropy = float(entropies.mean(dtype=torch.float64)) / math.log(2) if entropies.numel() else 0.0
    return LayerSummary(name, kind, True, "", count, real - trained, 1, taken, packed + rest, entropy, macs)


_HEAD = ("layer", "type", "weights", "bits", "train", "deployed", "1-bit MACs", "entropy", "why real")


def _cells(layer: LayerSummary) -> tuple[str, ...]:
    return (
        layer.name or "(model)",
        layer.kind,
        f"{layer.binary_weights + layer.real_weights:,}",
        str(layer.bits),
        size(layer.training_bytes),
        size(layer.deployed_bytes),
        "-" if layer.binary_macs is None else f"{layer.binary_macs:,}",
        "-" if layer.entropy_bits is None else f"{layer.entropy_bits:.2f}",
        layer.reason,
    )


def _binary_macs(model: nn.Module, inputs: Tensor) -> dict[nn.Module, int]:
    total: dict[nn.Module, int] = {}
    if len(inputs) == 0:
        raise InputError("inputs hold no example to count multiply-accumulates with; give at least one")

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, BinaryLayer)
        weight = module.belief[0]
        channel = output.dim() - 1 if weight.dim() == 2 else output.dim() - (weight.dim() - 1)
        positions = output.numel() // max(output.shape[channel], 1)
        total[module] = total.get(module, 0) + positions * weight.numel() // len(inputs)

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, BinaryLayer):
                handle = module.register_forward_hook(count)
                stack.callback(handle.remove)
        for context in (evaluating(model), uncompiled(), torch.no_grad()):  # compiled code passes new hooks by
            stack.enter_context(context)
        answer(model, inputs.clone())  # which it may write into
    return total
