"""Run or read a model's forward without leaving anything behind in it."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from varbnn.nn.layer import PASSING

ONE_AT_A_TIME = threading.RLock()
"""torch.fx patches torch.nn.Module while it reads a forward, for all threads; and a model that is read is in eval mode,
with other weights for a while. Never held while a caller's data are iterated, which may wait for another thread."""

REGISTERED = ("_parameters", "_buffers", "_modules")
OF_TORCH = frozenset(nn.Module().__dict__)
MOST_ITEMS = 10_000
"""Of a list or dict that is put back; no forward fills larger ones with what it computes."""


@contextmanager
def untouched(root: nn.Module) -> Iterator[None]:
    """Afterwards every module has the attributes, the contents of lists and dicts, and the buffers that it had."""
    modules = [(module.__dict__, dict(module.__dict__)) for module in root.modules()]
    contents = list[tuple[Any, Any]]()
    seen = set[int]()
    for _, attributes in modules:
        contents += [(attributes[key], dict(attributes[key])) for key in REGISTERED]
        for key, value in attributes.items():
            if key not in OF_TORCH and key not in PASSING:
                _remember(value, contents, seen)
    buffers = [(b, b._version, b.detach().clone()) for b in root.buffers() if not b.is_inference()]
    try:
        yield
    finally:
        for held, attributes in modules:
            for key in held.keys() - attributes.keys():
                del held[key]
            for key, value in attributes.items():
                if key not in OF_TORCH and key not in PASSING and held.get(key) is not value:
                    held[key] = value
        for value, content in contents:
            _put_back(value, content)
        with torch.no_grad():
            for buffer, version, content in buffers:
                if buffer._version > version:
                    buffer.copy_(content)


def _remember(value: Any, contents: list[tuple[Any, Any]], seen: set[int]) -> None:
    """Note what is in a container, and in those inside."""
    if not isinstance(value, list | dict | set | deque) or len(value) > MOST_ITEMS or id(value) in seen:
        return
    seen.add(id(value))
    contents.append((value, dict(value) if isinstance(value, dict) else list(value)))
    for item in value.values() if isinstance(value, dict) else value:
        _remember(item, contents, seen)


def _put_back(value: Any, content: Any) -> None:
    if isinstance(value, dict):
        if value.keys() != content.keys() or any(value[key] is not item for key, item in content.items()):
            kind: Any = OrderedDict if isinstance(value, OrderedDict) else dict  # one of its own may refuse
            kind.clear(value)
            kind.update(value, content)
    elif len(value) != len(content) or any(a is not b for a, b in zip(value, content, strict=True)):
        if isinstance(value, list):
            list.__setitem__(value, slice(None), content)
        else:
            value.clear()
            (value.update if isinstance(value, set) else value.extend)(content)
