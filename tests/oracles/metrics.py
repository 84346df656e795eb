"""What predictions are measured by, written down slowly: one loop per definition, float64, nothing shared.

`probs` is N×C, `samples` S×N×C, `labels` N; entropies and NLL in nats.
"""

from __future__ import annotations

import math

import numpy as np

SMALLEST = float(np.finfo(np.float32).tiny)


def entropy(row) -> float:
    return -sum(float(p) * math.log(float(p)) for p in row if p > 0)


def total(samples) -> np.ndarray:
    """Entropy of the mean."""
    mean = np.asarray(samples, dtype=np.float64).mean(axis=0)
    return np.array([entropy(row) for row in mean])


def aleatoric(samples) -> np.ndarray:
    """Mean of the entropies."""
    return np.array([[entropy(row) for row in sample] for sample in samples]).mean(axis=0)


def mutual_information(samples) -> np.ndarray:
    """Mean divergence of each sample from the mean: not as a difference of entropies."""
    samples = np.asarray(samples, dtype=np.float64)
    result = np.zeros(samples.shape[1])
    for n in range(samples.shape[1]):
        mean = samples[:, n].mean(axis=0)
        for row in samples[:, n]:
            result[n] += sum(p * math.log(p / m) for p, m in zip(row, mean, strict=True) if p > 0) / len(samples)
    return result


def accuracy(probs, labels) -> float:
    return float(np.mean([int(np.argmax(row)) == label for row, label in zip(probs, labels, strict=True)]))


def negative_log_likelihood(probs, labels, floor=SMALLEST) -> float:
    return float(np.mean([-math.log(max(float(row[k]), floor)) for row, k in zip(probs, labels, strict=True)]))


def brier(probs, labels) -> float:
    scores = []
    for row, label in zip(probs, labels, strict=True):
        scores.append(sum((float(p) - (k == label)) ** 2 for k, p in enumerate(row)))
    return float(np.mean(scores))


def expected_calibration_error(probs, labels, bins=15) -> float:
    """Bin b of 1 … B is ((b-1)/B, b/B], compared in single precision."""
    probs = np.asarray(probs)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == np.asarray(labels)
    error = 0.0
    for b in range(1, bins + 1):
        low, high = np.float32((b - 1) / bins), np.float32(b / bins)
        inside = [i for i, c in enumerate(confidence) if low < np.float32(c) <= high]
        if inside:
            gap = np.mean([float(right[i]) for i in inside]) - np.mean([float(confidence[i]) for i in inside])
            error += len(inside) / len(confidence) * abs(gap)
    return float(error)


def auroc(familiar, foreign) -> float:
    """Share of pairs in which the foreign one scores higher; equal counts half."""
    wins = sum(1.0 if b > a else 0.5 if b == a else 0.0 for a in familiar for b in foreign)
    return wins / (len(familiar) * len(foreign))


def fpr95(familiar, foreign) -> float:
    """The lowest share of foreign inputs accepted by any threshold that accepts 95 % of the familiar ones."""
    thresholds = [t for t in familiar if 100 * sum(a <= t for a in familiar) >= 95 * len(familiar)]
    return min(sum(b <= t for b in foreign) / len(foreign) for t in thresholds)


def scaled(samples, temperature) -> np.ndarray:
    """p^(1/T), normalised; zeros as float32's smallest normal number."""
    logits = np.log(np.maximum(np.asarray(samples, dtype=np.float64), SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def gaussian_mixture_nll(means, variances, targets) -> float:
    """Mean of -log (1/S) Σ_s Π_d N(y_d; mean_sd, variance_sd)."""
    losses = []
    for n, target in enumerate(targets):
        density = 0.0
        for mean, variance in zip(means, variances, strict=True):
            factors = [
                math.exp(-((y - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
                for y, m, v in zip(np.ravel(target), np.ravel(mean[n]), np.ravel(variance[n]), strict=True)
            ]
            density += math.prod(factors) / len(means)
        losses.append(-math.log(density))
    return float(np.mean(losses))
