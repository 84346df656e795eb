"""What a packed program is made of: modules that run S networks at once on one merged batch.

Between steps a value is one tensor with the S networks folded into the batch, network by network: S·M rows, or M where
the networks do not differ yet. So everything that treats rows independently runs through torch as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.bits import WORD, sign, unpack_blocks
from varbnn.errors import InputError
from varbnn.kernels import ops
from varbnn.kernels.products import channels_first
from varbnn.packed.layout import conv_weight


def by_network(rows: Tensor, networks: int) -> Tensor:
    """(networks · M, ...) as (networks, M, ...)."""
    # by way of one dimension: so torch.export finds nothing in it that a batch of some size might not keep
    return rows.reshape(-1).reshape(networks, rows.shape[0] // networks, *rows.shape[1:])


class PackedProduct(nn.Module):
    """What the packed layers share: weights of S networks in blocks, then scale, shift and activation per output.

    Args:
        weight: ``int32`` blocks with S in front.
        scale, shift: ``float32`` (S or 1, outputs), or None.
        activation: ``"none"``, ``"relu"`` or ``"sign"``; the last gives packed signs.
        shared: whether the S networks share the input.
    """

    per_network = True
    weight: Tensor
    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self, weight: Tensor, scale: Tensor | None, shift: Tensor | None, activation: str, shared: bool
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.activation = activation
        self.shared = shared

    @property
    def num_samples(self) -> int:
        return len(self.weight)

    @property
    def width(self) -> int:
        """Outputs, or channels of the output."""
        raise NotImplementedError

    @property
    def takes_bits(self) -> bool:
        """Whether its input may be packed signs."""
        return True

    def taken(self, input: Tensor) -> Tensor:
        """Packed signs as they are, real numbers in ``float32``."""
        if input.dtype == torch.int32:
            return input
        if not input.is_floating_point():
            raise InputError(f"a binary layer takes floating inputs, got {input.dtype}")
        return input.float()

    def leading(self) -> int:
        """Networks in the rows of the input."""
        return 1 if self.shared else self.num_samples

    def finish(self, s: int) -> list[nn.Module]:
        """Scale, shift and activation of network `s` as plain modules."""
        own = [None if t is None else t[s : s + 1] if len(t) > 1 else t for t in (self.scale, self.shift)]
        linear = isinstance(self, PackedLinear)
        affine: list[nn.Module] = [Affine(own[0], own[1], channel_last=linear)] if own != [None, None] else []
        ends: dict[str, list[nn.Module]] = {"relu": [nn.ReLU()], "sign": [Affine(None, None, "sign")]}
        return affine + ends.get(self.activation, [])


class PackedLinear(PackedProduct):
    """`torch.nn.Linear` of S networks: (S·M or M, ..., K) real numbers or packed signs to (S·M, ..., N)."""

    def __init__(self, weight: Tensor, in_features: int, out_features: int, **finish: Any) -> None:
        super().__init__(weight, **{"scale": None, "shift": None, "activation": "none", "shared": False, **finish})
        self.in_features, self.out_features = in_features, out_features
        self.int8 = False  # round real inputs to 8 bits
        self.flat = False  # holds a batch norm, whose channel is dimension 1: the last one only in flat inputs

    @property
    def width(self) -> int:
        return self.out_features

    def forward(self, input: Tensor) -> Tensor:
        if self.flat and input.dim() != 2:
            raise InputError(
                f"a packed layer with batch norm folded in takes inputs (batch, {self.in_features}), got "
                f"{tuple(input.shape)}: batch norm over as many tokens as features would be taken for one over features"
            )
        values = self.arranged(input)
        product = ops.linear_int8 if self.int8 and values.dtype == torch.float32 else ops.linear
        result = product(
            values, self.weight, self.in_features, self.out_features, self.scale, self.shift,
            self.activation,
        )  # fmt: skip
        rows = input.shape[0] // self.leading() * self.num_samples
        return result.reshape(rows, *input.shape[1:-1], result.shape[-1])

    def predictive(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Average class probabilities and average entropy, without the logits of each network."""
        return ops.predictive(
            self.arranged(input), self.weight, self.in_features, self.out_features, self.scale, self.shift
        )

    def arranged(self, input: Tensor) -> Tensor:
        """The rows of `input`, shaped (S or 1, rows of each, K), in float32 unless they are bits."""
        input = self.taken(input)
        count = input.shape[0] // self.leading()
        for size in input.shape[1:-1]:
            count = count * size
        return input.reshape(-1).reshape(self.leading(), count, input.shape[-1])  # as `by_network` does it

    def member(self, s: int) -> list[nn.Module]:
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        signs = unpack_blocks(self.weight[s], self.out_features, self.in_features)
        layer.weight = nn.Parameter(signs, requires_grad=False)
        return [layer, *self.finish(s)]

    def extra_repr(self) -> str:
        int8 = ", int8" if self.int8 else ""
        return f"{self.num_samples} × {self.in_features} → {self.out_features}, {self.activation}{int8}"


class PackedConv(PackedProduct):
    """A convolution of S networks: (S·M or M, C, *space) to (S·M, O, *space), channels last in memory.

    Packed signs come and go as ``int32`` (rows, *space, words of channels).

    Args:
        weight: blocks, with inputs in the order (tap, channel).
        channels: C and O.
        kernel, stride, dilation: per dimension of space.
        padding: zeros before and after each dimension.
        groups: of channels.
    """

    def __init__(
        self,
        weight: Tensor,
        channels: tuple[int, int],
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        **finish: Any,
    ) -> None:
        super().__init__(weight, **{"scale": None, "shift": None, "activation": "none", "shared": False, **finish})
        self.channels, self.groups = (channels[0], channels[1]), groups
        self.kernel, self.stride, self.padding, self.dilation = map(list, (kernel, stride, padding, dilation))

    @property
    def width(self) -> int:
        return self.channels[1]

    @property
    def takes_bits(self) -> bool:
        return self.channels[0] // self.groups % WORD == 0

    def forward(self, input: Tensor) -> Tensor:
        values = self.taken(input)
        last = values if values.dtype == torch.int32 else values.movedim(1, -1).contiguous()
        result = ops.conv(
            by_network(last, self.leading()), self.weight, *self.channels, self.kernel, self.stride,
            self.padding, self.dilation, self.groups, self.scale, self.shift, self.activation,
        ).flatten(0, 1)  # fmt: skip
        return result if self.activation == "sign" else channels_first(result)

    def member(self, s: int) -> list[nn.Module]:
        dims = len(self.kernel)
        kinds: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        pads: tuple[Any, ...] = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
        layer = kinds[dims - 1](
            *self.channels, tuple(self.kernel), tuple(self.stride), 0, tuple(self.dilation), self.groups, False,
            device="meta",
        )  # fmt: skip
        signs = conv_weight(self.weight[s], tuple(layer.weight.shape), self.groups)
        layer.weight = nn.Parameter(signs, requires_grad=False)
        margins = [m for d in reversed(range(dims)) for m in self.padding[2 * d : 2 * d + 2]]
        pad = [pads[dims - 1](margins, 0.0)] if any(margins) else []
        return [*pad, layer, *self.finish(s)]

    def extra_repr(self) -> str:
        shape = "×".join(map(str, self.kernel))
        return f"{self.num_samples} × {self.channels[0]} → {self.channels[1]}, {shape}, {self.activation}"


class Affine(nn.Module):
    """x · scale + shift for each channel (dimension 1) and network, then an activation.

    Args:
        scale, shift: ``float32`` (S or 1, C), or None.
        activation: ``"none"``, ``"relu"`` or ``"sign"`` (±1 floats).
        channel_last: dimension -1 is the channel, as after a linear layer with more than two dimensions.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self, scale: Tensor | None, shift: Tensor | None, activation: str = "none", channel_last: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.activation, self.channel_last = activation, channel_last

    @property
    def per_network(self) -> bool:
        """Whether the networks have scales or shifts of their own."""
        return any(len(t) > 1 for t in (self.scale, self.shift) if t is not None)

    def forward(self, input: Tensor) -> Tensor:
        value = input
        for tensor, combine in ((self.scale, torch.mul), (self.shift, torch.add)):
            if tensor is not None:
                value = combine(value, self._per_row(tensor, input))
        if self.activation == "relu":
            return value.clamp_min(0)
        return sign(value) if self.activation == "sign" else value

    def _per_row(self, tensor: Tensor, input: Tensor) -> Tensor:
        if len(tensor) > 1:
            tensor = tensor.repeat_interleave(input.shape[0] // len(tensor), 0)
        space = [1] * (input.dim() - 2)
        return tensor.reshape(len(tensor), *space, -1) if self.channel_last else tensor.reshape(*tensor.shape, *space)

    def member(self, s: int) -> list[nn.Module]:
        own = [None if t is None else t[s : s + 1] if len(t) > 1 else t for t in (self.scale, self.shift)]
        return [Affine(own[0], own[1], self.activation, self.channel_last)]


class PackSigns(nn.Module):
    """±1 numbers to packed signs, along the last dimension, or along channels where there is space."""

    def __init__(self, channels_first: bool) -> None:
        super().__init__()
        self.channels_first = channels_first

    def forward(self, input: Tensor) -> Tensor:
        values = input.movedim(1, -1) if self.channels_first else input
        return ops.pack_signs(values.float().contiguous())[0]

    def member(self, s: int) -> list[nn.Module]:
        return []


class Spread(nn.Module):
    """Rows that the networks share, repeated for each of them."""

    per_network = True

    def __init__(self, num_samples: int) -> None:
        super().__init__()
        self.num_samples = num_samples

    def forward(self, input: Tensor) -> Tensor:
        return input.expand(self.num_samples, *input.shape).flatten(0, 1)

    def member(self, s: int) -> list[nn.Module]:
        return []
