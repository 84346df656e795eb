"""How the driver is called, by a stand-in compiled from C++ with the driver's prototypes."""

import ctypes
import subprocess
from types import SimpleNamespace

import pytest
import torch

from tests.kernels.cuda import host
from varbnn.errors import BackendError
from varbnn.kernels.cuda import compile as nvrtc
from varbnn.kernels.cuda import launch
from varbnn.kernels.cuda.arguments import Signs
from varbnn.kernels.cuda.plan import Chip, Launch

STREAM = 0x7F0123456780  # wider than 32 bits, as addresses are
WORDS, VALUES = 0x7FFF00000010, 0x7EEE00000020


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if host.COMPILER is None:
        pytest.skip("THE CALLS OF THE DRIVER ARE NOT TESTED: g++ was not found")
    path = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = str(host.SHIM / "driver.cpp")
    subprocess.run([host.COMPILER, "-shared", "-fPIC", "-std=c++17", source, "-o", str(path)], check=True)
    loaded = ctypes.CDLL(str(path))
    loaded.recorded.restype = ctypes.c_char_p
    return loaded


@pytest.fixture
def driver(library, monkeypatch):
    library.forget()
    library.let_launches_fail(0)
    monkeypatch.setattr(launch, "_driver", lambda: library)
    properties = SimpleNamespace(major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=STREAM + index))
    monkeypatch.setattr(
        nvrtc, "machine_code", lambda source, capability: f"{source[:3]} {capability[0]}.{capability[1]}".encode()
    )
    return library


def calls(driver):
    lines = driver.recorded().decode().splitlines()
    driver.forget()
    return lines


def test_a_kernel_is_loaded_once_and_started_on_the_stream_of_its_device(driver):
    gpu = launch.Gpu(2)
    assert gpu.chip == Chip((9, 0), 132)
    assert calls(driver) == ["init 0", "retain 42"]
    arguments = Signs(values=VALUES, words=WORDS)
    gpu.run(Launch("pack_signs", (2**31 - 1, 3), 40), arguments)
    started = f"launch (2147483647 3 1) (256 1 1) 40 on {hex(STREAM + 2)}: {VALUES:x} {WORDS:x}"
    assert calls(driver) == ["load sig 9.0", "function pack_signs", started]
    gpu.run(Launch("pack_signs", (2**31 - 1, 3), 40), arguments)
    assert calls(driver) == [started]
    gpu.run(Launch("unfold_bits", (1, 1)), arguments)
    assert calls(driver)[0] == "function unfold_bits", "of the module that is there"
    assert driver.contexts_pushed() == 0


def test_much_shared_memory_is_asked_for_before_the_first_launch(driver):
    gpu = launch.Gpu(0)
    calls(driver)
    gpu.run(Launch("real_conv_128", (1, 1), 52_224), Signs())
    assert calls(driver)[1:3] == ["function real_conv_128", "attribute 8 = 52224"]


def test_a_failure_is_told_in_the_drivers_words_and_leaves_no_context_behind(driver):
    gpu = launch.Gpu(0)
    driver.let_launches_fail(1)
    with pytest.raises(BackendError, match="cuLaunchKernel failed: unspecified launch failure"):
        gpu.run(Launch("pack_signs", (1, 1)), Signs())
    assert driver.contexts_pushed() == 0


def test_the_default_stream_is_null(driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=0))
    gpu = launch.Gpu(0)
    gpu.run(Launch("pack_signs", (1, 1)), Signs())
    assert " on (nil): " in calls(driver)[-1]


def test_the_version_of_the_driver_is_read(driver):
    assert launch._driver_version() == (13, 2)
