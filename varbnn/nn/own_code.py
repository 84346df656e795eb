"""Does a layer compute something else than the class of the library that it is of?"""

from __future__ import annotations

from torch import nn

METHODS = ("forward", "weight", "weight_for", "respond", "_conv_forward")
"""What a binary layer's answer comes from."""


def own_code(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """The name of what `module` has instead of what `kind` has: in its class, or put into the object; None for none."""
    for name in METHODS:
        if name in module.__dict__ or getattr(type(module), name, None) is not getattr(kind, name, None):
            return name
    return None
