"""What a model computes, read by torch.fx, and what of it cannot be packed."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from varbnn.errors import InputError
from varbnn.nn import Gate, Sign
from varbnn.nn.conv import BinaryConv1d, BinaryConv2d, BinaryConv3d
from varbnn.nn.draws import binary_layers, draws_once, evaluating, holding, refuse_sharded
from varbnn.nn.layer import BinaryLayer
from varbnn.nn.linear import BinaryLinear
from varbnn.nn.own_code import own_code
from varbnn.packed.noise import Listening, refuse_noise
from varbnn.packed.rows import mixing
from varbnn.packed.states import pick_states
from varbnn.packed.untouched import ONE_AT_A_TIME, untouched
from varbnn.packed.writing import AUGMENTED, SKIPPED, without_writing

KNOWN = (BinaryLinear, BinaryConv1d, BinaryConv2d, BinaryConv3d, Sign, Gate, _BatchNorm)
"""Modules that become steps of their own: what they compute is known, and their forward is not looked at."""


class _Tracer(fx.Tracer):
    """Reads a forward in this thread; others go on, though torch.fx patches torch.nn.Module for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if isinstance(module, KNOWN):
            return True
        # torch's own containers, such as TransformerEncoderLayer, are looked into where binary layers are inside
        return super().is_leaf_module(module, name) and next(binary_layers(module), None) is None

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Further arguments have the values that they have where the model is called with one."""
        forward, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        parameters = inspect.signature(inspect.unwrap(root_fn)).parameters
        for place, arg in enumerate(args[2:], 2):
            name = str(arg.node.target)
            default = {1: (), 2: {}}.get(name.count("*"), parameters[name.lstrip("*")].default)
            if default is not inspect.Parameter.empty:
                self.graph.erase_node(arg.node)
                args[place] = default
        return forward, args

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _Proxy(fx.Proxy):
    """Tells ``h += x``, which writes into h, from ``h = h + x``; torch's own takes both for the latter."""


def _noting(function: Callable[..., Any]) -> Callable[[fx.Proxy, Any], Any]:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in AUGMENTED:
    setattr(_Proxy, f"__{_function.__name__}__", _noting(_function))


def traced(model: nn.Module) -> tuple[nn.Module, fx.Graph]:
    """The graph of `model` in eval mode, and the module that its names belong to.

    Raises:
        InputError: the forward cannot be traced, takes more than one input, mixes the rows of a batch or uses the
            weight of a binary layer by itself; a module has a forward or a hook of its own that would be left out.
    """
    refuse_sharded(model)
    _refuse_own_code(model)
    model = getattr(model, "_orig_mod", model)  # of torch.compile, whose wrapper computes the same
    if isinstance(model, nn.DataParallel | DistributedDataParallel | AveragedModel):
        raise InputError(f"{type(model).__name__} is around another model; pack model.module, what it wraps")
    root = nn.Sequential(model) if _Tracer().is_leaf_module(model, "") else model
    layers = [layer for _, layer in binary_layers(model)]
    attributes = set(root.__dict__)
    try:
        with (
            ONE_AT_A_TIME,
            evaluating(model),
            holding(layers, [_Untouchable.over(layer) for layer in layers]),
            untouched(root),
            Listening(),
        ):
            graph = _Tracer().trace(root)
            constants = {name: root.__dict__[name] for name in set(root.__dict__) - attributes}
            without_writing(root, graph)
            refuse_noise(root, graph)
            pick_states(root, graph)
    except InputError:
        raise
    except Exception as error:  # whatever the model's own code raises when it is shown a stand-in for its input
        raise InputError(
            f"the forward of {type(model).__name__} cannot be packed, because torch.fx cannot trace it ({error}); "
            "it must not decide by the values of its input. varbnn.predict runs any model"
        ) from error
    if any(node.op == "get_attr" and str(node.target).rpartition(".")[2] == "_held" for node in graph.nodes):
        raise _uses_weight()
    given = [node for node in graph.nodes if node.op == "placeholder"]
    if len(given) != 1:
        names = ", ".join(node.name for node in given)
        raise InputError(f"packing takes models with one input, {type(model).__name__} has {len(given)}: {names}")
    graph.constants = constants  # type: ignore[attr-defined]  # tensors that the forward made itself
    mixes = mixing(root, graph)
    if mixes is not None:
        raise InputError(mixes)
    return root, graph


class _Untouchable(Tensor):
    """Stands where a binary layer's weight is while its model is traced; any use of it is refused."""

    @staticmethod
    def over(layer: BinaryLayer) -> Tensor:
        return layer.belief[0].detach().as_subclass(_Untouchable)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise _uses_weight()


def _uses_weight() -> InputError:
    return InputError(
        "the model's forward uses the weight of a binary layer directly, not by calling the layer; packing cannot give "
        "each network its own there. varbnn.predict runs any model"
    )


def _refuse_own_code(model: nn.Module) -> None:
    if _global_forward_hooks or _global_forward_pre_hooks:
        raise InputError("torch has forward hooks on all modules, which packing would leave out; remove them first")
    root = getattr(model, "_orig_mod", model)  # of which torch.fx reads the forward of the class alone
    for name, module in model.named_modules():
        where = f"{name or 'the model'} ({type(module).__name__})"
        known = next((kind for kind in KNOWN if isinstance(module, kind)), None)
        if known is not None and not isinstance(module, nn.SyncBatchNorm) and (name := own_code(module, known)):
            raise InputError(f"{where} has a {name} of its own, which packing would leave out")
        replaced = known is not None or isinstance(module, (nn.ReLU, *SKIPPED))
        if (replaced or module is root) and "forward" in module.__dict__:
            raise InputError(f"{where} has a forward of its own, which packing would leave out")
        own_call = type(module).__call__ is not nn.Module.__call__ and not isinstance(module, fx.GraphModule)
        if module is root and own_call:
            raise InputError(f"{where} has a __call__ of its own, which packing would leave out; override forward")
        if (replaced or module in (model, root)) and any(_foreign_hooks(module)):
            raise InputError(f"{where} has a forward hook, which packing would leave out; remove the hook first")


def _foreign_hooks(module: nn.Module) -> Iterator[Any]:
    hooks: Iterable[Any] = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    yield from (hook for hook in hooks if not draws_once(hook))


def attribute(root: nn.Module, graph: fx.Graph, path: str) -> Tensor:
    """The tensor that the forward calls `path`."""
    constants: dict[str, Any] = graph.constants  # type: ignore[attr-defined]
    owner, _, name = path.rpartition(".")
    value = constants[path] if path in constants else getattr(root.get_submodule(owner), name)
    if not isinstance(value, Tensor):
        raise InputError(f"{path} of the model is a {type(value).__name__}; packing takes tensors")
    value = value.detach().clone()
    return value.float() if value.is_floating_point() else value
