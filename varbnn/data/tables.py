"""Regression data: Snelson's curve and the UCI tables from the user's files, and a curve that needs none."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import numpy as np

from varbnn.checks import whole_number
from varbnn.data.dataset import Array
from varbnn.data.files import from_archive, list_directory, reason_of, shape_of
from varbnn.data.real_targets import RawTable
from varbnn.errors import InputError

RegressionName = Literal[
    "curve", "snelson", "uci-boston", "uci-concrete", "uci-energy", "uci-kin8nm", "uci-naval", "uci-power",
    "uci-protein", "uci-wine-red", "uci-yacht",
]  # fmt: skip
UCI: dict[str, tuple[int, int, int]] = {
    "boston": (506, 13, 20),
    "concrete": (1030, 8, 20),
    "energy": (768, 8, 20),
    "kin8nm": (8192, 8, 20),
    "naval": (11934, 16, 20),
    "power": (9568, 4, 20),
    "protein": (45730, 9, 5),
    "wine-red": (1599, 11, 20),
    "yacht": (308, 6, 20),
}
"""Rows, features and splits, by which a file is known to be the right one."""
SEPARATOR, QUOTED = re.compile(r"[ ]*[,;\t][ ]*|[ ]+"), re.compile('^"(.*)"$')
SNELSON_FILES = {"x_train": "train_inputs", "y_train": "train_outputs", "x_test": "test_inputs"}


def read_regression(name: str, data_dir: str | os.PathLike[str] | None, seed: int, split: int) -> RawTable:
    """The data set `name` in its own units.

    Raises:
        InputError: no directory where one is needed, or files that are not what they should be.
    """
    if name == "curve":
        return curve(seed)
    if data_dir is None:
        raise InputError(f"{name} is read from files: say where they are with data_dir=; none is downloaded")
    return snelson(Path(data_dir)) if name == "snelson" else uci(name, Path(data_dir), split)


def curve(seed: int) -> RawTable:
    """200 + 200 points of a wavy line with noise, on 0 … 6 with a gap, as Snelson's data look."""
    generator = np.random.default_rng(seed)

    def points() -> tuple[Array, Array]:
        x = generator.uniform(0, 5.2, 200)
        x = np.where(x > 2.6, x + 0.8, x)  # nothing between 2.6 and 3.4
        y = np.sin(2.2 * x) + 0.6 * np.cos(4.1 * x) - 0.1 * x
        return x[:, None], y + 0.25 * generator.standard_normal(200)

    train, test = points(), points()
    return RawTable("curve", *train, *test)


def snelson(directory: Path) -> RawTable:
    """200 points to train on and a grid of test inputs without targets, from `snelson.npz` or the original text files.

    Raises:
        InputError: no such file, or one that is not what it should be.
    """
    list_directory(directory)
    archive = directory / "snelson.npz"
    found: dict[str, Array] = {}
    for key, file in SNELSON_FILES.items():
        texts = [folder / (file + ending) for folder in (directory, directory / "snelson") for ending in ("", ".txt")]
        path = next((path for path in (archive, *texts) if path.exists()), None)
        if path is None:
            raise InputError(
                f"{directory} does not hold Snelson's data: expected snelson.npz with {', '.join(SNELSON_FILES)}, or "
                f"the text files {', '.join(SNELSON_FILES.values())}, also in a folder snelson/"
            )
        values = from_archive(path, key) if path == archive else read_table(path)
        found[key] = _numbers(np.asarray(values).squeeze(), path, key, dimensions=1)
    x, y, grid = (found[key] for key in SNELSON_FILES)
    if len(x) != len(y):
        raise InputError(f"{directory}: {len(x)} training inputs but {len(y)} outputs; they belong to different files")
    return RawTable("snelson", x[:, None], y, grid[:, None], None, note="no test targets were published")


def uci(name: str, directory: Path, split: int) -> RawTable:
    """One published split of a UCI table (nine tenths to train on), from `name`.npz with x and y, or .csv or .txt.

    The splits are those of Hernández-Lobato and Adams (2015): permutations by numpy's legacy generator, seed 1. In a
    table the last column is the target; columns are separated by commas, semicolons or white space, and a first line of
    names is skipped.

    Raises:
        InputError: no such file, one that is not what it should be, or a split that was not published.
    """
    list_directory(directory)
    key = name.removeprefix("uci-")
    rows, features, splits = UCI[key]
    split = whole_number("split", split, 0, splits - 1, note=f" for {name}")
    stems = [folder / stem for folder in (directory, directory / "uci") for stem in {key, key.replace("-", "_")}]
    path = next((Path(f"{stem}{end}") for stem in stems for end in (".npz", ".csv", ".txt")
                 if Path(f"{stem}{end}").exists()), None)  # fmt: skip
    if path is None:
        raise InputError(
            f"{directory} does not hold {name}: expected {key}.npz with x and y, or {key}.csv or {key}.txt with the "
            "target in the last column, also in a folder uci/"
        )
    if path.suffix == ".npz":
        x, y = (from_archive(path, array) for array in ("x", "y"))
    else:
        table = read_table(path)
        x, y = table[:, :-1], table[:, -1]
    x, y = _numbers(x, path, "x", dimensions=2), _numbers(y, path, "y", dimensions=1)
    if x.shape != (rows, features) or len(y) != rows:
        raise InputError(
            f"{path}: {name} has {rows} rows of {features} features, got {x.shape[0]} of {x.shape[1]} and {len(y)} "
            "targets; is this another data set, or a part of it?"
        )
    generator = np.random.RandomState(1)
    for _ in range(split + 1):
        order = generator.choice(range(rows), rows, replace=False)
    train, test = np.split(order, [round(0.9 * rows)])
    return RawTable(name, x[train], y[train], x[test], y[test])


def read_table(path: Path) -> Array:
    """Numbers from a text file, rows × columns, quoted or not, with or without a first line of names.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # of what spreadsheets write, without its mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}; get the file again") from None
    rows = [_cells(bare) for line in lines if (bare := line.strip(" ").rstrip(",; \t"))]
    if rows and rows[0][0] and not _is_number(rows[0][0]):
        rows = rows[1:]
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise InputError(f"{path} should be a table of numbers, got {len(rows)} rows of {sorted(widths)} columns")
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path} should be a table of numbers: {reason_of(error)}; clean the file") from None


def _cells(line: str) -> list[str]:
    """Those of one line, also the empty ones between two separators.

    >>> _cells('1, "2",,4')
    ['1', '2', '', '4']
    """
    return [QUOTED.sub(r"\1", cell) for cell in SEPARATOR.split(line)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(values: Array, path: Path, key: str, dimensions: int) -> Array:
    if values.ndim != dimensions or values.dtype.kind not in "fiu" or len(values) == 0:
        found = shape_of(values)
        raise InputError(f"{path}: {key} should be numbers in {dimensions} dimension(s), got {found}; get it again")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {key} holds NaN or inf; clean the file")
    return values.astype(np.float64)
