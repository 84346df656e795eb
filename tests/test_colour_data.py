"""CIFAR-10 and other image files: every published form gives the same, and no pickle gets to run anything."""

from __future__ import annotations

import pickle
import pickletools
import sys
from io import StringIO

import numpy as np
import pytest
import torch

from varbnn.data import load, load_images
from varbnn.data.cifar import BATCHES
from varbnn.data.dataset import channel_statistics
from varbnn.data.pickled import read_pickled
from varbnn.errors import InputError, MissingExtraError

GENERATOR = np.random.default_rng(0)
PARTS = {
    name: (GENERATOR.integers(0, 256, (12, 3072), dtype=np.uint8), (np.arange(12) % 10).astype(np.uint8))
    for part in BATCHES.values()
    for name in part
}


def joined(part: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*(PARTS[name] for name in BATCHES[part]), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def write_binary(folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in PARTS.items():
        (folder / f"{name}.bin").write_bytes(np.column_stack([labels, images]).tobytes())


def python_two_pickle(images: np.ndarray, labels: np.ndarray) -> bytes:
    """As the published files were written: protocol 2, keys and data as byte strings of Python 2."""

    def text(content: bytes) -> bytes:
        return b"T" + len(content).to_bytes(4, "little") + content

    def number(value: int) -> bytes:
        return b"M" + value.to_bytes(2, "little")

    shape = b"(" + number(images.shape[0]) + number(images.shape[1]) + b"t"
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"(cnumpy\nndarray\n" + b"(K\x00t" + text(b"b") + b"tR"
    kind = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2
    kind += b"K\x00tb"
    array += b"(K\x01" + shape + kind + b"\x89" + text(images.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    content = b"\x80\x02}(" + text(b"batch_label") + text(b"a batch") + text(b"labels") + listed
    return content + text(b"data") + array + b"u."


def write_python_two(folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in PARTS.items():
        content = python_two_pickle(*arrays)
        pickletools.dis(content, out=StringIO())  # it is a pickle
        (folder / name).write_bytes(content)


def write_python_three(folder, protocol: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in PARTS.items():
        content = {b"data": images, b"labels": labels.tolist(), b"batch_label": b"a batch"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))


def write_archive(folder, channels_last: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part in ("train", "test"):
        images, labels = joined(part)
        images = images.reshape(-1, 3, 32, 32)
        arrays[f"x_{part}"] = images.transpose(0, 2, 3, 1) if channels_last else images
        arrays[f"y_{part}"] = labels[:, None] if channels_last else labels
    np.savez(folder / "cifar10.npz", **arrays)


FORMS = {
    "binary": lambda path: write_binary(path / "cifar-10-batches-bin"),
    "binary, no folder": write_binary,
    "python 2": lambda path: write_python_two(path / "cifar-10-batches-py"),
    "python 3, protocol 2": lambda path: write_python_three(path, 2),
    "python 3, protocol 4": lambda path: write_python_three(path, 4),
    "archive of Keras": lambda path: write_archive(path, channels_last=True),
    "archive, channels first": lambda path: write_archive(path, channels_last=False),
}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_every_form_of_cifar_gives_the_same_pixels_and_labels(tmp_path, write):
    write(tmp_path)
    data = load("cifar10", tmp_path)
    for part, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        images, labels = joined(part)
        assert torch.equal(data.undo(x).round().byte(), torch.from_numpy(images.reshape(-1, 3, 32, 32)))
        assert torch.equal(y, torch.from_numpy(labels).long())
    assert data.shape == (3, 32, 32)
    assert (data.num_classes, data.value_range) == (10, (0, 255))
    assert data.ood_x is None
    assert data.note.startswith("no svhn.npz with x_test in")


def test_each_channel_of_cifar_is_standardised_by_itself(tmp_path):
    write_binary(tmp_path)
    data = load("cifar10", tmp_path, validation=True)
    planes = data.train_x.reshape(-1, 3, 1024).double()
    torch.testing.assert_close(planes.mean((0, 2)), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(planes.std((0, 2), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)
    assert len(data.mean.unique()) == 3
    assert len(data.train_x) + len(data.val_x) == 60


@pytest.mark.parametrize("count", [1, 999, 2500])
def test_channel_statistics_are_those_of_numpy(count):
    images = GENERATOR.integers(0, 256, (count, 12), dtype=np.uint8)
    mean, std = channel_statistics(images, 3)
    planes = images.reshape(count, 3, 4).astype(np.float64)
    np.testing.assert_allclose(mean, planes.mean((0, 2)).repeat(4), rtol=1e-12)
    np.testing.assert_allclose(std, planes.std((0, 2)).repeat(4), rtol=1e-12)


def test_svhn_and_photographs_can_be_foreign_to_cifar(tmp_path):
    write_binary(tmp_path)
    foreign = GENERATOR.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "svhn.npz", x_test=foreign)
    data = load("cifar10", tmp_path)
    assert data.ood_name == "SVHN images"
    assert torch.equal(data.undo(data.ood_x).round().byte(), torch.from_numpy(foreign.transpose(0, 3, 1, 2)))
    patches = load("cifar10", tmp_path, ood="photographs")
    from sklearn.datasets import load_sample_images

    photo = load_sample_images().images[1]
    expected = torch.from_numpy(photo[32:64, 64:96].transpose(2, 0, 1).copy())
    assert torch.equal(patches.undo(patches.ood_x)[260 + 20 + 2].round().byte(), expected)
    assert len(patches.ood_x) == 520


def test_photographs_without_scikit_learn_name_the_extra(tmp_path, monkeypatch):
    write_binary(tmp_path)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"varbnn\[demo\]"):
        load("cifar10", tmp_path, ood="photographs")


# --- pickles that want more ---


class Wants:
    """Pickles into a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


RAN = []


@pytest.mark.parametrize(
    "evil",
    [
        Wants(RAN.append, 1),
        Wants(eval, "print('ran')"),
        Wants(__import__, "os"),
        Wants(getattr, [], "append"),
        Wants(np.fromfile, "/etc/hostname"),
        np.array([{}], dtype=object),
        np.zeros(4),
        {"data": np.zeros(3), "labels": [Wants(exec, "raise SystemExit")]},
    ],
    ids=["method", "eval", "import", "getattr", "numpy", "objects", "floats", "nested"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_asks_for_more_than_bytes_is_refused_and_never_run(tmp_path, evil, protocol):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": evil, "labels": [0]}, protocol=protocol))
    with pytest.raises(InputError) as caught:
        read_pickled(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert RAN == []


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\ndtype\n(}S'arguments'\nI1\nsNtb.",  # state set on the stand-in itself
        b"c_codecs\nencode\n(N}S'__new__'\nI1\nstb.",
        b"cnumpy\nndarray\n(N}S'__setstate__'\nI1\nstb.",
    ],
)
def test_a_pickle_cannot_change_the_stand_ins(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError):
        read_pickled(tmp_path / "file")
    write_python_three(tmp_path, 2)
    np.testing.assert_array_equal(read_pickled(tmp_path / "test_batch")["data"], PARTS["test_batch"][0])


def test_a_damaged_pickle_is_refused_or_read_but_never_anything_else(tmp_path):
    whole = python_two_pickle(PARTS["test_batch"][0][:1], PARTS["test_batch"][1][:1])
    head = whole[: whole.index(b"|") + 40]
    path, refused = tmp_path / "file", 0
    for trial in range(400):
        content = bytearray(whole)
        if trial % 3 == 0:
            content = content[: GENERATOR.integers(0, len(content))]
        else:
            for place in GENERATOR.integers(0, len(head), 1 + trial % 4):
                content[place] = GENERATOR.integers(0, 256)
        path.write_bytes(content)
        try:
            assert isinstance(read_pickled(path), dict)
        except InputError:
            refused += 1
    assert refused > 150


def pickled(**content) -> bytes:
    return pickle.dumps({"data": PARTS["test_batch"][0], "labels": [0] * 12, **content}, protocol=2)


BROKEN = {
    "truncated": (pickled()[:-500], "not a whole pickle of plain arrays .*nothing was run"),
    "empty": (b"", "not a whole pickle"),
    "text": (b"not a pickle at all", "not a whole pickle"),
    "a list": (pickle.dumps([1, 2]), "holds a list, not a dictionary"),
    "another width": (pickled(data=np.zeros((12, 3071), np.uint8)), "data should be N×3072 .* got 12×3071 uint8"),
    "no image": (pickle.dumps({"data": np.zeros((0, 3072), np.uint8)}, protocol=4), "N ≥ 1, got 0×3072"),
    "floats": (pickled(data=np.zeros((12, 3072))), "not one of unsigned bytes"),
    "no data": (pickle.dumps({"labels": [0]}), "data should be N×3072 .* got NoneType"),
    "few labels": (pickled(labels=[0] * 11), "12 images need 12 integer labels, got 11 uint8"),
    "labels of CIFAR-100": (pickled(labels=[55] * 12), r"labels should be 0 … 9, got 55 … 55; is this another"),
    "no labels": (pickled(labels=None), "labels should be a list of integers"),
    "negative labels": (pickled(labels=[-1] * 12), "labels should be a list of integers"),
}


@pytest.mark.parametrize("content, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_python_batch_is_refused_by_name(tmp_path, content, message):
    write_python_three(tmp_path, 2)
    (tmp_path / "data_batch_3").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load("cifar10", tmp_path)
    assert "data_batch_3" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 3072, 3 * 3073 - 1])
def test_a_truncated_binary_batch_is_refused_by_name(tmp_path, size):
    write_binary(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(bytes(size))
    with pytest.raises(InputError, match=rf"data_batch_2\.bin has {size} bytes, not a positive multiple of 3073"):
        load("cifar10", tmp_path)


def test_a_missing_batch_and_an_archive_of_another_shape_are_named(tmp_path):
    with pytest.raises(InputError, match=r"does not hold CIFAR-10: expected .*; data_batch_1 is missing\. A \.tar\.gz"):
        load("cifar10", tmp_path)
    write_binary(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(InputError, match="test_batch is missing"):
        load("cifar10", tmp_path)
    np.savez(tmp_path / "cifar10.npz", x_train=np.zeros((2, 28, 28), np.uint8), y_train=[0, 1])
    with pytest.raises(InputError, match=r"x_train should be N×32×32×3, .* got 2×28×28 uint8"):
        load("cifar10", tmp_path)


# --- images of one's own ---


@pytest.mark.parametrize(
    "array, shape",
    [
        (np.zeros((2, 5, 6), np.uint8), (2, 5, 6)),
        (np.zeros((2, 5, 6, 3)), (2, 3, 5, 6)),
        (np.zeros((2, 5, 6, 1)), (2, 5, 6)),
        (np.zeros((2, 3, 5, 6)), (2, 3, 5, 6)),
        (np.zeros((2, 1, 5, 6)), (2, 5, 6)),
    ],
)
def test_own_images_come_with_their_channels_first(tmp_path, array, shape):
    array = array + np.arange(array.size, dtype=array.dtype).reshape(array.shape)
    np.savez(tmp_path / "mine.npz", x_test=array)
    images = load_images(tmp_path / "mine.npz")
    assert images.dtype == torch.float32
    assert tuple(images.shape) == shape
    assert float(images.sum()) == float(array.sum())
    if shape == (2, 3, 5, 6) and array.shape[3] == 3:
        assert float(images[1, 2, 3, 4]) == float(array[1, 3, 4, 2])


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((2, 4)), "numbers, N×H×W or N×C×H×W with N ≥ 1, got 2×4 float64"),
        (np.zeros((0, 4, 4)), "got 0×4×4"),
        (np.array([["a"]])[None], "got 1×1×1 <U1"),
        (np.full((1, 2, 2), np.nan), "NaN or inf"),
        (np.array([[[{}]]]), "save numbers, and labels as integers"),
    ],
)
def test_own_images_of_another_kind_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "mine.npz", x_test=array)
    with pytest.raises(InputError, match=message):
        load_images(tmp_path / "mine.npz")
    with pytest.raises(InputError, match=r"no array images; it has x_test"):
        load_images(tmp_path / "mine.npz", "images")


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_an_archive_may_hold_one_image(tmp_path, shape):
    images = GENERATOR.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    one = dict(x_test=images[:1], y_test=np.full(shape, 7, dtype=np.uint8))
    np.savez(tmp_path / "cifar10.npz", x_train=images, y_train=np.arange(4, dtype=np.uint8), **one)
    assert load("cifar10", tmp_path).test_y.tolist() == [7]


@pytest.mark.parametrize("shape", [(2, 8, 8, 4), (2, 2, 8, 8), (2, 4, 8, 8)])
def test_own_images_have_one_channel_or_three(tmp_path, shape):
    np.savez(tmp_path / "mine.npz", x_test=np.zeros(shape))
    with pytest.raises(InputError, match="should have 1 or 3 channels"):
        load_images(tmp_path / "mine.npz")


@pytest.mark.filterwarnings("error")
def test_own_images_too_large_for_single_precision_are_called_so(tmp_path):
    np.savez(tmp_path / "mine.npz", x_test=np.full((1, 2, 2), -1e300))
    with pytest.raises(InputError, match=r"goes up to 1e\+300, more than float32 holds"):
        load_images(tmp_path / "mine.npz")
