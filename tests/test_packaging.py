"""What pyproject.toml promises those who install varbnn, or get its source distribution."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("extra", ["sklearn", "demo"])
def test_an_extra_with_scikit_learn_asks_for_one_that_the_estimators_can_use(extra):
    """`validate_data` is there from 1.6; with 1.5 `fit` ended in an AttributeError."""
    wanted = [name for name in PROJECT["project"]["optional-dependencies"][extra] if name.startswith("scikit-learn")]
    assert wanted == ["scikit-learn>=1.6"]


def test_the_source_distribution_has_what_its_tests_and_makefile_need(tmp_path):
    pytest.importorskip("scikit_build_core")
    build = f"import sys; sys.path.insert(0, 'cmake'); import backend; backend.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, check=True)
    (built,) = tmp_path.iterdir()
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    patterns = (
        "benchmarks/*.py",
        "benchmarks/results/*.json",
        "cmake/*.py",
        "docs/*.md",
        "examples/*.py",
        "tests/**/*.py",
    )
    there = [
        path.relative_to(ROOT).as_posix() for pattern in (*patterns, "varbnn/**/*.py") for path in ROOT.glob(pattern)
    ]
    assert sorted({*there, "Makefile", "conftest.py", "constraints.txt"} - held) == []
