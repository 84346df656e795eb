"""The engine every named method runs on: filter, forget, step, decide. Drawing and pulling back happen in the model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import as_tensor
from varbnn.errors import InputError, VarbnnWarning
from varbnn.optim import given
from varbnn.optim.blocks import blocks, in_memory_order
from varbnn.optim.decisions import Decision
from varbnn.optim.filters import Filter, fill
from varbnn.optim.finite import refuse_nonfinite
from varbnn.optim.forgetting import Forgetting
from varbnn.optim.fused import step_fused
from varbnn.optim.parts import Group, OneOf, check_gain, check_types, chosen, must_be, plain
from varbnn.optim.precision import full, narrow_, restore_wide, widened
from varbnn.optim.real import check_real, step_real
from varbnn.optim.saved import load_checked
from varbnn.posteriors import Posterior

READ = ("params", "kind", "real_lr", "real_weight_decay")  # what a group has beside hyper-parameters
Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class Rule(torch.optim.Optimizer):
    """A method for training beliefs, as a choice of parts; everything else about it is an ordinary torch optimizer.

        g ← gain · p.grad            p.grad is already the natural gradient of the mean loss
        g ← g + pull to the prior    forgetting
        d ← filter(g)                over time
        p ← decision(p, d)           a step of -lr · d, at the pace of each weight, or a flip where d says so

    Parameters that hold a belief get the rule; all others (biases, batch-norm scales) are trained by AdamW with
    `real_lr`. Each group the user gives becomes up to two: one of ``kind="belief"``, one of ``kind="real"`` whose
    ``lr`` is `real_lr`, so that learning-rate schedulers move both. Hyper-parameters are read from the groups at every
    step.

    Subclasses set the parts, the posterior they train, the gradient they take where that posterior gives several, their
    source and the checks of their hyper-parameters. A part may be a choice (`OneOf`), made in every group by a
    hyper-parameter.
    """

    posterior: ClassVar[type[Posterior]]
    gradient: ClassVar[str] = "natural"
    source: ClassVar[str]
    of_posteriors: ClassVar[tuple[str, ...]] = ()  # options of a group that its posteriors decide
    filter: Filter | OneOf[Filter]
    forgetting: Forgetting | OneOf[Forgetting] = Forgetting()
    decision: Decision | OneOf[Decision]

    def __init__(
        self,
        params: Params,
        defaults: dict[str, Any],
        *,
        real_lr: float,
        real_weight_decay: float,
        prior: float | Sequence[Tensor] = 0.0,
        maximize: bool = False,
    ) -> None:
        self._real = plain(dict(lr=real_lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=real_weight_decay))
        self._warned = False  # of beliefs without a gradient
        self._listed = False  # whether tensors were given for a prior
        defaults, prior = plain(defaults), prior.item() if isinstance(prior, np.generic) else prior
        given.require_params(params, type(self).__name__)
        listed: Any = params if isinstance(params, Tensor) else list(params)  # they are looked at twice
        given.require_prior(prior, listed)
        number = 0.0 if isinstance(prior, Sequence) else float(prior)
        super().__init__(listed, {**defaults, "prior": number, "maximize": maximize})
        if not any(group["kind"] == "belief" and group["params"] for group in self.param_groups):
            # AdamW alone would train the float network, and nothing would tell
            raise InputError(
                f"none of the parameters holds a belief, so {type(self).__name__} has nothing to train: call "
                "varbnn.binarize(model) first"
            )
        if isinstance(prior, Sequence):
            self._write("prior", prior)
            self._listed = True

    def gain(self, group: Group) -> float:
        """What the gradient of the mean loss is multiplied by."""
        return 1.0

    def together(self, group: Group) -> int:
        """How many parameters in a row make one belief."""
        return 1

    def prior_in_state(self, group: Group) -> bool:
        """Whether a belief of `group` is pulled to a tensor in the state, whatever number the group has as prior."""
        return any("prior" in self.state.get(p, {}) for p in group["params"])

    def set_state(self, name: str, values: Sequence[Tensor]) -> None:
        """Start a filter from something else than zero, for instance to take over a run of another rule.

        An average counts as complete from then on: where the rule divides by the weight given to gradients so far, as
        Adam does, that weight is 1.

        Args:
            name: of the state, such as ``"exp_avg"``; ``state_dict()`` shows them.
            values: one tensor per belief, in their order; copied.

        Raises:
            InputError: this rule has no such state, or the tensors do not fit the beliefs. Nothing is changed then.
        """
        for group in self._belief_groups():
            known = chosen(self.filter, group).names(group)
            if name not in known:
                raise InputError(f"{type(self).__name__} has no state {name!r}; it keeps {', '.join(known) or 'none'}")
        self._write(name, values)
        for group in self._belief_groups():
            filter = chosen(self.filter, group)
            weight = filter.weights(group).get(name)
            for p in group["params"]:
                fill(self.state[p], p, filter, group)
                if weight:
                    self.state[p][weight].fill_(1)

    def check(self, group: Group) -> None:
        """Raise InputError when a hyper-parameter of `group` is out of range; called before every step."""
        must_be(group, "lr", 0 <= group["lr"] < math.inf, "finite and ≥ 0")

    def _check(self, group: Group) -> None:
        check, keys = (self._check_belief, self.defaults) if group["kind"] == "belief" else (check_real, self._real)
        check_types(check, group, type(self).__name__, keys)

    def _check_belief(self, group: Group) -> None:
        self.check(group)
        check_gain(self.gain(group), group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, split into beliefs and real ones.

        Where a group has both, what the rule itself knows (``lr``, ``weight_decay``, ...) is meant for the beliefs;
        ``real_lr`` and ``real_weight_decay`` in the group are for the others, whose ``initial_lr`` is their lr. What a
        group does not name is as the constructor was given it, whatever a schedule has made of it since. ``prior`` may
        be a list with one tensor for each of the group's beliefs, in their order.

        Raises:
            InputError: a parameter or number is none that the rule takes, a key is misspelt, a group of beliefs
                alone has a ``weight_decay`` and the rule has none, or beliefs come without a ``prior`` to an optimizer
                that was given tensors. No group is added then.
        """
        param_group, prior = given.listed_prior(param_group)
        split: dict[str, list[Any]] = {"belief": [], "real": []}
        for item in given.items_of(param_group):
            parameter = item[1] if isinstance(item, tuple) else item
            split[given.kind_of(parameter, type(self).__name__, self.posterior, self.gradient)].append(item)
        given.refuse_misspelt(param_group, {*READ, *self.defaults, *self._real})
        given.require_group_prior(param_group, split["belief"], self._listed)
        count = len(self.param_groups)
        try:
            self._add_split(param_group, split)
            if prior is not None:
                self._write("prior", prior, count)
        except Exception:
            del self.param_groups[count:]  # one half may be in already
            raise

    def _add_split(self, param_group: dict[str, Any], split: dict[str, list[Any]]) -> None:
        options = plain({key: value for key, value in param_group.items() if key not in READ})
        if not split["real"] and "weight_decay" not in self.defaults and options.get("weight_decay"):
            raise InputError(
                f"{type(self).__name__} has no weight_decay of beliefs, and no other parameters are in the group with "
                f"weight_decay={options['weight_decay']}; leave it out"
            )
        if split["belief"] or not split["real"]:
            super().add_param_group({**options, "params": split["belief"], "kind": "belief"})
            self._check(self.param_groups[-1])
        if split["real"]:
            alone = not split["belief"]
            meant = {k: v for k, v in options.items() if k in self._real and (alone or k not in self.defaults)}
            named = {k: param_group[f"real_{k}"] for k in ("lr", "weight_decay") if f"real_{k}" in param_group}
            settings = plain({**self._real, **meant, **named})
            if not alone and "initial_lr" in options:
                settings["initial_lr"] = settings["lr"]
            super().add_param_group({**options, **settings, "params": split["real"], "kind": "real"})
            for key in [k for k in self.defaults if k not in (*settings, "maximize")]:
                self.param_groups[-1].pop(key, None)
            self._check(self.param_groups[-1])

    def _belief_groups(self, start: int = 0) -> list[Group]:
        return [group for group in self.param_groups[start:] if group["kind"] == "belief"]

    def _write(self, name: str, values: Sequence[Tensor], start: int = 0) -> None:
        beliefs = [p for group in self._belief_groups(start) for p in group["params"]]
        values = [as_tensor(value, f"a {name}") for value in values]
        if len(values) != len(beliefs):
            raise InputError(
                f"{name} has {len(values)} tensors for {len(beliefs)} beliefs; give one for each, in their order"
            )
        for p, value in zip(beliefs, values, strict=True):
            if value.shape != p.shape:
                raise InputError(f"a {name} has shape {tuple(value.shape)}, its belief {tuple(p.shape)}")
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"a {name} has NaN or infinite entries")
        for p, value in zip(beliefs, values, strict=True):
            self.state[p][name] = value.to(p.device, full(p.dtype), copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient and, unless the step is compiled, requires one.

        Args:
            closure: recomputes the loss, as in torch.

        Raises:
            InputError: no parameter that learns has a gradient, a gradient is sparse or has NaN or infinite entries, or
                a hyper-parameter is out of range. Nothing is changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(group, [p for p in group["params"] if given.moves(p)]) for group in self.param_groups]
        self._refuse(work)
        for group, params in work:
            if params:
                if group["kind"] == "belief":
                    self._step_beliefs(group, params)
                else:
                    step_real(group, params, [self.state[p] for p in params])
        return loss

    def _step_beliefs(self, group: Group, params: list[Tensor]) -> None:
        states = [self.state[p] for p in params]
        filter = chosen(self.filter, group)
        forgetting, decision = chosen(self.forgetting, group), chosen(self.decision, group)
        gain = -self.gain(group) if group["maximize"] else self.gain(group)
        skip = filter.is_identity(group, states)
        if not skip:
            for p, state in zip(params, states, strict=True):
                fill(state, p, filter, group)
            filter.begin(params, states, group)
        together = self.together(group)
        params, grads, states = in_memory_order(params, states, together)
        coupled = forgetting.coupled(group) and not (skip and decision.linear)
        parts = (filter, forgetting, decision)
        if step_fused(parts, params, grads, states, group, skip=skip, coupled=coupled, gain=gain, together=together):
            return
        for own, gradients, kept in blocks(params, grads, states, together):
            # where nothing is remembered the gain goes into the step: a copy of the gradient costs a third of it
            beliefs, directions = widened(own), widened(gradients)
            late = skip and not coupled and decision.pace is None
            if not (late or (gain == 1 and not coupled)):
                directions = list(torch._foreach_mul(directions, gain))
            if coupled:
                forgetting.add_to_(directions, beliefs, kept, group)
            if not skip:
                directions = filter(directions, kept, group)
            paces = None if decision.pace is None else decision.pace(beliefs, directions, group)
            if not coupled:
                forgetting.at_pace_(beliefs, paces, kept, group)
            if paces is not None:
                torch._foreach_mul_(paces, directions)
                directions = paces
            decision(beliefs, directions, group, gain if late else 1.0)
            narrow_(own, beliefs)

    def _refuse(self, work: list[tuple[Group, list[Tensor]]]) -> None:
        for group, _ in work:
            self._check(group)
        gradients = [p.grad for _, params in work for p in params if p.grad is not None]
        if not gradients:
            raise InputError("no parameter that learns has a gradient: call loss.backward() before step()")
        beliefs = [p for group, _ in work if group["kind"] == "belief" for p in group["params"]]
        left = sum(p.requires_grad and p.grad is None for p in beliefs)
        if left and not self._warned:
            self._warned = True
            text = f"{left} beliefs have no gradient and are left as they are; did their layers take part in the loss?"
            warnings.warn(text, VarbnnWarning, stacklevel=4)
        if any(g.is_sparse for g in gradients):
            raise InputError(f"{type(self).__name__} takes dense gradients only; set sparse=False in the embedding")
        if not torch.compiler.is_compiling():
            refuse_nonfinite(gradients)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state, as torch does; state of half-precision parameters stays float32.

        Raises:
            CheckpointError: it is the state of another rule, or of other parameters. Nothing is loaded then.
        """
        taken = load_checked(super().load_state_dict, self, state_dict, self.filter, self.of_posteriors, self._check)
        restore_wide(self, taken)

    def __getstate__(self) -> dict[str, Any]:
        # torch's keeps nothing but defaults, state and groups, so a copy could neither warn nor take another group
        return {**super().__getstate__(), "_real": self._real, "_warned": self._warned, "_listed": self._listed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)
