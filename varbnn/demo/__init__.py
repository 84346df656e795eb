"""The demonstration: one binary network against a posterior over binary networks, on real data, with one budget."""

from varbnn.demo.comparison import run
from varbnn.demo.methods import METHODS, Method, Outcome, network, train
from varbnn.demo.recipes import RECIPES, Recipe

__all__ = ["METHODS", "RECIPES", "Method", "Outcome", "Recipe", "network", "run", "train"]
