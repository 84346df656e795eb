"""A GPU that is a CPU: what the CUDA operations launch runs as fibers."""

import pytest

from tests.kernels.cuda import host
from varbnn.kernels.cuda import convolution, prediction, products, sampling


@pytest.fixture
def host_gpu(monkeypatch, request):
    """Lets the CUDA operations take CPU tensors; gives the stand-in for the device."""
    if host.COMPILER is None:
        pytest.skip("THE CUDA KERNELS ARE NOT TESTED: g++, which compiles them for the CPU, was not found")
    gpu = host.HostGpu(request.config.cache.mkdir("varbnn-host"))
    for module in (convolution, prediction, products, sampling):
        monkeypatch.setattr(module, "gpu", lambda device: gpu)
    return gpu
