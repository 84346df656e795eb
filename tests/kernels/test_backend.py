"""Who computes: chosen by what the machine can run, by VARBNN_BACKEND, by using_backend; never silently."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import varbnn
from varbnn.errors import BackendError, InputError
from varbnn.kernels import backend, backend_info, compiled, native, plain, usable_backends, using_backend

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
needs_library = pytest.mark.skipif(native.problem() is not None, reason="no compiled library")


def python(program: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VARBNN_")}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def without_library(then: str, **environment: str) -> subprocess.CompletedProcess:
    """A process in which the library is not found."""
    program = f"import pathlib; pathlib.Path.glob = lambda *_: iter(()); import varbnn; {then}"
    return python(program, **environment)


@needs_library
def test_the_best_level_of_this_machine_is_taken(monkeypatch):
    monkeypatch.delenv("VARBNN_BACKEND", raising=False)
    monkeypatch.setattr(backend, "_active", None)
    assert backend.active_backend() == usable_backends()[-1] != "reference"
    assert backend.implementation(CPU) is compiled


def test_a_backend_is_used_for_a_while_and_the_one_before_comes_back():
    before = backend.active_backend()
    for name in usable_backends():
        with using_backend(name):
            assert backend.active_backend() == backend_info().cpu == name
            assert backend.implementation(CPU) is (plain if name == "reference" else compiled)
            if name != "reference":
                assert native.library().varbnn_cpu_level() == native.LEVELS[name]
        assert backend.active_backend() == before
    with pytest.raises(ZeroDivisionError), using_backend("reference"):
        _ = 1 / 0
    assert backend.active_backend() == before


def test_an_unknown_backend_is_refused_and_nothing_changes():
    before = backend.active_backend()
    with pytest.raises(InputError, match=r"'sse9', which is unknown; this machine can use reference"):
        using_backend("sse9").__enter__()
    assert backend.active_backend() == before


@needs_library
def test_a_level_that_cannot_run_here_is_refused_with_the_reason():
    absent = [name for name in native.LEVELS if name not in usable_backends()]
    assert absent  # no machine is both x86 and ARM
    for name in absent:
        with pytest.raises(InputError, match=f"'{name}', which is (not built|not supported by this CPU); this machine"):
            using_backend(name).__enter__()


@pytest.mark.parametrize("name", usable_backends())
def test_the_environment_chooses(name, monkeypatch, recwarn):
    with using_backend(backend.active_backend()):  # which puts the level of the library back as well
        monkeypatch.setenv("VARBNN_BACKEND", name)
        monkeypatch.setattr(backend, "_active", None)
        assert varbnn.backend_info().cpu == name
        if name != "reference":
            assert native.library().varbnn_cpu_level() == native.LEVELS[name]
        assert not recwarn
        monkeypatch.undo()


def test_an_unknown_name_in_the_environment_is_an_error_at_first_use():
    done = python("import varbnn; print('imported'); varbnn.backend_info()", VARBNN_BACKEND="sse9")
    assert done.stdout.startswith("imported")
    assert "InputError: the environment variable VARBNN_BACKEND asks for the backend 'sse9'" in done.stderr


def test_a_missing_library_warns_once_and_plain_torch_computes():
    done = without_library("import varbnn.kernels.ops; print(varbnn.backend_info())")
    assert done.stderr.count("VarbnnWarning") == 1
    assert "varbnn runs without its compiled kernels, much slower: they were not built; with a C++" in done.stderr
    assert re.search("^cpu +plain torch$", done.stdout, re.MULTILINE)
    assert re.search("^problem +the compiled kernels are not used: they were not built", done.stdout, re.MULTILINE)


def test_plain_torch_that_was_asked_for_is_no_reason_to_warn():
    done = without_library("print('fine')", VARBNN_BACKEND="reference", VARBNN_STRICT="1")
    assert (done.stdout.strip(), done.stderr) == ("fine", "")


def test_strict_turns_the_warning_into_an_error():
    done = without_library("print('fine')", VARBNN_STRICT="1")
    assert done.returncode != 0
    assert "BackendError: varbnn runs without its compiled kernels" in done.stderr


def test_a_level_asked_for_without_library_is_an_error_at_first_use(monkeypatch):
    monkeypatch.setattr(native, "problem", lambda: "they were not built")
    monkeypatch.setenv("VARBNN_BACKEND", "baseline")
    monkeypatch.setattr(backend, "_active", None)
    reason = "'baseline', which is not usable without the compiled library; this machine can use reference"
    with pytest.raises(InputError, match=reason):
        backend_info()


@needs_library
def test_a_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(native, "ABI", native.ABI + 1)
    with pytest.raises(BackendError, match=rf"has interface {native.ABI - 1} where this varbnn needs {native.ABI}; "):
        native.open_library(native.library_path())


def test_a_file_that_is_no_library_is_refused(tmp_path):
    (tmp_path / "_cpu.so").write_bytes(b"not a library")
    with pytest.raises(BackendError, match=r"_cpu\.so cannot be loaded \(.*make native"):
        native.open_library(tmp_path / "_cpu.so")
    with pytest.raises(BackendError, match="they were not built"):
        native.open_library(None)


@needs_library
def test_the_information_names_levels_library_and_compiler():
    info = varbnn.backend_info()
    assert info.levels.keys() == native.LEVELS.keys()
    assert [name for name, state in info.levels.items() if state == "active"] == [info.cpu]
    assert info.levels["baseline"] in ("active", "usable")
    assert info.problem is None
    text = str(info)
    assert str(native.library_path()) in text
    assert re.search(r"^compiler +\S+.*\d", text, re.MULTILINE)
    assert all(re.search(rf"^  {name} +{state}$", text, re.MULTILINE) for name, state in info.levels.items())


@pytest.mark.parametrize("status, error", [(1, InputError), (2, MemoryError), (9, BackendError)])
def test_what_the_library_reports_is_raised(status, error):
    with pytest.raises(error):
        native.check(status, "activations")
    native.check(0, "activations")
