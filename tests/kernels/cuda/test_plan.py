"""What is launched for which sizes: grids cover everything within the limits of CUDA, offsets have 64 bits."""

import ctypes
import re
from math import prod

import pytest
import torch

from tests.kernels.cuda.host import BLACKWELL, HOPPER
from varbnn.kernels.cuda import arguments, plan
from varbnn.kernels.cuda import compile as nvrtc

SMALL_CHIP = plan.Chip((8, 6), 20)
CHIPS = [HOPPER, BLACKWELL, SMALL_CHIP]
SIZES = [
    plan.Size(samples, rows, outputs, words)
    for samples in (1, 32, 1000)
    for rows in (1, 2, 3, 8, 9, 32, 33, 64, 1024, 10**6)
    for outputs, words in ((1, 1), (10, 64), (33, 25), (2048, 64), (65_536, 2048))
]
TILE = {  # outputs and rows that one block of threads has
    "bits_popcount_1": (32, 1),
    "bits_popcount_8": (32, 8),
    "bits_popcount_masked_8": (32, 8),
    "bits_split_8": (32, 8),
    "bits_split_32": (32, 32),
    "bits_tile_64": (128, 64),
    "bits_tile_masked_32": (128, 32),
    "int8_tile_32": (256, 32),
    "int8_split_8": (64, 8),
    "real_split_narrow": (64, 16),
    "real_split_16": (256, 16),
    "real_split_64": (128, 64),
    "real_conv_64": (128, 64),
    "real_conv_128": (64, 128),
}


def launches(chip, size):
    """Every launch of a product of this size, with its tile."""
    for wide in (True, False):
        for masked in (True, False):
            yield plan.bits(chip, size, wide, masked), None
    yield plan.int8(size), None
    launch, across = plan.real(chip, size)
    yield launch, (32 * across, size.rows) if "table" in launch.kernel else None
    yield plan.conv(size), None


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: f"{chip.capability}")
def test_grids_cover_everything_within_the_limits(chip):
    for size in SIZES:
        for launch, tile in launches(chip, size):
            outputs, rows = tile or TILE[launch.kernel.removesuffix("_wide")]
            tiles = size.samples * -(-size.outputs // outputs) * -(-size.rows // rows)
            assert launch.grid == (min(tiles, 2**31 - 1), 1)
            assert launch.shared <= 99 * 1024
            assert launch.threads % 32 == 0
            # what Tile decodes in 32 bits: everything but the tiles of rows
            assert tiles // -(-size.rows // rows) < 2**32


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: f"{chip.capability}")
def test_kernels_that_hold_a_fixed_number_of_rows_get_no_more(chip):
    for size in SIZES:
        launch, across = plan.real(chip, size)
        if launch.kernel.startswith("table"):
            assert size.rows == int(launch.kernel[-1])
            assert 16 % across == 0
        if plan.bits(chip, size, wide=False, masked=False).kernel == "bits_popcount_1":
            assert size.rows == 1


def test_blackwell_never_gets_a_binary_tensor_kernel():
    for capability in ((10, 0), (10, 3), (12, 0), (12, 1)):
        for size in SIZES:
            for masked in (True, False):
                kernel = plan.bits(plan.Chip(capability, 148), size, True, masked).kernel
                assert kernel.startswith("bits_popcount")


def test_large_batches_of_signs_use_the_tensor_cores_up_to_hopper():
    for capability in ((8, 0), (8, 6), (8, 9), (9, 0)):
        kernel = plan.bits(plan.Chip(capability, 100), plan.Size(32, 1024, 2048, 64), True, False).kernel
        assert kernel == "bits_tile_64_wide"


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: f"{chip.capability}")
def test_every_sample_is_drawn_once(chip):
    for outputs, inputs in ((1, 1), (10, 2048), (2048, 784), (65_536, 65_536)):
        for samples in (1, 3, 32, 1000):
            launch, chunk = plan.sampling(chip, outputs, inputs, samples)
            assert 1 <= chunk <= samples
            tiles = -(-outputs // 16) * -(-inputs // 128) * -(-samples // chunk)
            assert launch.grid == (min(tiles, 2**31 - 1), 1)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: f"{chip.capability}")
def test_predictions_deal_samples_out_where_rows_are_few(chip):
    for samples in (1, 32, 1000):
        for rows in (1, 3, 64, 1024, 10**6):
            launch = plan.predictive(chip, samples, rows)
            tiles, parts = launch.grid
            assert 1 <= parts <= min(samples, 65_535)
            assert tiles * parts <= 4 * chip.multiprocessors, "each block keeps logits of its own"
            assert launch.kernel == ("predictive_1" if rows < 4 else "predictive_4")
    assert plan.predictive(HOPPER, 32, 1).grid == (1, 32)


def test_patches_fill_what_they_may_and_one_image_always_fits():
    for places, groups, words in ((1, 1, 1), (1024, 1, 72), (10**6, 4, 1000)):
        images = plan.images_at_once(places, groups, words)
        assert images == 1 or images * places * groups * words * 8 <= 2**28
    assert plan.images_at_once(10**7, 1, 1000) == 1


def test_every_kernel_in_the_sources_is_known_and_no_other():
    found = {}
    for path in nvrtc.SOURCES.glob("*.cu"):
        for name, threads in re.findall(r"^KERNEL\((\w+), (\d+),", path.read_text(), re.MULTILINE):
            found[name] = (path.stem, int(threads))
    assert found == {name: (plan.Launch(name, (1, 1)).source, threads) for name, threads in plan.THREADS.items()}


def test_offsets_beyond_32_bits_are_64_bit_fields():
    """1000 networks of a million rows of 2048 outputs: strides and row numbers do not fit 32 bits."""
    fields = dict(field[:2] for field in arguments.Product._fields_)
    for name in ("rows", "values_sample", "values_row", "values_group", "scale_sample", "shift_sample"):
        assert fields[name] is ctypes.c_int64, name
    given = arguments.Product(values_sample=10**6 * 2048 * 4, rows=2**33)
    assert (given.values_sample, given.rows) == (8_192_000_000, 2**33)


def test_places_of_a_convolution_are_those_of_torch():
    for size, kernel, stride, padding, dilation in [
        ([7, 9], [3, 2], [2, 1], [1, 0, 2, 2], [1, 3]),
        ([5], [5], [1], [0, 0], [1]),
    ]:
        flat = [side for pair in reversed(list(zip(padding[::2], padding[1::2], strict=True))) for side in pair]
        image = torch.nn.functional.pad(torch.zeros(1, 1, *size), flat)
        convolve = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d}[len(size)]
        expected = list(convolve(image, torch.zeros(1, 1, *kernel), None, stride, 0, dilation).shape[2:])
        assert plan.out_places(size, kernel, stride, padding, dilation) == (expected, prod(expected))
