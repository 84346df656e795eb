"""What ships with scikit-learn: handwritten digits, and two photographs that are none."""

from __future__ import annotations

import numpy as np

from varbnn.data.dataset import Array, Raw
from varbnn.errors import import_extra

SIDE = 8  # pixels
LEVELS = 16  # a digit's pixel counts the inked dots of a 4×4 block, 0 … 16
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: how bright red, green and blue look


def read() -> Raw:
    """The 1797 digits in the published split (a fifth to test, stratified, random_state 0), and photograph patches."""
    bundled = import_extra("sklearn.datasets", "demo").load_digits()
    split = import_extra("sklearn.model_selection", "demo").train_test_split
    train_x, test_x, train_y, test_y = split(
        bundled.data, bundled.target, test_size=0.2, random_state=0, stratify=bundled.target
    )
    return Raw(
        name="digits",
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        ood_x=photo_patches(len(test_x)),
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
