"""Turn a model binary in place, and turn it back into a plain float network with ±1 weights."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from varbnn.checks import finite_belief, finite_number
from varbnn.errors import InputError
from varbnn.nn.batchnorm import Data, as_data, refresh_batchnorm, warn_of_batchnorm
from varbnn.nn.conv import BinaryConv1d, BinaryConv2d, BinaryConv3d
from varbnn.nn.draws import (
    binary_layers,
    draw_once_per_forward,
    forget_once_per_forward,
    refuse_sharded,
    sampled,
)
from varbnn.nn.layer import PASSING, BinaryLayer
from varbnn.nn.linear import BinaryLinear
from varbnn.nn.marks import mark_again
from varbnn.nn.misfit import first_belief, refuse_misfit, require_posterior
from varbnn.nn.own_code import own_code
from varbnn.posteriors import Bernoulli, Posterior

TWINS: dict[type[nn.Module], type[BinaryLayer]] = {
    nn.Linear: BinaryLinear,
    nn.Conv1d: BinaryConv1d,
    nn.Conv2d: BinaryConv2d,
    nn.Conv3d: BinaryConv3d,
}
"""Which torch layer has which binary twin."""

Skip = Callable[[str, nn.Module], bool] | Iterable[str | type[nn.Module] | nn.Module]


def binarize(
    model: nn.Module,
    posterior: Posterior | None = None,
    *,
    skip: Skip = (),
    strength: float | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Give every linear and convolution layer of `model` ±1 weights, in place.

    The layer objects stay (their class changes), so shared modules, hooks, options, biases, dtype and device stay
    too. Left real, and named with the reason by `varbnn.summary`: modules without a binary twin (attention, recurrent
    layers, normalisation, embeddings), subclasses, weights that two modules share as one parameter, and what `skip`
    names.

    Args:
        model: any module; a bare ``nn.Linear`` becomes a `BinaryLinear`.
        posterior: what is believed about the weights; ``Bernoulli()`` when absent.
        skip: layers to leave real: dotted names (``"head"`` also covers ``"head.0"``), classes, modules, or a function
            of (name, module).
        strength: start from the weights the model has: the belief's mode is their sign and its typical size is
            `strength` (λ = 1 is 0.88 : 0.12). Absent starts as the posterior does.
        generator: source of random starts; torch's global one when absent.

    Returns:
        `model` itself.

    Raises:
        InputError: nothing can be made binary, all that can is binary already with another posterior, a lazy layer has
            no weight yet, `skip` names something that is not there, `strength` is given and a weight is not finite, or
            `generator` is none or of another device than the weights. The model is then unchanged.

    >>> model = binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))
    >>> sorted(name for name, _ in model.named_parameters())
    ['0.bias', '0.natural', '1.bias', '1.weight', '3.bias', '3.natural']
    """
    require_posterior(posterior)
    binary = [layer for _, layer in binary_layers(model)]
    lazy = [name or "the layer" for name, module in model.named_modules() if isinstance(module, LazyModuleMixin)]
    if lazy:
        raise InputError(
            f"{', '.join(lazy)} has no weight yet, being lazy; run one forward pass through the model first"
        )
    skipped, owners = skipper(model, skip), parameter_owners(model)
    chosen = [
        module
        for name, module in model.named_modules()
        if reason_to_stay_real(module, owners) is None and not skipped(name, module)
    ]
    if not chosen and not binary:
        raise InputError(
            f"{type(model).__name__} has no layer to make binary; known are {', '.join(t.__name__ for t in TWINS)}"
        )
    another = posterior is not None and any(layer.posterior != posterior for layer in binary)
    if not chosen and (another or strength is not None):
        raise InputError(
            f"every layer that could be is binary already, with {binary[0].posterior!r}, and keeps its belief; "
            "binarize the real model to choose another posterior or start"
        )
    if strength is not None:
        strength = finite_number("strength", strength, above=0)
        for module in chosen:
            if not bool(torch.isfinite(module.get_parameter("weight")).all()):
                raise InputError(
                    "a weight has NaN or infinite entries, so no belief can start from it; nothing was changed"
                )
    if generator is not None:
        kind = generator.device.type if isinstance(generator, torch.Generator) else None
        if any(module.get_parameter("weight").device.type not in (kind, "meta") for module in chosen):
            raise InputError(f"generator must be a torch.Generator on the device of the weights, got {generator!r}")
    posterior = posterior or Bernoulli()
    start = posterior.initial if strength is None else partial(posterior.from_weight, strength=strength)
    beliefs = [first_belief(module, posterior, partial(start, generator=generator)) for module in chosen]
    for module, belief in zip(chosen, beliefs, strict=True):
        TWINS[type(module)].adopt(module, posterior, belief)
    draw_once_per_forward(model)
    if not _guards(model):
        model.register_load_state_dict_pre_hook(_refuse_misfits)
    return model


def reason_to_stay_real(module: nn.Module, owners: Mapping[int, int]) -> str | None:
    """Why `module` cannot be made binary, in a few words, or None if it can; `owners` are `parameter_owners`."""
    if isinstance(module, LazyModuleMixin):
        return "no weight yet"
    if type(module) not in TWINS:
        base = next((t for t in TWINS if isinstance(module, t)), None)
        return f"a subclass of {base.__name__}" if base else "no binary twin"
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed, not a parameter"
    if not weight.is_floating_point():
        return f"its weight is {weight.dtype}"
    if owners[id(weight)] > 1:
        return "shares its weight with another module"
    return None


def parameter_owners(model: nn.Module) -> Counter[int]:
    """By the id of each parameter of `model`, how many modules have it."""
    return Counter(id(p) for module in model.modules() for p in module._parameters.values())


def skipper(model: nn.Module, skip: Skip) -> Callable[[str, nn.Module], bool]:
    if callable(skip) and not isinstance(skip, (type, nn.Module)):
        return skip
    if isinstance(skip, str):
        raise InputError(f"skip takes a list: skip=[{skip!r}]")
    one = isinstance(skip, (type, nn.Module))
    if not one and not isinstance(skip, Iterable):
        raise InputError(f"skip must be a list of names, classes or modules, or a function, got {skip!r}")
    items: list[Any] = [skip] if one else list(cast(Iterable[Any], skip))
    names, modules = dict(model.named_modules()), set(model.modules())
    for item in items:
        known = (
            item != "" and item in names  # "" is the model itself
            if isinstance(item, str)
            else isinstance(item, type) or (isinstance(item, nn.Module) and item in modules)
        )
        if not known:
            raise InputError(
                f"skip: there is no {item!r} in the model; its modules are {', '.join(filter(None, names))}"
            )

    def skipped(name: str, module: nn.Module) -> bool:
        return any(
            (isinstance(item, str) and (name == item or name.startswith(item + ".")))
            or (isinstance(item, type) and isinstance(module, item))
            or (isinstance(item, nn.Module) and any(module is part for part in item.modules()))
            for item in items
        )

    return skipped


def _guards(module: nn.Module) -> list[int]:
    # torch wraps the hook together with a reference to its module
    hooks = module._load_state_dict_pre_hooks.items()
    return [key for key, hook in hooks if getattr(hook, "hook", hook) is _refuse_misfits]


def _refuse_misfits(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # before torch copies the first tensor, so that a refused checkpoint leaves the model as it was
    for name, layer in binary_layers(model):
        refuse_misfit(layer, layer.posterior, state, prefix + name + "." if name else prefix)


def freeze(
    model: nn.Module, how: str = "mode", *, generator: torch.Generator | None = None, refresh_bn: Data | None = None
) -> nn.Module:
    """A copy of `model` as a plain float network of torch's own layers, whose weights are exactly ±1.

    Args:
        model: with binary layers; unchanged. Of a compiled one the copy is that of the network inside.
        how: ``"mode"``, or ``"sample"`` for one draw from the posterior.
        generator: source of the sample.
        refresh_bn: re-estimate the batch-norm statistics of the copy from this data (see `varbnn.refresh_batchnorm`).

    Raises:
        InputError: `how` is neither, or `model` has no binary layer, or one with parametrized or pruned parameters or a
            belief that is not finite, or is spread over ranks.

    Warns:
        VarbnnWarning: the model has batch norm and `refresh_bn` is absent.

    >>> frozen = freeze(binarize(nn.Linear(3, 2)))
    >>> type(frozen).__name__, frozen.weight.abs().unique().tolist()
    ('Linear', [1.0])
    """
    if refresh_bn is not None:
        refresh_bn = as_data(refresh_bn, "refresh_bn", model)
    if how not in ("mode", "sample"):
        raise InputError(f"how must be 'mode' or 'sample', got {how!r}")
    model = getattr(model, "_orig_mod", model)  # of torch.compile, whose wrapper is no layer of torch's
    named = list(binary_layers(model))
    refuse_sharded(model)
    for name, layer in named:
        own = {key for key, parameter in layer._parameters.items() if parameter is not None}
        if parametrize.is_parametrized(layer) or not own.issuperset(layer.posterior.names):
            raise InputError(
                f"{name or 'the model'} has a parametrized or pruned parameter, which a plain layer would lose; make "
                "it permanent first (torch.nn.utils.parametrize.remove_parametrizations, prune.remove)"
            )
        kind = next((kind for kind in TWINS.values() if isinstance(layer, kind)), None)
        if kind is not None and (changed := own_code(layer, kind)) is not None:
            raise InputError(
                f"{name or 'the model'} ({type(layer).__name__}) has a {changed} of its own, which a plain layer would "
                "lose; varbnn.sampled(model) holds a draw of any model"
            )
        finite_belief(name or type(layer).__name__, layer.belief)
    frozen = copy.deepcopy(model)
    layers = [layer for _, layer in binary_layers(frozen)]
    if not layers:
        raise InputError(f"{type(model).__name__} has no binary layer to freeze; call varbnn.binarize first")
    if how == "sample":
        with sampled(frozen, generator):
            weights = [layer.weight for layer in layers]
    else:
        with torch.no_grad():
            weights = [layer.posterior.mode(*layer.belief) for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        _to_twin(layer, weight.to(_real_dtype(layer)))
    forget_once_per_forward(frozen)
    for module in frozen.modules():
        for key in _guards(module):
            del module._load_state_dict_pre_hooks[key]
    if refresh_bn is not None:
        refresh_batchnorm(frozen, refresh_bn)
    else:
        warn_of_batchnorm(model)
    return frozen


def _real_dtype(layer: BinaryLayer) -> torch.dtype:
    """Of its real weight, if it had one; beliefs have float32 or float64, also in half-precision layers."""
    bias = layer._parameters.get("bias")
    if bias is not None:
        return bias.dtype
    half = torch.finfo(layer.real_dtype).bits < 32
    return layer.real_dtype if half and layer.belief[0].dtype == torch.float32 else layer.belief[0].dtype


def _to_twin(layer: BinaryLayer, weight: Tensor) -> None:
    rest = {name: p for name, p in layer._parameters.items() if name not in layer.posterior.names}
    for name in layer.posterior.buffer_names:
        delattr(layer, name)
    for name in ("posterior", "real_dtype", *PASSING):
        delattr(layer, name)
    layer._parameters.clear()
    layer._parameters.update({"weight": nn.Parameter(weight.detach().clone(), requires_grad=False), **rest})
    for key in [key for key, hook in layer._load_state_dict_post_hooks.items() if hook is mark_again]:
        del layer._load_state_dict_post_hooks[key]
    layer.__class__ = layer.twin  # type: ignore[assignment]
