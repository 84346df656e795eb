"""The last layer with its softmax on CUDA devices."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.kernels.cuda import plan
from varbnn.kernels.cuda.arguments import Average, Predictive, address, product
from varbnn.kernels.cuda.launch import Gpu, gpu
from varbnn.kernels.cuda.products import sample_stride


def predictive(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None,
    shift: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Class probabilities averaged over S networks (M, N), and the average entropy of each network's own (M), in nats.

    S×M×N is never held: logits of as many rows as are worked on, and sums over a part of the samples.
    """
    rows, samples = values.shape[1], weight.shape[0]
    device = gpu(values.device)
    launch = plan.predictive(device.chip, samples, rows)
    tiles, parts = launch.grid
    logits = weight.new_empty((tiles * parts, 4, out_features), dtype=torch.float32)
    means = weight.new_empty((parts, rows, out_features), dtype=torch.float32)
    entropy = weight.new_empty((parts, rows), dtype=torch.float32)
    arguments = Predictive(
        product=product(weight, in_features, out_features, 1, scale, shift, "none"),
        logits=address(logits),
        means=address(means),
        entropy=address(entropy),
        packed=values.dtype == torch.int32,
    )
    inner = arguments.product
    inner.values, inner.values_sample = address(values), sample_stride(values)
    inner.rows, inner.values_row = values.shape[1:]
    device.run(launch, arguments)
    return _average(device, means, samples), _average(device, entropy, samples)


def _average(device: Gpu, parts: Tensor, samples: int) -> Tensor:
    out = torch.empty_like(parts[0])
    arguments = Average(parts=address(parts), out=address(out), size=out.numel(), count=parts.shape[0], samples=samples)
    device.run(plan.each("average", out.numel(), 256), arguments)
    return out
