"""The operations on CUDA devices, with the signatures of `varbnn.kernels.plain`; compiled by NVRTC at first use."""

from varbnn.kernels.cuda.convolution import conv
from varbnn.kernels.cuda.launch import problem, state
from varbnn.kernels.cuda.prediction import predictive
from varbnn.kernels.cuda.products import linear, linear_int8
from varbnn.kernels.cuda.sampling import draw, pack_signs, sample_blocks
from varbnn.kernels.plain import relax

__all__ = [
    "conv",
    "draw",
    "linear",
    "linear_int8",
    "pack_signs",
    "predictive",
    "problem",
    "relax",
    "sample_blocks",
    "state",
]
