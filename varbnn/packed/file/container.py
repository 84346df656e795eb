"""The outside of a packed file: a safetensors file, read with every number checked and written whole or not at all.

8 bytes     length of the header, little-endian
header      JSON: for each tensor its dtype, shape and place in the data; `__metadata__`; spaces up to 64 bytes
data        the tensors, one after the other, little-endian
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import Tensor

from varbnn.errors import CheckpointError, InputError
from varbnn.packed.file.values import Fields, parse, require, shown
from varbnn.saving import replacing

LONGEST_HEADER = 2**26
"""Bytes; a program of thousands of steps takes less than one hundredth."""

MOST_TENSORS = 100_000
MOST_DIMENSIONS = 8
ALIGNMENT = 64
"""Of the data in the file, so that a mapped weight starts at a line of the cache."""

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
"""Names that safetensors gives them."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: bytes `begin` to `end` of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def meta(self) -> Tensor:
        """A tensor of that shape and dtype without memory."""
        return torch.empty(self.shape, dtype=DTYPES[self.dtype], device="meta")

    def within(self, pages: mmap.mmap, start: int) -> Tensor:
        """The tensor in the pages of a file whose data begin at byte `start`, with no other in its storage."""
        dtype = DTYPES[self.dtype]
        if self.begin == self.end:
            return torch.empty(self.shape, dtype=dtype, device="cpu")
        count = (self.end - self.begin) // dtype.itemsize
        return torch.frombuffer(pages, dtype=dtype, count=count, offset=start + self.begin).view(self.shape)


@dataclass(frozen=True)
class Container:
    """A file whose header is sound: every tensor lies inside of it, none over another, with nothing between them."""

    metadata: dict[str, str]
    entries: dict[str, Entry]
    start: int
    """Byte of the file where the data begin."""

    @classmethod
    def of(cls, file: IO[bytes]) -> Container:
        """Read the header of `file`; nothing larger is allocated than the file itself is.

        Raises:
            CheckpointError: the file is no sound safetensors file.
        """
        size = os.fstat(file.fileno()).st_size
        require(size >= 8, f"{size} bytes are too few for a packed file")
        (length,) = struct.unpack("<Q", _exactly(file, 8))
        most = min(size - 8, LONGEST_HEADER)
        require(
            0 < length <= most,
            "it is no packed file, or it was cut short: its first 8 bytes announce a header of "
            f"{length} bytes, at most {most} can be",
        )
        text = _exactly(file, length)
        require(text[:1] == b"{", "it does not start as a packed file does")
        require(
            (8 + length) % ALIGNMENT == 0,
            f"its data start at byte {8 + length}, which is no multiple of {ALIGNMENT}; varbnn did not write it",
        )
        header = parse(text, "the header")
        require(isinstance(header, dict), "the header must be an object")
        metadata = header.pop("__metadata__", {})
        require(
            isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()),
            "__metadata__ must be an object of texts",
        )
        require(0 < len(header) <= MOST_TENSORS, f"it holds {len(header)} tensors, 1 to {MOST_TENSORS} are possible")
        entries = {name: _entry(value, f"tensor {shown(name)}") for name, value in header.items()}
        _require_gapless(entries, size - 8 - length)
        return cls(metadata, entries, 8 + length)

    def read(self, file: IO[bytes]) -> dict[str, Tensor]:
        """All tensors, each in memory of its own.

        Raises:
            CheckpointError: the file became shorter meanwhile.
        """
        tensors = {}
        for name, entry in self.entries.items():
            tensors[name] = torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="cpu")
            file.seek(self.start + entry.begin)
            view = content(tensors[name])
            while len(view):
                count = file.readinto(view)  # type: ignore[attr-defined]
                require(count > 0, "it became shorter while it was read")
                view = view[count:]
        return tensors

    def map(self, file: IO[bytes]) -> dict[str, Tensor]:
        """All tensors as views of the file's pages, which processes share; writing to them never changes the file."""
        length = max(entry.end for entry in self.entries.values())
        pages = mmap.mmap(file.fileno(), self.start + length, access=mmap.ACCESS_COPY)
        return {name: entry.within(pages, self.start) for name, entry in self.entries.items()}


def raw(tensor: Tensor) -> Tensor:
    """The bytes of a contiguous tensor on the CPU, as one row."""
    return tensor.reshape(-1).view(torch.uint8)


def content(tensor: Tensor) -> memoryview:
    """The same for reading and writing files."""
    array: Any = raw(tensor).numpy()
    return memoryview(array)


def _exactly(file: IO[bytes], count: int) -> bytes:
    found = file.read(count)
    require(len(found) == count, "it became shorter while it was read")
    return found


def _entry(value: Any, where: str) -> Entry:
    fields = Fields(value, where)
    dtype = fields.choice("dtype", list(DTYPES))
    shape = fields.integers("shape", None, 0, 2**62)
    begin, end = fields.integers("data_offsets", 2, 0, 2**62)
    fields.done()
    width = DTYPES[dtype].itemsize
    require(
        len(shape) <= MOST_DIMENSIONS and math.prod(max(size, 1) for size in shape) < 2**60,
        f"{where}: the shape {shown(shape)} is not possible",
    )
    require(
        end - begin == math.prod(shape) * width,
        f"{where}: {dtype} of shape {tuple(shape)} takes {math.prod(shape) * width} bytes, its place has {end - begin}",
    )
    require(begin % width == 0, f"{where}: starts at byte {begin} of the data, which is no multiple of {width}")
    return Entry(dtype, tuple(shape), begin, end)


def _require_gapless(entries: Mapping[str, Entry], length: int) -> None:
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        require(
            entry.begin == at,
            f"tensor {shown(name)} starts at byte {entry.begin} of the data, expected {at}: tensors lie one after "
            "another",
        )
        at = entry.end
    require(at == length, f"its tensors take {at} bytes, the file has {length} for them; it was cut short or extended")
    require(length > 0, "its tensors are empty")


def write(path: str | os.PathLike[str], metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that appears whole or not at all; a file that was there stays until it is replaced.

    Args:
        path: the file; a link is followed.
        metadata: texts for the header.
        tensors: contiguous, on the CPU; wide elements are put first, so that all of them are aligned.

    Raises:
        InputError: it cannot be written, for instance because the disk is full.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-_alignment(item[1]), item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in ordered:
        end = at + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    try:
        with replacing(path) as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, tensor in ordered:
                file.write(content(tensor))
    except (OSError, ValueError) as error:  # the latter of names that no file can have
        raise InputError(
            f"cannot write {os.fspath(path)}: {_reason(error)}; a file that was there is as it was"
        ) from None


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _alignment(tensor: Tensor) -> int:
    """The largest power of two, at most that of a cache line, that divides the tensor's bytes."""
    count = tensor.nbytes
    return min(count & -count, ALIGNMENT) if count else tensor.element_size()


def opened(path: str | os.PathLike[str]) -> IO[bytes]:
    """The file, open for reading.

    Raises:
        CheckpointError: it cannot be opened.
    """
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise CheckpointError(f"cannot read {os.fspath(path)}: it is not an ordinary file")
        return open(path, "rb")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {os.fspath(path)}: {_reason(error)}") from None
