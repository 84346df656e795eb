"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from varbnn.data.files import reason_of
from varbnn.errors import InputError

REPORT = "report.json"

DEMO, CONTINUAL, TRAIN = "varbnn demo", "varbnn continual", "varbnn train"
"""What writes reports, and says so in them as `program`."""


class Output:
    """A directory to publish files in, and a hidden folder in it where they are made.

    Attributes:
        path: the directory.
        draft: write here, then `publish`.
        program: who publishes, for its report.
    """

    def __init__(self, path: Path, draft: Path, program: str) -> None:
        self.path, self.draft, self.program = path, draft, program

    def publish(self) -> list[str]:
        """Move every draft to its place, the report last, and remove files of the report before that are not made anew.

        Returns:
            The names, the report last.

        Raises:
            InputError: a file cannot be put in its place, or another program's run has come there.
        """
        before = _required_own(self.path, self.program)
        names = sorted((path.name for path in self.draft.iterdir()), key=lambda name: (name == REPORT, name))
        try:
            for outdated in set(before) - set(names):
                (self.path / outdated).unlink(missing_ok=True)
            for name in names:
                os.replace(self.draft / name, self.path / name)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {reason_of(error)}") from None
        return names


def as_json(report: dict[str, Any]) -> str:
    """Text for a file; JSON has no NaN, and a point's divergence is one: it becomes null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return None if isinstance(value, float) and value != value else value

    return json.dumps(clean(report), indent=2, allow_nan=False) + "\n"


@contextmanager
def output(path: Path, program: str) -> Iterator[Output]:
    """Make the directory `path` if need be, and show at once that `program` can write to it.

    Whatever ends the block, no draft stays behind, nor a directory that was made for nothing.

    Raises:
        InputError: the directory cannot be made or written to, now or when a draft is written, or holds a run of
            another program.
    """
    _required_own(path, program)
    made = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
    draft = None
    try:
        path.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=path))
        yield Output(path, draft, program)
    except OSError as error:
        if draft is not None and str(draft) not in str(error.filename):
            raise  # not about our files
        raise InputError(f"cannot write to {path}: {reason_of(error)}; choose another directory with --out") from None
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it is not empty: then it was not made for nothing
                folder.rmdir()


def _required_own(path: Path, program: str) -> list[str]:
    """The files of the run of `program` that the directory holds; none without such a run.

    Raises:
        InputError: it holds a run of another program.
    """
    try:
        report = json.loads((path / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(report, dict):
        return []
    by = report.get("program")
    if by not in (program, None):
        raise InputError(f"{path} holds a run of {by}; choose another --out, or remove its {REPORT} first")
    files = report.get("files")
    return [
        name
        for name in (files if by is not None and isinstance(files, list) else [])
        if isinstance(name, str) and name.endswith((".png", ".vbnn")) and Path(name).name == name
    ]
