"""Relaxations of binary training problems, with proved bounds."""

from varbnn.sdp.batch import SolutionBatch, least_squares_batch
from varbnn.sdp.hinge import HingeSolution, binary_hinge
from varbnn.sdp.layerwise import binarize_layerwise
from varbnn.sdp.max_cut import Cut, max_cut
from varbnn.sdp.report import LayerReport, Report
from varbnn.sdp.signed import ChannelScale, with_sign_layers
from varbnn.sdp.solution import Solution
from varbnn.sdp.solve import binary_least_squares, certify, quadratic

__all__ = [
    "Cut",
    "HingeSolution",
    "LayerReport",
    "Report",
    "ChannelScale",
    "Solution",
    "SolutionBatch",
    "binary_hinge",
    "binary_least_squares",
    "binarize_layerwise",
    "certify",
    "least_squares_batch",
    "max_cut",
    "quadratic",
    "with_sign_layers",
]
