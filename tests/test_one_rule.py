"""The page of the one rule says what the code says: its table is the code's, and the tests it names exist."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from varbnn.optim import Rule
from varbnn.optim.decisions import Descend
from varbnn.optim.filters import Filter
from varbnn.posteriors import Point

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs" / "the-one-rule.md"]
PAGES += [page for folder in ("methods", "adding") for page in sorted((ROOT / "docs" / folder).glob("*.md"))]


@pytest.fixture
def one_rule(monkeypatch):
    if not PAGES[0].exists():
        pytest.skip("the docs are not here")
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    return importlib.import_module("one_rule")


def test_every_rule_names_its_source_and_every_part_its_formula(one_rule):
    assert [sentence for row in one_rule.rows() for sentence in one_rule.objections(row)] == []


def test_what_a_rule_lacks_is_said_by_name(one_rule):
    class Mute(Filter):
        pass

    class Anonymous(Rule):
        posterior = Point
        filter = Mute()
        decision = Descend()

    assert one_rule.objections(one_rule.Row(Anonymous, {})) == [
        "Anonymous lacks `source`",
        "Mute, the filter of Anonymous, lacks `formula`",
    ]


def test_the_table_is_the_one_the_code_gives(one_rule):
    text = PAGES[0].read_text(encoding="utf-8")
    assert one_rule.filled(text) == text, "run python docs/_ext/one_rule.py"


def test_every_rule_has_its_rows(one_rule):
    rows = [(row.rule.__name__, *row.choice.values()) for row in one_rule.rows()]
    assert len(set(rows)) == len(rows)
    assert {("StraightThrough", "adam"), ("StraightThrough", "sgd"), ("Bop",), ("GaussianBLR", "learned")} <= set(rows)


@pytest.mark.parametrize(
    "name, choice, expected",
    [
        ("StraightThrough", {"base": "adam"}, "12"),
        ("StraightThrough", {"base": "sgd"}, "4; 8 with momentum"),
        ("Bop", {}, "8"),
        ("GaussianBLR", {"form": "learned"}, "8; 16 with momentum"),
    ],
)
def test_memory_counts_belief_and_state(one_rule, name, choice, expected):
    (rule,) = [rule for rule in one_rule.rules() if rule.__name__ == name]
    assert one_rule.Row(rule, choice).memory() == expected


def test_formulas_are_set_statement_by_statement_and_long_ones_broken_at_a_division(one_rule):
    assert one_rule.written("") == "none"
    assert one_rule.written("v ← |g|; f(u) v, f = u / 2") == "`v ← \\|g\\|`<br>`f(u) v`<br>`f = u / 2`"
    long = one_rule.written("d = (a numerator / 2) / (a denominator)")
    assert long == "`d = (a numerator / 2)`<br>`  / (a denominator)`"


def functions(folder: Path) -> set[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py"))
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_test_that_a_page_names_exists(page):
    named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    assert named or page != PAGES[0]
    assert named - functions(ROOT / "tests") == set()
