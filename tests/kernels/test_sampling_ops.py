"""Signs drawn by the compiled levels, against their definition in plain torch: equal to the bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tolerance import assert_within_standard_errors
from varbnn.bits import unpack_blocks
from varbnn.errors import InputError
from varbnn.kernels import checks, ops, philox, plain, using_backend
from varbnn.kernels.backend import REFERENCE, usable_backends

LEVELS = [name for name in usable_backends() if name != REFERENCE]
SEED = torch.tensor(-123_456_789_123_456_789)
EXTREMES = torch.tensor([math.inf, -math.inf, 50.0, -50.0, 1e-40, -1e-40, 0.0, -0.0, 3e38, 12.0, -12.0, 11.09, -11.09])

pytestmark = pytest.mark.skipif(not LEVELS, reason="no compiled library")


@pytest.fixture(params=LEVELS)
def level(request):
    with using_backend(request.param):
        yield request.param


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def beliefs(outputs: int, inputs: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(outputs * 10_000 + inputs)
    natural = torch.randn(outputs, inputs, generator=generator) * scale
    flat = natural.view(-1)
    some = min(len(EXTREMES), len(flat) // 2)
    flat[torch.randperm(len(flat), generator=generator)[:some]] = EXTREMES[:some]
    return natural


@settings(max_examples=25, deadline=None)
@given(
    outputs=st.integers(1, 40),
    inputs=st.one_of(st.integers(1, 300), st.sampled_from([127, 128, 129, 255, 256, 257])),
    scale=st.sampled_from([0.01, 1.0, 10.0]),
    layer=st.sampled_from([0, 5, 2**31 - 1]),
    sample=st.sampled_from([0, 7, 2**32 - 3]),
)
def test_samples_and_draws_of_every_level_are_the_definition(outputs, inputs, scale, layer, sample):
    natural = beliefs(outputs, inputs, scale)
    blocks = plain.sample_blocks(natural, SEED, layer, sample, 3)
    signs = plain.draw(natural, SEED, layer, sample)
    for name in LEVELS:
        with using_backend(name):
            assert torch.equal(ops.sample_blocks(natural, SEED, layer, sample, 3), blocks), name
            assert torch.equal(ops.draw(natural, SEED, layer, sample), signs), name


def test_threads_change_nothing(level, two_threads):
    natural = beliefs(400, 1000)  # enough work for both
    assert torch.equal(ops.sample_blocks(natural, SEED, 1, 4, 2), plain.sample_blocks(natural, SEED, 1, 4, 2))
    assert torch.equal(ops.draw(natural, SEED, 1, 4), plain.draw(natural, SEED, 1, 4))


def test_any_part_of_the_samples_reproduces(level):
    natural = beliefs(33, 200)
    all_samples = ops.sample_blocks(natural, SEED, 0, 10, 6)
    assert torch.equal(ops.sample_blocks(natural, SEED, 0, 12, 3), all_samples[2:5])
    assert torch.equal(ops.draw(natural, SEED, 0, 14), unpack_blocks(all_samples[4], 33, 200))
    assert ops.sample_blocks(natural, SEED, 0, 10, 0).shape == (0, 3, 7, 16)


def test_weights_whose_upper_halves_tie_are_settled_by_the_lower_ones(level):
    """Beliefs made so that the random upper half equals the threshold's: here the second stream decides."""
    outputs, inputs = 32, 256
    counters = torch.arange(inputs // 128 * 16)
    rows = torch.arange(outputs).unsqueeze(1)
    key = (int(SEED) & philox.LOW, (int(SEED) >> 32) & philox.LOW)
    upper = philox._halves(philox.philox((counters, rows, torch.tensor(3), torch.tensor(1)), key))
    chance = (upper.double() + 0.5) / 2**16  # the middle of what has this upper half
    natural = (torch.log1p(-chance) - torch.log(chance)).div(2).float()
    ties = (philox.thresholds(natural) >> 16) == upper
    assert int(ties.sum()) > 8_000  # nearly all of 8192
    signs = ops.draw(natural, SEED, 1, 3)
    assert torch.equal(signs, plain.draw(natural, SEED, 1, 3))
    assert 0.4 < float((signs[ties] > 0).double().mean()) < 0.6  # the lower halves decide, and differ
    assert torch.equal(ops.sample_blocks(natural, SEED, 1, 3, 1), plain.sample_blocks(natural, SEED, 1, 3, 1))


def test_sure_weights_never_flip(level):
    natural = torch.tensor([[math.inf, -math.inf, 50.0, -50.0]]).repeat(64, 512)
    for sample in range(4):
        assert torch.equal(ops.draw(natural, SEED, 0, sample), torch.sign(natural))


def test_the_law_of_the_signs(level):
    natural = torch.linspace(-3, 3, 256).repeat(16, 1)
    draws = unpack_blocks(ops.sample_blocks(natural, SEED, 0, 0, 2_000), 16, 256)
    mean = np.tanh(natural.double().numpy())
    assert_within_standard_errors(draws.double().mean(0), mean, np.sqrt((1 - mean**2) / 2_000), z=6)


def test_nan_beliefs_are_refused_as_bits_and_kept_as_floats(level):
    natural = torch.zeros(20, 150)
    natural[17, 140] = math.nan
    with pytest.raises(InputError, match="NaN"):
        ops.sample_blocks(natural, SEED, 0, 0, 1)
    signs = ops.draw(natural, SEED, 0, 0)
    assert signs.isnan().nonzero().tolist() == [[17, 140]]
    expected = plain.draw(torch.zeros(20, 150), SEED, 0, 0)
    assert torch.equal(signs[~natural.isnan()], expected[~natural.isnan()])


def test_dimensions_beyond_what_the_backends_count_are_refused():
    """They count those of one dimension in 32 bits; on the meta device nothing is allocated."""
    rows = torch.empty(1, 2**31 + 64, device="meta")
    with pytest.raises(InputError, match="too large"):
        checks.signs(rows)
    seed = torch.empty((), dtype=torch.int64, device="meta")
    for natural in (rows, rows.T):
        with pytest.raises(InputError, match="too large"):
            checks.sampling(natural, seed, 0, 0, 1)
    taps = torch.empty(1, 1, 1, 2**16, 2**16, device="meta")
    weight = torch.empty(1, 1, 1, 16, dtype=torch.int32, device="meta")
    with pytest.raises(InputError, match="too many"):
        checks.product("conv", taps, weight, 2**16, 1, [1, 2**16], [1, 1], [0] * 4, [1, 1], 1, None, None, "none")
