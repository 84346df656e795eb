"""The demonstration: one binary network against a posterior over binary networks, on real data, with one budget."""

from varbnn.demo.methods import METHODS, Method, Outcome, network, train
from varbnn.demo.recipes import RECIPES, Recipe
from varbnn.demo.run import run

__all__ = ["METHODS", "RECIPES", "Method", "Outcome", "Recipe", "network", "run", "train"]
