"""The header of a packed file: the program as JSON, and the tensors that it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

from torch import Tensor

from varbnn.errors import CheckpointError, InputError
from varbnn.packed.file.container import DTYPES, NAMES, Container, content
from varbnn.packed.file.kinds import KINDS, Scope
from varbnn.packed.file.values import LARGEST, LONGEST_TEXT, Fields, parse, require, shown
from varbnn.packed.program import Program

FORMAT = "vbnn"
VERSION = 1
LAYOUT = (
    "int32 words, little-endian; bit i of word j is input 32 j + i, a set bit is +1; "
    "weights [network, block of 16 outputs, word, output in block]; unused bits and outputs are 0"
)
MOST_STEPS = 10_000
MOST_INPUTS = 1000


@dataclass
class Names:
    """Names for tensors, one for each memory: what is shared in the program is shared in the file."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    _known: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def give(self, step: int, tensor: Tensor, what: str) -> str:
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() == 0 or key not in self._known:
            self._known[key] = f"{step}.{what}"
            self.tensors[self._known[key]] = tensor.detach().cpu().contiguous()
        return self._known[key]


@dataclass
class Named:
    """The tensors of a file, and which of them a step has asked for."""

    tensors: Mapping[str, Tensor]
    used: set[str] = field(default_factory=set)

    def __call__(self, name: Any, where: str) -> Tensor:
        require(isinstance(name, str) and name in self.tensors, f"{where}: there is no tensor {shown(name)}")
        self.used.add(name)
        return self.tensors[name]


def checksum(tensor: Tensor) -> str:
    """SHA-256 of the bytes of a tensor on the CPU."""
    return hashlib.sha256(content(tensor)).hexdigest()


def describe(program: Program, num_samples: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document of `program`, and its tensors by name, on the CPU.

    Raises:
        InputError: a step that a file cannot hold; the message names it.
    """
    kinds = {kind.step: name for name, kind in KINDS.items()}
    names = Names()
    steps = []
    for index, (step, wire) in enumerate(zip(program.steps, program.wires, strict=True)):
        if type(step) not in kinds:
            raise InputError(f"step {index + 1} is a {type(step).__name__}, which a packed file cannot hold")
        kind = kinds[type(step)]
        fields = KINDS[kind].describe(step, partial(names.give, index + 1))
        steps.append({"kind": kind, "from": list(wire), **fields})
    tensors = {
        name: {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "sha256": checksum(tensor)}
        for name, tensor in names.tensors.items()
    }
    document = {
        "varbnn": version("varbnn"),
        "layout": LAYOUT,
        "num_samples": num_samples,
        "input": program.takes(),
        "steps": steps,
        "output": program.output,
        "tensors": tensors,
    }
    return document, names.tensors


def metadata_of(document: dict[str, Any]) -> dict[str, str]:
    """What stands in ``__metadata__``."""
    text = json.dumps(document, separators=(",", ":"))
    checked = hashlib.sha256(text.encode()).hexdigest()
    return {"format": FORMAT, "version": str(VERSION), "document": text, "sha256": checked}


def document_of(container: Container) -> dict[str, Any]:
    """The document of a file, with its own checksum and its list of tensors checked; not its steps.

    Raises:
        CheckpointError: no packed file, of a newer version, or damaged.
    """
    metadata = container.metadata
    require(
        metadata.get("format") == FORMAT,
        f"it says of itself format={shown(metadata.get('format'))}, expected {FORMAT!r}; it is no packed file",
    )
    number = metadata.get("version", "")
    if number != str(VERSION) and number.isascii() and number.isdigit() and len(number) < 10:
        what = "was written by a newer varbnn; upgrade to read it" if int(number) > VERSION else "does not exist"
        raise CheckpointError(f"its format has version {number}, which {what}; this varbnn reads version {VERSION}")
    require(number == str(VERSION), f"its version must be {VERSION}, found {shown(number)}")
    require(
        metadata.keys() == {"format", "version", "document", "sha256"},
        f"its metadata must be format, version, document and sha256, found {shown(sorted(metadata))}",
    )
    found = hashlib.sha256(metadata["document"].encode(errors="surrogatepass")).hexdigest()
    require(found == metadata["sha256"], "the checksum of its program is wrong; it was damaged or changed")
    document = parse(metadata["document"], "its program")
    fields = Fields(document, "its program")
    _check_tensors(fields.take("tensors"), container)
    return document


def _check_tensors(stated: Any, container: Container) -> None:
    require(
        isinstance(stated, dict) and stated.keys() == container.entries.keys(),
        "the tensors that its program states are not those that it holds",
    )
    for name, value in stated.items():
        fields = Fields(value, f"tensor {shown(name)}")
        dtype, shape = fields.choice("dtype", list(DTYPES)), fields.integers("shape", None, 0, 2**62)
        digest = fields.text("sha256")
        fields.done()
        entry = container.entries[name]
        require(
            (dtype, tuple(shape)) == (entry.dtype, entry.shape),
            f"tensor {shown(name)} should be {dtype} of shape {tuple(shape)}, found {entry.dtype} of shape "
            f"{entry.shape}",
        )
        require(len(digest) == 64, f"tensor {shown(name)} has no SHA-256")


def program_of(document: dict[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Program, int]:
    """The program that a document describes, with `tensors` in it (on the meta device to check it), and S.

    Raises:
        CheckpointError: anything about it is not as it must be.
    """
    fields, named = Fields(document, "its program"), Named(tensors)
    fields.take("tensors")
    written = fields.text("varbnn")
    require(written.isprintable() and len(written) < LONGEST_TEXT, f"varbnn must be a version, found {shown(written)}")
    layout = fields.text("layout")
    require(layout == LAYOUT, f"its bits lie in another order: {shown(layout)}; expected {LAYOUT!r}")
    num_samples = fields.integer("num_samples", 1, LARGEST)
    stated = fields.take("input")
    described = fields.items("steps", MOST_STEPS)
    output = fields.integer("output", 0, len(described))
    fields.done()
    steps, wires = [], []
    for number, value in enumerate(described, 1):
        step = Fields(value, f"step {number}")
        kind = KINDS[step.choice("kind", list(KINDS))]
        wire = step.integers("from", kind.inputs, 0, number - 1)
        require(len(wire) <= MOST_INPUTS, f"step {number} takes {len(wire)} values")
        try:
            steps.append(kind.make(step, Scope(named, num_samples, len(wire))))
        except InputError as error:
            raise CheckpointError(f"step {number}: {error}") from None
        step.done()
        wires.append(wire)
    unused = sorted(named.tensors.keys() - named.used)
    require(not unused, f"no step uses tensor {shown(unused[0]) if unused else ''}")
    program = Program(steps, wires, output)
    require(stated == program.takes(), f"its input is described as {shown(stated)}, its steps take {program.takes()}")
    return program, num_samples


def verify_checksums(document: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Are the bytes of all tensors those that were written?

    Raises:
        CheckpointError: one is not; the message names it.
    """
    for name, tensor in tensors.items():
        require(
            checksum(tensor) == document["tensors"][name]["sha256"],
            f"the checksum of tensor {shown(name)} is wrong; the file was damaged or changed after it was written",
        )
