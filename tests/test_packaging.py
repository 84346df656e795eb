"""What pyproject.toml promises those who install varbnn, or get its source distribution."""

from __future__ import annotations

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
