"""What the most probable network makes of data it was not trained on, with nothing of the training disturbed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from varbnn.errors import InputError
from varbnn.nn.batchnorm import batchnorm_preserved, batchnorms, device_of, refresh_batchnorm
from varbnn.nn.draws import binary_layers, evaluating
from varbnn.training.epoch import Loss, Row, Tally, pair
from varbnn.training.resuming import generators_of

REFRESH = 1000
"""Training inputs, at least, from which batch-norm statistics are re-estimated; whole batches are taken."""


class Validation:
    """The mode of the model, judged after every epoch.

    Batch-norm statistics of training average over many draws and describe no network: on the digits of docs/start.md
    they make the loss of the mode five times what it is (0.30 against 0.06), and put its least value elsewhere. So they
    are re-estimated for the mode, from the first inputs of the epoch, and put back. Layers that stay in eval mode while
    the model is trained, as in fine-tuning, use the ones they have.
    """

    def __init__(self, model: nn.Module, loader: Iterable[Any], loss: Loss) -> None:
        # a data parallel model sends its buffers to the other ranks in every forward, in eval mode too
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.loader, self.loss = loader, loss
        self._binary = any(True for _ in binary_layers(self.model))
        self._inputs: list[Tensor] = []
        self._frozen: list[_BatchNorm] = []

    def seeing(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of `loader`, which is trained on; the inputs of the first are kept for the statistics."""
        count, self._inputs, layers = 0, [], batchnorms(self.model)
        self._frozen = [layer for layer in layers if not layer.training]
        refreshes = self._binary and len(self._frozen) < len(layers)
        for batch in loader:
            if refreshes and count < REFRESH:
                self._inputs.append(pair(batch, "loader")[0].clone())  # a loader may fill the same memory again
                count += len(batch[0])
            yield batch

    def row(self) -> Row:
        """``val_loss`` and, where there are classes, ``val_accuracy``.

        Raises:
            InputError: nothing in the loader, or a batch that is no pair of tensors.
        """
        model, tally, device = self.model, Tally(self.loss), device_of(self.model)
        with (
            _undisturbed(self.loader, device),
            evaluating(model),
            batchnorm_preserved(model),
            _as_they_are(self._frozen),
            torch.no_grad(),
        ):
            if self._inputs:
                refresh_batchnorm(model, self._inputs)
            for batch in self.loader:
                x, y = (tensor.to(device) for tensor in pair(batch, "validation loader"))
                output = model(x.clone())
                tally.add(self.loss(output, y).item(), len(x), output, y)
        if tally.seen == 0:
            raise InputError("the validation loader yielded no batch; give one that can be gone through every epoch")
        return {f"val_{name}": value for name, value in tally.row().items()}


@contextmanager
def _as_they_are(layers: list[_BatchNorm]) -> Iterator[None]:
    """These batch norms normalise with the statistics that they have now, whatever becomes of those meanwhile."""

    def hook(layer: _BatchNorm) -> Any:
        mean, variance = (layer.get_buffer(name).clone() for name in ("running_mean", "running_var"))
        return lambda _, args, __: F.batch_norm(args[0], mean, variance, layer.weight, layer.bias, eps=layer.eps)

    handles = [layer.register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _undisturbed(loader: Iterable[Any], device: torch.device) -> Iterator[None]:
    """Put all random states and the loader's generators back: even a loader that does not shuffle draws a seed."""
    generators = [(generator, generator.get_state()) for generator in generators_of(loader).values()]
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - that of others
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        for generator, state in generators:
            generator.set_state(state)
