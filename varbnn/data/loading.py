"""One door to every data set."""

from __future__ import annotations

import os
from pathlib import Path

from varbnn.data import digits, images, moons
from varbnn.data.dataset import Dataset, prepare
from varbnn.errors import InputError

NAMES = ("digits", "moons", *images.SETS)
"""What `load` knows."""


def load(
    name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0, *, validation: bool = False
) -> Dataset:
    """A data set by name. Nothing is ever downloaded.

    - ``"digits"``: scikit-learn's 1797 handwritten digits, 8×8; 1437 to train on and 360 to test, stratified. Foreign
      inputs: 8×8 grey patches of scikit-learn's two photographs. Needs the extra `demo`.
    - ``"moons"``: two interleaving half circles in the plane with noise, 1000 + 1000 points, generated from the seed.
      Foreign inputs: a ring far around them.
    - ``"mnist"``, ``"fashion"``: 60,000 + 10,000 images of 28×28 from files in `data_dir`, an ``.npz`` or the four idx
      files, gzipped or not. Foreign inputs: each other's test images, else notMNIST, if their files are there too.

    Tune with ``validation=True``, then fit with ``validation=False``, which trains on both parts; the test data are the
    same.

    Args:
        name: one of these.
        data_dir: where the files of mnist and fashion lie; the others need none.
        seed: which training data are set aside for validation (and the points of moons).
        validation: set a share of every class of the training data aside: a fifth, of mnist and fashion a sixth.

    Raises:
        InputError: an unknown name, a negative seed, files that are missing, unreadable or not what they should be.
        MissingExtraError: digits without scikit-learn or Pillow.

    >>> load("moons", validation=True)
    Dataset(moons: 800 train, 200 validation, 1000 test, 1000 points on a far ring; 2 inputs, 2 classes)
    """
    if name not in NAMES:
        raise InputError(f"there is no data set {name!r}; known are {', '.join(NAMES)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed must be an integer ≥ 0, got {seed!r}")
    if name == "digits":
        raw = digits.read()
    elif name == "moons":
        raw = moons.generate(seed)
    elif data_dir is None:
        raise InputError(
            f"{name} is read from files: say where they are with data_dir= (--data-dir); none is downloaded"
        )
    else:
        raw = images.read(name, Path(data_dir))
    return prepare(raw, validation, seed)
