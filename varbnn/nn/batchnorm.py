"""Batch-norm statistics belong to a weight draw: re-estimate them, and put the old ones back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset, IterableDataset

from varbnn.checks import as_tensor
from varbnn.errors import InputError, VarbnnWarning
from varbnn.nn.compiled import uncompiled
from varbnn.nn.draws import binary_layers, evaluating
from varbnn.posteriors import belief_of

BATCH_SIZE = 1000
"""Inputs per forward pass, at most, where a tensor or an array is gone through."""

Data = Tensor | np.ndarray[Any, Any] | Iterable[Any]


def batchnorms(model: nn.Module) -> list[_BatchNorm]:
    """The batch-norm layers of `model` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def refreshable(model: nn.Module) -> list[_BatchNorm]:
    """Those that follow ``model.train()``; others are frozen, as in fine-tuned models: training used what they have."""
    with evaluating(model):
        model.train()
        return [layer for layer in batchnorms(model) if layer.training]


def warn_of_batchnorm(model: nn.Module) -> None:
    """Tell the caller's caller that the statistics of `model` fit no network that is drawn from it, nor the mode."""
    if batchnorms(model) and any(not layer.posterior.certain for _, layer in binary_layers(model)):
        warnings.warn(
            "this model has batch norm, whose statistics belong to one network: pass refresh_bn=training inputs to "
            "re-estimate them for the mode or for each draw. Without it, those of training are used, which fit none.",
            VarbnnWarning,
            stacklevel=3,
        )


@contextmanager
def batchnorm_preserved(model: nn.Module, *, only_on_error: bool = False) -> Iterator[None]:
    """Put the batch-norm statistics of `model` back at the end, also after an exception, or only then."""
    layers = batchnorms(model)
    saved = [{name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)} for layer in layers]
    kept = False
    try:
        yield
        kept = only_on_error
    finally:
        if not kept:
            with torch.no_grad():
                for layer, buffers in zip(layers, saved, strict=True):
                    for name, buffer in buffers.items():
                        getattr(layer, name).copy_(buffer)


def input_batches(data: Data, batch_size: int, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
    """The inputs in `data`, batch by batch: a tensor is cut up, a loader's (x, ...) gives x, floating ones in `dtype`.

    Raises:
        InputError: a batch is empty, no dense tensor with an axis of inputs, or has NaN or infinite entries.
    """
    batches: Iterable[Any] = data.split(batch_size) if isinstance(data, Tensor) else data
    for number, batch in enumerate(batches):
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        if isinstance(x, np.ndarray):
            x = as_tensor(x, f"batch {number}", read_only=True)
        if not isinstance(x, Tensor):
            raise InputError(
                f"batch {number} is a {type(x).__name__}; give tensors, or tuples that start with the inputs"
            )
        require_dense(x, f"batch {number}")
        if x.numel() == 0:
            raise InputError(f"batch {number} is empty, shape {tuple(x.shape)}")
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise InputError(f"batch {number} of the inputs has NaN or infinite entries; clean the data first")
        yield x.to(dtype) if dtype is not None and x.is_floating_point() else x


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter or buffer of `model` lies; the CPU for a model without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def require_numbers(model: nn.Module) -> None:
    """Raise InputError where `model` is on the meta device."""
    if device_of(model).type == "meta":
        raise InputError(
            "the model is on the meta device, where it has no numbers; call .to_empty(device='cpu') and load a state"
        )


def real_dtype(model: nn.Module) -> torch.dtype:
    """Precision `model` computes in: that of its real parameters, since beliefs never drop below float32."""
    floating = [p for p in model.parameters() if p.is_floating_point()]
    real = [p for p in floating if belief_of(p) is None]
    return (real or floating)[0].dtype if floating else torch.get_default_dtype()


def as_data(data: Data, name: str, model: nn.Module) -> Data:
    """`data` with a floating array or tensor in the precision that `model` computes in.

    Raises:
        InputError: neither tensor, array nor loader; a tensor that is not dense or has no axis of inputs.
    """
    if isinstance(data, np.ndarray):
        data = as_tensor(data, name, read_only=True)
    if isinstance(data, Tensor):
        require_dense(data, name)
        return data.to(real_dtype(model)) if data.is_floating_point() else data
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise InputError(
            f"{name} must be batches, got a {type(data).__name__}; wrap it: DataLoader(data, batch_size=256)"
        )
    if isinstance(data, (tuple, dict, str)) or not hasattr(data, "__iter__"):
        raise InputError(f"{name} must be a tensor, an array or a loader of batches, got {type(data).__name__}")
    return data


def require_dense(x: Tensor, name: str) -> None:
    """Raise InputError unless `x` holds numbers along at least one axis; `name` is what the caller calls it."""
    if x.layout != torch.strided or x.is_meta:
        kind = "on the meta device" if x.is_meta else str(x.layout)
        raise InputError(
            f"{name} must be dense numbers, got a tensor that is {kind}; give it .to_dense() or with values"
        )
    if x.ndim == 0:
        raise InputError(f"{name} must have its inputs along the first axis, got a single number")


def refresh_batchnorm(model: nn.Module, data: Data) -> int:
    """Re-estimate the batch-norm statistics of `model` for the weights it has now, in one pass over `data`.

    The running statistics of training are averages over many draws and describe none of them. "The weights it has
    now" are the mode, or inside `varbnn.sampled` the sample held there. Mean and variance are those of all inputs
    together, within and between batches, with every batch-norm layer in train mode and everything else in eval mode. A
    layer that the forward does not reach keeps its old ones, and so does one that stays in eval mode when the model is
    put into train mode, as frozen ones do; if anything fails, all do.

    Args:
        model: put back into the mode it was in.
        data: a tensor or array of inputs, or a loader that yields inputs or (inputs, ...) in mixed order; one pass is
            made. Arrays, float64 by habit, take the model's precision.

    Returns:
        The number of inputs used.

    Raises:
        InputError: `data` yields nothing, an empty batch, NaN or infinite inputs, or a batch too small to have a
            variance; or finite inputs overflow on their way to a batch norm.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    >>> vb.refresh_batchnorm(model, torch.randn(50, 4))
    50
    """
    layers = refreshable(model)
    momenta, pools, total = [layer.momentum for layer in layers], [Pool() for _ in layers], 0
    handles = [layer.register_forward_hook(pool.look) for layer, pool in zip(layers, pools, strict=True)]
    try:
        with batchnorm_preserved(model), evaluating(model), uncompiled(), torch.no_grad():
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = 1.0  # the running statistics are then those of the batch, for the pool to read
                layer.train()
            for x in mixed_batches(model, data):
                total += len(x)
                forward_with_variance(model, x)
    finally:
        for handle in handles:
            handle.remove()
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    reached = [(layer, *pool.read()) for layer, pool in zip(layers, pools, strict=True) if pool.count]
    for layer, mean, variance in reached:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return total


def mixed_batches(model: nn.Module, data: Data) -> Iterator[Tensor]:
    """The batches that statistics are estimated from, on the device of `model`.

    Raises:
        InputError: no batch, an empty one, or NaN or infinite inputs.
    """
    require_numbers(model)
    device, empty = device_of(model), True
    for x in input_batches(_even_parts(as_data(data, "data", model)), BATCH_SIZE, real_dtype(model)):
        empty = False
        yield x.to(device, copy=True)  # a model may write into its input
    if empty:
        raise InputError("there is nothing to re-estimate batch-norm statistics from: the data yielded no batch")


class Pool:
    """Mean and variance of everything that went through one batch-norm layer, of one network or of several at once."""

    def __init__(self) -> None:
        nothing = torch.zeros((), device="cpu")  # adds to numbers of any device
        self.count, self.total, self.squares = 0, nothing, nothing

    def add(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """A batch of `count` values per channel, with its mean and unbiased variance, (C) or (networks, C)."""
        mean = mean.double()
        self.count += count
        self.total = self.total + count * mean
        self.squares = self.squares + (count - 1) * variance.double() + count * mean.square()

    def look(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook."""
        assert isinstance(layer, _BatchNorm)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        self.add(output.numel() // output.shape[1], layer.running_mean, layer.running_var)

    def read(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance of all values together, ``float64``.

        Raises:
            InputError: either is NaN or infinite.
        """
        if not bool((self.total + self.squares).isfinite().all()):
            raise InputError(
                "what a batch norm sees, or its square, is NaN or infinite, though the inputs are finite. If the "
                "model's parameters are finite too, it is too large for their precision: standardise the inputs, "
                "normalise earlier in the model, or use float32"
            )
        mean = self.total / self.count
        # squares minus their mean part cancel at worst to a small negative number
        return mean, (self.squares - self.count * mean.square()).clamp_min(0) / max(self.count - 1, 1)


def _even_parts(data: Data) -> Data:
    # 1001 inputs do not end in a batch of one, and sorted inputs are mixed: later layers see batches, not the whole
    if not isinstance(data, Tensor):
        return data
    parts = -(-len(data) // BATCH_SIZE) or 1
    return [data[start::parts] for start in range(parts)]


def forward_with_variance(model: nn.Module, x: Tensor, advice: str = "use larger batches, or drop_last=True") -> Any:
    """What `model` gives for one batch, of which some of its batch norms take the statistics.

    Args:
        advice: what can be done about a batch that is too small.

    Raises:
        InputError: the batch is too small to have a variance, or the model takes no such numbers.
    """
    try:
        return answer(model, x)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(f"a batch of {len(x)} has no variance to estimate; {advice}") from error


def answer(model: nn.Module, x: Tensor) -> Any:
    """What `model` says to one batch.

    Raises:
        InputError: torch refuses whole numbers, which only a model of tokens takes.
    """
    try:
        return model(x)
    except RuntimeError as error:
        if x.is_floating_point() or type(error) is not RuntimeError:
            raise
        raise InputError(
            f"the model fails on inputs of {x.dtype}; if they are no tokens, call .float() ({error})"
        ) from error
