"""What the most probable network makes of data it was not trained on, with nothing of the training disturbed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from varbnn import saving
from varbnn.errors import InputError
from varbnn.nn.batchnorm import batchnorm_preserved, batchnorms, device_of, refresh_batchnorm
from varbnn.nn.draws import binary_layers, evaluating
from varbnn.training.epoch import Loss, Row, Tally, finite, loss_of, pair

REFRESH = 1000
"""Training inputs, at least, from which batch-norm statistics are re-estimated; whole batches are taken."""


class Validation:
    """The mode of the model, judged after every epoch.

    Batch-norm statistics of training average over many draws and describe no network: on the digits of docs/start.md
    they make the loss of the mode five times what it is (0.30 against 0.06), and put its least value elsewhere. So they
    are re-estimated for the mode, from the first inputs of the epoch, and put back.
    """

    def __init__(self, model: nn.Module, loader: Iterable[Any], loss: Loss) -> None:
        # a data parallel model sends its buffers to the other ranks in every forward, in eval mode too
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.loader, self.loss = loader, loss
        self._refreshes = bool(batchnorms(self.model)) and any(True for _ in binary_layers(self.model))
        self._inputs: list[Tensor] = []

    def seeing(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of `loader`, which is trained on; the inputs of the first are kept for the statistics."""
        count, self._inputs = 0, []
        for batch in loader:
            if self._refreshes and count < REFRESH:
                self._inputs.append(pair(batch, "loader")[0].clone())  # a loader may fill the same memory again
                count += len(batch[0])
            yield batch

    def row(self) -> Row:
        """``val_loss`` and, where there are classes, ``val_accuracy``.

        Raises:
            InputError: nothing in the loader, a batch that is no pair of tensors, or what is no finite loss.
        """
        model, tally, device, name = self.model, Tally(self.loss), device_of(self.model), "validation loader"
        with _undisturbed(self.loader, device), evaluating(model), batchnorm_preserved(model), torch.no_grad():
            if self._inputs:
                refresh_batchnorm(model, self._inputs)
            for batch in self.loader:
                x, y = (tensor.to(device) for tensor in pair(batch, name))
                output = model(x.clone())
                tally.add(finite(loss_of(self.loss, output, y, name), name), len(x), output, y)
        if tally.seen == 0:
            raise InputError("the validation loader yielded no batch; give one that can be gone through every epoch")
        return {f"val_{name}": value for name, value in tally.row().items()}


@contextmanager
def _undisturbed(loader: Iterable[Any], device: torch.device) -> Iterator[None]:
    """Put all random states and the loader's generators back: even a loader that does not shuffle draws a seed."""
    generators = [(generator, generator.get_state()) for generator in saving.generators_of(loader).values()]
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - that of others
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        for generator, state in generators:
            generator.set_state(state)
