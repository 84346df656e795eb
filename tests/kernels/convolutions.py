"""Random convolutions small enough for exact arithmetic, and their value by float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from varbnn.bits import pack, pack_blocks, unpack

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Case:
    samples: int
    shares_input: bool
    batch: int
    channels: int
    outputs: int
    space: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    activation: str = "none"
    seed: int = 0

    def weights(self) -> Tensor:
        """±1, (S, O, C / groups, *kernel)."""
        shape = (self.samples, self.outputs, self.channels // self.groups, *self.kernel)
        return torch.randint(0, 2, shape, generator=self.random(1)).float() * 2 - 1

    def integers(self) -> Tensor:
        """Whole numbers from -8 to 8, whose sums float32 holds exactly in any order; channels last."""
        return torch.randint(-8, 9, self.input_shape(), generator=self.random(2)).float()

    def reals(self) -> Tensor:
        return torch.randn(self.input_shape(), generator=self.random(2))

    def signs(self) -> Tensor:
        """Packed signs of the channels."""
        return pack(torch.randint(0, 2, self.input_shape(), generator=self.random(2)).float() * 2 - 1)

    def scale(self) -> Tensor:
        return torch.randint(-3, 4, (self.samples, self.outputs), generator=self.random(3)).float()

    def shift(self) -> Tensor:
        return torch.randint(-3, 4, (1, self.outputs), generator=self.random(4)).float()

    def input_shape(self) -> tuple[int, ...]:
        return (1 if self.shares_input else self.samples, self.batch, *self.space, self.channels)

    def options(self) -> tuple[object, ...]:
        """The arguments of `conv` between the weights and the scale."""
        parts = (self.kernel, self.stride, self.padding, self.dilation)
        return (self.channels, self.outputs, *map(list, parts), self.groups)

    def random(self, which: int) -> torch.Generator:
        return torch.Generator().manual_seed(10 * self.seed + which)


def packed_weights(weights: Tensor, groups: int) -> Tensor:
    """Blocks of ±1 weights (S, O, C / groups, *kernel), each group in blocks of its own."""
    rows = weights.movedim(2, -1).flatten(2).unflatten(1, (groups, -1))
    return pack_blocks(rows).flatten(1, 2)


def exact(
    case: Case, values: Tensor, weights: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """By torch in float64, channels last, before the activation."""
    if values.dtype == torch.int32:
        values = unpack(values, case.channels)
    results = []
    for s in range(case.samples):
        x = values[0 if case.shares_input else s].double().movedim(-1, 1)
        margins = [m for d in reversed(range(len(case.space))) for m in case.padding[2 * d : 2 * d + 2]]
        product = CONVOLUTIONS[len(case.space)](
            F.pad(x, margins), weights[s].double(), None, case.stride, 0, case.dilation, case.groups
        ).movedim(1, -1)
        product = product if scale is None else product * scale[s if len(scale) > 1 else 0].double()
        results.append(product if shift is None else product + shift[s if len(shift) > 1 else 0].double())
    return torch.stack(results)


def activated(values: Tensor, activation: str) -> Tensor:
    if activation == "sign":
        return pack(torch.where(values >= 0, 1.0, -1.0))
    return (values.clamp_min(0) if activation == "relu" else values).float()


CHANNELS = st.integers(1, 70)


@st.composite
def cases(draw: st.DrawFn, channels: st.SearchStrategy[int] = CHANNELS) -> Case:
    """Channels per group as given; the kernel fits into the padded input."""
    dims = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_dimension = st.tuples(
        st.integers(1, 11 if dims < 3 else 5), *[st.integers(1, 3)] * 3, st.integers(0, 3), st.integers(0, 3)
    )
    options = [draw(per_dimension) for _ in range(dims)]
    space, kernel, stride, dilation, before, after = zip(*options, strict=True)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    space = tuple(
        max(n, r - b - a) for n, r, b, a in zip(space, reach, before, after, strict=True)
    )  # at least one place
    return Case(
        samples=draw(st.integers(1, 3)),
        shares_input=draw(st.booleans()),
        batch=draw(st.integers(1, 3)),
        channels=groups * draw(channels),
        outputs=groups * draw(st.sampled_from([1, 3, 15, 16, 17, 40])),
        space=space,
        kernel=kernel,
        stride=stride,
        padding=tuple(margin for pair in zip(before, after, strict=True) for margin in pair),
        dilation=dilation,
        groups=groups,
        activation=draw(st.sampled_from(["none", "relu", "sign"])),
        seed=draw(st.integers(0, 1000)),
    )
