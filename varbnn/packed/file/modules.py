"""Modules of torch.nn that a packed file may hold: which classes, with which options, in which range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.errors import CheckpointError, InputError
from varbnn.packed.file.values import LARGEST, decode, encode, is_integer, require, shown

Fits = Callable[[Any], bool]


def _count(value: Any) -> bool:
    return is_integer(value, 1, LARGEST)


def _natural(value: Any) -> bool:
    return is_integer(value, 0, LARGEST)


def _dimension(value: Any) -> bool:
    return is_integer(value, -64, 63)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _never(value: Any) -> bool:
    return value is False


def _absent(value: Any) -> bool:
    return value is None


def _maybe(fits: Fits) -> Fits:
    return lambda value: value is None or fits(value)


def _several(fits: Fits, most: int = 3) -> Fits:
    """One, or a tuple or list of up to `most`."""

    def check(value: Any) -> bool:
        return fits(value) or (isinstance(value, tuple | list) and 0 < len(value) <= most and all(map(fits, value)))

    return check


def _one_of(*names: str) -> Fits:
    return lambda value: isinstance(value, str) and value in names


def _any(*kinds: Fits) -> Fits:
    return lambda value: any(fits(value) for fits in kinds)


def _crop(value: Any) -> bool:
    return is_integer(value, -LARGEST, LARGEST)


_COUNTS, _NATURALS, _MARGINS = _several(_count), _several(_natural), _several(_crop, 6)
_CONV: dict[str, Fits] = {
    "in_channels": _count, "out_channels": _count, "kernel_size": _COUNTS, "stride": _COUNTS,
    "padding": _any(_NATURALS, _one_of("same", "valid")), "dilation": _COUNTS, "groups": _count, "bias": _flag,
    "padding_mode": _one_of("zeros", "reflect", "replicate", "circular"),
}  # fmt: skip
_TRANSPOSED = {**_CONV, "padding": _NATURALS, "output_padding": _NATURALS, "padding_mode": _one_of("zeros")}
_MAX_POOL: dict[str, Fits] = {
    "kernel_size": _COUNTS, "stride": _COUNTS, "padding": _NATURALS, "dilation": _COUNTS, "ceil_mode": _flag,
    "return_indices": _never,
}  # fmt: skip
_MEAN_POOL: dict[str, Fits] = {
    "kernel_size": _COUNTS, "stride": _COUNTS, "padding": _NATURALS, "ceil_mode": _flag, "count_include_pad": _flag,
}  # fmt: skip
_DIVIDED_POOL = {**_MEAN_POOL, "divisor_override": _maybe(_count)}
_ADAPTIVE: dict[str, Fits] = {"output_size": _several(_maybe(_count))}
_INSTANCE: dict[str, Fits] = {
    "num_features": _count, "eps": _number, "momentum": _maybe(_number), "affine": _flag, "track_running_stats": _flag,
}  # fmt: skip
_NORMALIZED = {"normalized_shape": _several(_count, 8), "elementwise_affine": _flag}
_SHAPE: Fits = _several(lambda value: is_integer(value, -1, LARGEST), 8)

CLASSES: dict[str, tuple[type[nn.Module], Mapping[str, Fits]]] = {
    cls.__name__: (cls, options)
    for classes, options in (
        ((nn.Linear,), {"in_features": _count, "out_features": _count, "bias": _flag}),
        (
            (nn.Embedding,),
            {
                "num_embeddings": _count,
                "embedding_dim": _count,
                "padding_idx": _maybe(_natural),
                "max_norm": _absent,
            },
        ),
        ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONV),
        ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _TRANSPOSED),
        ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _MAX_POOL),
        ((nn.AvgPool1d,), _MEAN_POOL),
        ((nn.AvgPool2d, nn.AvgPool3d), _DIVIDED_POOL),
        ((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _ADAPTIVE),
        ((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), {**_ADAPTIVE, "return_indices": _never}),
        ((nn.Flatten,), {"start_dim": _dimension, "end_dim": _dimension}),
        ((nn.Unflatten,), {"dim": _dimension, "unflattened_size": _SHAPE}),
        ((nn.LayerNorm,), {**_NORMALIZED, "eps": _number, "bias": _flag}),
        ((nn.RMSNorm,), {**_NORMALIZED, "eps": _maybe(_number)}),
        ((nn.GroupNorm,), {"num_groups": _count, "num_channels": _count, "eps": _number, "affine": _flag}),
        ((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _INSTANCE),
        ((nn.LocalResponseNorm,), {"size": _count, "alpha": _number, "beta": _number, "k": _number}),
        ((nn.PReLU,), {"num_parameters": _count}),
        ((nn.GELU,), {"approximate": _one_of("none", "tanh")}),
        ((nn.ELU, nn.CELU), {"alpha": _number}),
        ((nn.LeakyReLU,), {"negative_slope": _number}),
        ((nn.Hardtanh,), {"min_val": _number, "max_val": _number}),
        ((nn.Softplus,), {"beta": _number, "threshold": _number}),
        ((nn.Threshold,), {"threshold": _number, "value": _number}),
        ((nn.Softshrink, nn.Hardshrink), {"lambd": _number}),
        ((nn.Softmax, nn.Softmin, nn.LogSoftmax), {"dim": _maybe(_dimension)}),
        ((nn.GLU,), {"dim": _dimension}),
        (
            (nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.ReLU6, nn.SELU, nn.Hardsigmoid, nn.Hardswish, nn.Softsign,
             nn.Tanhshrink, nn.LogSigmoid, nn.Softmax2d),
            {},
        ),
        ((nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d), {"padding": _MARGINS}),
        ((nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), {"padding": _MARGINS, "value": _number}),
        ((nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d,
          nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d), {"padding": _MARGINS}),
        (
            (nn.Upsample,),
            {
                "size": _maybe(_COUNTS),
                "scale_factor": _maybe(_several(_number)),
                "mode": _one_of("nearest", "linear", "bilinear", "bicubic", "trilinear"),
                "align_corners": _maybe(_flag),
                "recompute_scale_factor": _maybe(_flag),
            },
        ),
        ((nn.PixelShuffle,), {"upscale_factor": _count}),
        ((nn.PixelUnshuffle,), {"downscale_factor": _count}),
        ((nn.ChannelShuffle,), {"groups": _count}),
    )
    for cls in classes
}  # fmt: skip
"""Class by name, and for each of its options what a value must be; an option's value is the attribute of that name."""


def options_of(module: nn.Module) -> dict[str, Any]:
    """The options with which `module` can be made again, as JSON.

    Raises:
        InputError: a file cannot hold a module of this class, or with these options.
    """
    name = type(module).__name__
    if name not in CLASSES or type(module) is not CLASSES[name][0]:
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        raise InputError(
            f"the model has a {kind}, which a packed file cannot hold (it keeps no code); the packed ensemble runs in "
            'memory only. docs/packed-file.md says under "Steps" which layers can be saved'
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise InputError(f"the {name} of the model has hooks, which a packed file cannot hold; remove them")
    if "forward" in module.__dict__:
        raise InputError(f"the {name} of the model has a forward of its own, which a packed file cannot hold")
    options = {}
    for option, fits in CLASSES[name][1].items():
        value = getattr(module, option)
        if option == "bias":
            value = value is not None
        if not fits(value):
            raise InputError(f"a packed file cannot hold a {name} with {option}={shown(value)}")
        options[option] = encode(value)
    return options


def made(name: Any, options: Any) -> nn.Module:
    """The module that `options_of` described, in eval mode, its tensors without memory.

    Raises:
        CheckpointError: no such class, or options that it does not take.
    """
    require(isinstance(name, str) and name in CLASSES, f"{shown(name)} is no module that a packed file may hold")
    cls, kinds = CLASSES[name]
    require(
        isinstance(options, dict) and options.keys() == kinds.keys(),
        f"{name} takes the options {', '.join(kinds) or 'none'}; found {shown(options)}",
    )
    values = {option: decode(value, 0) for option, value in options.items()}
    for option, value in values.items():
        require(kinds[option](value), f"{name} cannot have {option}={shown(value)}")
    if values.get("align_corners", False) is None:
        del values["align_corners"]
    try:
        with torch.device("meta"):
            module = cls(**values).float()  # whatever the default dtype is
    except Exception as error:  # whatever its constructor finds wrong with the options
        raise CheckpointError(f"{name} cannot be made: {str(error)[:200]}") from error
    return module.eval().requires_grad_(False)


def fill(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Give `module` its tensors, without copying them.

    Raises:
        CheckpointError: their names, shapes or dtypes are not the module's.
    """
    own = module.state_dict()
    require(state.keys() == own.keys(), f"{where} holds {shown(sorted(state))}, it takes {shown(sorted(own))}")
    for name, tensor in state.items():
        require(
            tensor.shape == own[name].shape and tensor.dtype == own[name].dtype,
            f"{where}: {name} must be {own[name].dtype} of shape {tuple(own[name].shape)}, found {tensor.dtype} of "
            f"shape {tuple(tensor.shape)}",
        )
    module.load_state_dict(dict(state), assign=True)
