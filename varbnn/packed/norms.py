"""One batch norm in the estimating mode, as a step of a packed program."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from varbnn.nn.batchnorm import Pool


class MeasuredNorm(nn.Module):
    """Batch norm in train mode: the rows of each network are normalised by their own mean and variance, and pooled.

    Args:
        norm: the layer of the model.
        num_samples: networks in the rows of an input that they do not share.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, norm: _BatchNorm, num_samples: int) -> None:
        super().__init__()
        self.eps, self.num_samples, self.shared = norm.eps, num_samples, False
        self.pool, self._on = Pool(), [False]  # of all uses of the layer: a copy has the same
        self.register_buffer("weight", None if norm.weight is None else norm.weight.detach().float())
        self.register_buffer("bias", None if norm.bias is None else norm.bias.detach().float())

    @property
    def measures(self) -> bool:
        """Off, it lets values pass as they are."""
        return self._on[0]

    @measures.setter
    def measures(self, on: bool) -> None:
        self._on[0] = on

    def forward(self, input: Tensor) -> Tensor:
        if not self.measures:
            return input
        input = input.float()
        networks = 1 if self.shared else self.num_samples
        means, variances = input.new_zeros(2, networks, input.shape[1])
        results = [
            # with momentum 1 the "running" statistics are those of these rows
            F.batch_norm(rows, means[s], variances[s], self.weight, self.bias, True, 1.0, self.eps)
            for s, rows in enumerate(input.unflatten(0, (networks, input.shape[0] // networks)))
        ]
        self.pool.add(input.numel() // networks // input.shape[1], means, variances)
        return results[0] if networks == 1 else torch.cat(results)
