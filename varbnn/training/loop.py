"""`fit`: epochs in a row, each written down; and who may look in between."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import Dataset

from varbnn import saving
from varbnn.checks import whole_number
from varbnn.errors import InputError, VarbnnWarning
from varbnn.nn import draw_once_per_forward
from varbnn.nn.batchnorm import device_of
from varbnn.nn.flips import packed_modes
from varbnn.nn.health import OF_TORCH, health_since
from varbnn.nn.scaling import unnormalised, unscaled_head
from varbnn.optim import Rule
from varbnn.optim.belonging import advance, require_own
from varbnn.progress import progress_bar
from varbnn.training.epoch import Loss, Row, Steps
from varbnn.training.resuming import Run, of_rank, several_ranks
from varbnn.training.validation import Validation

AfterEpoch = Callable[[list[Row]], bool | None]


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
    validation: Iterable[Any] | None = None,
    after_epoch: AfterEpoch | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    label: str = "",
) -> list[dict[str, float]]:
    """Train `model` on `loader`; nothing more than zero_grad, forward, backward, step.

    Args:
        model: put into train mode.
        optimizer: any torch optimizer whose step needs no closure (LBFGS does).
        loader: yields (inputs, targets), every epoch anew.
        epochs: passes over the loader, in all (a resumed run counts the earlier ones).
        loss: (outputs, targets) → mean loss per example; of a batch whose targets are all ignored there is none.
        scheduler: a torch scheduler, stepped after every epoch; ``ReduceLROnPlateau`` gets ``val_loss`` where there is
            `validation`, else the epoch's mean loss; of the ranks that train one model, the mean of theirs.
        num_samples: draws per step, whose gradients are averaged.
        antithetic: make the draws of a step opposite pairs (`varbnn.antithetic`); `num_samples` is then even.
        validation: yields (inputs, targets), every epoch anew; ``[(x, y)]`` will do. Adds ``val_loss`` and
            ``val_accuracy``: those of the most probable network (eval mode), which one pass gives without a draw. Its
            batch-norm statistics are re-estimated from the epoch's first 1000 training inputs or more, and put back.
            Training ends in the same weights, bit for bit, as without, unless a ``ReduceLROnPlateau`` looks at it.
        after_epoch: called with the history so far after every epoch; True ends the training, on all ranks (one may
            have it alone). Numbers that it writes into the rows are kept.
        progress: show a bar with loss, accuracy, posterior entropy and flips, where there is a terminal or a notebook.
        checkpoint: file to write after every epoch and to continue from when it is there. It holds the model, the
            optimizer, the scheduler, the loader's generator, torch's random state and the history; a resumed run ends
            as the uninterrupted one (not with ``persistent_workers=True``, whose workers keep states of their own). It
            goes on with an optimizer of the same settings in every group, the same prior and a scheduler of the same
            settings only (functions and curves are not compared); more epochs may be asked for. Under
            torch.distributed every rank has draws of its own, and so a file of its own: the number of the rank is put
            behind its name.
            A run that `after_epoch` ended is over: called again it returns its history, and without `after_epoch` it
            goes on.
        label: in front of the bar.

    Returns:
        One row per epoch: epoch, loss, lr, seconds (of training alone), accuracy where outputs are N×C with C ≥ 2 and
        targets N whole numbers (those outside 0 … C - 1, such as ``ignore_index``, are not counted), and for a model
        with binary layers entropy_bits, saturated, kl, flips (modes that changed sign over the epoch) and step_flips
        (in its first step); with `validation` its two.

    Raises:
        InputError: a number out of range, what is no loss, loader or scheduler, LBFGS, an optimizer that holds none of
            the model's parameters or none of its beliefs, a loader that yields nothing or no pairs, an `after_epoch`
            that answers neither yes nor no, or NaN on the way: in inputs, gradients or the loss, also of `validation`
            (the parameters keep their last good step).
        CheckpointError: `checkpoint` cannot be read, is in no folder that is there, or belongs to another model or to
            other settings of the optimizer or the scheduler; nothing is loaded then.

    Warns:
        VarbnnWarning: the optimizer holds some of the model's beliefs and not others, which then stay as they are; no
            layer normalises the sums of binary layers with 64 inputs or more; or the model is one sequence of layers
            that ends in such a sum, which ``F.cross_entropy`` takes for logits.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Linear(4, 2))
    >>> optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.01, dataset_size=8, temperature=0.1)
    >>> data = [(torch.randn(8, 4), torch.tensor([0, 1] * 4))]
    >>> [row["epoch"] for row in fit(model, optimizer, data, epochs=2, progress=False)]
    [1, 2]
    """
    _require_parts(model, optimizer, loader, loss, scheduler)
    require_own(model.parameters(), optimizer)
    epochs, num_samples = whole_number("epochs", epochs), whole_number("num_samples", num_samples)
    if antithetic and num_samples % 2:
        raise InputError(f"antithetic draws come in pairs, so num_samples must be even, got {num_samples}")
    _require_hooks(validation, after_epoch)
    path = None if checkpoint is None else of_rank(Path(checkpoint))
    if path is not None:
        saving.require_folder(path)
    run = Run(model, optimizer, scheduler, loader, kept=path is not None)
    if path is not None and path.exists():
        run.load(path)
    together = several_ranks() and (after_epoch is not None or _of_all_ranks(model))
    asked = _any_rank(after_epoch is not None, model) if together else after_epoch is not None
    if run.ended and asked:
        return run.history
    steps, beliefs = Steps(model, optimizer, loss, num_samples, antithetic), _Beliefs(model)
    if beliefs.modes:
        draw_once_per_forward(model)  # a model built by hand does not do so by itself
        _warn_of_sums(model, loss)
    judge = None if validation is None else Validation(model, validation, loss)
    with progress_bar(progress, total=epochs, initial=len(run.history), desc=label, unit="epoch") as bar:
        for epoch in range(len(run.history) + 1, epochs + 1):
            _begin_epoch(loader, epoch - 1)
            row: Row = {"epoch": epoch, "lr": float(optimizer.param_groups[0]["lr"])}  # of a tensor, which moves
            row |= steps.epoch(loader if judge is None else judge.seeing(loader))
            if judge is not None:
                row |= judge.row()
            if scheduler is not None:
                advance(scheduler, _watched(row, model, scheduler))
            run.history.append(row | beliefs.row())
            run.ended = after_epoch is not None and _ends(after_epoch, run.history)
            if together and asked:
                run.ended = _any_rank(run.ended, model)
            if path is not None:
                run.save(path)
            bar.set_postfix(_postfix(run.history[-1]))
            bar.update()
            if run.ended:
                break
    if beliefs.warning is not None:
        text = beliefs.warning.removesuffix(OF_TORCH) if isinstance(optimizer, Rule) else beliefs.warning
        warnings.warn(text, VarbnnWarning, stacklevel=2)
    return run.history


def _warn_of_sums(model: nn.Module, loss: Loss) -> None:
    for lack in (unnormalised(model), unscaled_head(model) if loss is F.cross_entropy else None):
        if lack is not None:
            warnings.warn(lack, VarbnnWarning, stacklevel=3)


def _require_parts(model: object, optimizer: object, loader: object, loss: object, scheduler: object) -> None:
    if not isinstance(model, nn.Module) or not hasattr(optimizer, "param_groups"):
        given = f"{type(model).__name__} and {type(optimizer).__name__}"
        raise InputError(f"fit takes a model and an optimizer, in this order, got {given}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InputError("LBFGS asks for the loss several times a step, which fit does not; write that loop yourself")
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise InputError(f"loader must yield (inputs, targets), [(x, y)] will do, got a {type(loader).__name__}")
    if isinstance(loader, Dataset) and not isinstance(loader, Iterable):  # Python would go through it by numbers
        raise InputError(
            f"loader must yield batches, got a {type(loader).__name__}, which has single examples; wrap it in a "
            "DataLoader: DataLoader(data, batch_size=64, shuffle=True)"
        )
    if not callable(loss):
        raise InputError(f"loss must be a function of outputs and targets, got {loss!r:.60}")
    if scheduler is not None and not all(hasattr(scheduler, name) for name in ("step", "state_dict")):
        raise InputError(f"scheduler must be one of torch's, built on the optimizer, or None, got {scheduler!r:.60}")


def _require_hooks(validation: object, after_epoch: object) -> None:
    if validation is not None and (not isinstance(validation, Iterable) or isinstance(validation, Iterator)):
        raise InputError(
            "validation must be a loader that can be gone through in every epoch, or a list of batches such as "
            f"[(x, y)], got a {type(validation).__name__}"
        )
    batches = validation if isinstance(validation, list | tuple) else [validation]
    if not batches or isinstance(batches[0], Tensor | np.ndarray):
        given = type(batches[0]).__name__ if batches else "nothing"
        raise InputError(
            f"the first batch of validation must be a pair of inputs and targets, got {given}; give [(x, y)]"
        )
    if after_epoch is not None and not callable(after_epoch):
        raise InputError(f"after_epoch must be a function of the history, got a {type(after_epoch).__name__}")


def _begin_epoch(loader: Iterable[Any], number: int) -> None:
    """Tell samplers that shuffle by the number of the epoch, such as torch's `DistributedSampler`."""
    groups = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), groups, getattr(groups, "sampler", None)):
        if callable(tell := getattr(sampler, "set_epoch", None)):
            tell(number)


def _of_all_ranks(model: nn.Module) -> bool:
    return isinstance(model, DistributedDataParallel) or any(hasattr(module, "unshard") for module in model.modules())


def _any_rank(said: bool, model: nn.Module) -> bool:
    """Whether one rank says so; all must ask."""
    return _over_ranks(float(said), model) > 0


def _watched(row: Row, model: nn.Module, scheduler: Any) -> float:
    """The loss in which a plateau is looked for; where the ranks share a model, the mean of those that have one."""
    if not (isinstance(scheduler, ReduceLROnPlateau) and several_ranks() and _of_all_ranks(model)):
        return row.get("val_loss", row["loss"])
    judges = _over_ranks(float("val_loss" in row), model)
    if judges:
        return _over_ranks(row.get("val_loss", 0.0), model) / judges
    return _over_ranks(row["loss"], model) / dist.get_world_size()


def _over_ranks(value: float, model: nn.Module) -> float:
    """The sum of every rank's value; all must ask."""
    total = torch.tensor(value, device=device_of(model))
    dist.all_reduce(total)
    return total.item()


def _ends(after_epoch: AfterEpoch, history: list[Row]) -> bool:
    """What the user's function says, which may write into the history."""
    answer = after_epoch(history)
    try:
        known = answer in (None, True, False)
    except (RuntimeError, ValueError):  # an array of several
        known = False
    if not known:
        raise InputError(f"after_epoch must return True to end the training, else False or None, got {answer!r:.60}")
    _make_plain(history)
    return bool(answer)


def _make_plain(history: list[Row]) -> None:
    """Turn numbers of numpy, for example, which no checkpoint can hold, into Python's."""
    for row in history:
        for name, value in row.items():
            if type(value) not in (int, float):
                row[name] = _number(name, value)


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, str | bytes):  # of which Python would read some
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise InputError(f"after_epoch wrote {value!r:.60} into the row as {name!r}; rows hold numbers")


class _Beliefs:
    """The health of the model's beliefs, if it has any, with flips counted from the last look; nobody else's."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.modes = model, packed_modes(model)
        self.warning: str | None = None

    def row(self) -> Row:
        if not self.modes:
            return {}
        state, self.modes = health_since(self.model, self.modes)
        self.warning = state.warning
        found = {"entropy_bits": state.entropy_bits, "saturated": state.saturated, "kl": state.kl}
        return {**found, "flips": float(state.flips or 0)}


def _postfix(row: Row) -> dict[str, str]:
    shown = {"loss": f"{row['loss']:.4f}"}
    if "accuracy" in row:
        shown["acc"] = f"{row['accuracy']:.2%}"
    if "val_loss" in row:
        shown["val_loss"] = f"{row['val_loss']:.4f}"
    if "val_accuracy" in row:
        shown["val_acc"] = f"{row['val_accuracy']:.2%}"
    if "entropy_bits" in row:
        shown |= {"bits": f"{row['entropy_bits']:.2f}", "flips": f"{row['flips']:,.0f}"}
    return shown
