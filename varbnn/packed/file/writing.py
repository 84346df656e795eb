"""Write a packed program to a file."""

from __future__ import annotations

import os

from varbnn.errors import CheckpointError, InputError
from varbnn.packed.file.container import write
from varbnn.packed.file.contents import verify_contents
from varbnn.packed.file.document import describe, metadata_of, program_of
from varbnn.packed.program import Program


def save(program: Program, num_samples: int, path: str | os.PathLike[str]) -> None:
    """Write `program`, which runs `num_samples` networks, to `path`.

    Raises:
        InputError: a step that a file cannot hold, numbers that the reader would refuse, or a path that cannot be
            written to. Nothing is written then, and a file that was there is as it was.
    """
    document, tensors = describe(program, num_samples)
    try:
        again, _ = program_of(document, tensors)  # what is written can be read
        verify_contents(again, tensors)
    except CheckpointError as error:
        raise InputError(f"the ensemble cannot be saved: {error}") from None
    write(path, metadata_of(document), tensors)
