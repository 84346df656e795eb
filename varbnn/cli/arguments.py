"""Values of arguments, and what they are read from."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varbnn.data.files import opened, reason_of
from varbnn.errors import InputError
from varbnn.saving import replacing

LARGEST_SEED = 2**63 - 1
USUAL_NAMES = ("inputs", "x", "x_test", "x_train", "X")
"""Of an array of inputs in an .npz file, by preference."""


def at_least(smallest: int) -> Callable[[str], int]:
    """A whole number from `smallest` on."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if not smallest <= value <= LARGEST_SEED:
            limit = " and below 2**63" if value > 0 else ""
            raise argparse.ArgumentTypeError(f"must be at least {smallest}{limit}, got {text}")
        return value

    return read


def destination(text: str) -> str:
    """A file or folder to write; an unset variable of a shell gives none."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got an empty one; . is the current folder")
    return text


def threads(text: str) -> int:
    """A number of threads that the machine can be asked for."""
    count = at_least(1)(text)
    most = 4 * (os.cpu_count() or 1) + 60
    if count > most:  # from some tens of thousands on torch ends without a word
        raise argparse.ArgumentTypeError(f"must be at most {most} on this machine, got {text}")
    return count


def widths(text: str) -> tuple[int, ...]:
    """Layers of a network, such as 784-512-10."""
    parts = text.split("-")
    if len(parts) < 2 or not all(part.isdecimal() and 0 < int(part) <= 2**20 for part in parts):
        raise argparse.ArgumentTypeError(f"must be widths up to 2**20 such as 784-512-10, got {text!r}")
    return tuple(map(int, parts))


def hidden(text: str) -> tuple[int, ...]:
    """Hidden layers, such as 400-400 or 128."""
    parts = text.split("-")
    if not all(part.isdecimal() and 0 < int(part) <= 2**20 for part in parts):
        raise argparse.ArgumentTypeError(f"must be widths up to 2**20 such as 400-400, got {text!r}")
    return tuple(map(int, parts))


def number_of(text: str) -> tuple[str, float]:
    """A name and its number, such as lr=0.01."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not name or not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a name and a finite number such as lr=0.01, got {text!r}")
    return name, number


def inputs(path: str, name: str | None) -> Tensor:
    """The inputs in a .npy or .npz file, in their own type: float32 has not every token beyond 2**24.

    Args:
        path: the file; nothing in it is unpickled.
        name: which array of an .npz file; None for its only one, or one of `USUAL_NAMES`.

    Raises:
        InputError: it cannot be read, or holds no numbers; which arrays there are where `name` is none of them.
    """
    array = _array(path, name)
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise InputError(f"{path} must hold numbers, inputs along the first axis; got {array.dtype} {array.shape}")
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # who takes them refuses what is not finite
        return torch.from_numpy(array.astype(dtype, order="C", copy=False))


def as_taken(data: Tensor, tokens: bool) -> Tensor:
    """Inputs as networks take them: tokens as int64 if they are whole numbers, everything else in float32.

    >>> as_taken(torch.tensor([2.0]), True), as_taken(torch.tensor([2]), False)
    (tensor([2]), tensor([2.]))
    """
    whole = not data.is_floating_point() or bool((data == data.round()).all())
    return data.long() if tokens and whole else data.float()


def _array(path: str, name: str | None) -> np.ndarray[Any, Any]:
    with opened(path) as held:
        if not isinstance(held, np.ndarray):
            return np.asarray(held[_chosen(held.files, path, name)])
        if name is not None:
            raise InputError(f"{path} holds one array without a name; leave --key out")
        return held


def _chosen(held: Sequence[str], path: str, name: str | None) -> str:
    usual = [known for known in USUAL_NAMES if known in held]
    chosen = name or (held[0] if len(held) == 1 else usual[0] if usual else None)
    if chosen is None or chosen not in held:
        wanted = "choose one with --key" if name is None else f"{name!r} is none of them"
        names = ", ".join(held[:6]) + ("" if len(held) <= 6 else f" and {len(held) - 6} more")
        raise InputError(f"{path} holds {names or 'nothing'}; {wanted}")
    return chosen


def written(path: str, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {reason_of(error)}") from None
