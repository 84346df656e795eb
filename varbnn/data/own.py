"""Your own data: an .npz archive or a folder of idx files, looked over before anything is trained on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import whole_number
from varbnn.data.dataset import Array, Dataset, set_aside, standardised
from varbnn.data.files import find, list_directory, opened, read_idx
from varbnn.data.images import MNIST_FILES
from varbnn.data.units import Units
from varbnn.errors import InputError

PARTS = ("train", "val", "test")
VALIDATION_SHARE = 1 / 6


def from_files(path: str | os.PathLike[str], seed: int = 0, *, validation: bool = False) -> Dataset:
    """Your own labelled inputs, standardised.

    Args:
        path: an .npz archive with x_train, y_train and, as you like, x_val, y_val, x_test, y_test; or a folder of idx
            files under the names of MNIST's. Inputs have their examples along the first axis and are flattened; labels
            are whole numbers from 0. Images (unsigned bytes, or more than two axes) are standardised by one mean and
            deviation, tables column by column; a column that is constant in x_train becomes 0 in all parts.
        seed: which training data are set aside for validation.
        validation: where there is no x_val, set a sixth of every class of the training data aside.

    Returns:
        The data. Without x_test, `test_x` and `test_y` have no rows. There are no foreign
        inputs.

    Raises:
        InputError: a negative seed, files that are missing or damaged, arrays that do not fit each other or are in
            other units (shares of 0 … 1 and bytes), inputs that are not finite numbers, labels that are no classes, one
            class only, or a class without a validation example.
    """
    path, seed = Path(path), whole_number("seed", seed, 0)
    arrays = _arrays(path)
    x = {part: _inputs(arrays[f"x_{part}"], f"{path}: x_{part}") for part in PARTS if f"x_{part}" in arrays}
    y = {part: labels(arrays[f"y_{part}"], len(x[part]), f"{path}: y_{part}") for part in x}
    units = Units.of(x["train"], _are_images(x["train"]))
    for part in x:
        if x[part].shape[1:] != x["train"].shape[1:]:
            raise InputError(f"{path}: x_{part} is N×{_times(x[part])} but x_train N×{_times(x['train'])}")
        if part != "train":
            units.require_same(x[part], f"{path}: x_{part}")
    num_classes = _classes(y["train"], path)
    if "val" not in x and validation:
        x, y = _split(x, y, seed, path)
    for part in ("val", "test"):
        if part in y:
            below(y[part], num_classes, f"{path}: y_{part}")
    missing = np.setdiff1d(np.arange(num_classes), y.get("val", y["train"]))
    if len(missing):
        raise InputError(
            f"{path}: y_val has no example of class {missing[0]}, so nothing can be chosen by it; add some, or leave "
            "x_val and y_val out; validation=True sets a sixth of every class aside"
        )
    return _standardised(path, x, y, num_classes, units)


def archive_of(path: Path, keys: Sequence[str]) -> dict[str, Array]:
    """Those of the arrays `keys` that an .npz archive holds; nothing in it is unpickled.

    Raises:
        InputError: the file cannot be read, or is no such archive.
    """
    with opened(path) as held:
        if isinstance(held, np.ndarray):
            raise InputError(f"{path} is a single array; expected an .npz with {', '.join(keys)}")
        return {key: np.asarray(held[key]) for key in keys if key in held.files}


def names_in(path: Path) -> str:
    """The names of all arrays in an .npz archive, for a message."""
    with opened(path) as held:
        return ", ".join(sorted(getattr(held, "files", []))) or "nothing"


def labels(array: Array, count: int, where: str) -> Array:
    """Checked class labels, N int64.

    Raises:
        InputError: not one whole number ≥ 0 per input.
    """
    if array.shape == (count, 1):  # a column of a table
        array = array[:, 0]
    if array.shape != (count,):
        shape = "×".join(map(str, array.shape)) or "a single number"
        raise InputError(f"{where} must be one label for each of {count} inputs, got {shape}")
    if array.dtype.kind not in "biuf" or not np.all(np.isfinite(array)) or np.any(array != np.floor(array)):
        named = "; number names alike in every part: np.searchsorted(np.unique(y_train), y)"
        raise InputError(f"{where} must be whole numbers, got {array.dtype}{named * (array.dtype.kind in 'OSUT')}")
    lowest, highest = (int(array.min()), int(array.max())) if count else (0, 0)
    if lowest < 0 or highest >= 2**63:
        raise InputError(f"{where} must be classes from 0 on, got {lowest if lowest < 0 else highest}")
    return array.astype(np.int64)


def below(values: Array, num_classes: int, where: str) -> None:
    """Raise InputError where a label is none of the classes that were trained on."""
    if len(values) and values.max() >= num_classes:
        raise InputError(f"{where} must be 0 … {num_classes - 1}, the classes of y_train, got {values.max()}")


def _arrays(path: Path) -> dict[str, Array]:
    """What there is of x and y of each part; both or neither."""
    if os.path.isdir(path):
        list_directory(path)
        found = {key: find([], [path], names) for key, names in MNIST_FILES.items()}
        arrays = {key: read_idx(file, 3 if key[0] == "x" else 1) for key, file in found.items() if file is not None}
        expected = "train-images-idx3-ubyte and train-labels-idx1-ubyte"
    else:
        arrays = archive_of(path, [f"{kind}_{part}" for part in PARTS for kind in "xy"])
        expected = "x_train and y_train"
    if not {"x_train", "y_train"} <= set(arrays):
        held = ", ".join(sorted(arrays)) or "nothing of the kind" if os.path.isdir(path) else names_in(path)
        raise InputError(f"{path} must hold {expected}, it holds {held}")
    for part in PARTS:
        if (f"x_{part}" in arrays) != (f"y_{part}" in arrays):
            raise InputError(f"{path} holds one of x_{part} and y_{part}; give both or neither")
    return arrays


def _inputs(array: Array, where: str) -> Array:
    if array.ndim >= 2 and len(array) == 0:
        raise InputError(f"{where} has no example; leave it and its labels out, unless there is nothing else")
    if array.dtype.kind not in "fiub" or array.ndim < 2 or 0 in array.shape:
        raise InputError(
            f"{where} must be numbers with the inputs along the first of at least two axes, got "
            f"{'×'.join(map(str, array.shape)) or 'a single'} {array.dtype}"
        )
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise InputError(f"{where} has NaN or infinite entries; clean the data first")
    return array


def _are_images(train: Array) -> bool:
    return train.ndim > 2 or train.dtype == np.uint8


def _classes(train: Array, path: Path) -> int:
    present = np.unique(train)
    if len(present) < 2:
        raise InputError(f"{path}: y_train knows only class {present[0]}; there is nothing to tell apart")
    missing = np.setdiff1d(np.arange(len(present)), present)
    if len(missing):
        raise InputError(
            f"{path}: y_train has labels up to {present[-1]} but no example of class {missing[0]}; number the classes "
            "from 0 without gaps"
        )
    return len(present)


def _split(
    x: dict[str, Array], y: dict[str, Array], seed: int, path: Path
) -> tuple[dict[str, Array], dict[str, Array]]:
    chosen = set_aside(y["train"], VALIDATION_SHARE, seed)
    taken = np.bincount(y["train"][chosen], minlength=y["train"].max() + 1)
    if not taken.all():
        scarce = int(taken.argmin())
        count = int((y["train"] == scarce).sum())
        raise InputError(
            f"{path}: class {scarce} has {count} training example{'s' * (count != 1)}, too few to set one in six aside "
            "for validation; add some, or give x_val and y_val"
        )
    kept = np.ones(len(y["train"]), dtype=bool)
    kept[chosen] = False
    parts = ({"train": a["train"][kept], "val": a["train"][~kept]} for a in (x, y))
    new_x, new_y = ({**a, **part} for a, part in zip((x, y), parts, strict=True))
    return new_x, new_y


def _standardised(path: Path, x: dict[str, Array], y: dict[str, Array], num_classes: int, units: Units) -> Dataset:
    flat = {part: array.reshape(len(array), -1) for part, array in x.items()}
    exact = _precision(flat["train"])
    with np.errstate(over="ignore", invalid="ignore"):  # said where inputs are standardised
        numbers, deviations, varying = _statistics(flat["train"], None if units.images else 0, exact)
    varying = varying & (deviations.astype(exact) > 0)
    if not np.any(varying):
        raise InputError(f"{path}: all inputs of x_train are equal, or nearly; there is nothing to tell them apart by")
    mean = torch.from_numpy(numbers.astype(exact))
    std = torch.from_numpy(np.where(varying, deviations, 0).astype(exact))

    def inputs(part: str) -> Tensor:
        array = flat.get(part, flat["train"][:0])
        return standardised(torch.from_numpy(array.astype(exact)), mean, std, f"{path}: x_{part}")

    def classes(part: str) -> Tensor:
        return torch.from_numpy(y.get(part, y["train"][:0]))

    return Dataset(
        name=path.stem,
        train_x=inputs("train"),
        train_y=classes("train"),
        val_x=inputs("val") if "val" in x else None,
        val_y=classes("val") if "val" in x else None,
        test_x=inputs("test"),
        test_y=classes("test"),
        ood_x=None,
        ood_name="",
        num_classes=num_classes,
        shape=x["train"].shape[1:],
        mean=mean,
        std=std,
        note="no foreign inputs are given",
        units=units,
    )


def _precision(train: Array) -> type[np.floating[Any]]:
    """In which inputs are standardised: of 1e8 + 1 a float32 keeps the 1e8."""
    small = train.dtype.kind != "f" and max(-int(train.min()), int(train.max())) < 2**24
    return np.float32 if small or train.dtype in (np.float16, np.float32) else np.float64


def _statistics(train: Array, axis: int | None, exact: type[np.floating[Any]]) -> tuple[Array, Array, Array]:
    """Mean, deviation, and what varies: of all numbers, or of each column for `axis` 0."""
    varying = np.asarray(train.max(axis) != train.min(axis))
    if exact is np.float32:  # sums in float64 are as good as exact
        mean, std = (np.asarray(getattr(train, name)(axis, dtype=np.float64)) for name in ("mean", "std"))
        return mean, std, varying
    first = train.flat[0] if axis is None else train[0]  # far from zero, sums of what is left keep their digits
    rest = train.astype(np.float64) - first
    return np.asarray(first + rest.mean(axis)), np.asarray(rest.std(axis)), varying


def _times(array: Array) -> str:
    return "×".join(map(str, array.shape[1:]))
