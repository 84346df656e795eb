"""Signs on CUDA devices: drawn from beliefs, and taken from activations."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.bits import BLOCK, blocks, words
from varbnn.kernels.cuda import plan
from varbnn.kernels.cuda.arguments import Sampling, Signs, address
from varbnn.kernels.cuda.launch import gpu


def sample_blocks(natural: Tensor, seed: Tensor, layer: int, first: int, count: int) -> Tensor:
    """Samples `first` to `first + count` of ±1 weights (N, K), as blocks; the sign of a NaN belief is unspecified."""
    outputs, inputs = natural.shape
    out = natural.new_empty((count, blocks(outputs), words(inputs), BLOCK), dtype=torch.int32)
    if out.numel() > 0:
        device = gpu(natural.device)
        launch, chunk = plan.sampling(device.chip, outputs, inputs, count)
        device.run(launch, _sampling(natural, seed, out, count, chunk, layer, first))
    return out


def draw(natural: Tensor, seed: Tensor, layer: int, sample: int) -> Tensor:
    """One sample as ±1 floats (N, K); a NaN belief draws NaN."""
    out = torch.empty_like(natural, memory_format=torch.contiguous_format)
    if out.numel() > 0:
        launch = plan.drawing(*natural.shape)
        gpu(natural.device).run(launch, _sampling(natural, seed, out, 1, 1, layer, sample))
    return out


def _sampling(natural: Tensor, seed: Tensor, out: Tensor, samples: int, chunk: int, layer: int, first: int) -> Sampling:
    outputs, inputs = natural.shape
    return Sampling(
        natural=address(natural),
        seed=address(seed),
        out=address(out),
        outputs=outputs,
        inputs=inputs,
        samples=samples,
        chunk=chunk,
        layer=layer,
        first=first,
    )


def pack_signs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Signs of the last dimension packed to words (+1 where ≥ 0; NaN gives -1), and how many of each row are +1."""
    rows, length = values.shape[:-1], values.shape[-1]
    packed = values.new_empty((*rows, words(length)), dtype=torch.int32)
    counts = values.new_empty(rows, dtype=torch.int32)
    if counts.numel() > 0:
        arguments = Signs(
            values=address(values),
            words=address(packed),
            counts=address(counts),
            rows=counts.numel(),
            length=length,
        )
        gpu(values.device).run(plan.each("pack_signs", counts.numel(), 8), arguments)
    return packed, counts
