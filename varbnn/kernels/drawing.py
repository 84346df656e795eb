"""The operations that draw weights by a counter."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.bits import BLOCK, blocks, words
from varbnn.kernels import checks
from varbnn.kernels.backend import implementation
from varbnn.kernels.registry import register


def sample_blocks(natural: Tensor, seed: Tensor, layer: int, first: int, count: int) -> Tensor:
    """Draw samples of ±1 weights straight to bits, by a counter: any part reproduces on any device and thread count.

    Args:
        natural: λ, ``float32``, shape (N, K); P(+1) = sigmoid(2 λ), ±inf allowed.
        seed: ``int64``, one element, on the device of `natural`.
        layer: which stream of random numbers, 0 ≤ layer < 2^31.
        first, count: samples first … first + count - 1, below 2^32.

    Returns:
        ``int32`` blocks (`varbnn.bits.pack_blocks`), shape (count, ceil(N / 16), ceil(K / 32), 16).

    Raises:
        InputError: `natural` is not a float32 matrix or holds NaN (on the CPU), `seed` is no int64, a number is out of
            range.

    >>> from varbnn.bits import unpack_blocks
    >>> both = sample_blocks(torch.zeros(3, 40), torch.tensor(7), layer=0, first=0, count=2)
    >>> torch.equal(both[1:], sample_blocks(torch.zeros(3, 40), torch.tensor(7), layer=0, first=1, count=1))
    True
    """
    return torch.ops.varbnn.sample_blocks(natural, seed, layer, first, count)


def draw(natural: Tensor, seed: Tensor, layer: int = 0, sample: int = 0) -> Tensor:
    """The same sample as ±1 floats: ``unpack_blocks(sample_blocks(natural, seed, layer, sample, 1)[0], N, K)``.

    Args: those of `sample_blocks`; a NaN belief draws NaN.

    Returns:
        ``float32``, shape (N, K).

    >>> draw(torch.full((2, 3), 50.0), torch.tensor(7))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    return torch.ops.varbnn.draw(natural, seed, layer, sample)


def relax(natural: Tensor, seed: Tensor, relaxation: float, euclidean: bool = False) -> tuple[Tensor, Tensor]:
    """Relaxed weights with noise by a counter: `varbnn.kernels.reference.draw_relaxed`.

    Args:
        natural: λ, ``float32``, any shape.
        seed: ``int64``, one element, on the device of `natural`.
        relaxation: between 1e-30 and 10.
        euclidean: which gradient the factor is for.

    Returns:
        Weights in [-1, 1] and factors, ``float32``, shaped like `natural`; NaN where the belief is.

    Raises:
        InputError: `natural` is not float32, `seed` is no int64, `relaxation` is out of range.

    >>> weight, factor = relax(torch.full((3,), 50.0), torch.tensor(7), 0.5)
    >>> weight
    tensor([1., 1., 1.])
    """
    return torch.ops.varbnn.relax(natural, seed, relaxation, euclidean)


def _run_sample_blocks(natural: Tensor, seed: Tensor, layer: int, first: int, count: int) -> Tensor:
    checks.sampling(natural, seed, layer, first, count)
    if count == 0 or natural.numel() == 0:
        return _fake_sample_blocks(natural, seed, layer, first, count)  # no word to fill
    return implementation(natural.device).sample_blocks(natural.contiguous(), seed, layer, first, count)


def _run_draw(natural: Tensor, seed: Tensor, layer: int, sample: int) -> Tensor:
    checks.sampling(natural, seed, layer, sample, 1)
    if natural.numel() == 0:
        return _fake_draw(natural, seed, layer, sample)
    return implementation(natural.device).draw(natural.contiguous(), seed, layer, sample)


def _run_relax(natural: Tensor, seed: Tensor, relaxation: float, euclidean: bool) -> tuple[Tensor, Tensor]:
    checks.relaxing(natural, seed, relaxation)
    return implementation(natural.device).relax(natural.contiguous(), seed, relaxation, euclidean)


def _fake_sample_blocks(natural: Tensor, seed: Tensor, layer: int, first: int, count: int) -> Tensor:
    outputs, inputs = natural.shape
    return natural.new_empty((count, blocks(outputs), words(inputs), BLOCK), dtype=torch.int32)


def _fake_draw(natural: Tensor, seed: Tensor, layer: int, sample: int) -> Tensor:
    return torch.empty_like(natural, memory_format=torch.contiguous_format)


def _fake_relax(natural: Tensor, seed: Tensor, relaxation: float, euclidean: bool) -> tuple[Tensor, Tensor]:
    shaped = _fake_draw(natural, seed, 0, 0)
    return shaped, torch.empty_like(shaped)


register(
    "sample_blocks",
    "(Tensor natural, Tensor seed, int layer, int first, int count) -> Tensor",
    _run_sample_blocks,
    _fake_sample_blocks,
)
register("draw", "(Tensor natural, Tensor seed, int layer, int sample) -> Tensor", _run_draw, _fake_draw)
register(
    "relax",
    "(Tensor natural, Tensor seed, float relaxation, bool euclidean) -> (Tensor, Tensor)",
    _run_relax,
    _fake_relax,
)
