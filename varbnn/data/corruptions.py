"""Images that get worse in five steps: noise, blur, rotation, lost contrast.

Each kind takes images in their own units, a severity from 1 to 5 and the range of the units, and returns new images
of the same shape, dtype and range. `corrupt` takes the name of one. The same arguments give the same images; only
noise draws, from `generator`. `turn` turns images by any angle.

    from varbnn.data import corruptions
    worn = corruptions.corrupt(digits.undo(digits.test_x), "blur", 3, value_range=(0, 16))

Images are N×H×W or N×C×H×W. Lengths are in pixels of an image whose shorter side is 28 and grow with the side, so that
a severity means as much at 8×8 as at 32×32; grey levels are shares of the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from varbnn.checks import finite_number, optional_generator, whole_number
from varbnn.errors import InputError

__all__ = ["KINDS", "SEVERITIES", "Kind", "blur", "contrast", "corrupt", "noise", "rotation", "turn"]

Kind = Literal["noise", "blur", "rotation", "contrast"]
Range = tuple[float, float]

SEVERITIES = (1, 2, 3, 4, 5)
NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # of the range, as in ImageNet-C
BLUR = (0.5, 0.75, 1.0, 1.5, 2.0)  # pixels at a side of 28
ANGLES = (15.0, 30.0, 45.0, 60.0, 75.0)  # degrees, the steps of Ovadia et al. 2019
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # of the contrast is left, as in ImageNet-C
SIDE = 28  # pixels, to which the lengths refer
REACH = 4  # standard deviations after which a blur ends


def noise(
    images: Tensor, severity: int, *, value_range: Range = (0.0, 1.0), generator: torch.Generator | None = None
) -> Tensor:
    """Gaussian noise on every value: standard deviation 0.08, 0.12, 0.18, 0.26, 0.38 of the range; then clipped to it.

    Args:
        images: N×H×W or N×C×H×W, floating, within `value_range`.
        severity: 1 to 5.
        value_range: lowest and highest possible value.
        generator: source of the noise, on any device; torch's global one when absent.

    Raises:
        InputError: images of another shape, not floating, outside the range; another severity; an empty range; a
            generator that is none.

    Source: Hendrycks & Dietterich 2019, severities of ImageNet-C.

    >>> noise(torch.full((1, 2, 2), 0.5), 1, generator=torch.Generator().manual_seed(0))
    tensor([[[0.6233, 0.4765],
             [0.3257, 0.5455]]])
    """
    low, high = _checked(images, severity, value_range, generator)
    device = generator.device if generator is not None else images.device
    drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=device).to(images.device)
    return (images + NOISE[severity - 1] * (high - low) * drawn).clamp(low, high)


def blur(
    images: Tensor, severity: int, *, value_range: Range = (0.0, 1.0), generator: torch.Generator | None = None
) -> Tensor:
    """Gaussian blur: standard deviation 0.5, 0.75, 1, 1.5, 2 pixels at a side of 28. The border pixels go on outside.

    Arguments and errors are those of `noise`; nothing is drawn.

    >>> line = torch.zeros(1, 28, 28).index_fill(2, torch.tensor([14]), 1.0)
    >>> print(*(f"{value:.3f}" for value in blur(line, 3)[0, 5, 11:18]))
    0.004 0.054 0.242 0.399 0.242 0.054 0.004
    """
    low, high = _checked(images, severity, value_range, generator)
    deviation = BLUR[severity - 1] * min(images.shape[-2:]) / SIDE
    reach = int(REACH * deviation + 0.5)
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (places / deviation).square())
    weights = weights / weights.sum()
    planes = images.reshape(-1, 1, *images.shape[-2:])
    padded = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    smooth = F.conv2d(F.conv2d(padded, weights.reshape(1, 1, 1, -1)), weights.reshape(1, 1, -1, 1))
    return smooth.reshape(images.shape).clamp(low, high)


def rotation(
    images: Tensor, severity: int, *, value_range: Range = (0.0, 1.0), generator: torch.Generator | None = None
) -> Tensor:
    """Turned counterclockwise about the centre by 15, 30, 45, 60, 75 degrees, bilinear. The lowest value comes in.

    Arguments and errors are those of `noise`; nothing is drawn.

    Source: the angles of Ovadia et al. 2019, section 4.1 (which go on to 180).
    """
    low, high = _checked(images, severity, value_range, generator)
    return turn(images, ANGLES[severity - 1], fill=low).clamp(low, high)


def turn(images: Tensor, degrees: float, *, fill: float = 0.0) -> Tensor:
    """Turned counterclockwise about the centre by any angle, bilinear; `fill` comes in from outside.

    Args:
        images: N×H×W or N×C×H×W, floating, in any units.
        degrees: finite; negative turns clockwise.
        fill: the value outside the images.

    Raises:
        InputError: images of another shape or not floating, an angle or a value that is not finite.

    >>> turn(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), 90).round().abs()
    tensor([[[1., 3.],
             [0., 2.]]])
    """
    _require_planes(images)
    angle, fill = math.radians(finite_number("degrees", degrees)), finite_number("fill", fill)
    height, width = images.shape[-2:]
    planes = images.reshape(-1, 1, height, width) - fill  # zero is then what comes in
    down, right = (
        torch.arange(size, dtype=images.dtype, device=images.device) - (size - 1) / 2 for size in (height, width)
    )
    down, right = torch.meshgrid(down, right, indexing="ij")
    from_right = math.cos(angle) * right - math.sin(angle) * down
    from_down = math.sin(angle) * right + math.cos(angle) * down
    # grid_sample counts from -1 to 1 across the picture's edges, half a pixel outside the border pixels' centres
    grid = torch.stack([from_right * (2 / width), from_down * (2 / height)], -1)
    turned = F.grid_sample(planes, grid.expand(len(planes), -1, -1, -1), padding_mode="zeros", align_corners=False)
    return (turned + fill).reshape(images.shape)


def contrast(
    images: Tensor, severity: int, *, value_range: Range = (0.0, 1.0), generator: torch.Generator | None = None
) -> Tensor:
    """Every image (each of its channels) drawn towards its mean: 0.4, 0.3, 0.2, 0.1, 0.05 of the distance is left.

    Arguments and errors are those of `noise`; nothing is drawn.

    Source: Hendrycks & Dietterich 2019, severities of ImageNet-C.

    >>> contrast(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), 3)
    tensor([[[0.4000, 0.6000],
             [0.4000, 0.6000]]])
    """
    low, high = _checked(images, severity, value_range, generator)
    mean = images.mean((-2, -1), keepdim=True)
    return (mean + CONTRAST[severity - 1] * (images - mean)).clamp(low, high)


KINDS: dict[Kind, Callable[..., Tensor]] = {"noise": noise, "blur": blur, "rotation": rotation, "contrast": contrast}
"""Every corruption by its name."""


def corrupt(
    images: Tensor,
    kind: Kind,
    severity: int,
    *,
    value_range: Range = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images after a corruption: "noise", "blur", "rotation" or "contrast".

    Args:
        images: N×H×W or N×C×H×W, floating, within `value_range`.
        kind: one of these.
        severity: 1 to 5.
        value_range: lowest and highest possible value.
        generator: source of the noise; torch's global one when absent. The others draw nothing.

    Raises:
        InputError: images of another shape, not floating, outside the range; another kind or severity; a generator that
            is none.

    >>> corrupt(torch.zeros(3, 8, 8), "rotation", 2).shape
    torch.Size([3, 8, 8])
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return KINDS[kind](images, severity, value_range=value_range, generator=generator)


def _checked(images: Tensor, severity: int, value_range: Range, generator: torch.Generator | None) -> Range:
    """The range as two floats."""
    optional_generator(generator)
    whole_number("severity", severity, SEVERITIES[0], SEVERITIES[-1])
    return require_images(images, value_range)


def require_images(images: Tensor, value_range: Range) -> Range:
    """The range as two floats.

    Raises:
        InputError: images of another shape, not floating, outside the range; an empty range.
    """
    _require_planes(images)
    try:
        low, high = (float(end) for end in value_range)
    except (TypeError, ValueError, OverflowError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"value_range must be (lowest, highest), two finite numbers, got {value_range}")
    slack = 1e-4 * (high - low)  # what standardising and undoing it leave behind in float32
    lowest, highest = (float(end) for end in images.detach().aminmax())
    if not (low - slack <= lowest and highest <= high + slack):
        raise InputError(
            f"images must lie in value_range {low:g} … {high:g}, got {lowest:g} … {highest:g}; "
            "undo a standardisation first, or declare the range of their units"
        )
    return low, high


def _require_planes(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim not in (3, 4) or 0 in images.shape:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images must be a tensor N×H×W or N×C×H×W with N ≥ 1, got {shape}; one image is image[None]")
    if images.dtype not in (torch.float32, torch.float64):
        raise InputError(f"images must be float32 or float64, got {images.dtype}; call .float()")
