"""Make a plan shorter: batch norm and activations into the packed layers before them, signs as bits between layers."""

from __future__ import annotations

from torch import nn

from varbnn.nn import Gate
from varbnn.packed.call import Call, Real
from varbnn.packed.gates import GateStep, PackShut, read_shut, takes_shut
from varbnn.packed.pools import PoolSigns, poolable
from varbnn.packed.rewrite import Rewrite
from varbnn.packed.spread import spread
from varbnn.packed.steps import Affine, PackedConv, PackedLinear, PackedProduct, PackSigns
from varbnn.packed.thresholds import thresholds
from varbnn.packed.trace import Plan

KEEP_SIGNS = (nn.Flatten, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool2d, nn.Unflatten)
KEEP_SIGNS_CALLS = frozenset({"view", "reshape", "max_pool1d", "max_pool2d", "max_pool3d", "contiguous"})
"""What turns ±1 into ±1."""


def fused(plan: Plan, num_samples: int) -> Plan:
    """The same program in fewer steps, with every packed layer told whether the networks share its input."""
    return spread(thresholds(join_signs(pool_bits(insert_bits(gate_bits(fold(plan)))))), num_samples)


def fold(plan: Plan) -> Plan:
    """Scale, shift and ReLU into the packed layer or the scale and shift before them, where nothing else looks on."""
    work = Rewrite(plan)
    for index, (step, wire) in enumerate(zip(plan.steps, plan.wires, strict=True)):
        before = work.new.steps[work.values[wire[0]] - 1] if wire and work.values[wire[0]] else None
        if isinstance(step, Affine) and work.only_use(wire[0]) and _takes(before, step):
            assert isinstance(before, Affine | PackedProduct)
            absorb(before, step)
            work.merge(index)
        else:
            work.keep(index, step)
    return work.done()


def _takes(before: nn.Module | None, step: Affine) -> bool:
    plain = step.scale is None and step.shift is None
    if isinstance(before, Affine):
        return before.activation == "none"
    if not isinstance(before, PackedProduct) or before.activation != "none" or step.activation == "sign":
        return False
    return plain or all(t is None or t.shape[1] == before.width for t in (step.scale, step.shift))


def absorb(before: Affine | PackedProduct, step: Affine) -> None:
    """Let `before` do what `step` would do after it."""
    scale, shift = before.scale, before.shift
    if step.scale is not None:
        scale = step.scale if scale is None else scale * step.scale
        shift = None if shift is None else (shift.double() * step.scale.double()).float()
    if step.shift is not None:
        shift = step.shift if shift is None else shift + step.shift
    if isinstance(before, PackedLinear) and not (step.scale is None and step.shift is None):
        before.flat = True
    before.scale, before.shift, before.activation = scale, shift, step.activation


def gate_bits(plan: Plan) -> Plan:
    """Gates that only packed layers of one kind look at give bits."""
    users: list[list[nn.Module]] = [[] for _ in range(len(plan.steps) + 1)]
    for step, wire in zip(plan.steps, plan.wires, strict=True):
        for value in wire:
            users[value].append(step)
    work, gates = Rewrite(plan), dict[int, Gate]()
    for index, (step, wire) in enumerate(zip(plan.steps, plan.wires, strict=True)):
        looking = users[index + 1]
        conv = any(isinstance(user, PackedConv) for user in looking)
        if (
            isinstance(step, GateStep)
            and plan.output != index + 1
            and all(takes_shut(user, step.gate) and isinstance(user, PackedConv) == conv for user in looking)
        ):
            gates[index + 1] = step.gate
            work.keep(index, PackShut(step.gate, conv))
            continue
        if isinstance(step, PackedProduct) and wire[0] in gates:
            read_shut(step, gates[wire[0]])
        work.keep(index, step)
    return work.done()


def insert_bits(plan: Plan) -> Plan:
    """Let packed layers whose input is ±1 for certain take it as bits."""
    work, signs, packed = Rewrite(plan), set[int](), dict[tuple[int, bool], int]()
    for index, (step, wire) in enumerate(zip(plan.steps, plan.wires, strict=True)):
        if _gives_signs(step, wire, signs):
            signs.add(index + 1)
        if isinstance(step, PackedProduct) and wire[0] in signs and step.takes_bits:
            key = (work.values[wire[0]], isinstance(step, PackedConv))
            if key not in packed:
                packed[key] = work.new.add(PackSigns(key[1]), key[0])
            work.keep(index, step, packed[key])
        else:
            work.keep(index, step)
    return work.done()


def _gives_signs(step: nn.Module, wire: tuple[int, ...], signs: set[int]) -> bool:
    if isinstance(step, Affine):
        return step.activation == "sign"
    if isinstance(step, GateStep):
        return step.gate.values == "signs"
    if not wire or wire[0] not in signs:
        return False
    if isinstance(step, Real):
        return isinstance(step.module, KEEP_SIGNS)
    name = step.target if isinstance(step, Call) else None
    return (name if isinstance(name, str) else getattr(name, "__name__", "")) in KEEP_SIGNS_CALLS


def pool_bits(plan: Plan) -> Plan:
    """Between a packed convolution and bits, max pooling after the bits are made: they are 32 times fewer."""
    work = Rewrite(plan)
    pooled: dict[int, nn.Module] = {}  # by the step that packs signs
    left_out = set[int]()
    for index, (step, wire) in enumerate(zip(plan.steps, plan.wires, strict=True)):
        pair = _pooled(work, wire[0]) if isinstance(step, PackSigns) and step.channels_first else None
        if pair is not None:
            pool, sign = (plan.steps[number] for number in pair)
            assert isinstance(pool, Real)
            assert isinstance(sign, Affine)
            pooled[index] = PoolSigns.of(pool.module, sign.scale if pair[0] < pair[1] else None)
            left_out.add(pair[0])
    for index, step in enumerate(plan.steps):
        if index in left_out:
            work.merge(index)
        else:
            work.keep(index, step)
            if index in pooled:
                work.values[index + 1] = work.new.add(pooled[index], work.values[index + 1])
    return work.done()


def _pooled(work: Rewrite, value: int) -> tuple[int, int] | None:
    """The steps of a max pooling and a sign, in either order, that make `value` of a packed convolution's output."""
    last = work.producer(value)
    if last is None or not work.only_use(value) or len(work.old.wires[value - 1]) != 1:
        return None
    (middle,) = work.old.wires[value - 1]
    first = work.producer(middle)
    if first is None or not work.only_use(middle) or len(work.old.wires[middle - 1]) != 1:
        return None
    (before,) = work.old.wires[middle - 1]
    product = work.producer(before)
    if not isinstance(product, PackedConv) or product.activation != "none" or not work.only_use(before):
        return None
    dims = len(product.kernel)
    for pool, sign in ((middle - 1, value - 1), (value - 1, middle - 1)):
        step = work.old.steps[sign]
        if poolable(work.old.steps[pool], dims) and isinstance(step, Affine) and step.activation == "sign":
            fits = all(t is None or t.shape[1] == product.width for t in (step.scale, step.shift))
            return (pool, sign) if fits else None
    return None


def join_signs(plan: Plan) -> Plan:
    """A sign that is only ever packed: let the packed layer before it give bits."""
    work = Rewrite(plan)
    joined = {
        wire[0] - 1
        for step, wire in zip(plan.steps, plan.wires, strict=True)
        if isinstance(step, PackSigns) and _joins(work, wire[0], step)
    }
    for index, (step, wire) in enumerate(zip(plan.steps, plan.wires, strict=True)):
        if index in joined:
            product = work.producer(wire[0])
            assert isinstance(product, PackedProduct)
            assert isinstance(step, Affine)
            absorb(product, step)
            work.merge(index)
        elif isinstance(step, PackSigns) and wire[0] - 1 in joined:
            work.merge(index)
        else:
            work.keep(index, step)
    return work.done()


def _joins(work: Rewrite, value: int, packing: PackSigns) -> bool:
    """Whether `value`, which is packed, is the sign of a packed layer's output, and nothing else looks on."""
    sign = work.producer(value)
    if not isinstance(sign, Affine) or sign.activation != "sign" or not work.only_use(value):
        return False
    (before,) = work.old.wires[value - 1]
    product = work.producer(before)
    return (
        isinstance(product, PackedProduct)
        and product.activation == "none"
        and work.only_use(before)
        and isinstance(product, PackedConv) == packing.channels_first
        and all(t is None or t.shape[1] == product.width for t in (sign.scale, sign.shift))
    )
