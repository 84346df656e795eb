"""Where and with what a measurement was taken, and how results get onto disk."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch

import varbnn

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "varbnn": varbnn.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def kernels() -> list[str]:
    """What computes, and with what it was compiled; the library's own place says nothing to others."""
    return [line for line in str(varbnn.backend_info()).splitlines() if not line.startswith("library")]


def write(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON in one piece: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def read(path: Path) -> dict[str, Any]:
    """The content of a results file, empty if there is none yet."""
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of a page; every column but the first is of numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def no_options(about: str | None) -> None:
    """Answer --help and refuse anything else, for a script that has nothing to choose."""
    argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()


def say(*words: object) -> None:
    """Progress goes to stderr, results to stdout."""
    print(*words, file=sys.stderr, flush=True)
