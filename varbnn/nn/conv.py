"""The convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from varbnn.nn.layer import BinaryLayer


class BinaryConv1d(BinaryLayer, nn.Conv1d):  # type: ignore[override]  # its weight is drawn
    """`torch.nn.Conv1d` with ±1 weights drawn from a posterior, with all its options; the bias stays real."""

    twin = nn.Conv1d

    def forward(self, input: Tensor) -> Tensor:
        return self.respond(input, self._conv_forward)


class BinaryConv2d(BinaryLayer, nn.Conv2d):  # type: ignore[override]  # its weight is drawn
    """`torch.nn.Conv2d` with ±1 weights drawn from a posterior, with all its options; the bias stays real.

    >>> import torch
    >>> layer = BinaryConv2d(3, 8, 3, padding="same", padding_mode="reflect", bias=False)
    >>> layer(torch.zeros(1, 3, 5, 5)).shape
    torch.Size([1, 8, 5, 5])
    """

    twin = nn.Conv2d

    def forward(self, input: Tensor) -> Tensor:
        return self.respond(input, self._conv_forward)


class BinaryConv3d(BinaryLayer, nn.Conv3d):  # type: ignore[override]  # its weight is drawn
    """`torch.nn.Conv3d` with ±1 weights drawn from a posterior, with all its options; the bias stays real."""

    twin = nn.Conv3d

    def forward(self, input: Tensor) -> Tensor:
        return self.respond(input, self._conv_forward)
