"""A run that goes on must be asked for what it was begun with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from varbnn.cli.arguments import written
from varbnn.demo.output import as_json
from varbnn.errors import InputError

PLACES = ("data", "data_dir")
"""Settings that say where the data lie, which differs from folder to folder; a fingerprint says what they are."""


def differing(before: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Names of the settings that are others now. Raises: KeyError where one was not written down."""
    others = [key for key, value in asked.items() if key not in PLACES and before[key] != value]
    if "seed" in others and "fingerprint" in others:
        others.remove("fingerprint")  # the seed splits the data
    return ["data" if key == "fingerprint" else key for key in others]


def going_on(state: Path, settings: Path, asked: Mapping[str, Any]) -> bool:
    """Compare what is `asked` with the file of `settings` of a run that left a `state`; without one write them down.

    Returns:
        Whether there is such a run.

    Raises:
        InputError: it was asked for something else, or its settings cannot be read.
    """
    if not state.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        written(str(settings), as_json(dict(asked)).encode())
        return False
    try:
        other = differing(json.loads(settings.read_text(encoding="utf-8")), asked)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{settings} does not say what the run in {state.parent} was asked for ({error}); choose another --out, or "
            f"remove {state} to start afresh"
        ) from error
    if other:
        raise InputError(
            f"{state.parent} holds a run with another setting of {', '.join(other)}; choose another --out, or remove "
            f"{state} to start afresh"
        )
    return True
