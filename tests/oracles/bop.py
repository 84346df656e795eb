"""Bop: Helwegen et al. 2019, algorithm 1; ties="larq" is the sign arithmetic of the released code."""

import numpy as np

SETTINGS = [
    dict(gamma=0.1, threshold=0.05),
    dict(gamma=0.25, threshold=0.0, ties="larq", maximize=True),
    dict(gamma=0.5, threshold=0.25, lr=0.5, ties="larq"),
]
CHANGES = {50: dict(threshold=0.125), 90: dict(gamma=0.05, lr=0.25), 120: dict(threshold=0.0)}


def step(weight, gradient, state, *, lr, gamma, threshold, ties, maximize):
    w = np.where(weight >= 0, 1.0, -1.0)
    m = state.get("exp_avg", 0.0)
    state["exp_avg"] = m = m + lr * gamma * ((-gradient if maximize else gradient) - m)
    if ties == "keep":
        return np.where(w * m > threshold, -w, w)
    decided = -np.sign(w * m - threshold) * w
    return np.where(decided == 0, 1.0, decided)
