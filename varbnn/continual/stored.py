"""A posterior in a few bits per weight: to keep, to save, and to go on from as a prior."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from varbnn import saving
from varbnn.checks import whole_number
from varbnn.errors import CheckpointError, InputError
from varbnn.nn.draws import binary_layers
from varbnn.posteriors import belief_of

Grid = Literal["natural", "mean"]
KEYS = {"bits", "grid", "shapes", "scales", "codes"}
SURE = 1 - 2.0**-24  # |mean| at most, where the natural parameter is still finite in float32


@dataclass(frozen=True, eq=False, repr=False)
class StoredPosterior:
    """Natural parameters of the binary weights of a model, rounded to so many bits each.

    Made by `store`. One step per tensor: the largest value is kept exactly (in the mean, |λ| up to 8.66), everything
    between in equal steps, and 0, a fair coin, exactly. With one bit only the sign is kept, at the mean size of the
    tensor.

    Attributes:
        bits: per weight.
        grid: in what the steps are equal: ``"natural"`` λ, or ``"mean"`` tanh λ.
        shapes: of the beliefs, in the order of the model's parameters.
        scales: the largest size of each.
        codes: uint8, `bits` per weight, one after the other.
    """

    bits: int
    grid: Grid
    shapes: tuple[tuple[int, ...], ...]
    scales: tuple[float, ...]
    codes: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Size of codes and scales."""
        return sum(code.numel() + 8 for code in self.codes)

    def beliefs(self) -> list[Tensor]:
        """The natural parameters, float32, in the order of the model's parameters: a ``prior=`` for an optimizer."""
        found = []
        for shape, scale, code in zip(self.shapes, self.scales, self.codes, strict=True):
            count = int(np.prod(shape))
            levels = _unpacked(code, self.bits, count).reshape(shape)
            value = (levels / _top(self.bits)) * scale
            found.append((value if self.grid == "natural" else _natural(value)).float())
        return found

    def load_into(self, model: nn.Module) -> nn.Module:
        """Make these the beliefs of `model`; other parameters stay.

        Raises:
            CheckpointError: the model has other beliefs; it is unchanged then.
            InputError: it has none, or none of natural parameters.
        """
        own = _beliefs(model)
        shapes = tuple(tuple(parameter.shape) for parameter in own)
        if shapes != self.shapes:
            raise CheckpointError(f"the stored posterior is of weights {self.shapes}, the model's are {shapes}")
        with torch.no_grad():
            for parameter, value in zip(own, self.beliefs(), strict=True):
                parameter.copy_(value)
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, in one piece.

        Raises:
            CheckpointError: it cannot be written.
        """
        state = {"bits": self.bits, "grid": self.grid, "scales": list(self.scales), "codes": list(self.codes)}
        saving.save(Path(path), {**state, "shapes": [list(shape) for shape in self.shapes]})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StoredPosterior:
        """Read what `save` wrote.

        Raises:
            CheckpointError: it cannot be read, or is something else.
        """
        state = saving.read(Path(path), "varbnn.continual.StoredPosterior", KEYS)
        shapes = tuple(tuple(shape) for shape in state["shapes"])
        bits, codes = state["bits"], tuple(state["codes"])
        fits = len(shapes) == len(codes) == len(state["scales"]) and state["grid"] in get_args(Grid)
        if not fits or any(_size(s, bits) != c.numel() for s, c in zip(shapes, codes, strict=True)):
            raise CheckpointError(f"{path} holds codes that do not fit its shapes; save it again")
        return cls(bits, state["grid"], shapes, tuple(state["scales"]), codes)

    def __repr__(self) -> str:
        weights = sum(int(np.prod(shape)) for shape in self.shapes)
        return f"StoredPosterior({weights} weights, {self.bits} bits each, {self.nbytes:,} bytes)"


def store(model: nn.Module, bits: int = 8, grid: Grid = "mean") -> StoredPosterior:
    """The beliefs of `model` in `bits` bits per weight.

    Args:
        model: binary, with `varbnn.posteriors.Bernoulli` posteriors.
        bits: 1 … 16.
        grid: equal steps in the mean, or in λ. A few very sure weights make steps in λ too wide for all others, so the
            mean loses less (docs/continual-split.md); λ keeps the very sure ones apart.

    Raises:
        InputError: an argument out of range, a model without beliefs or with other ones than natural parameters.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Linear(100, 10))
    >>> kept = store(model, bits=8)
    >>> kept
    StoredPosterior(1000 weights, 8 bits each, 1,008 bytes)
    >>> optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.01, dataset_size=60, prior=kept.beliefs())
    """
    bits = whole_number("bits", bits, most=16)
    if grid not in get_args(Grid):
        raise InputError(f"grid must be 'natural' or 'mean', got {grid!r}")
    own = _beliefs(model)
    scales, codes = [], []
    for belief in own:
        value = belief.detach().double().cpu()
        if not bool(value.isfinite().all()):
            raise InputError("a belief has NaN or infinite entries; look at varbnn.health(model)")
        if grid == "mean":
            value = value.tanh().clamp(-SURE, SURE)
        sizes = value.abs() if value.numel() else torch.zeros(1)
        scale = float(sizes.mean() if bits == 1 else sizes.max())
        top, step = _top(bits), (scale or 1.0) / _top(bits)
        levels = torch.where(value >= 0, 1.0, -1.0) if bits == 1 else (value / step).round().clamp(-top, top)
        scales.append(scale)
        codes.append(_packed(levels, bits))
    return StoredPosterior(bits, grid, tuple(tuple(p.shape) for p in own), tuple(scales), tuple(codes))


def _beliefs(model: nn.Module) -> list[Tensor]:
    found: list[Tensor] = [p for p in model.parameters() if belief_of(p) is not None]
    if not found:
        raise InputError(f"{type(model).__name__} holds no belief to store; call varbnn.binarize first")
    other = {
        type(layer.posterior).__name__ for _, layer in binary_layers(model) if layer.posterior.names != ("natural",)
    }
    if other:
        raise InputError(f"only natural parameters can be stored, as Bernoulli has them; the model has {sorted(other)}")
    return found


def _top(bits: int) -> int:
    """The largest level; there are as many below 0 as above."""
    return max(1, 2 ** (bits - 1) - 1)


def _natural(mean: Tensor) -> Tensor:
    return torch.atanh(mean.clamp(-SURE, SURE))


def _size(shape: tuple[int, ...], bits: int) -> int:
    return -(-int(np.prod(shape)) * bits // 8)


def _packed(levels: Tensor, bits: int) -> Tensor:
    """`bits` bits of each level, the highest first."""
    offset = levels.reshape(-1).numpy().astype(np.int32) + _top(bits)
    if bits == 1:
        offset = offset // 2  # -1 and 1
    columns = np.arange(bits - 1, -1, -1, dtype=np.int32)
    return torch.from_numpy(np.packbits(((offset[:, None] >> columns) & 1).astype(np.uint8).reshape(-1)))


def _unpacked(codes: Tensor, bits: int, count: int) -> Tensor:
    """The levels again, float64."""
    columns = np.unpackbits(codes.numpy())[: count * bits].reshape(count, bits)
    offset = columns.astype(np.int32) @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int32))
    return torch.from_numpy((2 * offset if bits == 1 else offset) - _top(bits)).double()
