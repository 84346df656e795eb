"""A call of a torch function inside a packed program, written down so that it can be saved without code."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varbnn.errors import InputError


def _listed(names: str) -> list[str]:
    return names.split()


_COMPARISONS = _listed("eq ne lt le gt ge")
_OPERATORS = (*_listed("add sub mul truediv floordiv neg pow matmul getitem mod"), *_COMPARISONS)
_TORCH = (
    *_listed("abs add cat chunk clamp concat concatenate div exp flatten log log_softmax mean mul neg permute relu"),
    *_listed("reshape sigmoid sign softmax sqrt squeeze stack sub sum tanh transpose unsqueeze"),
    *_COMPARISONS,
)
_FUNCTIONAL = _listed(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d elu gelu hardsigmoid hardswish hardtanh interpolate "
    "leaky_relu log_softmax max_pool1d max_pool2d max_pool3d normalize pad relu relu6 selu sigmoid silu softmax "
    "softplus tanh"
)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in _OPERATORS},
    **{f"torch.{name}": getattr(torch, name) for name in _TORCH},
    **{f"functional.{name}": getattr(F, name) for name in _FUNCTIONAL},
    "getattr": getattr,
}
"""Functions that a saved program may call."""

METHODS = frozenset(
    [
        *_listed(
            "abs add chunk clamp contiguous dim div exp flatten log log_softmax mean mul neg permute relu reshape"
        ),
        *_listed("reshape_as sigmoid sign size softmax sqrt squeeze sub sum tanh transpose unflatten unsqueeze view"),
        *_listed("view_as bool double float int long to type_as"),
        *_COMPARISONS,
    ]
)
"""Tensor methods that a saved program may call; ``to`` another dtype only."""

ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "T", "mT"})

_DIVIDING_POOLS = (F.avg_pool2d, F.avg_pool3d)

_NAMES: dict[Any, str] = {}
for _name, _function in FUNCTIONS.items():
    _NAMES.setdefault(_function, _name)


@dataclass(frozen=True)
class Ref:
    """Stands for input number `index` of a step."""

    index: int


@dataclass(frozen=True)
class _Named:
    """Stands for ``FUNCTIONS[name]`` in a pickled call."""

    name: str


class Call(nn.Module):
    """Call `target` with values of the program in the places of `Ref`.

    Args:
        target: a function, the name of a tensor method, or a module that is called with more than tensors.
        args, kwargs: constants and `Ref`, also inside of tuples, lists, dicts and slices.
    """

    foreign = True  # code that does not know of the networks in its rows

    def __init__(self, target: Callable[..., Any] | str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        super().__init__()
        if target == "view" and not any(isinstance(arg, torch.dtype) for arg in args):
            target = "reshape"  # images lie channels last in a packed program, which a view can refuse
        self.target, self.args, self.kwargs = target, tuple(args), dict(kwargs)

    def forward(self, *values: Any) -> Any:
        args, kwargs = filled(self.args, values), filled(self.kwargs, values)
        if kwargs.get("rounding_mode") == "trunc" or self.target in _DIVIDING_POOLS:
            _refuse_whole_numbers(_called(self.target), args, kwargs)
        if isinstance(self.target, str):
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        return self.target(*args, **kwargs)

    def member(self, s: int) -> list[nn.Module]:
        return [self]

    def __getstate__(self) -> dict[str, Any]:
        """With a function by its name in `FUNCTIONS`: pickle does not find all of torch's by themselves."""
        name = None if isinstance(self.target, str | nn.Module) else _NAMES.get(self.target)
        return self.__dict__ if name is None else {**self.__dict__, "target": _Named(name)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if isinstance(self.target, _Named):
            self.target = FUNCTIONS[self.target.name]

    def name(self) -> str:
        """How the call is written in a file.

        Raises:
            InputError: it is not among those that a file may hold.
        """
        if isinstance(self.target, str):
            known, name = self.target in METHODS, f"method.{self.target}"
        else:
            name = _NAMES.get(self.target, _called(self.target))
            known = self.target in _NAMES and (self.target is not getattr or self.args[1] in ATTRIBUTES)
        if "out" in self.kwargs:
            known, name = False, f"{name} with out="
        if self.target == "to" and not _converts(self.args, self.kwargs):
            known, name = False, f"{name} with anything but a dtype"
        if not known:
            raise InputError(f"the model calls {name}, which a packed file cannot hold; it runs packed in memory only")
        return name

    @classmethod
    def named(cls, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
        """The call that a file means by `name`.

        Raises:
            InputError: no such function may be called from a file.
        """
        if "out" in kwargs:  # it could give a weight another size
            raise InputError(f"a packed file may not call {name!r} with out=")
        kind, _, method = name.partition(".")
        if kind == "method" and method in METHODS and (method != "to" or _converts(args, kwargs)):
            return cls(method, args, kwargs)
        known = len(args) == 2 and isinstance(args[1], str) and args[1] in ATTRIBUTES
        if name not in FUNCTIONS or (name == "getattr" and not known):
            raise InputError(f"a packed file may not call {name!r}")
        return cls(FUNCTIONS[name], args, kwargs)

    def written(self) -> str:
        """The call as one would write it."""
        options = [f"{key}={value}" for key, value in self.kwargs.items()]
        return f"{_called(self.target)}({', '.join(['…', *map(str, self.args[1:]), *options])})"

    def extra_repr(self) -> str:
        return f"{_called(self.target)}, {self.args[1:]}" + (f", {self.kwargs}" if self.kwargs else "")


def _converts(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether ``args[0].to(…)`` names nothing but a dtype, or a value that has one."""
    options = [*args[1:], *kwargs.values()]
    return len(options) == 1 and isinstance(options[0], torch.dtype | Ref) and kwargs.keys() <= {"dtype"}


def _called(target: Any) -> str:
    if isinstance(target, str):
        return target
    return type(target).__name__ if isinstance(target, nn.Module) else getattr(target, "__name__", repr(target))


def _refuse_whole_numbers(name: str, args: Sequence[Any], options: dict[str, Any]) -> None:
    # a processor ends a process that divides the smallest integer by -1; torch looks after all divisions but these
    operands = [value for value in (*args, *options.values()) if isinstance(value, Tensor | int | float)]
    if not any(v.is_floating_point() if isinstance(v, Tensor) else isinstance(v, float) for v in operands):
        raise InputError(f"a packed network divides whole numbers with {name}, rounding towards 0; take '//' or floats")


def filled(template: Any, values: Sequence[Any]) -> Any:
    """`template` with every `Ref` replaced."""
    if isinstance(template, Ref):
        return values[template.index]
    if isinstance(template, tuple):
        return tuple(filled(item, values) for item in template)
    if isinstance(template, list):
        return [filled(item, values) for item in template]
    if isinstance(template, dict):
        return {key: filled(item, values) for key, item in template.items()}
    if isinstance(template, slice):
        return slice(*(filled(item, values) for item in (template.start, template.stop, template.step)))
    return template


class Constant(nn.Module):
    """A tensor that the model holds and uses directly."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value

    def member(self, s: int) -> list[nn.Module]:
        return [self]


class Real(nn.Module):
    """A module of the model that stayed as it is."""

    foreign = True

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *values: Tensor) -> Any:
        return self.module(*values)

    def member(self, s: int) -> list[nn.Module]:
        return [self.module]
