"""Writes the table of all rules into docs/the-one-rule.md, from the parts that the code of each rule names.

python docs/_ext/one_rule.py
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

import varbnn
from varbnn.optim import Rule
from varbnn.optim.forgetting import Forgetting
from varbnn.optim.parts import OneOf

DOCS = Path(__file__).resolve().parent.parent
PAGE = DOCS / "the-one-rule.md"
PARTS = ("filter", "forgetting", "decision")
STYLE = "```{rst-class} formulas\n```"  # see _static/wide.css
HEAD = ("method, source", "posterior", "filter", "forgetting", "decision", "bytes")


def rules() -> list[type[Rule]]:
    """Every rule that has a file in `varbnn.optim`, the oldest first."""
    for found in pkgutil.walk_packages(varbnn.optim.__path__, "varbnn.optim."):
        importlib.import_module(found.name)
    every, queue = [], [Rule]
    while queue:
        subclasses = queue.pop().__subclasses__()
        queue += subclasses
        every += [rule for rule in subclasses if rule.__module__.startswith("varbnn.optim.")]
    return sorted(set(every), key=lambda rule: (year_of(rule), rule.__name__))


def year_of(rule: type[Rule]) -> int:
    years = re.findall(r"\b(?:19|20)\d\d\b", getattr(rule, "source", ""))
    return int(years[-1]) if years else 9999


@dataclass(frozen=True)
class Row:
    """One rule, with one value for each of its choices.

    Attributes:
        rule: of `varbnn.optim`.
        choice: hyper-parameter to value, where a part is a choice.
    """

    rule: type[Rule]
    choice: dict[str, str]

    @property
    def of_posterior(self) -> dict[str, str]:
        """The choices that are made in the posterior."""
        return {key: value for key, value in self.choice.items() if key in self._options_of_posterior()}

    @property
    def of_rule(self) -> dict[str, str]:
        """The choices that are arguments of the rule itself."""
        return {key: value for key, value in self.choice.items() if key not in self._options_of_posterior()}

    def _options_of_posterior(self) -> set[str]:
        return {field.name for field in fields(self.rule.posterior)}

    def part(self, kind: str) -> Any:
        part = getattr(self.rule, kind, None)
        return part.options[self.choice[part.key]] if isinstance(part, OneOf) else part

    def bytes_per_weight(self, **settings: Any) -> int:
        """Of the belief and of what is remembered of it, counted after a step on a layer of 8 weights."""
        gradient = {"gradient": self.rule.gradient} if "gradient" in self._options_of_posterior() else {}
        layer = varbnn.binarize(nn.Linear(4, 2, bias=False), self.rule.posterior(**self.of_posterior, **gradient))
        settings |= self.of_rule
        required = [p.name for p in parameters_of(self.rule) if p.default is p.empty]
        optimizer = self.rule(layer.parameters(), **{**dict.fromkeys(required, 1), **settings})
        for belief in layer.parameters():
            belief.grad = torch.full_like(belief, 0.01)
        optimizer.step()
        kept = [t for p in layer.parameters() for t in (p, *optimizer.state[p].values()) if t.numel() > 1]
        return sum(t.numel() * t.element_size() for t in kept) // 8

    def cells(self) -> list[str]:
        path = f"methods/{self.rule.__module__.rsplit('.', 1)[1].replace('_', '-')}.md"
        name = f"[{self.rule.__name__}]({path})" if (DOCS / path).exists() else self.rule.__name__
        method = "<br>".join([name, *assigned(self.of_rule), self.rule.source])
        taken = {} if self.rule.gradient == Rule.gradient else {"gradient": self.rule.gradient}
        posterior = "<br>".join([f"`{self.rule.posterior.__name__}`", *assigned({**self.of_posterior, **taken})])
        return [method, posterior, *(written(self.part(kind).formula) for kind in PARTS), self.memory()]

    def memory(self) -> str:
        """Bytes at the defaults and, where that is another number, with momentum."""
        plain = self.bytes_per_weight()
        if "momentum" not in {p.name for p in parameters_of(self.rule)} or self.of_rule.get("base") == "adam":
            return str(plain)  # Adam's average is there at its defaults
        moving = self.bytes_per_weight(momentum=0.9)
        return str(plain) if moving == plain else f"{plain}; {moving} with momentum"


def parameters_of(rule: type[Rule]) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(rule).parameters.values() if p.name != "params"]


def assigned(choice: dict[str, str]) -> list[str]:
    return [f'`{key}="{value}"`' for key, value in choice.items()]


def written(formula: str) -> str:
    """A formula as code, statement by statement; "none" for the empty one."""
    statements = [line for part in re.split("[;,] ", formula) if part.strip() for line in folded(part.strip())]
    return "<br>".join(f"`{line}`".replace("|", "\\|") for line in statements) or "none"


def folded(statement: str, width: int = 30) -> list[str]:
    """`statement`, broken before its last outer division if it is longer than `width`."""
    outer = [at.start() for at in re.finditer(" / ", statement) if balanced(statement[: at.start()])]
    if len(statement) <= width or not outer:
        return [statement]
    return [statement[: outer[-1]], " " + statement[outer[-1] :]]


def balanced(text: str) -> bool:
    return text.count("(") == text.count(")")


def rows() -> list[Row]:
    """A row for each rule and each of its choices."""
    found = []
    for rule in rules():
        choices = [part for part in (getattr(rule, kind, None) for kind in PARTS) if isinstance(part, OneOf)]
        options = {part.key: list(part.options) for part in choices}
        found += [Row(rule, dict(zip(options, values, strict=True))) for values in itertools.product(*options.values())]
    return found


def objections(row: Row) -> list[str]:
    """What the row lacks before it can be written, in sentences."""
    name = row.rule.__name__
    lacks = [] if getattr(row.rule, "source", "") else [f"{name} lacks `source`"]
    for kind in PARTS:
        part = row.part(kind)
        if part is None:
            lacks.append(f"{name} lacks `{kind}`")
        elif not part.formula and type(part) is not Forgetting:  # that one pulls nowhere
            lacks.append(f"{type(part).__name__}, the {kind} of {name}, lacks `formula`")
    return lacks


def table() -> str:
    """All rows, in Markdown."""
    lines = [list(HEAD), ["---"] * (len(HEAD) - 1) + ["---:"], *(row.cells() for row in rows())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def filled(text: str) -> str:
    """`text` with the table between its markers made anew."""
    pattern = re.compile(r"(<!-- rules -->\n).*?(<!-- /rules -->)", re.DOTALL)
    assert pattern.search(text), f"{PAGE.name} has no markers <!-- rules --> and <!-- /rules -->"
    return pattern.sub(lambda match: f"{match[1]}\n{STYLE}\n\n{table()}\n\n{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
