"""The same inputs, S times over: cut into batches, moved to the model, and checked to be the same each time."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from varbnn.checks import usable_device, whole_number
from varbnn.errors import InputError
from varbnn.nn.batchnorm import Data, as_data, device_of, input_batches, real_dtype


class RepeatedInputs:
    """Inputs that can be gone through once per sampled network.

    Args:
        data: tensor or array (inputs along the first axis), or a loader that yields x or (x, ...) in the same order
            every time.
        model: its first parameter says where inputs go, and arrays (float64 by habit) take its precision.
        batch_size: for a tensor or an array; a loader's batches stay as they are.
        num_passes: how often the inputs will be asked for.
        device: where inputs go instead.

    Raises:
        InputError: no inputs, an iterator that ends after one pass where more are needed, something that is no data, a
            device that cannot be used.
    """

    def __init__(
        self, data: Data, model: nn.Module, batch_size: int, num_passes: int, device: torch.device | str | None
    ) -> None:
        self.batch_size, self._dtype = whole_number("batch_size", batch_size), real_dtype(model)
        self.data = require_passes(as_data(data, "inputs", model), "inputs", num_passes)
        self.device = usable_device(device) if device is not None else device_of(model)
        self._sums: list[Tensor] = []  # two numbers per input, from the first pass; a tensor needs none
        self._weights: dict[int, Tensor] = {}  # by the width of inputs

    def one_pass(self) -> Iterator[Tensor]:
        """The batches, on the model's device.

        Raises:
            InputError: no batch or an empty one, NaN or inf; from the second pass on also fewer, more or other inputs.
        """
        first, seen = self._sums, 0
        known = torch.cat(first) if first else None
        for x in input_batches(self.data, self.batch_size, self._dtype):
            if not isinstance(self.data, Tensor):
                sums = self._marks(x, sizes=known is None)
                if known is None:
                    first.append(sums)
                else:
                    _require_same(known[seen : seen + len(x)], sums, len(known))
            seen += len(x)
            yield x.to(self.device, copy=True)  # a model may write into its input
        if seen == 0 and known is None:
            raise InputError("inputs hold no example; give at least one")
        if known is not None and seen != len(known):
            raise _other_number(len(known), f"{seen}")

    @property
    def expected(self) -> int:
        """How many inputs there should be: all of a tensor, or of an ordinary DataLoader's sampler; else 0, unknown."""
        if isinstance(self.data, Tensor):
            return len(self.data)
        batches = self.data.batch_sampler if isinstance(self.data, DataLoader) else None
        if type(batches) is not BatchSampler or not isinstance(batches.sampler, Sized):
            return 0
        number = len(batches.sampler)
        return number - number % batches.batch_size if batches.drop_last else number

    def _marks(self, x: Tensor, sizes: bool) -> Tensor:
        """A sum of each input under weights that no shuffle or flip keeps; N×1, or N×2 with its size."""
        rows = x.detach().reshape(len(x), -1).cpu()
        rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.double()
        if rows.shape[1] not in self._weights:
            weights = torch.rand(rows.shape[1], 1, generator=torch.Generator().manual_seed(0), device="cpu") + 0.5
            self._weights[rows.shape[1]] = weights
        weights = self._weights[rows.shape[1]].to(rows.dtype)
        sums = rows @ weights
        return torch.cat([sums, rows.abs() @ weights], 1) if sizes else sums

    def check_again(self) -> None:
        """Go through a loader once more, without a network: in another order nobody knows whose the rows are.

        Other rows, as of random augmentation, and a source that is used up are no objection for a single pass.

        Raises:
            InputError: it gave the same inputs in another order.
        """
        if isinstance(self.data, (Tensor, Iterator)):
            return
        known = torch.cat(self._sums)
        again = [self._marks(x, sizes=False) for x in input_batches(self.data, self.batch_size, self._dtype)]
        if sum(map(len, again)) != len(known):
            return
        before, after, allowed = known[:, 0], torch.cat(again)[:, 0], 1e-5 * known[:, 1].max()
        moved = bool(((before - after).abs() > allowed).any())
        if moved and bool(((before.sort().values - after.sort().values).abs() <= allowed).all()):
            raise _other_order()

    @property
    def in_order(self) -> bool:
        """Whether its kind alone says that every pass has the same order (or that there is no second one)."""
        if isinstance(self.data, DataLoader):
            groups = self.data.batch_sampler
            own = self.data if groups is None else groups
            return (own is self.data or type(own) is BatchSampler) and isinstance(own.sampler, SequentialSampler)
        return isinstance(self.data, (Tensor, Iterator, list))

    def forget(self) -> None:
        """Let the next pass be the first one."""
        self._sums = []


def require_passes(data: Data, name: str, num_passes: int) -> Data:
    """`data`, unless it is an iterator, which is used up after one pass, and more are needed.

    >>> require_passes(iter([]), "refresh_bn", num_passes=32)
    Traceback (most recent call last):
    varbnn.errors.InputError: refresh_bn is used up after one pass (list_iterator), but 32 are needed, one per ...
    """
    if isinstance(data, Iterator) and num_passes > 1:
        raise InputError(
            f"{name} is used up after one pass ({type(data).__name__}), but {num_passes} are needed, one per sampled "
            "network. Give a tensor, a DataLoader or a list of batches."
        )
    return data


def _require_same(expected: Tensor, sums: Tensor, total: int) -> None:
    if len(expected) != len(sums):
        raise _other_number(total, "more")
    if bool(((expected[:, 0] - sums[:, 0]).abs() > 1e-5 * expected[:, 1]).any()):
        raise _other_order()


def _other_order() -> InputError:
    return InputError(
        "the loader gave other inputs, or another order, on a later pass; the samples of one row would belong to "
        "different inputs. Use shuffle=False and no random augmentation, or give a tensor."
    )


def _other_number(total: int, found: str) -> InputError:
    return InputError(
        f"the loader gave {total} inputs on the first pass and {found} on a later one; every sampled network needs the "
        "same inputs. Give a tensor, or a loader that can be restarted."
    )
