"""Relaxations of binary training problems, with proved bounds."""

from varbnn.sdp.hinge import HingeSolution, binary_hinge
from varbnn.sdp.max_cut import Cut, max_cut
from varbnn.sdp.solution import Solution
from varbnn.sdp.solve import binary_least_squares, certify, quadratic

__all__ = [
    "Cut",
    "HingeSolution",
    "Solution",
    "binary_hinge",
    "binary_least_squares",
    "certify",
    "max_cut",
    "quadratic",
]
