"""Every example runs in its smoke size, alone in an empty folder, and ends in the line of JSON it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))

PROMISED = {
    "01_first_binary_network": {
        "accuracy", "nll", "brier", "ece", "ood_auroc", "mode_accuracy", "entropy_bits", "loaded_equal", "seconds",
    },
    "02_uncertainty": {"ste", "mode", "posterior", "refresh_bn", "draws", "doubt", "figure", "seconds"},
    "03_compare_rules": {"rules", "figure", "seconds"},
    "04_packed": {
        "accuracy", "difference", "times_smaller", "times_faster", "epistemic", "loaded_equal", "seconds",
    },
    "04_permuted_mnist": {"data", "scores", "entropy_bits", "figure", "seconds"},
    "05_split_fashion": {"data", "scores", "figure", "seconds"},
    "06_certified_gap": {"rules", "bound", "figure", "seconds"},
    "07_regression": {
        "data", "measured_on", "rmse", "nll", "coverage", "noise", "epistemic_data", "epistemic_beyond", "figure",
        "seconds",
    },
    "08_active_learning": {"accuracy", "last", "area", "figure", "seconds"},
    "09_wrong_labels": {"believing", "doubting", "share", "seconds"},
    "10_without_floats": {
        "same_bits", "mode_accuracy", "accuracy", "nll", "ece", "ood_auroc", "entropy_bits", "state_bytes",
        "packed_bytes", "packed_equal", "seconds",
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: path.stem)
def finished(request, tmp_path_factory):
    """The name of an example, the folder it ran in and its last line."""
    pytest.importorskip("sklearn", reason="the examples read scikit-learn's digits: varbnn[demo]")
    folder = tmp_path_factory.mktemp(request.param.stem)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, str(request.param), "--smoke"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return request.param.stem, folder, done.stdout.strip().splitlines()[-1]


def test_an_example_ends_in_the_numbers_it_promises(finished):
    name, _, last_line = finished
    assert name in PROMISED, f"say in PROMISED what {name} ends with"
    assert set(json.loads(last_line)) == PROMISED[name]


def test_an_example_writes_only_where_it_says(finished):
    _, folder, _ = finished
    assert {path.name for path in folder.iterdir()} <= {"varbnn-demo"}


def test_every_example_is_in_the_table_of_the_readme():
    table = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES if f"examples/{path.name}" not in table] == []
    assert EXAMPLES


def test_an_example_is_short():
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES}
    assert {name: length for name, length in lengths.items() if length > 150} == {}


def test_without_scikit_learn_an_example_says_in_one_line_what_to_install(tmp_path):
    (tmp_path / "sklearn.py").write_text("raise ModuleNotFoundError('blocked', name='sklearn')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES[0]), "--smoke"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == 'sklearn is not installed; pip install "varbnn[demo]"'
