"""Arrays from .npz archives and idx files, and nothing taken on trust."""

from __future__ import annotations

import gzip
import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from varbnn.data.dataset import Array
from varbnn.errors import InputError

UNSIGNED_BYTE = 0x08

UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, RuntimeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""In one of these ends what numpy reads from a damaged file: headers are Python, archives zip files of any kind."""


def list_directory(directory: Path) -> None:
    """Raise InputError unless `directory` is one and can be listed."""
    try:
        next(directory.iterdir(), None)
    except OSError as error:
        raise InputError(f"cannot read the data directory {directory}: {reason_of(error)}") from None


def find(archives: Sequence[Path], folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first file that is there: an archive, else one of the idx files `names`, gzipped or not, in a folder."""
    endings = [name + ending for name in names for ending in ("", ".gz")]
    candidates = [*archives, *(folder / name for folder in folders for name in endings)]
    return next((path for path in candidates if path.exists()), None)


def pixels_of(path: Path, key: str, side: int) -> Array:
    """Images from `path`, N×(side·side) uint8.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    images = _array(path, key, dimensions=3)
    flat = images.reshape(len(images), math.prod(images.shape[1:])) if images.ndim in (2, 3) else images
    if images.dtype != np.uint8 or flat.ndim != 2 or flat.shape[1] != side * side or len(flat) == 0:
        raise InputError(
            f"{path}: {key} should be N×{side}×{side} unsigned bytes with N ≥ 1, got {shape_of(images)}; "
            "get the file again"
        )
    return flat


def labels_of(path: Path, key: str, classes: int, first: int = 0) -> Array:
    """Labels from `path`, N integers from 0 to classes - 1; in the file they start at `first`.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    labels = _array(path, key, dimensions=1)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise InputError(f"{path}: {key} should be N integers with N ≥ 1, got {shape_of(labels)}; get the file again")
    if labels.min() < first or labels.max() >= first + classes:
        raise InputError(
            f"{path}: labels should be {first} … {first + classes - 1}, got {labels.min()} … {labels.max()}; "
            "is this another data set?"
        )
    return labels - labels.dtype.type(first)


def _array(path: Path, key: str, dimensions: int) -> Array:
    return from_archive(path, key) if path.suffix == ".npz" else read_idx(path, dimensions)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Array | np.lib.npyio.NpzFile]:
    """A .npy file as its array, an .npz file to take arrays from; nothing in them is unpickled.

    Raises:
        InputError: the file cannot be read, also where the block finds out.
    """
    try:
        with open(path, "rb") as file:
            yield np.load(file, allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from None
    except MemoryError as error:
        raise InputError(f"{path} is larger than memory has room for ({reason_of(error)})") from None
    except UNREADABLE as error:
        objects = "Object arrays" in str(error)
        todo = "save numbers, and labels as integers" if objects else "get the file again"
        raise InputError(f"{path} is not a readable .npy or .npz file ({reason_of(error)}); {todo}") from None


def from_archive(path: Path, key: str) -> Array:
    """The array `key` of an .npz archive, whatever it holds but objects.

    Raises:
        InputError: the file cannot be read, is something else, or has no such array.
    """
    with opened(path) as held:
        if isinstance(held, np.ndarray):
            raise InputError(f"{path} is a single array; expected an .npz with {key}")
        if key not in held.files:
            raise InputError(f"{path} has no array {key}; it has {', '.join(held.files) or 'none'}")
        return np.asarray(held[key])


def read_idx(path: Path, dimensions: int) -> Array:
    """An idx file of unsigned bytes, gzipped if its name ends in .gz.

    The format: two zero bytes, the type (8 is unsigned byte), the number of dimensions, then each dimension as a
    big-endian 32-bit integer, then the data, the last dimension running fastest.

    Raises:
        InputError: the file cannot be read, has another type or number of dimensions, or another size than it says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 * (1 + dimensions))
            magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
            if header[:4] != magic:
                raise InputError(
                    f"{path} starts with 0x{header[:4].hex()}, an idx file of unsigned bytes in {dimensions} dimension"
                    f"{'s' * (dimensions > 1)} with 0x{magic.hex()}; is it another file, or still compressed?"
                )
            shape = np.frombuffer(header[4:], dtype=">u4").tolist() if len(header) % 4 == 0 else []
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}; get the file again") from None
    if len(shape) != dimensions or len(content) != math.prod(shape):
        announced = f"{'×'.join(map(str, shape))} bytes" if len(shape) == dimensions else "a longer header"
        raise InputError(f"{path} announces {announced} but has {len(content)}; get the file again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def shape_of(array: Array) -> str:
    """Shape and type of an array, for a message."""
    return f"{'×'.join(map(str, array.shape)) or 'a single'} {array.dtype}"


def reason_of(error: Exception) -> str:
    """What went wrong with a file, in one line."""
    if isinstance(error, gzip.BadGzipFile):
        return "not a whole gzip file"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    if "file contains pickled" in text:  # numpy's guess about whatever does not begin as its own files do
        return "it begins like no file of numpy; a table of text is read by numpy.genfromtxt, and np.savez writes it"
    return text.splitlines()[0].rstrip(".").lower()
