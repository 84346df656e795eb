"""Independent ±1 coins by brute force: all 2^n sign vectors and their probabilities. Numpy only."""

from __future__ import annotations

import itertools
import math

import numpy as np


def sign_vectors(n: int) -> np.ndarray:
    """All of {-1, +1}^n, shape (2^n, n)."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=n)))


def probability_of_plus(natural: np.ndarray) -> np.ndarray:
    """sigmoid(2 λ), without overflow at either end."""
    natural = np.asarray(natural, dtype=np.float64)
    small = np.exp(-2 * np.abs(natural))
    return np.where(natural >= 0, 1, small) / (1 + small)


def probability_of_plus_of_a_latent(standardised: np.ndarray) -> np.ndarray:
    """P(z >= 0) of a normal z with mean / deviation = `standardised`: Φ, by the error function of the C library."""
    return np.vectorize(lambda a: math.erfc(-a / math.sqrt(2)) / 2, otypes=[np.float64])(standardised)


def probability_of_plus_of_a_gain(standardised: np.ndarray) -> np.ndarray:
    """P(|g| a + h >= 0) of independent standard normal g and h: an angle."""
    return 0.5 + np.arctan(standardised) / math.pi


def joint(plus: np.ndarray) -> np.ndarray:
    """Probability of every sign vector, shape (2^n,); `plus` is P(+1) of each coin."""
    return np.where(sign_vectors(len(plus)) > 0, plus, 1 - plus).prod(axis=1)


def mean(plus: np.ndarray) -> np.ndarray:
    return joint(plus) @ sign_vectors(len(plus))


def variance(plus: np.ndarray) -> np.ndarray:
    return joint(plus) @ (sign_vectors(len(plus)) - mean(plus)) ** 2


def log(values: np.ndarray) -> np.ndarray:
    """Natural logarithm with log 0 = -inf."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def entropy(plus: np.ndarray) -> float:
    """Of the joint law, in nats."""
    p = joint(plus)
    return -sum(p[p > 0] * np.log(p[p > 0]))


def kl(plus: np.ndarray, prior: np.ndarray) -> float:
    """Of the joint laws, in nats; inf where the prior excludes what is possible here."""
    p, q = joint(plus), joint(prior)
    return float(np.sum(p[p > 0] * (np.log(p[p > 0]) - log(q[p > 0]))))
