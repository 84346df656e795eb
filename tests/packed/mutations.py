"""Small packed files, and ways to damage one: by bytes, by its header, and by its program with all checksums mended."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import torch
from torch import nn

import varbnn as vb

HOSTILE: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 15, 16, 17, 31, 32, 33, 64, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**62, 2**63 - 1),
    *(2**63, -(2**63), 2**64, 10**30, 0.0, -0.0, 0.5, 1e308, 1e-320, float("nan"), float("inf"), True, False, None),
    *("", "0", "1", "relu", "sign", "none", "I32", "F32", "BOOL", "1.weight", "\u0000", "é" * 50, "x" * 5000, [], {}),
    *([0], [0, 0], [-1], [2**62, 2**62], [[[[]]]], {"ref": 0}, {"ref": 99}, {"tuple": []}, {"a": {"b": {}}}),
)


class Residual(nn.Module):
    """Functions, a constant, sizes, real layers and a weight that two layers share."""

    offset: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(7, 18), nn.Linear(18, 18, bias=False)
        self.norm, self.act = nn.LayerNorm(18), nn.PReLU()
        self.register_buffer("offset", torch.randn(18))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.one(x)) + self.offset
        h = h + self.two(self.act(self.norm(h)))
        h = nn.functional.pad(h, (1, 0), value=float("-inf"))[:, 1:]
        return h.reshape(x.shape[0], -1).clamp(min=-5, max=100.0) + self.two(h)


def networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Models to pack, each with inputs."""
    linear = nn.Sequential(nn.Linear(33, 17), nn.BatchNorm1d(17), nn.ReLU(), nn.Linear(17, 1))
    signs = nn.Sequential(
        nn.Linear(40, 32, bias=False), nn.BatchNorm1d(32), vb.nn.Sign(), nn.Linear(32, 3), nn.BatchNorm1d(3)
    )
    gates = nn.Sequential(
        *(nn.Linear(40, 33, bias=False), nn.LayerNorm(33, elementwise_affine=False), vb.nn.Gate("bits", reverse=True)),
        *(nn.Linear(33, 3, bias=False), nn.LayerNorm(3), vb.nn.Gate(width=0.5)),
    )
    norm = nn.BatchNorm2d(64)
    with torch.no_grad():
        norm.weight[::3] = -1.0  # of these channels the smallest sign is pooled
    images = nn.Sequential(
        *(nn.Conv2d(2, 64, 3, padding=(1, 0), bias=False), nn.MaxPool2d(2), norm, vb.nn.Sign()),
        *(nn.Conv2d(64, 10, (2, 1), groups=2, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(10, 4)),
    )
    tokens = nn.Sequential(
        nn.Embedding(9, 7, padding_idx=0), nn.Linear(7, 17), nn.ReLU(), nn.Flatten(), nn.Linear(51, 3)
    )
    return {
        "tokens": (vb.binarize(tokens), torch.randint(9, (5, 3))),
        "linear": (vb.binarize(linear), torch.randn(5, 33)),
        "signs": (vb.binarize(signs), torch.randn(5, 40)),
        "gates": (vb.binarize(gates), torch.randn(5, 40)),
        "images": (vb.binarize(images), torch.randn(3, 2, 4, 6)),
        "series": (vb.binarize(nn.Sequential(nn.Conv1d(3, 5, 2, padding=1), nn.Tanh())), torch.randn(4, 3, 6)),
        "residual": (vb.binarize(Residual()), torch.randn(5, 7)),
    }


def packed(name: str, num_samples: int = 2) -> tuple[vb.PackedEnsemble, torch.Tensor]:
    """One of `networks`, packed with statistics of its own for each network."""
    model, x = networks()[name]
    return vb.pack(model, num_samples, refresh_bn=x), x


class Parts:
    """A packed file taken apart: header, program (`document`) and data."""

    def __init__(self, content: bytes) -> None:
        (length,) = struct.unpack("<Q", content[:8])
        self.header: Any = json.loads(content[8 : 8 + length])
        self.document: Any = json.loads(self.header["__metadata__"]["document"])
        self.data = bytearray(content[8 + length :])

    def copy(self) -> Parts:
        return copy.deepcopy(self)

    def tensor(self, name: str) -> memoryview:
        begin, end = self.header[name]["data_offsets"]
        return memoryview(self.data)[begin:end]

    def mend(self) -> Parts:
        """Write the program back into the header, with the checksums that fit."""
        stated = self.document.get("tensors") if isinstance(self.document, dict) else None
        for name, entry in self.header.items():
            if name != "__metadata__" and isinstance(stated, dict) and isinstance(stated.get(name), dict):
                begin, end = entry["data_offsets"]
                stated[name]["sha256"] = hashlib.sha256(self.data[begin:end]).hexdigest()
        text = json.dumps(self.document)
        self.header["__metadata__"] |= {"document": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        return self

    def bytes(self) -> bytes:
        text = json.dumps(self.header).encode()
        text += b" " * (-(8 + len(text)) % 64)
        return struct.pack("<Q", len(text)) + text + self.data


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) inside of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def edit(root: Any, random: Random) -> None:
    """Change one place in JSON."""
    found = list(places(root))
    owner, key = random.choice(found)
    what = random.randrange(8)
    if what == 0 and isinstance(owner, list):
        owner.insert(key, copy.deepcopy(owner[key]))
    elif what == 0:
        owner[f"{key}_"] = copy.deepcopy(owner[key])
    elif what == 1:
        del owner[key]
    elif what == 2:
        other, there = random.choice(found)
        owner[key] = copy.deepcopy(other[there])
    elif what <= 4 and type(owner[key]) is int:
        owner[key] += random.choice((-1, 1, 16, 32, -32, 2**32))
    else:
        owner[key] = copy.deepcopy(random.choice(HOSTILE))


def _times(random: Random) -> range:
    return range(random.choice((1, 1, 1, 2, 5)))


def flip_bytes(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in _times(random):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def flip_header_bytes(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    end = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in _times(random):
        changed[random.randrange(end)] = random.randrange(256)
    return bytes(changed)


def truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def extend(content: bytes, random: Random) -> bytes:
    return content + random.randbytes(random.choice((1, 4, 64, 1000)))


def move(content: bytes, random: Random) -> bytes:
    start, length, to = random.randrange(len(content)), random.randrange(1, 200), random.randrange(len(content))
    return content[:to] + content[start : start + length] + content[to + random.choice((0, length)) :]


def announce(content: bytes, random: Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    others = (0, 1, length - 1, length + 1, length + 64, len(content), 2**26, 2**31, 2**63, 2**64 - 1)
    return struct.pack("<Q", random.choice(others)) + content[8:]


def repeat_names(content: bytes, random: Random) -> bytes:
    parts = Parts(content)
    name = random.choice(list(parts.header))
    again = json.dumps(random.choice((parts.header[name], {}, None)))
    text = f'{{"{name}": {again}, '.encode() + json.dumps(parts.header).encode()[1:]
    text += b" " * (-(8 + len(text)) % 64)
    return struct.pack("<Q", len(text)) + text + parts.data


def edit_header(content: bytes, random: Random) -> bytes:
    parts = Parts(content)
    for _ in _times(random):
        edit(parts.header, random)
    return parts.bytes()


def edit_program(content: bytes, random: Random) -> bytes:
    parts = Parts(content)
    for _ in _times(random):
        edit(parts.document, random)
    return parts.mend().bytes()


def edit_steps(content: bytes, random: Random) -> bytes:
    parts = Parts(content)
    for _ in _times(random):
        if parts.document["steps"]:
            edit(random.choice(parts.document["steps"]) or parts.document, random)
    return parts.mend().bytes()


def edit_numbers(content: bytes, random: Random) -> bytes:
    parts = Parts(content)
    for _ in _times(random):
        at = random.randrange(len(parts.data))
        parts.data[at : at + 4] = random.choice((b"\xff\xff\xff\x7f", b"\x00\x00\xc0\x7f", random.randbytes(4)))[
            : len(parts.data) - at
        ]
    return parts.mend().bytes()


def retype(content: bytes, random: Random) -> bytes:
    parts = Parts(content)
    name = random.choice([name for name in parts.header if name != "__metadata__"])
    entry, stated = parts.header[name], parts.document["tensors"][name]
    entry["dtype"] = stated["dtype"] = random.choice(("I32", "F32", "U8", "F16", "BF16", "I64", "BOOL", "F8_E4M3"))
    if random.random() < 0.5:
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["shape"] = stated["shape"] = random.choice(([size], [size // 4], [1, size // 4], [size, 0], [2**40]))
    return parts.mend().bytes()


BY_BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(flip_bytes, flip_header_bytes, truncate, extend, move, announce, repeat_names, edit_header),
)
"""Whatever these do, the checksums show it: the file is refused, or it is the ensemble that was saved."""

MENDED: tuple[Callable[[bytes, Random], bytes], ...] = (edit_program, edit_steps, edit_numbers, retype)
"""These mend the checksums, as an attacker would; the result can be another ensemble, but a sound one."""
