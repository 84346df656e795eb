"""A translation as text."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

from varbnn.optim.mappings.table import Mapping
from varbnn.optim.parts import Group
from varbnn.optim.rule import Rule

WIDTH = 100


def explained(source: type[Rule], target: type[Rule], groups: Sequence[Group], found: Sequence[Mapping]) -> str:
    """What `found` says of every group; groups that come to the same are told once."""
    texts = [
        _section(spelled(source, group), spelled(target, mapping.settings), mapping)
        for group, mapping in zip(groups, found, strict=True)
    ]
    if len(set(texts)) == 1:
        return texts[0]
    return "\n\n".join(f"group {number}: {text}" for number, text in enumerate(texts))


def spelled(rule: type[Rule], settings: Group) -> str:
    """The constructor call, without what is at its default.

    >>> from varbnn.optim import Bop
    >>> spelled(Bop, dict(gamma=0.1 + 0.2, threshold=1e-8, ties="larq"))
    "Bop(gamma=0.3, ties='larq')"
    """
    defaults = {
        key: each.default for key, each in inspect.signature(rule.__init__).parameters.items() if key != "params"
    }
    shown = [f"{k}={_number(settings[k])}" for k, default in defaults.items() if settings.get(k, default) != default]
    return f"{rule.__name__}({', '.join(shown)})"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _section(source: str, target: str, mapping: Mapping) -> str:
    starts = [f"{name} = {words}" for name, words in mapping.start.items()]
    paragraphs = [("starting from", starts), ("exact when", mapping.exact), ("note", mapping.notes)]
    lines = [source, f"= {target}"]
    for title, sentences in paragraphs:
        lines += [title] if sentences else []
        for sentence in sentences:
            lines += textwrap.wrap(sentence, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join(lines)
