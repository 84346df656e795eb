"""What stands in the header of a packed file, read strictly: every field of the right type and in range."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch

from varbnn.errors import CheckpointError, InputError
from varbnn.packed.call import Ref

LARGEST = 2**31 - 1
"""Of a size; as the kernels allow."""

LARGEST_CONSTANT = 2**63 - 1
"""Of a whole number that a call holds."""

LARGEST_NUMBER = 1e300

LONGEST_TEXT = 1000
DEEPEST = 16
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
"""Of tensors, by torch's names."""

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def require(condition: bool, message: str) -> None:
    """Raise `CheckpointError` unless `condition`; whoever knows the file's name puts it in front."""
    if not condition:
        raise CheckpointError(message)


def shown(value: Any) -> str:
    """A value from a file in a message: short, on one line.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…"
    """
    text = repr(value[:100]) if isinstance(value, str | list) else repr(value) if type(value) in _PLAIN else "{…}"
    return text if len(text) <= 40 else text[:37] + "…"


_PLAIN = (int, float, bool, type(None), str)


def parse(text: str | bytes, what: str) -> Any:
    """JSON without repeated names, NaN or inf.

    Raises:
        CheckpointError: it is no such JSON; `what` says what it should have been.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise CheckpointError(f"{what} is nested too deeply") from None
    except ValueError as error:  # of JSON, UTF-8, and whole numbers with thousands of digits
        raise CheckpointError(f"{what} is not valid JSON: {str(error)[:100]}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


def is_integer(value: Any, low: int, high: int) -> bool:
    """Is it a whole number (`True` is none) from `low` to `high`?"""
    return type(value) is int and low <= value <= high


class Fields:
    """One JSON object, whose fields are taken one by one; `where` names it in messages.

    >>> fields = Fields({"size": 3, "flat": True}, "step 1")
    >>> fields.integer("size", 1, 9), fields.flag("flat")
    (3, True)
    >>> fields.done()
    >>> Fields({"size": -3}, "step 1").integer("size", 1, 9)
    Traceback (most recent call last):
    varbnn.errors.CheckpointError: step 1: size must be a whole number from 1 to 9, found -3
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise CheckpointError(f"{where} must be an object, found {shown(value)}")
        self.left, self.where = dict(value), where

    def take(self, name: str) -> Any:
        require(name in self.left, f"{self.where} has no {name!r}")
        return self.left.pop(name)

    def _check(self, name: str, value: Any, fits: bool, expected: str) -> None:
        if not fits:  # the message costs more than the check
            raise CheckpointError(f"{self.where}: {name} must be {expected}, found {shown(value)}")

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.take(name)
        self._check(name, value, is_integer(value, low, high), f"a whole number from {low} to {high}")
        return value

    def integers(self, name: str, count: int | None, low: int, high: int) -> list[int]:
        value = self.take(name)
        right = isinstance(value, list) and (count is None or len(value) == count)
        fits = right and all(is_integer(item, low, high) for item in value)
        number = "" if count is None else f"{count} "
        self._check(name, value, fits, f"{number}whole numbers from {low} to {high}")
        return list(value)

    def number(self, name: str) -> float:
        value = self.take(name)
        # not math.isfinite, which turns the number to a float and fails where that is too small for it
        fits = type(value) in (int, float) and abs(value) <= LARGEST_NUMBER
        self._check(name, value, fits, "a finite number")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.take(name)
        self._check(name, value, isinstance(value, bool), "true or false")
        return value

    def choice(self, name: str, options: Sequence[str]) -> str:
        value = self.take(name)
        self._check(name, value, isinstance(value, str) and value in options, f"one of {', '.join(options)}")
        return value

    def text(self, name: str) -> str:
        value = self.take(name)
        self._check(name, value, isinstance(value, str) and len(value) <= LONGEST_TEXT, "a short text")
        return value

    def items(self, name: str, most: int) -> list[Any]:
        value = self.take(name)
        self._check(name, value, isinstance(value, list) and len(value) <= most, f"a list of at most {most}")
        return value

    def done(self) -> None:
        """Nothing may be left that nobody asked for."""
        if self.left:
            raise CheckpointError(f"{self.where} has the unknown field {shown(next(iter(self.left)))}")


def encode(value: Any) -> Any:
    """A constant of a call as JSON; `decode` gives it back.

    Raises:
        InputError: a file cannot hold it.

    >>> encode((1, [2.5, Ref(0)]))
    {'tuple': [1, [2.5, {'ref': 0}]]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) <= LARGEST_CONSTANT:
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Ref):
        return {"ref": value.index}
    if isinstance(value, tuple):
        return {"tuple": [encode(item) for item in value]}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": [[key, encode(item)] for key, item in value.items()]}
    if isinstance(value, slice):
        return {"slice": [encode(item) for item in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype) and str(value).removeprefix("torch.") in DTYPES:
        return {"dtype": str(value).removeprefix("torch.")}
    raise InputError(f"a packed file cannot hold {shown(value)} ({type(value).__name__})")


def decode(value: Any, references: int, depth: int = 0) -> Any:
    """The constant that `encode` wrote; it may refer to the first `references` inputs of its step.

    Raises:
        CheckpointError: `encode` never writes that.
    """
    require(depth < DEEPEST, "a constant is nested too deeply")
    if isinstance(value, list):
        return [decode(item, references, depth + 1) for item in value]
    if not isinstance(value, dict):
        whole = type(value) is int and abs(value) <= LARGEST_CONSTANT
        long = isinstance(value, str) and len(value) > LONGEST_TEXT
        require(not long and (whole or type(value) is not int), f"the constant {shown(value)} is out of range")
        return value
    require(len(value) == 1, f"a constant is an object with one field, found {len(value)}")
    ((kind, held),) = value.items()
    if kind == "ref" and is_integer(held, 0, references - 1):
        return Ref(held)
    if kind == "float" and isinstance(held, str) and held in _NOT_FINITE:
        return _NOT_FINITE[held]
    if kind == "dtype" and isinstance(held, str) and held in DTYPES:
        return getattr(torch, held)
    if kind == "ellipsis" and held is True:
        return Ellipsis
    if kind == "tuple" and isinstance(held, list):
        return tuple(decode(item, references, depth + 1) for item in held)
    if kind == "slice" and isinstance(held, list) and len(held) == 3:
        return slice(*(decode(item, references, depth + 1) for item in held))
    if kind == "dict" and isinstance(held, list):
        pairs = [item for item in held if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)]
        require(len(pairs) == len(held) == len({key for key, _ in pairs}), "a dict is a list of [name, constant]")
        return {key: decode(item, references, depth + 1) for key, item in pairs}
    raise CheckpointError(f"no constant is written as {shown(kind)}: {shown(held)}")
