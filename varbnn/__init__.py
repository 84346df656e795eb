"""Neural networks with ±1 weights that know how sure they are."""

from varbnn import bits, nn, posteriors
from varbnn.nn import binarize, freeze, refresh_batchnorm, sampled

__all__ = ["binarize", "bits", "freeze", "nn", "posteriors", "refresh_batchnorm", "sampled"]
