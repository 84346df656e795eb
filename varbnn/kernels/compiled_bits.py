"""Drawing signs, and packing them, by the compiled CPU library: see `varbnn.kernels.plain` for what each does."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.bits import BLOCK, blocks, words
from varbnn.errors import InputError
from varbnn.kernels import native


def sample_blocks(natural: Tensor, seed: Tensor, layer: int, first: int, count: int) -> Tensor:
    """Samples `first` to `first + count` of ±1 weights (N, K), as blocks."""
    outputs, inputs = natural.shape
    drawn = natural.new_empty((count, blocks(outputs), words(inputs), BLOCK), dtype=torch.int32)
    status = native.library().varbnn_cpu_sample_blocks(
        native.pointer(natural),
        outputs,
        inputs,
        int(seed),
        layer,
        first,
        count,
        native.pointer(drawn),
        native.threads(),
    )
    if status == native.FOUND_NAN:
        raise InputError("beliefs hold NaN, which has no sign; look at varbnn.health(model)")
    native.check(status, "beliefs")
    return drawn


def draw(natural: Tensor, seed: Tensor, layer: int, sample: int) -> Tensor:
    """One sample as ±1 floats (N, K); a NaN belief draws NaN."""
    outputs, inputs = natural.shape
    drawn = natural.new_empty((outputs, inputs), dtype=torch.float32)  # what the kernel writes, whatever the default
    status = native.library().varbnn_cpu_draw(
        native.pointer(natural),
        outputs,
        inputs,
        int(seed),
        layer,
        sample,
        native.pointer(drawn),
        native.threads(),
    )
    native.check(status, "beliefs")
    return drawn


def relax(natural: Tensor, seed: Tensor, relaxation: float, euclidean: bool) -> tuple[Tensor, Tensor]:
    """Relaxed weights and the factors of their gradients, both shaped like `natural`."""
    weight, factor = (natural.new_empty(natural.shape, dtype=torch.float32) for _ in range(2))
    status = native.library().varbnn_cpu_relax(
        native.pointer(natural),
        natural.numel(),
        int(seed),
        relaxation,
        euclidean,
        native.pointer(weight),
        native.pointer(factor),
        native.threads(),
    )
    native.check(status, "beliefs")
    return weight, factor


def pack_signs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Signs of the last dimension packed to words (+1 where ≥ 0), and how many of each row are +1."""
    *rows, length = values.shape
    packed = values.new_empty((*rows, words(length)), dtype=torch.int32)
    counts = values.new_empty(rows, dtype=torch.int32)
    status = native.library().varbnn_cpu_pack_signs(
        native.pointer(values),
        counts.numel(),
        length,
        native.pointer(packed),
        native.pointer(counts),
        native.threads(),
    )
    native.check(status, "activations")
    return packed, counts
