"""The settings and the state with which one rule is another one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.errors import InputError
from varbnn.optim import mappings
from varbnn.optim.filters import fill
from varbnn.optim.mappings import TABLE, Source, explained
from varbnn.optim.parts import Group, chosen
from varbnn.optim.precision import full
from varbnn.optim.rule import Params, Rule
from varbnn.optim.straight_through import StraightThrough
from varbnn.posteriors import belief_of, mark_belief

Layout = list[tuple[str, list[tuple[int, ...]]]]
Carried = list[tuple[Tensor, dict[str, Tensor]]]
REAL = ("lr", "betas", "eps", "weight_decay", "maximize")


@dataclass(frozen=True)
class Snapshot:
    """Where an optimizer stood: values and states, those of the beliefs translated already."""

    layout: Layout
    beliefs: Carried
    reals: Carried
    real_settings: list[Group]


@dataclass(frozen=True, eq=False)
class Translation:
    """One rule as another; print it for a readable account, `build` it to run it.

    Attributes:
        rule: the target.
        groups: constructor arguments of the target, one dict for each group of beliefs.
        exact: conditions that lie outside the settings and that the trajectories agree under.
        explanation: all of it as text, with the numbers put in.
    """

    rule: type[Rule]
    groups: tuple[dict[str, Any], ...]
    exact: tuple[str, ...]
    explanation: str = field(repr=False)
    _mappings: tuple[mappings.Mapping, ...] = field(repr=False)
    _snapshot: Snapshot | None = field(repr=False)

    def __str__(self) -> str:
        return self.explanation

    @property
    def settings(self) -> dict[str, Any]:
        """Constructor arguments of the target; those of the first group of beliefs, where there are several."""
        return dict(self.groups[0])

    @property
    def state(self) -> dict[str, list[Tensor]] | dict[str, str]:
        """What the target remembers at its start, by name: one tensor per belief, or in words for bare settings."""
        if self._snapshot is None:
            return dict(self._mappings[0].start)
        names = {name: None for _, state in self._snapshot.beliefs for name in state}
        return {name: [s.get(name, torch.zeros_like(b)) for b, s in self._snapshot.beliefs] for name in names}

    @torch.no_grad()
    def build(self, params: Params, **more: Any) -> Rule:
        """The target, ready to go on where the source stands.

        Of an optimizer the values of all parameters, the settings of every group, and all state are taken over,
        AdamW's for the real parameters included. Bare settings start with the present values of `params`, in all
        groups alike: a latent turns into a weight and into the averages that it stands for.

        Args:
            params: as for the source: beliefs of the same shapes in the same groups, in a posterior that the target
                trains. They may be the source's own. Their values are overwritten.
            **more: constructor arguments that take precedence over the translated ones, a prior in the state included.

        Raises:
            InputError: the parameters are not laid out as those of the source, or a setting is out of range. No value
                is changed then.
        """
        make: Callable[..., Rule] = self.rule
        optimizer = make(params, **{**self.settings, **more})
        groups = optimizer._belief_groups()
        beliefs = [p for group in groups for p in group["params"]]
        _refuse_windows(self.rule, beliefs)
        if self._snapshot is None:
            carry = self._mappings[0].carry
            _write(optimizer, groups, [carry(p.detach().clone(), {}) for p in beliefs])
            return optimizer
        _same_layout(_layout(optimizer), self._snapshot.layout)
        for group, settings in zip(groups, self.groups, strict=True):
            group.update({key: value for key, value in settings.items() if key in group and key not in more})
            optimizer._check(group)
        reals = [group for group in optimizer.param_groups if group["kind"] == "real"]
        for group, settings in zip(reals, self._snapshot.real_settings, strict=True):
            names = {key: key if key == "maximize" else f"real_{key}" for key in settings}
            group.update({key: more.get(names[key], value) for key, value in settings.items()})
        _write(optimizer, groups, self._snapshot.beliefs, without={"prior"} & more.keys())
        _write(optimizer, reals, self._snapshot.reals)
        return optimizer


def translate(source: Rule | Mapping[str, Any], to: type[Rule] | str, **choices: Any) -> Translation:
    """The settings and the start with which the rule `to` does what `source` does, weight for weight at every step.

    Known are latent SGD (`StraightThrough` with ``base="sgd"``) and `GradientFilter`, `Bop` or `BayesBiNN`, both ways;
    `GradientFilter` and `Bop`; `Bop2ndOrder` and `Bop`; the biased and the released form of `Bop2ndOrder`; latents of
    another scale; `WindowedBayes` and `BayesBiNN`; `Metaplastic` and latent Adam. What the target leaves open is a
    choice with a default where one makes sense:

    - to `StraightThrough`: ``weight_decay`` (1e-4), the scale of the latents; from `GradientFilter` also
      ``decoupled_weight_decay`` (False);
    - from `StraightThrough`: ``alpha`` ("smaller") to `GradientFilter`, ``ties`` ("larq") to `Bop`, ``dataset_size``
      and ``temperature`` (1) to `BayesBiNN`, ``scale`` to `StraightThrough`;
    - to `WindowedBayes`: ``batch_size``;
    - to `Bop2ndOrder`: ``sigma`` (1e-3) from `Bop`, ``bias_correction`` from itself.

    All of it up to rounding: a latent within rounding of 0 may fall on the other side. With given gradients that was
    1 of 20 million weights and steps in float32 and none in float64; where gradients depend on the weights, runs part
    from there on.

    Args:
        source: an optimizer, whose present settings, values and state are taken (a copy: it may go on), or settings
            with the name of their rule under "rule".
        to: a rule or its name.
        **choices: see above.

    Raises:
        InputError: a condition fails, no such pair is known, or a choice is not among those of the pair.

    Source: Quist, Li, van Gemert 2023 for latents as a filter; tests/optim/test_equivalences.py for all conditions.

    >>> latent = dict(rule="StraightThrough", base="sgd", lr=0.1, momentum=0.8, weight_decay=0.02, clip=None)
    >>> print(translate(latent, "GradientFilter"))
    StraightThrough(lr=0.1, base='sgd', momentum=0.8, weight_decay=0.02, clip=None)
    = GradientFilter(alpha=0.0104406, gamma=0.191559)
    starting from
      - weight = sign(r)
      - slow = -0.02 · r
      - fast = slow + 0.189559 · v
    exact when
      - the learning rate stays constant
      - gradients depend on the weights and not on the size of a latent: Point() without clip
      - no latent is exactly 0 after a step: a latent of 0 is +1, a tie keeps the weight it finds
    note
      - alpha · gamma = 0.002, the decay per step; (1 - alpha) · (1 - gamma) = 0.8, the momentum; the
        two rates may be exchanged

    Taking over a run that is under way:

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Linear(4, 2), posterior=vb.posteriors.Point())
    >>> optimizer = vb.optim.GradientFilter(model.parameters(), alpha=0.01, gamma=1.0)
    >>> translate(optimizer, "Bop").build(model.parameters()).param_groups[0]["gamma"]
    0.01
    """
    optimizer = source if isinstance(source, Rule) else _example(source)
    target, function = _pair(optimizer, to)
    _refuse_unknown_choices(function, choices, f"{type(optimizer).__name__} to {target.__name__}")
    groups = [group for group in optimizer.param_groups if group["kind"] == "belief"]
    bare = optimizer is not source
    _refuse_windows(type(optimizer), [p for group in groups for p in group["params"]])
    sources = [Source(group, [], []) if bare else _copied(optimizer, group) for group in groups]
    found = tuple(function(each, **choices) for each in sources)
    return Translation(
        rule=target,
        groups=tuple({**f.settings, **_shared(optimizer, g)} for f, g in zip(found, groups, strict=True)),
        exact=tuple(dict.fromkeys(sentence for each in found for sentence in each.exact)),
        explanation=explained(type(optimizer), target, groups, found),
        _mappings=found,
        _snapshot=None if bare else _snapshot(optimizer, sources, found),
    )


def _pair(optimizer: Rule, to: type[Rule] | str) -> tuple[type[Rule], Callable[..., mappings.Mapping]]:
    target = _rule(to)
    if (type(optimizer), target) not in TABLE:
        known = "; ".join(f"{source.__name__} to {target.__name__}" for source, target in TABLE)
        raise InputError(f"no translation of {type(optimizer).__name__} to {target.__name__} is known, only {known}")
    return target, TABLE[type(optimizer), target]


def _rule(name: type[Rule] | str) -> type[Rule]:
    if isinstance(name, type):
        return name
    names = {rule.__name__: rule for pair in TABLE for rule in pair}
    if name not in names:
        raise InputError(f"a rule that can be translated is one of {', '.join(names)}, got {name!r}")
    return names[name]


def _example(settings: Any) -> Rule:
    """A rule with these settings, on a belief that nobody sees: fills in defaults and checks all values."""
    if not isinstance(settings, Mapping) or "rule" not in settings:
        raise InputError(
            "translate takes a rule of varbnn.optim, or its settings with the rule's name under 'rule', got "
            + (f"settings without: {', '.join(settings)}" if isinstance(settings, Mapping) else type(settings).__name__)
        )
    rule = _rule(settings["rule"])
    given = {key: value for key, value in settings.items() if key != "rule"}
    allowed = {k: v for k, v in inspect.signature(rule.__init__).parameters.items() if k not in ("self", "params")}
    unknown = [key for key in given if key not in allowed]
    missing = [key for key, value in allowed.items() if value.default is value.empty and key not in given]
    if unknown or missing:
        raise InputError(
            f"{rule.__name__} {f'has no {unknown[0]}' if unknown else f'needs {missing[0]}'}; its settings are "
            f"{', '.join(allowed)}"
        )
    parameter, posterior = nn.Parameter(torch.zeros(1)), rule.posterior()
    mark_belief(parameter, posterior, posterior.names[0])
    make: Callable[..., Rule] = rule
    return make([parameter], **given)


def _refuse_unknown_choices(function: Callable[..., mappings.Mapping], choices: dict[str, Any], pair: str) -> None:
    allowed = {k: v for k, v in inspect.signature(function).parameters.items() if v.kind is v.KEYWORD_ONLY}
    unknown = [key for key in choices if key not in allowed]
    missing = [key for key, value in allowed.items() if value.default is value.empty and key not in choices]
    if unknown or missing:
        raise InputError(
            f"{pair} {f'leaves no choice of {unknown[0]}' if unknown else f'needs the choice {missing[0]}'}; its "
            f"choices are {', '.join(allowed) or 'none'}"
        )


def _refuse_windows(rule: type[Rule], beliefs: list[Tensor]) -> None:
    for belief in map(belief_of, beliefs if rule is StraightThrough else []):
        clip = getattr(belief and belief.posterior, "clip", None)
        if clip is not None:
            raise InputError(
                f"Point(clip={clip}) lets a gradient pass by the size of the latent, which the other rule does not "
                "have; binarize the model with Point()"
            )


def _copied(optimizer: Rule, group: Group) -> Source:
    copies = [_copy(optimizer, p) for p in group["params"]]
    return Source(group, [value for value, _ in copies], [state for _, state in copies])


def _copy(optimizer: Rule, parameter: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    state = optimizer.state.get(parameter, {})  # looking it up would make one
    return parameter.detach().clone(), {name: tensor.clone() for name, tensor in state.items()}


def _shared(optimizer: Rule, group: Group) -> dict[str, Any]:
    """What every rule has, for the constructor of another one."""
    reals = [other for other in optimizer.param_groups if other["kind"] == "real"]
    real = reals[0] if reals else optimizer._real
    return dict(real_lr=real["lr"], real_weight_decay=real["weight_decay"], maximize=group["maximize"])


def _snapshot(optimizer: Rule, sources: list[Source], found: tuple[mappings.Mapping, ...]) -> Snapshot:
    reals = [group for group in optimizer.param_groups if group["kind"] == "real"]
    return Snapshot(
        layout=_layout(optimizer),
        beliefs=[
            mapping.carry(belief, state)
            for source, mapping in zip(sources, found, strict=True)
            for belief, state in zip(source.beliefs, source.states, strict=True)
        ],
        reals=[_copy(optimizer, p) for group in reals for p in group["params"]],
        real_settings=[{key: group[key] for key in REAL} for group in reals],
    )


def _layout(optimizer: Rule) -> Layout:
    return [(group["kind"], [tuple(p.shape) for p in group["params"]]) for group in optimizer.param_groups]


def _same_layout(given: Layout, expected: Layout) -> None:
    if given != expected:
        listed = [
            "; ".join(f"{kind} {', '.join(map(str, shapes))}" for kind, shapes in layout)
            for layout in (given, expected)
        ]
        raise InputError(
            f"the parameters come in the groups [{listed[0]}], those of the source in [{listed[1]}]; give parameters "
            "of the same shapes in the same groups"
        )


def _write(optimizer: Rule, groups: list[Group], carried: Carried, without: Collection[str] = ()) -> None:
    members = [(group, p) for group in groups for p in group["params"]]
    for (group, p), (value, state) in zip(members, carried, strict=True):
        p.copy_(value)
        for name, tensor in ((k, v) for k, v in state.items() if k not in without):
            optimizer.state[p][name] = tensor.to(p.device, full(p.dtype), copy=True) if tensor.dim() else tensor.clone()
        if group["kind"] == "belief" and state.keys() - {"prior"}:
            fill(optimizer.state[p], p, chosen(optimizer.filter, group), group)  # what the source knows nothing of
