"""Corrupted images against scipy, closed forms and the statistics of a normal distribution."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import norm

from tests.tolerance import assert_within_standard_errors
from varbnn.data.corruptions import ANGLES, BLUR, CONTRAST, KINDS, NOISE, SEVERITIES, corrupt, noise, turn
from varbnn.errors import InputError

SHAPES = [(5, 28, 28), (3, 2, 17, 24), (2, 3, 9, 8), (1, 1, 1)]


def some_images(shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def planes(images: torch.Tensor) -> np.ndarray:
    return images.reshape(-1, *images.shape[-2:]).numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-3.0, 5.0)])
def test_blur_is_scipys_gaussian_filter(shape, severity, low, high):
    images = some_images(shape, low, high)
    deviation = BLUR[severity - 1] * min(shape[-2:]) / 28
    expected = [ndimage.gaussian_filter(plane, deviation, mode="nearest", truncate=4.0) for plane in planes(images)]
    found = corrupt(images, "blur", severity, value_range=(low, high))
    np.testing.assert_allclose(planes(found), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-3.0, 5.0)])
def test_rotation_is_scipys_counterclockwise_with_bilinear_values(shape, severity, low, high):
    images = some_images(shape, low, high)
    found = corrupt(images, "rotation", severity, value_range=(low, high))
    options = dict(reshape=False, order=1, mode="grid-constant", cval=low, prefilter=False)
    expected = [ndimage.rotate(plane, ANGLES[severity - 1], **options) for plane in planes(images)]
    np.testing.assert_allclose(planes(found), expected, atol=1e-12)


def test_rotation_turns_the_upper_right_to_the_upper_left():
    image = torch.zeros(1, 9, 9)
    image[0, 1, 7] = 1.0  # at 45° above the horizontal, so 120° after another 75°
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    turned = corrupt(image, "rotation", 5)[0]
    assert float((turned * (4 - rows)).sum()) > 0
    assert float((turned * (columns - 4)).sum()) < 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_keeps_the_mean_of_each_channel_and_shrinks_its_deviation(shape, severity):
    images = some_images(shape, 0, 255)
    found = planes(corrupt(images, "contrast", severity, value_range=(0, 255)))
    before = planes(images)
    np.testing.assert_allclose(found.mean((1, 2)), before.mean((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std((1, 2)), CONTRAST[severity - 1] * before.std((1, 2)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_noise_has_the_moments_of_a_clipped_normal(severity, level):
    """Level and noise in shares of the range, here 0 … 16."""
    count, deviation = 200_000, NOISE[severity - 1]
    images = torch.full((2, 2, count // 40, 10), 16 * level, dtype=torch.float64)
    generator = torch.Generator().manual_seed(severity)
    found = (noise(images, severity, value_range=(0, 16), generator=generator) / 16).flatten()
    a, b = (0 - level) / deviation, (1 - level) / deviation
    inside, below = norm.cdf(b) - norm.cdf(a), norm.cdf(a)
    mean = level * inside + deviation * (norm.pdf(a) - norm.pdf(b)) + (1 - norm.cdf(b))
    second = (
        (level**2 + deviation**2) * inside
        + 2 * level * deviation * (norm.pdf(a) - norm.pdf(b))
        + deviation**2 * (a * norm.pdf(a) - b * norm.pdf(b))
        + (1 - norm.cdf(b))
    )
    spread = math.sqrt((second - mean**2) / len(found))
    assert_within_standard_errors(found.mean(), mean, spread)
    assert_within_standard_errors((found == 0).double().mean(), below, math.sqrt(below * (1 - below) / len(found)))
    square = (found - found.mean()).square()
    assert_within_standard_errors(square.mean(), second - mean**2, float(square.std()) / math.sqrt(len(found)))


def test_noise_differs_between_pixels_and_images_and_follows_its_generator():
    images = torch.full((3, 6, 5), 0.5)
    first, again, other = (noise(images, 1, generator=torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == first.numel()
    before = torch.get_rng_state()
    noise(images, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_corruption_keeps_shape_dtype_range_and_its_argument(kind, dtype):
    images = some_images((4, 3, 12, 10), -1, 2).to(dtype)
    before = images.clone()
    for severity in SEVERITIES:
        found = corrupt(images, kind, severity, value_range=(-1, 2), generator=torch.Generator().manual_seed(1))
        assert (found.shape, found.dtype) == (images.shape, dtype)
        assert found.min() >= -1
        assert found.max() <= 2
        assert not torch.equal(found, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", KINDS)
def test_more_severe_is_further_from_the_image(kind):
    yy, xx = torch.meshgrid(torch.linspace(-2, 2, 28), torch.linspace(-2, 2, 28), indexing="ij")
    image = torch.exp(-(yy - 0.4).square() - 3 * (xx + 0.3).square())[None]
    worn = [corrupt(image, kind, severity, generator=torch.Generator().manual_seed(0)) for severity in SEVERITIES]
    distances = [float((w - image).norm()) for w in worn]
    assert distances == sorted(distances)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "noise"])
def test_one_image_does_not_depend_on_its_neighbours(kind):
    images = some_images((6, 11, 13), 0, 1)
    together = corrupt(images, kind, 4)
    alone = torch.cat([corrupt(image[None], kind, 4) for image in images])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    "images, severity, value_range, message",
    [
        (torch.zeros(28, 28), 1, (0, 1), r"N×H×W or N×C×H×W with N ≥ 1, got \(28, 28\); one image is image\[None\]"),
        (torch.zeros(0, 28, 28), 1, (0, 1), "with N ≥ 1"),
        (np.zeros((1, 2, 2)), 1, (0, 1), "must be a tensor .*got ndarray"),
        (torch.zeros(1, 2, 2, dtype=torch.uint8), 1, (0, 1), r"got torch.uint8; call \.float\(\)"),
        (torch.zeros(1, 2, 2), 0, (0, 1), "severity must be a whole number from 1 to 5, got 0"),
        (torch.zeros(1, 2, 2), True, (0, 1), "severity must be"),
        (torch.zeros(1, 2, 2), 1.5, (0, 1), "severity must be"),
        (torch.zeros(1, 2, 2), 3.0, (0, 1), "severity must be a whole number from 1 to 5, got 3.0"),
        (torch.zeros(1, 2, 2), 1, (1, 1), "lowest, highest"),
        (torch.zeros(1, 2, 2), 1, (0, math.inf), "lowest, highest"),
        (torch.zeros(1, 2, 2), 1, None, "lowest, highest.*got None"),
        (torch.zeros(1, 2, 2), 1, (0,), "lowest, highest"),
        (torch.zeros(1, 2, 2), 1, (0, "x"), "lowest, highest"),
        (torch.full((1, 2, 2), 255.0), 1, (0, 1), "must lie in value_range 0 … 1, got 255 … 255; undo"),
        (torch.full((1, 2, 2), math.nan), 1, (0, 1), "must lie in value_range"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_corrupted_is_refused_with_a_reason(kind, images, severity, value_range, message):
    with pytest.raises(InputError, match=message):
        corrupt(images, kind, severity, value_range=value_range)


def test_an_unknown_kind_is_refused():
    for kind in ("fog", ["blur"]):
        with pytest.raises(InputError, match=re.escape(f"noise, blur, rotation, contrast, got {kind!r}")):
            corrupt(torch.zeros(1, 2, 2), kind, 1)


@pytest.mark.parametrize(
    "images, degrees, fill, message",
    [
        (torch.rand(2, 5, 5), math.nan, 0.0, "degrees must be a finite number, got nan"),
        (torch.rand(2, 5, 5), math.inf, 0.0, "degrees must be a finite number, got inf"),
        (torch.rand(2, 5, 5), 3.0, math.nan, "fill must be a finite number"),
        (np.zeros((2, 5, 5)), 3.0, 0.0, "images must be a tensor N×H×W .* got ndarray"),
        (torch.zeros(2, 5, 5, dtype=torch.uint8), 3.0, 0.0, "images must be float32 or float64"),
        (torch.zeros(5, 5), 3.0, 0.0, r"got \(5, 5\); one image"),
    ],
)
def test_what_cannot_be_turned_is_refused_with_a_reason(images, degrees, fill, message):
    with pytest.raises(InputError, match=message):
        turn(images, degrees, fill=fill)
