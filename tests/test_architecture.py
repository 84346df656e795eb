"""The rules of the house hold for varbnn, and each check can fail."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tests import architecture
from tests.architecture import CHECKS, FUNCTION_LINES, MODULE_LINES, Tree

ROOT = Path(__file__).resolve().parent.parent
LATE = ("cvxpy", "lightning", "matplotlib", "pyro", "sklearn")  # optional: imported where used, never at start
SLOW = ("scipy", "torch._dynamo")  # always there, but dear: the compiler takes as long to import as the rest of torch


@pytest.fixture(scope="module")
def varbnn_tree() -> Tree:
    return Tree(ROOT / "varbnn")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_varbnn_has_no(check, varbnn_tree):
    assert varbnn_tree.modules
    violations = check(varbnn_tree)
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


def test_the_floors_that_the_docs_show_are_those_that_are_checked(varbnn_tree):
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]*) \|", page, re.MULTILINE)
    shown = {part: int(floor) for floor, parts in rows for part in re.findall(r"`(\w+)`", parts)}
    there = {module.part for module in varbnn_tree.modules.values()} - {"", "__main__"}
    assert shown == {part: architecture.FLOORS[part] for part in there}


def test_importing_varbnn_imports_no_optional_and_no_slow_package():
    program = f"import sys, varbnn; print(*[name for name in {LATE + SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], "import these where they are used (torchmetrics brings matplotlib)"


def test_the_changelog_starts_with_the_version_of_the_package():
    top = re.search(r"^## \[?(\d[^\]\s]*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert top is not None
    assert top.group(1) == declared
    assert metadata.version("varbnn") == declared, "the installed package is older than pyproject.toml: run make setup"


# --- the checks themselves, on packages small enough to see what is wrong ---


@pytest.fixture
def package(tmp_path):
    """Writes files into a new package `varbnn` and reads it back as a tree; `__in__` in a name is a slash."""

    def write(**files: str) -> Tree:
        folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "varbnn"
        for name, text in {"__init__": "", **files}.items():
            path = folder / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Tree(folder)

    return write


def test_imports_downwards_and_inside_a_part_are_allowed(package):
    tree = package(
        __init__="from varbnn.nn import Linear\n__all__ = ['Linear']\n",
        nn__in____init__="from varbnn.nn.linear import Linear\n",
        nn__in__linear="from varbnn import bits\nfrom . import shape\nclass Linear:\n    '''A layer.'''\n",
        nn__in__shape="import torch\n",
        bits="from varbnn.errors import InputError\n",
        errors="InputError = ValueError\n",
        cli="import varbnn\nfrom varbnn import demo\n",
        demo="",
    )
    assert [sentence for check in CHECKS for sentence in check(tree)] == []


@pytest.mark.parametrize(
    "statement",
    [
        "from varbnn.optim import rule",
        "from varbnn.optim.rule import Rule",
        "import varbnn.optim.rule",
        "from ..optim import rule",
        "def later():\n    from varbnn.optim import rule",
        "class Inner:\n    import varbnn.optim.rule as r",
    ],
)
def test_an_import_upwards_is_named_with_file_line_and_floors(package, statement):
    tree = package(nn__in__linear=f"x = 1\n{statement}\n", optim__in____init__="rule = 1\n", optim__in__rule="Rule = 1")
    (sentence,) = architecture.upward_imports(tree)
    line = 1 + len(statement.splitlines())
    assert sentence.startswith(f"varbnn/nn/linear.py:{line}: imports varbnn.optim")
    assert sentence.endswith("optim is on floor 4, above nn on floor 3")


def test_neighbours_may_not_import_each_other(package):
    (sentence,) = architecture.upward_imports(package(sdp="from varbnn import packed", packed=""))
    assert "packed and sdp are neighbours on floor 5" in sentence


def test_a_rule_may_not_import_layers_although_they_lie_below(package):
    (sentence,) = architecture.upward_imports(package(optim__in__bop="from varbnn.nn import linear", nn__in__linear=""))
    assert "optim (floor 4) never imports nn" in sentence


def test_only_the_roof_imports_the_package_itself(package):
    (sentence,) = architecture.upward_imports(package(predict="import varbnn", cli="import varbnn"))
    assert sentence.startswith("varbnn/predict.py:1")
    (sentence,) = architecture.upward_imports(package(__init__="from varbnn.cli import main", cli="main = 1"))
    assert sentence.startswith("varbnn/__init__.py:1")


def test_a_new_top_level_module_needs_a_floor(package):
    (sentence,) = architecture.unplaced_modules(package(helpers=""))
    assert sentence.startswith("varbnn/helpers.py:1: 'helpers' has no floor")


def test_a_cycle_is_found_even_through_a_function(package):
    tree = package(
        nn__in__a="from varbnn.nn import b",
        nn__in__b="def f():\n    from varbnn.nn import c",
        nn__in__c="import varbnn.nn.a",
    )
    (sentence,) = architecture.import_cycles(tree)
    assert sentence == "varbnn/nn/a.py:1: import cycle varbnn.nn.a -> varbnn.nn.b -> varbnn.nn.c -> varbnn.nn.a"


def test_a_module_that_imports_itself_through_its_package_is_a_cycle(package):
    tree = package(nn__in____init__="from varbnn.nn.a import A", nn__in__a="from varbnn.nn import A")
    assert len(architecture.import_cycles(tree)) == 1


def test_a_long_module_and_a_long_function_are_named(package):
    body = "    pass\n" * FUNCTION_LINES
    tree = package(
        bits=f"def f():\n{body}\ndef g():\n    '''One.\n\n    Two.'''\n{body[9:]}", data="\n" * (MODULE_LINES + 1)
    )
    (sentence,) = architecture.long_functions(tree)
    assert sentence.startswith(f"varbnn/bits.py:1: f has {FUNCTION_LINES + 1} lines")
    (sentence,) = architecture.long_modules(tree)
    assert sentence.startswith(f"varbnn/data.py:{MODULE_LINES + 1}:")


def test_an_init_file_that_defines_something_is_named(package):
    (sentence,) = architecture.defining_init_files(package(nn__in____init__="X = 1\n\nclass Layer: ...\n"))
    assert sentence == "varbnn/nn/__init__.py:3: __init__ defines Layer; it may only re-export"


def test_a_public_name_without_docstring_is_named_where_it_is_defined(package):
    tree = package(
        __init__="from varbnn.nn import Layer as Shown\n__all__ = ['Shown', 'Missing']\n",
        nn__in____init__="from .layer import Layer\n__all__ = ['Layer']\n",
        nn__in__layer="def private(): ...\nclass Layer: ...\n",
    )
    assert architecture.undocumented_names(tree) == ["varbnn/nn/layer.py:2: Layer is public and has no docstring"]
