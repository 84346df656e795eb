"""A compiled model for a while as it was written, for what one has to see from inside of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.RLock()  # the stance is of the process: threads that overlap would put back each other's


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, whatever torch.compile has made runs as it was written, and nothing is compiled.

    Hooks and settings that come and go would be compiled into the model, anew at every batch, until torch gives up and
    leaves the graph of training unused as well.
    """
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes a second
        yield
        return
    with _ONE_AT_A_TIME, torch.compiler.set_stance("force_eager"):
        yield
