"""The demonstration: one binary network against a posterior over binary networks, on real data, with one budget."""

from varbnn.demo.comparison import run
from varbnn.demo.methods import METHODS, Method, Outcome, train
from varbnn.demo.networks import ACTIVATIONS, network
from varbnn.demo.recipes import CONVOLUTIONAL, RECIPES, Recipe

__all__ = [
    "ACTIVATIONS",
    "CONVOLUTIONAL",
    "METHODS",
    "RECIPES",
    "Method",
    "Outcome",
    "Recipe",
    "network",
    "run",
    "train",
]
