"""scikit-build-core, which also goes on without CMake or a build tool: varbnn is then installed in plain torch.

Its own override `if.failed` (pyproject.toml) answers a compilation that fails; a CMake absent or too old, without
build isolation to bring one, is answered here.
"""

from __future__ import annotations

from typing import Any

from scikit_build_core import build
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)
from scikit_build_core.errors import NotFoundError

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]


def build_wheel(directory: str, settings: dict[str, Any] | None = None, metadata: str | None = None) -> str:
    try:
        return build.build_wheel(directory, settings, metadata)
    except NotFoundError as error:
        return build.build_wheel(directory, _without_cmake(settings, error), metadata)


def build_editable(directory: str, settings: dict[str, Any] | None = None, metadata: str | None = None) -> str:
    try:
        return build.build_editable(directory, settings, metadata)
    except NotFoundError as error:
        return build.build_editable(directory, _without_cmake(settings, error), metadata)


def _without_cmake(settings: dict[str, Any] | None, error: NotFoundError) -> dict[str, Any]:
    print(f"*** {error}: varbnn is installed without its compiled kernels", flush=True)
    return {**(settings or {}), "wheel.cmake": "false"}
