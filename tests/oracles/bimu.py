"""BiMU: Cottart et al. 2026, as its code has it; there a batch is one example."""

import numpy as np

EUCLIDEAN = dict(estimator="concrete", relaxation=1.0, gradient="euclidean")
SETTINGS = [
    dict(posterior=EUCLIDEAN, lr=4.9, likelihood_multiplier=161.3, kl_multiplier=3.76, lr_max=0.0023, memory=700),
    dict(posterior=EUCLIDEAN, lr=0.5, likelihood_multiplier=2, kl_multiplier=1.5, lr_max=3, memory=90, batch_size=8),
    dict(posterior=EUCLIDEAN, lr=0.1, likelihood_multiplier=1, kl_multiplier=0.5, lr_max=90, memory=10, maximize=True),
]
CHANGES = {50: dict(lr=0.3, memory=200), 90: dict(kl_multiplier=0.2, lr_max=0.5), 120: dict(likelihood_multiplier=0.7)}


def step(
    natural, gradient, state, *, lr, likelihood_multiplier, kl_multiplier, lr_max, memory, batch_size, maximize
):  # fmt: skip
    g = likelihood_multiplier * batch_size * (-gradient if maximize else gradient)
    if not np.any(g):
        return natural
    mean = np.tanh(natural)
    s = kl_multiplier * (1 - mean**2)
    pace = 1 / (s + 2 * g * mean + 2 * np.abs(g) + 1 / lr_max)
    return natural - pace * (lr * g + s * natural / (memory / batch_size))
