"""The training loop people write anyway, with a progress bar, posterior health, and exact resume."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from varbnn import saving
from varbnn.data.checks import whole_number
from varbnn.errors import InputError
from varbnn.nn import antithetic as in_pairs
from varbnn.nn import binary_layers, draw_once_per_forward, gaussian_nll, health
from varbnn.nn.batchnorm import device_of
from varbnn.optim import Rule
from varbnn.optim.belonging import advance, chosen_settings, require_own, require_same_settings
from varbnn.optim.finite import refuse_nonfinite

__all__ = ["fit"]

Loss = Callable[[Tensor, Tensor], Tensor]


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Iterable[Any],
    *,
    epochs: int,
    loss: Loss = F.cross_entropy,
    scheduler: Any = None,
    num_samples: int = 1,
    antithetic: bool = False,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    label: str = "",
) -> list[dict[str, float]]:
    """Train `model` on `loader`; nothing more than zero_grad, forward, backward, step.

    Args:
        model: put into train mode.
        optimizer: any torch optimizer.
        loader: yields (inputs, targets), every epoch anew.
        epochs: passes over the loader, in all (a resumed run counts the earlier ones).
        loss: (outputs, targets) → mean loss per example.
        scheduler: a torch scheduler, stepped after every epoch; ``ReduceLROnPlateau`` gets the epoch's mean loss.
        num_samples: draws per step, whose gradients are averaged.
        antithetic: make the draws of a step opposite pairs (`varbnn.antithetic`); `num_samples` is then even.
        progress: show a bar with loss, accuracy, posterior entropy and flips.
        checkpoint: file to write after every epoch and to continue from when it is there. It holds the model, the
            optimizer, the scheduler, the loader's generator, torch's random state and the history; a resumed run ends
            as the uninterrupted one (not with ``persistent_workers=True``, whose workers keep states of their own). It
            goes on with an optimizer of the same settings only; more epochs may be asked for. Under torch.distributed
            every rank has draws of its own, and so a file of its own: the number of the rank is put behind its name.
        label: in front of the bar.

    Returns:
        One row per epoch: epoch, loss, lr, seconds, accuracy where outputs are N×C with C ≥ 2 and targets N whole
        numbers (those outside 0 … C - 1, such as ``ignore_index``, are not counted), and for a model with binary layers
        entropy_bits, saturated, kl, flips (modes that changed sign over the epoch) and step_flips (in its first step).

    Raises:
        InputError: a number out of range, an optimizer that holds none of the model's parameters or none of its
            beliefs, a loader that yields nothing or no pairs, or NaN on the way (the parameters keep their last good
            step).
        CheckpointError: `checkpoint` cannot be read, is in no folder that is there, or belongs to another model or to
            other settings of the optimizer; nothing is loaded then.

    Warns:
        VarbnnWarning: the optimizer holds some of the model's beliefs and not others, which then stay as they are.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Linear(4, 2))
    >>> optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.01, dataset_size=8, temperature=0.1)
    >>> data = [(torch.randn(8, 4), torch.tensor([0, 1] * 4))]
    >>> [row["epoch"] for row in fit(model, optimizer, data, epochs=2, progress=False)]
    [1, 2]
    """
    if not isinstance(model, nn.Module) or not hasattr(optimizer, "param_groups"):
        given = f"{type(model).__name__} and {type(optimizer).__name__}"
        raise InputError(f"fit takes a model and an optimizer, in this order, got {given}")
    require_own(model.parameters(), optimizer)
    for name, value in (("epochs", epochs), ("num_samples", num_samples)):
        if not whole_number(value, 1):
            raise InputError(f"{name} must be an integer ≥ 1, got {value!r}")
    epochs, num_samples = int(epochs), int(num_samples)  # numpy's would end in the checkpoint
    if antithetic and num_samples % 2:
        raise InputError(f"antithetic draws come in pairs, so num_samples must be even, got {num_samples}")
    path = None if checkpoint is None else _of_rank(Path(checkpoint))
    if path is not None:
        saving.require_folder(path)
    run = _Run(model, optimizer, scheduler, loader)
    history = run.load(path) if path is not None and path.exists() else []
    beliefs = any(True for _ in binary_layers(model))
    if beliefs:
        draw_once_per_forward(model)  # a model built by hand does not do so by itself
        health(model, warn=False)  # so that the first epoch's flips are counted from here
    with tqdm(total=epochs, initial=len(history), desc=label, unit="epoch", disable=not progress) as bar:
        for epoch in range(len(history) + 1, epochs + 1):
            _begin_epoch(loader, epoch - 1)
            row = {
                "epoch": epoch,
                "lr": float(optimizer.param_groups[0]["lr"]),  # of a tensor, which moves
                **_epoch(model, optimizer, loader, loss, num_samples, antithetic),
            }
            if scheduler is not None:
                advance(scheduler, row["loss"])
            if beliefs:
                row |= _beliefs(model, last=epoch == epochs)
            history.append(row)
            if path is not None:
                run.save(path, history)
            bar.set_postfix(_postfix(row))
            bar.update()
    return history


def _of_rank(path: Path) -> Path:
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return path.with_name(f"{path.name}.{dist.get_rank()}") if several else path


def _begin_epoch(loader: Iterable[Any], number: int) -> None:
    """Tell samplers that shuffle by the number of the epoch, such as torch's `DistributedSampler`."""
    groups = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), groups, getattr(groups, "sampler", None)):
        if callable(tell := getattr(sampler, "set_epoch", None)):
            tell(number)


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Iterable[Any],
    loss: Loss,
    num_samples: int,
    antithetic: bool,
) -> dict[str, float]:
    start, seen, total, correct, asked = time.perf_counter(), 0, 0.0, 0, 0
    device = device_of(model)
    flips: dict[str, float] = {}
    model.train()
    for batch in loader:
        x, y = (tensor.to(device) for tensor in _pair(batch))
        optimizer.zero_grad()
        with in_pairs(model) if antithetic else nullcontext():
            for _ in range(num_samples):
                output = model(x.clone())  # it may write into it: other draws, and the caller's batches, need it
                value = loss(output, y)
                (value / num_samples).backward()
                total += value.item() * len(x) / num_samples
        if not isinstance(optimizer, Rule):  # which looks by itself
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            refuse_nonfinite([gradient for gradient in gradients if not gradient.is_sparse])
        before = None if seen else _modes(model)  # what one step does to the modes is looked at once per epoch
        optimizer.step()
        if before:
            flips = {"step_flips": float(sum((a != b).sum() for a, b in zip(before, _modes(model), strict=True)))}
        classes = loss is not gaussian_nll and _are_classes(output, y)
        if classes:
            among = (y >= 0) & (y < output.shape[1])  # others are ignored by the loss, or it refused them
            correct += int((output.detach().argmax(1) == y)[among].sum())
            asked += int(among.sum())
        seen += len(x)
    if seen == 0:
        raise InputError(
            "the loader yielded no batch to train on; is it a generator that was used up, or drop_last too eager?"
        )
    row = {"loss": total / seen, "seconds": time.perf_counter() - start, **flips}
    return row | ({"accuracy": correct / asked} if asked else {})


def _are_classes(output: Tensor, y: Tensor) -> bool:
    """Whether the outputs are logits N×C of at least two classes and the targets N numbers of classes."""
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    return output.dim() == 2 and output.shape[1] > 1 and y.dim() == 1 and len(y) == len(output) and whole


@torch.no_grad()
def _modes(model: nn.Module) -> list[Tensor]:
    return [layer.posterior.mode(*layer.belief) for _, layer in binary_layers(model)]


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    pair = isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)
    if not pair:
        parts = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, tuple | list) else ""
        given = f"{type(batch).__name__}{f' of {parts}' if parts else ''}"
        raise InputError(f"the loader must yield (inputs, targets), two tensors, got {given}")
    if batch[0].is_floating_point() and not bool(torch.isfinite(batch[0]).all()):
        # before the forward pass, which would leave NaN in the batch-norm statistics
        raise InputError("a batch of the inputs has NaN or infinite entries; clean the data first")
    return batch[0], batch[1]


def _beliefs(model: nn.Module, last: bool) -> dict[str, float]:
    state = health(model, warn=last)
    return {
        "entropy_bits": state.entropy_bits,
        "saturated": state.saturated,
        "kl": state.kl,
        "flips": float(state.flips or 0),
    }


def _postfix(row: dict[str, float]) -> dict[str, str]:
    shown = {"loss": f"{row['loss']:.4f}"}
    if "accuracy" in row:
        shown["acc"] = f"{row['accuracy']:.2%}"
    if "entropy_bits" in row:
        shown |= {"bits": f"{row['entropy_bits']:.2f}", "flips": f"{row['flips']:,.0f}"}
    return shown


class _Run:
    """Everything a run needs to go on as if it had never stopped."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, loader: Iterable[Any]
    ) -> None:
        self.stateful = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        self.generators = saving.generators_of(loader)
        self.optimizer = optimizer

    def save(self, path: Path, history: list[dict[str, float]]) -> None:
        state: dict[str, Any] = {name: item.state_dict() for name, item in self.stateful.items() if item is not None}
        state |= {"history": history, "settings": chosen_settings(self.optimizer), **saving.random_state()}
        state["generators"] = {name: generator.get_state() for name, generator in self.generators.items()}
        saving.save(path, state)

    def load(self, path: Path) -> list[dict[str, float]]:
        items = {name: item for name, item in self.stateful.items() if item is not None}
        state = saving.read(path, "varbnn.training.fit", {"history", "rng", "generators", *items})
        require_same_settings(state.get("settings"), self.optimizer, str(path))
        saving.restore(path, items, state)
        for name, generator in self.generators.items():
            if name in state["generators"]:
                generator.set_state(state["generators"][name])
        saving.set_random_state(state)
        history: list[dict[str, float]] = state["history"]
        return history
