"""The rules: ordinary torch optimizers that train beliefs."""

from varbnn.optim.bayesbinn import BayesBiNN
from varbnn.optim.bimu import BiMU
from varbnn.optim.bop import Bop
from varbnn.optim.bop2ndorder import Bop2ndOrder
from varbnn.optim.curves import Constant, Cosine, Exponential, Linear, Staircase
from varbnn.optim.following_prior import FollowingPrior
from varbnn.optim.gaussian_blr import GaussianBLR
from varbnn.optim.gradient_filter import GradientFilter
from varbnn.optim.metaplastic import Metaplastic
from varbnn.optim.rule import Rule
from varbnn.optim.schedules import Scheduler
from varbnn.optim.straight_through import StraightThrough
from varbnn.optim.translate import Translation, translate
from varbnn.optim.vispa import VISPA
from varbnn.optim.windowed_bayes import WindowedBayes

__all__ = [
    "BayesBiNN",
    "BiMU",
    "Bop",
    "Bop2ndOrder",
    "FollowingPrior",
    "GaussianBLR",
    "GradientFilter",
    "Metaplastic",
    "Rule",
    "StraightThrough",
    "VISPA",
    "WindowedBayes",
    "Scheduler",
    "Constant",
    "Linear",
    "Cosine",
    "Exponential",
    "Staircase",
    "Translation",
    "translate",
]
