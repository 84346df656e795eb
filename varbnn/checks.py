"""What a count, a seed, a strength or an array has to be: one rule and one wording for all of them."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varbnn.errors import InputError

Values = Tensor | np.ndarray | Sequence[Any]  # what can be given wherever a tensor of numbers is asked for


def whole_number(name: str, value: object, least: int = 1, most: int | None = None, *, note: str = "") -> int:
    """`value` as a Python int from `least` to `most`; numpy's and torch's integers are taken, bools and 3.0 are not.

    Args:
        name: of the argument, for the message.
        least, most: the bounds, both allowed.
        note: what else the message says of the bounds.

    Raises:
        InputError: anything else.

    >>> whole_number("epochs", 3)
    3
    >>> whole_number("num_samples", True, least=0, note=" (0 is the mode)")
    Traceback (most recent call last):
    varbnn.errors.InputError: num_samples must be a whole number ≥ 0 (0 is the mode), got True
    """
    number = _plain(value)
    if not isinstance(number, int) or number < least or (most is not None and number > most):
        bounds = f"≥ {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be a whole number {bounds}{note}, got {value!r}")
    return number


def finite_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    note: str = "",
) -> float:
    """`value` as a finite Python float; numpy's and torch's numbers are taken, bools are not.

    Args:
        name, note: as for `whole_number`.
        above: what it must be larger than.
        least, most: the bounds, both allowed.

    Raises:
        InputError: anything else.

    >>> finite_number("budget", 1, above=0, most=1)
    1.0
    >>> finite_number("budget", 2.5, above=0, most=1)
    Traceback (most recent call last):
    varbnn.errors.InputError: budget must be a finite number > 0 and ≤ 1, got 2.5
    """
    number = _plain(value)
    finite = number is not None and abs(number) <= sys.float_info.max
    if number is None or not finite or not number > above or not least <= number <= most:
        signs = (">", above), ("≥", least), ("≤", most)
        bounds = " and ".join(f"{sign} {bound:.16g}" for sign, bound in signs if math.isfinite(bound))
        raise InputError(f"{name} must be {f'a finite number {bounds}'.rstrip()}{note}, got {value!r}")
    return float(number)


def as_tensor(values: Values | float, name: str, *, read_only: bool = False) -> Tensor:
    """`values` as a detached tensor that shares the memory of a tensor or an array.

    Python numbers become float64 or int64, whatever torch's default; a list of tensors is stacked. An array that is
    read-only is copied, unless `read_only`: then a memory map larger than memory will do, and nobody may write into it.

    >>> as_tensor([[0.25, 0.75]], "probs")
    tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """
    try:
        if isinstance(values, (list, tuple)) and len(values) > 0 and all(isinstance(v, Tensor) for v in values):
            tensor = torch.stack(list(values)).detach()
        else:
            tensor = (values if isinstance(values, Tensor) else _shared(values, read_only)).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values).__name__
        raise InputError(f"{name} must be a tensor, an array or nested lists of numbers, got {kind}: {error}") from None
    if tensor.is_sparse or tensor.is_complex():
        raise InputError(
            f"{name} must be dense and real, got {tensor.layout} {tensor.dtype}; call .to_dense() or take .real"
        )
    return tensor


def _shared(values: Any, read_only: bool) -> Tensor:
    """What is no tensor as one: shared, or a copy where that cannot be: read-only, a negative stride, swapped bytes."""
    array = np.asarray(values)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if min(array.strides, default=0) < 0 or not (array.flags.writeable or read_only):
        array = array.copy()
    if array.flags.writeable:
        return torch.as_tensor(array)
    with warnings.catch_warnings():  # of the process, and it makes others be shown again: only where it must be
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(array)


def require(holds: bool, message: str) -> None:
    """Raise InputError(message) unless a condition holds."""
    if not holds:
        raise InputError(message)


def described(value: object) -> str:
    """A tensor's dtype and shape, with its layout unless dense, or what else it is; for messages.

    >>> described(torch.zeros(2, 3)), described([1])
    ('torch.float32 (2, 3)', 'a list')
    """
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    layout = "" if value.layout is torch.strided else f"{value.layout} "
    return f"{layout}{value.dtype} {tuple(value.shape)}"


def finite_belief(layer: str, belief: Iterable[Tensor]) -> None:
    """Raise InputError where the belief of the layer of this name has NaN or infinite entries (of a sharded one, here).

    >>> finite_belief("head", [torch.tensor([0.0, torch.nan])])
    Traceback (most recent call last):
    varbnn.errors.InputError: the belief of layer 'head' has NaN or infinite entries; load an earlier checkpoint
    """
    for tensor in belief:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        if not local.is_meta and not bool(torch.isfinite(local).all()):
            raise InputError(f"the belief of layer {layer!r} has NaN or infinite entries; load an earlier checkpoint")


def optional_generator(generator: object) -> None:
    """Raise InputError unless `generator` is one of torch's, or None.

    >>> optional_generator(0)
    Traceback (most recent call last):
    varbnn.errors.InputError: generator must be a torch.Generator or None, got 0; a seed makes one: torch.Generator()...
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator must be a torch.Generator or None, got {generator!r}; a seed makes one: "
            "torch.Generator().manual_seed(0)"
        )


def given_noise(noise: object, generator: object, shape: Sequence[int], *, uniform: bool = True) -> None:
    """Raise InputError unless `noise` decides a draw of this shape by itself: numbers in [0, 1], or finite ones.

    Nothing is checked in a compiled graph; numbers are looked at on the CPU only, where nobody has to wait for them,
    and not under ``torch.vmap``, where they cannot be.

    >>> given_noise(torch.randn(3), None, (3,))
    Traceback (most recent call last):
    varbnn.errors.InputError: noise must lie in [0, 1], got numbers from ...
    """
    if torch.compiler.is_compiling():
        return
    if not isinstance(noise, Tensor):
        raise InputError(f"noise must be a tensor, got {described(noise)}")
    if generator is not None:
        raise InputError("noise decides the draw, and a generator would not be asked; give one of the two")
    try:
        torch.broadcast_shapes(noise.shape, tuple(shape))
    except RuntimeError:
        raise InputError(f"noise must go with weights of shape {tuple(shape)}, got {tuple(noise.shape)}") from None
    if noise.device.type != "cpu" or not noise.numel():
        return
    low, high = noise.detach().aminmax()  # either is NaN where one number is
    try:
        usable = bool((low >= 0) & (high <= 1)) if uniform else bool(low.isfinite() & high.isfinite())
    except RuntimeError:  # vmap's, or a tensor without numbers
        return
    if not usable:
        allowed = "lie in [0, 1]" if uniform else "be finite"
        raise InputError(f"noise must {allowed}, got numbers from {low.item():.4g} to {high.item():.4g}")


def usable_device(device: object) -> torch.device:
    """`device`, once a tensor could be made on it.

    Raises:
        InputError: no device that torch knows, or one that this machine or this torch has not.

    >>> usable_device("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(device)  # type: ignore[call-overload]
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"device must be one that torch can use here, such as 'cpu' or 'cuda:0', got {device!r}: {reason}"
        ) from None
    return found


def _plain(value: object) -> int | float | None:
    """A number out of numpy's or torch's hands; None for what is no number, or a bool."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None
