"""Fills the API page from the package: one section for every top-level module or package that has an `__all__`."""

from __future__ import annotations

import importlib
import pkgutil

import varbnn

PLACEHOLDER = "<!-- every public module -->"


def public_modules() -> list[str]:
    names = [f"varbnn.{found.name}" for found in pkgutil.iter_modules(varbnn.__path__)]
    return [name for name in names if not name.endswith("__main__") and _exports(name)]


def sections() -> str:
    blocks = []
    for name in public_modules():
        blocks.append(f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n")
    return "\n".join(blocks)


def _exports(name: str) -> list[str]:
    return getattr(importlib.import_module(name), "__all__", [])


def fill(app, docname, source):
    if docname == "api":
        source[0] = source[0].replace(PLACEHOLDER, sections())


def setup(app):
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
