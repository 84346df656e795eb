"""What varbnn raises and warns with; every message says what was given, what is allowed, what to do."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["BackendError", "CheckpointError", "InputError", "MissingExtraError", "VarbnnError", "VarbnnWarning"]


class VarbnnError(Exception):
    """Base of every error varbnn raises on purpose."""


class InputError(VarbnnError, ValueError):
    """A value that cannot be used: NaN, empty, out of range, wrong shape or dtype."""


class CheckpointError(VarbnnError, RuntimeError):
    """A saved state that does not fit, or that cannot be read."""


class MissingExtraError(VarbnnError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class BackendError(VarbnnError, RuntimeError):
    """The compiled kernels were not built, cannot be loaded, or failed."""


class VarbnnWarning(UserWarning):
    """A result that is legal but probably not wanted, such as a collapsed posterior."""


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: dotted name, for example ``"matplotlib.pyplot"``.
        extra: the extra of varbnn that installs it, for example ``"plot"``.

    Raises:
        MissingExtraError: the module's distribution is not installed.

    >>> import_extra("math", "plot").pi > 3
    True
    >>> import_extra("no_such_module", "plot")
    Traceback (most recent call last):
    varbnn.errors.MissingExtraError: no_such_module is not installed; pip install "varbnn[plot]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # a dependency of the dependency is broken: that is not ours to explain away
        name = module.split(".")[0]
        raise MissingExtraError(f'{name} is not installed; pip install "varbnn[{extra}]"') from None
