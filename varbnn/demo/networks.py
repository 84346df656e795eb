"""The networks of the demo, of `varbnn train` and of the benchmarks."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from torch import nn

import varbnn as vb
from varbnn.data import Dataset
from varbnn.errors import InputError
from varbnn.posteriors import Posterior

Layers = OrderedDict[str, nn.Module]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "sign": vb.nn.Sign}
"""With signs between the layers all of a network but its inputs is ±1, and packed products count bits."""


def network(
    data: Dataset,
    widths: Iterable[int],
    posterior: Posterior | None,
    dropout: float = 0.0,
    hidden_dropout: float = 0.0,
    channels: Sequence[int] = (),
    activation: str = "relu",
) -> nn.Module:
    """A binary network for flat inputs: weights, batch norm, activation, and a head whose batch norm has a scale.

    Args:
        data: whose inputs it takes and whose classes it tells apart.
        widths: of the fully connected hidden layers.
        posterior: over every weight; without one they stay real: the float twin.
        dropout: share of the inputs set to zero in training.
        hidden_dropout: that of the hidden units.
        channels: of 3×3 convolutions in front of the fully connected layers, each with a 2×2 max pooling, which comes
            before the batch norm where the activations are signs: the largest of four signs is nearly always +1.
        activation: of `ACTIVATIONS`, after every batch norm but the head's.

    Raises:
        InputError: convolutions for inputs that are no images, more poolings than the images have pixels for, or an
            unknown activation.

    >>> from varbnn.data import load
    >>> list(dict(network(load("moons"), (8,), vb.posteriors.Point()).named_parameters()))
    ['hidden1.latent', 'norm1.weight', 'norm1.bias', 'head.latent', 'norm.weight', 'norm.bias']
    """
    if activation not in ACTIVATIONS:
        raise InputError(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")
    layers: Layers = OrderedDict()
    inputs = data.train_x.shape[1]
    if dropout:
        layers["dropout0"] = nn.Dropout(dropout)
    if channels:
        before, *sides = image_shape(data, len(channels))
        layers["image"] = nn.Unflatten(1, (before, *sides))
        layers |= _convolutions([before, *channels], hidden_dropout, activation)
        inputs = channels[-1] * math.prod(side >> len(channels) for side in sides)
    for number, outputs in enumerate(widths, 1):
        layers[f"hidden{number}"] = nn.Linear(inputs, outputs, bias=False)  # the batch norm's shift is bias enough
        layers[f"norm{number}"] = nn.BatchNorm1d(outputs)
        layers[f"{activation}{number}"] = ACTIVATIONS[activation]()
        if hidden_dropout:
            layers[f"dropout{number}"] = nn.Dropout(hidden_dropout)
        inputs = outputs
    layers["head"] = nn.Linear(inputs, data.num_classes, bias=False)
    layers["norm"] = nn.BatchNorm1d(data.num_classes)  # without a learned scale the network could never be sure
    model = nn.Sequential(layers)
    return model if posterior is None else vb.binarize(model, posterior)


def _convolutions(channels: Sequence[int], dropout: float, activation: str) -> Layers:
    layers: Layers = OrderedDict()
    for number, (before, after) in enumerate(pairwise(channels), 1):
        layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
        rest = {"norm": nn.BatchNorm2d(after), activation: ACTIVATIONS[activation](), "pool": nn.MaxPool2d(2)}
        for name in ("pool", "norm", "sign") if activation == "sign" else rest:
            layers[f"conv{number}_{name}"] = rest[name]
        if dropout:
            layers[f"conv{number}_dropout"] = nn.Dropout(dropout)
    layers["flat"] = nn.Flatten()
    return layers


def layers_of(data: Dataset, widths: Iterable[int], channels: Sequence[int] = ()) -> str:
    """For people: 784-400-10, or 28×28, 3×3 convolutions 16-32, 128-10.

    >>> from varbnn.data import load
    >>> layers_of(load("digits"), (128,), channels=(16, 32))
    '8×8, 3×3 convolutions 16-32, 128-10'
    """
    dense = "-".join(map(str, [*widths, data.num_classes]))
    if not channels:
        return f"{data.train_x.shape[1]}-{dense}"
    return f"{'×'.join(map(str, data.shape))}, 3×3 convolutions {'-'.join(map(str, channels))}, {dense}"


def between(activation: str) -> str:
    """For people: what is ±1.

    >>> between("sign")
    'every weight and activation ±1, with batch norm'
    """
    return f"every weight{' and activation' if activation == 'sign' else ''} ±1, with batch norm"


def image_shape(data: Dataset, poolings: int = 0) -> tuple[int, int, int]:
    """Channels, height and width of the inputs.

    Raises:
        InputError: they are no images, their channels come last, or 2×2 `poolings` leave nothing of them.

    >>> from varbnn.data import load
    >>> image_shape(load("digits"), poolings=3)
    (1, 8, 8)
    """
    shape = (1, *data.shape) if len(data.shape) == 2 else data.shape
    given = f"an input of {data.name} is {'×'.join(map(str, data.shape))}"
    if len(shape) != 3:
        raise InputError(
            f"convolutions take images, N×H×W or N×3×H×W, but {given}; give images in that shape, or choose a network "
            "without channels"
        )
    if shape[2] in (1, 3) and shape[0] not in (1, 3):
        raise InputError(f"convolutions take channels first, N×H×W or N×3×H×W, but {given}: move its last axis")
    most = min(shape[1:]).bit_length() - 1
    if poolings > most:
        raise InputError(
            f"{poolings} convolutions, each with a 2×2 pooling, leave nothing: {given}, which is enough for {most}"
        )
    return shape
