"""What every data set looks like here, and the two steps that lead to it: set aside, standardise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import Values, as_tensor
from varbnn.data.units import Units
from varbnn.errors import InputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training, validation and test inputs with labels, and foreign ("out-of-distribution") inputs without.

    Inputs are float32 N×D, standardised as (x - mean) / std with statistics of the training inputs alone; labels are
    int64.

    Attributes:
        name: as given to `load`.
        train_x, train_y: what a model may learn from.
        val_x, val_y: set aside from the training data to choose settings by; None unless asked for.
        test_x, test_y: the published test split, or the one asked for, whatever the seed; moons are drawn by it.
        ood_x: inputs of another kind, standardised like the others; None where `note` says why.
        ood_name: what they are, for people.
        num_classes: labels are 0 … num_classes - 1.
        shape: of one input before flattening: (8, 8) or (28, 28) for grey images, (3, 32, 32) for colour, (2,) for
            points.
        mean, std: the statistics, float32, of your own files float64 unless they hold bytes: one number for grey
            images, one per feature for points; of colour images one per channel, repeated for each of its pixels. A
            feature that is constant in training has std 0, is 0 for every input, and comes back as that constant.
        note: why something is absent; empty if nothing is.
        value_range: lowest and highest value an image can have, in its own units; None for points.
        units: what the training inputs show of theirs, which others are compared with; None where nothing is compared.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    val_x: Tensor | None
    val_y: Tensor | None
    test_x: Tensor
    test_y: Tensor
    ood_x: Tensor | None
    ood_name: str
    num_classes: int
    shape: tuple[int, ...]
    mean: Tensor
    std: Tensor
    note: str = ""
    value_range: tuple[float, float] | None = None
    units: Units | None = None

    def undo(self, x: Values) -> Tensor:
        """Standardised inputs, N×D or N×shape, back in their own units (grey levels, coordinates), N×shape.

        Raises:
            InputError: inputs of another shape than the training data's.

        >>> from varbnn import data
        >>> moons = data.load("moons")
        >>> moons.undo(moons.test_x).shape
        torch.Size([1000, 2])
        """
        x = flat(x, "x", self.shape, self.name)
        return (x * self.std + self.mean).reshape(len(x), *self.shape)

    def standardise(self, images: Values) -> Tensor:
        """Inputs in their own units, N×shape or N×D, as the models know them: float32 N×D. The inverse of `undo`.

        This is how images of another source, or corrupted ones, become inputs.

        Raises:
            InputError: inputs of another shape than the training data's, images outside `value_range` or all in 0 … 1
                where that goes to 16 or 255, other units than those of the training data, inputs that do not come out
                finite.

        >>> from varbnn import data
        >>> moons = data.load("moons")
        >>> torch.allclose(moons.standardise(moons.undo(moons.test_x)), moons.test_x, atol=1e-6)
        True
        """
        x = flat(images, "images", self.shape, self.name)
        if self.value_range is not None and x.numel():
            _require_units(x, self.value_range, self.name, self.mean.dtype)
        where = f"these images for {self.name}"
        if self.units is not None and x.numel():
            self.units.require_same(x.detach().double().cpu().numpy(), where)
        return standardised(x, self.mean, self.std, where)

    def __repr__(self) -> str:
        validation = "" if self.val_x is None else f"{len(self.val_x)} validation, "
        foreign = "" if self.ood_x is None else f", {len(self.ood_x)} {self.ood_name}"
        counts = f"{len(self.train_x)} train, {validation}{len(self.test_x)} test{foreign}"
        return f"Dataset({self.name}: {counts}; {'×'.join(map(str, self.shape))} inputs, {self.num_classes} classes)"


def flat(inputs: Values, what: str, shape: tuple[int, ...], name: str) -> Tensor:
    """Inputs N×shape or N×D as N×D; a tensor keeps its gradient.

    Args:
        what: they are, and `name`: of the data set, for messages.

    Raises:
        InputError: inputs of another shape.

    >>> flat(torch.zeros(4, 8, 8), "images", (8, 8), "digits").shape
    torch.Size([4, 64])
    """
    tensor, size = inputs if isinstance(inputs, Tensor) else as_tensor(inputs, what), math.prod(shape)
    if tensor.ndim < 2 or tuple(tensor.shape[1:]) not in (shape, (size,)):
        own, given = ("×".join(map(str, sides)) or "a number" for sides in (shape, tensor.shape[1:]))
        raise InputError(f"{name} has inputs of {own}, got {given} for each; resize them, or take a set of this shape")
    return tensor.reshape(len(tensor), size)


def _require_units(x: Tensor, value_range: tuple[float, float], name: str, dtype: torch.dtype) -> None:
    """Raise InputError where images are not in the units of `name`; black ones pass."""
    low, high = value_range
    lowest, highest = (float(end) for end in x.detach().to(dtype).aminmax())
    slack = 1e-4 * (high - low)  # what standardising and undoing it leave behind in float32
    shares = x.is_floating_point() and slack < highest <= 1 < high
    if shares or lowest < low - slack or highest > high + slack:  # NaN is for those who standardise
        raise InputError(
            f"the images of {name} have values {low:g} … {high:g}, these have {lowest:g} … {highest:g}; "
            f"bring them to that range first{f', shares of 0 … 1 by {high:g}' if shares and lowest >= 0 else ''}"
        )


def standardised(x: Tensor, mean: Tensor, std: Tensor, where: str) -> Tensor:
    """Inputs in their own units, N×D, as (x - mean) / std in float32; 0 where std is 0.

    Raises:
        InputError: what comes out is not finite, or nothing but zeros because the deviation is infinite.

    >>> standardised(torch.tensor([[3.0, 5.0]]), torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0]), "x")
    tensor([[1., 0.]])
    """
    constant = std == 0
    result = ((x.to(mean.dtype) - mean) * ~constant / std.masked_fill(constant, 1)).float()
    if not bool(result.isfinite().all() & std.isfinite().all()):
        raise InputError(
            f"{where}: there are NaN or numbers too large, or too far from the training inputs, to be standardised; "
            "clean the data first, or train on larger units"
        )
    return result


@dataclass(frozen=True)
class Raw:
    """A data set in its own units, before anything is set aside: inputs N×D, labels N."""

    name: str
    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array
    ood_x: Array | None
    ood_name: str
    shape: tuple[int, ...]
    num_classes: int
    validation_share: float
    per_feature: bool = False
    per_channel: bool = False  # of bytes, channels first
    note: str = ""
    value_range: tuple[float, float] | None = None


def prepare(raw: Raw, validation: bool, seed: int) -> Dataset:
    """Set the validation part aside if asked for, then standardise everything by what is left to train on."""
    kept = np.ones(len(raw.train_x), dtype=bool)
    if validation:
        kept[set_aside(raw.train_y, raw.validation_share, seed)] = False
    axis = 0 if raw.per_feature else None
    train = raw.train_x[kept]
    if raw.per_channel:
        mean, std = channel_statistics(train, raw.shape[0])
    else:
        mean, std = train.mean(axis, dtype=np.float64), train.std(axis, dtype=np.float64)
    if not np.all(std > 0):
        raise InputError(
            f"{raw.name}: the training inputs are constant, so they cannot be standardised; check the files"
        )

    def inputs(x: Array) -> Tensor:
        result = torch.from_numpy(x.astype(np.float32))  # a copy, so in place from here: MNIST alone is 220 MB
        return result.sub_(torch.as_tensor(mean, dtype=torch.float32)).div_(torch.as_tensor(std, dtype=torch.float32))

    def labels(y: Array) -> Tensor:
        return torch.from_numpy(y.astype(np.int64))

    return Dataset(
        name=raw.name,
        train_x=inputs(train),
        train_y=labels(raw.train_y[kept]),
        val_x=inputs(raw.train_x[~kept]) if validation else None,
        val_y=labels(raw.train_y[~kept]) if validation else None,
        test_x=inputs(raw.test_x),
        test_y=labels(raw.test_y),
        ood_x=None if raw.ood_x is None else inputs(raw.ood_x),
        ood_name=raw.ood_name,
        num_classes=raw.num_classes,
        shape=raw.shape,
        mean=torch.as_tensor(mean, dtype=torch.float32),
        std=torch.as_tensor(std, dtype=torch.float32),
        note=raw.note,
        value_range=raw.value_range,
        units=Units.of(train, images=not raw.per_feature),
    )


def channel_statistics(images: Array, channels: int) -> tuple[Array, Array]:
    """Mean and standard deviation of every channel of bytes, N×(channels·pixels), each repeated for its pixels.

    Bytes are counted, so the sums are exact and no copy in floating point is made.

    >>> channel_statistics(np.array([[0, 2, 5, 5], [2, 0, 5, 7]], dtype=np.uint8), 2)[0].tolist()
    [1.0, 1.0, 5.5, 5.5]
    """
    counts = np.zeros((channels, 256))
    for rows in np.array_split(images.reshape(len(images), channels, -1), max(1, len(images) // 1000)):
        counts += [np.bincount(rows[:, channel].ravel(), minlength=256) for channel in range(channels)]
    shares, levels = counts / counts.sum(1, keepdims=True), np.arange(256.0)
    mean = shares @ levels
    std = np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(1))
    pixels = images.shape[1] // channels
    return mean.repeat(pixels), std.repeat(pixels)


def set_aside(labels: Array, share: float, seed: int) -> Array:
    """Indices of a random `share` of every class, sorted.

    >>> labels = np.array([0] * 10 + [1] * 5)
    >>> labels[set_aside(labels, 0.2, seed=0)].tolist()
    [0, 0, 1]
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen.append(generator.permutation(members)[: round(share * len(members))])
    return np.sort(np.concatenate(chosen))
