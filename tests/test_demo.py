"""The demonstration, in a smoke size: what it writes, that it repeats, and that a failure leaves nothing behind."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import varbnn as vb
from varbnn import demo
from varbnn.data import load
from varbnn.demo.methods import MEASURES, METHODS, Outcome
from varbnn.demo.networks import network
from varbnn.demo.output import output
from varbnn.demo.pictures import draw
from varbnn.demo.words import COLUMNS, reading, suggestions, table
from varbnn.errors import InputError

SMOKE = dict(epochs=2, num_samples=2, quiet=True)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """One smoke run on digits: its directory and its report."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    return out, demo.run("digits", out=str(out), **SMOKE)


def test_the_report_has_every_measure_of_every_method_as_a_number(digits):
    out, returned = digits
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["methods"] == returned["methods"]
    assert list(report["methods"]) == ["ste", "posterior"]
    for measures in report["methods"].values():
        assert tuple(measures) == demo.methods.MEASURES
        assert all(isinstance(value, float) and np.isfinite(value) for value in measures.values())
        assert all(0 <= measures[name] <= 1 for name in ("accuracy", "ece", "ood_auroc", "entropy_bits"))
        assert measures["seconds"] > 0
    assert report["methods"]["ste"]["entropy_bits"] == 0
    assert 0 < report["methods"]["posterior"]["entropy_bits"] < 1
    assert report["methods"]["ste"]["bytes_per_weight"] == pytest.approx(12, abs=0.1)  # latent and two moments of Adam
    assert report["methods"]["posterior"]["bytes_per_weight"] == 4
    assert (report["data"], report["seed"]) == ("digits", 0)
    assert (report["settings"]["epochs"], report["settings"]["num_samples"]) == (2, 2)
    assert report["versions"]["torch"] == torch.__version__
    assert [len(rows) for rows in report["history"].values()] == [2, 2]


def test_the_pictures_are_pictures_and_nothing_else_is_there(digits):
    out, report = digits
    pictures = ["layers.png", "reliability.png", "training.png", "uncertainty.png"]
    assert report["files"] == sorted([*pictures, "posterior.vbnn"])
    assert sorted(path.name for path in out.iterdir()) == sorted([*report["files"], "report.json"])
    for name in pictures:
        content = (out / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000


def test_the_packed_networks_are_those_that_were_trained(digits):
    out, report = digits
    packed, data = vb.load_packed(out / "posterior.vbnn"), load("digits")
    assert packed.num_samples == 2
    right = packed(data.test_x, reduce="mean").mean.argmax(-1) == data.test_y
    assert float(right.float().mean()) == pytest.approx(report["methods"]["posterior"]["accuracy"], abs=0.1)


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_global_state_alone(digits, tmp_path):
    _, first = digits
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    again = demo.run("digits", out=str(tmp_path), **SMOKE)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    for name in first["methods"]:
        one, two = (dict(report["methods"][name]) for report in (first, again))
        for measures in (one, two):
            measures.pop("seconds")
            measures.pop("ms_per_step")
        assert one == two


def test_every_method_gets_the_same_start_the_same_batches_and_the_same_epochs(monkeypatch):
    seen = []

    def record(model, optimizer, loader, *, epochs, **options):
        real = {name: p.detach().clone() for name, p in model.named_parameters() if "norm" in name}
        seen.append((real, [y for _ in range(2) for _, y in loader], epochs))
        return [{"step_flips": 0.0}]

    monkeypatch.setattr("varbnn.fit", record)
    recipe = demo.RECIPES["moons"]
    for name, method in demo.METHODS.items():
        demo.train(method, load("moons"), recipe, recipe.settings[name], num_samples=1, seed=0)
    (first, *others) = seen
    for other in others:
        for one, two in zip(first[:2], other[:2], strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)
        assert first[2] == other[2] == demo.RECIPES["moons"].epochs


def test_moons_come_with_a_map_of_each_method(tmp_path, capsys):
    report = demo.run("moons", out=str(tmp_path), epochs=1, num_samples=2)
    assert {"map-ste.png", "map-posterior.png"} <= set(report["files"])
    captured = capsys.readouterr()
    for text in ("2-64-64-2", "1,000 points on a far ring", "BinaryLinear", "OOD AUROC ↑", "Next:", "Written to"):
        assert text in captured.out
    assert captured.err == "", "bars belong on a terminal"


def test_numbers_of_numpy_paths_and_any_iterable_of_names_do(tmp_path, monkeypatch):
    plain = demo.run("moons", out=str(tmp_path / "plain"), methods=["ste"], epochs=1, num_samples=2, seed=3, quiet=True)
    numbers = dict(epochs=np.int64(1), num_samples=np.int64(2), seed=np.int64(3))
    read = []
    monkeypatch.setattr("varbnn.demo.comparison.load", lambda name, place, seed: read.append(place) or load(name))
    places = dict(out=tmp_path / "other", data_dir=tmp_path)
    other = demo.run("moons", methods=(name for name in ["ste"]), quiet=True, **places, **numbers)
    assert read == [str(tmp_path)]
    assert other["settings"] == plain["settings"]
    assert json.loads((tmp_path / "other/report.json").read_text())["seed"] == 3


def test_training_leaves_generators_of_other_devices(tmp_path, monkeypatch):
    reset = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reset.append)
    demo.run("moons", out=str(tmp_path), methods=["ste"], **SMOKE)
    assert not reset


def test_one_method_alone_is_possible(tmp_path, capsys):
    report = demo.run("moons", methods=["ste"], out=str(tmp_path), epochs=1, num_samples=1)
    assert list(report["methods"]) == ["ste"]
    assert "layers.png" not in report["files"]
    assert "sampled network" not in capsys.readouterr().out


def test_without_foreign_inputs_the_auroc_is_null_and_the_note_is_shown(tmp_path, capsys):
    generator = np.random.default_rng(0)
    arrays = {f"x_{part}": generator.integers(0, 256, (200, 28, 28), dtype=np.uint8) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(200) % 10 for part in ("train", "test")}
    np.savez(tmp_path / "mnist.npz", **arrays)
    report = demo.run("mnist", data_dir=str(tmp_path), out=str(tmp_path / "out"), epochs=1, num_samples=1)
    assert report["methods"]["posterior"]["ood_auroc"] is None
    assert json.loads((tmp_path / "out" / "report.json").read_text())["methods"]["ste"]["ood_auroc"] is None
    assert "no Fashion-MNIST or notMNIST" in capsys.readouterr().out


def test_without_matplotlib_the_extra_is_named_and_the_report_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = demo.run("moons", out=str(tmp_path), epochs=1, num_samples=1)
    assert report["files"] == ["posterior.vbnn"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["posterior.vbnn", "report.json"]
    assert 'pip install "varbnn[plot]"' in capsys.readouterr().out


ALL = {name: dict.fromkeys(MEASURES, 0.5) for name in METHODS}


def test_the_table_of_all_methods_fits_a_terminal_and_its_columns_end_together():
    wide = {"flips_per_step": 1234567.8, "bytes_per_weight": 12.0, "nll": 12.3456, "ood_auroc": None}
    heading, *rows = table({**ALL, "filter": {**ALL["filter"], **wide}}).splitlines()
    assert len(rows) == len(METHODS)
    assert {len(row) for row in rows} == {len(heading)}
    assert len(heading) <= 120
    assert rows[list(METHODS).index("filter")].split()[1:] == [
        *("50.00%", "12.3456", "0.5000", "0.5000", "-", "0.50", "1234567.8", "0.5", "12"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "losses, sentences",
    [
        ({"ste": 0.4, "posterior": 0.3}, ["The posterior predicts with", "Against one network the", "is 25% lower."]),
        ({"ste": 0.2, "posterior": 0.3}, ["is 50% higher."]),
        (
            {"ste": 0.4, "filter": 0.2, "posterior": 0.3, "moments": 0.1, "gaussian": 0.2},
            [
                "posterior, moments and gaussian each predict with the mean of 8 sampled networks.",
                "The best NLL of those that draw (moments) is 50% lower than that of those that do not (filter).",
            ],
        ),
    ],
)
def test_the_reading_compares_those_that_draw_with_those_that_do_not(losses, sentences):
    text = reading(load("moons"), {name: {**ALL[name], "nll": nll} for name, nll in losses.items()}, 8)
    assert all(sentence in text for sentence in sentences)
    assert text.endswith("One seed, 1,000 test inputs: another seed may say otherwise; see Results in the README.")


@pytest.mark.parametrize("name", ["bop", "moments"])
def test_the_reading_of_one_method_alone_compares_nothing(name):
    assert "NLL" not in reading(load("moons"), {name: ALL[name]}, 8)


def test_the_pictures_of_all_methods_have_a_panel_for_each(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    titles, cut = {}, []

    def save(figure, path, **options):
        titles[path.stem] = [panel.get_title(loc="left") for panel in figure.axes]
        cut.extend(path.stem for panel in figure.axes if panel.dataLim.y1 > max(panel.get_ylim()))

    monkeypatch.setattr(Figure, "savefig", save)
    data = load("digits")
    guess = vb.Prediction(torch.full((1, len(data.test_y), data.num_classes), 1 / data.num_classes))
    varied = vb.Prediction((4 * torch.rand_like(guess.probs)).softmax(-1))
    row = [{"loss": 1.0, "accuracy": 0.5, "entropy_bits": 0.0, "flips": 3.0}]
    outcomes = {
        name: Outcome(network(data, (4,), method.posterior), guess, guess, row, {}) for name, method in METHODS.items()
    }
    outcomes["ste"] = replace(outcomes["ste"], prediction=varied, ood=varied)  # lower bars, and drawn first
    draw(data, outcomes, 2, tmp_path)
    assert titles["layers"] == [name for name, method in METHODS.items() if method.draws]
    assert titles["uncertainty"] == [f"{name}, AUROC 0.500" for name in METHODS]
    assert len(titles["reliability"]) == len(METHODS)
    assert cut == []


def publish(folder, program: str = "varbnn demo", **files: str) -> list[str]:
    with output(folder, program) as place:
        for name, text in files.items():
            (place.draft / name.replace("_", ".")).write_text(text)
        return place.publish()


def test_pictures_of_an_earlier_run_go_and_foreign_files_stay(tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    publish(tmp_path, a_png="1", b_png="1", report_json='{"program": "varbnn demo", "files": ["a.png", "b.png"]}')
    assert publish(tmp_path, b_png="2", report_json="{}") == ["b.png", "report.json"]
    assert {path.name: path.read_text()[0] for path in tmp_path.iterdir()} == {
        "mine.png": "m",
        "b.png": "2",
        "report.json": "{",
    }


@pytest.mark.parametrize("own", ["varbnn demo", "varbnn train", "varbnn continual"])
@pytest.mark.parametrize("other", ["varbnn demo", "varbnn train", "varbnn continual"])
def test_a_run_of_another_program_is_left_alone(tmp_path, own, other):
    report = {"program": other, "files": ["a.png"]}
    publish(tmp_path, other, a_png="1", report_json=json.dumps(report))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if own == other:
        publish(tmp_path, own, report_json="{}")
        assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
        return
    with pytest.raises(InputError, match=f"holds a run of {other}; choose another --out"):
        publish(tmp_path, own, a_png="2", report_json="{}")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_came_while_training_ran_is_left_alone(tmp_path):
    with output(tmp_path, "varbnn demo") as place:
        (place.draft / "report.json").write_text("{}")
        publish(tmp_path, "varbnn train", report_json='{"program": "varbnn train"}')
        with pytest.raises(InputError, match="holds a run of varbnn train"):
            place.publish()
    assert (tmp_path / "report.json").read_text() == '{"program": "varbnn train"}'


@pytest.mark.parametrize(
    "report",
    [
        '{"program": "varbnn demo", "files": ["../outside.png", 3, "notes.txt"]}',
        '{"program": "varbnn demo", "files": 7}',
        '{"files": ["kept.png"]}',
        "[]",
        "nonsense",
    ],
)
def test_a_report_that_is_none_of_ours_removes_nothing(tmp_path, report):
    for name in ("outside.png", "out/notes.txt", "out/kept.png", "out/report.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(report)
    publish(tmp_path / "out", report_json="new")
    assert (tmp_path / "outside.png").exists()
    assert (tmp_path / "out" / "notes.txt").exists()
    assert (tmp_path / "out" / "kept.png").exists()
    assert (tmp_path / "out" / "report.json").read_text() == "new"


def test_nothing_is_on_the_disk_while_training_runs(tmp_path, monkeypatch):
    def look(*args, **options):
        assert not list(tmp_path.iterdir())  # so that even a killed run leaves nothing
        raise KeyboardInterrupt

    monkeypatch.setattr("varbnn.demo.comparison.train", look)
    with pytest.raises(KeyboardInterrupt):
        demo.run("moons", out=str(tmp_path / "out"), **SMOKE)


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), RuntimeError("anything")])
def test_whatever_ends_the_training_leaves_the_disk_as_it_was(tmp_path, monkeypatch, trouble):
    def fail(*args, **options):
        raise trouble

    monkeypatch.setattr("varbnn.demo.comparison.train", fail)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("{}")
    for out in (tmp_path / "new" / "deep", tmp_path / "old"):
        with pytest.raises(type(trouble)):
            demo.run("moons", out=str(out), **SMOKE)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert [(path.name, path.read_text()) for path in (tmp_path / "old").iterdir()] == [("report.json", "{}")]


def test_an_unwritable_directory_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("varbnn.demo.comparison.train", lambda *args, **options: pytest.fail("trained"))
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(InputError, match=r"cannot write to .*file.*; choose another directory with --out"):
            demo.run("moons", out=str(out), **SMOKE)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_file_that_cannot_be_replaced_is_said_plainly(tmp_path):
    (tmp_path / "training.png" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot write to .*directory"):
        publish(tmp_path, training_png="1", report_json="{}")
    assert [path.name for path in tmp_path.iterdir()] == ["training.png"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(data="cifar"), "no data set 'cifar'; known are digits"),
        (dict(methods=["adam"]), "no method 'adam'; known are ste, bop,"),
        (dict(methods=[]), "no method ''"),
        (dict(methods="ste"), "methods must be a list of names, got 'ste'"),
        (dict(methods=3), "methods must be a list of names, got 3"),
        (dict(methods=[["ste"]]), r"no method \['ste'\]"),
        (dict(num_samples=0), "num_samples must be a whole number ≥ 1, got 0"),
        (dict(num_samples=2.5), "num_samples must be a whole number ≥ 1, got 2.5"),
        (dict(num_samples="2"), "num_samples must be a whole number ≥ 1, got '2'"),
        (dict(epochs=0), "epochs must be a whole number ≥ 1, got 0"),
        (dict(data="moons", seed=-1), "seed must be a whole number from 0"),
        (dict(seed=2**70), "seed must be a whole number from 0"),
        (dict(data="mnist"), "--data-dir"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        demo.run(out=str(tmp_path / "out"), **options)
    assert not list(tmp_path.iterdir())


def test_every_measure_has_a_column_and_every_data_set_a_recipe():
    assert set(COLUMNS) == set(MEASURES) - {"seconds"}  # which the bars have shown
    from varbnn.data import NAMES

    assert set(demo.RECIPES) <= set(NAMES)
    for recipe in demo.RECIPES.values():
        assert set(recipe.settings) == set(demo.METHODS)


def test_networks_of_bits_have_a_recipe_of_their_own_and_say_so(tmp_path, capsys):
    report = demo.run("digits", activation="sign", out=tmp_path / "d", epochs=1, num_samples=8)
    assert report["settings"]["activation"] == "sign"
    assert report["settings"]["widths"] == (128, 128)
    assert report["settings"]["settings"]["posterior"] == vb.presets.PRESETS["digits-signs"].settings
    said = capsys.readouterr().out
    assert "every weight and activation ±1" in said
    assert "varbnn demo --activation sign --seed 1" in said
    packed = vb.load_packed(tmp_path / "d" / "posterior.vbnn")
    assert [step.activation for step in packed.program.steps] == ["sign", "sign", "none"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(activation="tanh"), "activation must be one of 'relu', 'sign', got 'tanh'"),
        (dict(activation=["sign"]), r"activation must be one of 'relu', 'sign', got \['sign'\]"),
        (dict(data="moons", activation="sign"), "no settings for moons with activation='sign', only for digits, mnist"),
    ],
)
def test_an_activation_without_settings_is_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        demo.run(**options, out=tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("packed", [[], ["posterior.vbnn"]])
@pytest.mark.parametrize("data, data_dir", [("digits", None), ("moons", None), ("mnist", "files")])
def test_three_commands_are_suggested_and_all_can_be_typed(data, data_dir, packed):
    from varbnn.cli.program import _parser

    text = suggestions(data, data_dir, "out", packed)
    commands = [line.split("   ")[0].split() for line in text.splitlines()[1:]]
    commands = [[word for word in command if word] for command in commands]
    assert len(commands) == 3
    for program, *arguments in commands:
        assert program == "varbnn"
        known = arguments[
            : next((i for i, word in enumerate(arguments) if word in ("see", "another", "versions", "the")), 99)
        ]
        _parser().parse_args(known)


def test_convolutions_halve_the_image_and_feed_the_fully_connected_layers():
    model = network(load("digits"), (5,), None, 0.1, 0.2, channels=(2, 3))
    assert [tuple(p.shape) for name, p in model.named_parameters() if p.ndim > 1] == [
        (2, 1, 3, 3),
        (3, 2, 3, 3),
        (5, 3 * 2 * 2),  # 8×8, halved twice
        (10, 5),
    ]
    shares = [layer.p for layer in model if isinstance(layer, torch.nn.Dropout)]
    assert shares == [0.1, 0.2, 0.2, 0.2]  # inputs; two convolutions and one layer
    assert model.eval()(load("digits").test_x[:4]).shape == (4, 10)


def test_convolutions_see_the_image_as_it_was_before_flattening():
    data = load("digits")
    model = network(data, (), None, channels=(2,)).eval()
    seen = []
    model.conv1.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    model(data.test_x[:3])
    assert torch.equal(seen[0], data.test_x[:3].reshape(3, 1, 8, 8))


def kinds(model) -> list[str]:
    return [type(layer).__name__ for layer in model]


def test_signs_stand_where_relu_does_and_pooling_comes_before_them():
    data = load("digits")
    relu = network(data, (5,), vb.posteriors.Point(), channels=(2,))
    signs = network(data, (5,), vb.posteriors.Point(), channels=(2,), activation="sign")
    after = ["Flatten", "BinaryLinear", "BatchNorm1d", "{}", "BinaryLinear", "BatchNorm1d"]
    first = ["Unflatten", "BinaryConv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert kinds(relu) == first + [name.format("ReLU") for name in after]
    first = ["Unflatten", "BinaryConv2d", "MaxPool2d", "BatchNorm2d", "Sign"]
    assert kinds(signs) == first + [name.format("Sign") for name in after]


def test_packed_networks_of_signs_pass_bits_from_layer_to_layer():
    data = load("digits")
    torch.manual_seed(0)
    model = network(data, (70, 40), vb.posteriors.Bernoulli(), activation="sign").eval()
    packed = vb.pack(model, 3, refresh_bn=data.train_x)
    for s in range(3):
        torch.testing.assert_close(
            packed(data.test_x[:20])[s], packed.member(s)(data.test_x[:20]), atol=1e-4, rtol=1e-4
        )
    assert [f"{s}, sign)" in str(packed) for s in ("64 → 70", "70 → 40")] == [True, True]


def test_an_unknown_activation_is_refused():
    with pytest.raises(InputError, match="activation must be one of 'relu', 'sign', got 'tanh'"):
        network(load("digits"), (8,), None, activation="tanh")


@pytest.mark.parametrize("name, channels, word", [("moons", (4,), "without channels"), ("digits", (1,) * 4, "8×8")])
def test_a_network_of_convolutions_is_refused_for_what_is_no_image_or_too_small(name, channels, word):
    with pytest.raises(InputError, match=word):
        network(load(name), (8,), None, channels=channels)
