"""Posteriors over ±1 weights: how weights are drawn from a belief, and how gradients are pulled back onto it."""

from varbnn.posteriors.base import Belief, Posterior, belief_of, mark_belief, pull_back
from varbnn.posteriors.bernoulli import Bernoulli
from varbnn.posteriors.gaussian import Gaussian
from varbnn.posteriors.low_rank import LowRankGaussian
from varbnn.posteriors.point import Point
from varbnn.posteriors.prior import as_prior
from varbnn.posteriors.signed_bernoulli import SignedBernoulli

__all__ = [
    "Belief",
    "Bernoulli",
    "Gaussian",
    "LowRankGaussian",
    "Point",
    "Posterior",
    "SignedBernoulli",
    "as_prior",
    "belief_of",
    "mark_belief",
    "pull_back",
]
