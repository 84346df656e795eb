"""One channel that lies last in memory: torch 2.13 computes such convolutions from memory that was never written."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from varbnn.bits import pack_blocks
from varbnn.kernels import ops, usable_backends, using_backend
from varbnn.kernels.products import channels_first
from varbnn.packed.layout import conv_weight


@pytest.fixture(autouse=True)
def memory_full_of_large_numbers():
    """What is freed here is what a new tensor is likely to find."""
    for size in (100, 1000, 10_000):
        del [torch.full((size,), 1e30) for _ in range(50)][:]


@pytest.mark.parametrize("backend", usable_backends())
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_output_one_place_wide_is_right(backend, dims):
    """The places where the width of the output is 1 and the stride is larger."""
    space, kernel, stride = (7, 6, 3)[-dims:], (1, 2, 3)[-dims:], (1, 1, 2)[-dims:]
    values = torch.randint(-8, 9, (1, 2, *space, 1)).float()
    signs = torch.randint(0, 2, (1, 33, *kernel)).float() * 2 - 1
    with using_backend(backend):
        found = ops.conv(
            values, pack_blocks(signs.flatten(2)), 1, 33, kernel, stride, [0] * (2 * dims), [1] * dims
        )[0]  # fmt: skip
    conv = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    expected = conv(values[0].squeeze(-1).unsqueeze(1).double(), signs[0].unsqueeze(1).double(), None, stride)
    assert found.shape[-2] == 1
    torch.testing.assert_close(found.double(), expected.movedim(1, -1), rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_move_to_the_front(channels):
    values = torch.randn(2, 3, 4, channels)
    assert torch.equal(channels_first(values), values.movedim(-1, 1))
    if channels == 1:
        assert channels_first(values).stride() == torch.empty(2, 1, 3, 4).stride()


def test_the_weights_of_a_member_have_ordinary_strides():
    signs = torch.randint(0, 2, (33, 6)).float() * 2 - 1
    assert conv_weight(pack_blocks(signs), (33, 1, 2, 3), 1).stride() == torch.empty(33, 1, 2, 3).stride()


def test_a_torch_convolution_after_a_packed_one_of_one_channel_is_right():
    binary = vb.binarize(nn.Sequential(nn.Conv2d(2, 1, 1)))
    model = nn.Sequential(binary, nn.Conv2d(1, 8, (2, 3), stride=(1, 2)))
    packed = vb.pack(model, 2)
    x = torch.randn(4, 2, 7, 3)
    for s in range(2):
        member = copy.deepcopy(packed.member(s)).double()
        torch.testing.assert_close(packed(x)[s].double(), member(x.double()), rtol=1e-4, atol=1e-4)
