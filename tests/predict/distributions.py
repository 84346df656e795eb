"""Probabilities for the tests to try, degenerate ones included."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

SHARPNESS = (0.03, 0.3, 1.0, 10.0)  # of the Dirichlet: nearly one-hot to nearly uniform


def random_probs(*shape: int, seed: int = 0, sharpness: float = 0.5) -> np.ndarray:
    """Rows on the last axis sum to 1, in float64."""
    return np.random.default_rng(seed).dirichlet([sharpness] * shape[-1], size=shape[:-1])


@st.composite
def sample_arrays(draw, max_samples: int = 5, max_inputs: int = 6, max_classes: int = 5) -> np.ndarray:
    """S×N×C in float64: random rows, among them exact one-hot and uniform ones, ties and repeats."""
    shape = tuple(draw(st.integers(low, high)) for low, high in ((1, max_samples), (1, max_inputs), (2, max_classes)))
    probs = random_probs(*shape, seed=draw(st.integers(0, 2**31)), sharpness=draw(st.sampled_from(SHARPNESS)))
    rows = probs.reshape(-1, shape[2])
    for index in range(len(rows)):
        kind = draw(st.sampled_from(("random", "random", "one-hot", "uniform", "repeat")))
        if kind == "one-hot":
            rows[index] = np.eye(shape[2])[draw(st.integers(0, shape[2] - 1))]
        elif kind == "uniform":
            rows[index] = 1 / shape[2]
        elif kind == "repeat":
            rows[index] = rows[0]
    return probs


@st.composite
def labelled_probs(draw) -> tuple[np.ndarray, np.ndarray]:
    """N×C probabilities and N labels, some classes missing."""
    probs = draw(sample_arrays(max_samples=1, max_inputs=12))[0]
    labels = draw(st.lists(st.integers(0, probs.shape[1] - 1), min_size=len(probs), max_size=len(probs)))
    return probs, np.array(labels)
