"""Rules compute and remember in float32 at least, also for a parameter in half precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def full(dtype: torch.dtype) -> torch.dtype:
    """`dtype`, or float32 for a half precision: small steps would be lost in it."""
    return torch.promote_types(dtype, torch.float32)


def widened(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors themselves; of those in half precision a float32 copy."""
    return [t.to(full(t.dtype)) for t in tensors]


def narrow_(tensors: list[Tensor], wide: list[Tensor]) -> None:
    """Write the float32 copies of `widened` back."""
    for tensor, copy in zip(tensors, wide, strict=True):
        if copy is not tensor:
            tensor.copy_(copy)


def restore_wide(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Put float32 state of half-precision parameters back, which torch's `load_state_dict` rounds to theirs."""
    for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        for index, p in zip(group["params"], own["params"], strict=True):
            if p.is_floating_point() and full(p.dtype) != p.dtype:
                for name, value in saved["state"].get(index, {}).items():
                    if isinstance(value, Tensor) and value.is_floating_point() and name != "step":  # torch leaves it
                        optimizer.state[p][name] = value.detach().to(p.device, full(p.dtype), copy=True)
