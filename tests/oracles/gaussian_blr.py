"""GaussianBLR: the improved Bayesian learning rule of Lin, Schmidt, Khan 2020 for normal latents with given signs."""

import math

import numpy as np

FIXED, LEARNED, NATURAL = dict(form="fixed"), dict(form="learned"), dict(form="natural")
# where the curvature outweighs prior_precision for good, S shrinks and rounding errors grow past any tolerance
SETTINGS = [
    dict(lr=0.1, dataset_size=50, posterior=FIXED),
    dict(lr=0.05, dataset_size=7, temperature=0.25, prior_precision=2.0, prior=-0.3, maximize=True, posterior=FIXED),
    dict(lr=0.05, dataset_size=11, momentum=0.9, prior=0.2, posterior=FIXED),
    dict(lr=0.1, dataset_size=2, temperature=2.0, prior_precision=6.0, posterior=LEARNED),
    dict(lr=0.05, dataset_size=3, temperature=0.5, prior_precision=30.0, prior=-0.3, posterior=LEARNED),
    dict(lr=0.02, dataset_size=4, momentum=0.8, prior_precision=12.0, maximize=True, posterior=LEARNED),
    dict(lr=0.1, dataset_size=5, posterior=NATURAL),
    dict(lr=0.05, dataset_size=7, temperature=2.0, prior_precision=2.0, prior=-0.3, posterior=NATURAL),
    dict(lr=0.05, dataset_size=3, momentum=0.9, prior=0.2, maximize=True, posterior=NATURAL),
]
CHANGES = {50: dict(lr=0.03, temperature=1.5), 90: dict(momentum=0.0), 120: dict(momentum=0.5, prior=0.1)}


def step(
    belief, gradient, state, *, form, lr, dataset_size, temperature, prior_precision, momentum, prior, maximize
):  # fmt: skip
    g = dataset_size / temperature * (-gradient if maximize else gradient)
    if form == "natural":
        odds = np.log(normal_cdf(belief) / normal_cdf(-belief))
        there = prior * math.sqrt(prior_precision)
        window = 2 * normal_cdf(belief) * normal_cdf(-belief) / (np.exp(-(belief**2) / 2) / math.sqrt(2 * math.pi))
        g = g + window * (odds - np.log(normal_cdf(there) / normal_cdf(-there))) / 2
    else:
        pull = prior_precision * (belief - prior)
        g = g + (np.stack([pull[0], prior_precision - belief[1]]) if form == "learned" else pull)
    if momentum or state:
        state["weight"] = c = 1 - momentum * (1 - state.get("weight", 0.0))
        state["momentum"] = m = momentum * state.get("momentum", 0.0) + (1 - momentum) * g
        g = m / c
    if form != "learned":
        return belief - lr * g
    precision = belief[1] + lr * g[1] + (lr * g[1]) ** 2 / (2 * belief[1])
    return np.stack([belief[0] - lr * g[0] / precision, precision])


normal_cdf = np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2, otypes=[np.float64])
