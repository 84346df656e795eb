"""Regression data: the published splits, standardisation by the training part, and files that are not right."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from varbnn.data import REGRESSION_NAMES, load
from varbnn.data.real_targets import RawTable, prepare_table
from varbnn.data.tables import UCI, read_table
from varbnn.errors import InputError


def table(name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rows, features, _ = UCI[name]
    generator = np.random.default_rng(seed)
    return generator.normal(3, 2, size=(rows, features)), generator.normal(10, 4, size=rows)


@pytest.fixture
def folder(tmp_path):
    x, y = table("yacht")
    np.savez(tmp_path / "yacht.npz", x=x, y=y)
    generator = np.random.default_rng(0)
    arrays = dict(x_train=generator.uniform(0, 6, 200), y_train=generator.normal(size=200), x_test=np.arange(301.0))
    np.savez(tmp_path / "snelson.npz", **arrays)
    return tmp_path


@pytest.mark.parametrize("name", ["curve", "uci-yacht", "snelson"])
@pytest.mark.parametrize("validation", [False, True])
def test_training_data_are_standardised_and_statistics_undo_it(folder, name, validation):
    data = load(name, folder, validation=validation)
    for values in (data.train_x, data.train_y):
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(0, correction=0), 1, atol=1e-5)
    assert data.train_y.shape == (len(data.train_x), 1)
    assert {data.train_x.dtype, data.train_y.dtype, data.test_x.dtype} == {torch.float32}
    assert (data.val_x is not None) == (data.val_y is not None) == validation
    if validation:
        assert len(data.val_x) == round(0.2 * (len(data.val_x) + len(data.train_x)))


def test_a_column_that_is_constant_in_training_is_0_whatever_comes_later():
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40.0)
    x[:, 1] = 0.1
    data = prepare_table(RawTable("t", x, y, x + 7, y), validation=False, seed=0)
    assert not data.train_x[:, 1].any()
    assert not data.test_x[:, 1].any()
    np.testing.assert_allclose(data.test_x[:, 0], (x[:, 0] + 7 - x[:, 0].mean()) / x[:, 0].std(), rtol=1e-5)
    np.testing.assert_allclose(data.undo(data.train_x), x, rtol=1e-5, atol=1e-6)


def test_a_split_is_the_published_one(folder):
    x, y = table("yacht")
    generator = np.random.RandomState(1)
    for split in range(3):
        order = generator.choice(range(308), 308, replace=False)
        data = load("uci-yacht", folder, split=split)
        np.testing.assert_allclose(data.undo(data.test_x), x[order[277:]], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(data.undo_targets(data.train_y)[:, 0], y[order[:277]], rtol=1e-4, atol=1e-5)


def test_validation_comes_out_of_the_training_part_and_depends_on_the_seed(folder):
    whole, parts = load("uci-yacht", folder), load("uci-yacht", folder, 3, validation=True)
    rows = {tuple(row) for row in whole.undo(whole.train_x).double().round(decimals=3).tolist()}
    split = [part.undo(x).double().round(decimals=3) for part, x in ((parts, parts.train_x), (parts, parts.val_x))]
    assert {tuple(row) for part in split for row in part.tolist()} == rows
    assert torch.allclose(parts.undo(parts.test_x), whole.undo(whole.test_x), atol=1e-4)
    other = load("uci-yacht", folder, 4, validation=True)
    assert not torch.allclose(other.undo(other.val_x), parts.undo(parts.val_x), atol=1e-2)


def test_text_tables_give_the_same_as_an_archive(folder, tmp_path):
    x, y = table("yacht")
    whole = load("uci-yacht", folder)
    for number, (ending, separator, header) in enumerate(
        [("csv", ",", "a,b,c,d,e,f,y"), ("txt", " ", ""), ("csv", ";", "")]
    ):
        place = tmp_path / str(number) / "uci"
        place.mkdir(parents=True)
        np.savetxt(place / f"yacht.{ending}", np.column_stack([x, y]), delimiter=separator, header=header, comments="")
        assert torch.allclose(load("uci-yacht", place.parent).train_x, whole.train_x, atol=1e-6)


def test_snelsons_text_files_give_the_same_as_an_archive(folder, tmp_path):
    place = tmp_path / "text" / "snelson"
    place.mkdir(parents=True)
    with np.load(folder / "snelson.npz") as archive:
        for key, file in (("x_train", "train_inputs"), ("y_train", "train_outputs"), ("x_test", "test_inputs")):
            np.savetxt(place / file, archive[key])
    text, archive = load("snelson", place.parent), load("snelson", folder)
    assert torch.allclose(text.train_y, archive.train_y)
    assert text.test_y is None
    assert text.note == "no test targets were published"
    assert text.test_x.shape == (301, 1)


def test_constant_features_become_0(tmp_path):
    x, y = table("yacht")
    x[:, 2] = 0.1
    np.savez(tmp_path / "yacht.npz", x=x, y=y)
    data = load("uci-yacht", tmp_path)
    assert data.train_x[:, 2].abs().max() < 1e-6
    assert data.test_x.isfinite().all()


def test_what_is_taken_back_has_the_width_of_the_table(folder):
    data = load("uci-yacht", folder)
    own, targets = data.undo(data.test_x), data.undo_targets(data.test_y)
    for x, y in ((data.test_x.numpy(), data.test_y.numpy()), (data.test_x.tolist(), data.test_y.tolist())):
        np.testing.assert_allclose(data.undo(x), own, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(data.undo_targets(y), targets, rtol=1e-12)
    assert torch.equal(data.undo_targets(data.test_y[:, 0]), targets[:, 0])
    for x in (torch.zeros(4, 1), torch.zeros(4, 5), torch.zeros(6), np.zeros((2, 3, 2))):
        with pytest.raises(InputError, match=r"uci-yacht has inputs of 6, got .* for each"):
            data.undo(x)
    for y in (torch.zeros(4, 2), np.zeros((4, 6))):
        with pytest.raises(InputError, match="uci-yacht has one target for each input, got 4×"):
            data.undo_targets(y)


def test_the_curve_follows_its_seed():
    assert torch.equal(load("curve", seed=1).train_x, load("curve", seed=1).train_x)
    assert not torch.equal(load("curve", seed=1).train_x, load("curve", seed=2).train_x)
    x = load("curve").undo(load("curve").train_x)
    assert not ((x > 2.61) & (x < 3.39)).any(), "there is a gap"
    assert (
        repr(load("curve", validation=True)) == "RegressionDataset(curve: 160 train, 40 validation, 200 test; 1 input)"
    )


YACHT_X, YACHT_Y = table("yacht")
BROKEN_ARCHIVES = {
    "another set": (dict(x=YACHT_X[:, :5], y=YACHT_Y), "308 rows of 6 features, got 308 of 5"),
    "a part": (dict(x=YACHT_X[:300], y=YACHT_Y[:300]), "got 300 of 6 and 300 targets"),
    "no targets": (dict(x=YACHT_X), "has no array y"),
    "NaN": (dict(x=np.where(YACHT_X > 5, np.nan, YACHT_X), y=YACHT_Y), "x holds NaN"),
    "words": (dict(x=YACHT_X.astype(str), y=YACHT_Y), "x should be numbers in 2 dimension"),
    "flat": (dict(x=YACHT_X.ravel(), y=YACHT_Y), "2 dimension.*got 1848 float64"),
    "constant targets": (dict(x=YACHT_X, y=np.zeros(308)), "targets are constant"),
    "objects": (dict(x=YACHT_X.astype(object), y=YACHT_Y), "not a readable .npy or .npz file"),
}


@pytest.mark.parametrize("arrays, message", BROKEN_ARCHIVES.values(), ids=BROKEN_ARCHIVES)
def test_a_broken_archive_is_refused_by_name(tmp_path, arrays, message):
    np.savez(tmp_path / "yacht.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load("uci-yacht", tmp_path)


BROKEN_TABLES = {
    "empty": ("", "got 0 rows of"),
    "ragged": ("1 2 3\n1 2\n", r"2 rows of \[2, 3\] columns"),
    "words": ("1 2\n3 four\n", "should be a table of numbers"),
    "a name alone": ("x,y\n", "got 0 rows"),
    "empty cells": ("a,b,c\n1,,2\n3,,4\n", "could not convert string to float: ''"),
    "empty cells in some rows": ("a,b,c\n1,,2\n3,4,5\n", "could not convert string to float: ''"),
    "an empty first cell": (",2\n3,4\n", "could not convert string to float: ''"),
    "commas for points": ('"1,5","2,5"\n"3,5","4,5"\n', "should be a table of numbers"),
}


@pytest.mark.parametrize("text, message", BROKEN_TABLES.values(), ids=BROKEN_TABLES)
def test_a_broken_table_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "yacht.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load("uci-yacht", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff1,2\n3,4\n",
        '\ufeff"a";"b"\n1;2\n3;4\n',
        '"1.0","2"\n"3","4"\n',
        "a, b\n1 ,2\n3, 4\n",
        " 1 2\n3\t4 \n",
        "1,2,\n3,4,\n,,\n",
    ],
)
def test_marks_quotes_and_separators_at_the_end_are_no_part_of_the_numbers(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert read_table(tmp_path / "a.csv").tolist() == [[1, 2], [3, 4]]


def test_a_truncated_file_is_refused(folder):
    whole = (folder / "yacht.npz").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 30):
        (folder / "yacht.npz").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"not a readable \.npy or \.npz file"):
            load("uci-yacht", folder)
    (folder / "yacht.npz").unlink()
    (folder / "yacht.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read"):
        load("uci-yacht", folder)


def test_what_is_missing_is_said(folder, tmp_path):
    with pytest.raises(InputError, match=r"expected boston.npz with x and y, or boston\.csv"):
        load("uci-boston", folder)
    (folder / "snelson.npz").unlink()
    with pytest.raises(InputError, match="does not hold Snelson's data"):
        load("snelson", folder)
    with pytest.raises(InputError, match="data_dir="):
        load("snelson")
    with pytest.raises(InputError, match="cannot read the data directory"):
        load("uci-yacht", tmp_path / "nowhere")
    for split in (-1, 20, 0.5):
        with pytest.raises(InputError, match="split must be a whole number from 0 to 19"):
            load("uci-yacht", folder, split=split)
    with pytest.raises(InputError, match="only digits and the UCI data have splits"):
        load("curve", split=1)
    assert "uci-wine-red" in REGRESSION_NAMES


def test_inputs_and_outputs_of_different_length_are_refused(tmp_path):
    for file, count in (("train_inputs", 5), ("train_outputs", 4), ("test_inputs", 3)):
        np.savetxt(tmp_path / file, np.arange(count))
    with pytest.raises(InputError, match="5 training inputs but 4 outputs"):
        load("snelson", tmp_path)
    assert read_table(tmp_path / "test_inputs").shape == (3, 1)


def test_real_files_hold_what_is_expected():
    folder = os.environ.get("VARBNN_DATA")
    if not folder:
        pytest.skip("set VARBNN_DATA to a folder with uci/ and snelson.npz")
    for name in UCI:
        if (Path(folder) / "uci" / f"{name.replace('-', '_')}.npz").exists():
            data = load(f"uci-{name}", folder)
            with np.load(Path(folder) / "uci" / f"{name.replace('-', '_')}.npz") as archive:
                expected = archive["x"][archive["test_idx"][0]]
            np.testing.assert_allclose(data.undo(data.test_x), expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
    assert len(load("snelson", folder).train_x) == 200


def test_targets_far_from_zero_keep_their_digits():
    rng = np.random.default_rng(0)
    y = 2_451_545.0 + rng.normal(size=200)  # Julian dates
    table = prepare_table(RawTable("dates", rng.normal(size=(200, 2)), y, np.zeros((1, 2)), None), False, 0)
    assert np.abs(table.undo_targets(table.train_y).numpy()[:, 0] - y).max() < 1e-6
