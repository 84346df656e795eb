"""Read a packed program from a file, or map it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from varbnn.errors import CheckpointError, InputError
from varbnn.packed.file.container import Container, opened
from varbnn.packed.file.contents import verify_contents
from varbnn.packed.file.document import document_of, program_of, verify_checksums
from varbnn.packed.program import Program


@dataclass(frozen=True)
class Opened:
    """A packed file that was read.

    Attributes:
        program: ready to run.
        num_samples: S.
        document: the header as JSON, see docs/packed-file.md.
        tensors: by their names in the file; those of the program.
        size: of the file in bytes.
    """

    program: Program
    num_samples: int
    document: dict[str, Any]
    tensors: dict[str, Tensor]
    size: int

    def verify(self, path: str | os.PathLike[str]) -> None:
        """Compare checksums and look at the numbers, for which all of the file is read.

        Raises:
            CheckpointError: one is wrong; the message names the file `path` and the tensor or step.
        """
        try:
            verify_checksums(self.document, self.tensors)
            verify_contents(self.program, self.tensors)
        except CheckpointError as error:
            raise CheckpointError(f"cannot load {os.fspath(path)}: {error}") from None


def read(path: str | os.PathLike[str], mmap: bool = False, verify: bool = True) -> Opened:
    """Read the file `path`; its structure is checked before its tensors are allocated.

    Args:
        path: written by `save`.
        mmap: leave the tensors in the file's pages.
        verify: also compare checksums and look at the numbers, for which all of the file is read.

    Raises:
        CheckpointError: it cannot be read, or is not what `save` writes; the message names the file, what was found
            and what is expected.
    """
    with opened(path) as file:
        try:
            container = Container.of(file)
            document = document_of(container)
            program_of(document, {name: entry.meta() for name, entry in container.entries.items()})
            tensors = container.map(file) if mmap else container.read(file)
            program, num_samples = program_of(document, tensors)
        except (CheckpointError, InputError) as error:
            raise CheckpointError(f"cannot load {os.fspath(path)}: {error}") from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CheckpointError(f"cannot read {os.fspath(path)}: {reason}") from None
        found = Opened(program, num_samples, document, tensors, os.fstat(file.fileno()).st_size)
    if verify:
        found.verify(path)
    return found
