"""A compiled model for a while as it was written, for what one has to see from inside of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CHANGE = threading.Lock()
_inside: list[Any] = []
"""The stance that the first of several threads has set, as often as there are threads; it is of the process."""


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, whatever torch.compile has made runs as it was written, and nothing is compiled.

    Hooks and settings that come and go would be compiled into the model, anew at every batch, until torch gives up and
    leaves the graph of training unused as well.
    """
    if torch.compiler.is_compiling() or "torch._dynamo" not in sys.modules:  # whose import takes a second
        yield
        return
    torch.compiler.disable(_enter)()  # torch lets no code change the stance that it compiles or has compiled
    try:
        yield
    finally:
        torch.compiler.disable(_leave)()


def _enter() -> None:
    with _CHANGE:
        _inside.append(_inside[0] if _inside else torch.compiler.set_stance("force_eager"))


def _leave() -> None:
    with _CHANGE:
        stance = _inside.pop()
        if not _inside:
            stance.__exit__(None, None, None)
