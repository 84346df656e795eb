"""Natural-gradient steps and a leak, as in the docstring of the rule; the plain one is eq. 8 of Meng et al. 2020."""

import numpy as np

SETTINGS = [
    dict(lr=0.05, window=900, batch_size=10),
    dict(lr=0.03, window=150, batch_size=5, decay="plain", prior=-0.3),
    dict(lr=0.1, window=40, batch_size=4, decay="variance", prior=0.2, maximize=True),
]
CHANGES = {50: dict(lr=0.02, window=300), 90: dict(batch_size=20, prior=0.1), 120: dict(lr=0.01)}


def step(natural, gradient, state, *, lr, window, batch_size, decay, prior, maximize):
    weight = {"plain": 1.0, "variance": 1 - np.tanh(natural) ** 2}[decay]
    leak = batch_size / window * weight * (natural - prior)
    return natural - lr * batch_size * (-gradient if maximize else gradient) - leak
