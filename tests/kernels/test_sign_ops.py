"""Packing signs and products of packed signs by the compiled levels: whole numbers, so equal to plain torch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from varbnn.bits import pack_blocks, unpack
from varbnn.errors import InputError
from varbnn.kernels import ops, plain, using_backend
from varbnn.kernels.backend import REFERENCE, usable_backends

LEVELS = [name for name in usable_backends() if name != REFERENCE]

pytestmark = pytest.mark.skipif(not LEVELS, reason="no compiled library")


@pytest.fixture(params=LEVELS)
def level(request):
    with using_backend(request.param):
        yield request.param


def signs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)).mul_(2).sub_(1).float()


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 6),
    inputs=st.one_of(st.integers(1, 100), st.sampled_from([255, 256, 257, 545])),
    outputs=st.integers(1, 70),
    samples=st.integers(1, 3),
    own=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    activation=st.sampled_from(["none", "relu", "sign"]),
    finish=st.sampled_from(["", "scale", "shift", "both"]),
)
def test_products_of_every_level_are_the_definition(rows, inputs, outputs, samples, own, activation, finish):
    def count(whose: int) -> int:
        return samples if own[whose] else 1

    generator = torch.Generator().manual_seed(inputs)
    weight = pack_blocks(signs(samples, outputs, inputs))
    values = plain.pack_signs(signs(count(0), rows, inputs, seed=1))[0]
    scale = torch.randn(count(1), outputs, generator=generator) if finish in ("scale", "both") else None
    shift = torch.randn(count(2), outputs, generator=generator) if finish in ("shift", "both") else None
    arguments = (values, weight, inputs, outputs, scale, shift, activation)
    with using_backend(REFERENCE):
        expected = ops.linear(*arguments)
    for name in LEVELS:
        with using_backend(name):
            assert torch.equal(ops.linear(*arguments), expected), name


def test_threads_change_nothing(level):
    before = torch.get_num_threads()
    weight, values = pack_blocks(signs(2, 300, 1000)), plain.pack_signs(signs(2, 70, 1000, seed=1))[0]
    try:
        torch.set_num_threads(2)
        for activation in ("none", "sign"):
            expected = plain.linear(values, weight, 1000, 300, None, None, activation)
            assert torch.equal(ops.linear(values, weight, 1000, 300, None, None, activation), expected)
    finally:
        torch.set_num_threads(before)


def test_a_sum_of_zero_has_the_sign_plus_and_nan_none(level):
    weight, values = pack_blocks(torch.tensor([[[1.0, 1.0]]])), plain.pack_signs(torch.tensor([[[1.0, -1.0]]]))[0]
    assert ops.linear(values, weight, 2, 1, activation="sign").item() == 1
    nan = torch.tensor([[math.nan]])
    with pytest.raises(InputError, match="NaN"):
        ops.linear(values, weight, 2, 1, nan, None, "sign")
    for activation in ("none", "relu"):
        assert ops.linear(values, weight, 2, 1, nan, None, activation).isnan().all()


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 5), length=st.integers(1, 200), scale=st.sampled_from([1e-45, 1.0, math.inf]))
def test_packing_of_every_level_is_the_definition(rows, length, scale):
    values = signs(rows, length) * scale
    values[..., ::3] = torch.tensor([0.0, -0.0, -1.0, 1e-45]).repeat(length)[: len(values[..., ::3].T)]
    expected = plain.pack_signs(values)
    assert torch.equal(unpack(expected[0], length) > 0, values >= 0)
    for name in LEVELS:
        with using_backend(name):
            for found, wanted in zip(ops.pack_signs(values), expected, strict=True):
                assert found.shape == wanted.shape
                assert torch.equal(found, wanted), name


def test_packing_takes_any_shape_and_refuses_nan_wherever_it_is(level):
    values = signs(2, 3, 45)
    assert torch.equal(ops.pack_signs(values)[1], plain.pack_signs(values)[1])
    assert ops.pack_signs(values[0, 0])[1].shape == ()
    for place in ((0, 0, 0), (1, 2, 44)):
        broken = values.clone()
        broken[place] = math.nan
        with pytest.raises(InputError, match="NaN"):
            ops.pack_signs(broken)
