"""MNIST and Fashion-MNIST: where their files may lie, and what goes with what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from varbnn.data.dataset import Array, Raw
from varbnn.data.files import find, labels_of, list_directory, pixels_of
from varbnn.errors import InputError

SIDE, CLASSES = 28, 10


@dataclass(frozen=True)
class ImageSet:
    """Names under which a set's files are known; `folders` may hold idx files."""

    title: str
    archives: tuple[str, ...]
    folders: tuple[str, ...]


SETS = {
    "mnist": ImageSet("MNIST", ("mnist.npz",), ("mnist", "MNIST/raw", "MNIST")),
    "fashion": ImageSet(
        "Fashion-MNIST",
        ("fashion_mnist.npz", "fashion-mnist.npz", "fashion.npz"),
        ("fashion", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    ),
}
NOTMNIST = ImageSet("notMNIST", ("notmnist.npz", "notmnist_test.npz"), ("notmnist", "notMNIST"))


def read(name: str, directory: Path) -> Raw:
    """The set `name` (a key of `SETS`) from the files in `directory`, with foreign inputs if there are any.

    Raises:
        InputError: no such directory, a file that is missing, unreadable or not what it should be.
    """
    list_directory(directory)
    train_x, train_y = _part(SETS[name], directory, "train")
    test_x, test_y = _part(SETS[name], directory, "test")
    foreign = [SETS[other] for other in SETS if other != name] + [NOTMNIST]
    ood_x, ood_name = _foreign(foreign, directory)
    note = ""
    if ood_x is None:
        titles = " or ".join(kind.title for kind in foreign)
        examples = " or ".join(kind.archives[0] for kind in foreign)
        note = f"no {titles} in {directory}, so nothing out of distribution to compare with; add {examples}"
    return Raw(
        name=name,
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        ood_x=ood_x,
        ood_name=ood_name,
        shape=(SIDE, SIDE),
        num_classes=CLASSES,
        validation_share=1 / 6,
        note=note,
        value_range=(0, 255),
    )


def _part(kind: ImageSet, directory: Path, part: str) -> tuple[Array, Array]:
    # files that lie in the directory itself do not say which set they are; there the user's word counts
    folders = [directory / folder for folder in kind.folders] + [directory]
    archives = [directory / archive for archive in kind.archives]
    x, y = find(archives, folders, f"x_{part}"), find(archives, folders, f"y_{part}")
    if x is None or y is None:
        raise InputError(
            f"{directory} does not hold {kind.title}: expected {kind.archives[0]} with x_train, y_train, x_test and "
            "y_test, or train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
            f"t10k-labels-idx1-ubyte, with or without .gz, also in a folder {kind.folders[0]}/"
        )
    pixels, labels = pixels_of(x, f"x_{part}", SIDE), labels_of(y, f"y_{part}", CLASSES)
    if len(pixels) != len(labels):
        raise InputError(
            f"{x} has {len(pixels)} images but {y} has {len(labels)} labels; they belong to different sets"
        )
    return pixels, labels


def _foreign(kinds: list[ImageSet], directory: Path) -> tuple[Array | None, str]:
    for kind in kinds:
        archives = [directory / archive for archive in kind.archives]
        found = find(archives, [directory / folder for folder in kind.folders], "x_test")
        if found is not None:
            return pixels_of(found, "x_test", SIDE), f"{kind.title} images"
    return None, ""
