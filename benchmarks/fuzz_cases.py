"""Single cases of `fuzz.py`, each made from its number alone, so that any can be run again.

A case answers with the name of what happened, or raises `Failure` where something happened that must not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from tests.packed.mutations import BY_BYTES, MENDED, Parts, networks, packed
from varbnn.bits import pack, pack_blocks
from varbnn.errors import CheckpointError, InputError
from varbnn.kernels import ops, usable_backends, using_backend
from varbnn.packed import PackedEnsemble
from varbnn.packed.file import Opened, read
from varbnn.packed.file.container import Container
from varbnn.packed.file.document import program_of

MOST_BYTES = 2**25
"""Of a value in a forged program that is run."""


class Failure(Exception):
    """What a case must never do."""


class Files:
    """A small packed file, damaged, is loaded: refused with `CheckpointError`, the same, or (forged) sound."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(prefix="varbnn-fuzz-", dir=memory if memory.is_dir() else None)
        self.path = os.path.join(self.folder.name, "a.vbnn")
        self.saved: list[tuple[bytes, dict[str, Any], Tensor]] = []
        torch.manual_seed(0)
        for name in networks():
            ensemble, x = packed(name)
            ensemble.save(self.path)
            content = Path(self.path).read_bytes()
            self.saved.append((content, Parts(content).document, x))

    def close(self) -> None:
        """Remove the file."""
        self.folder.cleanup()

    def __call__(self, random: Random) -> str:
        content, document, x = random.choice(self.saved)
        mutate = random.choice(BY_BYTES + MENDED + MENDED)
        with open(self.path, "wb") as file:
            file.write(mutate(content, random))
        try:
            opened = read(self.path, mmap=random.random() < 0.3)
        except CheckpointError:
            return f"{mutate.__name__}: refused"
        if opened.document == document:
            return f"{mutate.__name__}: same"
        if mutate not in MENDED:
            raise Failure(f"{mutate.__name__} made another ensemble without the checksums showing it")
        return f"{mutate.__name__}: other, {self._answer(opened, x)}"

    def _answer(self, opened: Opened, x: Tensor) -> str:
        """Run a forged program, unless it asks for more memory than the fuzzer grants."""
        with open(self.path, "rb") as file:
            entries = Container.of(file).entries
        meta, _ = program_of(opened.document, {name: entry.meta() for name, entry in entries.items()})
        values: list[Any] = [torch.empty_like(x, device="meta")]
        try:
            for step, wire in zip(meta.steps, meta.wires, strict=True):
                values.append(step(*(values[value] for value in wire)))
                if isinstance(values[-1], Tensor) and values[-1].numel() * 4 > MOST_BYTES:
                    return "too large to run"
            PackedEnsemble(opened.program, opened.num_samples)(x)
        except InputError:
            return "refused when called"
        except (RuntimeError, TypeError, LookupError, ValueError, AttributeError):
            return "refused by torch when called"
        return "ran"


def _size(random: Random, most: int) -> int:
    return random.choice((0, 1, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, random.randint(1, most))) % (most + 1)


def _strided(tensor: Tensor, random: Random) -> Tensor:
    """The same numbers, lying another way in memory."""
    if tensor.numel() == 0:
        return tensor
    way = random.randrange(5)
    if way == 0 and tensor.dim() > 1:
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    if way == 1:
        wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1] + 1)
        wide[..., 1::2] = tensor
        return wide[..., 1::2]
    if way == 2:
        return torch.cat([tensor.new_zeros(random.randint(1, 3)), tensor.flatten()])[-tensor.numel() :].reshape(
            tensor.shape
        )
    return tensor


class Operations:
    """One operation with random arguments: what `plain` gives, or `InputError`."""

    def __init__(self) -> None:
        self.levels = [name for name in usable_backends() if name != "reference"] or ["reference"]
        self.kinds: tuple[Callable[[Random, torch.Generator], tuple[str, list[Any]]], ...] = (
            *(self._product, self._product, self._conv, self._conv, self._sample, self._signs),
        )

    def close(self) -> None:
        """Nothing is held."""

    def __call__(self, random: Random) -> str:
        generator = torch.Generator().manual_seed(random.getrandbits(60))
        name, arguments = random.choice(self.kinds)(random, generator)
        bad = self._spoil(arguments, random, generator) if random.random() < 0.4 else ""
        tensors = [i for i, argument in enumerate(arguments) if isinstance(argument, Tensor) and argument.dim() > 0]
        for index in tensors:
            arguments[index] = _strided(arguments[index], random)
        before = [arguments[index].clone() for index in tensors]
        level = random.choice(self.levels)
        torch.set_num_threads(2 if random.random() < 0.1 else 1)
        try:
            with using_backend(level):
                found = getattr(ops, name)(*arguments)
        except InputError:
            if not bad:
                raise Failure(f"{level} {name} refused good arguments") from None
            return f"{name}: refused"
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):
                raise
            return f"{name}: asked for more memory than there is"
        for index, copy in zip(tensors, before, strict=True):
            if not torch.equal(copy.nan_to_num(), arguments[index].nan_to_num()):
                raise Failure(f"{level} {name} changed its argument {index}")
        if bad:
            return f"{name}: answered bad arguments ({bad})"
        torch.set_num_threads(1)
        with using_backend("reference"):
            expected = getattr(ops, name)(*arguments)
        self._compare(f"{level} {name}", found, expected)
        return f"{name}: as plain"

    @staticmethod
    def _compare(what: str, found: Any, expected: Any) -> None:
        pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
        for one, two in pairs:
            if one.dtype != two.dtype or one.shape != two.shape:
                raise Failure(f"{what} gives {one.dtype} {one.shape}, plain {two.dtype} {two.shape}")
            exact = not one.is_floating_point() or "predictive" not in what
            if not (torch.equal(one, two) if exact else torch.allclose(one, two, rtol=1e-4, atol=1e-5)):
                raise Failure(f"{what} differs from plain by {(one.double() - two.double()).abs().max():.3g}")

    @staticmethod
    def _spoil(arguments: list[Any], random: Random, generator: torch.Generator) -> str:
        """Make one argument bad; says how."""
        index = random.randrange(len(arguments))
        value = arguments[index]
        if isinstance(value, Tensor) and value.numel() and value.is_floating_point() and random.random() < 0.5:
            place = random.randrange(value.numel())
            arguments[index] = value.clone()
            arguments[index].view(-1)[place] = random.choice((float("nan"), float("inf"), float("-inf"), 1e38, 1e-42))
            return "numbers"
        if isinstance(value, Tensor):
            ways: tuple[Callable[[], Tensor], ...] = (
                *(value.double, value.float, value.bool, value.int, value.flatten, lambda: value.unsqueeze(0)),
                *(lambda: value.reshape(-1)[:-1], lambda: value.expand(2, *value.shape)),
                lambda: torch.cat([value, value], -1) if value.dim() else value,
            )
            arguments[index] = random.choice(ways)()
            if value.dtype == torch.int32 and value.dim() == 4 and random.random() < 0.3:
                arguments[index] = torch.randint(-(2**31), 2**31, value.shape, generator=generator).to(torch.int32)
            return "tensor"
        if isinstance(value, list):
            changed = list(value)
            at = random.randrange(len(changed) + 1)
            hostile = random.choice((0, -1, 2, 7, 2**31 - 1, 2**31, 2**62))
            if at == len(changed):
                changed.append(1)
            elif index == 6:  # padding: the padded input is really made by plain torch
                changed[at] = random.choice((-1, 5, 20))
            else:
                changed[at] = hostile
            arguments[index] = changed
            return "list"
        if isinstance(value, str):
            arguments[index] = random.choice(("", "tanh", "SIGN", "none", "sign"))
            return "activation"
        if isinstance(value, int):
            arguments[index] = random.choice((0, -1, value + 1, value - 1, value + 16, 2**31, 2**40, -(2**62)))
            return "number"
        return "nothing"

    @staticmethod
    def _finish(samples: int, outputs: int, random: Random, generator: torch.Generator) -> list[Any]:
        made: list[Any] = []
        for _ in range(2):
            rows = random.choice((1, samples))
            whole = torch.randint(-3, 4, (rows, outputs), generator=generator).float()
            made.append(None if random.random() < 0.3 else whole)
        return made

    @staticmethod
    def _signs_of(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, shape, generator=generator).float() * 2 - 1

    def _product(self, random: Random, generator: torch.Generator) -> tuple[str, list[Any]]:
        name = random.choice(("linear", "linear", "linear_int8", "predictive"))
        many = random.random() < 0.02
        samples = random.randint(1, 1000) if many else random.randint(1, 4)
        rows, inputs = _size(random, 3 if many else 40), max(1, _size(random, 40 if many else 300))
        outputs = max(1, _size(random, 17 if many else 80))
        weight = pack_blocks(self._signs_of((samples, outputs, inputs), generator))
        lead = random.choice((1, samples))
        if random.random() < 0.4 and name != "linear_int8":
            values = pack(self._signs_of((lead, rows, inputs), generator))
        else:
            # whole numbers: their sums are exact in any order; the largest of a row is 127, as 8 bits want it
            values = torch.randint(-8, 9, (lead, rows, inputs), generator=generator).float()
            if name == "linear_int8" and values.numel():
                values[..., 0] = 127
        finish = self._finish(samples, outputs, random, generator)
        if name != "predictive":
            finish.append(random.choice(("none", "relu", "sign")))
        return name, [values, weight, inputs, outputs, *finish]

    def _conv(self, random: Random, generator: torch.Generator) -> tuple[str, list[Any]]:
        dims, groups = random.randint(1, 3), random.choice((1, 1, 1, 2, 3))
        samples, rows = random.randint(1, 3), random.randint(0, 3)
        width = random.choice((1, 2, 3, 16, 31, 32, 33, 64))
        channels, outputs = width * groups, random.choice((1, 2, 15, 16, 17, 33)) * groups
        kernel, stride, dilation = ([random.randint(1, 3) for _ in range(dims)] for _ in range(3))
        padding = [random.choice((0, 0, 1, 2)) for _ in range(2 * dims)]
        space = [
            max(random.randint(1, 6), dilation[d] * (kernel[d] - 1) + 1 - padding[2 * d] - padding[2 * d + 1], 1)
            for d in range(dims)
        ]
        fan_in = width * torch.Size(kernel).numel()
        weight = pack_blocks(self._signs_of((samples, groups, outputs // groups, fan_in), generator)).flatten(1, 2)
        shape = (random.choice((1, samples)), rows, *space, channels)
        if random.random() < 0.4 and (groups == 1 or width % 32 == 0):
            values = pack(self._signs_of(shape, generator))
        else:
            values = torch.randint(-8, 9, shape, generator=generator).float()
        finish = [*self._finish(samples, outputs, random, generator), random.choice(("none", "relu", "sign"))]
        return "conv", [values, weight, channels, outputs, kernel, stride, padding, dilation, groups, *finish]

    def _sample(self, random: Random, generator: torch.Generator) -> tuple[str, list[Any]]:
        outputs, inputs = _size(random, 60), _size(random, 200)
        natural = 2 * torch.randn(outputs, inputs, generator=generator)
        if natural.numel():
            natural.view(-1)[random.randrange(natural.numel())] = random.choice(
                (float("inf"), float("-inf"), 0.0, 50.0)
            )
        seed = torch.tensor(random.getrandbits(63))
        layer, first = random.choice((0, 1, 2**31 - 1)), random.choice((0, 5, 2**31, 2**32 - 5))
        if random.random() < 0.5:
            return "draw", [natural, seed, layer, first]
        return "sample_blocks", [natural, seed, layer, first, random.randint(0, 4)]

    def _signs(self, random: Random, generator: torch.Generator) -> tuple[str, list[Any]]:
        shape = [_size(random, 9) for _ in range(random.randint(0, 2))]
        values = torch.randn(*shape, _size(random, 400), generator=generator)
        return "pack_signs", [values.round() if random.random() < 0.5 else values]


KINDS: dict[str, type[Files] | type[Operations]] = {"files": Files, "operations": Operations}
