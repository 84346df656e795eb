"""Schedules: any hyper-parameter of a rule, of any torch optimizer or of a posterior follows a curve."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Real
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from varbnn.errors import CheckpointError, InputError, VarbnnWarning
from varbnn.optim.curves import Curve
from varbnn.optim.parts import Group
from varbnn.optim.rule import Rule
from varbnn.posteriors import belief_of, mark_belief

AnyCurve = Curve | Callable[[int], float]

REAL = {"real_lr": "lr", "real_weight_decay": "weight_decay"}
"""What is called by another name because the belief groups have that key, too."""


class Scheduler(LRScheduler):
    """Move hyper-parameters along curves; a torch scheduler that knows other keys than ``lr``.

        value of step 0 at construction;   optimizer.step(), schedule.step() → value of step 1;   ...

    A step is one call of `step`: per batch or per epoch, as you call it (`varbnn.fit` does after every epoch). Only
    the keys that are given are written, so another scheduler can move the rest. When somebody else writes a scheduled
    key, too, the schedule says so and overwrites it.

    A resumed run equals an uninterrupted one bit for bit: build the schedule with the same curves and load its state,
    which is the number of the step; the values of that step are written at once.

    A compiled ``optimizer.step`` takes the values for constants: torch compiles it again for every new one and after 8
    (``torch._dynamo.config.recompile_limit``) goes on uncompiled, or raises where ``fullgraph=True``. The numbers are
    right in each case; a compiled step pays only beside a schedule of few stairs. The same holds for `relaxation` and
    a compiled model.

    Args:
        optimizer: any torch optimizer.
        model: the one whose layers draw with `relaxation`; needed for that curve only.
        **curves: per key of ``param_groups`` that holds a number, a curve: one of `varbnn.optim` or any function of
            the number of the step. For a number that does not move, take `Constant`. In a rule a key means the groups
            of kind ``"belief"``; ``real_lr`` and ``real_weight_decay`` mean lr and weight_decay of the groups of kind
            ``"real"``. In other optimizers a key means all groups that have it, also those that are added later. A list
            gives each of these groups its own curve, None leaves one alone. ``relaxation`` is that of the concrete
            estimator, in the posterior of every layer of `model` that draws with it.

    Raises:
        InputError: no curve, an unknown key, not a curve, the wrong number of curves (in `step` too, once groups have
            been added), a `relaxation` that nothing draws with, a `prior` that is kept as tensors, or a value the rule
            refuses. Curves are checked at both ends; one that is refused on the way (of a function, or together with
            another scheduler's) is refused by ``optimizer.step()``.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.Point())
    >>> optimizer = vb.optim.Bop(model.parameters())
    >>> schedule = Scheduler(optimizer, gamma=vb.optim.Staircase(1e-4, 0.1, every=2))
    >>> for _ in range(2):
    ...     model(torch.randn(3, 4)).sum().backward()
    ...     optimizer.step()
    ...     schedule.step()
    >>> f"{optimizer.param_groups[0]['gamma']:.0e}"
    '1e-05'
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        model: nn.Module | None = None,
        **curves: AnyCurve | Sequence[AnyCurve | None],
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise InputError(f"optimizer must be a torch optimizer, got {type(optimizer).__name__}")
        if not curves:
            raise InputError("no curve was given; name one by its key, such as gamma=Linear(1e-4, 1e-6, steps=1000)")
        self._model = model
        given = dict(curves)
        self._relaxation = _relaxation(given.pop("relaxation"), model) if "relaxation" in given else None
        self._curves = given
        _check_ahead(optimizer, _all_tracks(optimizer, given))
        self._written: dict[tuple[int, str], float] = {}
        self._warned = False
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The lr of every group at this step: on its curve, or where there is none as it is."""
        values = self._values()
        return [
            values.get((index, "lr"), group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"])
            for index, group in enumerate(self.optimizer.param_groups)
        ]

    def step(self, epoch: int | None = None) -> None:
        """Write the values of the next step; to be called after ``optimizer.step()``.

        Args:
            epoch: the step to go to instead; deprecated in torch.
        """
        if self._step_count > 0:  # not at construction, where SequentialLR has reset lr
            self._see_others()
        super().step(epoch)  # counts, and writes lr
        self._write()

    def _update_lr(self, epoch: int | None = None) -> None:
        super()._update_lr(epoch)  # where SequentialLR comes in; older torch has step only
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """The number of the step. The curves are code, which the resumed run brings along."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the step of a saved schedule and write its values.

        Raises:
            CheckpointError: `state_dict` is not that of a scheduler; nothing is changed then.
        """
        given = state_dict if isinstance(state_dict, dict) else {}
        counts = [given.get(name) for name in ("last_epoch", "_step_count")]
        if not all(isinstance(count, int) for count in counts):
            raise CheckpointError(
                f"a schedule is saved as last_epoch and _step_count, two integers, got {sorted(given)}; load the "
                "state_dict() of a Scheduler"
            )
        self.last_epoch, self._step_count = cast(list[int], counts)
        if self.last_epoch >= 0:  # else its turn in a SequentialLR has not come
            self._write()

    def _values(self) -> dict[tuple[int, str], float]:
        tracks = _all_tracks(self.optimizer, self._curves)  # anew, as groups may have been added
        return {(t.group, t.key): t.at(self.last_epoch) for t in tracks}

    def _write(self) -> None:
        groups = self.optimizer.param_groups
        for (index, key), value in self._values().items():
            if isinstance(groups[index][key], Tensor):
                groups[index][key].fill_(value)
            else:
                groups[index][key] = value
            self._written[index, key] = float(groups[index][key])
        if self._relaxation is not None and self._model is not None:
            _relax(self._model, self._relaxation.at(self.last_epoch))
        self._last_lr = [g["lr"].clone() if isinstance(g["lr"], Tensor) else g["lr"] for g in groups]

    def _see_others(self) -> None:
        for (index, key), value in self._written.items():
            found = self.optimizer.param_groups[index][key]
            if float(found) != value and not self._warned:
                self._warned = True
                text = (
                    f"{key} of group {index} is {float(found)!r} where this schedule had written {value!r}, and is "
                    f"overwritten: another scheduler or your code sets it, too. Leave {key} to one of them; after "
                    "loading the state of an optimizer load the schedule's"
                )
                warnings.warn(text, VarbnnWarning, stacklevel=3)


@dataclass(frozen=True)
class _Track:
    """One key of one group and its curve."""

    group: int
    key: str
    name: str
    curve: AnyCurve

    def at(self, step: int) -> float:
        value = self.curve(step)
        if not isinstance(value, Real) or not math.isfinite(value):
            raise InputError(f"the curve of {self.name} must give finite numbers, got {value!r} at step {step}")
        return float(value)  # also of numpy's numbers, which a checkpoint could not hold

    @property
    def landmarks(self) -> tuple[int, ...]:
        return self.curve.landmarks if isinstance(self.curve, Curve) else (0,)


def _all_tracks(optimizer: Optimizer, given: dict[str, Any]) -> list[_Track]:
    return [track for name, curve in given.items() for track in _tracks(optimizer, name, curve)]


def _tracks(optimizer: Optimizer, name: str, given: AnyCurve | Sequence[AnyCurve | None]) -> Iterator[_Track]:
    kind, key = _meaning(optimizer, name)
    groups = [i for i, g in enumerate(optimizer.param_groups) if g.get("kind") == kind and key in _numbers(g)]
    if not groups:
        raise InputError(f"no group has {name!r}, a number that could be scheduled; there are {_known(optimizer)}")
    listed = isinstance(given, list | tuple)
    curves = list(given) if isinstance(given, list | tuple) else [given] * len(groups)
    if len(curves) != len(groups):
        of = "groups" if kind is None else f"groups of kind {kind!r}"
        raise InputError(f"{name} has {len(curves)} curves for {len(groups)} {of}; give one for each, or None")
    for index, curve in zip(groups, curves, strict=True):
        if curve is not None or not listed:
            _refuse_fixed_prior(optimizer, key, index)
            yield _Track(index, key, name, _curve(name, curve))


def _refuse_fixed_prior(optimizer: Optimizer, key: str, index: int) -> None:
    if key == "prior" and isinstance(optimizer, Rule) and optimizer.prior_in_state(optimizer.param_groups[index]):
        raise InputError(
            f"the prior of group {index} is kept as tensors in the state of {type(optimizer).__name__}, which a number "
            "does not reach; give the optimizer a number as prior, or schedule something else"
        )


def _meaning(optimizer: Optimizer, name: str) -> tuple[str | None, str]:
    if all(group.get("kind") is None for group in optimizer.param_groups):
        return None, name
    return ("real", REAL[name]) if name in REAL else ("belief", name)


def _known(optimizer: Optimizer) -> str:
    names: dict[str, None] = {}
    for group in optimizer.param_groups:
        if group.get("kind") == "real":
            names |= dict.fromkeys(REAL)
        else:
            names |= dict.fromkeys(_numbers(group))
    return ", ".join([*names, "and relaxation (of the layers, with model=model)"])


def _numbers(group: Group) -> list[str]:
    def is_number(value: object) -> bool:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return plain or (isinstance(value, Tensor) and value.dim() == 0)

    return [key for key, value in group.items() if is_number(value) and key != "initial_lr"]


def _curve(name: str, given: object) -> AnyCurve:
    if not callable(given) or isinstance(given, type):
        raise InputError(
            f"{name} must be a curve, such as Linear(1e-4, 1e-6, steps=1000), or a function of the number of the step, "
            f"got {given!r}; a value that does not move is set in the optimizer, or is Constant(value)"
        )
    return given


def _check_ahead(optimizer: Optimizer, tracks: list[_Track]) -> None:
    """Let the rule check the values at the ends of the curves, on copies of its groups."""
    for index, group in enumerate(optimizer.param_groups):
        own = [track for track in tracks if track.group == index]
        for step in sorted({step for track in own for step in track.landmarks}):
            trial = {**group, **{track.key: track.at(step) for track in own}}
            try:
                if isinstance(optimizer, Rule):
                    optimizer._check(trial)
            except InputError as error:
                raise InputError(f"at step {step} of the schedule: {error}") from error


def _relaxation(given: object, model: nn.Module | None) -> _Track:
    if model is None:
        raise InputError("relaxation belongs to the layers and not to the optimizer; give model=model, too")
    track = _Track(-1, "relaxation", "relaxation", _curve("relaxation", given))
    layers = list(_relaxed(model))
    if not layers:
        raise InputError(
            "no layer of the model draws with a relaxation; binarize it with Bernoulli(estimator='concrete')"
        )
    for step in track.landmarks:
        for layer in layers:
            replace(layer.posterior, relaxation=track.at(step))  # raises where out of range
    return track


def _relaxed(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        posterior = vars(module).get("posterior")  # not getattr: a compiled module answers for the one inside it
        has = is_dataclass(posterior) and any(field.name == "relaxation" for field in fields(posterior))
        if has and getattr(posterior, "estimator", "concrete") == "concrete":
            yield module


def _relax(model: nn.Module, value: float) -> None:
    for layer in _relaxed(model):
        if layer.posterior.relaxation == value:
            continue
        layer.posterior = replace(layer.posterior, relaxation=value)
        for parameter in layer.parameters(recurse=False):
            belief = belief_of(parameter)
            if belief is not None:  # the mark names the posterior, too
                mark_belief(parameter, layer.posterior, belief.name)
