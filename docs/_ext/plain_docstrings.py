"""Lets docstrings be plain text: the mathematics in them is not taken for reStructuredText.

Docstrings are read in terminals and editors far more often than in a browser, so they write |λ|, draw_, (*weight) and
indented formulas as they are. Before Sphinx reads them, this extension escapes those characters and turns indented
paragraphs into literal blocks. Doctests and `code` in backticks stay untouched.
"""

from __future__ import annotations

import re

CODE = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|`[^`]+`)")
SPECIAL = re.compile(r"(?<!\\)([*|]|(?<=\w)_(?!\w))")  # what is escaped by hand stays


def to_restructured_text(lines: list[str]) -> list[str]:
    """The lines of one docstring, with formulas set literally and special characters escaped.

    >>> to_restructured_text(["|x| of `a|b` and draw_", "", "    w = sign(|x|)", "", ">>> 2 ** 3", "8"])
    ['\\\\|x\\\\| of `a|b` and draw\\\\_', '', '::', '', '    w = sign(|x|)', '', '>>> 2 ** 3', '8']
    """
    out: list[str] = []
    depth = 0  # indentation of the last ordinary line
    literal: int | None = None  # indentation of the literal block we are in
    doctest = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            doctest = False
            out.append(line)
            continue
        if literal is not None and indent < literal:
            literal = None
        if literal is None:
            doctest = doctest or line.lstrip().startswith(">>>")
            after_blank = bool(out) and not out[-1].strip()
            if after_blank and indent > depth and not doctest:
                literal = indent
                if not any(kept.rstrip().endswith("::") for kept in out[-2:-1]):
                    out += [" " * depth + "::", ""]
        if literal is None and not doctest:
            depth = indent
            line = "".join(part if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(CODE.split(line)))
        out.append(line)
    return out


def process(app, what, name, obj, options, lines):
    lines[:] = to_restructured_text(lines)


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon, which reads the sections
    return {"parallel_read_safe": True}
