"""Files that long work goes on from: written in one piece, read without running code, loaded whole or not at all."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from varbnn.errors import CheckpointError

ABANDONED = 3600.0
"""Seconds after which a draft is one that a killed process left; none takes so long to write."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that appears at `path` whole or not at all; what was there stays until then. Links are followed.

    It has the permissions of what was there.

    Raises:
        OSError: it cannot be written, or something that is no file is there.
        ValueError: no file can have such a name.
    """
    target = Path(os.path.realpath(path))
    is_link = target.is_symlink()  # to itself
    if is_link or os.fspath(path).endswith(os.sep) or (target.exists() and not target.is_file()):
        raise OSError(f"{path} names no regular file")  # a device or a pipe would be replaced by one
    drafts = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}."
    draft = target.with_name(f"{drafts}{secrets.token_hex(4)}.draft")
    try:
        with open(draft, "xb") as file:
            with suppress(OSError):  # the file is new, or its file system knows no permissions
                shutil.copymode(target, draft)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            draft.unlink()
        raise
    with suppress(OSError):  # the file is in its place; not every file system can say that it will stay there
        _sync_folder(target.parent)
    with suppress(OSError):
        for left in target.parent.glob(f"{drafts}*.draft"):
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # its folders cannot be opened; the rename is durable without
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_folder(path: Path) -> None:
    """Raise CheckpointError where no file can be written to `path` later, for want of a folder."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise CheckpointError(f"{path} cannot be written: there is no folder {folder}; make it first")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors and plain values) to `path`; a kill or a full disk leaves the file that was there.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        with replacing(path) as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError, ValueError) as error:
        kept = "the last complete state is still there" if path.exists() else "nothing was written"
        disk = error.__context__  # of what torch's writer says where a disk is full: that positions are wrong
        reason = disk if isinstance(error, RuntimeError) and isinstance(disk, OSError) else error
        raise CheckpointError(f"{path} cannot be written ({reason}); {kept}") from error


def read(path: Path, what: str, keys: set[str]) -> dict[str, Any]:
    """The state in `path`, in the CPU's memory.

    Args:
        what: wrote it, for people.
        keys: that it must have.

    Raises:
        CheckpointError: it cannot be read, or lacks a key.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = keys - set(state)
    except Exception as error:
        first = str(error).strip().partition("\n")[0][:100] or type(error).__name__
        reason = "damaged, or not its own" if isinstance(error, pickle.UnpicklingError) else first
        raise CheckpointError(f"{path} is no checkpoint of {what} ({reason}); move it away to start afresh") from error
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}; move it away to start afresh")
    return state


def restore(
    path: Path,
    items: Mapping[str, Any],
    state: Mapping[str, Any],
    generators: Mapping[str, torch.Generator] | None = None,
) -> None:
    """Load ``state[name]`` into each of `items`, ``state["generators"]`` into generators; if one refuses, none is.

    Raises:
        CheckpointError: the state belongs to other objects.
    """
    generators = generators or {}
    before = {name: copy.deepcopy(item.state_dict()) for name, item in items.items()}
    drawing = {name: generator.get_state() for name, generator in generators.items()}
    try:
        for name, item in items.items():
            item.load_state_dict(state[name])
        for name in generators.keys() & state.get("generators", {}).keys():
            generators[name].set_state(state["generators"][name])
    except Exception as error:  # whatever a state of something else makes it stumble over
        for name, item in items.items():
            item.load_state_dict(before[name])
        for name, generator in generators.items():
            generator.set_state(drawing[name])
        raise CheckpointError(f"{path} belongs to another model or optimizer: {error}") from error


def generators_of(loader: object) -> dict[str, torch.Generator]:
    """The generators that decide what `loader` yields, its own and its samplers', by where they are."""
    groups = getattr(loader, "batch_sampler", None)
    owners = {"loader": loader, "sampler": getattr(loader, "sampler", None)}
    owners |= {"batch_sampler": groups, "its sampler": getattr(groups, "sampler", None)}
    return {
        name: generator
        for name, owner in owners.items()
        if isinstance(generator := getattr(owner, "generator", None), torch.Generator)
    }


def random_state() -> dict[str, Any]:
    """Of torch's global generators."""
    state: dict[str, Any] = {"rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put torch's global generators where `random_state` saw them."""
    torch.set_rng_state(state["rng"])
    if "cuda_rng" in state and torch.cuda.is_available():
        for device, own in zip(range(torch.cuda.device_count()), state["cuda_rng"], strict=False):
            torch.cuda.set_rng_state(own, device)
