"""The compiled CPU library: how it is found, whether it can be used, and calling it with tensors."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from varbnn.errors import BackendError, InputError

ABI = 9
"""The library's interface that these modules are written for; `ABI` in `cpu/level.h` must be the same."""

LEVELS = {"baseline": 0, "avx2": 1, "avx512": 2, "neon": 3}
"""Names of the instruction sets, and their numbers in `cpu/level.h`."""

KINDS = {"p": ctypes.c_void_p, "q": ctypes.c_int64, "i": ctypes.c_int, "d": ctypes.c_double}

SIGNATURES = {
    "linear": "pq p qqqq pq pq i p i",
    "linear_signs": "pq p qqqq pq pq i p i",
    "linear_int8": "pq p qqqq pq pq i p i",
    "sample_blocks": "p qqqqqq p i",
    "draw": "p qqqqq p i",
    "relax": "p qq d i pp i",
    "pack_signs": "p qq p p i",
    "conv": "pi p pq pq p i p i",
    "predictive": "pi p p p p p p i",
    "step": "p p q i",
    "step_pair": "p p p q i",
    "finite": "p q i",
    "mixing": "p p qqqq d d p p i",
}
"""Arguments of the library's functions, by the letters of `KINDS`: pointer, whole number of 64 bits, int, double."""

ACTIVATIONS = {"none": 0, "relu": 1, "sign": 2}

FOUND_NAN = 1
OUT_OF_MEMORY = 2

REBUILD = "with a C++ compiler and CMake present, install varbnn again (in a checkout: make native)"


def library_path() -> Path | None:
    """Where the library lies; None where none was built."""
    found = sorted(Path(__file__).parent.glob("_cpu*.so")) + sorted(Path(__file__).parent.glob("_cpu*.dylib"))
    return found[0] if found else None


def open_library(path: Path | None) -> ctypes.CDLL:
    """Load the library at `path`.

    Raises:
        BackendError: it was not built, cannot be loaded, or is of another version.
    """
    if path is None:
        raise BackendError(f"they were not built; {REBUILD}")
    try:
        loaded = ctypes.CDLL(str(path))
        abi = loaded.varbnn_cpu_abi()
    except (OSError, AttributeError) as error:
        raise BackendError(f"{path} cannot be loaded ({error}); {REBUILD}") from error
    if abi != ABI:
        raise BackendError(f"{path} has interface {abi} where this varbnn needs {ABI}; {REBUILD}")
    loaded.varbnn_cpu_compiler.restype = ctypes.c_char_p
    for name, arguments in SIGNATURES.items():
        # declared once, plain numbers are converted in C, which costs a fraction of making ctypes objects for each call
        getattr(loaded, f"varbnn_cpu_{name}").argtypes = [KINDS[letter] for letter in arguments.replace(" ", "")]
    return loaded


@cache
def problem() -> str | None:
    """Why the library cannot be used; None where it can."""
    try:
        library()
    except BackendError as error:
        return str(error)
    return None


@cache
def library() -> ctypes.CDLL:
    """The library, loaded once; raises what `open_library` does."""
    return open_library(library_path())


def pointer(tensor: Tensor | None) -> int | None:
    """Address of a contiguous tensor's first element; null for None."""
    return None if tensor is None else tensor.data_ptr()


def threads() -> int:
    """Threads to use, as many as torch does."""
    return torch.get_num_threads()


def check(status: int, what: str) -> None:
    """Raise what a function of the library reports; `what` is the subject of "hold NaN"."""
    if status == FOUND_NAN:
        raise InputError(f"{what} hold NaN, which has no sign")
    if status == OUT_OF_MEMORY:
        raise MemoryError("the compiled kernels found no memory for their tables")
    if status:
        raise BackendError(f"the compiled kernels gave the unknown status {status}; {REBUILD}")
