"""The CUDA kernels on the CPU: their sources compiled with g++ against `shim/host.h`, launched as on a GPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from varbnn.kernels.cuda import compile as nvrtc
from varbnn.kernels.cuda.plan import Chip, Launch

SHIM = Path(__file__).parent / "shim"
FLAGS = (
    *("-std=c++17", "-O1", "-g0", "-fPIC", "-shared", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-DVARBNN_HOST"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-parameter", "-Werror"),
)
COMPILER = shutil.which("g++")

HOPPER = Chip((9, 0), 132)
BLACKWELL = Chip((12, 0), 170)


@cache
def library(source: str, folder: Path) -> ctypes.CDLL:
    """Kernels of one source, compiled once for each state of the sources."""
    assert COMPILER is not None
    parts = [*sorted(nvrtc.SOURCES.glob("*.cuh")), nvrtc.SOURCES / f"{source}.cu", *sorted(SHIM.glob("*.h"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in parts) + " ".join(FLAGS).encode()).hexdigest()
    path = folder / f"{source}-{digest[:20]}.so"
    if not path.exists():
        made = folder / f"{source}-{os.getpid()}.so"
        where = ("-I", str(SHIM), "-I", str(nvrtc.SOURCES))
        command = [COMPILER, *FLAGS, *where, "-x", "c++", str(nvrtc.SOURCES / f"{source}.cu"), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made.replace(path)
    return ctypes.CDLL(str(path))


class HostGpu:
    """Stands in for `varbnn.kernels.cuda.launch.Gpu`; remembers which kernels ran."""

    def __init__(self, folder: Path, chip: Chip = HOPPER) -> None:
        self.folder = folder
        self.chip = chip
        self.ran: list[str] = []

    def run(self, launch: Launch, arguments: ctypes.Structure) -> None:
        kernels = library(launch.source, self.folder)
        name = launch.kernel
        assert kernels[f"threads_{name}"]() == launch.threads
        assert kernels[f"size_{name}"]() == ctypes.sizeof(arguments)
        assert launch.shared <= 99 * 1024, "the smallest limit, of compute capability 8.6 and 8.9"
        x, y = launch.grid
        numbers = map(ctypes.c_uint, (x, y, launch.threads, launch.shared))
        kernels[f"launch_{name}"](*numbers, ctypes.c_void_p(ctypes.addressof(arguments)))
        self.ran.append(name)
