"""The bit convention: which bit is +1, which word it is in, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from varbnn import bits
from varbnn.errors import InputError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=2), st.integers(0, 130), st.integers(0, 2**32 - 1))
def test_unpack_undoes_pack_for_every_shape(leading, length, seed):
    rng = np.random.default_rng(seed)
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], size=(*leading, length)))
    packed = bits.pack(signs)
    assert packed.dtype == torch.int32
    assert packed.shape == (*leading, -(-length // 32))
    assert torch.equal(bits.unpack(packed, length, torch.float64), signs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_input_32j_plus_i_is_bit_i_of_word_j_and_the_rest_is_zero(up):
    packed = bits.pack(torch.tensor([1.0 if u else -1.0 for u in up]))
    words = [0] * -(-len(up) // 32)
    for index, u in enumerate(up):
        words[index // 32] |= u << (index % 32)
    assert [w % 2**32 for w in packed.tolist()] == words


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype_packs_and_comes_back(dtype):
    signs = torch.tensor([1, -1, -1, 1], dtype=dtype)
    assert torch.equal(bits.unpack(bits.pack(signs), 4, dtype), signs)


def test_a_view_with_strides_packs_like_its_copy():
    signs = bits.sign(torch.randn(40, 6)).T
    assert torch.equal(bits.pack(signs), bits.pack(signs.contiguous()))
    packed = bits.pack(bits.sign(torch.randn(4, 70)))
    assert torch.equal(bits.unpack(packed.T.contiguous().T, 70), bits.unpack(packed, 70))


@pytest.mark.parametrize("bad", [0.0, 0.5, 2.0, float("nan"), float("inf")])
def test_what_is_not_a_sign_is_refused(bad):
    with pytest.raises(InputError, match=r"\+1 or -1"):
        bits.pack(torch.tensor([1.0, bad]))


def test_a_scalar_a_wrong_dtype_and_a_wrong_number_of_words_are_refused():
    with pytest.raises(InputError, match="scalar"):
        bits.pack(torch.tensor(1.0))
    with pytest.raises(InputError, match="int32"):
        bits.unpack(torch.zeros(1, dtype=torch.int64), 3)
    for length in (0, 33, 65):
        with pytest.raises(InputError, match="words"):
            bits.unpack(torch.zeros(1, dtype=torch.int32), length) if length != 33 else bits.unpack(
                torch.zeros(3, dtype=torch.int32), length
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 4, 7, 33, 257], ids=str)  # scalar tails and vector bodies of the CPU kernels
def test_sign_puts_both_zeros_up_and_keeps_nan(dtype, length):
    for value, expected in ((0.0, 1.0), (-0.0, 1.0), (-1e-5, -1.0), (3.0, 1.0), (torch.inf, 1.0), (-torch.inf, -1.0)):
        assert bits.sign(torch.full((length,), value, dtype=dtype)).unique().tolist() == [expected]
    assert bool(bits.sign(torch.full((length,), torch.nan, dtype=dtype)).isnan().all())


def test_sign_leaves_its_argument_alone():
    values = torch.tensor([-2.0, 0.0])
    bits.sign(values)
    assert values.tolist() == [-2.0, 0.0]
