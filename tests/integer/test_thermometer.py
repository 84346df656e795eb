"""Codes: by hand, by comparison of the numbers themselves, and refused where inputs have no order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from varbnn.errors import CheckpointError, InputError
from varbnn.integer import Thermometer


def generator():
    return torch.Generator().manual_seed(0)


def test_thresholds_are_quantiles_of_the_distinct_values():
    column = torch.tensor([0] * 90 + list(range(10)), dtype=torch.uint8)  # mostly background
    encoder = Thermometer.fit(torch.stack([column, column * 0 + 7, column.clamp(max=1)], 1), levels=4)
    assert encoder.thresholds.tolist() == [[2, 4, 6, 8], [7, 7, 7, 7], [0, 0, 1, 1]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("levels", [1, 3, 5])
def test_codes_of_integers_say_which_thresholds_are_reached(dtype, levels):
    info = torch.iinfo(dtype)
    low, high = max(info.min, -(2**31)), min(info.max, 2**31 - 1)
    x = torch.randint(low, high + 1, (50, 3, 4), generator=generator()).to(dtype)
    encoder = Thermometer.fit(x, levels)
    codes = encoder(x)
    assert (codes.dtype, codes.shape) == (torch.int8, (50, 12 * levels))
    values = x.flatten(1).numpy().astype(np.int64)
    for feature in range(12):
        for level in range(levels):
            reached = values[:, feature] >= int(encoder.thresholds[feature, level])
            np.testing.assert_array_equal(codes[:, feature * levels + level].numpy(), np.where(reached, 1, -1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_codes_of_reals_are_those_of_their_ranks(dtype):
    x = (torch.randn(200, 5, generator=generator()) * 10.0 ** torch.arange(-2, 3)).to(dtype)
    x[0] = torch.tensor([0.0, -0.0, 1e-4, -1e-4, 0.5])
    _, ranks = zip(*(column.unique(return_inverse=True) for column in x.T), strict=True)
    encoder = Thermometer.fit(x, levels=4)
    by_rank = Thermometer.fit(torch.stack(ranks, 1), levels=4)
    assert encoder.thresholds.dtype == torch.int32
    assert torch.equal(encoder(x), by_rank(torch.stack(ranks, 1)))


def test_both_zeros_are_one_number_and_the_ends_of_float_are_in_order():
    big = torch.finfo(torch.float32).max
    x = torch.tensor([-big, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, big])[:, None]
    reached = Thermometer(Thermometer.fit(x, 6).thresholds, real=True)(x) > 0
    assert reached.sum(1).tolist() == [0, 1, 2, 3, 3, 4, 5, 6]


def test_it_is_rebuilt_from_its_thresholds():
    x = torch.randn(40, 3, generator=generator())
    encoder = Thermometer.fit(x)
    again = Thermometer(encoder.state_dict()["thresholds"], real=True)
    assert torch.equal(again(x), encoder(x))
    assert repr(again) == "Thermometer(3 features, 4 levels, real)"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_has_no_order_is_refused(value):
    x = torch.zeros(4, 3)
    encoder = Thermometer.fit(x)
    x[2, 1] = value
    for use in (encoder, Thermometer.fit):
        with pytest.raises(InputError, match="NaN or infinite entries"):
            use(x)


@pytest.mark.parametrize(
    "x, match",
    [
        (torch.zeros(4), r"numbers, N×features, got torch.float32 \(4,\)"),
        (torch.zeros(4, 3, dtype=torch.bool), "got torch.bool"),
        (torch.zeros(4, 3, dtype=torch.complex64), "got torch.complex64"),
        (torch.full((4, 3), 2**31), "inputs of torch.int64 must fit into 32 bits"),
    ],
)
def test_what_are_no_numbers_is_refused(x, match):
    for use in (Thermometer(torch.zeros(3, 2, dtype=torch.int32)), Thermometer.fit):
        with pytest.raises(InputError, match=match):
            use(x)


@pytest.mark.parametrize("value", [1e308, -4e38])
def test_finite_numbers_that_float32_does_not_hold_are_not_called_infinite(value):
    x = torch.zeros(4, 3, dtype=torch.float64)
    encoder = Thermometer.fit(x)
    x[2, 1] = value
    for use in (encoder, Thermometer.fit):
        with pytest.raises(InputError, match=r"^inputs have numbers too large for float32"):
            use(x)


def test_other_inputs_than_the_thresholds_are_refused():
    of_bytes = Thermometer.fit(torch.zeros(4, 3, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"3 features of whole numbers, got torch.uint8 \(4, 2\)"):
        of_bytes(torch.zeros(4, 2, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"of whole numbers, got torch.float32"):
        of_bytes(torch.zeros(4, 3))
    with pytest.raises(InputError, match=r"of real numbers, got torch.int64"):
        Thermometer.fit(torch.zeros(4, 3))(torch.zeros(4, 3, dtype=torch.int64))


def test_nothing_to_fit_and_bad_options_are_refused():
    for empty in (torch.zeros(0, 3), torch.zeros(3, 0)):
        with pytest.raises(InputError, match="nothing to fit thresholds to"):
            Thermometer.fit(empty)
    with pytest.raises(InputError, match="levels must be a whole number ≥ 1, got 0"):
        Thermometer.fit(torch.zeros(2, 2), 0)
    with pytest.raises(
        InputError, match=r"thresholds must be a tensor of int32, features × levels, got torch.float32 \(2, 2\)"
    ):
        Thermometer(torch.zeros(2, 2))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.int64])
def test_integers_of_every_kind_give_the_same_codes(dtype):
    values = torch.tensor([[0, 40_000], [3, 65_535], [9, 1]])
    encoder = Thermometer.fit(values.to(torch.int32), levels=2)
    assert torch.equal(encoder(values.to(dtype)), encoder(values.to(torch.int32)))


def test_numbers_of_64_bits_without_a_sign_are_refused_by_name():
    with pytest.raises(InputError, match="must fit into 32 bits"):
        Thermometer.fit(torch.tensor([[2**63 + 5, 1]], dtype=torch.uint64))


def test_thresholds_of_real_numbers_are_not_loaded_as_those_of_whole_ones():
    real, whole = Thermometer.fit(torch.rand(9, 2), levels=2), Thermometer.fit(torch.arange(18).reshape(9, 2), levels=2)
    before = whole.thresholds.clone()
    with pytest.raises(CheckpointError, match="thresholds of real numbers, this Thermometer is for whole ones"):
        whole.load_state_dict(real.state_dict())
    with pytest.raises(CheckpointError, match=r"must be torch.int32 \(2, 2\), the state has torch.float32"):
        whole.load_state_dict({**whole.state_dict(), "thresholds": torch.rand(2, 2)})
    with pytest.raises(CheckpointError, match=r"the state has torch.int32 \(2, 3\)"):
        whole.load_state_dict({**whole.state_dict(), "thresholds": torch.zeros(2, 3, dtype=torch.int32)})
    assert torch.equal(before, whole.thresholds)


def test_thresholds_of_the_caller_are_copied():
    mine = torch.tensor([[1, 2]], dtype=torch.int32)
    encoder = Thermometer(mine)
    mine.fill_(9)
    assert encoder.thresholds.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "given, match",
    [
        ([[1, 2]], "got a list"),
        (np.ones((1, 2), dtype=np.int32), "got a ndarray"),
        (None, "got a NoneType"),
        (torch.ones(1, 2, dtype=torch.int32).to_sparse(), r"got torch.sparse_coo torch.int32 \(1, 2\)"),
    ],
)
def test_what_is_no_dense_tensor_is_refused_as_what_it_is(given, match):
    for use in (Thermometer, Thermometer.fit, Thermometer(torch.ones(2, 1, dtype=torch.int32))):
        with pytest.raises(InputError, match=match):
            use(given)
