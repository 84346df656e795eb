"""The CUDA driver through ctypes: modules in the context that torch uses, kernels started on torch's stream."""

from __future__ import annotations

import ctypes
import sys
import threading
from ctypes import byref, c_char_p, c_int, c_uint, c_void_p
from functools import cache
from typing import Any

import torch

from varbnn.errors import BackendError
from varbnn.kernels.cuda import compile as nvrtc
from varbnn.kernels.cuda.plan import Chip, Launch

OLDEST = (8, 0)
"""Compute capability of the oldest GPU that has all the instructions."""

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_WITHOUT_ASKING = 48 * 1024


@cache
def _driver() -> ctypes.CDLL:
    """The driver library, which torch has loaded already.

    Raises:
        OSError: there is none.
    """
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_driver(), name)(*arguments)
    if status != 0:
        text = c_char_p()
        _driver().cuGetErrorString(status, byref(text))
        raise BackendError(f"{name} failed: {text.value.decode() if text.value else f'error {status}'}")


def _driver_version() -> tuple[int, int]:
    """The newest CUDA whose machine code the driver loads; newer minor versions of the same major one count as that."""
    version = c_int()
    _call("cuDriverGetVersion", byref(version))
    return version.value // 1000, version.value % 1000 // 10


class Gpu:
    """One CUDA device: what it is, and its loaded kernels."""

    def __init__(self, index: int) -> None:
        properties = torch.cuda.get_device_properties(index)
        self.index = index
        self.chip = Chip((properties.major, properties.minor), properties.multi_processor_count)
        self._functions: dict[str, c_void_p] = {}
        self._modules: dict[str, c_void_p] = {}
        self._lock = threading.Lock()
        device = c_int()
        self._context = c_void_p()
        _call("cuInit", 0)
        _call("cuDeviceGet", byref(device), index)
        _call("cuDevicePrimaryCtxRetain", byref(self._context), device)

    def run(self, launch: Launch, arguments: ctypes.Structure) -> None:
        """Start a kernel on torch's current stream of this device, and do not wait for it.

        Raises:
            BackendError: it cannot be compiled, loaded or started.
        """
        _call("cuCtxPushCurrent_v2", self._context)
        try:
            function = self._functions.get(launch.kernel) or self._load(launch)
            pointers = (c_void_p * 1)(ctypes.addressof(arguments))
            stream = torch.cuda.current_stream(self.index).cuda_stream
            shape = (*launch.grid, 1, launch.threads, 1, 1, launch.shared)
            _call("cuLaunchKernel", function, *map(c_uint, shape), c_void_p(stream), pointers, None)
        finally:
            _call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def _load(self, launch: Launch) -> c_void_p:
        with self._lock:
            module = self._modules.get(launch.source)
            if module is None:
                code = nvrtc.machine_code(launch.source, self.chip.capability)
                module = c_void_p()
                _call("cuModuleLoadData", byref(module), code)
                self._modules[launch.source] = module
            function = c_void_p()
            _call("cuModuleGetFunction", byref(function), module, launch.kernel.encode())
            if launch.shared > _WITHOUT_ASKING:
                _call("cuFuncSetAttribute", function, c_int(_MAX_DYNAMIC_SHARED), c_int(launch.shared))
            self._functions[launch.kernel] = function
            return function


@cache
def _gpu(index: int) -> Gpu:
    return Gpu(index)


def gpu(device: torch.device) -> Gpu:
    """The device of a tensor."""
    return _gpu(torch.cuda.current_device() if device.index is None else device.index)


@cache
def problem(index: int | None) -> str | None:
    """Why the kernels cannot run on CUDA device `index` (None: the current one); None where they can."""
    if not torch.cuda.is_available():
        return "this torch was built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
    if torch.version.hip is not None:
        return "this is ROCm, not CUDA"
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, the kernels need 8.0 or newer"
    found = nvrtc.compiler()
    if isinstance(found, str):
        return found
    try:
        newest = _driver_version()
    except OSError as error:
        return f"the CUDA driver library cannot be loaded: {error}"
    if found.version[0] > newest[0]:
        return (
            f"the driver runs code of CUDA {newest[0]}.{newest[1]} and older, NVRTC {found.path} is "
            f"{found.version[0]}.{found.version[1]}; update the driver or install an NVRTC of its version"
        )
    return None


def state() -> str:
    """One line for `varbnn.backend_info`."""
    reason = problem(None)
    if reason is not None:
        return f"plain torch: {reason}"
    found = nvrtc.compiler()
    assert isinstance(found, nvrtc.Compiler)
    name = torch.cuda.get_device_name(None)
    return f"kernels of varbnn on {name}, compiled by NVRTC {found.version[0]}.{found.version[1]} ({found.path})"
