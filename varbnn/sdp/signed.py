"""Layers with weights α · ±1 as a binary layer and a scale: to pack, or to go on training."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from varbnn.errors import InputError
from varbnn.nn import BinaryLayer
from varbnn.nn.binarize import TWINS, parameter_owners, reason_to_stay_real
from varbnn.posteriors import Point


class ChannelScale(nn.Module):
    """Multiply every output channel by a number of its own, and add the bias.

    Args:
        scale: P.
        bias: P, or None.
        dimensions: of one channel: 0 behind a linear layer, 2 behind a two-dimensional convolution.

    >>> import torch
    >>> ChannelScale(torch.tensor([1.0, 2.0]), None, 0)(torch.ones(3, 2))[0].tolist()
    [1.0, 2.0]
    """

    def __init__(self, scale: Tensor, bias: Tensor | None, dimensions: int) -> None:
        super().__init__()
        shape = (-1, *(1,) * dimensions)
        self.scale = nn.Parameter(scale.detach().clone().reshape(shape))
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone().reshape(shape))

    def forward(self, input: Tensor) -> Tensor:
        scaled = input * self.scale
        return scaled if self.bias is None else scaled + self.bias


def with_sign_layers(model: nn.Module) -> nn.Module:
    """A copy of `model` in which layers with weights α · ±1 are binary layers, each followed by its scales and bias.

    The beliefs are `Point`s, so `varbnn.pack` takes the copy, and any rule for points can train it further.

    Raises:
        InputError: no layer has rows of one magnitude.

    >>> import torch
    >>> layer = nn.Linear(3, 2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -0.5, 0.5], [2.0, 2.0, -2.0]]))
    >>> copied = with_sign_layers(layer)
    >>> type(copied[0]).__name__, copied[0].eval().weight[1].tolist(), copied[1].scale.tolist()
    ('BinaryLinear', [1.0, 1.0, -1.0], [0.5, 2.0])
    """
    model = copy.deepcopy(model)
    owners, pairs = parameter_owners(model), dict[nn.Module, nn.Module]()
    for module in list(model.modules()):
        if reason_to_stay_real(module, owners) is not None or isinstance(module, BinaryLayer):
            continue
        weight = module.get_parameter("weight")
        magnitudes = weight.detach().reshape(len(weight), -1).abs()
        if weight.numel() == 0 or not bool((magnitudes == magnitudes[:, :1]).all()):
            continue
        bias = module._parameters.get("bias")
        scale = ChannelScale(magnitudes[:, 0], bias, weight.dim() - 2)
        module.register_parameter("bias", None)
        TWINS[type(module)].adopt(module, Point(), (weight.detach().clone(),))
        pairs[module] = nn.Sequential(module, scale).train(module.training)
    if not pairs:
        raise InputError("no layer of the model has weights of one magnitude per row; call binarize_layerwise first")
    if model in pairs:
        return pairs[model]
    for name, module in list(model.named_modules(remove_duplicate=False)):  # a layer may have several places
        if module in pairs:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, pairs[module])
    return model
