"""Products with packed ±1 weights in plain torch: what every backend must reproduce, and the fallback without one.

Weights come in blocks (`varbnn.bits.pack_blocks`) with the S samples in front. Activations are real (``float32``) or
packed signs (``int32``); S networks share them (first dimension 1) or have their own (first dimension S).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from varbnn.bits import pack_bits, unpack, unpack_blocks
from varbnn.errors import InputError

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def pack_signs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Signs of the last dimension packed to words (+1 where ≥ 0), and how many of each row are +1."""
    if bool(values.isnan().any()):
        raise InputError("activations hold NaN, which has no sign")
    set_bits = values >= 0
    return pack_bits(set_bits).to(values.device), set_bits.sum(-1, dtype=torch.int32)


def linear(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str,
) -> Tensor:
    """activation((values · weight) · scale + shift) for each of S networks."""
    results = []
    for s, x, own_scale, own_shift in _each(values, weight, scale, shift, in_features):
        signs = unpack_blocks(weight[s], out_features, in_features)
        results.append(finish(F.linear(x, signs), own_scale, own_shift, activation))
    return torch.stack(results)


def linear_int8(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str,
) -> Tensor:
    """As `linear`, with each row of real `values` rounded to 8 bits by its largest magnitude; integers are exact."""
    results = []
    for s, x, own_scale, own_shift in _each(values, weight, scale, shift, in_features):
        signs = unpack_blocks(weight[s], out_features, in_features, torch.float64)
        quantised, step = quantise(x)
        product = F.linear(quantised.double(), signs).float() * step
        results.append(finish(product, own_scale, own_shift, activation))
    return torch.stack(results)


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as whole numbers from -127 to 127, in ``float32``, and the real size of one unit, shape (..., 1).

    A row of zeros has the unit 0; a row with NaN or inf has the unit NaN.
    """
    largest = rows.abs().amax(-1, keepdim=True)
    unit = largest / 127.0
    usable = (unit > 0) & unit.isfinite()
    whole = torch.where(usable, torch.round(rows * (127.0 / largest)).clamp(-127, 127), 0.0)
    return whole.nan_to_num(0.0), torch.where(usable | (unit == 0), unit, math.nan)


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
    """A convolution of channels-last `values` (S or 1, M, *space, C), with `padding` before and after each dimension.

    Input (tap, channel) of a weight row is `tap · (C / groups) + channel`; each group has blocks of its own. Padding is
    with zeros, also where activations are ±1.
    """
    fan_in, width = in_channels // groups, out_channels // groups
    margins = [margin for pair in zip(padding[-2::-2], padding[::-2], strict=True) for margin in pair]
    results = []
    for s, x, own_scale, own_shift in _each(values, weight, scale, shift, in_channels):
        rows = unpack_blocks(weight[s].unflatten(0, (groups, -1)), width, fan_in * math.prod(kernel))
        signs = channels_first(rows.reshape(out_channels, *kernel, fan_in))
        padded = F.pad(channels_first(x), margins)
        product = CONVOLUTIONS[len(kernel)](padded, signs, None, tuple(stride), 0, tuple(dilation), groups)
        results.append(finish(product.movedim(1, -1), own_scale, own_shift, activation))
    return torch.stack(results)


def channels_first(values: Tensor) -> Tensor:
    """Channels from the last dimension to dimension 1.

    A single channel gets the strides of an ordinary tensor: with those of a moved one, torch 2.13 on x86 reads memory
    that was never written where the output is one place wide and the stride is larger than 1.

    >>> channels_first(torch.zeros(2, 5, 1)).stride()
    (5, 5, 1)
    """
    return values.squeeze(-1).unsqueeze(1) if values.shape[-1] == 1 else values.movedim(-1, 1)


def predictive(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None,
    shift: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Class probabilities averaged over S networks (M, N), and the average entropy of each network's own (M), in nats.

    S×M×N is never held: one network at a time.
    """
    mean = entropy = torch.zeros((), device=values.device)
    for s, x, own_scale, own_shift in _each(values, weight, scale, shift, in_features):
        signs = unpack_blocks(weight[s], out_features, in_features)
        log_probs = finish(F.linear(x, signs), own_scale, own_shift, "none").double().log_softmax(-1)
        probs = log_probs.exp()
        mean = mean + probs
        entropy = entropy - torch.special.xlogy(probs, probs).sum(-1)
    samples = weight.shape[0]
    return (mean / samples).float(), (entropy / samples).float()


def finish(product: Tensor, scale: Tensor | None, shift: Tensor | None, activation: str) -> Tensor:
    """What follows a product: scale and shift per output (two roundings), then the activation."""
    if scale is not None:
        product = product * scale
    if shift is not None:
        product = product + shift
    if activation == "relu":
        return product.clamp_min(0)
    return pack_signs(product)[0] if activation == "sign" else product


def _each(
    values: Tensor, weight: Tensor, scale: Tensor | None, shift: Tensor | None, length: int
) -> Iterator[tuple[int, Tensor, Tensor | None, Tensor | None]]:
    """What belongs to each of the S networks: its number, activations (as real numbers), scale and shift."""

    def own(tensor: Tensor, s: int) -> Tensor:
        return tensor[s if len(tensor) > 1 else 0]

    for s in range(len(weight)):
        x = own(values, s)
        yield (
            s,
            unpack(x, length) if x.dtype == torch.int32 else x,
            None if scale is None else own(scale, s),
            None if shift is None else own(shift, s),
        )
