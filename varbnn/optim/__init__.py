"""The rules: ordinary torch optimizers that train beliefs."""

from varbnn.optim.bayesbinn import BayesBiNN
from varbnn.optim.rule import Rule
from varbnn.optim.straight_through import StraightThrough

__all__ = ["BayesBiNN", "Rule", "StraightThrough"]
