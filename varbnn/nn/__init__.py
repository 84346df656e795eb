"""Binary layers, and what one does with a model that has them."""

from varbnn.nn.activations import Gate, Sign, Tails
from varbnn.nn.batchnorm import batchnorm_preserved, batchnorms, refresh_batchnorm
from varbnn.nn.binarize import binarize, freeze
from varbnn.nn.conv import BinaryConv1d, BinaryConv2d, BinaryConv3d
from varbnn.nn.draws import antithetic, binary_layers, draw_once_per_forward, sampled
from varbnn.nn.health import Health, health
from varbnn.nn.layer import BinaryLayer
from varbnn.nn.linear import BinaryLinear
from varbnn.nn.noise import LearnedNoise, gaussian_nll
from varbnn.nn.scale import Scale
from varbnn.nn.summary import Summary, summary

__all__ = [
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryConv3d",
    "BinaryLayer",
    "BinaryLinear",
    "Gate",
    "Health",
    "LearnedNoise",
    "Scale",
    "Sign",
    "Summary",
    "Tails",
    "antithetic",
    "batchnorm_preserved",
    "batchnorms",
    "binarize",
    "binary_layers",
    "draw_once_per_forward",
    "freeze",
    "gaussian_nll",
    "health",
    "refresh_batchnorm",
    "sampled",
    "summary",
]
