"""Training without floating point in int64: the specification of docs/integer.md, line by line."""

import numpy as np

EIGHT_BITS = dict(bits=8, spread=0)
SETTINGS = [EIGHT_BITS, dict(bits=3, spread=0), dict(bits=4, spread=8), dict(bits=8, spread=16), dict(bits=5, spread=1)]


def power(number):
    return int(np.floor(np.log2(number) / 2 + 0.5))  # of the two that is closest to √number


def step(counters, thresholds, codes, labels, shift, *, bits, spread, uniform):
    """One step in place; `uniform` (low, high, shape) draws. Returns the scores and the largest of each kind."""
    weights = [np.where(h + (uniform(-spread, spread, h.shape) if spread else 0) >= 0, 1, -1) for h in counters]
    activations, sums = [codes], []
    for weight, threshold in zip(weights, [*thresholds, 0], strict=True):
        sums.append(activations[-1] @ weight.T - threshold)
        activations.append(np.where(sums[-1] >= 0, 1, -1))
    scores, error, largest = sums[-1], np.zeros_like(sums[-1]), dict(error=0, below=0, update=0)
    margin = 4 * 2 ** power(counters[-1].shape[1])
    for row, label in enumerate(labels):
        rival = np.argmax(np.where(np.arange(scores.shape[1]) == label, scores.min() - 1, scores[row]))
        if scores[row, rival] > scores[row, label] - margin:
            error[row, label], error[row, rival] = 4, -4
    for depth in range(len(counters) - 1, -1, -1):
        update = error.T @ activations[depth]
        largest["update"] = max(largest["update"], np.abs(update).max())
        update = (update + uniform(0, 2**shift, update.shape)) // 2**shift if shift else update
        if depth:
            below = error @ weights[depth]
            largest["below"] = max(largest["below"], np.abs(below).max() / weights[depth].shape[0])
            below[np.abs(sums[depth - 1]) > 2 ** power(counters[depth - 1].shape[1])] = 0
            down = power(2 if depth == len(counters) - 1 else counters[depth].shape[0])
            error = np.clip((below + uniform(0, 2**down, below.shape)) // 2**down, -7, 7)
            largest["error"] = max(largest["error"], np.abs(error).max())
        counters[depth][:] = np.clip(counters[depth] + update, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if depth < len(thresholds):
            thresholds[depth] += np.floor(sums[depth].mean(0) / 4).astype(np.int64)
    return scores, largest
