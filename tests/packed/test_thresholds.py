"""Signs behind batch norm turn where torch's batch norm turns them, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.packed.models import seeded
from varbnn.kernels import usable_backends, using_backend
from varbnn.nn import Sign
from varbnn.packed.steps import Affine
from varbnn.packed.thresholds import thresholds
from varbnn.packed.trace import Plan, batchnorm


def compared(scale: torch.Tensor, shift: torch.Tensor) -> Affine:
    """The step with its thresholds."""
    step = Affine(scale, shift, "sign")
    thresholds(Plan([step], [(0,)], 1))
    return step


@pytest.mark.parametrize("networks", [1, 3])
def test_the_sign_is_that_of_batch_norm_at_every_float_around_the_edge(networks):
    width, draw = 500, seeded()
    mean = torch.randint(-40, 40, (networks, width), generator=draw).float()
    scale = torch.randn(networks, width, generator=draw)
    shift = torch.stack([
        F.batch_norm(torch.zeros(1, width), m, torch.ones(width), s, None, eps=0.0)[0]
        for m, s in zip(mean, scale, strict=True)
    ])  # fmt: skip
    step = compared(scale.clone(), shift.clone())
    assert step.scale is not None
    assert bool(((step.scale == scale.sign()) | (mean == 0)).all())  # around 0 nothing is rounded
    edge, rows = mean.clone(), [mean]
    for _ in range(20):
        edge = torch.nextafter(edge, torch.tensor(torch.inf))
        rows += [edge, 2 * mean - edge]
    x = torch.stack(rows, 1).reshape(-1, width)  # the rows of network 0, then of network 1, …
    expected = torch.cat([
        F.batch_norm(part, torch.zeros(width), torch.ones(width), s, t, eps=0.0)
        for part, s, t in zip(x.chunk(networks), scale, shift, strict=True)
    ])  # fmt: skip
    assert torch.equal(step(x), torch.where(expected >= 0, 1.0, -1.0))


@pytest.mark.parametrize("affine", [True, False])
def test_scale_and_shift_are_those_of_torch_for_any_statistics(affine):
    """The root that torch takes of a tensor is not rounded as the one in its batch norm."""
    width, draw = 1000, seeded()
    norm = nn.BatchNorm1d(width, affine=affine, eps=1e-3).eval()
    norm.running_mean = torch.randn(width, generator=draw)
    norm.running_var = torch.rand(width, generator=draw) * 1000
    if affine:
        nn.init.normal_(norm.weight, generator=draw)
        nn.init.normal_(norm.bias, generator=draw)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    step = batchnorm(norm, (norm.running_mean[None], norm.running_var[None]), "norm")
    assert step.scale is not None
    assert step.shift is not None
    scale = np.float32(1) / np.sqrt(norm.running_var.numpy() + np.float32(norm.eps))  # each step rounded as IEEE says
    if affine:
        scale = scale * norm.weight.detach().numpy()
    assert torch.equal(step.scale[0], torch.from_numpy(scale))
    assert torch.equal(step.shift, norm(torch.zeros(1, width)))


def test_what_never_turns_stays_as_it_is():
    scale = torch.tensor([[0.0, -0.0, 1e-40, 2.0, 3.0]])
    shift = torch.tensor([[-1.0, 2.0, 1.0, torch.inf, 0.0]])
    step = compared(scale, shift)
    x = torch.tensor([[-5.0, 4.0, 3.0, -7.0, 0.0]])
    assert step(x).tolist() == [[-1.0, 1.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize("backend", usable_backends())
@pytest.mark.parametrize("inputs", range(1, 41, 3))
def test_a_unit_that_never_changes_is_what_torch_says_it_is(inputs, backend):
    """Its sum is its mean: what the batch norm gives there is rounding alone."""
    model = nn.Sequential(
        nn.Linear(inputs, 1, bias=False), nn.BatchNorm1d(1, affine=False), Sign(), nn.Linear(1, 2, bias=False)
    )
    model = vb.binarize(model, skip=()).eval()
    for layer in (model[0], model[3]):
        nn.init.constant_(layer.natural, 20.0)
    x = torch.ones(50, inputs)
    vb.refresh_batchnorm(model, x)
    with using_backend(backend):
        assert torch.equal(vb.pack(model, 0, refresh_bn=x)(x)[0], model(x))


@pytest.mark.parametrize("pool", ["before", "after", "none"])
@pytest.mark.parametrize("seed", range(4))
def test_images_of_whole_numbers_give_the_float_networks_answers_to_the_bit(seed, pool):
    torch.manual_seed(seed)
    norm, pooling = nn.BatchNorm2d(8), nn.MaxPool2d(2)
    nn.init.normal_(norm.weight)
    middle = {"before": [pooling, norm, Sign()], "after": [norm, Sign(), pooling], "none": [norm, Sign()]}
    side = 4 if pool == "none" else 2
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), *middle[pool], nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(16), Sign(), nn.Flatten(), nn.Linear(16 * side * side, 32, bias=False),
        nn.BatchNorm1d(32, affine=False), Sign(), nn.Linear(32, 10, bias=False),
    )  # fmt: skip
    model = vb.binarize(model, skip=()).eval()
    x = torch.randint(17, (300, 1, 8, 8), generator=seeded(seed)).float()
    x[:, :, :, :3] = 0  # borders that never change, as of digits: units that are their mean
    vb.refresh_batchnorm(model, x[:100])
    with torch.no_grad():
        assert torch.equal(vb.pack(model, 0)(x)[0], model(x))
