"""What is in machine code, read with NVIDIA's own tools (the wheels nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm)."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@cache
def tool(name: str) -> str | None:
    """Path of a tool, from a wheel or from an installed toolkit."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for path in Path(place).glob(f"*/bin/{name}"):
            return str(path)
    return shutil.which(name)


@dataclass(frozen=True)
class Kernel:
    """One kernel of a cubin."""

    stack: int
    local: int
    instructions: Counter[str]
    """How often each instruction, with its modifiers, occurs; also in routines of the compiler that it calls."""
    routines: tuple[str, ...]
    """What it calls."""


def kernels(code: bytes, folder: Path) -> dict[str, Kernel]:
    """Every kernel by its name."""
    path = folder / "kernels.cubin"
    path.write_bytes(code)
    usage = _run("cuobjdump", "-res-usage", str(path))
    memory = {
        name: (int(stack), int(local))
        for name, stack, local in re.findall(r"Function (\w+):\s*REG:\d+ STACK:(\d+).*?LOCAL:(\d+)", usage)
    }
    listing = _run("nvdisasm", str(path))
    found = {}
    for name, text in re.findall(r"^\.text\.(\w+):\n(.*?)(?=^//-{5,}|\Z)", listing, re.MULTILINE | re.DOTALL):
        instructions = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", text, re.MULTILINE)
        routines = re.findall(r"CALL[^`;]*`\(\$?(?:__internal_\d+_\$)?(\w+)\)", text)
        found[name] = Kernel(*memory[name], Counter(instructions), tuple(sorted(set(routines))))
    assert found.keys() == memory.keys()
    return found


def _run(name: str, *arguments: str) -> str:
    path = tool(name)
    assert path is not None
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{path}: {done.stderr}"
    return done.stdout
