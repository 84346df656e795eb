"""Progress bars: in terminals and notebooks, and in no file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def progress_bar(wanted: bool, steps: Iterable[Any] | None = None, **options: Any) -> Any:
    """A bar of tqdm, around `steps` if there are any.

    Args:
        wanted: False shows none. True shows it where standard error is a terminal, or in a notebook: a log file would
            hold every state of it.
        **options: of tqdm.

    >>> list(progress_bar(False, range(3)))
    [0, 1, 2]
    """
    shown = wanted and sys.stderr is not None  # there is none under pythonw, or where it was closed
    return tqdm(steps, disable=None if shown else True, **options)
