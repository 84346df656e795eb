"""Fills the lists that would otherwise be kept by hand: the contents on the front page, the modules on the API page."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import varbnn

FIRST = [
    "start",
    "design",
    "the-one-rule",
    "comparison",
    "uncertainty",
    "signs",
    "defaults",
    "ablations",
    "posteriors",
    "training",
    "prediction",
    "shift",
    "querying",
    "regression",
    "integer",
    "continual",
    "continual-permuted",
    "continual-split",
    "streams",
    "sklearn",
    "pyro",
    "packed",
    "packed-file",
    "sdp",
    "layerwise",
    "gotchas",
    "vocabulary",
]  # the order to read in
LAST = ["api", "changelog"]
METHODS = [
    "straight-through",
    "bop",
    "bop2ndorder",
    "gradient-filter",
    "bayesbinn",
    "gaussian-blr",
    "vispa",
    "windowed-bayes",
    "following-prior",
    "bimu",
    "metaplastic",
    "moment-propagation",
]


INTERNAL = ("varbnn.__main__", "varbnn.cli")
INSIDE = (
    "varbnn.bridges.pyro",
    "varbnn.bridges.sklearn",
    "varbnn.continual.plots",
    "varbnn.data.corruptions",
    "varbnn.predict.metrics",
    "varbnn.predict.plots",
)
"""Modules below the top level that users import from."""

OF_SKLEARN = ("set_fit_request", "set_predict_request", "set_score_request")
"""Methods that scikit-learn makes, with links into its own pages."""


def contents(folder: Path) -> str:
    """The pages in `folder`: the known ones in reading order, new ones after them, then what is in its folders."""
    pages = _ordered({path.stem for path in folder.glob("*.md")} - {"index"}, FIRST, LAST)
    methods = _ordered({path.stem for path in folder.glob("methods/*.md")}, METHODS)
    adding, notes = (sorted(path.stem for path in folder.glob(f"{name}/*.md")) for name in ("adding", "notes"))
    return (
        _toctree("Contents", pages)
        + _toctree("Methods", [f"methods/{page}" for page in methods])
        + _toctree("Adding to it", [f"adding/{page}" for page in adding])
        + _toctree("Why it is built this way", [f"notes/{page}" for page in notes])
    )


def _ordered(pages: set[str], first: list[str], last: list[str] | None = None) -> list[str]:
    last = last or []
    between = sorted(pages - {*first, *last})
    return [page for page in first + between + last if page in pages]


def modules() -> str:
    """One section for every top-level module or package of varbnn that has an `__all__`, and for those in `INSIDE`."""
    names = [f"varbnn.{found.name}" for found in pkgutil.iter_modules(varbnn.__path__)]
    top = [name for name in names if name not in INTERNAL and getattr(importlib.import_module(name), "__all__", [])]
    public = sorted([*top, *INSIDE])
    options = f":members:\n   :exclude-members: {', '.join(OF_SKLEARN)}"
    return "".join(f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   {options}\n```\n\n" for name in public)


def _toctree(caption: str, entries: list[str]) -> str:
    listed = "\n".join(entries)
    return f"```{{toctree}}\n:maxdepth: 1\n:caption: {caption}\n\n{listed}\n```\n\n" if entries else ""


def fill(app, docname, source):
    if docname == "index":
        source[0] = source[0].replace("<!-- contents -->", contents(Path(app.srcdir)))
    if docname == "api":
        source[0] = source[0].replace("<!-- modules -->", modules())


def setup(app):
    app.connect("source-read", fill)
    # Both pages depend on more than their own text, so they are read again in every build.
    app.connect("env-get-outdated", lambda *_: ["index", "api"])
    return {"parallel_read_safe": True}
