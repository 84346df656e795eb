"""Neural networks with ±1 weights that know how sure they are."""

from varbnn import bits, nn, optim, posteriors
from varbnn.nn import binarize, freeze, health, refresh_batchnorm, sampled, summary
from varbnn.training import fit

__all__ = [
    "binarize",
    "bits",
    "fit",
    "freeze",
    "health",
    "nn",
    "optim",
    "posteriors",
    "refresh_batchnorm",
    "sampled",
    "summary",
]
