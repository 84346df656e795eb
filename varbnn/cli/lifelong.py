"""The streams of `varbnn continual`, the networks for them, and how rates fall."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import varbnn as vb
from varbnn import continual
from varbnn.continual import Stream
from varbnn.continual.strategies import heads_of
from varbnn.data import Dataset
from varbnn.errors import InputError
from varbnn.posteriors import Posterior

USUAL_TASKS = 5

HEAD_SCALE = 3.0
"""Of outputs with a variance of 1, which could never be sure; a learned one would be one more thing to forget."""

FEW_OUTPUTS = 3
"""Of a layer; layer norm makes ±1 of two."""

CONSTANT = 0.2
"""Of what all inputs together come to. At .5 five permutations of digits keep 1.4 points less, .05 is not enough."""


def _permuted(data: Dataset, tasks: int | None, seed: int) -> Stream:
    return continual.permuted(data, tasks or USUAL_TASKS, seed)


def _rotated(data: Dataset, tasks: int | None, seed: int) -> Stream:
    return continual.rotated(data, tasks or USUAL_TASKS)


def _split(scenario: continual.streams.Scenario) -> Callable[[Dataset, int | None, int], Stream]:
    def made(data: Dataset, tasks: int | None, seed: int) -> Stream:
        count, classes = tasks or max(1, data.num_classes // 2), data.num_classes
        fewest = 1 if scenario == "class" else 2
        possible = [str(n) for n in range(1, classes // fewest + 1) if classes % n == 0]
        if tasks is None and classes % 2:
            raise InputError(
                f"the {classes} classes of {data.name} make no tasks of 2 each; give --tasks {' or '.join(possible)}"
            )
        if str(count) not in possible:
            raise InputError(
                f"argument --tasks: {count} tasks cannot share the {classes} classes of {data.name} evenly"
                f"{', with two or more in each' * (fewest - 1)}; give one of {', '.join(possible)}"
            )
        return continual.split(data, data.num_classes // count, scenario)

    return made


STREAMS: dict[str, Callable[[Dataset, int | None, int], Stream]] = {
    "permuted": _permuted,
    "rotated": _rotated,
    "split-task": _split("task"),
    "split-domain": _split("domain"),
    "split-class": _split("class"),
}
"""By name, (data, tasks, seed) → stream; split streams divide the classes among the tasks."""


def network(stream: Stream, widths: Sequence[int], posterior: Posterior | None, norm: str = "layer") -> nn.Module:
    """A binary multilayer perceptron in which every parameter has a belief: a real one knows no prior and is forgotten.

    Without a posterior it is the float twin, with a Gaussian over every weight. In front of layer norm the inputs get a
    constant beside them: units that answer to both tails, without biases, cannot tell x from -x. Batch norm would take
    it away again, and ReLU needs none. Where tasks have heads of their own their outputs go without layer norm, which
    would let every task move the heads of the others.

    Args:
        stream: to be learned.
        widths: of the hidden layers.
        posterior: over every weight.
        norm: ``"layer"`` with `varbnn.nn.Tails`, or ``"batch"`` with ReLU; neither has a scale or a shift.

    >>> import varbnn as vb
    >>> stream = continual.permuted(vb.data.load("digits"))
    >>> [name for name, p in network(stream, (8,), vb.posteriors.Point()).named_parameters() if p.requires_grad]
    ['1.latent', '4.latent']
    """
    layers: list[nn.Module] = []
    first, heads = stream.inputs, heads_of(stream[0], stream.outputs) is not None
    if norm == "layer":
        layers, first = [nn.ConstantPad1d((0, 1), CONSTANT * math.sqrt(first))], first + 1
    sizes = [first, *widths, stream.outputs]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs, bias=False)]
        if norm == "batch":
            layers += [nn.BatchNorm1d(outputs, affine=False), nn.ReLU()]
        elif outputs > FEW_OUTPUTS and not (heads and number == len(widths)):
            layers += [nn.LayerNorm(outputs, elementwise_affine=False), vb.nn.Tails()]
        else:  # of so few, layer norm leaves next to nothing; of all heads together, none is left alone
            layers += [vb.nn.Scale(outputs, inputs**-0.5).requires_grad_(False), vb.nn.Tails()]
    layers[-1] = vb.nn.Scale(stream.outputs, HEAD_SCALE).requires_grad_(False)
    model = nn.Sequential(*layers)
    return continual.mean_field(model) if posterior is None else vb.binarize(model, posterior)


def falling(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Rates fall along a cosine to 0; those of groups with a ``late`` above 0 rise first, until that share of the task.

    When a task begins its inputs are strange and the loss is high. What the layers above would learn from that is
    wrong, and would be lost to the earlier tasks.
    """

    def course(late: float) -> Callable[[int], float]:
        def factor(step: int) -> float:
            done = min(step / steps, 1.0)
            return (1 + math.cos(math.pi * done)) / 2 * (min(1.0, done / late) ** 2 if late else 1.0)

        return factor

    return LambdaLR(optimizer, [course(group.get("late", 0.0)) for group in optimizer.param_groups])
