"""The concrete pull-back of Meng, Bachmann, Khan 2020 (arXiv 2002.10778), in the paper and in its code."""

from __future__ import annotations

import numpy as np


def log_sech2(x: np.ndarray) -> np.ndarray:
    return 2 * np.log(2) - 2 * np.logaddexp(x, -x)


def relaxed(natural: np.ndarray, noise: np.ndarray, relaxation: float) -> tuple[np.ndarray, np.ndarray]:
    """Section 3.2: the relaxed weight, and (1 - w²) / (T (1 - tanh² λ)) for the pull-back."""
    inner = (natural + 0.5 * (np.log(noise) - np.log1p(-noise))) / relaxation
    return np.tanh(inner), np.exp(log_sech2(inner) - log_sech2(natural) - np.log(relaxation))


def factor_moment(natural: float, relaxation: float, power: int) -> float:
    """E_u[factor^power], integrated over δ = ½ log(u / (1 - u)), whose density is ½ sech² δ."""
    inner = np.linspace(-40.0, 40.0, 400_001)  # (λ + δ) / T, where the factor lives
    log_factor = log_sech2(inner) - log_sech2(natural) - np.log(relaxation)
    density = 0.5 * np.exp(log_sech2(relaxation * inner - natural)) * relaxation
    return float(np.sum(np.exp(power * log_factor) * density) * (inner[1] - inner[0]))


def published_run(
    natural: np.ndarray, noise: np.ndarray, gradient, *, relaxation: float, dataset_size: float, lr: float, dtype: type
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The published optimizer without momentum, prior λ₀ = 0: every λ, every factor and the mean it ends with.

    `noise` has one row per step; `gradient` is that of the mean loss at the relaxed weight. As in the code the mean is
    stored from λ before the update, and e = 1e-10 guards both halves of the factor.
    """
    e, relaxation, lr, size = dtype(1e-10), dtype(relaxation), dtype(lr), dtype(dataset_size)
    natural = natural.astype(dtype)
    mean, naturals, factors = np.tanh(natural), [], []
    for u in noise.astype(dtype):
        delta = np.log(u / (1 - u)) / dtype(2)
        w = np.tanh((natural + delta) / relaxation)
        s = (1 - w * w + e) / relaxation / (1 - mean * mean + e)
        total = size * s * gradient(w) + natural
        mean, natural = np.tanh(natural), natural - lr * total
        naturals.append(natural)
        factors.append(s)
    return np.array(naturals), np.array(factors), mean


def published_mode(mean: np.ndarray) -> np.ndarray:
    return np.where(mean > 0, 1.0, -1.0)


def mean_slope(natural: np.ndarray) -> np.ndarray:
    """E[1 - w²] at T = 1, the derivative of E[w] = coth λ - λ / sinh² λ; λ may not be 0, where it tends to 2/3."""
    return 2 * (natural / np.tanh(natural) - 1) / np.sinh(natural) ** 2
