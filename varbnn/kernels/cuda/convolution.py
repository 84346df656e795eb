"""Convolutions on CUDA devices.

Real activations: the product's loader reads the places of the image by index, nothing is unfolded. Packed signs: the
patches are unfolded to words (one bit a value, and one that says whether its tap lies inside the image) for as many
images as fit in 256 MB at a time, then multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from varbnn.kernels.cuda import plan
from varbnn.kernels.cuda.arguments import Convolution, Product, Unfold, address, product, three
from varbnn.kernels.cuda.launch import Gpu, gpu
from varbnn.kernels.cuda.products import aligned, is_wide, result, sample_stride, size_of
from varbnn.kernels.cuda.sampling import pack_signs


def conv(
    values: Tensor,
    weight: Tensor,
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str,
) -> Tensor:
    """A convolution of channels-last `values` (S or 1, M, *space, C); `padding` before and after each dimension."""
    if activation == "sign" and groups > 1 and (out_channels // groups) % 32 != 0:
        # words of the result would belong to two groups
        options = (kernel, stride, padding, dilation, groups, scale, shift, "none")
        return pack_signs(conv(values, weight, in_channels, out_channels, *options))[0]
    weight = aligned(weight)
    size = list(values.shape[2:-1])
    out_size, places = plan.out_places(size, list(kernel), list(stride), list(padding), list(dilation))
    geometry = {
        "size": three(size, 1),
        "out": three(out_size, 1),
        "kernel": three(kernel, 1),
        "stride": three(stride, 1),
        "before": three(padding[::2], 0),
        "dilation": three(dilation, 1),
    }
    layer = Layer(weight, in_channels // groups * prod(kernel), out_channels, groups, scale, shift, activation)
    out = result(weight, (values.shape[1], *out_size), out_channels, activation)
    device = gpu(values.device)
    if values.dtype == torch.int32:
        taps = Taps(geometry, places, groups, in_channels // groups, any(padding))
        _packed(device, layer, taps, values, out)
        return out
    arguments = layer.arguments(out)
    arguments.values = address(values)
    arguments.rows = values.shape[1] * places
    arguments.values_sample, arguments.values_row = sample_stride(values), values.stride(1)
    arguments.values_group = in_channels // groups
    device.run(
        plan.conv(size_of(arguments)),
        Convolution(product=arguments, **geometry, channels=in_channels, group_channels=in_channels // groups),
    )
    return out


@dataclass(frozen=True)
class Layer:
    """Weights of S networks with what follows their product."""

    weight: Tensor
    inputs: int
    outputs: int
    groups: int
    scale: Tensor | None
    shift: Tensor | None
    activation: str

    def of(self, network: int) -> Layer:
        """The same of one network."""

        def own(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or len(tensor) == 1 else tensor[network : network + 1]

        return replace(self, weight=self.weight[network : network + 1], scale=own(self.scale), shift=own(self.shift))

    def arguments(self, out: Tensor) -> Product:
        given = product(self.weight, self.inputs, self.outputs, self.groups, self.scale, self.shift, self.activation)
        given.out = address(out)
        return given


@dataclass(frozen=True)
class Taps:
    """Where the inputs of a place lie."""

    geometry: dict[str, Any]
    places: int
    groups: int
    group_channels: int
    some_outside: bool


def _packed(device: Gpu, layer: Layer, taps: Taps, values: Tensor, out: Tensor) -> None:
    """Unfold and multiply everything at once, or network by network and as many images at a time as fit."""
    width = layer.weight.shape[2]
    networks, images = values.shape[:2]
    at_once = plan.images_at_once(taps.places, taps.groups, width)
    whole = networks * images <= at_once
    step = images if whole else min(images, at_once)
    rows = (networks if whole else 1) * step * taps.places
    patches = values.new_empty((2, rows, taps.groups, width))
    if whole:
        _unfold(device, taps, values.flatten(0, 1), patches)
        _multiply(device, layer, taps, patches, out, shared=networks == 1)
        return
    for own in range(networks):
        for first in range(0, images, step):
            some = slice(first, first + step)
            _unfold(device, taps, values[own, some], patches)
            for network in range(len(out)) if networks == 1 else [own]:
                _multiply(device, layer.of(network), taps, patches, out[network : network + 1, some], shared=True)


def _unfold(device: Gpu, taps: Taps, images: Tensor, patches: Tensor) -> None:
    groups, width = patches.shape[2:]
    arguments = Unfold(
        values=address(images),
        patches=address(patches[0]),
        inside=address(patches[1]),
        images=len(images),
        **taps.geometry,
        groups=groups,
        group_channels=taps.group_channels,
        channel_words=images.shape[-1],
        words=width,
    )
    device.run(plan.each("unfold_bits", len(images) * taps.places * groups * width, 256), arguments)


def _multiply(device: Gpu, layer: Layer, taps: Taps, patches: Tensor, out: Tensor, shared: bool) -> None:
    """All networks of `layer` with the patches: the same for all, or each with its own."""
    arguments = layer.arguments(out)
    arguments.values, arguments.beside = address(patches[0]), address(patches[1])
    arguments.rows = out.shape[1] * taps.places
    arguments.values_row, arguments.values_group = patches.stride(1), patches.stride(2)
    arguments.values_sample = 0 if shared else arguments.rows * arguments.values_row
    wide = is_wide(patches[0]) and is_wide(patches[1])
    device.run(plan.bits(device.chip, size_of(arguments), wide, masked=taps.some_outside), arguments)
