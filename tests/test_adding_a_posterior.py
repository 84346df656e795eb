"""The page on adding a posterior is true: its file and its case, put where it says, pass the contract of all."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.test_adding_a_rule import ROOT, python
from tests.test_docs import blocks

PAGE = ROOT / "docs" / "adding" / "a-posterior.md"
FILE = "varbnn/posteriors/cauchy.py"
CASES = "tests/contracts/posterior.py"
CONTRACT = "tests/posteriors/test_contract.py"


@pytest.fixture
def library(tmp_path):
    """A copy of the library and its tests, with the posterior of the page in its place and exported."""
    if not PAGE.exists():
        pytest.skip("the docs are not here")
    for folder in ("varbnn", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    assert f"`{FILE}`\n\n```python" in text
    (tmp_path / FILE).write_text(next(b.code for b in blocks(text) if b.info == "python"), encoding="utf-8")
    public = tmp_path / "varbnn" / "posteriors" / "__init__.py"
    exported = public.read_text(encoding="utf-8").replace("__all__ = [", '__all__ = [\n    "Cauchy",')
    public.write_text(f"{exported}\nfrom varbnn.posteriors.cauchy import Cauchy\n", encoding="utf-8")
    return tmp_path


def told_of(folder):
    chosen = "Cauchy or every_posterior"
    done = python(folder, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", CONTRACT, "-k", chosen)
    return done.stdout + done.stderr


def test_the_posterior_of_the_page_passes_the_contract_of_all_posteriors(library):
    case = next(b.code for b in blocks(PAGE.read_text(encoding="utf-8")) if "it belongs into the dictionary" in b.info)
    cases = (library / CASES).read_text(encoding="utf-8")
    opening = "CASES: dict[type[Posterior], list[Case]] = {\n"
    assert opening in cases
    changed = cases.replace(opening, f"from varbnn.posteriors import Cauchy\n\n{opening}{case}")
    (library / CASES).write_text(changed, encoding="utf-8")
    said = told_of(library)
    assert not re.search(r"\d+ (failed|error)", said), said[-3000:]
    for promise in (
        "test_has_a_case_for_every_posterior",
        "test_kl_adds_up_to_that_of_the_joint_laws[Cauchy()]",
        "test_samples_follow_the_joint_law[Cauchy()]",
        "test_noise_decides_the_draw_and_no_randomness_is_used[Cauchy()]",
        "test_everything_keeps_the_dtype_of_the_belief[dtype0-Cauchy()]",
    ):
        assert f"{promise} PASSED" in said, said[-3000:]


def test_without_its_case_the_posterior_of_the_page_fails_by_name(library):
    said = told_of(library)
    assert "test_has_a_case_for_every_posterior FAILED" in said, said[-3000:]
    assert "['Cauchy'] == []" in said
    message = "enter a Case for each of these in tests/contracts/posterior.py"
    assert message in said
    assert message in PAGE.read_text(encoding="utf-8")
