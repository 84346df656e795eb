"""Task after task, with yesterday's posterior as today's prior."""

from varbnn.continual.evaluation import Evaluation, Result
from varbnn.continual.learning import learn
from varbnn.continual.strategies import Examples, FineTune, PosteriorAsPrior, Strategy
from varbnn.continual.streams import permuted, rotated, split
from varbnn.continual.tasks import Stream, Task, from_tasks

__all__ = [
    "Evaluation",
    "Examples",
    "FineTune",
    "PosteriorAsPrior",
    "Result",
    "Strategy",
    "Stream",
    "Task",
    "from_tasks",
    "learn",
    "permuted",
    "rotated",
    "split",
]
