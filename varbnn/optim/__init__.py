"""The rules: ordinary torch optimizers that train beliefs."""

from varbnn.optim.bayesbinn import BayesBiNN
from varbnn.optim.bop import Bop
from varbnn.optim.bop2ndorder import Bop2ndOrder
from varbnn.optim.curves import Constant, Cosine, Exponential, Linear, Staircase
from varbnn.optim.gaussian_blr import GaussianBLR
from varbnn.optim.gradient_filter import GradientFilter
from varbnn.optim.rule import Rule
from varbnn.optim.schedules import Scheduler
from varbnn.optim.straight_through import StraightThrough
from varbnn.optim.translate import Translation, translate
from varbnn.optim.vispa import VISPA

__all__ = [
    "BayesBiNN",
    "Bop",
    "Bop2ndOrder",
    "GaussianBLR",
    "GradientFilter",
    "Rule",
    "StraightThrough",
    "VISPA",
    "Scheduler",
    "Constant",
    "Linear",
    "Cosine",
    "Exponential",
    "Staircase",
    "Translation",
    "translate",
]
