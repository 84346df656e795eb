"""CIFAR-10 from its published batches or an archive, with colour images of another kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from varbnn.data.dataset import Array, Raw
from varbnn.data.files import from_archive, list_directory, reason_of, shape_of
from varbnn.data.pickled import read_pickled
from varbnn.errors import InputError, import_extra

SIDE, CHANNELS, CLASSES = 32, 3, 10
PIXELS = CHANNELS * SIDE * SIDE
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
ARCHIVES = ("cifar10.npz", "cifar-10.npz")
FOLDERS = {"": "cifar-10-batches-py", ".bin": "cifar-10-batches-bin"}
FOREIGN = ("svhn", "photographs")
SVHN = ("svhn.npz", "svhn_test.npz")


def read(directory: Path, ood: str | None = None) -> Raw:
    """CIFAR-10 from the files in `directory`, N×3072, channel by channel.

    Args:
        ood: one of `FOREIGN`; absent, SVHN if it is there.

    Raises:
        InputError: no such directory, a file that is missing, unreadable or not what it should be, foreign inputs that
            are asked for and not there.
        MissingExtraError: photographs without scikit-learn or Pillow.
    """
    list_directory(directory)
    (train_x, train_y), (test_x, test_y) = (_part(directory, part) for part in BATCHES)
    ood_x, ood_name, note = _foreign(directory, ood)
    return Raw(
        name="cifar10",
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        ood_x=ood_x,
        ood_name=ood_name,
        shape=(CHANNELS, SIDE, SIDE),
        num_classes=CLASSES,
        validation_share=1 / 10,
        per_channel=True,
        note=note,
        value_range=(0, 255),
    )


def _part(directory: Path, part: str) -> tuple[Array, Array]:
    archive = next((directory / name for name in ARCHIVES if (directory / name).exists()), None)
    if archive is not None:
        images = flat_colours(from_archive(archive, f"x_{part}"), f"{archive}: x_{part}")
        labels = from_archive(archive, f"y_{part}")
        if labels.ndim == 2 and labels.shape[1] == 1:  # Keras keeps them so
            labels = labels[:, 0]
        return images, _checked_labels(labels, len(images), archive)
    batches = [_batch(_find(directory, name)) for name in BATCHES[part]]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return images, labels


def _find(directory: Path, batch: str) -> Path:
    for ending, folder in FOLDERS.items():
        for path in (directory / folder / (batch + ending), directory / (batch + ending)):
            if path.exists():
                return path
    raise InputError(
        f"{directory} does not hold CIFAR-10: expected data_batch_1 … data_batch_5 and test_batch, with .bin (binary "
        f"version) or without (python version), also in a folder {' or '.join(FOLDERS.values())}/, or {ARCHIVES[0]} "
        f"with x_train, y_train, x_test and y_test; {batch} is missing. A .tar.gz must be unpacked first"
    )


def _batch(path: Path) -> tuple[Array, Array]:
    if path.suffix == ".bin":
        try:
            content = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise InputError(f"cannot read {path}: {reason_of(error)}; get the file again") from None
        if len(content) == 0 or len(content) % (1 + PIXELS):
            raise InputError(
                f"{path} has {len(content)} bytes, not a positive multiple of {1 + PIXELS} (a label and 32×32×3 "
                "pixels); get the file again"
            )
        rows = content.reshape(-1, 1 + PIXELS)
        return rows[:, 1:], _checked_labels(rows[:, 0], len(rows), path)
    batch = read_pickled(path)
    images, labels = batch.get("data"), batch.get("labels")
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != PIXELS or len(images) == 0:
        found = shape_of(images) if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(
            f"{path}: data should be N×{PIXELS} unsigned bytes with N ≥ 1, got {found}; get the file again"
        )
    whole = isinstance(labels, list) and all(type(label) is int and 0 <= label < 256 for label in labels)
    if not whole:
        raise InputError(f"{path}: labels should be a list of integers 0 … {CLASSES - 1}; is this another data set?")
    return images, _checked_labels(np.array(labels, dtype=np.uint8), len(images), path)


def _checked_labels(labels: Array, number: int, path: Path) -> Array:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != number:
        raise InputError(f"{path}: {number} images need {number} integer labels, got {shape_of(labels)}")
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise InputError(
            f"{path}: labels should be 0 … {CLASSES - 1}, got {labels.min()} … {labels.max()}; "
            "is this another data set?"
        )
    return labels


def flat_colours(images: Array, name: str) -> Array:
    """N×32×32×3, N×3×32×32 or N×3072 bytes as N×3072, channel by channel.

    Raises:
        InputError: another shape or type.
    """
    channels_last = images.ndim == 4 and images.shape[1:] == (SIDE, SIDE, CHANNELS)
    fits = channels_last or images.shape[1:] in ((CHANNELS, SIDE, SIDE), (PIXELS,))
    if images.dtype != np.uint8 or not fits or len(images) == 0:
        raise InputError(
            f"{name} should be N×32×32×3, N×3×32×32 or N×3072 unsigned bytes with N ≥ 1, got {shape_of(images)}"
        )
    moved = np.moveaxis(images, 3, 1) if channels_last else images
    return moved.reshape(len(images), PIXELS)


def _foreign(directory: Path, ood: str | None) -> tuple[Array | None, str, str]:
    """Images, what they are, and why there are none."""
    if ood == "photographs":
        return photo_tiles(), "photograph patches", ""
    path = next((directory / name for name in SVHN if (directory / name).exists()), None)
    if path is not None:
        return flat_colours(from_archive(path, "x_test"), f"{path}: x_test"), "SVHN images", ""
    note = f"no {SVHN[0]} with x_test in {directory}, so nothing out of distribution; ood='photographs' needs no file"
    if ood is not None:
        raise InputError(f"ood={ood!r}: {note}")
    return None, "", note


def photo_tiles() -> Array:
    """The 32×32 tiles of scikit-learn's two photographs (china.jpg, flower.jpg), 520×3072, channel by channel."""
    import_extra("PIL", "demo")  # scikit-learn reads photographs with it
    photographs = np.stack(import_extra("sklearn.datasets", "demo").load_sample_images().images)
    rows, columns = photographs.shape[1] // SIDE, photographs.shape[2] // SIDE
    cut = photographs[:, : rows * SIDE, : columns * SIDE].reshape(-1, rows, SIDE, columns, SIDE, CHANNELS)
    tiles: Array = cut.transpose(0, 1, 3, 5, 2, 4).reshape(-1, PIXELS)
    return tiles
