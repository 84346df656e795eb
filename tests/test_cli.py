"""The command line: exit codes, one line for every mistake, and never a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
import warnings
from pathlib import Path

import pytest

import varbnn
from varbnn import cli
from varbnn.cli import about
from varbnn.errors import VarbnnWarning

ROOT = Path(__file__).resolve().parent.parent


def command(*arguments: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "varbnn", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_the_program_runs_as_a_module(tmp_path):
    done = command("demo", "--data", "moons", "--epochs", "1", "--samples", "2", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("ste ")
    assert (tmp_path / "varbnn-demo" / "report.json").is_file()


def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(tmp_path):
    done = command("demo", "--samples", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "varbnn: argument --samples: must be at least 1, got 0; see varbnn demo --help\n"
    assert not list(tmp_path.iterdir())


def test_a_terminal_that_knows_ascii_only_is_enough(tmp_path):
    done = command("demo", "--data", "mnist", "--data-dir", "größe", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2
    assert done.stderr.startswith("varbnn: cannot read the data directory gr")


@pytest.fixture(autouse=True)
def never_train(request, monkeypatch):
    if request.node.get_closest_marker("parametrize"):
        monkeypatch.setattr("varbnn.demo.comparison.train", lambda *args, **options: pytest.fail("trained"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("demo --data cifar", "argument --data: invalid choice: 'cifar'"),
        ("demo --method adam", "argument --method: invalid choice: 'adam'"),
        (
            "demo --data mnist",
            "say where they are with --data-dir; varbnn.data.load(NAME, DIR, download=True) in Python fetches them\n",
        ),
        ("train fashion", "say where they are with --data-dir; varbnn.data.load(NAME, DIR, download=True) in Python"),
        ("demo --data mnist --data-dir nowhere", "cannot read the data directory nowhere: no such file or directory"),
        ("demo --data fashion --data-dir file", "cannot read the data directory file: not a directory"),
        ("demo --data mnist --data-dir .", "does not hold MNIST: expected mnist.npz"),
        ("demo --out file", "cannot write to file: file exists; choose another directory with --out"),
        (f"demo --out {'x' * 300}", "file name too long"),
        ("demo --out file/deeper", "cannot write to file/deeper: not a directory"),
        ("demo --samples 0", "argument --samples: must be at least 1, got 0"),
        ("demo --samples -3", "argument --samples: must be at least 1, got -3"),
        ("demo --samples many", "argument --samples: must be a whole number, got 'many'"),
        ("demo --epochs 0", "argument --epochs: must be at least 1, got 0"),
        ("demo --epochs 1.5", "argument --epochs: must be a whole number, got '1.5'"),
        ("demo --seed -1", "argument --seed: must be at least 0, got -1"),
        ("demo --seed 99999999999999999999", "argument --seed: must be at least 0 and below 2**63"),
        ("demo --sample", "argument --samples: expected one argument"),
        ("demo --unknown", "unrecognized arguments: --unknown"),
        ("fly", "invalid choice: 'fly'"),
    ],
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    assert cli.main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("varbnn: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_refused(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert cli.main(["demo", "--data", "moons", "--out", str(tmp_path / "out")]) == 2
    assert "permission denied" in capsys.readouterr().err
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("missing", ["sklearn.datasets", "PIL"])
def test_a_missing_extra_is_one_line_that_names_it(missing, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith('is not installed; pip install "varbnn[demo]"\n')
    assert not list(tmp_path.iterdir())


def test_an_interrupt_is_one_line_and_exit_code_130(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("varbnn.demo.comparison.train", interrupt)
    assert cli.main(["demo", "--data", "moons", "--quiet", "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "\nvarbnn: interrupted, nothing was written\n"
    assert not list(tmp_path.iterdir())


def test_a_programming_error_is_not_passed_off_as_a_mistake_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr("varbnn.demo.comparison.train", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo", "--data", "moons", "--quiet", "--out", str(tmp_path / "out")])


def test_a_warning_of_ours_is_one_line(tmp_path, monkeypatch, capsys):
    def warn(*args, **options):
        warnings.warn("the posterior has collapsed", VarbnnWarning, stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr("varbnn.demo.comparison.train", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        cli.main(["demo", "--data", "moons", "--quiet", "--out", str(tmp_path / "out")])
    assert "varbnn: warning: the posterior has collapsed\n" in capsys.readouterr().err


def test_info_names_versions_threads_backend_and_every_extra(capsys):
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert re.search(rf"^varbnn +{re.escape(varbnn.__version__)}$", text, re.MULTILINE)
    assert re.search(r"^threads +\d+ of \d+ cores$", text, re.MULTILINE)
    assert textwrap.indent(str(varbnn.backend_info()), "  ") in text
    for extra in about.EXTRAS:
        assert re.search(rf"^  {extra} +\S", text, re.MULTILINE)


def test_info_says_how_to_get_an_absent_extra(monkeypatch, capsys):
    monkeypatch.setattr(about, "_version", lambda name: None if name == "pillow" else "1.0")
    cli.main(["info"])
    text = capsys.readouterr().out
    assert '  demo       - pillow absent: pip install "varbnn[demo]"' in text
    assert "  sklearn    scikit-learn 1.0" in text


def test_the_extras_are_those_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    ours = {
        name: tuple(re.split("[<>=]", item)[0] for item in items)
        for name, items in declared.items()
        if name not in ("all", "test", "docs")
    }
    assert ours == about.EXTRAS


def closed(stream: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """The program with a standard stream of the shell's choice, such as ``>&-``."""
    words = " ".join([sys.executable, "-m", "varbnn", *arguments])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", "-c", f"{words} {stream}"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


TRAIN = "train", "moons", "--method", "ste", "--epochs", "1", "--hidden", "8"


@pytest.mark.parametrize("stream", [">&-", "2>&-", ">&- 2>&-"])
def test_work_is_done_where_a_standard_stream_is_closed(stream, tmp_path):
    done = closed(stream, *TRAIN, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in stream.split())
    assert (tmp_path / "varbnn-run" / "report.json").is_file()
    assert closed(stream, "info", "absent", folder=tmp_path).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("info",), TRAIN, ("info", "absent")], ids=" ".join)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_one_line(arguments, unbuffered, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = closed(">/dev/full", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("varbnn: cannot ")
    assert done.stderr.count("\n") == 1


def test_an_error_that_is_not_about_standard_output_is_not_passed_off_as_one(monkeypatch):
    def fail():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(about, "_installation", fail)
    with pytest.raises(OSError, match="No space left"):
        cli.main(["info"])


def test_without_a_command_the_help_is_shown(capsys):
    assert cli.main([]) == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], *([name, "--help"] for name in ("demo", "pack", "predict", "bench", "info"))],
)
def test_help_and_version_exit_with_0(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "line, said",
    [
        ("bench --batch 1000000000000000 --network 8-4 --samples 2", "choose a smaller --batch"),
        ("continual --hidden 1048576-1048576 --quiet", "not enough memory"),
        ("continual --method prior --set late=-0.1 --quiet --epochs 1", "late must be a share of the task"),
        ("continual --method prior --set late=1 --quiet --epochs 1", "late must be a share of the task"),
    ],
)
def test_numbers_no_machine_has_room_for_end_in_one_line(line, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
