"""VISPA: Orecchia et al. 2024, algorithm 1; "none" is what the released code computes. Row 0 is m, the others are Z."""

import numpy as np

NONE, UNIT = dict(rank=2, scale=4.0), dict(rank=3, scale=9.0, constraint="unit")
SETTINGS = [
    dict(lr=0.02, posterior=NONE),
    dict(lr=0.05, momentum=0.0, weight_decay=0.1, factor_lr_scale=0.5, posterior=NONE),
    dict(lr=0.03, momentum=0.8, dampening=0.8, weight_decay=0.2, maximize=True, posterior=NONE),
    dict(lr=0.02, posterior=UNIT),
    dict(lr=0.05, momentum=0.0, weight_decay=0.1, posterior=UNIT),
    dict(lr=0.1, momentum=0.8, dampening=0.8, weight_decay=0.1, factor_lr_scale=3.0, maximize=True, posterior=UNIT),
]
CHANGES = {50: dict(lr=0.01, weight_decay=0.05), 90: dict(momentum=0.5), 120: dict(factor_lr_scale=2.0)}


def step(
    belief, gradient, state, *, lr, momentum, dampening, weight_decay, factor_lr_scale, constraint, scale, maximize
):  # fmt: skip
    g = (-gradient if maximize else gradient) + weight_decay * belief
    if momentum or dampening or state:  # the velocity starts when momentum leaves 0
        state["momentum"] = g = momentum * state.get("momentum", 0.0) + (1 - dampening) * g
    m, z = belief[:1] - lr * g[:1], belief[1:] - factor_lr_scale * lr * g[1:]
    if constraint == "unit":
        size = np.sqrt(m**2 + (z**2).sum(0, keepdims=True) / scale)
        m, z = (part / np.where(size == 0, 1.0, size) for part in (m, z))
    return np.concatenate([m, z])
