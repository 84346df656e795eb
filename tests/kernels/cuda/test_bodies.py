"""The bodies of the CUDA kernels, run on the CPU, against the definitions in plain torch."""

import math

import numpy as np
import pytest
import torch

from tests.kernels.cuda.cases import BITS, REAL, assert_close, epilogues, signs, weights
from tests.kernels.cuda.host import BLACKWELL
from varbnn.kernels import cuda, plain
from varbnn.kernels.cuda import plan, products

# --- sampling ---

BELIEFS = torch.tensor([math.inf, -math.inf, 0.0, -0.0, 12.0, -12.0, 11.0, -11.0, 1e-30, 0.3, -0.3, 5.0, -5.0])


@pytest.mark.parametrize("outputs, inputs, samples", [(1, 1, 1), (3, 40, 9), (17, 129, 2), (33, 300, 17), (16, 128, 8)])
def test_samples_are_the_defined_bits(host_gpu, outputs, inputs, samples):
    natural = torch.randn(outputs, inputs)
    natural.flatten()[: len(BELIEFS)] = BELIEFS[: natural.numel()]
    seed = torch.tensor([-(2**40) - 12345])
    for layer, first in ((0, 0), (2**31 - 1, 2**32 - samples)):
        expected = plain.sample_blocks(natural, seed, layer, first, samples)
        assert torch.equal(cuda.sample_blocks(natural, seed, layer, first, samples), expected)


def test_ties_of_the_upper_halves_are_broken_by_the_lower(host_gpu):
    """An upper half equals that of its threshold once in 65,536 weights."""
    natural = torch.linspace(-1, 1, 48).unsqueeze(1).expand(-1, 25_600).contiguous()
    assert torch.equal(cuda.draw(natural, torch.tensor(5), 1, 2), plain.draw(natural, torch.tensor(5), 1, 2))


def test_draws_are_the_defined_signs_and_nan_draws_nan(host_gpu):
    natural = torch.randn(19, 261)
    natural[3, 7] = math.nan
    drawn, expected = (module.draw(natural, torch.tensor(11), 3, 4) for module in (cuda, plain))
    assert torch.equal(drawn.nan_to_num(9), expected.nan_to_num(9))
    assert drawn.isnan().sum() == 1


@pytest.mark.parametrize("shape", [(1,), (5, 31), (2, 3, 32), (9, 1025), (17, 2049)])
def test_signs_are_packed_and_counted(host_gpu, shape):
    values = torch.randn(shape)
    values.flatten()[0] = -0.0
    for got, expected in zip(cuda.pack_signs(values), plain.pack_signs(values), strict=True):
        assert torch.equal(got, expected)


# --- packed signs ---


@pytest.mark.parametrize("samples, rows, outputs, inputs", BITS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_products_of_signs_are_exact(host_gpu, samples, rows, outputs, inputs, shared):
    weight, values = weights(samples, outputs, inputs), signs(1 if shared else samples, rows, inputs)
    for (scale, shift), activation in zip(epilogues(samples, outputs), ("none", "sign", "relu"), strict=True):
        options = (values, weight, inputs, outputs, scale, shift, activation)
        assert torch.equal(cuda.linear(*options), plain.linear(*options))


def test_every_kernel_for_signs_gives_the_same(host_gpu, monkeypatch):
    """Whatever the plan prefers: each kernel that fits computes one product, ragged in every direction."""
    weight, values = weights(2, 45, 1600), signs(2, 21, 1600)[..., :50].contiguous()
    expected = plain.linear(values, weight, 1600, 45, None, None, "none")
    wide_values, wide_weight = signs(2, 21, 1664), weights(2, 45, 1664)
    wide = plain.linear(wide_values, wide_weight, 1664, 45, None, None, "none")
    choose = plan.bits
    for rows in (1, 3, 8, 30, 70):
        monkeypatch.setattr(
            plan, "bits", lambda chip, size, wide, masked, rows=rows: _for_rows(choose, chip, size, wide, rows)
        )
        assert torch.equal(cuda.linear(values, weight, 1600, 45, None, None, "none"), expected)
        assert torch.equal(cuda.linear(wide_values, wide_weight, 1664, 45, None, None, "none"), wide)
    assert {name for name in plan.THREADS if name.startswith("bits") and "masked" not in name} == set(host_gpu.ran)


def _for_rows(choose, chip, size, wide, rows):
    """The kernel chosen for `rows`, with a grid for the rows that there are."""
    chosen = choose(chip, plan.Size(size.samples, rows, size.outputs, size.words), wide, masked=False)
    outputs, tall = (
        (128, 64) if "tile" in chosen.kernel else (32, int(chosen.kernel.removesuffix("_wide").split("_")[2]))
    )
    return plan.Launch(chosen.kernel, plan.grid(size.tiles(outputs, tall)), chosen.shared)


def test_chips_without_binary_tensor_cores_use_the_popcount_unit(host_gpu):
    host_gpu.chip = BLACKWELL
    weight, values = weights(2, 40, 300), signs(1, 70, 300)
    options = (values, weight, 300, 40, None, None, "none")
    assert torch.equal(cuda.linear(*options), plain.linear(*options))
    assert host_gpu.ran == ["bits_popcount_8"]


def test_one_block_of_threads_goes_over_many_tiles(host_gpu, monkeypatch):
    """Grids end at 2^31 - 1 blocks; here at 2."""
    monkeypatch.setattr(plan, "LARGEST_GRID", 2)
    for rows in (1, 20, 70):
        weight, values = weights(3, 140, 100), signs(3, rows, 100)
        options = (values, weight, 100, 140, None, None, "none")
        assert torch.equal(cuda.linear(*options), plain.linear(*options))
        real = (torch.randn(3, rows, 100), *options[1:])
        assert_close(cuda.linear(*real), *real)
    natural = torch.randn(70, 300)
    assert torch.equal(
        cuda.sample_blocks(natural, torch.tensor(3), 0, 0, 9), plain.sample_blocks(natural, torch.tensor(3), 0, 0, 9)
    )


# --- real activations ---


@pytest.mark.parametrize("samples, rows, outputs, inputs", REAL)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_products_of_real_numbers_are_as_good_as_float32(host_gpu, samples, rows, outputs, inputs, shared):
    weight, values = weights(samples, outputs, inputs), torch.randn(1 if shared else samples, rows, inputs)
    for (scale, shift), activation in zip(epilogues(samples, outputs), ("none", "sign", "relu"), strict=True):
        options = (values, weight, inputs, outputs, scale, shift, activation)
        assert_close(cuda.linear(*options), *options)


REAL_KERNELS = {
    "table_1": (256, 1),
    "table_2": (256, 2),
    "real_split_narrow": (64, 16),
    "real_split_16": (256, 16),
    "real_split_64": (128, 64),
}


@pytest.mark.parametrize("kernel", REAL_KERNELS)
def test_every_kernel_for_real_numbers_is_as_good_as_float32(host_gpu, monkeypatch, kernel):
    inputs = 2048 if "split" in kernel else 2000
    rows = 3 if "table" in kernel else 17
    outputs, tall = REAL_KERNELS[kernel]
    shared = {"real_split_narrow": plan._split(16, 8), "real_split_16": plan._split(16, 2)}.get(kernel)
    if shared is None:
        shared = plan._split(64, 1) if kernel == "real_split_64" else tall * (32 * 128 + 16 * 32) * 4
    monkeypatch.setattr(
        plan, "real", lambda chip, size: (plan.Launch(kernel, plan.grid(size.tiles(outputs, tall)), shared), 8)
    )
    weight, values = weights(1, 40, inputs), torch.randn(1, rows, inputs)
    values[0, 1] *= 10 ** torch.linspace(-12, 3, inputs)  # numbers of very different size
    values[0, 2] = values[0, 2].abs()  # sums that grow, where a tensor core cuts off
    options = (values, weight, inputs, 40, None, None, "none")
    assert_close(cuda.linear(*options), *options)
    assert host_gpu.ran == [kernel]


@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_numbers_at_the_ends_of_float32_pass_and_nan_and_inf_stay_what_they_are(host_gpu, rows):
    largest, inputs = torch.finfo(torch.float32).max, 70
    for special in (largest, -largest, math.inf, -math.inf, math.nan, 1e-38, 3e-41):
        values = torch.zeros(1, rows, inputs)
        values[0, :, 37] = special
        options = (values, weights(1, 20, inputs), inputs, 20, None, None, "relu")
        got, expected = cuda.linear(*options), plain.linear(*options)
        assert torch.equal(got.isnan(), expected.isnan())
        np.testing.assert_allclose(got.nan_to_num(7), expected.nan_to_num(7), rtol=1e-6, atol=1e-40)


def test_one_nan_in_its_payload_only_is_not_cut_off_to_inf(host_gpu):
    values = torch.tensor([0x7F800001], dtype=torch.int32).view(torch.float32).expand(1, 5, 40).contiguous()
    assert cuda.linear(values, weights(1, 3, 40), 40, 3, None, None, "none").isnan().all()


def test_views_at_odd_addresses_are_read_right(host_gpu):
    """A contiguous view may start anywhere; kernels read 8 and 16 bytes at a time."""
    buffer = weights(1, 40, 128).flatten()
    moved = torch.cat([buffer.new_zeros(1), buffer])[1:].view(1, 3, 4, 16)
    values = torch.cat([torch.zeros(1), torch.randn(6 * 128)])[1:].view(1, 6, 128)
    assert moved.data_ptr() % 16 == 4
    options = (values, moved, 128, 40, None, None, "none")
    assert_close(cuda.linear(*options), *options)
    packed = torch.cat([torch.zeros(1, dtype=torch.int32), signs(1, 9, 128).flatten()])[1:].view(1, 9, 4)
    options = (packed, moved, 128, 40, None, None, "none")
    assert torch.equal(cuda.linear(*options), plain.linear(*options))


# --- 8 bits ---


@pytest.mark.parametrize(
    "samples, rows, outputs, inputs", [(1, 1, 10, 40), (3, 8, 70, 300), (2, 9, 270, 129), (2, 40, 65, 512)]
)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_products_of_8_bits_are_those_of_the_definition(host_gpu, samples, rows, outputs, inputs, shared):
    weight, values = weights(samples, outputs, inputs), torch.randn(1 if shared else samples, rows, inputs)
    values[0, 0] = 0
    for (scale, shift), activation in zip(epilogues(samples, outputs), ("none", "sign", "relu"), strict=True):
        options = (values, weight, inputs, outputs, scale, shift, activation)
        assert torch.equal(cuda.linear_int8(*options), plain.linear_int8(*options))


def test_rows_of_8_bits_with_nan_inf_or_tiny_numbers_follow_the_definition(host_gpu):
    values = torch.randn(1, 6, 50)
    for row, special in enumerate((math.nan, math.inf, 1e-37, 1e-44)):
        values[0, row] = values[0, row] if row < 2 else values[0, row] * special
        values[0, row, 11] = special
    options = (values, weights(1, 20, 50), 50, 20, None, None, "none")
    got, expected = cuda.linear_int8(*options), plain.linear_int8(*options)
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.nan_to_num(5), expected.nan_to_num(5))


def test_rows_whose_sums_might_not_fit_32_bits_are_left_to_plain_torch(host_gpu, monkeypatch):
    monkeypatch.setattr(products, "MOST_INT8", 39)
    options = (torch.randn(1, 3, 40), weights(1, 20, 40), 40, 20, None, None, "none")
    assert torch.equal(cuda.linear_int8(*options), plain.linear_int8(*options))
    assert host_gpu.ran == []
