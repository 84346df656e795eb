"""`varbnn pack`: from a trained model to a packed file."""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import sys
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import varbnn as vb
from varbnn.cli.arguments import as_taken, at_least, destination, inputs
from varbnn.errors import CheckpointError, InputError
from varbnn.nn.draws import binary_layers
from varbnn.text import plural, size

WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DistributedDataParallel or AveragedModel"}
"""What the names of a model begin with inside of another."""


def add(commands: Any) -> None:
    about = "draw networks from a trained posterior and write them to a packed file, 1 bit per weight"
    more = (
        f"{about}. MODEL names a function of your own that builds the model, already binarized; its module is imported "
        "and the function is called, so it is your code that runs."
    )
    add = commands.add_parser("pack", help=about, description=more).add_argument
    add("model", metavar="MODEL", help="module:function that returns the model, for instance models:digits")
    add("checkpoint", metavar="CHECKPOINT", help="its state_dict: from torch.save, varbnn.fit, or *.safetensors")
    add("--out", type=destination, required=True, metavar="FILE", help="the packed file to write, usually *.vbnn")
    add("--samples", type=at_least(0), default=32, metavar="N", help="networks to draw; 0: the mode; default: 32")
    about = "training inputs, .npy or .npz, from which each network's batch norms are re-estimated"
    add("--refresh-bn", metavar="INPUTS", help=about)
    add("--key", metavar="NAME", help="which array of an .npz file")
    add("--seed", type=at_least(0), default=0, metavar="N", help="of the draws; default: 0")
    commands.choices["pack"].set_defaults(command=_run)


def _run(chosen: argparse.Namespace) -> None:
    if chosen.key is not None and chosen.refresh_bn is None:
        raise InputError("--key is about --refresh-bn; give that too, or leave it out")
    data = None if chosen.refresh_bn is None else inputs(chosen.refresh_bn, chosen.key)
    model = _built(chosen.model)
    _load(model, chosen.checkpoint)
    if data is not None:
        data = as_taken(data, _takes_tokens(model))
    packed = vb.pack(
        model,
        chosen.samples,
        refresh_bn=data,
        generator=torch.Generator().manual_seed(chosen.seed),
        progress=True,
    )
    packed.save(chosen.out)
    what = plural(packed.num_samples, "sampled network") if chosen.samples else "the mode as 1 network"
    refreshed = "" if data is None else f", batch norms re-estimated from {plural(len(data), 'input')}"
    print(f"{chosen.out}: {what}, {size(os.path.getsize(chosen.out))}{refreshed}")


def _built(name: str) -> nn.Module:
    module, _, function = name.partition(":")
    if not module or not function or module.startswith(".") or module.endswith(".py") or "/" in module:
        raise InputError(f"MODEL must be module:function, for instance models:digits, got {name!r}")
    sys.path.insert(0, os.getcwd())  # as with `python -m`
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself needs: its traceback says who
        raise InputError(f"there is no module {error.name}, looked for here and where Python finds modules") from None
    build = getattr(imported, function, None)
    if not callable(build):
        raise InputError(f"{module} has no function {function}")
    model = build()
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} must return a torch.nn.Module, it returned {type(model).__name__}")
    return model


def _takes_tokens(model: nn.Module) -> bool:
    return any(isinstance(layer, nn.Embedding | nn.EmbeddingBag) for layer in model.modules())


def _load(model: nn.Module, path: str) -> None:
    try:
        state: Any = load_file(path) if path.endswith(".safetensors") else torch.load(path, "cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    except Exception as error:  # whatever a damaged file makes torch or safetensors stumble over
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors, or is damaged; save model.state_dict() with torch.save"
        raise CheckpointError(f"{path} is no checkpoint of torch or safetensors: {reason}") from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a state_dict")
    own = model.state_dict()
    if own.keys() != state.keys() and (cause := _told_by_names(model, own, state)):
        raise CheckpointError(f"{path} {cause}")
    for what, names in (("lacks", own.keys() - state.keys()), ("has the unknown", state.keys() - own.keys())):
        if names:
            raise CheckpointError(f"{path} {what} {', '.join(sorted(map(str, names))[:3])}; is it of another model?")
    for key, tensor in own.items():
        if not isinstance(state[key], Tensor):
            raise CheckpointError(f"{path}: {key} is a {type(state[key]).__name__}, expected a tensor")
        if state[key].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(state[key].shape)}, that of the model has {tuple(tensor.shape)}"
            )
    model.load_state_dict(state)


def _told_by_names(model: nn.Module, own: Mapping[str, Any], state: Mapping[Any, Any]) -> str:
    """Why the names of a checkpoint are not the model's, and what to do; empty where nothing tells."""
    names, around = sorted(map(str, state)), list[str]()
    while more := [p for p in WRAPPERS if any(name.startswith("".join(around) + p) for name in names)]:
        around.append(more[0])
    inner = "".join(around)
    if inner and own.keys() <= {name.removeprefix(inner) for name in names}:
        wrappers = " around ".join(WRAPPERS[prefix] for prefix in around)
        return f"has names that begin with {inner}, as of {wrappers}; save model.{inner}state_dict() instead"
    real = next((f"{path}.weight" for path, _ in binary_layers(model) if f"{path}.weight" in state), None)
    if real is not None:
        return f"has {real}, a real weight; load it in MODEL, before varbnn.binarize, and train the beliefs"
    unknown = ", ".join([name for name in names if name not in own][:3])
    if unknown and next(binary_layers(model), None) is None:
        return f"has {unknown}, and the model no binary layer; let MODEL return varbnn.binarize(model)"
    return ""
