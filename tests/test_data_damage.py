"""Files of numpy that are damaged are refused by every reader, and whatever is wrong with them is an InputError."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from varbnn.cli.arguments import inputs
from varbnn.data import load_images
from varbnn.data.files import from_archive
from varbnn.data.own import archive_of
from varbnn.errors import InputError

ARRAYS = {"x": np.arange(12.0).reshape(3, 4), "y": np.arange(3)}
READERS = {
    "an archive's array": lambda path: from_archive(path, "x"),
    "several": lambda path: archive_of(path, ["x", "y"]),
    "the terminal's": lambda path: inputs(str(path), None),
}


def content(save, *arrays, **named) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


FILES = {
    "one.npy": content(np.save, ARRAYS["x"]),
    "stored.npz": content(np.savez, **ARRAYS),
    "compressed.npz": content(np.savez_compressed, **ARRAYS),
}


def damaged(whole: bytes, random: np.random.Generator) -> bytes:
    """With one to three bytes changed, or cut."""
    if random.random() < 0.1:
        return whole[: random.integers(len(whole))]
    result = bytearray(whole)
    for place in random.integers(len(whole), size=random.integers(1, 4)):
        result[place] ^= 1 << random.integers(8) if random.random() < 0.5 else random.integers(1, 256)
    return bytes(result)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_of_damaged_files_nothing_but_an_input_error_comes(tmp_path, name, reader):
    random, path, told = np.random.default_rng(0), tmp_path / name, []
    for _ in range(600):
        path.write_bytes(damaged(FILES[name], random))
        try:
            reader(path)
        except InputError as error:
            told.append(str(error))
    assert len(told) > 100
    assert all(str(path) in line and "\n" not in line for line in told)


COMPRESSION, ENCRYPTION = 10, 8  # where a zip's central directory says how, and whether


def marked(whole: bytes, offset: int, value: int) -> bytes:
    """An archive whose first entry says in the directory that it is packed in another way."""
    place = whole.index(b"PK\x01\x02") + offset
    return whole[:place] + bytes([value]) + whole[place + 1 :]


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "file",
    [
        marked(FILES["compressed.npz"], COMPRESSION, 99),
        marked(FILES["compressed.npz"], ENCRYPTION, 1),
        FILES["compressed.npz"].replace(b"PK\x01\x02", b"PK\x01\x03"),
        FILES["one.npy"].replace(b"'descr'", b"'descr("),
        FILES["one.npy"].replace(b"(3, 4)", b"(3, 4("),
        FILES["one.npy"].replace(b"(3, 4), }" + 10 * b" ", b"(3, 4" + 12 * b"0" + b"), "),
    ],
    ids=["unknown compression", "encrypted", "no directory", "header", "brackets", "more than memory"],
)
def test_what_numpy_and_zip_files_stumble_over_is_an_input_error(tmp_path, reader, file):
    path = tmp_path / "file.npz"
    path.write_bytes(file)
    with pytest.raises(InputError):
        reader(path)


@pytest.mark.parametrize("name", ["mine.npy", "mine.npz"])
def test_a_single_array_is_no_archive_whatever_its_name(tmp_path, name):
    path = Path(tmp_path / name)
    path.write_bytes(FILES["one.npy"])
    with pytest.raises(InputError, match=r"is a single array; expected an \.npz with x_test"):
        load_images(path)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_of_python_objects_it_says_what_to_save_instead(tmp_path, reader):
    np.savez(tmp_path / "objects.npz", x=np.array([1, None], dtype=object))
    with pytest.raises(InputError, match="save numbers, and labels as integers"):
        reader(tmp_path / "objects.npz")
