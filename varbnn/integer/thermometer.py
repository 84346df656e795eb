"""Inputs as ±1: which of a few thresholds each feature reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from varbnn.checks import described, whole_number
from varbnn.errors import CheckpointError, InputError


class Thermometer(nn.Module):
    """Codes of inputs: +1 for every threshold that a feature reaches, -1 for the others, int8 N×(D·levels).

    Only integers are compared. Whole numbers, such as the bytes of an image, are taken as they are. Real numbers are
    taken by the bits of their float32, which are in the order of the numbers once those of negative ones are turned
    round, so their thresholds are integers too.

    Args:
        thresholds: int32, D×levels, copied; `Thermometer.fit` finds them.
        real: they are thresholds of real numbers.

    Raises:
        InputError: no tensor, or thresholds of another dtype or shape.

    >>> images = torch.tensor([[0, 7], [128, 7], [255, 9]], dtype=torch.uint8)
    >>> encoder = Thermometer.fit(images, levels=2)
    >>> encoder.thresholds
    tensor([[128, 255],
            [  7,   9]], dtype=torch.int32)
    >>> encoder(images)
    tensor([[-1, -1,  1, -1],
            [ 1, -1,  1, -1],
            [ 1,  1,  1,  1]], dtype=torch.int8)
    """

    thresholds: Tensor

    def __init__(self, thresholds: Tensor, *, real: bool = False) -> None:
        super().__init__()
        dense = isinstance(thresholds, Tensor) and thresholds.layout is torch.strided
        if not dense or thresholds.dtype != torch.int32 or thresholds.dim() != 2 or thresholds.numel() == 0:
            raise InputError(
                f"thresholds must be a tensor of int32, features × levels, got {described(thresholds)}; "
                "Thermometer.fit(train_x, levels=4) finds them"
            )
        self.real = real
        self.register_buffer("thresholds", thresholds.clone())

    @classmethod
    def fit(cls, inputs: Tensor, levels: int = 4) -> Self:
        """Thresholds at quantiles of the distinct values that each feature has, so that a common one, as the
        background of an image, takes no more than its share.

        Args:
            inputs: of training, N×…, integers or reals.
            levels: thresholds per feature; each is a code bit.

        Raises:
            InputError: no tensor, no inputs, NaN, infinite ones or reals too large for float32, integers of more than
                32 bits, or `levels` below 1.
        """
        levels = whole_number("levels", levels)
        values = _comparable(inputs)
        if values.numel() == 0:
            raise InputError(f"there is nothing to fit thresholds to, inputs have shape {tuple(inputs.shape)}")
        rows = []
        for feature in values.T:
            distinct = feature.unique()  # sorted
            ranks = torch.arange(1, levels + 1, device=distinct.device) * len(distinct) // (levels + 1)
            rows.append(distinct[ranks])
        return cls(torch.stack(rows), real=inputs.is_floating_point())

    def forward(self, inputs: Tensor) -> Tensor:
        values = _comparable(inputs)
        if inputs.is_floating_point() != self.real or values.shape[1] != len(self.thresholds):
            kind = "real numbers" if self.real else "whole numbers"
            raise InputError(
                f"the thresholds are those of {len(self.thresholds)} features of {kind}, got {inputs.dtype} "
                f"{tuple(inputs.shape)}"
            )
        reached = values[:, :, None] >= self.thresholds
        return reached.to(torch.int8).mul_(2).sub_(1).flatten(1)

    def get_extra_state(self) -> dict[str, bool]:
        return {"real": self.real}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        if state["real"] != self.real:
            own, given = ("whole", "real") if state["real"] else ("real", "whole")
            raise CheckpointError(f"the state holds thresholds of {given} numbers, this Thermometer is for {own} ones")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.set_extra_state(state_dict.get(f"{prefix}_extra_state", {"real": self.real}))  # before anything is loaded
        found = state_dict.get(f"{prefix}thresholds")
        if found is not None and described(found) != described(self.thresholds):
            raise CheckpointError(f"thresholds must be {described(self.thresholds)}, the state has {described(found)}")
        super()._load_from_state_dict(cast(dict[str, Any], state_dict), prefix, *args)

    def extra_repr(self) -> str:
        features, levels = self.thresholds.shape
        return f"{features} features, {levels} levels" + (", real" if self.real else "")


def _comparable(inputs: Tensor) -> Tensor:
    """Integers N×D, int32, in the order of the inputs.

    Raises:
        InputError: no dense tensor, NaN, infinite or complex inputs, truth values, reals too large for float32,
            integers of more than 32 bits.
    """
    if not isinstance(inputs, Tensor) or inputs.layout is not torch.strided:
        raise InputError(f"inputs must be a dense tensor, N×features, got {described(inputs)}")
    if inputs.dim() < 2 or inputs.is_complex() or inputs.dtype == torch.bool:
        raise InputError(f"inputs must be numbers, N×features, got {inputs.dtype} {tuple(inputs.shape)}")
    flat = inputs.reshape(len(inputs), inputs.shape[1:].numel())
    if inputs.is_floating_point():
        reals = flat.float() + 0.0  # -0 is 0
        if not bool(reals.isfinite().all()):
            if bool(flat.isfinite().all()):
                raise InputError("inputs have numbers too large for float32, in which they are ordered; rescale them")
            raise InputError("inputs have NaN or infinite entries, which no threshold can order; clean the data first")
        bits = reals.view(torch.int32)
        return bits ^ ((bits >> 31) & 0x7FFFFFFF)
    wide = flat.long()  # unsigned 64 bits beyond that come out negative
    values = wide.to(torch.int32)
    if bool((values != wide).any()) or (inputs.dtype == torch.uint64 and bool((wide < 0).any())):
        raise InputError(f"inputs of {inputs.dtype} must fit into 32 bits with their sign")
    return values
