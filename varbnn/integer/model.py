"""The door to the rest of the library: the same network as layers of `varbnn.nn`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from varbnn.integer.network import IntegerNetwork, require_network
from varbnn.nn import BinaryLinear, Scale, Sign
from varbnn.posteriors import Bernoulli, Point

CERTAIN = 20.0
"""λ of a weight whose probability is 0 or 1: its mean is ±1 in float32."""


@torch.no_grad()
def as_model(network: IntegerNetwork) -> nn.Module:
    """`network` as a torch model of binary layers and signs, for `varbnn.predict`, `evaluate`, `pack` and the rest.

    Without spread its weights are points. With spread they have a `Bernoulli` belief with the probabilities of the
    counters, so that ``varbnn.predict(model, codes, num_samples=32)`` asks networks as `IntegerNetwork.sample` draws
    them; the mode is the same network either way.

    Returns:
        A model in eval mode that takes codes as float32. Its logits are the scores divided by a power of two (a
        quarter of the margin), exactly.

    Raises:
        InputError: another module.

    >>> network = IntegerNetwork([4, 8, 3])
    >>> codes = torch.tensor([[1, -1, 1, 1]], dtype=torch.int8)
    >>> torch.equal(as_model(network)(codes.float()), network(codes) * (4 / network.margin))
    True
    """
    require_network(network)
    layers: list[nn.Module] = []
    for counters in network.counters:
        outputs, inputs = counters.counter.shape
        posterior = Bernoulli() if network.spread else Point()
        threshold = counters.threshold
        options: dict[str, Any] = dict(bias=threshold is not None, posterior=posterior, dtype=torch.float32)
        layer = BinaryLinear(inputs, outputs, device="meta", **options)  # where a random start moves no generator
        layer.to_empty(device=counters.counter.device)
        layer.belief[0].copy_(_natural(counters.counter, network.spread) if network.spread else counters.mode())
        layers.append(layer)
        if threshold is not None:
            layer.bias.copy_(-threshold)
            layers.append(Sign())
    scale = Scale(network.widths[-1], initial=4 / network.margin)
    return nn.Sequential(*layers, scale.to(network.counters[0].counter.device)).eval()


def _natural(counter: Tensor, spread: int) -> Tensor:
    mean = (counter.double() / spread).clamp(-1, 1)
    return mean.atanh().clamp(-CERTAIN, CERTAIN)
