"""Which packed layers share their input, and where shared rows meet rows of the networks' own."""

from __future__ import annotations

from torch import nn

from varbnn.errors import InputError
from varbnn.packed.call import Call, Constant
from varbnn.packed.norms import MeasuredNorm
from varbnn.packed.rewrite import Rewrite
from varbnn.packed.sizes import asks_size, fixed
from varbnn.packed.steps import Affine, PackedProduct, Spread
from varbnn.packed.trace import Plan


def spread(plan: Plan, num_samples: int) -> Plan:
    """Mark which packed layers share their input, and repeat shared rows where they meet rows of their own."""
    result = _spread(plan, num_samples, everywhere=False)
    return result if result is not None else _spread(plan, num_samples, everywhere=True) or plan


def _spread(plan: Plan, num_samples: int, everywhere: bool) -> Plan | None:
    """None where the size of a shared batch is used on rows of the networks' own: then all have to be their own."""
    work = Rewrite(plan)
    own, sizes, constants, follows = [False], [False], [False], [True]
    repeated = dict[int, int]()
    if everywhere:
        work.values[0] = work.new.add(Spread(num_samples), 0)
        own = [True]

    def repeat(value: int) -> int:
        new = work.values[value]
        if own[value] or sizes[value] or constants[value]:
            return new
        if new not in repeated:
            repeated[new] = work.new.add(Spread(num_samples), new)
        return repeated[new]

    for index, (step, wire) in enumerate(zip(plan.steps, plan.wires, strict=True)):
        per_network = isinstance(step, Affine) and step.per_network
        size = not per_network and _gives_size(step, [sizes[value] for value in wire])
        constant = _is_constant(plan, step, wire, constants)
        mine = not size and not constant and (per_network or any(own[value] for value in wire))
        if mine and num_samples > 1 and any(sizes[v] and not own[v] and not constants[v] for v in wire):
            return None
        follows.append(not constant and any(follows[value] for value in wire))
        if (per_network or isinstance(step, PackedProduct | MeasuredNorm)) and not follows[-1]:
            raise InputError(
                "a binary layer, or a batch norm of its own for each network, is applied to a tensor that does not "
                "come from the input; packed networks stand one after the other in the batch, and such rows have no "
                "place there. varbnn.predict runs any model"
            )
        if isinstance(step, PackedProduct | MeasuredNorm):
            step.shared = not own[wire[0]]
        product = isinstance(step, PackedProduct)
        if mine and not product:
            work.keep(index, step, *(repeat(value) for value in wire))
        else:
            work.keep(index, step)
        own.append(product or mine or (size and not constant and any(own[value] for value in wire)))
        sizes.append(size)
        constants.append(constant)
    if not own[plan.output]:  # the answer depends on no drawn weight
        work.values[plan.output] = repeat(plan.output)
    return work.done()


def _gives_size(step: nn.Module, inputs_are_sizes: list[bool]) -> bool:
    if isinstance(step, Call) and asks_size(step.target, step.args):
        return True
    made = not isinstance(step, PackedProduct | MeasuredNorm)
    return made and bool(inputs_are_sizes) and all(inputs_are_sizes)


def _is_constant(plan: Plan, step: nn.Module, wire: tuple[int, ...], constants: list[bool]) -> bool:
    """Whether its value is the same for every batch, and has no rows."""
    if not wire:
        return isinstance(step, Constant)
    before = plan.steps[wire[0] - 1] if wire[0] else None
    return all(constants[value] for value in wire) or (isinstance(step, Call) and fixed(step, before))
