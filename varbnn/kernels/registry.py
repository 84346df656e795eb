"""Operations registered with ``torch.library`` as ``torch.ops.varbnn.*``.

``torch.compile`` and ``torch.export`` see through them; none has a gradient. The plain-torch definition of each is in
`varbnn.kernels.plain`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("varbnn", "DEF")


def register(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Make ``torch.ops.varbnn.<name>``: `run` computes it on any device, `fake` gives the shapes of its results."""
    LIBRARY.define(name + schema)
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"varbnn::{name}", fake, lib=LIBRARY)
