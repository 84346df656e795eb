"""Metaplastic latents: Laborieux et al. 2021, algorithm 1, with Adam as in Kingma & Ba 2015."""

import numpy as np

SETTINGS = [
    dict(lr=0.02, metaplasticity=1.35),
    dict(lr=0.05, metaplasticity=3.0, betas=(0.8, 0.99), eps=1e-4, weight_decay=0.1, maximize=True),
]
CHANGES = {50: dict(lr=0.004, weight_decay=0.05), 90: dict(metaplasticity=0.5, betas=(0.7, 0.9))}


def step(latent, gradient, state, *, lr, metaplasticity, betas, eps, weight_decay, maximize):
    g = (-gradient if maximize else gradient) + weight_decay * latent
    state["weight"], state["weight_sq"] = c = 1 - np.array(betas) * (1 - np.array(state.get("weights", (0.0, 0.0))))
    state["weights"] = c  # 1 - beta^t while beta is constant
    state["exp_avg"] = m = betas[0] * state.get("exp_avg", 0.0) + (1 - betas[0]) * g
    state["exp_avg_sq"] = v = betas[1] * state.get("exp_avg_sq", 0.0) + (1 - betas[1]) * g**2
    factor = np.where(np.sign(latent) == np.sign(m), 1 - np.tanh(metaplasticity * latent) ** 2, 1.0)
    return latent - lr * factor * m / c[0] / (np.sqrt(v / c[1]) + eps)
