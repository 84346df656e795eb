"""One step of an optimizer in one pass over memory, by the compiled library; `varbnn.optim` says the same in torch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.kernels import native
from varbnn.kernels.backend import REFERENCE, active_backend
from varbnn.kernels.layout import memory_order, turned

FILTERS = {"identity": 0, "average": 1, "heavy-ball": 2, "quotient": 3, "cascade": 4}
PULLS = {"none": 0, "coupled": 1, "at-step": 2, "coin": 3, "variance": 4, "settling": 5, "paced": 6}
DECISIONS = {"descend": 0, "box": 1, "flip": 2, "flip-larq": 3, "wary": 4, "consolidating": 5}
"""Names of the choices, and their numbers in `cpu/steps.h`."""

COMBINED = {
    "variance": {("identity", "variance", "descend")},
    "settling": {("identity", "settling", "descend")},
    "paced": {("identity", "paced", "wary")},
    "wary": {("identity", "paced", "wary")},
    "consolidating": {("quotient", "none", "consolidating"), ("quotient", "coupled", "consolidating")},
}
"""Choices that the library knows with these others only (filter, pull, decision)."""


class Settings(ctypes.Structure):
    """Mirrors `Settings` in `cpu/steps.h`."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("filter", "pull", "decision")),
        *(
            (name, ctypes.c_float)
            for name in (
                "gain strength prior rate rate2 divisor scale eps lr low high threshold kept caution least".split()  # noqa: SIM905
            )
        ),
    ]


class _Tensors(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("belief", "gradient", "first", "second", "prior")]


@dataclass(frozen=True)
class Memory:
    """The tensors of one belief, all of one shape: what is changed, and what is read."""

    belief: Tensor
    gradient: Tensor
    states: tuple[Tensor, ...] = ()
    prior: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.belief, self.gradient, *self.states, *(() if self.prior is None else (self.prior,)))

    def pointers(self) -> _Tensors:
        first, second = (*self.states, None, None)[:2]
        return _Tensors(*(native.pointer(t) for t in (self.belief, self.gradient, first, second, self.prior)))


def combine(filter: str, pull: str, decision: str) -> bool:
    """Whether the compiled library knows these three together."""
    chosen = (filter, pull, decision)
    return all(chosen in COMBINED[name] for name in chosen if name in COMBINED)


def all_finite(tensor: Tensor) -> bool | None:
    """Whether no entry is NaN or infinite; None for a tensor that the compiled library does not take."""
    tensor = turned(tensor, memory_order(tensor)) if type(tensor) is Tensor else tensor
    if active_backend() == REFERENCE or not _fits(tensor, tensor.shape):
        return None
    count = tensor.numel()
    return not native.library().varbnn_cpu_finite(native.pointer(tensor), count, native.threads())


def can_step(memories: Sequence[Memory]) -> bool:
    """Whether the compiled library takes them: plain, contiguous float32 tensors on the CPU, outside torch.compile."""
    if torch.compiler.is_compiling() or active_backend() == REFERENCE:
        return False
    return all(_fits(t, m.belief.shape) for m in memories for t in m.tensors())


def _fits(tensor: Tensor, shape: torch.Size) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu"
    return plain and tensor.dtype == torch.float32 and tensor.is_contiguous() and tensor.shape == shape


def settings(filter: str, pull: str, decision: str, **numbers: float) -> Settings:
    """The settings of a step; numbers that are not given are 0, gain, scale and divisor 1."""
    chosen: dict[str, Any] = {"gain": 1.0, "scale": 1.0, "divisor": 1.0, **numbers}
    return Settings(filter=FILTERS[filter], pull=PULLS[pull], decision=DECISIONS[decision], **chosen)


def step(how: Settings, memory: Memory) -> None:
    """Change one belief and its states in place."""
    function = native.library().varbnn_cpu_step
    count = memory.belief.numel()
    function(ctypes.byref(how), ctypes.byref(memory.pointers()), count, native.threads())
    _changed(memory)


def step_pair(how: Settings, location: Memory, precision: Memory) -> None:
    """Change a location, its precision and their states in place."""
    function = native.library().varbnn_cpu_step_pair
    both = [ctypes.byref(memory.pointers()) for memory in (location, precision)]
    function(ctypes.byref(how), *both, location.belief.numel(), native.threads())
    _changed(location)
    _changed(precision)


def _changed(memory: Memory) -> None:
    # so that autograd notices a belief that changed between forward and backward, as after any in-place operation
    moved = [memory.belief, *memory.states]
    torch.autograd.graph.increment_version(moved if memory.prior is None else [*moved, memory.prior])
