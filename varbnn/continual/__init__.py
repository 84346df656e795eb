"""Task after task, with yesterday's posterior as today's prior."""

from varbnn.continual import plots
from varbnn.continual.choosing import k_center
from varbnn.continual.coresets import Coreset
from varbnn.continual.evaluation import EvaluationPlan, Result
from varbnn.continual.ewc import EWC, OnlineEWC, fisher_diagonal
from varbnn.continual.filling import Capacity, capacity
from varbnn.continual.joint import Joint
from varbnn.continual.learning import learn
from varbnn.continual.mean_field import MeanField, mean_field
from varbnn.continual.remembering import Rehearsal, Replay
from varbnn.continual.scores import (
    Plasticity,
    all_scores,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    last_accuracy,
    learning_accuracy,
    plasticity,
)
from varbnn.continual.stored import StoredPosterior, store
from varbnn.continual.strategies import Examples, FineTune, PosteriorAsPrior, Strategy
from varbnn.continual.streams import permuted, rotated, split
from varbnn.continual.tasks import Stream, Task, from_tasks

__all__ = [
    "EWC",
    "Capacity",
    "Coreset",
    "EvaluationPlan",
    "Examples",
    "FineTune",
    "Joint",
    "MeanField",
    "OnlineEWC",
    "Plasticity",
    "PosteriorAsPrior",
    "Rehearsal",
    "Replay",
    "Result",
    "StoredPosterior",
    "Strategy",
    "Stream",
    "Task",
    "all_scores",
    "average_accuracy",
    "backward_transfer",
    "capacity",
    "fisher_diagonal",
    "forgetting",
    "forward_transfer",
    "from_tasks",
    "k_center",
    "last_accuracy",
    "learn",
    "learning_accuracy",
    "mean_field",
    "permuted",
    "plasticity",
    "plots",
    "rotated",
    "split",
    "store",
]
