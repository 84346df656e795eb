"""What every rule must do. A rule joins by having a file in `varbnn/optim` and an oracle of that name.

An oracle, `tests/oracles/<file of the rule>.py`, holds

    SETTINGS   constructor arguments to try; together they must name every hyper-parameter of the rule
    CHANGES    {step: {hyper-parameter: value}}, written into the groups while a run goes on
    step(belief, gradient, state, **group) -> belief, the paper's recurrence on numpy arrays
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from varbnn.optim import Rule
from varbnn.posteriors import mark_belief

ORACLES = Path(__file__).parents[1] / "oracles"
NOT_OF_THE_RECURRENCE = {"self", "params", "real_lr", "real_weight_decay"}


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


def beliefs(rule: type[Rule], *values: Any) -> list[nn.Parameter]:
    """Parameters marked as beliefs that `rule` trains."""
    posterior = rule.posterior()
    marked = [nn.Parameter(torch.as_tensor(value).clone()) for value in values]
    for parameter in marked:
        mark_belief(parameter, posterior, posterior.names[0])
    return marked


class Twins:
    """One rule and its oracle side by side, from the same start, each on gradients of its own beliefs."""

    def __init__(
        self, rule: type[Rule], groups: list[tuple[dict[str, Any], list[np.ndarray]]], **settings: Any
    ) -> None:
        self.oracle = oracle_of(rule)
        self.parameters = [beliefs(rule, *starts) for _, starts in groups]
        self.arrays = [[start.copy() for start in starts] for _, starts in groups]
        self.states: list[list[dict[str, Any]]] = [[{} for _ in starts] for _, starts in groups]
        given = [{**own, "params": p} for (own, _), p in zip(groups, self.parameters, strict=True)]
        self.optimizer = rule(given, **settings)
        self.wanted = inspect.signature(self.oracle.step).parameters.keys() - {"state", "gradient"}

    def change(self, values: dict[str, Any]) -> None:
        for group in self.optimizer.param_groups:
            group.update(values)

    def step(self, gradient: Any) -> None:
        """`gradient(array, group number, number in the group)` on numpy arrays, for both."""
        for i, (arrays, group) in enumerate(zip(self.arrays, self.optimizer.param_groups, strict=True)):
            settings = {key: value for key, value in group.items() if key in self.wanted}
            for j, parameter in enumerate(self.parameters[i]):
                parameter.grad = torch.from_numpy(gradient(parameter.detach().numpy(), i, j).copy())
                arrays[j] = self.oracle.step(arrays[j], gradient(arrays[j], i, j), self.states[i][j], **settings)
        self.optimizer.step()

    def assert_equal(self, when: str) -> None:
        for i, arrays in enumerate(self.arrays):
            for j, array in enumerate(arrays):
                where = f"{when}, group {i}, parameter {j}"
                parameter = self.parameters[i][j]
                close(parameter, array, where)
                np.testing.assert_array_equal(parameter.detach().numpy() >= 0, array >= 0, err_msg=where)
                for name, value in self.optimizer.state[parameter].items():
                    close(value, self.states[i][j][name], f"{where}, state {name}")


def close(tensor: Tensor, array: Any, where: str) -> None:
    """Equal to 1e-12 of the larger of 1 and the value: 200 float64 steps round to about 1e-14."""
    np.testing.assert_allclose(tensor.detach().numpy(), array, rtol=1e-12, atol=1e-12, err_msg=where)
