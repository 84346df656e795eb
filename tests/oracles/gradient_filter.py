"""The gradient filter: Quist, Li, van Gemert 2023, two averages in cascade; only alpha decays with lr."""

import numpy as np

SETTINGS = [
    dict(alpha=0.02, gamma=0.2),
    dict(alpha=0.3, gamma=1.0, lr=0.5, maximize=True),
    dict(alpha=1.0, gamma=0.1),
]
CHANGES = {50: dict(alpha=0.1), 90: dict(lr=0.25), 120: dict(gamma=0.5)}


def step(weight, gradient, state, *, lr, alpha, gamma, maximize):
    w = np.where(weight >= 0, 1.0, -1.0)
    g = -gradient if maximize else gradient
    state["fast"] = b = (1 - gamma) * state.get("fast", 0.0) + gamma * g
    state["slow"] = m = (1 - lr * alpha) * state.get("slow", 0.0) + lr * alpha * b
    return np.where(w * m > 0, -w, w)
