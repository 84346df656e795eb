"""Convolutions and the predictive layer of the CUDA backend, run on the CPU, against their definitions."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.convolutions import Case, cases, packed_weights
from tests.kernels.cuda.cases import CONVOLUTIONS, PACKED_CONVOLUTIONS, PREDICTIONS
from tests.kernels.cuda.host import BLACKWELL
from varbnn import bits
from varbnn.kernels import cuda, plain
from varbnn.kernels.cuda import plan


def arguments(case, values):
    weight = packed_weights(case.weights(), case.groups)
    return (values, weight, *case.options(), case.scale(), case.shift(), case.activation)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=range(len(CONVOLUTIONS)))
def test_convolutions_of_whole_numbers_are_exact(host_gpu, case):
    options = arguments(case, case.integers())
    assert torch.equal(cuda.conv(*options), plain.conv(*options))


@pytest.mark.parametrize("case", PACKED_CONVOLUTIONS, ids=range(len(PACKED_CONVOLUTIONS)))
@pytest.mark.parametrize("chip", ["tensor cores", "popcount"])
def test_convolutions_of_signs_are_exact_with_zeros_outside(host_gpu, case, chip):
    if chip == "popcount":
        host_gpu.chip = BLACKWELL
    options = arguments(case, case.signs())
    assert torch.equal(cuda.conv(*options), plain.conv(*options))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), packed=st.booleans())
def test_random_convolutions_are_exact(host_gpu, case, packed):
    packed = packed and (case.groups == 1 or case.channels // case.groups % 32 == 0)
    options = arguments(case, case.signs() if packed else case.integers())
    assert torch.equal(cuda.conv(*options), plain.conv(*options))


@pytest.mark.parametrize("shares_input", [True, False])
def test_patches_that_do_not_fit_at_once_are_unfolded_piece_by_piece(host_gpu, monkeypatch, shares_input):
    monkeypatch.setattr(plan, "images_at_once", lambda *size: 2)
    case = Case(2, shares_input, 5, 32, 20, (4, 4), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "sign")
    options = arguments(case, case.signs())
    assert torch.equal(cuda.conv(*options), plain.conv(*options))
    assert host_gpu.ran.count("unfold_bits") == (3 if shares_input else 6)


def test_convolutions_of_real_numbers_are_as_good_as_float32(host_gpu):
    case = CONVOLUTIONS[1]
    options = arguments(case, case.reals())
    torch.testing.assert_close(cuda.conv(*options), plain.conv(*options), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("samples, rows, outputs, inputs", PREDICTIONS)
@pytest.mark.parametrize("kind", ["real", "packed"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_predictions_are_the_average_over_the_networks(host_gpu, samples, rows, outputs, inputs, kind, shared):
    weight = bits.pack_blocks(bits.sign(torch.randn(samples, outputs, inputs)))
    values = torch.randn(1 if shared else samples, rows, inputs)
    if kind == "packed":
        values = bits.pack(bits.sign(values))
    scale, shift = torch.rand(1, outputs) / math.sqrt(inputs) * 3, torch.randn(samples, outputs)
    options = (values, weight, inputs, outputs, scale, shift)
    for got, expected in zip(cuda.predictive(*options), plain.predictive(*options), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-7)


def test_sure_predictions_have_no_entropy_and_nan_shows(host_gpu):
    weight = bits.pack_blocks(torch.tensor([[[1.0], [-1.0]]]))
    mean, entropy = cuda.predictive(torch.tensor([[[1e5], [math.nan], [0.0]]]), weight, 1, 2, None, None)
    assert mean[0].tolist() == [1.0, 0.0]
    assert entropy[0].item() == 0.0
    assert mean[1].isnan().all()
    assert entropy[1].isnan()
    assert mean[2].tolist() == [0.5, 0.5]
    impossible = torch.tensor([[0.0, -math.inf]])
    mean, entropy = cuda.predictive(torch.zeros(1, 1, 1), weight, 1, 2, None, impossible)
    assert (mean.tolist(), entropy.tolist()) == ([[1.0, 0.0]], [0.0])


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_samples_may_be_dealt_out_to_any_number_of_blocks(host_gpu, monkeypatch, parts):
    choose = plan.predictive
    monkeypatch.setattr(
        plan,
        "predictive",
        lambda *size: plan.Launch("predictive_4", (2, parts), choose(*size).shared),
    )
    weight = bits.pack_blocks(bits.sign(torch.randn(5, 4, 100)))
    options = (torch.randn(1, 13, 100) / 10, weight, 100, 4, None, None)
    for got, expected in zip(cuda.predictive(*options), plain.predictive(*options), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-7)
