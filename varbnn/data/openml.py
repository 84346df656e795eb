"""MNIST and Fashion-MNIST from openml.org, only ever when asked: ``load("mnist", folder, download=True)``."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np

from varbnn.data.dataset import Array
from varbnn.data.files import reason_of
from varbnn.errors import InputError, import_extra

TRAINING = 60_000


@dataclass(frozen=True)
class Source:
    """A set's name there, the file made of it, and the published MD5 sums of the four idx files."""

    name: str
    archive: str
    sums: dict[str, str]


SOURCES = {
    "mnist": Source(
        "mnist_784",
        "mnist.npz",
        {
            "x_train": "6bbc9ace898e44ae57da46a324031adb",
            "y_train": "a25bea736e30d166cdddb491f175f624",
            "x_test": "2646ac647ad5339dbf082846283269ea",
            "y_test": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion": Source(
        "Fashion-MNIST",
        "fashion_mnist.npz",
        {
            "x_train": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "y_train": "9018921c3c673c538a1fc5bad174d6f9",
            "x_test": "8181f5470baa50b63fa0f6fddb340f0a",
            "y_test": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
}


def fetch(name: str, directory: Path) -> Path:
    """Download the set `name` (a key of `SOURCES`), compare it with the published sums and write it as an archive.

    Raises:
        InputError: no network, no such folder to write to, or other data than published; nothing is written then.
        MissingExtraError: no scikit-learn.
    """
    source = SOURCES[name]
    fetch_openml = import_extra("sklearn.datasets", "sklearn").fetch_openml
    with tempfile.TemporaryDirectory() as cache:
        try:
            bunch = fetch_openml(
                source.name, version=1, as_frame=False, parser="liac-arff", data_home=cache, cache=False
            )
        except (OSError, ValueError, EOFError, HTTPException) as error:  # no network, one that broke off, no such set
            raise InputError(
                f"cannot fetch {source.name} from openml.org: {reason_of(error)}; copy {source.archive} to {directory}"
            ) from None
    images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(bunch.target).astype(np.uint8)
    arrays = {
        "x_train": images[:TRAINING],
        "y_train": labels[:TRAINING],
        "x_test": images[TRAINING:],
        "y_test": labels[TRAINING:],
    }
    wrong = [key for key, array in arrays.items() if idx_sum(array) != source.sums[key]]
    if wrong:
        raise InputError(
            f"{source.name} of openml.org is not what was published: {', '.join(wrong)} differ; nothing is kept. "
            f"Copy {source.archive} to {directory}"
        )
    path, temporary = directory / source.archive, directory / (source.archive + ".part.npz")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason_of(error)}") from None
    return path


def idx_sum(array: Array) -> str:
    """MD5 sum of the idx file that holds this array of bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return hashlib.md5(header + array.tobytes(), usedforsecurity=False).hexdigest()
