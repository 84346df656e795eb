"""The page on adding a rule is true: its two files, put where it says, pass the contract of all rules."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import blocks

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "adding" / "a-rule.md"
FILES = ("varbnn/optim/lion.py", "tests/oracles/lion.py")
CONTRACT = [f"tests/optim/test_{name}.py" for name in ("rule_contract", "half", "blocks")]


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    """The files of the page, by the path that the heading above each names."""
    if not PAGE.exists():
        pytest.skip("the docs are not here")
    text = PAGE.read_text(encoding="utf-8")
    code = [block.code for block in blocks(text) if block.info == "python"]
    assert all(f"`{path}`\n\n```python" in text for path in FILES)
    return dict(zip(FILES, code, strict=False))


@pytest.fixture
def library(shown, tmp_path):
    """A copy of the library and its tests, with the files of the page in their places and the rule exported."""
    for folder in ("varbnn", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs" / "_ext", tmp_path / "docs" / "_ext")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, code in shown.items():
        (tmp_path / path).write_text(code, encoding="utf-8")
    public = tmp_path / "varbnn" / "optim" / "__init__.py"
    exported = public.read_text(encoding="utf-8").replace("__all__ = [", '__all__ = [\n    "Lion",')
    public.write_text(f"{exported}\nfrom varbnn.optim.lion import Lion\n", encoding="utf-8")
    return tmp_path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the library in `folder`: without site, whose hooks would import the installed one."""
    path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry)])
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment = own | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def told_of(folder: Path, *arguments: str) -> str:
    """What pytest prints about the tests of `CONTRACT` that `arguments` choose."""
    done = python(folder, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", *CONTRACT, *arguments)
    return done.stdout + done.stderr


def test_rule_and_oracle_together_stay_under_60_lines(shown):
    lines = [line for code in shown.values() for line in code.splitlines() if line.strip()]
    assert len(lines) < 60


def test_the_rule_of_the_page_passes_the_contract_of_all_rules(library):
    said = told_of(library, "-k", "Lion or every_exported_rule")
    assert " passed" in said, said[-3000:]
    assert not re.search(r"\d+ (failed|error)", said), said[-3000:]
    for promise in (
        "test_every_exported_rule_is_found",
        "test_a_rule_has_a_complete_oracle[Lion]",
        "test_equals_its_oracle_on_a_fixed_gradient_sequence_while_hyper_parameters_change[Lion-Point()-1]",
        "test_equals_its_oracle_where_the_gradient_depends_on_the_weights[Lion-Point()-1]",
        "test_a_safely_loaded_state_continues_bit_for_bit_in_an_optimizer_built_otherwise[Lion-Point()-0]",
    ):
        assert f"{promise} PASSED" in said


def test_without_its_oracle_the_rule_of_the_page_fails_by_name(library):
    (library / FILES[1]).unlink()
    said = told_of(library, "-k", "Lion or every_exported_rule")
    assert "1 failed" in said, said[-3000:]
    assert "test_a_rule_has_a_complete_oracle[Lion] FAILED" in said
    message = "Lion has no oracle: write tests/oracles/lion.py"
    assert message in said
    assert f"```text\n{message}\n```" in PAGE.read_text(encoding="utf-8")


def test_the_row_of_the_page_is_the_one_the_code_gives(library):
    program = (
        "import sys; sys.path.insert(0, 'docs/_ext'); import one_rule\n"
        "for row in one_rule.rows():\n"
        "    if row.rule.__name__ == 'Lion': print('|', ' | '.join(row.cells()), '|')"
    )
    done = python(library, "-c", program)
    assert done.stdout.strip() in PAGE.read_text(encoding="utf-8").splitlines(), done.stdout + done.stderr
