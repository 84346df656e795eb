"""What every rule must do. A rule joins by having a file in `varbnn/optim` and an oracle of that name.

An oracle, `tests/oracles/<file of the rule>.py`, holds

    SETTINGS   constructor arguments to try; together they must name every hyper-parameter of the rule
    CHANGES    {step: {hyper-parameter: value}}, written into the groups while a run goes on
    step(belief, gradient, state, **group) -> belief, the paper's recurrence on numpy arrays

A setting may hold `posterior`, the options of the posterior it is for. Where a belief of that posterior is several
tensors, `step` sees them in a row along a first axis: belief, gradient and what it keeps in the state. A tensor with an
axis of its own before those of the weight takes as many rows as that is long.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from varbnn.optim import Rule
from varbnn.posteriors import Posterior, mark_belief

ORACLES = Path(__file__).parents[1] / "oracles"
NOT_OF_THE_RECURRENCE = {"self", "params", "real_lr", "real_weight_decay"}


@dataclass(frozen=True)
class Member:
    """A rule on one of its posteriors; made like the rule itself, `member(parameters, **settings)`."""

    rule: type[Rule]
    posterior: Posterior
    settings: tuple[dict[str, Any], ...]

    def __call__(self, params: Any, **settings: Any) -> Rule:
        return self.rule(params, **settings)

    def __str__(self) -> str:
        return f"{self.rule.__name__}-{self.posterior!r}" if vars(self.posterior) else self.rule.__name__

    def by_belief(self, parameters: list[Any]) -> list[list[Any]]:
        """The tensors of `beliefs`, those of one belief together."""
        count = len(self.posterior.names)
        return [parameters[i : i + count] for i in range(0, len(parameters), count)]

    def parities(self, parameters: list[Any]) -> list[tuple[Any, int]]:
        """Each tensor with the sign it takes when the network is mirrored: of a belief's tensors the first turns."""
        return [(p, 1 if i % len(self.posterior.names) else -1) for i, p in enumerate(parameters)]


def members() -> list[Member]:
    """Every rule on every posterior that its oracle has settings for; without an oracle there are none to try."""
    found = []
    for rule in rules():
        if not (ORACLES / f"{file_of(rule)}.py").exists():
            continue  # test_a_rule_has_a_complete_oracle fails by its name
        settings: dict[Posterior, list[dict[str, Any]]] = {}
        for setting in oracle_of(rule).SETTINGS:
            own = {key: value for key, value in setting.items() if key != "posterior"}
            settings.setdefault(rule.posterior(**setting.get("posterior", {})), []).append(own)
        found += [Member(rule, posterior, tuple(own)) for posterior, own in settings.items()]
    return found


def rules() -> list[type[Rule]]:
    """Every rule of varbnn.optim, also one that the package forgot to export."""
    found, queue = [], [Rule]
    while queue:
        for rule in queue.pop().__subclasses__():
            queue.append(rule)
            if rule.__module__.startswith("varbnn.optim."):
                found.append(rule)
    return sorted(set(found), key=lambda rule: rule.__name__)


def file_of(rule: type[Rule]) -> str:
    return rule.__module__.rsplit(".", 1)[1]


def oracle_of(rule: type[Rule]) -> ModuleType:
    return importlib.import_module(f"tests.oracles.{file_of(rule)}")


def objections(rule: type[Rule], folder: Path = ORACLES) -> list[str]:
    """What the oracle of `rule` in `folder` lacks, in sentences."""
    path = folder / f"{file_of(rule)}.py"
    if not path.exists():
        return [f"{rule.__name__} has no oracle: write tests/oracles/{path.name}"]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    sentences = []
    imported = {
        (name or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    if imported - {"numpy", "math"}:
        sentences.append(
            f"the oracle of {rule.__name__} imports {sorted(imported - {'numpy', 'math'})}; numpy is enough"
        )
    names = {
        t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    }
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    missing = [name for name in ("SETTINGS", "CHANGES") if name not in names] + ["step"] * ("step" not in functions)
    if missing:
        return [*sentences, f"the oracle of {rule.__name__} lacks {', '.join(missing)}"]
    length = sum(node.end_lineno - node.lineno + 1 for node in functions.values())
    if length > 25:
        sentences.append(f"the oracle of {rule.__name__} takes {length} lines; a paper's recurrence fits into 25")
    tried = {k.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for k in node.keywords}
    untried = [name for name in hyper_parameters(rule) if name not in tried]
    if untried:
        sentences.append(f"no setting in the oracle of {rule.__name__} tries {', '.join(untried)}")
    return sentences


def hyper_parameters(rule: type[Rule]) -> list[str]:
    return [name for name in inspect.signature(rule.__init__).parameters if name not in NOT_OF_THE_RECURRENCE]


def beliefs(rule: type[Rule] | Member, *values: Any) -> list[nn.Parameter]:
    """Parameters marked as beliefs that `rule` trains; the later tensors of a belief are positive."""
    posterior = rule.posterior if isinstance(rule, Member) else rule.posterior()
    marked = []
    for value in map(torch.as_tensor, values):
        shapes = [t.shape for t in posterior.initial(value, torch.Generator())]
        for name, shape in zip(posterior.names, shapes, strict=False):
            start = value.clone() if name == posterior.names[0] else 0.5 + value**2
            if shape != value.shape:
                rows = torch.linspace(0.5, 1.5, shape[0], dtype=value.dtype)
                start = rows.reshape(-1, *[1] * value.dim()) * start
            marked.append(nn.Parameter(start))
            mark_belief(marked[-1], posterior, name)
    return marked


def in_rows(belief: list[Any]) -> list[np.ndarray]:
    """The tensors of a belief, each as rows shaped like the weight."""
    shape = tuple(belief[0].shape)
    arrays = [tensor.detach().numpy() for tensor in belief]
    return [a.reshape(*(a.shape if a.ndim > len(shape) else (1, *shape))) for a in arrays]


def stacked(belief: list[Any]) -> np.ndarray:
    """The numbers of a belief as its oracle sees them."""
    return np.concatenate(in_rows(belief)) if len(belief) > 1 else belief[0].detach().numpy().copy()


def split(array: np.ndarray, belief: list[Any]) -> list[np.ndarray]:
    """The inverse of `stacked`: a part for each tensor of `belief`, shaped like it."""
    if len(belief) == 1:
        return [array]
    ends = np.cumsum([len(rows) for rows in in_rows(belief)])
    return [part.reshape(p.shape) for part, p in zip(np.split(array, ends[:-1]), belief, strict=True)]


class Twins:
    """One rule and its oracle side by side, from the same start, each on gradients of its own beliefs."""

    def __init__(self, member: Member, groups: list[tuple[dict[str, Any], list[np.ndarray]]], **settings: Any) -> None:
        self.oracle = oracle_of(member.rule)
        flat = [beliefs(member, *starts) for _, starts in groups]
        self.beliefs = [member.by_belief(parameters) for parameters in flat]
        self.arrays = [[stacked(belief) for belief in group] for group in self.beliefs]
        self.states: list[list[dict[str, Any]]] = [[{} for _ in group] for group in self.beliefs]
        given = [{**own, "params": p} for (own, _), p in zip(groups, flat, strict=True)]
        self.optimizer = member(given, **settings)
        self.wanted = inspect.signature(self.oracle.step).parameters.keys() - {"state", "gradient"}

    def change(self, values: dict[str, Any]) -> None:
        for group in self.optimizer.param_groups:
            idle = {"momentum"} if group.get("base") == "adam" else set()  # which is refused there
            group.update({key: value for key, value in values.items() if key not in idle})

    def step(self, gradient: Any) -> None:
        """`gradient(array, group number, number of the belief in the group)` on numpy arrays, for both."""
        for i, (arrays, group) in enumerate(zip(self.arrays, self.optimizer.param_groups, strict=True)):
            settings = {key: value for key, value in group.items() if key in self.wanted}
            for j, belief in enumerate(self.beliefs[i]):
                ours = split(gradient(stacked(belief), i, j).copy(), belief)
                for parameter, own in zip(belief, ours, strict=True):
                    parameter.grad = torch.from_numpy(own)
                arrays[j] = self.oracle.step(arrays[j], gradient(arrays[j], i, j), self.states[i][j], **settings)
        self.optimizer.step()

    def assert_equal(self, when: str) -> None:
        for i, arrays in enumerate(self.arrays):
            for j, array in enumerate(arrays):
                belief, state = self.beliefs[i][j], self.states[i][j]
                for k, (parameter, part) in enumerate(zip(belief, split(array, belief), strict=True)):
                    where = f"{when}, group {i}, belief {j}, tensor {k}"
                    close(parameter, part, where)
                    np.testing.assert_array_equal(parameter.detach().numpy() >= 0, part >= 0, err_msg=where)
                    for name, value in self.optimizer.state[parameter].items():
                        whole = value.shape == parameter.shape
                        expected = split(state[name], belief)[k] if whole else state[name]
                        close(value, expected, f"{where}, state {name}")


def close(tensor: Tensor, array: Any, where: str) -> None:
    """Equal to 1e-12 of the larger of 1 and the value: 200 float64 steps round to about 1e-14."""
    np.testing.assert_allclose(tensor.detach().numpy(), array, rtol=1e-12, atol=1e-12, err_msg=where)
