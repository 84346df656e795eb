"""What README and docs quote is what the committed results hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
SCRIPTS = [p for p in sorted((ROOT / "benchmarks").glob("*.py")) if "__main__" in p.read_text(encoding="utf-8")]


def test_the_tables_of_readme_and_docs_are_those_of_the_results(script):
    tables = script("tables")
    for page, made in tables.tables().items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert tables.filled(text, made) == text, f"{page}: run python benchmarks/tables.py"


def test_the_numbers_of_the_ablations_are_those_of_the_results(script):
    tables = script("ablation_tables")
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert tables.filled(page) == page, "run python benchmarks/ablation_tables.py"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_answers_help_before_it_measures_and_is_in_the_readme(path):
    text = path.read_text(encoding="utf-8")
    assert "parse_args()" in text or "no_options(__doc__)" in text
    assert path.name in (path.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_names_its_machine_and_versions(path):
    machine = json.loads(path.read_text(encoding="utf-8"))["machine"]
    assert {"processor", "threads", "torch", "varbnn", "date"} <= set(machine)
