"""Compiled kernels on disk: shared between processes, and never in the way."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from varbnn.kernels.cuda import cache
from varbnn.kernels.cuda import compile as nvrtc


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


def never():
    raise AssertionError("made again")


def test_what_was_made_is_kept(folder):
    assert cache.get("name", lambda: b"code") == b"code"
    assert cache.get("name", never) == b"code"
    assert cache.get("other", lambda: b"other code") == b"other code"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "folder"])
def test_a_damaged_entry_is_made_again_and_repaired(folder, damage):
    cache.get("name", lambda: b"code" * 100)
    path = folder / "name.cubin"
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        flipped = bytes([*whole[:-1], whole[-1] ^ 1])
        path.write_bytes({"cut": whole[:-7], "flipped": flipped, "empty": b"", "foreign": b"\x7fELF" * 50}[damage])
    assert cache.get("name", lambda: b"new code") == b"new code"
    if damage != "folder":
        assert cache.get("name", never) == b"new code"
    assert [path.name for path in folder.iterdir()] == ["name.cubin"], "no temporary files stay"


def test_a_folder_that_cannot_be_written_leaves_the_code_in_memory(folder, monkeypatch):
    folder.write_text("a file where the folder should be")
    assert cache.get("name", lambda: b"code") == b"code"
    assert folder.read_text() == "a file where the folder should be"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_left_alone(folder):
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert cache.get("name", lambda: b"code") == b"code"
    assert list(folder.iterdir()) == []


def test_a_folder_without_permission_leaves_the_code_in_memory(folder, monkeypatch):
    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.tempfile, "mkstemp", refused)
    assert cache.get("name", lambda: b"code") == b"code"


def test_a_full_disk_leaves_the_code_in_memory_and_no_rest(folder, monkeypatch):
    monkeypatch.setattr(cache.os, "fdopen", lambda handle, mode: _Full(handle))
    assert cache.get("name", lambda: b"code") == b"code"
    assert list(folder.iterdir()) == []


class _Full:
    """A file on a disk without room."""

    def __init__(self, handle):
        self.handle = handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.handle)

    def write(self, _):
        raise OSError(28, "No space left on device")


WRITER = """
import importlib.util, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("cache", sys.argv[1])  # without torch, which takes seconds to import
cache = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cache)
for _ in range(200):
    got = cache.get("name", lambda: sys.argv[2].encode() * 100_000)
    assert len(got) == 100_000, "half an entry"
    assert len(set(got)) == 1, "half of one entry and half of another"
    (cache.folder() / "name.cubin").unlink(missing_ok=True)
"""


def test_concurrent_writers_never_show_each_other_half_an_entry(folder):
    commands = [[sys.executable, "-c", WRITER, cache.__file__, letter] for letter in "abc"]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 3
    assert [path for path in folder.iterdir() if path.name != "name.cubin"] == []


def test_the_folder_follows_the_conventions_of_the_system(monkeypatch):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(cache.sys, "platform", "linux")
    assert cache.folder() == Path("/somewhere/varbnn")
    monkeypatch.setenv(cache.VARIABLE, "/elsewhere")
    assert cache.folder() == Path("/elsewhere")


class _Compiler:
    version = (13, 0)

    def __init__(self):
        self.compiled = []

    def architecture(self, capability):
        return "sm_90a" if capability == (9, 0) else "sm_80"

    def compile(self, source, architecture):
        self.compiled.append((source, architecture))
        return f"{source} for {architecture}".encode(), ""


def test_the_key_knows_source_headers_chip_and_compiler(folder, monkeypatch, tmp_path):
    compiler = _Compiler()
    monkeypatch.setattr(nvrtc, "compiler", lambda: compiler)
    sources = tmp_path / "src"
    sources.mkdir()
    for name in ("kernel.cu", "common.cuh"):
        (sources / name).write_text(name)
    monkeypatch.setattr(nvrtc, "SOURCES", sources)

    def count_of(capability):
        nvrtc.machine_code("kernel", capability)
        return len(compiler.compiled)

    assert [count_of((9, 0)), count_of((9, 0)), count_of((8, 0)), count_of((8, 0))] == [1, 1, 2, 2]
    (sources / "common.cuh").write_text("changed")
    assert count_of((9, 0)) == 3
    (sources / "kernel.cu").write_text("changed too")
    assert count_of((9, 0)) == 4
    compiler.version = (13, 1)
    assert count_of((9, 0)) == 5
    monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--another"))
    assert count_of((9, 0)) == 6
    assert count_of((9, 0)) == 6


def test_parts_of_a_key_are_not_run_together():
    assert cache.key("ab", "c") != cache.key("a", "bc")
