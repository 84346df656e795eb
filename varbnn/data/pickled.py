"""Arrays out of pickle files without running what the files say: CIFAR's python version comes as pickles.

A pickle is a program that may name any function to call. Here every name it may use stands for a harmless record, so
not even numpy builds an array on its word; what comes out is checked and then read as plain bytes.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np

from varbnn.data.dataset import Array
from varbnn.data.files import reason_of
from varbnn.errors import InputError


class _Recorded:
    """What a pickle wanted an object to become: the arguments it was made with, and its state.

    Stand-ins are classes with a `__setstate__`, because a pickle may set attributes on anything that has none.
    """

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ArrayRecord(_Recorded):
    """Stands for an array: its state is (version, shape, type, Fortran order, bytes)."""


class _TypeRecord(_Recorded):
    """Stands for a dtype: its first argument is the name."""


class _Encoded(_Recorded):
    """Stands for codecs.encode, with which Python 3 writes bytes in the old protocols: gives the bytes."""

    def __new__(cls, text: Any = None, encoding: Any = None) -> Any:
        if not (isinstance(text, str) and encoding == "latin1"):
            raise pickle.UnpicklingError("bytes in an unusual encoding")
        return text.encode("latin1")


STAND_INS: dict[tuple[str, str], type[_Recorded]] = {
    ("_codecs", "encode"): _Encoded,
    ("numpy.core.multiarray", "_reconstruct"): _ArrayRecord,
    ("numpy._core.multiarray", "_reconstruct"): _ArrayRecord,
    ("numpy", "ndarray"): _Recorded,
    ("numpy", "dtype"): _TypeRecord,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return STAND_INS[module, name]


def read_pickled(path: Path) -> dict[str, Any]:
    """A pickled dictionary of arrays of unsigned bytes, lists, numbers and text; nothing in it is ever executed.

    Keys and texts of Python 2 become str where they are ASCII.

    Raises:
        InputError: the file cannot be read, is damaged, asks for anything but arrays of unsigned bytes, or is no
            dictionary.
    """
    try:
        with path.open("rb") as file:
            content = _Reader(file, encoding="bytes").load()
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}; get the file again") from None
    # a damaged pickle fails in whatever its bytes happen to say, so in any of these
    except (
        *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError),
        *(OverflowError, MemoryError, ImportError, RecursionError),
    ) as error:
        raise InputError(
            f"{path} is not a whole pickle of plain arrays ({reason_of(error)}); nothing was run; get the file again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a dictionary; get the file again")
    return {_name(key): _array(value, path) for key, value in content.items()}


def _name(key: Any) -> str:
    return key.decode("ascii", "replace") if isinstance(key, bytes) else str(key)


def _array(value: Any, path: Path) -> Any:
    """The array that a record stands for; other values as they are."""
    if not isinstance(value, _Recorded):
        return value
    state = value.state if isinstance(value, _ArrayRecord) else None
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, fortran, content = state
        bytes_alone = isinstance(kind, _TypeRecord) and kind.arguments[:1] in (("u1",), (b"u1",), ("|u1",))
        lengths = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
        if bytes_alone and lengths and isinstance(content, bytes) and len(content) == math.prod(shape):
            order: Literal["C", "F"] = "F" if fortran else "C"
            result: Array = np.frombuffer(content, dtype=np.uint8).reshape(shape, order=order)
            return result
    raise InputError(f"{path}: an array in it is not one of unsigned bytes of the size it says; get the file again")
