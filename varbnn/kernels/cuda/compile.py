"""NVRTC, NVIDIA's compiler at run time: found, and called through ctypes. It needs neither nvcc nor a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch

from varbnn.errors import BackendError
from varbnn.kernels.cuda import cache as store

SOURCES = Path(__file__).parent / "src"
OPTIONS = ("--std=c++17", "--fmad=false")
"""Products and sums are never contracted: the thresholds of random signs are defined rounding by rounding. Tensor-core
instructions and `fmaf` do not suffer from it."""

HOW = "pip install nvidia-cuda-nvrtc (or nvidia-cuda-nvrtc-cu12 for CUDA 12); CUDA builds of torch bring it along"


def candidates() -> list[Path]:
    """Every NVRTC library that can be found, those of torch's CUDA version first."""
    found = [path for folder in _folders() if folder.is_dir() for path in _libraries(folder)]
    major = (torch.version.cuda or "").split(".")[0]
    fitting = (f".so.{major}", f"nvrtc64_{major}")
    return sorted(dict.fromkeys(found), key=lambda path: not any(part in path.name for part in fitting))


def _folders() -> list[Path]:
    """NVIDIA's wheels (one folder for CUDA 12, one for CUDA 13), torch's own copies, an installed toolkit."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    toolkits = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    toolkits += sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    system = [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib/aarch64-linux-gnu"), Path("/usr/lib64")]
    inside = ("lib", "lib64", "bin", "bin/x86_64", "lib/x64")
    return [
        *(place / version / part for place in wheels for version in ("cu13", "cuda_nvrtc") for part in inside),
        Path(torch.__file__).parent / "lib",
        *(toolkit / part for toolkit in toolkits for part in inside),
        *system,
    ]


def _libraries(folder: Path) -> list[Path]:
    names = [*folder.glob("libnvrtc.so*"), *folder.glob("libnvrtc-*.so*"), *folder.glob("nvrtc64_*.dll")]
    usable = [path for path in names if "builtins" not in path.name and ".alt." not in path.name]
    return sorted(usable, key=lambda path: len(path.name))


class Compiler:
    """One NVRTC library."""

    def __init__(self, path: Path) -> None:
        """Load it; the part that it would look for itself, and not find in a wheel, first.

        Raises:
            OSError: it cannot be loaded.
        """
        self.path = path
        for builtins in sorted(path.parent.glob("*nvrtc-builtins*")):
            if ".alt." not in builtins.name:
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = c_char_p
        major, minor = c_int(), c_int()
        self._call("nvrtcVersion", byref(major), byref(minor))
        self.version = (major.value, minor.value)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            reason = self._library.nvrtcGetErrorString(status).decode()
            raise BackendError(f"{name} of {self.path} failed: {reason}")

    def architectures(self) -> list[int]:
        """What it compiles for, as 90 for compute capability 9.0."""
        count = c_int()
        self._call("nvrtcGetNumSupportedArchs", byref(count))
        found = (c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", found)
        return list(found)

    def architecture(self, capability: tuple[int, int]) -> str:
        """The target for a GPU: its own machine code, that of a lower chip of its family, or portable code.

        9.0 gets what only it has (``sm_90a``). A chip younger than the compiler runs the code of the highest one of its
        family; without one, the driver translates portable code (``compute_…``).

        Raises:
            BackendError: the GPU is older than everything this NVRTC compiles for.
        """
        if capability == (9, 0):
            return "sm_90a"
        wanted = capability[0] * 10 + capability[1]
        lower = [number for number in self.architectures() if number <= wanted]
        if not lower:
            raise BackendError(
                f"NVRTC {self.path} compiles for {self.architectures()}, not for capability {capability}"
            )
        best = max(lower)
        return f"sm_{best}" if best // 10 == capability[0] else f"compute_{best}"

    def compile(self, source: str, architecture: str) -> tuple[bytes, str]:
        """Machine code (or PTX for a ``compute_…`` target) of a source in `SOURCES`, and the compiler's log.

        Raises:
            BackendError: with the log.
        """
        headers = sorted(SOURCES.glob("*.cuh"))
        texts = (c_char_p * len(headers))(*[path.read_bytes() for path in headers])
        names = (c_char_p * len(headers))(*[path.name.encode() for path in headers])
        program = c_void_p()
        text = (SOURCES / f"{source}.cu").read_bytes()
        self._call("nvrtcCreateProgram", byref(program), text, f"{source}.cu".encode(), len(headers), texts, names)
        try:
            options = [f"--gpu-architecture={architecture}", *options_for(architecture)]
            encoded = (c_char_p * len(options))(*[option.encode() for option in options])
            status = self._library.nvrtcCompileProgram(program, len(options), encoded)
            log = (
                self._text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog", program)
                .rstrip(b"\0")
                .decode(errors="replace")
            )
            if status != 0:
                reason = self._library.nvrtcGetErrorString(status).decode()
                raise BackendError(f"{source}.cu does not compile for {architecture} ({reason}); NVRTC says:\n{log}")
            kind = "PTX" if architecture.startswith("compute") else "CUBIN"
            return self._text(f"nvrtcGet{kind}Size", f"nvrtcGet{kind}", program), log
        finally:
            self._call("nvrtcDestroyProgram", byref(program))

    def _text(self, size: str, get: str, program: c_void_p) -> bytes:
        length = c_size_t()
        self._call(size, program, byref(length))
        buffer = ctypes.create_string_buffer(length.value)
        self._call(get, program, buffer)
        return buffer.raw


def options_for(architecture: str) -> tuple[str, ...]:
    """Chips from 10.0 on have no binary tensor instruction; the kernels that would call a slow routine are left out."""
    number = int("".join(letter for letter in architecture if letter.isdigit()))
    return (*OPTIONS, "--define-macro=NO_BINARY_MMA") if number >= 100 else OPTIONS


@cache
def compiler() -> Compiler | str:
    """The first NVRTC that loads, or why there is none."""
    refused = []
    for path in candidates():
        try:
            return Compiler(path)
        except (OSError, BackendError) as error:
            refused.append(f"{path}: {error}")
    return f"NVRTC was found but cannot be used ({'; '.join(refused)})" if refused else f"NVRTC was not found; {HOW}"


def machine_code(source: str, capability: tuple[int, int]) -> bytes:
    """Compiled `source` for a GPU, from the cache where it is there.

    Raises:
        BackendError: no NVRTC, or it refuses the source.
    """
    found = compiler()
    if isinstance(found, str):
        raise BackendError(found)
    architecture = found.architecture(capability)
    texts = [path.read_bytes() for path in (*sorted(SOURCES.glob("*.cuh")), SOURCES / f"{source}.cu")]
    parts: tuple[str | bytes, ...] = (architecture, str(found.version), " ".join(options_for(architecture)), *texts)
    return store.get(store.key(*parts), lambda: found.compile(source, architecture)[0])
