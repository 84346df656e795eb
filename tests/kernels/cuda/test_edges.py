"""No kernel reads before or behind a tensor: each input lies against a page of memory that nobody may touch.

A kernel that does ends the process with a segmentation fault; on a GPU it would usually go unseen.
"""

import ctypes
import mmap
import sys

import pytest
import torch

from tests.kernels.convolutions import packed_weights
from tests.kernels.cuda import cases
from varbnn.kernels import cuda, plain

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pages are forbidden by mprotect")

KEPT = []  # memory that tensors use


def against_a_wall(tensor, side):
    """The same numbers, with a forbidden page right before or right behind them."""
    if not isinstance(tensor, torch.Tensor):
        return tensor
    page = mmap.PAGESIZE
    size = -(-tensor.nbytes // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for wall in (start, start + page + size):
        assert libc.mprotect(ctypes.c_void_p(wall), ctypes.c_size_t(page), 0) == 0
    offset = page if side == "before" else page + size - tensor.nbytes
    moved = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset).view(tensor.shape)
    KEPT.append(memory)
    return moved.copy_(tensor)


@pytest.fixture(params=["before", "behind"])
def same(request, host_gpu):
    """Calls an operation with its inputs against a wall; it must give what it gives elsewhere, which it returns."""

    def call(name, *arguments):
        got = getattr(cuda, name)(*(against_a_wall(given, request.param) for given in arguments))
        expected = getattr(cuda, name)(*arguments)
        for one, other in zip(*([x] if isinstance(x, torch.Tensor) else x for x in (got, expected)), strict=True):
            assert torch.equal(one, other)

    return call


@pytest.mark.parametrize("samples, rows, outputs, inputs", [cases.BITS[i] for i in (0, 1, 3, 4, 5, 8)])
def test_products_stay_inside(same, samples, rows, outputs, inputs):
    weight, values = cases.weights(samples, outputs, inputs), torch.randn(samples, rows, inputs)
    scale, shift = torch.rand(1, outputs), torch.randn(samples, outputs)
    options = (inputs, outputs, scale, shift)
    same("linear", values, weight, *options, "relu")
    same("linear", plain.pack_signs(values)[0], weight, *options, "sign")
    same("linear_int8", values, weight, *options, "none")
    same("predictive", values, weight, *options)
    same("predictive", plain.pack_signs(values)[0], weight, *options)


@pytest.mark.parametrize("outputs, inputs", [(1, 1), (17, 129), (16, 128), (5, 31)])
def test_sampling_stays_inside(same, outputs, inputs):
    natural, seed = torch.randn(outputs, inputs), torch.tensor([7])
    same("sample_blocks", natural, seed, 0, 0, 3)
    same("draw", natural, seed, 0, 0)
    same("pack_signs", natural)


@pytest.mark.parametrize("case", cases.CONVOLUTIONS, ids=range(len(cases.CONVOLUTIONS)))
def test_convolutions_stay_inside(same, case):
    weight, rest = packed_weights(case.weights(), case.groups), (case.scale(), case.shift(), case.activation)
    same("conv", case.reals(), weight, *case.options(), *rest)
    if case in cases.PACKED_CONVOLUTIONS:
        same("conv", case.signs(), weight, *case.options(), *rest)
