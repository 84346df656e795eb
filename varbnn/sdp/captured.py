"""What goes into a layer and what should come out, as rows of least-squares problems."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varbnn.errors import InputError
from varbnn.nn.batchnorm import BATCH_SIZE, Data, device_of, input_batches
from varbnn.nn.draws import evaluating


class Seen:
    """Rows of inputs of one layer that went through it, in order of its calls."""

    def __init__(self, kept: Tensor | None) -> None:
        self.count = 0
        self.kept = kept  # sorted indices; None keeps nothing and only counts
        self.rows: list[Tensor] = []

    def take(self, rows: Tensor) -> None:
        """`rows` is groups × M × K."""
        if self.kept is not None:
            here = self.kept[(self.kept >= self.count) & (self.kept < self.count + rows.shape[1])] - self.count
            self.rows.append(rows[:, here.to(rows.device)].double().cpu())
        self.count += rows.shape[1]


def rows_of(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs as the rows that the weights of one output meet: groups × M × (fan-in).

    For a convolution M counts examples and positions; for a linear layer there is one group.

    >>> rows_of(nn.Conv1d(2, 4, 3, padding=1, groups=2), torch.zeros(5, 2, 7)).shape
    torch.Size([2, 35, 3])
    """
    if isinstance(layer, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1])
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    sizes = layer.kernel_size
    if inputs.dim() == len(sizes) + 1:  # torch takes one example without a batch too
        inputs = inputs[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    patches = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    for axis, size in enumerate(sizes):
        reach = layer.dilation[axis] * (size - 1) + 1
        patches = patches.unfold(2 + axis, reach, layer.stride[axis])[..., :: layer.dilation[axis]]
    # N, C, positions, kernel → groups, N · positions, C / groups · kernel
    count, channels, dimensions = patches.shape[0], patches.shape[1], len(sizes)
    positions = patches.shape[2 : 2 + dimensions]
    grouped = patches.reshape(count, layer.groups, channels // layer.groups, *positions, *sizes)
    order = [1, 0, *range(3, 3 + dimensions), 2, *range(3 + dimensions, 3 + 2 * dimensions)]
    return grouped.permute(order).reshape(layer.groups, count * math.prod(positions), -1)


@contextmanager
def watching(layers: Iterable[nn.Module], seen: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """Tell `seen` the inputs of every call of `layers`."""

    def tell(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen(module, args[0] if args else kwargs["input"])

    handles = [layer.register_forward_pre_hook(tell, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Calibration:
    """Inputs that are gone through again and again, and must be the same each time.

    Attributes:
        data: as given.
        dtype: of floating inputs.
        digest: of all inputs in their order; empty before the first pass.
    """

    def __init__(self, data: Data, dtype: torch.dtype) -> None:
        self.data, self.dtype, self.digest = data, dtype, ""

    def batches(self) -> Iterator[Tensor]:
        """
        Raises:
            InputError: no batch; or, after the last one, that a pass before had others.
        """
        if self.digest and isinstance(self.data, Tensor):
            yield from input_batches(self.data, BATCH_SIZE, self.dtype)
            return
        digest, count = hashlib.sha256(), 0
        for count, batch in enumerate(input_batches(self.data, BATCH_SIZE, self.dtype), 1):  # noqa: B007
            digest.update(repr((tuple(batch.shape), batch.dtype)).encode())
            digest.update(batch.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
            yield batch
        if not count:
            raise InputError("calibration yields no batch; is it a generator that was used up, or drop_last too eager?")
        if self.digest not in ("", digest.hexdigest()):
            raise InputError(
                "calibration gave other inputs, or another order, on a later pass, so that inputs and outputs of a "
                "layer would not belong together; use shuffle=False and no random augmentation, or give a tensor"
            )
        self.digest = digest.hexdigest()


@torch.no_grad()
def order_of_use(model: nn.Module, layers: dict[str, nn.Module], data: Calibration) -> dict[str, int]:
    """The names of `layers` in the order in which the model uses them, with the rows each sees."""
    names = {module: name for name, module in layers.items()}
    counts: dict[str, int] = {}

    def count(module: nn.Module, inputs: Tensor) -> None:
        name = names[module]
        counts[name] = counts.get(name, 0) + rows_of(module, inputs).shape[1]

    with evaluating(model), watching(layers.values(), count):
        for batch in data.batches():
            model(batch.to(device_of(model), copy=True))  # it may write into them
    return counts


@torch.no_grad()
def inputs_of(model: nn.Module, layer: nn.Module, data: Calibration, kept: Tensor) -> Tensor:
    """The rows of `layer` with these indices, groups × M × K, float64."""
    seen = Seen(kept)
    with evaluating(model), watching([layer], lambda module, inputs: seen.take(rows_of(module, inputs))):
        for batch in data.batches():
            model(batch.to(device_of(model), copy=True))  # it may write into them
    return torch.cat(seen.rows, 1)
