"""The operations on packed bits: one schema, one fake, one place that decides who computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from varbnn.bits import words
from varbnn.kernels import checks
from varbnn.kernels.backend import implementation
from varbnn.kernels.drawing import draw, relax, sample_blocks
from varbnn.kernels.registry import register

__all__ = ["conv", "draw", "linear", "linear_int8", "pack_signs", "predictive", "relax", "sample_blocks"]

_FINISH = "Tensor? scale, Tensor? shift, str activation"
_FLAT = "Tensor values, Tensor weight, int in_features, int out_features, Tensor? scale, Tensor? shift"
SCHEMAS = {
    "pack_signs": "(Tensor values) -> (Tensor, Tensor)",
    "linear": f"({_FLAT}, str activation) -> Tensor",
    "linear_int8": f"({_FLAT}, str activation) -> Tensor",
    "predictive": f"({_FLAT}) -> (Tensor, Tensor)",
    "conv": "(Tensor values, Tensor weight, int in_channels, int out_channels, int[] kernel, int[] stride, "
    f"int[] padding, int[] dilation, int groups, {_FINISH}) -> Tensor",
}


def pack_signs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Signs of activations, +1 where ≥ 0, packed to words, and the number of +1 in each row.

    Args:
        values: ``float32``, shape (..., K).

    Returns:
        ``int32`` words, shape (..., ceil(K / 32)), and ``int32`` counts, shape (...).

    Raises:
        InputError: not float32, no dimension, or NaN (on the CPU).

    >>> pack_signs(torch.tensor([0.5, -2.0, 0.0]))
    (tensor([5], dtype=torch.int32), tensor(2, dtype=torch.int32))
    """
    return torch.ops.varbnn.pack_signs(values)


def linear(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """activation((values · weightᵀ) · scale + shift) for S networks in one call.

    Real activations are multiplied exactly in float32 (sums are re-associated); packed signs give exact whole numbers.

    Args:
        values: ``float32`` (S or 1, M, K), or packed signs, ``int32`` (S or 1, M, ceil(K / 32)); 1 where the S networks
            share their input. Unused bits of packed signs are 0.
        weight: blocks, ``int32`` (S, ceil(N / 16), ceil(K / 32), 16).
        in_features, out_features: K and N.
        scale, shift: per output, ``float32`` (S or 1, N).
        activation: ``"none"``, ``"relu"``, or ``"sign"``, which gives packed signs.

    Returns:
        ``float32`` (S, M, N), or ``int32`` (S, M, ceil(N / 32)) for ``"sign"``.

    Raises:
        InputError: shapes or dtypes do not fit, or a sign of NaN is asked for (on the CPU).

    >>> from varbnn.bits import pack_blocks
    >>> weight = pack_blocks(torch.tensor([[[1.0, -1.0, 1.0]], [[-1.0, -1.0, -1.0]]]))  # two networks, one output
    >>> linear(torch.tensor([[[1.0, 2.0, 3.0]]]), weight, 3, 1).flatten()
    tensor([ 2., -6.])
    """
    return torch.ops.varbnn.linear(values, weight, in_features, out_features, scale, shift, activation)


def linear_int8(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """As `linear` for real `values`, each row first rounded to 8 bits by its largest magnitude (about 0.8 % error).

    >>> from varbnn.bits import pack_blocks
    >>> linear_int8(torch.tensor([[[127.0, 1.0]]]), pack_blocks(torch.tensor([[[1.0, -1.0]]])), 2, 1).item()
    126.0
    """
    return torch.ops.varbnn.linear_int8(values, weight, in_features, out_features, scale, shift, activation)


def predictive(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The last layer with its softmax: what S networks say together, without their S×M×N logits.

    Args: those of `linear`.

    Returns:
        Class probabilities averaged over the networks, ``float32`` (M, N), and the average over the networks of the
        entropy of their own probabilities, ``float32`` (M), in nats. The entropy of the first minus the second is the
        mutual information.

    >>> from varbnn.bits import pack_blocks
    >>> weight = pack_blocks(torch.tensor([[[1.0], [-1.0]], [[-1.0], [1.0]]]))  # two networks that disagree
    >>> predictive(torch.tensor([[[1.0]]]), weight, 1, 2)
    (tensor([[0.5000, 0.5000]]), tensor([0.3653]))
    """
    return torch.ops.varbnn.predictive(values, weight, in_features, out_features, scale, shift)


def conv(
    values: Tensor,
    weight: Tensor,
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """A convolution over one, two or three dimensions of space, channels last, for S networks in one call.

    Args:
        values: ``float32`` (S or 1, M, *space, C), or packed signs of the channels, ``int32``
            (S or 1, M, *space, ceil(C / 32)). Packed signs need C / groups to be a multiple of 32 when groups > 1.
        weight: blocks, ``int32`` (S, groups · ceil(O / groups / 16), ceil(K / 32), 16), where input (tap, channel) of
            an output is ``tap · (C / groups) + channel`` and K = taps · C / groups.
        in_channels, out_channels: C and O.
        kernel, stride, dilation: one whole number per dimension of space.
        padding: zeros before and after each dimension, two whole numbers for each: (before, after, before, after, …).
        groups, scale, shift, activation: as in `torch.nn.Conv2d` and `linear`; scale and shift are (S or 1, O).

    Returns:
        ``float32`` (S, M, *space, O), or ``int32`` (S, M, *space, ceil(O / 32)) for ``activation="sign"``.

    Raises:
        InputError: shapes, dtypes or options do not fit; the kernel is larger than the padded input.

    >>> from varbnn.bits import pack_blocks
    >>> image = torch.arange(4.0).reshape(1, 1, 4, 1)  # one network's input: one row of four pixels, one channel
    >>> conv(image, pack_blocks(torch.tensor([[[1.0, -1.0]]])), 1, 1, [2], [1], [1, 0], [1]).flatten()
    tensor([ 0., -1., -1., -1.])
    """
    options = (list(kernel), list(stride), list(padding), list(dilation), groups, scale, shift, activation)
    return torch.ops.varbnn.conv(values, weight, in_channels, out_channels, *options)


def _run_pack_signs(values: Tensor) -> tuple[Tensor, Tensor]:
    checks.signs(values)
    return implementation(values.device).pack_signs(values.contiguous())


def _product(name: str) -> Callable[..., Any]:
    def run(values: Tensor, weight: Tensor, *options: Any) -> Any:
        if not checks.product(name, values, weight, *options):
            return _fake_product(name)(values, weight, *options)
        whole = [option.contiguous() if isinstance(option, Tensor) else option for option in options]
        return getattr(implementation(values.device), name)(values.contiguous(), weight.contiguous(), *whole)

    return run


def _fake_pack_signs(values: Tensor) -> tuple[Tensor, Tensor]:
    rows = values.shape[:-1]
    return (
        values.new_empty((*rows, words(values.shape[-1])), dtype=torch.int32),
        values.new_empty(rows, dtype=torch.int32),
    )


def _fake_product(name: str) -> Callable[..., Any]:
    def fake(values: Tensor, weight: Tensor, *options: Any) -> Any:
        if name == "predictive":
            rows, outputs = values.shape[1], options[1]
            shapes = [(rows, outputs), (rows,)]
            mean, entropy = (values.new_empty(shape, dtype=torch.float32) for shape in shapes)
            return mean, entropy
        shape, dtype = checks.result(name, values, weight, *options)
        return values.new_empty(shape, dtype=dtype)

    return fake


_RUN: dict[str, Callable[..., Any]] = {
    "pack_signs": _run_pack_signs,
    **{name: _product(name) for name in ("linear", "linear_int8", "predictive", "conv")},
}
_FAKE: dict[str, Callable[..., Any]] = {
    "pack_signs": _fake_pack_signs,
    **{name: _fake_product(name) for name in ("linear", "linear_int8", "predictive", "conv")},
}

for _name, _schema in SCHEMAS.items():
    register(_name, _schema, _RUN[_name], _FAKE[_name])
