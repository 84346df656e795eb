"""Neural networks with ±1 weights that know how sure they are."""

from varbnn import bits, nn, optim, posteriors
from varbnn.nn import binarize, freeze, refresh_batchnorm, sampled

__all__ = ["binarize", "bits", "freeze", "nn", "optim", "posteriors", "refresh_batchnorm", "sampled"]
