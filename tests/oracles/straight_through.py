"""Latent weights: Courbariaux et al. 2015, algorithm 1; Adam as in Kingma & Ba 2015, SGD with heavy-ball momentum."""

import numpy as np

SETTINGS = [
    dict(lr=0.02),
    dict(lr=0.05, betas=(0.8, 0.99), eps=1e-4, weight_decay=0.1, clip=None, maximize=True),
    dict(lr=0.03, base="sgd", weight_decay=0.2),
    dict(lr=0.03, base="sgd", momentum=0.8, dampening=0.8, weight_decay=0.2, decoupled_weight_decay=True, clip=None),
    dict(lr=0.02, weight_decay=0.1, decoupled_weight_decay=True),
    dict(lr=0.01, base="sgd", momentum=0.9, clip=0.5),
]
CHANGES = {50: dict(lr=0.004, weight_decay=0.05), 90: dict(momentum=0.5, betas=(0.7, 0.9)), 120: dict(clip=0.25)}


def step(
    latent, gradient, state, *, lr, base, betas, eps, momentum, dampening, weight_decay, decoupled_weight_decay, clip,
    maximize,
):  # fmt: skip
    g = -gradient if maximize else gradient
    if decoupled_weight_decay:
        latent = latent - lr * weight_decay * latent
    else:
        g = g + weight_decay * latent
    if base == "adam":
        state["weight"], state["weight_sq"] = c = 1 - np.array(betas) * (1 - np.array(state.get("weights", (0.0, 0.0))))
        state["weights"] = c  # 1 - beta^t while beta is constant
        state["exp_avg"] = m = betas[0] * state.get("exp_avg", 0.0) + (1 - betas[0]) * g
        state["exp_avg_sq"] = v = betas[1] * state.get("exp_avg_sq", 0.0) + (1 - betas[1]) * g**2
        direction = m / c[0] / (np.sqrt(v / c[1]) + eps)
    elif momentum == 0 and dampening == 0 and not state:
        direction = g  # the velocity starts when momentum leaves 0
    else:
        state["momentum"] = direction = momentum * state.get("momentum", 0.0) + (1 - dampening) * g
    latent = latent - lr * direction
    return latent if clip is None else np.clip(latent, -clip, clip)
