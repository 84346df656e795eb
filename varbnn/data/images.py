"""MNIST and the sets of its format: where their files may lie, and what goes with what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from varbnn.data.dataset import Array, Raw
from varbnn.data.files import find, labels_of, list_directory, pixels_of, read_idx
from varbnn.data.openml import SOURCES, idx_sum
from varbnn.errors import InputError

SIDE = 28
MNIST_FILES = {
    "x_train": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "y_train": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    "x_test": ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    "y_test": ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}
LETTERS_FILES = {
    key: (f"emnist-letters-{part}-{kind}",)
    for part in ("train", "test")
    for key, kind in ((f"x_{part}", "images-idx3-ubyte"), (f"y_{part}", "labels-idx1-ubyte"))
}


@dataclass(frozen=True)
class ImageSet:
    """Names under which a set's files are known, and how they differ from MNIST's.

    Attributes:
        folders: may hold idx files.
        idx_files: their names, which may be those of other sets too.
        transposed: rows and columns are exchanged in the idx files.
    """

    title: str
    archives: tuple[str, ...]
    folders: tuple[str, ...]
    idx_files: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MNIST_FILES)
    classes: int = 10
    first_label: int = 0
    transposed: bool = False


SETS = {
    "mnist": ImageSet("MNIST", ("mnist.npz",), ("mnist", "MNIST/raw", "MNIST")),
    "fashion": ImageSet(
        "Fashion-MNIST",
        ("fashion_mnist.npz", "fashion-mnist.npz", "fashion.npz"),
        ("fashion", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    ),
    "notmnist": ImageSet("notMNIST", ("notmnist.npz", "notmnist_test.npz"), ("notmnist", "notMNIST")),
    "emnist-letters": ImageSet(
        "EMNIST letters",
        ("emnist_letters.npz", "emnist-letters.npz", "emnist_letters_test.npz"),
        ("emnist", "EMNIST/raw", "EMNIST", "gzip"),
        LETTERS_FILES,
        classes=26,
        first_label=1,
        transposed=True,
    ),
}
DIGIT_LIKE = "bgiloqsz"
"""Letters that, in one of their cases, are often written as a digit is: 6 8, 6 9, 1, 1, 0, 9, 5, 2. A judgement."""
UNLIKE_DIGITS = "emnist-unlike-digits"
FOREIGN = (*SETS, UNLIKE_DIGITS)
"""What can be foreign to one of these sets."""
RELATIVES = {("notmnist", "emnist-letters"), ("emnist-letters", "notmnist")}
"""Both are letters: not foreign to each other unless asked for."""


def read(name: str, directory: Path, ood: str | None = None) -> Raw:
    """The set `name` (a key of `SETS`) from the files in `directory`, with foreign inputs if there are any.

    Args:
        ood: which ones, of `FOREIGN`; absent, the first set whose files are there.

    Raises:
        InputError: no such directory, a file that is missing, unreadable or not what it should be, foreign inputs that
            are asked for and not there.
    """
    list_directory(directory)
    train_x, train_y = _part(name, directory, "train")
    test_x, test_y = _part(name, directory, "test")
    others = [other for other in SETS if other != name and (name, other) not in RELATIVES]
    ood_x, ood_name = _foreign(others if ood is None else [ood], directory)
    note = ""
    if ood_x is None:
        kinds = [SETS[other] for other in (others if ood is None else [_set_of(ood)])]
        titles = " or ".join(kind.title for kind in kinds)
        examples = " or ".join(kind.archives[0] for kind in kinds)
        note = f"no {titles} in {directory}, so nothing out of distribution to compare with; add {examples}"
        if ood is not None:
            raise InputError(f"ood={ood!r}: {note}")
    return Raw(
        name=name,
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        ood_x=ood_x,
        ood_name=ood_name,
        shape=(SIDE, SIDE),
        num_classes=SETS[name].classes,
        validation_share=1 / 6,
        note=note,
        value_range=(0, 255),
    )


def is_there(name: str, directory: Path) -> bool:
    """Whether there is an archive or a folder of the set `name`, or what was published of it without a folder."""
    return _find(SETS[name], directory, "x_train", anywhere=_published(directory) == name) is not None


def _published(directory: Path) -> str | None:
    """Which set was published with the labels that lie in `directory` itself, under the names that sets share."""
    for key in ("y_train", "y_test"):
        path = find([], [directory], MNIST_FILES[key])
        if path is not None:
            try:
                found = idx_sum(read_idx(path, 1))
            except InputError:  # said where it is read, if it is
                return None
            return next((name for name, source in SOURCES.items() if source.sums[key] == found), None)
    return None


def _find(kind: ImageSet, directory: Path, key: str, anywhere: bool) -> Path | None:
    # MNIST's file names are used by other sets too; where they lie in the directory itself the user's word counts
    own_names = kind.idx_files is not MNIST_FILES
    folders = [directory / folder for folder in kind.folders] + [directory] * (anywhere or own_names)
    return find([directory / archive for archive in kind.archives], folders, kind.idx_files[key])


def _part(name: str, directory: Path, part: str) -> tuple[Array, Array]:
    kind, published = SETS[name], _published(directory)
    x, y = (_find(kind, directory, f"{axis}_{part}", anywhere=published in (None, name)) for axis in "xy")
    if x is None or y is None:
        *names, last = [names[0] for names in kind.idx_files.values()]
        raise InputError(
            f"{directory} does not hold {kind.title}: expected {kind.archives[0]} with x_train, y_train, x_test and "
            f"y_test, or {', '.join(names)} and {last}, with or without .gz, also in a folder {kind.folders[0]}/"
            + (f"; what lies there itself is {SETS[published].title}" if published not in (None, name) else "")
        )
    pixels = _upright(kind, x, f"x_{part}")
    labels = labels_of(y, f"y_{part}", kind.classes, kind.first_label)
    if len(pixels) != len(labels):
        raise InputError(
            f"{x} has {len(pixels)} images but {y} has {len(labels)} labels; they belong to different sets"
        )
    return pixels, labels


def _upright(kind: ImageSet, path: Path, key: str) -> Array:
    pixels = pixels_of(path, key, SIDE)
    if not kind.transposed or path.suffix == ".npz":
        return pixels
    return np.ascontiguousarray(pixels.reshape(-1, SIDE, SIDE).swapaxes(1, 2)).reshape(len(pixels), -1)


def _set_of(ood: str) -> str:
    return "emnist-letters" if ood == UNLIKE_DIGITS else ood


def _foreign(names: Iterable[str], directory: Path) -> tuple[Array | None, str]:
    for name in names:
        kind = SETS[_set_of(name)]
        found = _find(kind, directory, "x_test", anywhere=False)
        if found is None:
            continue
        if name != UNLIKE_DIGITS:
            like = f", of which {' '.join(DIGIT_LIKE)} can look like digits" if name == "emnist-letters" else " images"
            return _upright(kind, found, "x_test"), f"{kind.title}{like}"
        pixels, labels = _part(_set_of(name), directory, "test")
        likes = [ord(letter) - ord("a") for letter in DIGIT_LIKE]
        return pixels[~np.isin(labels, likes)], f"{kind.title} but {' '.join(DIGIT_LIKE)}"
    return None, ""
