"""Relaxations of binary training problems, with proved bounds."""

from varbnn.sdp.solution import Solution
from varbnn.sdp.solve import binary_least_squares, certify, quadratic

__all__ = ["Solution", "binary_least_squares", "certify", "quadratic"]
