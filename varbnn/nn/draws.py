"""When a layer draws: once per forward pass of the model, or not at all while a sample is held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.checks import optional_generator
from varbnn.errors import InputError
from varbnn.nn.layer import BinaryLayer
from varbnn.nn.pairs import Pair


def binary_layers(model: nn.Module) -> Iterator[tuple[str, BinaryLayer]]:
    """The binary layers of `model` with their dotted names; a layer used twice comes once.

    >>> from varbnn.nn import BinaryLinear
    >>> [name for name, _ in binary_layers(nn.Sequential(BinaryLinear(2, 3), nn.ReLU()))]
    ['0']
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a model is a torch.nn.Module, got {model!r:.60}")
    for name, module in model.named_modules():
        if isinstance(module, BinaryLayer):
            yield name, module


def with_first(layers: Iterable[BinaryLayer]) -> Iterator[tuple[BinaryLayer, BinaryLayer]]:
    """Each layer beside the first of `layers` with the same belief and an equal posterior: itself, unless it is tied.

    >>> from varbnn.nn import BinaryLinear
    >>> one, other = BinaryLinear(3, 3), BinaryLinear(3, 3)
    >>> other.natural = one.natural
    >>> [first is one for _, first in with_first([one, other])]
    [True, True]
    """
    seen: dict[tuple[int, ...], list[BinaryLayer]] = {}
    for layer in layers:
        own: list[Tensor | None] = [layer._parameters.get(name) for name in layer.posterior.names]
        own += [layer._buffers.get(name) for name in layer.posterior.buffer_names]
        if any(tensor is None for tensor in own):
            yield layer, layer  # parametrized
            continue
        alike = seen.setdefault(tuple(map(id, own)), [])
        alike.append(layer)
        yield layer, next(first for first in alike if first is layer or first.posterior == layer.posterior)


def beliefs_of(model: nn.Module) -> list[tuple[str, BinaryLayer]]:
    """The binary layers of `model` with their names, of those that are tied the first."""
    named = list(binary_layers(model))
    pairs = zip(named, with_first(layer for _, layer in named), strict=True)
    return [(name, layer) for (name, layer), (_, first) in pairs if first is layer]


def draw_once_per_forward(model: nn.Module) -> None:
    """Make each binary layer of `model` keep its draw for one forward pass of `model`, however often it is used in it.

    Layers that are tied by one belief (``b.natural = a.natural``) have one draw.

    `varbnn.binarize` does this; call it yourself on a model that you build from binary layers and in which one layer
    is used twice, or tied to another. Safe to call again. A model that calls itself starts a pass of its own with
    every call.
    """
    if isinstance(model, BinaryLayer) or _open in model._forward_pre_hooks.values():
        return
    model.register_forward_pre_hook(_open)
    model.register_forward_hook(_close, always_call=True)


def forget_once_per_forward(model: nn.Module) -> None:
    """Undo `draw_once_per_forward` in `model` and everything in it."""
    for module in model.modules():
        for hooks, hook in ((module._forward_pre_hooks, _open), (module._forward_hooks, _close)):
            for key in [key for key, value in hooks.items() if value is hook]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)


def draws_once(hook: object) -> bool:
    """Whether `hook` is one of those that `draw_once_per_forward` puts on a model."""
    return hook in (_open, _close)


def _open(model: nn.Module, args: Any) -> None:
    here = id(model)
    common: dict[str, Tensor] = {}
    layers = [layer for _, layer in binary_layers(model)]
    firsts = dict(with_first(layer for layer in layers if layer.training))
    for layer in layers:
        # an interrupt breaks a pass off without closing it: the next pass of the same model starts afresh all the same
        if layer._pass in (None, here):
            layer._pass, layer._drawn = here, None
            # in a tuple: a layer that is an attribute of another ends a compiled graph
            first = firsts.get(layer, layer)
            layer._tied = None if first is layer else (first,)
            if layer._pair is not None:
                layer._pair.end()
            layer.share_noise(common)


def _close(model: nn.Module, args: Any, output: Any) -> None:
    here = id(model)
    for _, layer in binary_layers(model):
        if layer._pass == here:  # else it runs inside the pass of another model, or another hook failed before ours
            layer._pass, layer._drawn, layer._common, layer._tied = None, None, None, None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every submodule has its own flag back (``model.train()`` would set all of them)."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


def gathered(tensor: Tensor) -> Tensor:
    """All of a parameter that is spread over ranks (`fully_shard`); every rank must ask. Any other is as it is."""
    whole: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if whole is None else whole()


def refuse_sharded(model: nn.Module) -> None:
    """Raise InputError where `model` is spread over ranks (`fully_shard`), so that no copy of it can be made."""
    if any(callable(getattr(module, "unshard", None)) for module in model.modules()):
        raise InputError(
            "the model is spread over ranks by fully_shard, of which there is no copy; gather its state_dict on every "
            "rank (torch.distributed.checkpoint.state_dict.get_model_state_dict, full_state_dict=True), load it into a "
            "model that is whole, and give that one"
        )


@contextmanager
def sampled(model: nn.Module, generator: torch.Generator | None = None) -> Iterator[nn.Module]:
    """Hold one sample of every binary layer: inside, `model` is a fixed network with exactly ±1 weights.

    The same in train and eval mode, and without gradient to the beliefs. Afterwards, and after an exception, the
    layers are as before. Batch-norm statistics belong to a draw: see `varbnn.refresh_batchnorm`.

    Args:
        model: any module with binary layers.
        generator: source of the sample; torch's global one when absent.

    Raises:
        InputError: `generator` is none of torch's.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Linear(3, 2))
    >>> with sampled(model):
    ...     same = torch.equal(model.weight, model.weight)
    >>> same
    True
    """
    optional_generator(generator)
    layers = [layer for _, layer in binary_layers(model)]
    with holding(layers, joint_sample(layers, generator)):
        yield model


def at_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Let go of samples that are held, so that layers in eval mode have the mode, also inside `sampled`."""
    layers = [layer for _, layer in binary_layers(model)]
    return holding(layers, [None] * len(layers))


def joint_sample(layers: Iterable[BinaryLayer], generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """One sample of each layer, all from the same network: layers that share their noise or their belief do so here."""
    common: dict[str, Tensor] = {}
    pairs = list(with_first(layers))
    tied = {first for layer, first in pairs if first is not layer}
    drawn: dict[BinaryLayer, Tensor] = {}  # of those alone: the others can be let go
    for layer, first in pairs:
        if first in drawn:
            yield drawn[first]
            continue
        posterior, belief, noise = layer.posterior, [gathered(t.detach()) for t in layer.belief], None
        key = posterior.noise_key
        if key is not None:
            if key not in common:
                common[key] = posterior.noise(belief[0], generator)
            noise = common[key].to(belief[0])
        weight = posterior.sample(*belief, noise=noise, generator=generator if noise is None else None)
        if layer in tied:
            drawn[layer] = weight
        yield weight


@contextmanager
def holding(layers: Iterable[BinaryLayer], weights: Iterable[Tensor | None]) -> Iterator[None]:
    """Hold the given ±1 weights in `layers` (None: nothing); afterwards, and after an exception, all is as before."""
    layers = list(layers)
    before = [layer._held for layer in layers]
    try:
        for layer, weight in zip(layers, weights, strict=True):
            layer._held = weight
        yield
    finally:
        for layer, held in zip(layers, before, strict=True):
            layer._held = held


@contextmanager
def antithetic(model: nn.Module) -> Iterator[None]:
    """Inside, forward passes in train mode come in pairs: each second one draws with the opposite noise of the first.

    The average of the two gradients has less variance than that of two independent draws where the loss is near to
    linear in the weights. Put both into one step: two passes, two backward passes of half the loss. An odd pass at the
    end is an ordinary draw. The second draw by itself has the law of any other; passes in eval mode count for nothing.
    As in `fit`, `model` draws once per forward pass from now on, if it did not before (`draw_once_per_forward`).

    Args:
        model: any module with binary layers.

    Raises:
        InputError: in a pass, when layers that draw their output (``estimator="moments"``) get two batches of different
            shapes in one pair; in the backward pass, when activation checkpointing repeats a pass.

    >>> import varbnn as vb
    >>> layer = vb.binarize(nn.Linear(3, 2, bias=False), vb.posteriors.Bernoulli(init_scale=0.0))
    >>> with antithetic(layer):
    ...     first, second = layer(torch.ones(1, 3)), layer(torch.ones(1, 3))
    >>> torch.equal(first, -second)  # fair coins: the opposite weights
    True
    """
    draw_once_per_forward(model)
    layers = [layer for _, layer in binary_layers(model)]
    before = [layer._pair for layer in layers]
    try:
        for layer in layers:
            layer._pair = Pair()
        yield
    finally:
        for layer, pair in zip(layers, before, strict=True):
            layer._pair, layer._paired = pair, True
