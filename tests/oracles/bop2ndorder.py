"""Bop2ndOrder: Suarez-Ramirez et al. 2021, biased; "released" as in the published code; "adam" as Kingma & Ba 2015."""

import numpy as np

SETTINGS = [
    dict(gamma=0.1, sigma=0.02, threshold=0.05),
    dict(gamma=0.2, sigma=0.1, threshold=0.5, bias_correction="released", ties="larq", maximize=True),
    dict(gamma=0.05, sigma=0.01, threshold=0.1, bias_correction="adam", lr=0.5),
]
CHANGES = {
    50: dict(threshold=0.01),
    90: dict(gamma=0.05, lr=0.25),
    120: dict(sigma=0.3),
    150: dict(lr=0.0),
    152: dict(lr=0.5),
}


def step(weight, gradient, state, *, lr, gamma, sigma, threshold, bias_correction, ties, maximize):
    g, gamma, w = -gradient if maximize else gradient, lr * gamma, np.where(weight >= 0, 1.0, -1.0)
    state["exp_avg"] = m = (1 - gamma) * state.get("exp_avg", 0.0) + gamma * g
    state["exp_avg_sq"] = v = (1 - sigma) * state.get("exp_avg_sq", 0.0) + sigma * g**2
    if bias_correction == "released":
        m, v = m / gamma if gamma > 0 else m, v / sigma
    if bias_correction == "adam":  # 1 - (1 - gamma)^t, and under schedules 1 - product of (1 - gamma)
        state["left"] = state.get("left", np.ones(2)) * (1 - np.array([gamma, sigma]))
        state["weight"], state["weight_sq"] = 1 - state["left"]
        m, v = m / state["weight"], v / state["weight_sq"]
    z = m / (np.sqrt(v) + 1e-10)
    decided = -np.sign(w * z - threshold) * w
    return np.where(decided == 0, w if ties == "keep" else 1.0, decided)
