"""Who computes the operations: plain torch, or the compiled library on one of its instruction sets.

The best that this machine can run is taken. The environment variable ``VARBNN_BACKEND`` (``reference`` for plain torch,
or a level: ``baseline``, ``avx2``, ``avx512``, ``neon``) asks for another, and with ``VARBNN_STRICT=1`` a library that
cannot be used is an error instead of a warning.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from varbnn.errors import BackendError, InputError, VarbnnWarning
from varbnn.kernels import compiled, native, plain

REFERENCE = "reference"
VARIABLE = "VARBNN_BACKEND"
STRICT = "VARBNN_STRICT"
BEST = "best"

_active: str | None = None  # None until first used: then a level, or REFERENCE


def implementation(device: torch.device) -> Any:
    """The module whose functions compute the operations on `device`.

    Raises:
        InputError: ``VARBNN_BACKEND`` asks for what does not exist or cannot run here.
    """
    if device.type == "cuda":
        return _cuda(device.index)
    if device.type == "cpu" and active_backend() != REFERENCE:
        return compiled
    return plain


def _cuda(index: int | None) -> Any:
    """The CUDA kernels where they can run on this device, else plain torch, with one warning."""
    if os.environ.get(VARIABLE) == REFERENCE:
        return plain
    from varbnn.kernels import cuda  # `import varbnn` loads nothing of it

    reason = cuda.problem(index)
    if reason is None:
        return cuda
    _report_missing_kernels(reason)
    return plain


@cache
def _report_missing_kernels(reason: str) -> None:
    message = f"the CUDA kernels of varbnn cannot be used, plain torch is much slower: {reason}"
    if os.environ.get(STRICT) == "1":
        raise BackendError(message)
    warnings.warn(f"{message}. {VARIABLE}={REFERENCE} asks for plain torch silently.", VarbnnWarning, stacklevel=2)


def _cuda_state() -> str:
    if os.environ.get(VARIABLE) == REFERENCE:
        return f"plain torch: {VARIABLE}={REFERENCE} asks for it"
    from varbnn.kernels import cuda

    return cuda.state()


def active_backend() -> str:
    """Name of the level that computes on the CPU, or ``"reference"``."""
    if _active is None:
        use(os.environ.get(VARIABLE) or BEST, f"the environment variable {VARIABLE}")
    assert _active is not None
    return _active


def usable_backends() -> list[str]:
    """What `using_backend` takes on this machine."""
    if native.problem() is not None:
        return [REFERENCE]
    return [REFERENCE, *(name for name, level in native.LEVELS.items() if native.library().varbnn_cpu_supports(level))]


def use(name: str, asked_by: str) -> None:
    """Let `name` compute on the CPU from now on; ``"best"`` is what this machine does best."""
    global _active
    if name == BEST:
        name = usable_backends()[-1]
    if name not in usable_backends():
        why = "unknown" if name not in native.LEVELS else _state(name)
        raise InputError(
            f"{asked_by} asks for the backend {name!r}, which is {why}; this machine can use "
            f"{', '.join(usable_backends())}"
        )
    if name != REFERENCE:
        native.library().varbnn_cpu_use(native.LEVELS[name])
    _active = name


@contextmanager
def using_backend(name: str) -> Iterator[None]:
    """Let another backend compute on the CPU for a while: in the whole process, not only in this thread.

    Args:
        name: ``"reference"`` (plain torch), or a level: ``"baseline"``, ``"avx2"``, ``"avx512"``, ``"neon"``.

    Raises:
        InputError: there is no such backend, or this machine cannot use it.

    >>> from varbnn.kernels import using_backend
    >>> with using_backend("reference"):
    ...     print(active_backend())
    reference
    """
    before = active_backend()
    use(name, "using_backend")
    try:
        yield
    finally:
        use(before, "using_backend")


@dataclass(frozen=True)
class BackendInfo:
    """Who computes the operations on packed bits, and why not somebody else; `str` of it is made for reading."""

    cpu: str
    """Name of the active level, or ``"reference"`` for plain torch."""
    levels: dict[str, str]
    """Every level, and whether it is active, usable, not built, or not supported by this CPU."""
    library: Path | None
    """Where the compiled library lies; None where none was built."""
    compiler: str | None
    """What compiled it."""
    openmp: bool
    """Whether it can use more than one thread."""
    threads: int
    """Threads that torch, and with it the library, uses."""
    problem: str | None
    """Why the compiled library cannot be used; None where it can."""
    cuda: str
    """Who computes on CUDA devices."""

    def __str__(self) -> str:
        how = f"{self.threads} thread{'s' * (self.threads != 1)}" if self.openmp else "1 thread, built without OpenMP"
        lines = [f"cpu        {'plain torch' if self.cpu == REFERENCE else f'{self.cpu}, {how}'}"]
        lines += [f"  {name:<9} {state}" for name, state in self.levels.items()]
        lines.append(f"library    {self.library or 'none'}")
        if self.compiler is not None:
            lines.append(f"compiler   {self.compiler}")
        if self.problem is not None:
            lines.append(f"problem    the compiled kernels are not used: {self.problem}")
        lines.append(f"cuda       {self.cuda}")
        return "\n".join(lines)


def backend_info() -> BackendInfo:
    """Which kernels compute on this machine, and why others do not.

    Raises:
        InputError: ``VARBNN_BACKEND`` asks for what does not exist or cannot run here.

    >>> import varbnn as vb
    >>> vb.backend_info().cpu in ("reference", "baseline", "avx2", "avx512", "neon")
    True
    """
    active = active_backend()
    problem = native.problem()
    library = None if problem else native.library()
    return BackendInfo(
        cpu=active,
        levels={name: "active" if name == active else _state(name) for name in native.LEVELS},
        library=native.library_path(),
        compiler=library.varbnn_cpu_compiler().decode() if library else None,
        openmp=bool(library and library.varbnn_cpu_openmp()),
        threads=torch.get_num_threads(),
        problem=problem,
        cuda=_cuda_state(),
    )


def _state(name: str) -> str:
    if native.problem() is not None:
        return "not usable without the compiled library"
    level = native.LEVELS[name]
    if not native.library().varbnn_cpu_built(level):
        return "not built"
    return "usable" if native.library().varbnn_cpu_supports(level) else "not supported by this CPU"


def report_missing_library() -> None:
    """Warn if the compiled library cannot be used, unless plain torch was asked for; called once, by the import.

    Raises:
        BackendError: instead of the warning, where ``VARBNN_STRICT`` is 1.
    """
    problem = native.problem()
    if problem is None or os.environ.get(VARIABLE) == REFERENCE:
        return
    message = f"varbnn runs without its compiled kernels, much slower: {problem}"
    if os.environ.get(STRICT) == "1":
        raise BackendError(message)
    warnings.warn(f"{message}. {VARIABLE}={REFERENCE} asks for plain torch silently.", VarbnnWarning, stacklevel=2)


report_missing_library()
