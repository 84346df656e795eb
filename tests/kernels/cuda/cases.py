"""Sizes with tails in every direction, and how near a float32 sum must be; for the CPU and for a GPU alike."""

from __future__ import annotations

import torch

from tests.kernels.convolutions import Case
from varbnn import bits


def weights(samples, outputs, inputs):
    return bits.pack_blocks(bits.sign(torch.randn(samples, outputs, inputs)))


def signs(*shape):
    return bits.pack(bits.sign(torch.randn(*shape)))


def epilogues(samples, outputs):
    """Scale and shift: absent, shared, own."""
    return [
        (None, None),
        (torch.rand(1, outputs) + 0.5, torch.randn(samples, outputs)),
        (torch.rand(samples, outputs) - 0.5, None),
    ]


def assert_close(got, values, weight, inputs, outputs, scale, shift, activation, tolerance=1e-6):
    """Within `tolerance` of the root of the sum of squared terms: what float32 sums in a good order keep."""
    exact = []
    for s in range(len(weight)):
        x = values[s if len(values) > 1 else 0].double()
        exact.append(x @ bits.unpack_blocks(weight[s], outputs, inputs, torch.float64).T)
    expected = torch.stack(exact)
    size = values.double().square().sum(-1).sqrt().unsqueeze(-1)
    if scale is not None:
        expected, size = expected * scale.unsqueeze(1), size * scale.abs().unsqueeze(1)
    if shift is not None:
        expected, size = expected + shift.unsqueeze(1), size + shift.abs().unsqueeze(1)
    if activation == "relu":
        expected = expected.clamp_min(0)
    if activation == "sign":
        near = (expected.abs() < tolerance * size).double()
        agree = bits.unpack(got, outputs, torch.float64) == bits.sign(expected)
        assert bool((agree | (near > 0)).all())
        assert near.mean() < 0.01
        return
    error = ((got.double() - expected).abs() / size.clamp_min(1e-300)).max().item()
    assert error < tolerance, error


BITS = [  # samples, rows, outputs, inputs: tails of every tile
    (1, 1, 10, 40),
    (3, 1, 33, 784),
    (2, 3, 48, 513),
    (2, 7, 40, 600),
    (1, 8, 32, 512),
    (2, 19, 50, 1100),
    (1, 32, 64, 128),
    (1, 33, 130, 300),
    (2, 70, 160, 512),
]

REAL = [
    (1, 1, 10, 40),
    (3, 1, 300, 1100),
    (2, 2, 33, 784),
    (2, 2, 520, 130),
    (2, 5, 40, 300),
    (1, 16, 256, 64),
    (2, 19, 70, 257),
    (1, 33, 130, 95),
    (2, 70, 150, 200),
]

CONVOLUTIONS = [
    Case(1, True, 1, 3, 5, (6,), (3,), (1,), (1, 1), (1,), 1),
    Case(2, True, 2, 8, 40, (5, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "relu"),
    Case(2, False, 2, 40, 33, (7, 5), (3, 2), (2, 1), (0, 2, 1, 0), (1, 2), 1, "sign"),
    Case(1, True, 2, 64, 70, (4, 5), (2, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    Case(2, False, 1, 64, 64, (5, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2, "sign"),
    Case(2, True, 1, 96, 30, (4, 4), (2, 3), (1, 1), (1, 0, 1, 1), (1, 1), 3, "sign"),
    Case(1, False, 2, 32, 20, (3, 4, 3), (2, 2, 2), (1, 2, 1), (1, 1, 0, 1, 1, 0), (1, 1, 1), 1, "sign"),
    Case(1, True, 1, 128, 130, (9, 9), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    Case(2, True, 3, 4, 4, (5,), (2,), (1,), (3, 3), (3,), 4),
]

PACKED_CONVOLUTIONS = [case for case in CONVOLUTIONS if case.groups == 1 or case.channels // case.groups % 32 == 0]

PREDICTIONS = [(1, 1, 10, 40), (5, 1, 33, 600), (7, 2, 3, 1100), (4, 9, 10, 784), (2, 6, 40, 513)]
