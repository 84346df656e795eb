"""Data sets: what they hold, that they stay the same, and that no broken file gets through."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from http.client import IncompleteRead
from urllib.error import URLError

import numpy as np
import pytest
import torch

from varbnn import data
from varbnn.data import NAMES, Dataset, batches, load
from varbnn.data.files import read_idx
from varbnn.data.openml import SOURCES
from varbnn.errors import InputError, MissingExtraError, VarbnnWarning

IDX = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 40)}
IDX["test"] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 20)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def image_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    arrays = {}
    for part, (*_, count) in IDX.items():
        arrays[f"x_{part}"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype(np.uint8)
    return arrays


def write_idx(folder, seed: int = 0, gz: bool = False) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = image_arrays(seed)
    for part, (images, labels, _) in IDX.items():
        for name, key in ((images, f"x_{part}"), (labels, f"y_{part}")):
            content = idx_bytes(arrays[key])
            path = folder / (name + ".gz" * gz)
            path.write_bytes(gzip.compress(content) if gz else content)
    return arrays


# --- every data set ---


@pytest.mark.parametrize("name", ["digits", "moons", "mnist"])
@pytest.mark.parametrize("validation", [False, True])
def test_training_inputs_are_standardised_and_statistics_undo_it(name, validation, tmp_path):
    np.savez(tmp_path / "mnist.npz", **image_arrays())
    data = load(name, tmp_path, validation=validation)
    axis = 0 if name == "moons" else None
    np.testing.assert_allclose(data.train_x.numpy().mean(axis), 0, atol=1e-5)
    np.testing.assert_allclose(data.train_x.numpy().std(axis), 1, atol=1e-5)
    assert {data.train_x.dtype, data.test_x.dtype} == {torch.float32}
    assert {data.train_y.dtype, data.test_y.dtype} == {torch.int64}
    if name != "moons":
        raw = data.undo(data.test_x)
        assert raw.shape[1:] == data.shape
        torch.testing.assert_close(raw, raw.round(), atol=1e-4, rtol=0)  # pixels are whole numbers again


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_loading_twice_gives_the_same_and_leaves_random_states_alone(name):
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 - that one is meant
    first, second = load(name, seed=3, validation=True), load(name, seed=3, validation=True)
    for field in ("train_x", "train_y", "val_x", "val_y", "test_x", "test_y", "ood_x"):
        assert torch.equal(getattr(first, field), getattr(second, field)), field
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_another_seed_sets_other_digits_aside_and_tests_on_the_same(digits):
    first, second = load("digits", seed=0, validation=True), load("digits", seed=1, validation=True)
    assert not torch.equal(first.undo(first.val_x), second.undo(second.val_x))
    assert torch.equal(first.test_y, second.test_y)
    torch.testing.assert_close(first.undo(first.test_x), second.undo(second.test_x))
    torch.testing.assert_close(first.undo(first.test_x), digits.undo(digits.test_x))


def test_train_validation_and_test_digits_share_no_image(digits):
    data = load("digits", validation=True)
    parts = {part: data.undo(getattr(data, f"{part}_x")).round().flatten(1) for part in ("train", "val", "test")}
    rows = {part: {tuple(row) for row in images.tolist()} for part, images in parts.items()}
    assert [len(images) for images in parts.values()] == [1150, 287, 360]
    assert not rows["train"] & rows["val"]
    assert not rows["train"] & rows["test"]
    assert not rows["val"] & rows["test"]
    assert rows["train"] | rows["val"] == {
        tuple(row) for row in digits.undo(digits.train_x).round().flatten(1).tolist()
    }


def test_validation_is_stratified():
    data = load("digits", validation=True)
    everyone = torch.bincount(torch.cat([data.train_y, data.val_y]))
    torch.testing.assert_close(torch.bincount(data.val_y) / everyone, torch.full((10,), 0.2), atol=0.005, rtol=0)


def test_digits_follow_the_published_split(digits):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    train, test, _, labels = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    np.testing.assert_allclose(digits.test_x.numpy(), (test - train.mean()) / train.std(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(digits.test_y.numpy(), labels)


def test_the_five_splits_test_every_digit_once():
    from sklearn.datasets import load_digits

    parts = [load("digits", split=split) for split in range(5)]
    tested = torch.cat([part.undo(part.test_x).flatten(1).round() for part in parts])
    assert len(tested) == 1797
    everything, labels = load_digits(return_X_y=True)
    assert sorted(map(tuple, tested.tolist())) == sorted(map(tuple, everything.tolist()))
    for part in parts:
        whole = torch.cat([part.undo(part.train_x), part.undo(part.test_x)]).flatten(1).round()
        assert sorted(map(tuple, whole.tolist())) == sorted(map(tuple, everything.tolist()))  # nothing twice, none lost
        shares = torch.bincount(part.test_y) / torch.bincount(torch.from_numpy(labels))
        torch.testing.assert_close(shares, torch.full((10,), 0.2), atol=0.006, rtol=0)  # one digit of about 180


@pytest.mark.parametrize("split", [-1, 5, 0.5, True])
def test_a_split_that_is_not_there_is_refused(split):
    with pytest.raises(InputError, match="split must be a whole number from 0 to 4 for digits"):
        load("digits", split=split)


def test_foreign_digits_are_tiles_of_the_photographs_on_the_digits_levels(digits):
    from sklearn.datasets import load_sample_images

    patches = digits.undo(digits.ood_x).numpy()
    assert patches.shape == (360, 8, 8)
    assert np.ptp(patches.reshape(360, -1), axis=1).min() > 0.5, "a flat patch shows nothing"
    np.testing.assert_allclose(patches, patches.round(), atol=1e-4)
    assert patches.min() > -0.01
    assert patches.max() < 16.01
    tiles = set()
    for photo in load_sample_images().images:
        grey = np.round(photo @ [0.299, 0.587, 0.114] * 16 / 255)
        tiles |= {
            grey[i : i + 8, j : j + 8].tobytes() for i in range(0, grey.shape[0] - 7, 8) for j in range(0, 640, 8)
        }
    assert {patch.round().astype(np.float64).tobytes() for patch in patches} <= tiles


def test_the_ring_lies_beyond_every_moon():
    data = load("moons", seed=5)
    centre = torch.tensor([0.5, 0.25])
    moons = torch.cat([data.undo(data.train_x), data.undo(data.test_x)])
    assert (data.undo(data.ood_x) - centre).norm(dim=1).min() > (moons - centre).norm(dim=1).max()


@pytest.mark.parametrize("missing", ["sklearn.datasets", "PIL"])
def test_digits_without_an_extra_name_it(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"varbnn\[demo\]"):
        load("digits")


def test_an_unknown_name_and_a_bad_seed_are_refused():
    with pytest.raises(
        InputError, match="'cifar'; known are digits, moons, mnist, fashion, notmnist, emnist-letters, cifar10"
    ):
        load("cifar")
    for seed in (-1, 0.5, True):
        with pytest.raises(InputError, match="seed must be a whole number ≥ 0"):
            load("moons", seed=seed)
    assert torch.equal(load("moons", seed=np.int64(3)).train_x, load("moons", seed=3).train_x)
    assert NAMES == ("digits", "moons", "mnist", "fashion", "notmnist", "emnist-letters", "cifar10")


# --- MNIST and Fashion-MNIST from files ---


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_idx_files_are_found_and_read(tmp_path, gz, folder):
    arrays = write_idx(tmp_path / folder, gz=gz)
    data = load("mnist", tmp_path)
    assert torch.equal(data.undo(data.train_x).round().byte(), torch.from_numpy(arrays["x_train"]))
    assert torch.equal(data.test_y, torch.from_numpy(arrays["y_test"]).long())
    assert data.ood_x is None
    assert data.note.startswith("no Fashion-MNIST or notMNIST or EMNIST letters in")


def test_an_archive_gives_the_same_as_idx_files(tmp_path):
    write_idx(tmp_path / "idx")
    np.savez_compressed(tmp_path / "mnist.npz", **image_arrays())
    assert torch.equal(load("mnist", tmp_path).train_x, load("mnist", tmp_path / "idx").train_x)


def test_each_set_is_foreign_to_the_other_and_notmnist_to_both(tmp_path):
    np.savez(tmp_path / "mnist.npz", **image_arrays(0))
    np.savez(tmp_path / "fashion_mnist.npz", **image_arrays(1))
    assert load("mnist", tmp_path).ood_name == "Fashion-MNIST images"
    assert load("fashion", tmp_path).ood_name == "MNIST images"
    fashion = load("fashion", tmp_path)
    assert torch.equal(fashion.undo(fashion.ood_x).round().byte(), torch.from_numpy(image_arrays(0)["x_test"]))
    (tmp_path / "mnist.npz").rename(tmp_path / "notmnist.npz")
    assert load("fashion", tmp_path).ood_name == "notMNIST images"


def test_files_of_one_set_are_never_taken_for_the_other(tmp_path):
    write_idx(tmp_path / "fashion")
    with pytest.raises(InputError, match=r"does not hold MNIST: expected mnist\.npz with x_train"):
        load("mnist", tmp_path)


def test_mnist_needs_a_directory(tmp_path):
    with pytest.raises(InputError, match=r"--data-dir.*; download=True fetches them"):
        load("mnist")
    with pytest.raises(InputError, match=r"--data-dir.*; none is downloaded"):
        load("notmnist")
    with pytest.raises(InputError, match=r"cannot read the data directory .*: no such file"):
        load("mnist", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot read the data directory .*: not a directory"):
        load("mnist", tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_directory_is_named(tmp_path):
    tmp_path.chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        load("mnist", tmp_path)
    tmp_path.chmod(0o700)


WHOLE = idx_bytes(image_arrays()["x_train"])
BROKEN_FILES = {
    "truncated": (WHOLE[:-1], "announces 40×28×28 bytes but has 31359"),
    "too long": (WHOLE + b"x", "announces 40×28×28 bytes but has 31361"),
    "no data": (WHOLE[:16], "but has 0"),
    "half a header": (WHOLE[:9], "announces a longer header"),
    "empty": (b"", "starts with 0x,"),
    "labels instead": (idx_bytes(image_arrays()["y_train"]), "starts with 0x00000801"),
    "still compressed": (gzip.compress(WHOLE), "still compressed"),
    "another size": (idx_bytes(np.zeros((40, 32, 32))), "should be N×28×28 unsigned bytes.*got 40×32×32 uint8"),
    "no image": (idx_bytes(np.zeros((0, 28, 28))), "N ≥ 1, got 0×28×28"),
    "too few": (idx_bytes(image_arrays()["x_train"][:39]), "has 39 images but .* has 40 labels"),
    "constant": (idx_bytes(np.zeros((40, 28, 28))), "constant"),
}


@pytest.mark.parametrize("content, message", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_image_file_is_refused_by_name(tmp_path, content, message):
    write_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load("mnist", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (WHOLE, "not a whole gzip file"),
        (gzip.compress(WHOLE)[:-20], "cannot read .*end-of-stream"),
        (gzip.compress(WHOLE)[:20], "cannot read"),
        (b"", "starts with 0x,"),
    ],
    ids=["not compressed", "truncated", "header only", "empty"],
)
def test_a_broken_gzip_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


def test_labels_out_of_range_are_refused(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(20)))
    with pytest.raises(InputError, match="labels should be 0 … 9, got 0 … 19"):
        load("mnist", tmp_path)


def corrupt_archive(arrays, path):
    np.savez(path, **arrays)
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)


def incomplete_archive(arrays, path):
    np.savez(path, **{key: value for key, value in arrays.items() if key != "y_train"})


def pickled_archive(arrays, path):
    np.savez(path, **{**arrays, "x_train": np.array([{}], dtype=object)})


def real_archive(arrays, path):
    np.savez(path, **{**arrays, "x_train": arrays["x_train"] / 255})


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda arrays, path: path.write_bytes(b"nothing of the kind"), "not a readable .npy or .npz file"),
        (lambda arrays, path: path.write_bytes(b""), "not a readable .npy or .npz file"),
        (corrupt_archive, "not a readable .npy or .npz file"),
        (incomplete_archive, "has no array y_train"),
        (pickled_archive, "not a readable .npy or .npz file"),
        (real_archive, "unsigned bytes .*got 40×28×28 float64"),
        (lambda arrays, path: path.mkdir(), "cannot read .*: is a directory"),
    ],
    ids=["text", "empty", "corrupt", "incomplete", "pickled", "floating", "directory"],
)
def test_a_broken_archive_is_refused_by_name(tmp_path, write, message):
    write(image_arrays(), tmp_path / "mnist.npz")
    with pytest.raises(InputError, match=message) as caught:
        load("mnist", tmp_path)
    assert str(tmp_path / "mnist.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_foreign_file_is_not_passed_over(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "fashion_mnist.npz").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"fashion_mnist\.npz"):
        load("mnist", tmp_path)


# --- notMNIST, EMNIST letters, foreign sets by name, and downloads ---


def letters(seed: int = 3) -> dict[str, np.ndarray]:
    arrays = image_arrays(seed)
    return arrays | {key: (np.arange(len(arrays[key])) % 26 + 1).astype(np.uint8) for key in ("y_train", "y_test")}


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("folder", ["", "EMNIST/raw"])
def test_letters_of_idx_files_are_turned_upright_and_counted_from_zero(tmp_path, gz, folder):
    arrays = letters()
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for key, array in arrays.items():
        kind = "images-idx3-ubyte" if key.startswith("x") else "labels-idx1-ubyte"
        stored = array.transpose(0, 2, 1) if key.startswith("x") else array
        path = tmp_path / folder / (f"emnist-letters-{key[2:]}-{kind}" + ".gz" * gz)
        path.write_bytes(gzip.compress(idx_bytes(stored)) if gz else idx_bytes(stored))
    data = load("emnist-letters", tmp_path)
    assert torch.equal(data.undo(data.train_x).round().byte(), torch.from_numpy(arrays["x_train"]))
    assert torch.equal(data.train_y, torch.from_numpy(arrays["y_train"]).long() - 1)
    assert data.num_classes == 26
    np.savez(tmp_path / "emnist_letters.npz", **arrays)
    assert torch.equal(load("emnist-letters", tmp_path).test_x, data.test_x)


def test_labels_of_letters_that_start_at_zero_are_refused(tmp_path):
    np.savez(tmp_path / "emnist_letters.npz", **letters() | {"y_train": np.arange(40) % 26})
    with pytest.raises(InputError, match="labels should be 1 … 26, got 0 … 25"):
        load("emnist-letters", tmp_path)


def test_notmnist_is_a_set_like_mnist_and_letters_are_not_foreign_to_it(tmp_path):
    write_idx(tmp_path / "notMNIST")
    np.savez(tmp_path / "emnist_letters.npz", **letters())
    data = load("notmnist", tmp_path)
    assert data.ood_x is None
    assert "EMNIST" not in data.note
    assert load("notmnist", tmp_path, ood="emnist-letters").ood_name.startswith("EMNIST letters")


def test_the_foreign_set_can_be_chosen_and_letters_like_digits_left_out(tmp_path):
    np.savez(tmp_path / "mnist.npz", **image_arrays(0))
    np.savez(tmp_path / "fashion.npz", **image_arrays(1))
    np.savez(tmp_path / "notmnist_test.npz", **{k: v for k, v in image_arrays(2).items() if k.endswith("test")})
    np.savez(tmp_path / "emnist_letters_test.npz", **{k: v for k, v in letters().items() if k.endswith("test")})
    assert load("mnist", tmp_path).ood_name == "Fashion-MNIST images"
    chosen = load("mnist", tmp_path, ood="notmnist")
    assert chosen.ood_name == "notMNIST images"
    assert torch.equal(chosen.undo(chosen.ood_x).round().byte(), torch.from_numpy(image_arrays(2)["x_test"]))
    every = load("mnist", tmp_path, ood="emnist-letters")
    assert every.ood_name == "EMNIST letters, of which b g i l o q s z can look like digits"
    assert len(every.ood_x) == 20
    unlike = load("mnist", tmp_path, ood="emnist-unlike-digits")
    kept = [i for i in range(20) if chr(ord("a") + i) not in "bgiloqsz"]
    assert torch.equal(unlike.ood_x, every.ood_x[kept])
    with pytest.raises(InputError, match=r"has no array x_train; it has x_test, y_test"):
        load("notmnist", tmp_path)


@pytest.mark.parametrize(
    "name, ood, message",
    [
        ("mnist", "svhn", "mnist has images of 28×28, so ood can be fashion, .*, got 'svhn', whose images are 3×32×32"),
        ("mnist", "mnist", "so ood can be fashion, notmnist, emnist-letters, emnist-unlike-digits, got 'mnist'"),
        (
            "cifar10",
            "mnist",
            "cifar10 has images of 3×32×32, so ood can be svhn, photographs, got 'mnist', whose .*28×28",
        ),
        ("digits", "mnist", "digits brings its own foreign inputs; leave ood out"),
        ("fashion", "noise", "got 'noise'"),
        ("mnist", "notmnist", "ood='notmnist': no notMNIST in .*; add notmnist.npz"),
        ("mnist", "emnist-unlike-digits", "no EMNIST letters in .*; add emnist_letters.npz"),
    ],
)
def test_foreign_inputs_that_do_not_fit_or_are_not_there_are_refused(tmp_path, name, ood, message):
    np.savez(tmp_path / "mnist.npz", **image_arrays())
    with pytest.raises(InputError, match=message):
        load(name, tmp_path, ood=ood)


class OpenML:
    """What scikit-learn would bring from the network."""

    def __init__(self, arrays=None, error=None):
        self.arrays, self.error, self.asked = arrays, error, []

    def __call__(self, name, **options):
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        images, labels = (np.concatenate([self.arrays[f"{axis}_{part}"] for part in IDX]) for axis in "xy")
        self.data, self.target = images.reshape(len(images), -1).astype(float), labels.astype(str).astype(object)
        return self


@pytest.fixture
def openml(monkeypatch):
    """Installs a stand-in whose arrays are the published ones."""

    def install(arrays=None, error=None, published=None) -> OpenML:
        import sklearn.datasets

        from varbnn.data import openml as module

        found = OpenML(arrays, error)
        monkeypatch.setattr(sklearn.datasets, "fetch_openml", found)
        monkeypatch.setattr(module, "TRAINING", 40)
        for key, array in (published or arrays or {}).items():
            monkeypatch.setitem(module.SOURCES["mnist"].sums, key, hashlib.md5(idx_bytes(array)).hexdigest())
        return found

    return install


def test_only_who_asks_gets_a_download_and_only_once(tmp_path, openml):
    source = openml(image_arrays())
    with pytest.raises(InputError, match="does not hold MNIST"):
        load("mnist", tmp_path)
    assert source.asked == []
    first = load("mnist", tmp_path / "new", download=True)
    assert source.asked == ["mnist_784"]
    assert torch.equal(first.undo(first.test_x).round().byte(), torch.from_numpy(image_arrays()["x_test"]))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mnist.npz"]
    assert torch.equal(load("mnist", tmp_path / "new", download=True).train_x, first.train_x)
    assert source.asked == ["mnist_784"]


def publish(monkeypatch, name: str, arrays: dict[str, np.ndarray]) -> None:
    for key, array in arrays.items():
        monkeypatch.setitem(SOURCES[name].sums, key, hashlib.md5(idx_bytes(array)).hexdigest())


@pytest.mark.parametrize("name", ["fashion", "notmnist"])
@pytest.mark.parametrize("gz", [False, True])
def test_what_was_published_as_one_set_is_not_taken_for_another_of_the_same_file_names(name, gz, tmp_path, monkeypatch):
    publish(monkeypatch, "mnist", write_idx(tmp_path, gz=gz))
    with pytest.raises(InputError, match=r"does not hold .*; what lies there itself is MNIST$"):
        load(name, tmp_path)
    assert load("mnist", tmp_path).name == "mnist"
    own = write_idx(tmp_path / name, seed=3)
    found = load(name, tmp_path)
    assert torch.equal(found.undo(found.test_x).round().byte(), torch.from_numpy(own["x_test"]))


def test_files_of_another_set_do_not_stop_a_download(tmp_path, openml, monkeypatch):
    arrays = write_idx(tmp_path, seed=3)
    arrays["y_train"] = arrays["y_train"][::-1]
    (tmp_path / IDX["train"][1]).write_bytes(idx_bytes(arrays["y_train"]))
    publish(monkeypatch, "fashion", arrays)
    source = openml(image_arrays())
    first = load("mnist", tmp_path, download=True)
    assert source.asked == ["mnist_784"]
    assert torch.equal(first.undo(first.test_x).round().byte(), torch.from_numpy(image_arrays()["x_test"]))


@pytest.mark.parametrize("seed, asked", [(0, []), (4, ["mnist_784"])])
def test_files_without_a_folder_are_downloaded_again_unless_they_are_the_published_ones(seed, asked, tmp_path, openml):
    source = openml(image_arrays())
    labels = write_idx(tmp_path, seed)["y_train"]
    if asked:  # another set
        (tmp_path / IDX["train"][1]).write_bytes(idx_bytes(labels[::-1]))
    found = load("mnist", tmp_path, download=True)
    assert source.asked == asked
    assert torch.equal(found.undo(found.test_x).round().byte(), torch.from_numpy(image_arrays()["x_test"]))


def test_other_data_than_published_are_not_kept(tmp_path, openml):
    openml(image_arrays(1), published=image_arrays(0))
    with pytest.raises(InputError, match="not what was published: x_train, x_test differ; nothing is kept"):
        load("mnist", tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_a_download_says_what_to_copy(tmp_path, openml):
    openml(error=URLError("no route to host"))
    with pytest.raises(InputError, match=r"cannot fetch mnist_784 from openml\.org: .*; copy mnist\.npz to"):
        load("mnist", tmp_path, download=True)
    with pytest.raises(InputError, match="cifar10 cannot be downloaded, only mnist, fashion"):
        load("cifar10", tmp_path, download=True)


# --- batches ---


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 8, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_example_comes_once_and_no_batch_is_single(count, batch_size, shuffle):
    x = torch.arange(count)
    loader = batches(x, 10 * x, batch_size, shuffle=shuffle)
    got = list(loader)
    assert len(got) == len(loader)
    assert torch.equal(torch.cat([a for a, _ in got]).sort().values, x)
    assert all(torch.equal(b, 10 * a) for a, b in got)
    sizes = [len(a) for a, _ in got]
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + 1
    assert count == 1 or batch_size == 1 or min(sizes) > 1


def test_each_pass_has_a_new_order_that_the_generator_decides():
    x = torch.arange(100)

    def passes() -> list[torch.Tensor]:
        loader = batches(x, x, 30, torch.Generator().manual_seed(7))
        return [torch.cat([a for a, _ in loader]) for _ in range(2)]

    before = torch.get_rng_state()
    first, second = passes(), passes()
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first[0], first[1])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_shuffling_the_order_is_kept_and_nothing_is_copied():
    x = torch.arange(10.0)
    (first, _), *_ = batches(x, x, 4, shuffle=False)
    assert first.data_ptr() == x.data_ptr()


def test_a_batch_size_of_numpy_is_one():
    sizes = [len(y) for _, y in batches(torch.zeros(7, 2), torch.zeros(7), np.int64(3), shuffle=False)]
    assert sizes == [3, 4]


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_what_needs_no_files_cannot_be_downloaded(name):
    with pytest.raises(InputError, match="nothing to download"):
        load(name, download=True)


@pytest.mark.parametrize(
    "x, y, size, message",
    [
        (torch.zeros(0, 2), torch.zeros(0), 4, "no example"),
        (torch.zeros(3, 2), torch.zeros(4), 4, "one row per example"),
        (torch.zeros(()), torch.zeros(()), 4, "one row per example"),
        (torch.zeros(3), torch.zeros(3), 0, "batch_size must be a whole number ≥ 1, got 0"),
        (torch.zeros(3), torch.zeros(3), 2.0, "batch_size must be a whole number ≥ 1"),
    ],
)
def test_impossible_batches_are_refused(x, y, size, message):
    with pytest.raises(InputError, match=message):
        batches(x, y, size)


def table(**columns):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    for column, values in columns.items():
        x[:, int(column[1])] = values(x[:, int(column[1])])
    return x, (rng.normal(size=120) > 0).astype(int)


@pytest.mark.parametrize("constant", [0.1, 0.3, 1 / 3, 3.3, 1234.567, -7.7e9])
def test_a_constant_column_of_doubles_is_0_whatever_comes_later(tmp_path, constant):
    """The deviation of 0.1 repeated is rounding, not 0: dividing by it made 3e14 of another value in the test part."""
    x, y = table(c1=lambda c: constant)
    other = x.copy()
    other[:, 1] += 1.0
    np.savez(tmp_path / "c.npz", x_train=x, y_train=y, x_test=other, y_test=y)
    found = data.from_files(tmp_path / "c.npz")
    for inputs in (found.train_x, found.test_x, found.standardise(other + 1e6)):
        assert not inputs[:, 1].any()
    assert bool((found.undo(found.test_x)[:, 1] == constant).all())
    torch.testing.assert_close(found.test_x[:, [0, 2]], found.train_x[:, [0, 2]])
    gradient = torch.from_numpy(other).requires_grad_()
    found.standardise(gradient).sum().backward()
    torch.testing.assert_close(gradient.grad[0], torch.where(found.std == 0, 0, 1 / found.std))


def test_doubles_far_from_zero_keep_their_digits(tmp_path):
    """Julian dates, metres in a grid: float32 has no digit left for what differs."""
    x, y = table()
    np.savez(tmp_path / "near.npz", x_train=x, y_train=y)
    np.savez(tmp_path / "far.npz", x_train=x + 1e8, y_train=y)
    near, far = (data.from_files(tmp_path / f"{name}.npz") for name in ("near", "far"))
    torch.testing.assert_close(far.train_x, near.train_x, rtol=0, atol=1e-6)
    again = far.standardise(far.undo(far.train_x))
    torch.testing.assert_close(again, far.train_x, rtol=0, atol=1e-6)
    assert far.train_x.dtype == again.dtype == torch.float32


def test_without_validation_nothing_is_set_aside(tmp_path):
    x, y = table()
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y)
    whole = data.from_files(tmp_path / "a.npz")
    assert len(whole.train_x) == 120
    assert whole.val_x is None
    assert len(data.from_files(tmp_path / "a.npz", validation=True).train_x) == 100
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_val=x[:9], y_val=y[:9])
    assert len(data.from_files(tmp_path / "b.npz").val_x) == 9


@pytest.mark.parametrize("constant", [0.1, 1234.567])
def test_a_constant_column_is_constant_in_a_long_table_too(tmp_path, constant):
    """Sums of 200,000 rows are off by more than one rounding."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200_000, 2)), rng.integers(0, 2, 200_000)
    x[:, 1] = constant
    np.savez(tmp_path / "long.npz", x_train=x, y_train=y)
    found = data.from_files(tmp_path / "long.npz", validation=False)
    assert not found.train_x[:, 1].any()
    assert found.std[1] == 0


def test_milliseconds_of_a_clock_are_no_constant(tmp_path):
    x, y = table(c0=lambda c: 1.7e9 + 1e-3 * (np.arange(120) % 2), c1=lambda c: 1e8 + 1e-5 * c)
    np.savez(tmp_path / "clock.npz", x_train=x, y_train=y)
    found = data.from_files(tmp_path / "clock.npz", validation=False)
    torch.testing.assert_close(found.train_x.std(0, correction=0), torch.ones(3), rtol=1e-3, atol=0)


def test_float32_keeps_statistics_of_float32(tmp_path):
    x, y = table()
    np.savez(tmp_path / "a.npz", x_train=x.astype(np.float32), y_train=y)
    assert data.from_files(tmp_path / "a.npz").mean.dtype == torch.float32
    np.savez(tmp_path / "b.npz", x_train=(1000 * x).astype(np.int64), y_train=y)
    assert data.from_files(tmp_path / "b.npz").mean.dtype == torch.float32
    np.savez(tmp_path / "c.npz", x_train=(1000 * x).astype(np.int64) + 2**40, y_train=y)
    far = data.from_files(tmp_path / "c.npz")
    assert far.mean.dtype == torch.float64
    torch.testing.assert_close(far.train_x, data.from_files(tmp_path / "b.npz").train_x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "part, kind, values, expected",
    [
        ("train", np.float64, [1e160, -1e160], "x_train"),  # squares are infinite
        ("train", np.float64, [1.7e308, -1.7e308], "x_train"),
        ("train", np.float32, [3.3e38, 3.3e38, 3.3e38, -3.3e38], "x_train"),  # their distances are
        ("test", np.float64, [1e300, 0.0], "x_test"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_inputs_too_large_to_be_standardised_are_refused_by_their_part(tmp_path, part, kind, values, expected):
    parts = {"train": table(), "test": table()}
    x, _ = parts[part]
    x[:, 0] = np.resize(values, len(x))
    arrays = {f"{axis}_{name}": array for name, pair in parts.items() for axis, array in zip("xy", pair, strict=True)}
    np.savez(tmp_path / "a.npz", **{key: array.astype(kind) for key, array in arrays.items()})
    with pytest.raises(InputError, match=f"{expected}: there are NaN or numbers too large, or too far"):
        data.from_files(tmp_path / "a.npz")


def test_a_column_whose_deviation_float32_rounds_to_0_is_constant(tmp_path):
    x, y = table(c1=lambda c: 1e-45 * (np.arange(120) == 7))
    np.savez(tmp_path / "a.npz", x_train=x.astype(np.float32), y_train=y)
    found = data.from_files(tmp_path / "a.npz", validation=False)
    assert found.std[1] == 0
    assert not found.train_x[:, 1].any()


def test_images_that_do_not_come_out_finite_are_refused():
    moons = data.load("moons")
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(InputError, match="images for moons: there are NaN or numbers too large"):
            moons.standardise(torch.full((3, 2), value, dtype=torch.float64))


@pytest.mark.parametrize("label", [np.uint64(2**63), np.uint64(2**64 - 1), 1e19])
def test_labels_that_no_integer_holds_are_refused_with_their_number(tmp_path, label):
    x, y = table()
    wrong = y.astype(type(label) if isinstance(label, np.generic) else float)
    wrong[5] = label
    np.savez(tmp_path / "a.npz", x_train=x, y_train=wrong)
    with pytest.raises(InputError, match=f"classes from 0 on, got {int(label)}"):
        data.from_files(tmp_path / "a.npz")


def test_a_download_that_broke_off_says_what_to_copy(tmp_path, openml):
    openml(error=IncompleteRead(b"abc", 5))
    with pytest.raises(InputError, match=r"cannot fetch mnist_784 from openml\.org: incompleteread\(3 bytes read"):
        load("mnist", tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_takes_arrays_and_lists_in_its_own_units():
    moons = load("moons")
    own = moons.undo(moons.test_x[:5].numpy())
    assert torch.equal(own, moons.undo(moons.test_x[:5]))
    for images in (own.numpy(), own.numpy()[::-1][::-1], own.tolist()):
        torch.testing.assert_close(moons.standardise(images), moons.standardise(own))
    with pytest.raises(InputError, match="moons has inputs of 2, got a number for each"):
        moons.standardise([3.0, 4.0])
    with pytest.raises(InputError, match="images must be a tensor, an array"):
        moons.standardise("mine.npz")


@pytest.mark.parametrize("x", [torch.zeros(4, 784), torch.zeros(4, 8), torch.zeros(64), np.zeros((4, 4, 4)), [[1.0]]])
def test_inputs_of_another_set_are_not_taken_back(x):
    for name in ("digits", "moons"):
        with pytest.raises(InputError, match=f"{name} has inputs of (8×8|2), got .* for each; resize them"):
            load(name).undo(x)


def test_images_and_no_inputs_at_all_are_taken_back():
    digits = load("digits")
    own = digits.undo(digits.test_x[:5])
    assert torch.equal(digits.undo(digits.test_x[:5].reshape(5, 8, 8)), own)
    assert digits.undo(digits.test_x[:0]).shape == (0, 8, 8)


def test_batches_are_of_tensors():
    with pytest.raises(InputError, match=r"x and y must be tensors, got ndarray and Tensor; .* torch\.as_tensor"):
        batches(np.zeros((3, 2)), torch.arange(3), 2)


@pytest.mark.parametrize("seed", [-1, 1.5, "0"])
def test_a_seed_of_ones_own_files_is_a_whole_number(tmp_path, seed):
    np.savez(tmp_path / "own.npz", x_train=np.random.default_rng(0).normal(size=(40, 3)), y_train=np.arange(40) % 2)
    with pytest.raises(InputError, match="seed must be a whole number ≥ 0"):
        data.from_files(tmp_path / "own.npz", seed, validation=True)


def test_gradients_go_through_units():
    moons = data.load("moons")
    x = moons.test_x[:4].clone().requires_grad_()
    moons.standardise(moons.undo(x)).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(4, 2))


@pytest.mark.parametrize(
    "images, message",
    [
        (
            torch.rand(5, 8, 8),
            r"have values 0 … 16, these have \S+ … (0\.9\S*|1); .* range first, shares of 0 … 1 by 16",
        ),
        (2 * torch.rand(5, 8, 8) - 1, r"these have -\S+ … \S+; bring them to that range first$"),
        (torch.full((2, 64), 17.0), r"these have 17 … 17; bring them to that range first$"),
        (np.full((2, 8, 8), 60_000, dtype=np.uint16), r"these have 60000 … 60000; bring"),
    ],
)
def test_images_in_other_units_are_refused(digits, images, message):
    with pytest.raises(InputError, match=message):
        digits.standardise(images)


def test_images_in_the_units_of_the_set_are_taken_dark_ones_too(digits):
    for images in (torch.zeros(2, 8, 8), np.full((2, 8, 8), 16, dtype=np.uint8), np.ones((1, 64), dtype=np.uint8)):
        assert digits.standardise(images).isfinite().all()
    assert digits.standardise(torch.zeros(0, 64)).shape == (0, 64)


BYTES = np.random.default_rng(0).integers(0, 256, (40, 5, 5)).astype(np.uint8)
LARGE = {
    "bytes": BYTES,
    "int64": BYTES.astype(np.int64),
    "rows of int64": BYTES.reshape(40, 25).astype(np.int64),
    "floats": BYTES.astype(np.float32),
}


def parts(tmp_path, train, test):
    labels = [np.arange(len(x)) % 2 for x in (train, test)]
    np.savez(tmp_path / "a.npz", x_train=train, y_train=labels[0], x_test=test, y_test=labels[1])
    return data.from_files(tmp_path / "a.npz")


@pytest.mark.parametrize("large", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_images_in_different_units_are_refused_and_tables_warned_of(tmp_path, large, kind):
    shares = (large / 255).astype(kind)
    for train, test in ((large, shares), (shares, large)):
        told = r"values 0 … \d+, but the training inputs have 0 … \d+; give both"
        if large.ndim > 2:
            with pytest.raises(InputError, match=f"x_test: {told}"):
                parts(tmp_path, train, test)
            with pytest.raises(InputError, match=f"these images for a: {told}"):
                parts(tmp_path, train, train).standardise(test)
        else:
            with pytest.warns(VarbnnWarning, match=f"x_test: {told}"):
                parts(tmp_path, train, test)


@pytest.mark.parametrize(
    "train, test",
    [
        (BYTES, np.zeros((3, 5, 5))),  # black
        (BYTES, BYTES // 255),  # nearly
        (BYTES / 255, 1.6 * BYTES / 255),  # brighter than any before
        (BYTES / 255, BYTES / 100 - 1),
        (BYTES, np.random.default_rng(0).normal(size=(9, 5, 5))),
        (BYTES.reshape(40, 25) / 255, BYTES.reshape(40, 25) / 70),  # columns of a table may go anywhere
        (LARGE["rows of int64"] // 128, LARGE["rows of int64"]),
        (BYTES // 128, BYTES),  # marks, then greys
        (BYTES.reshape(40, 25) // 128, BYTES.reshape(40, 25)),  # uint8: as images
        (BYTES / 255, 3 * BYTES / 255),
        (np.random.default_rng(0).gamma(1.0, 1.0, (40, 5, 5)), np.full((1, 5, 5), 0.2)),  # a quiet spectrum
    ],
)
def test_parts_that_only_look_different_are_taken(tmp_path, train, test):
    assert parts(tmp_path, train, test).test_x.isfinite().all()


def test_an_empty_part_is_named(tmp_path):
    x, y = table()
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])
    with pytest.raises(InputError, match="x_test has no example; leave it and its labels out"):
        data.from_files(tmp_path / "a.npz")


def test_some_rows_are_any_rows_but_the_same_in_every_call():
    x = torch.arange(1000)
    few = data.some_rows(x, 100)
    assert torch.equal(few, data.some_rows(x, 100))
    assert len(set(few.tolist())) == 100
    assert abs(few.float().mean() - 499.5) < 4 * 288.7 / 10 * (1 - 0.1) ** 0.5  # four standard errors
    assert data.some_rows(x, 1000) is x


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_some_rows_are_at_least_one(count):
    with pytest.raises(InputError, match="count must be"):
        data.some_rows(torch.arange(6), count)
