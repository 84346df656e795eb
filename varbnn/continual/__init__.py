"""Task after task, with yesterday's posterior as today's prior."""

from varbnn.continual.streams import permuted, rotated, split
from varbnn.continual.tasks import Stream, Task, from_tasks

__all__ = [
    "Stream",
    "Task",
    "permuted",
    "rotated",
    "split",
    "from_tasks",
]
