"""One door to every data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args, overload

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import whole_number
from varbnn.data import cifar, digits, images, moons, openml
from varbnn.data.dataset import Dataset, prepare
from varbnn.data.files import from_archive, shape_of
from varbnn.data.real_targets import RegressionDataset, prepare_table
from varbnn.data.tables import RegressionName, read_regression
from varbnn.errors import InputError

NAMES = ("digits", "moons", *images.SETS, "cifar10")
"""What `load` knows with labels."""
REGRESSION_NAMES: tuple[str, ...] = get_args(RegressionName)
"""What it knows with real targets."""


@overload
def load(  # type: ignore[overload-overlap]  # a name that is not written out is that of a data set with labels
    name: RegressionName,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    validation: bool = False,
    split: int = 0,
) -> RegressionDataset: ...
@overload
def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    validation: bool = False,
    ood: str | None = None,
    download: bool = False,
    split: int = 0,
) -> Dataset: ...
def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    *,
    validation: bool = False,
    ood: str | None = None,
    download: bool = False,
    split: int = 0,
) -> Dataset | RegressionDataset:
    """A data set by name. Nothing is downloaded unless `download` says so.

    - ``"digits"``: scikit-learn's 1797 handwritten digits, 8×8; 1437 to train on and 360 to test, stratified. Nobody
      published a split; the five of `split` test every digit once. Foreign inputs: 8×8 grey patches of scikit-learn's
      two photographs. Needs the extra `demo`.
    - ``"moons"``: two interleaving half circles in the plane with noise, 1000 + 1000 points, generated from the seed.
      Foreign inputs: a ring far around them.
    - ``"mnist"``, ``"fashion"``, ``"notmnist"``, ``"emnist-letters"`` (26 classes): grey images of 28×28 from files in
      `data_dir`, an ``.npz`` with x_train, y_train, x_test, y_test or the four idx files, gzipped or not. EMNIST's idx
      files have rows and columns exchanged and are turned upright; an archive should be upright.
    - ``"cifar10"``: 50,000 + 10,000 colour images of 3×32×32, from the published batches (binary, or python, which are
      pickles and are read without running them) or an ``.npz``; standardised channel by channel.

    Foreign inputs of the 28×28 sets are each other's test images: the first of mnist, fashion, notmnist, emnist-letters
    that is there, or what `ood` names. Letters such as o, l, s and z are shaped like digits;
    ``ood="emnist-unlike-digits"`` leaves those out (``b g i l o q s z``). cifar10 has ``ood="svhn"`` (an ``.npz`` with
    x_test) and ``ood="photographs"``, 520 patches of scikit-learn's two photographs.

    With real targets, as a `RegressionDataset`:

    - ``"curve"``: 200 + 200 points of a wavy line with noise, generated from the seed.
    - ``"snelson"``: Snelson's 200 points and a grid of 301 test inputs, from `snelson.npz` or the original text files.
    - ``"uci-boston"``, ``"uci-concrete"``, ``"uci-energy"``, ``"uci-kin8nm"``, ``"uci-naval"``, ``"uci-power"``,
      ``"uci-protein"``, ``"uci-wine-red"``, ``"uci-yacht"``: the `split` of Hernández-Lobato and Adams (2015), from
      ``boston.npz`` with x and y, or ``boston.csv`` or ``.txt`` with the target in the last column, and so on.

    Tune with ``validation=True``, then fit with ``validation=False``, which trains on both parts; the test data are the
    same.

    Args:
        name: one of these.
        data_dir: where files lie; digits, moons and curve need none.
        seed: which training data are set aside for validation (and the points of moons and curve).
        validation: set a share of every class of the training data aside: a fifth, of the 28×28 sets a sixth, of
            cifar10 a tenth; with real targets a fifth of all.
        ood: which foreign inputs to bring.
        download: fetch mnist or fashion from openml.org if `data_dir` lacks them, check them against the published MD5
            sums and keep them there as an ``.npz``. Needs scikit-learn. The four files have the same names for both: in
            a folder of the set's name they are taken for it, in `data_dir` itself only if they were published as it.
        split: of the UCI data, 0 … 19 (protein 0 … 4), and of the digits, 0 … 4.

    Raises:
        InputError: an unknown name, a negative seed, files that are missing, unreadable or not what they should be,
            foreign inputs of another shape or that are not there, nothing to download or no network.
        MissingExtraError: digits or photographs without scikit-learn or Pillow.

    >>> load("moons", validation=True)
    Dataset(moons: 800 train, 200 validation, 1000 test, 1000 points on a far ring; 2 inputs, 2 classes)
    """
    if name not in (*NAMES, *REGRESSION_NAMES):
        raise InputError(f"there is no data set {name!r}; known are {', '.join((*NAMES, *REGRESSION_NAMES))}")
    seed = whole_number("seed", seed, 0)
    if split != 0 and name != "digits" and not name.startswith("uci-"):
        raise InputError(f"only digits and the UCI data have splits; {name} has one, got split={split!r}")
    if name in REGRESSION_NAMES:
        if ood is not None or download:
            raise InputError(f"{name} has no foreign inputs and cannot be downloaded; leave ood= and download= out")
        return prepare_table(read_regression(name, data_dir, seed, split), validation, seed)
    _require_fitting(name, ood)
    if name in ("digits", "moons"):
        if download:
            raise InputError(f"{name} needs no files, so there is nothing to download; leave download= out")
        return prepare(digits.read(split) if name == "digits" else moons.generate(seed), validation, seed)
    if data_dir is None:
        fetched = "download=True fetches them into it" if name in openml.SOURCES else "none is downloaded"
        raise InputError(f"{name} is read from files: say where they are with data_dir= (--data-dir); {fetched}")
    if download:
        _download(name, Path(data_dir))
    raw = cifar.read(Path(data_dir), ood) if name == "cifar10" else images.read(name, Path(data_dir), ood)
    return prepare(raw, validation, seed)


def _require_fitting(name: str, ood: str | None) -> None:
    if ood is None:
        return
    allowed: tuple[str, ...] = ()
    if name in images.SETS:
        allowed = tuple(other for other in images.FOREIGN if other != name)
    elif name == "cifar10":
        allowed = cifar.FOREIGN
    if ood in allowed:
        return
    if not allowed:
        raise InputError(f"{name} brings its own foreign inputs; leave ood out, got {ood!r}")
    shape = "3×32×32" if name == "cifar10" else "28×28"
    other = {**dict.fromkeys(images.FOREIGN, "28×28"), **dict.fromkeys((*cifar.FOREIGN, "cifar10"), "3×32×32")}.get(ood)
    reason = f"{ood!r}, whose images are {other}" if other not in (None, shape) else repr(ood)
    raise InputError(f"{name} has images of {shape}, so ood can be {', '.join(allowed)}, got {reason}")


def _download(name: str, directory: Path) -> None:
    if name not in openml.SOURCES:
        raise InputError(
            f"{name} cannot be downloaded, only {', '.join(openml.SOURCES)}; copy its files to {directory}"
        )
    if not (directory.is_dir() and images.is_there(name, directory)):
        openml.fetch(name, directory)


def load_images(path: str | os.PathLike[str], key: str = "x_test") -> Tensor:
    """Images of one's own from an ``.npz`` archive, float32 in their own units, N×H×W or N×3×H×W.

    ``dataset.standardise(load_images("mine.npz"))`` makes inputs of them, to ask a network about.

    Args:
        path: the archive; it may not hold pickled objects.
        key: which of its arrays: numbers, N×H×W, or with C = 1 or 3 channels N×C×H×W or N×H×W×C, which go first then.

    Raises:
        InputError: the file cannot be read, has no such array, or that is of another shape, empty or not finite.
    """
    array = from_archive(Path(path), key)
    if array.dtype.kind not in "uif" or array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(f"{path}: {key} should be numbers, N×H×W or N×C×H×W with N ≥ 1, got {shape_of(array)}")
    if array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = np.moveaxis(array, 3, 1)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 4 and array.shape[1] != 3:
        raise InputError(f"{path}: {key} should have 1 or 3 channels, N×C×H×W or N×H×W×C, got {shape_of(array)}")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: {key} holds NaN or inf; clean the images first")
    largest = max(abs(float(array.min())), abs(float(array.max())))
    if largest > float(np.finfo(np.float32).max):
        raise InputError(f"{path}: {key} goes up to {largest:.3g}, more than float32 holds; give it in larger units")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
