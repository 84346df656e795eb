"""Whether the CUDA kernels compute: conditions decide and are told, and nothing is loaded before it is needed."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from varbnn.errors import BackendError, VarbnnWarning
from varbnn.kernels import backend, cuda, plain
from varbnn.kernels.cuda import compile as nvrtc
from varbnn.kernels.cuda import launch

ROOT = Path(__file__).resolve().parents[3]
CUDA = torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch):
    """A machine with a Hopper GPU, a driver and NVRTC, as far as the conditions look; parts can be taken away."""
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    monkeypatch.delenv(backend.STRICT, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a GPU")
    compiler = object.__new__(nvrtc.Compiler)
    compiler.version, compiler.path = (13, 0), Path("/nvrtc")
    monkeypatch.setattr(nvrtc, "compiler", lambda: compiler)
    monkeypatch.setattr(launch, "_driver_version", lambda: (13, 0))
    for remembered in (launch.problem, backend._report_missing_kernels):
        remembered.cache_clear()
    yield monkeypatch
    for remembered in (launch.problem, backend._report_missing_kernels):
        remembered.cache_clear()


def test_with_everything_there_the_kernels_compute_and_say_so(machine):
    assert backend.implementation(CUDA) is cuda
    assert "kernels of varbnn on a GPU, compiled by NVRTC 13.0 (/nvrtc)" in str(backend.backend_info())


def _no_driver():
    raise OSError("libcuda.so.1: cannot open shared object file")


LACKS = {
    "old": (torch.cuda, "get_device_capability", lambda index: (7, 5), "7.5, the kernels need 8.0 or newer"),
    "nvrtc": (nvrtc, "compiler", lambda: "NVRTC was not found; pip install it", "NVRTC was not found"),
    "driver": (launch, "_driver_version", _no_driver, "driver library cannot be loaded: libcuda"),
    "version": (
        launch,
        "_driver_version",
        lambda: (12, 8),
        "the driver runs code of CUDA 12.8 and older, NVRTC /nvrtc is 13.0",
    ),
    "rocm": (torch.version, "hip", "6.4", "ROCm"),
    "none": (torch.cuda, "is_available", lambda: False, "torch sees no CUDA device"),
}


@pytest.mark.parametrize("what", LACKS)
def test_what_lacks_is_told_once_and_plain_torch_computes(machine, what):
    place, name, value, reason = LACKS[what]
    machine.setattr(place, name, value)
    with pytest.warns(VarbnnWarning, match="plain torch is much slower.*" + reason):
        assert backend.implementation(CUDA) is plain
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backend.implementation(CUDA) is plain
    assert f"cuda       plain torch: {launch.problem(0)}" in str(backend.backend_info())


def test_strict_makes_an_error_of_it(machine):
    machine.setenv(backend.STRICT, "1")
    machine.setattr(nvrtc, "compiler", lambda: "NVRTC was not found")
    with pytest.raises(BackendError, match="NVRTC was not found"):
        backend.implementation(CUDA)


def test_plain_torch_can_be_asked_for_silently(machine):
    machine.setenv(backend.VARIABLE, backend.REFERENCE)
    machine.setattr(nvrtc, "compiler", lambda: "NVRTC was not found")
    assert backend.implementation(CUDA) is plain
    assert backend.backend_info().cuda == "plain torch: VARBNN_BACKEND=reference asks for it"


def test_a_build_of_torch_without_cuda_is_named(monkeypatch):
    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA")
    launch.problem.cache_clear()
    assert launch.problem(None) == "this torch was built without CUDA"


def test_importing_varbnn_and_asking_for_its_backends_loads_and_compiles_nothing():
    program = (
        "import sys, warnings; warnings.simplefilter('ignore'); import varbnn\n"
        "assert not [name for name in sys.modules if name.startswith('varbnn.kernels.cuda')]\n"
        "varbnn.backend_info()\n"
        "maps = open('/proc/self/maps').read() if sys.platform == 'linux' else ''\n"
        "assert 'nvrtc' not in maps or __import__('torch').cuda.is_available()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
