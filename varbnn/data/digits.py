"""What ships with scikit-learn: handwritten digits, and two photographs that are none."""

from __future__ import annotations

import numpy as np

from varbnn.checks import whole_number
from varbnn.data.dataset import Array, Raw
from varbnn.errors import import_extra

SPLITS = 5
SIDE = 8  # pixels
LEVELS = 16  # a digit's pixel counts the inked dots of a 4×4 block, 0 … 16
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: how bright red, green and blue look


def read(split: int = 0) -> Raw:
    """The 1797 digits, of which every split keeps another fifth to test, stratified; and photograph patches.

    Split 0 is scikit-learn's usual one (``train_test_split`` with ``random_state=0``). The others take a quarter each
    of what that one trains on, so that the five test every digit once.

    Raises:
        InputError: there is no such split.
    """
    split = whole_number("split", split, 0, SPLITS - 1, note=" for digits")
    bundled = import_extra("sklearn.datasets", "demo").load_digits()
    selection = import_extra("sklearn.model_selection", "demo")
    x, y = bundled.data, bundled.target
    train, test = selection.train_test_split(np.arange(len(y)), test_size=1 / SPLITS, random_state=0, stratify=y)
    if split:
        quarters = selection.StratifiedKFold(SPLITS - 1, shuffle=True, random_state=0).split(train, y[train])
        _, chosen = list(quarters)[split - 1]
        train, test = np.concatenate([np.delete(train, chosen), test]), train[chosen]
    return Raw(
        name="digits",
        train_x=x[train],
        train_y=y[train],
        test_x=x[test],
        test_y=y[test],
        ood_x=photo_patches(len(test)),
        ood_name="photograph patches",
        shape=(SIDE, SIDE),
        num_classes=10,
        validation_share=0.2,
        value_range=(0, LEVELS),
    )


def photo_patches(count: int) -> Array:
    """`count` grey patches of the two photographs of scikit-learn, count×64 in the digits' levels 0 … 16.

    The photographs (china.jpg, flower.jpg) are cut into 8×8 tiles and rounded to the digits' 17 grey levels, so that
    the levels themselves give nothing away. Tiles that are one flat grey then, such as clear sky, show nothing and are
    left out; of the others every k-th is taken, top to bottom through both photographs: the same on every machine.
    """
    import_extra("PIL", "demo")  # scikit-learn reads photographs with it
    photographs = import_extra("sklearn.datasets", "demo").load_sample_images().images
    tiles = np.concatenate([_tiles(np.round(photo @ LUMA * (LEVELS / 255))) for photo in photographs])
    pictures = tiles[np.ptp(tiles, axis=1) > 0]
    return pictures[np.linspace(0, len(pictures) - 1, count).round().astype(int)]


def _tiles(image: Array) -> Array:
    """The whole SIDE×SIDE tiles of a grey image, row by row, flattened."""
    rows, columns = image.shape[0] // SIDE, image.shape[1] // SIDE
    blocks = image[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE)
    return blocks.swapaxes(1, 2).reshape(rows * columns, SIDE * SIDE)
