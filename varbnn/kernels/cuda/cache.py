"""Compiled kernels kept on disk, so that only the first process on a machine waits for the compiler.

Nothing here can fail a computation: what cannot be read is compiled again, what cannot be written stays in memory.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "VARBNN_CACHE_DIR"
"""Environment variable that names another folder."""

_HEADER = b"varbnn cubin 1\n"


def folder() -> Path:
    """Where compiled kernels are kept: ``VARBNN_CACHE_DIR``, or ``varbnn`` in the user's folder for caches."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "varbnn"


def key(*parts: str | bytes) -> str:
    """A file name that differs where any part does."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def get(name: str, make: Callable[[], bytes]) -> bytes:
    """What is kept under `name`; made, and kept if the folder takes it, where there is nothing sound."""
    try:
        path = folder() / f"{name}.cubin"
    except RuntimeError:  # a user without a home
        return make()
    kept = _read(path)
    if kept is None:
        kept = make()
        _write(path, kept)
    return kept


def _read(path: Path) -> bytes | None:
    """None where there is no file, it cannot be read, or it is not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(_HEADER) + 32
    body = content[start:]
    sound = content[:start] == _HEADER + hashlib.sha256(body).digest()
    return body if sound else None


def _write(path: Path, body: bytes) -> None:
    """Through a file of our own, renamed: other processes see all of it or nothing. A full or read-only folder is left
    as it is; the kernels then live in this process only."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(_HEADER + hashlib.sha256(body).digest() + body)
        Path(temporary).replace(path)
    except OSError:
        if temporary is not None and os.path.exists(temporary):
            _discard(temporary)


def _discard(temporary: str) -> None:
    try:
        os.unlink(temporary)
    except OSError:  # the folder became read-only in between; nobody will read a name that starts with a dot
        return
