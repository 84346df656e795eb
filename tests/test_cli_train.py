"""The commands train and evaluate: what they write, what they refuse, and that an interrupted run goes on."""

from __future__ import annotations

import gzip
import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import varbnn as vb
from varbnn import cli, data, demo
from varbnn.cli import judging, training
from varbnn.cli.evaluating import Run
from varbnn.demo.recipes import BY_PRESET
from varbnn.presets import PRESETS

pytestmark = pytest.mark.filterwarnings("ignore::varbnn.errors.VarbnnWarning")  # networks this small are seldom well

TRAIN = "train own.npz --hidden 8 --epochs 12 --samples 4 --quiet --out run"


def blobs(count: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Points of 2×3 around the number of their class."""
    random = np.random.default_rng(seed)
    y = np.arange(count) % classes
    return random.normal(size=(count, 2, 3)) + y[:, None, None], y


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Arrays of a data set that is written to own.npz; the folder is the working directory."""
    monkeypatch.chdir(tmp_path)
    (x, y), (test_x, test_y) = blobs(120, 0), blobs(60, 1)
    arrays = {"x_train": x, "y_train": y, "x_test": test_x, "y_test": test_y}
    np.savez("own.npz", **arrays)
    np.save("far.npy", np.random.default_rng(2).normal(size=(20, 6)) * 9)
    return arrays


def run(capsys, line: str, code: int = 0) -> str:
    """What a command prints: on stdout, or where it fails on stderr."""
    assert cli.main(line.split()) == code
    captured = capsys.readouterr()
    assert code or captured.err == ""
    return captured.err if code else captured.out


def test_a_run_is_measured_and_written_and_can_be_measured_again(own, tmp_path, capsys):
    out = run(capsys, TRAIN)
    assert "99 training, 21 validation, 60 test inputs, 3 classes" in out
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["files"] == ["inputs.npz", "model.vbnn", "reliability.png"]
    assert report["plan"]["settings"] == vb.presets.PRESETS["digits"].settings
    out = run(capsys, "evaluate run --ood far.npy")
    assert out.startswith("test data of own.npz: 60 inputs, 4 networks\n")
    again = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert {k: again["as trained"][k] for k in report["test"]} == report["test"]
    assert again["calibrated"]["nll"] != report["test"]["nll"]
    assert 0 <= again["calibrated"]["ood_auroc"] <= 1


def test_foreign_inputs_are_told_apart_by_the_score_that_is_asked_for(own, tmp_path, capsys):
    run(capsys, TRAIN)
    out = run(capsys, "evaluate run --ood far.npy --score epistemic")
    assert "foreign: 20 inputs of far.npy, told apart by epistemic uncertainty" in out
    found = json.loads((tmp_path / "run/evaluation.json").read_text())
    opened = Run.open(tmp_path / "run")
    x, far = (torch.from_numpy(a) for a in (own["x_test"], np.load("far.npy")))
    known, foreign = (opened.predict(opened.prepared(a, "x")) for a in (x, far))
    both = {score: vb.evaluate(known, own["y_test"], ood=foreign, score=score) for score in ("epistemic", "total")}
    assert found["score"] == "epistemic"
    assert found["as trained"] == dict(both["epistemic"]) != dict(both["total"])


def test_one_network_cannot_disagree(own, capsys):
    run(capsys, f"{TRAIN} --method ste")
    before = Path("run/report.json").read_bytes(), sorted(Path("run").iterdir())
    assert "num_samples ≥ 2, or take score='total'" in run(capsys, "evaluate run --ood far.npy --score epistemic", 2)
    assert before == (Path("run/report.json").read_bytes(), sorted(Path("run").iterdir()))


def test_options_that_say_nothing_are_told(own, capsys):
    assert "answer    of 4 networks of the posterior\n" in run(capsys, TRAIN)
    for option in ("--score epistemic", "--key x"):
        name = option.split()[0]
        assert f"{name} is about foreign inputs; give them with --ood" in run(capsys, f"evaluate run {option}", 2)
    assert "answer    of 1 network\n" in run(capsys, f"{TRAIN} --out other --method ste")
    assert "1 network\n" in run(capsys, "evaluate other")
    assert "--key is about --refresh-bn" in run(capsys, "pack mine:model model.pt --out b --key x", 2)


def test_networks_that_know_the_shares_alone_or_are_too_sure_are_told_of():
    labels = torch.tensor([0] * 30 + [1] * 10)
    shares = vb.Prediction(torch.tensor([0.75, 0.25]).expand(2, 40, 2))
    assert "how frequent each class is" in str(judging.remark(shares, labels, labels, 1.0))
    sure = 0.75 * labels[:, None].eq(torch.arange(2)) + 0.125  # .875 for the right class
    assert judging.remark(vb.Prediction(sure.expand(2, 40, 2)), labels, labels, 1.9) is None
    assert judging.remark(vb.Prediction(sure.expand(2, 40, 2)), labels, labels, 2.1) is None  # no error
    nearly = torch.cat([1 - labels[:1], labels[1:]])
    assert "by 2.10 suits" in str(judging.remark(vb.Prediction(sure.expand(2, 40, 2)), nearly, labels, 2.1))


def test_no_program_takes_the_folder_of_anothers_run(own, capsys):
    lines = {
        "train": "train own.npz --hidden 8 --epochs 1 --samples 2 --quiet",
        "continual": "continual own.npz --hidden 8 --epochs 1 --tasks 2 --samples 2 --quiet",
        "demo": "demo --data moons --epochs 1 --samples 2 --quiet",
    }
    for name, line in lines.items():
        run(capsys, f"{line} --out {name}")
        assert json.loads(Path(name, "report.json").read_text())["program"] == f"varbnn {name}"
    files = {path: path.read_bytes() for path in Path().glob("*/*")}
    for name, line in lines.items():
        for folder in set(lines) - {name}:
            told = run(capsys, f"{line} --out {folder}", 2)
            assert f"{folder} holds a run of varbnn {folder}; choose another --out" in told
    assert {path: path.read_bytes() for path in Path().glob("*/*")} == files


@pytest.mark.parametrize("method, share", [("posterior", 0.2), ("ste", 0.0)])
def test_inputs_are_left_out_in_training_as_the_preset_says(own, tmp_path, capsys, monkeypatch, method, share):
    made = []

    def remembered(*arguments, original=training.demo.network, **options):
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(training.demo, "network", remembered)
    out = run(capsys, f"{TRAIN} --preset fashion --method {method}")
    assert ("dropout 0.2" in out) == bool(share)
    assert json.loads((tmp_path / "run/report.json").read_text())["plan"]["dropout"] == share
    assert [layer.p for layer in made[0] if isinstance(layer, torch.nn.Dropout)] == [share] * bool(share)


def test_convolutions_in_front_are_trained_packed_and_remembered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "train digits --channels 2-3 --hidden 8 --epochs 2 --samples 4 --quiet --out run"
    assert "8×8, 3×3 convolutions 2-3, 8-10, every weight ±1" in run(capsys, line)
    report = json.loads(Path("run/report.json").read_text())
    assert report["plan"]["channels"] == [2, 3]
    run(capsys, "evaluate run")
    again = json.loads(Path("run/evaluation.json").read_text())["as trained"]
    assert {key: again[key] for key in ("nll", "accuracy")} == {k: report["test"][k] for k in ("nll", "accuracy")}
    assert "another setting of channels" in run(capsys, line.replace("2-3", "2-4"), 2)


def test_the_preset_with_convolutions_has_their_channels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(capsys, "train digits --preset fashion-conv --epochs 1 --samples 2 --quiet --out run")
    plan = json.loads(Path("run/report.json").read_text())["plan"]
    preset = vb.presets.PRESETS["fashion-conv"]
    assert (plan["channels"], plan["widths"]) == (list(preset.channels), list(preset.widths))
    assert plan["settings"] == preset.settings


@pytest.mark.parametrize(
    "line, word",
    [
        ("train moons --preset digits-conv", "an input of moons is 2; give images in that shape, or choose a network"),
        ("train digits --channels 4-4-4-4", "an input of digits is 8×8, which is enough for 3"),
    ],
)
def test_convolutions_of_what_is_no_image_are_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys, line, word
):
    monkeypatch.chdir(tmp_path)
    assert word in run(capsys, line, 2)
    assert not list(tmp_path.glob("*/*"))


def test_colour_images_are_convolved_along_their_pixels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = random.normal(size=(60, 3, 6, 4)) + y[:, None, None, None]
    np.savez("colour.npz", x_train=x, y_train=y)
    line = "train colour.npz --channels 2 --hidden 4 --epochs 1 --samples 2 --quiet --out run"
    assert "3×6×4, 3×3 convolutions 2, 4-2" in run(capsys, line)
    assert vb.load_packed("run/model.vbnn")(torch.randn(5, 72)).shape == (2, 5, 2)
    np.savez("last.npz", x_train=np.moveaxis(x, 1, 3), y_train=y)
    told = run(capsys, line.replace("colour", "last"), 2)
    assert "channels first, N×H×W or N×3×H×W, but an input of last is 6×4×3: move its last axis" in told


def test_signs_between_the_layers_are_trained_packed_and_remembered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "train digits --activation sign --hidden 8-8 --epochs 2 --samples 4 --quiet --out run"
    assert "64-8-8-10, every weight and activation ±1, with batch norm" in run(capsys, line)
    report = json.loads(Path("run/report.json").read_text())
    assert report["plan"]["activation"] == "sign"
    assert "another setting of activation" in run(capsys, line.replace("sign", "relu"), 2)


@pytest.mark.parametrize("name", vb.presets.PRESETS)
def test_every_preset_has_settings_for_every_method(name):
    assert set(BY_PRESET[name]) == set(demo.METHODS)
    assert BY_PRESET[name]["posterior"] == vb.presets.PRESETS[name].settings


def test_evaluation_is_that_of_the_packed_networks_on_inputs_standardised_as_in_training(own, tmp_path, capsys):
    run(capsys, TRAIN)
    x, y = blobs(30, 3)
    np.savez("other.npz", x=x, y=y)
    run(capsys, "evaluate run other.npz --out elsewhere")
    dataset = data.from_files("own.npz", validation=True)
    flat = own["x_train"].reshape(120, -1)
    kept = np.ones(120, dtype=bool)
    kept[data.dataset.set_aside(own["y_train"], 1 / 6, 0)] = False
    assert float(dataset.mean) == pytest.approx(flat[kept].mean(), rel=1e-6)
    prepared = torch.from_numpy((x.reshape(30, -1) - flat[kept].mean()) / flat[kept].std()).float()
    prediction = vb.Prediction(vb.load_packed("run/model.vbnn")(prepared).softmax(-1))
    found = json.loads((tmp_path / "elsewhere/evaluation.json").read_text())["as trained"]
    assert found["nll"] == pytest.approx(vb.evaluate(prediction, y)["nll"], abs=1e-5)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(own, tmp_path, capsys, monkeypatch):
    run(capsys, TRAIN.replace("--out run", "--out whole"))
    steps = 0

    def interrupted(self, *args, original=vb.optim.BayesBiNN.step, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 4:  # one step an epoch
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(vb.optim.BayesBiNN, "step", interrupted)
        assert "the same command goes on after the last whole epoch" in run(capsys, TRAIN, 130)
    assert not (tmp_path / "run/report.json").exists()
    run(capsys, TRAIN)
    whole, resumed = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "run"))
    assert [row["epoch"] for row in resumed["history"]] == list(range(1, 13))
    assert steps == 4
    for part in ("validation", "test", "temperature", "entropy_bits"):
        assert resumed[part] == whole[part]
    assert (tmp_path / "run/model.vbnn").read_bytes() == (tmp_path / "whole/model.vbnn").read_bytes()


@pytest.mark.parametrize(
    ("change", "named"), [(" --seed 1", "seed"), (" --method ste", "method, settings"), (" --epochs 5", "epochs")]
)
def test_a_run_asked_for_otherwise_does_not_go_on(change, named, own, capsys):
    run(capsys, TRAIN)
    assert f"another setting of {named};" in run(capsys, TRAIN + change, 2)


@pytest.mark.parametrize("content", ["", "[1]", "null", "{}"])
def test_settings_that_cannot_be_read_are_named(own, tmp_path, capsys, content):
    run(capsys, TRAIN)
    (tmp_path / "run" / training.SETTINGS).write_text(content)
    assert "training.json does not say what the run in run was asked for" in run(capsys, TRAIN, 2)


def test_other_data_do_not_go_on(own, capsys):
    run(capsys, TRAIN)
    np.savez("own.npz", **{**own, "x_train": own["x_train"] + 1})
    assert "another setting of data" in run(capsys, TRAIN, 2)


def test_a_torn_checkpoint_is_named(own, tmp_path, capsys):
    run(capsys, TRAIN)
    state = tmp_path / "run" / training.STATE
    state.write_bytes(state.read_bytes()[:100])
    assert "training.pt is no checkpoint" in run(capsys, TRAIN, 2)


@pytest.mark.parametrize("method", ["ste", "moments"])
def test_other_methods(method, own, tmp_path, capsys):
    run(capsys, f"{TRAIN} --method {method}")
    assert vb.load_packed(tmp_path / "run/model.vbnn").num_samples == (4 if method == "moments" else 1)


def test_without_a_validation_error_nothing_is_calibrated(own, tmp_path, capsys):
    x, y = blobs(60, 0)
    np.savez("own.npz", x_train=x + 50 * y[:, None, None], y_train=y)
    run(capsys, TRAIN.replace("--epochs 12", "--epochs 120"))
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["validation"]["accuracy"] == 1
    assert report["temperature"] == 1


def test_named_data_bring_foreign_inputs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = run(capsys, "train moons --hidden 8 --epochs 5 --samples 2 --quiet")
    assert "ood_auroc" in out
    assert "test data of moons" in run(capsys, "evaluate varbnn-run")


def broken(**changes):
    """A change of the arrays; a name that ends in None goes."""

    def change(arrays):
        arrays = {**arrays, **changes}
        return {name: array for name, array in arrays.items() if array is not None}

    return change


X, Y = blobs(120, 0)
GAP = np.where(Y == 1, 3, Y)
SCARCE = np.where(np.arange(120) == 5, 2, np.where(Y == 2, 0, Y))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken(y_train=0 * Y), "knows only class 0"),
        (broken(y_train=GAP), "no example of class 1; number the classes"),
        (broken(y_train=Y - 1), "classes from 0 on, got -1"),
        (broken(y_train=Y + 0.5), "must be whole numbers, got float64\n"),
        (broken(y_train=Y.astype(str)), "got <U21; number names alike in every part: np.searchsorted(np.unique("),
        (broken(y_train=Y[:-1]), "one label for each of 120 inputs, got 119"),
        (broken(y_train=np.stack([Y, Y], 1)), "one label for each of 120 inputs, got 120×2"),
        (broken(y_test=np.full(60, 3)), "y_test must be 0 … 2, the classes of y_train, got 3"),
        (broken(x_val=X[:9], y_val=np.arange(9) % 2), "y_val has no example of class 2"),
        (broken(x_val=X[:9], y_val=np.arange(9) % 4), "y_val must be 0 … 2"),
        (broken(y_train=SCARCE), "class 2 has 1 training example, too few"),
        (broken(x_test=np.zeros((60, 2, 4))), "x_test is N×2×4 but x_train N×2×3"),
        (broken(x_train=X[:, 0, 0]), "at least two axes"),
        (broken(x_train=np.full_like(X, np.nan)), "NaN or infinite"),
        (broken(x_train=np.ones_like(X)), "all inputs of x_train are equal"),
        (broken(x_train=X.astype(str)), "must be numbers"),
        (broken(y_test=None), "one of x_test and y_test"),
        (broken(x_train=None), "must hold x_train and y_train, it holds x_test, y_test, y_train"),
        (lambda arrays: {"X_train": X, "Y_train": Y}, "must hold x_train and y_train, it holds X_train, Y_train"),
    ],
)
def test_data_that_nothing_can_be_learnt_from_are_refused_before_training(change, message, own, tmp_path, capsys):
    np.savez("own.npz", **change(own))
    assert message in run(capsys, TRAIN, 2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train cut.npz", "cut.npz is not a readable .npy or .npz file"),
        ("train far.npy", "is a single array"),
        ("train nowhere.npz", "cannot read nowhere.npz: no such file"),
        ("train empty", "must hold train-images-idx3-ubyte"),
        ("train cut", "get the file again"),
        ("train mnist", "say where they are"),
        ("train own.npz --hidden 8-x", "such as 400-400"),
        ("train own.npz --out own.npz", "cannot write to own.npz"),
        ("evaluate nowhere", "nowhere is no finished run"),
        ("evaluate other", "is of something else"),
    ],
)
def test_files_that_cannot_be_used_are_named(line, message, own, tmp_path, capsys):
    (tmp_path / "cut.npz").write_bytes((tmp_path / "own.npz").read_bytes()[:-300])
    for folder in ("empty", "other", "cut"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other/report.json").write_text("{}")
    (tmp_path / "cut/train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 9, 2, 3) + bytes(50))
    assert message in run(capsys, line, 2)


@pytest.mark.parametrize(
    ("arrays", "more", "message"),
    [
        ({"x": X[:5], "y": Y[:5] + 9}, "", "y must be 0 … 2"),
        ({"x": X[:5, :1], "y": Y[:5]}, "", "x must be N×2×3, as in training"),
        ({"x": X[:0], "y": Y[:0]}, "", "N ≥ 1"),
        ({"x": X[:5] * np.inf, "y": Y[:5]}, "", "NaN or infinite"),
        ({"x": X[:5]}, "", "must hold x_test and y_test, or x and y; it holds x"),
        ({"X": X[:5], "Y": Y[:5]}, "", "must hold x_test and y_test, or x and y; it holds X, Y"),
        ({"x": X[:5], "y": Y[:5]}, " --ood wide.npy", "wide.npy must be N×2×3"),
    ],
)
def test_inputs_that_do_not_fit_the_run_are_refused(arrays, more, message, own, capsys):
    run(capsys, TRAIN)
    np.savez("other.npz", **arrays)
    np.save("wide.npy", np.zeros((3, 7)))
    assert message in run(capsys, f"evaluate run other.npz{more}", 2)


def test_a_folder_of_idx_files_is_read(own, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    y = np.arange(40) % 2
    images = (random.integers(0, 100, (40, 3, 3)) + 100 * y[:, None, None]).astype(np.uint8)
    content = struct.pack(">4I", 0x803, *images.shape) + images.tobytes()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 40) + y.astype(np.uint8).tobytes())
    dataset = data.from_files(folder, validation=True)
    assert (len(dataset.train_x), len(dataset.val_x), len(dataset.test_x)) == (34, 6, 0)
    assert dataset.shape == (3, 3)
    out = run(capsys, "train pictures --hidden 8 --epochs 20 --samples 2 --quiet")
    assert "test" not in out.splitlines()[5]
    assert "validation data of pictures: 6 inputs" in run(capsys, "evaluate varbnn-run")


def test_a_column_that_never_changes_stays_zero_and_others_are_standardised_by_themselves(own, tmp_path):
    x = np.stack([np.linspace(0, 1, 40), np.full(40, 7.0), 50 + 9 * np.linspace(0, 1, 40)], 1)
    np.savez("table.npz", x_train=x, y_train=np.arange(40) % 2, x_val=x[:4], y_val=[0, 1, 0, 1])
    dataset = data.from_files("table.npz")
    np.testing.assert_allclose(dataset.train_x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(dataset.train_x.std(0, correction=0), [1, 0, 1], atol=1e-5)
    assert torch.equal(dataset.val_x, dataset.train_x[:4])


def test_a_run_takes_a_column_that_was_constant_in_training_for_0(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = blobs(120, 0)
    x[:, 0, 1] = 7
    np.savez("own.npz", x_train=x.reshape(120, 6), y_train=y)
    run(capsys, TRAIN)
    moved = x.copy()
    moved[:, 0, 1] = 1007
    for name, array in (("same", x), ("moved", moved)):
        np.save(f"{name}.npy", array.reshape(120, 6))
        run(capsys, f"predict run {name}.npy --out {name}.npz")
    np.testing.assert_array_equal(np.load("moved.npz")["probs"], np.load("same.npz")["probs"])


@pytest.mark.parametrize("bytes_in", ["training", "later"])
def test_images_in_other_units_than_those_of_the_run_are_refused(bytes_in, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    images = (random.integers(0, 60, (60, 2, 3)) + 80 * y[:, None, None]).astype(np.uint8)
    own, other = (images, images / 255) if bytes_in == "training" else (images / 255, images)
    np.savez("own.npz", x_train=own, y_train=y)
    np.savez("same.npz", x=own, y=y)
    np.savez("other.npz", x=other, y=y)
    np.save("black.npy", np.zeros((4, 2, 3)))
    run(capsys, TRAIN)
    run(capsys, "evaluate run same.npz --ood black.npy")
    run(capsys, "predict run same.npz")
    for line in ("evaluate run other.npz", "evaluate run --ood other.npz", "predict run other.npz"):
        told = run(capsys, line, 2)
        assert re.search(
            r"other.npz(: x)?: values \S+ … \S+, but the training inputs have \S+ … \S+; give both in", told
        )
    arrays = dict(np.load("run/inputs.npz"))
    np.savez("run/inputs.npz", **{**arrays, "units": np.zeros(3)})
    assert "units are of something else; train again" in run(capsys, "predict run same.npz", 2)
    del arrays["units"]  # as runs have it that were trained before
    np.savez("run/inputs.npz", **arrays)
    run(capsys, "predict run other.npz")


def test_predict_takes_a_run_and_inputs_in_their_own_units(own, capsys):
    run(capsys, TRAIN)
    np.save("new.npy", own["x_test"] * 1.0)
    run(capsys, "predict run new.npy --out p.npz")
    opened = Run.open(Path("run"))
    expected = opened.predict(opened.prepared(torch.from_numpy(own["x_test"]), "x"))
    np.testing.assert_allclose(np.load("p.npz")["probs"], expected.mean, atol=1e-6)
    cli.main(["predict", "run/model.vbnn", "new.npy", "--out", "q.npz"])
    assert "varbnn predict run takes inputs in the units of the training inputs" in capsys.readouterr().err
    assert "no finished run" in run(capsys, "predict . new.npy", 2)
    np.save("narrow.npy", np.zeros((2, 5)))
    assert "narrow.npy must be N×" in run(capsys, "predict run narrow.npy", 2)


def test_evaluate_notices_that_the_training_data_are_others(own, capsys):
    arrays = {key: value for key, value in own.items() if "test" not in key}
    np.savez("own.npz", **arrays)
    run(capsys, TRAIN)
    run(capsys, "evaluate run")
    grown = {key: np.concatenate([value, value[:6]]) for key, value in arrays.items()}
    np.savez("own.npz", **grown)
    assert "own.npz holds other training data than when run was trained" in run(capsys, "evaluate run", 2)


@pytest.mark.parametrize("count", ["100000", "3000000000"])
def test_threads_that_no_machine_has_are_refused(own, capsys, count):
    assert "must be at most" in run(capsys, f"{TRAIN} --threads {count}", 2)
    assert not Path("run").exists()


def test_the_reason_of_a_damaged_state_is_one_line(own, capsys):
    run(capsys, TRAIN)
    Path("run", training.STATE).write_bytes(b"nothing of the kind")
    told = run(capsys, TRAIN, 2)
    assert len(told.strip().splitlines()) == 1
    assert "weights_only" not in told


def test_predict_gives_the_probabilities_of_evaluate_calibrated_if_asked_for(own, capsys):
    run(capsys, TRAIN)
    np.save("new.npy", own["x_test"])
    opened = Run.open(Path("run"))
    prediction = opened.predict(opened.prepared(torch.from_numpy(own["x_test"]), "x"))
    scaled = vb.TemperatureScaling(opened.report["temperature"])(prediction)
    out = run(capsys, "predict run new.npy --calibrated --out p.npz")
    assert f"logits divided by {opened.report['temperature']:.3f}" in out
    np.testing.assert_allclose(np.load("p.npz")["probs"], scaled.mean, atol=1e-6)
    np.testing.assert_allclose(np.load("p.npz")["epistemic"], scaled.epistemic, atol=1e-5)
    assert "as trained; --calibrated divides logits by" in run(capsys, "predict run new.npy")
    assert "takes the folder that varbnn train wrote" in run(capsys, "predict run/model.vbnn new.npy --calibrated", 2)
    assert "--reduce none" in run(capsys, "predict run new.npy --calibrated --reduce none --out o.npz", 2)


def test_an_interrupt_after_the_last_epoch_loses_nothing(own, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vb, "pack", interrupted)
        assert "the same command goes on after the last whole epoch" in run(capsys, TRAIN, 130)
        patch.setattr(vb.optim.BayesBiNN, "step", interrupted)
    run(capsys, TRAIN)
    assert (tmp_path / "run/report.json").exists()


def test_a_run_is_evaluated_from_any_folder(own, tmp_path, capsys, monkeypatch):
    run(capsys, TRAIN)
    here = run(capsys, "evaluate run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(capsys, "evaluate ../run") == here
    (tmp_path / "moved").mkdir()
    for name in ("own.npz", "run"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    monkeypatch.chdir(tmp_path / "moved")
    assert run(capsys, "evaluate run") == here


def test_a_table_of_text_is_told_from_a_damaged_file(own, tmp_path, capsys):
    (tmp_path / "table.csv").write_text("1,2\n3,4\n")
    run(capsys, TRAIN)
    for line in ("train table.csv", "predict run table.csv"):
        said = run(capsys, line, 2)
        assert "numpy.genfromtxt" in said
        assert "pickle" not in said


@pytest.mark.parametrize("labels", [lambda y: y[:, None], lambda y: y > 0])
def test_labels_may_be_a_column_or_say_yes_and_no(own, capsys, labels):
    np.savez("own.npz", **{key: labels(value) if key[0] == "y" else value for key, value in own.items()})
    assert "60 test inputs" in run(capsys, TRAIN)


def test_info_tells_of_the_networks_of_a_run(own, capsys):
    run(capsys, TRAIN)
    assert run(capsys, "info run") == run(capsys, "info run/model.vbnn")


def test_evaluate_notices_that_what_it_judges_by_are_others(own, capsys):
    run(capsys, TRAIN)
    np.savez("own.npz", **{**own, "y_test": own["y_test"][::-1].copy()})
    assert "own.npz holds other test data than when run was trained" in run(capsys, "evaluate run", 2)
    run(capsys, TRAIN)  # what was learned is the same, so the run goes on, and judges anew
    assert "test data of own.npz" in run(capsys, "evaluate run")


def test_a_run_goes_on_from_any_folder(own, tmp_path, capsys, monkeypatch):
    run(capsys, TRAIN)
    whole = Path("run/model.vbnn").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(capsys, TRAIN.replace("own.npz", "../own.npz").replace("--out run", "--out ../run"))
    assert Path("../run/model.vbnn").read_bytes() == whole


def test_a_picture_that_cannot_be_written_is_one_line(own, capsys):
    run(capsys, TRAIN)
    Path("elsewhere/reliability.png").mkdir(parents=True)
    assert cli.main(["evaluate", "run", "--out", "elsewhere"]) == 2
    told = capsys.readouterr()
    assert "cannot write elsewhere/reliability.png" in told.err
    assert told.err.count("\n") == 1
    assert told.out == run(capsys, "evaluate run")  # what was measured is not lost


@pytest.mark.parametrize(
    "line",
    [TRAIN, "evaluate run --out x", "predict run far.npy --out x", "demo --out x", "continual --data own.npz --out x"]
    + ["pack models:digits x.pt --out x"],
)
def test_an_empty_path_to_write_to_is_refused(own, tmp_path, capsys, line):
    before = sorted(tmp_path.iterdir())
    assert cli.main([*line.split()[:-1], ""]) == 2
    assert "argument --out: must be a path, got an empty one" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_what_to_do_without_a_class_in_the_validation_part_is_said_in_words_of_a_terminal(own, capsys):
    np.savez("own.npz", **broken(x_val=X[:9], y_val=np.arange(9) % 2)(own))
    told = run(capsys, TRAIN, 2)
    assert "x_val and y_val out; a sixth of every class is set aside then (varbnn continual: with --validation)" in told
    assert "validation=True" not in told


@pytest.mark.parametrize(
    "arrays", [{"mean": np.zeros(4), "std": np.ones(4)}, {"mean": np.zeros(6), "std": np.array(["1"])}, {"std": 1.0}]
)
def test_standardisation_that_does_not_fit_is_no_run(own, capsys, arrays):
    run(capsys, TRAIN)
    np.savez("run/inputs.npz", **arrays)
    assert "for inputs of 6 numbers; train again" in run(capsys, "evaluate run", 2)


ASKED = [("plan", key) for key in ("data", "data_dir", "seed", "fingerprint")]


@pytest.mark.parametrize("keys", [*ASKED, ("num_classes",), ("shape",), ("temperature",), ("where",), ("judged",)])
def test_a_report_without_what_is_asked_for_is_no_run(own, capsys, keys):
    run(capsys, TRAIN)
    report = json.loads(Path("run/report.json").read_text())
    *outer, key = keys
    del (report[outer[0]] if outer else report)[key]
    Path("run/report.json").write_text(json.dumps(report))
    assert "is of something else" in run(capsys, "evaluate run own.npz", 2)


@pytest.mark.parametrize(
    "change",
    [
        {"where": [1]},
        {"where": None},
        {"where": {"data": 5}},
        {"plan": {"data": None}},
        {"plan": {"data": 5}},
        {"plan": {"data_dir": []}},
        {"plan": {"seed": "0"}},
        {"plan": {"fingerprint": 1}},
        {"num_classes": "3"},
        {"shape": [6.5]},
        {"temperature": "1"},
        {"temperature": 0},
    ],
    ids=str,
)
def test_a_report_of_other_kinds_of_values_is_no_run(own, capsys, change):
    run(capsys, TRAIN.replace("--epochs 12", "--epochs 1"))
    report = json.loads(Path("run/report.json").read_text())
    plan = {**report["plan"], **change.get("plan", {})}
    Path("run/report.json").write_text(json.dumps({**report, **change, "plan": plan}))
    told = run(capsys, "evaluate run", 2)
    assert "is of something else" in told
    assert told.count("\n") == 1


def test_a_report_nested_without_end_is_no_run(own, tmp_path, capsys):
    (tmp_path / "report.json").write_text("[" * 100_000)
    assert "is of something else" in run(capsys, "evaluate .", 2)


def test_a_test_input_too_far_from_the_others_is_named_before_training(own, tmp_path, capsys):
    far = own["x_test"].copy()
    far[3, 0, 0] = 1e300
    np.savez("own.npz", **{**own, "x_test": far})
    assert "own.npz: x_test: there are NaN or numbers too large, or too far" in run(capsys, TRAIN, 2)
    assert not (tmp_path / "run").exists()


def test_data_sorted_by_class_are_packed_as_well_as_shuffled_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "digits", replace(PRESETS["digits"], refresh=200))
    random, y = np.random.default_rng(0), np.repeat(np.arange(4), 300)
    x = random.normal(size=(4, 10))[y] + 0.7 * random.normal(size=(1200, 10))
    found = []
    for order in (np.arange(1200), random.permutation(1200)):
        np.savez("own.npz", x_train=x[order], y_train=y[order], x_test=x[::3], y_test=y[::3])
        run(capsys, f"train own.npz --preset digits --hidden 32 --epochs 8 --samples 8 --quiet --out run{len(found)}")
        found.append(json.loads(Path(f"run{len(found)}/report.json").read_text())["test"]["accuracy"])
    assert found[0] > found[1] - 0.05
