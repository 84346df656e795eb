"""The compiled CPU library: how it is found, and calling it with tensors."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LEVELS = {"baseline": 0, "avx2": 1, "avx512": 2, "neon": 3}
"""Names of the instruction sets, and their numbers in `cpu/level.h`."""

ACTIVATIONS = {"none": 0, "relu": 1, "sign": 2}


def library_path() -> Path | None:
    """Where the library lies; None where none was built."""
    found = sorted(Path(__file__).parent.glob("_cpu*.so")) + sorted(Path(__file__).parent.glob("_cpu*.dylib"))
    return found[0] if found else None


@cache
def library() -> ctypes.CDLL:
    """The library, loaded once.

    Raises:
        OSError: it is absent or cannot be loaded.
    """
    path = library_path()
    if path is None:
        raise FileNotFoundError("no compiled library beside varbnn/kernels; it was not built")
    return ctypes.CDLL(str(path))


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Address of a contiguous tensor's first element; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def integers(*values: int) -> tuple[ctypes.c_int64, ...]:
    return tuple(ctypes.c_int64(value) for value in values)


def threads() -> ctypes.c_int:
    return ctypes.c_int(torch.get_num_threads())
