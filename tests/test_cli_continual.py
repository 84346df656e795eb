"""The command continual: what it writes, what it refuses, and that a run that was cut off goes on to the same end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import varbnn as vb
from varbnn import cli, continual
from varbnn.cli import lifelong, strategies

ROOT = Path(__file__).resolve().parent.parent

SMALL = "continual own.npz --tasks 3 --hidden 8 --epochs 4 --batch-size 20 --samples 3 --quiet --out run"


def blobs(count: int, seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images of 4×4 whose brightest row is their class."""
    random = np.random.default_rng(seed)
    y = np.arange(count) % classes
    x = random.normal(size=(count, 4, 4))
    x[np.arange(count), y] += 2.0
    return x, y


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Arrays of a data set that is written to own.npz; the folder is the working directory."""
    monkeypatch.chdir(tmp_path)
    (x, y), (test_x, test_y) = blobs(120, 0), blobs(40, 1)
    arrays = {"x_train": x, "y_train": y, "x_test": test_x, "y_test": test_y}
    np.savez("own.npz", **arrays)
    return arrays


def run(capsys, line: str, code: int = 0) -> str:
    """What a command prints: on stdout, or where it fails on stderr."""
    assert cli.main(line.split()) == code
    captured = capsys.readouterr()
    assert code or captured.err == ""
    return captured.err if code else captured.out


def report(folder: str) -> dict:
    """What a run says of itself, without what it took in seconds."""
    content = json.loads(Path(folder, "report.json").read_text())
    for row in content["result"]["history"]:
        del row["seconds"]
    return content


def test_a_run_is_measured_and_written(own, capsys):
    out = run(capsys, SMALL)
    assert "permuted own: 3 tasks, the first with 120 training and 40 test inputs" in out
    assert "16-8-4, every weight ±1" in out
    found = report("run")
    result = continual.Result.from_dict(found["result"])
    scores = continual.all_scores(result.accuracy["task"])
    assert found["scores"]["task"]["forgetting"] == scores["forgetting"]
    assert f"{scores['average_accuracy']:.2%}" in out
    assert "bit per weight left" in out
    assert "same with --method finetune" in out
    assert found["plan"]["settings"] == dict(strategies.METHODS["prior"].settings)
    assert found["bytes_kept"] == 4 * (17 * 8 + 8 * 4)  # one number for each weight; a constant is the 17th input
    assert {"model.pt", "heat_map.png", "forgetting.png", "entropy.png"} == set(found["files"])
    assert {*found["files"], "report.json", "stream.pt", "stream.json"} == {p.name for p in Path("run").iterdir()}


def test_the_model_that_is_written_is_the_one_that_was_judged(own, capsys):
    run(capsys, f"{SMALL} --batch-norm task newest")
    data = vb.data.from_files("own.npz", validation=False)
    stream = continual.permuted(data, 3)
    model = lifelong.network(stream, (8,), vb.posteriors.Bernoulli(), "batch")
    model.load_state_dict(torch.load("run/model.pt", weights_only=True))
    result = continual.Result("again", 3)
    plain = continual.FineTune(lambda model, task: None)
    continual.evaluation.judge(model, plain, stream, stream[2], 2, continual.EvaluationPlan(3), 0, result)
    judged = continual.Result.from_dict(report("run")["result"])
    assert torch.equal(result.accuracy["task"][2], judged.accuracy["task"][2])


@pytest.mark.parametrize("stream", list(lifelong.STREAMS))
def test_every_stream(stream, own, capsys):
    run(capsys, f"{SMALL.replace('--tasks 3', '--tasks 2')} --stream {stream} --epochs 1 --ahead")
    found = report("run")
    assert found["plan"]["stream"]["kind"] == stream.split("-")[0]
    assert "forward_transfer" in found["scores"]["task"]
    assert found["result"]["size"] == 2


@pytest.mark.parametrize("method", ["prior", "finetune", "mean-field"])
def test_classes_that_are_opposite_are_told_apart(method, own, capsys):
    """Units that answer to both tails, without biases, would give x and -x the same answer."""
    parts = {}
    for part, count in (("train", 600), ("test", 200)):
        y = np.arange(count) % 2
        noise = np.random.default_rng(count).normal(size=(count, 20))
        parts |= {f"x_{part}": y[:, None] - 0.5 + noise, f"y_{part}": y}
    best = np.mean((parts["x_test"].sum(1) > 0) == parts["y_test"])  # the rule that made them, up to noise
    np.savez("own.npz", **parts)
    run(capsys, f"continual own.npz --stream split-class --method {method} --epochs 10 --quiet --out run")
    assert report("run")["scores"]["task"]["average_accuracy"] > best - 0.1


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_task_with_a_head_of_its_own_leaves_the_other_heads_where_they_were(norm):
    stream = lifelong.STREAMS["split-task"](vb.data.load("digits"), 5, 0)
    model = lifelong.network(stream, (30,), vb.posteriors.Point(), norm)
    *_, head = strategies.trained(model)
    before = head.detach().clone()
    plain = continual.FineTune(lambda model, task: vb.optim.StraightThrough(strategies.trained(model), lr=1e-2))
    continual.learn(model, stream[2:3], plain, progress=False)
    moved = (head != before).any(1).nonzero().flatten().tolist()
    assert tuple(moved) == stream[2].classes == (4, 5)


def test_one_task_is_a_stream_in_which_nothing_is_forgotten(own, capsys):
    out = run(capsys, f"{SMALL.replace('--tasks 3', '--tasks 1')} --ahead")
    assert [line.split() for line in out.splitlines() if line.startswith("forgetting")] == [["forgetting", "-"]]
    assert report("run")["scores"]["task"]["forgetting"] is None


def test_batch_norm_is_judged_by_whose_statistics_are_asked_for(own, capsys):
    out = run(capsys, f"{SMALL} --batch-norm running newest")
    assert "newest task's" in out
    assert "with batch norm" in out
    assert list(report("run")["result"]["accuracy"]) == ["running", "newest"]


@pytest.mark.parametrize("method", list(strategies.METHODS))
def test_every_method(method, own, capsys):
    out = run(capsys, f"{SMALL} --method {method} --epochs 1")
    assert f"method    {method}: {strategies.METHODS[method].title}" in out
    found = report("run")
    posterior = strategies.METHODS[method].posterior
    draws = posterior is not None and not posterior.certain
    assert ("entropy.png" in found["files"]) == draws
    assert ("bit per weight left" in out) == draws
    assert f"every weight {'real' if posterior is None else '±1'}" in out


def test_settings_are_changed_by_name_and_kept_in_the_report(own, capsys):
    assert "strength 2" in run(capsys, f"{SMALL} --set strength=2 lr=0.02")
    assert report("run")["plan"]["settings"]["lr"] == 0.02


def test_validation_data_judge_only_where_asked_for(own, capsys):
    out = run(capsys, f"{SMALL} --validation")
    assert "100 training and 20 validation inputs" in out


def test_without_test_data_what_is_set_aside_judges(own, capsys):
    np.savez("own.npz", x_train=own["x_train"], y_train=own["y_train"])
    assert "100 training and 20 test inputs" in run(capsys, SMALL)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(own, capsys, monkeypatch):
    run(capsys, SMALL.replace("--out run", "--out whole"))
    steps = 0

    def interrupted(self, *args, original=vb.optim.BayesBiNN.step, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 28:  # of 3 · 4 · 6: inside the second task
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(vb.optim.BayesBiNN, "step", interrupted)
        patch.setattr("varbnn.cli.continual.SAVE_EVERY", 0.0)
        assert "the same command goes on where the last state was saved" in run(capsys, SMALL, 130)
        assert not Path("run/report.json").exists()
        assert "going on from run/stream.pt" in run(capsys, SMALL)
    assert steps == 28 + 72 - 27  # one was begun in vain
    assert report("run") == report("whole")
    same = [torch.load(f"{name}/model.pt", weights_only=True) for name in ("run", "whole")]
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[1])


def test_a_killed_run_ends_as_one_that_was_not(own, tmp_path, capsys):
    line = SMALL.replace("--epochs 4", "--epochs 40")
    run(capsys, line.replace("--out run", "--out whole"))
    program = f"from varbnn.cli import continual, main; continual.SAVE_EVERY = 0.0; main({line.split()!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    state = tmp_path / "run" / "stream.pt"
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 100
        while not state.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert state.exists()
    run(capsys, line)
    assert report("run") == report("whole")


def test_a_finished_run_says_so_and_learns_nothing(own, capsys, monkeypatch):
    first = run(capsys, SMALL)
    monkeypatch.setattr("varbnn.cli.continual._learned", lambda *args: pytest.fail("learned again"))
    again = run(capsys, SMALL)
    assert "this very run, and it is finished" in again
    assert again.split("in the end")[1] == first.split("in the end")[1].split("\n\nWritten")[0] + "\n"


@pytest.mark.parametrize("content", ["{}", "[1", '{"plan": {"epochs": 9}, "result": {}}'])
def test_a_report_of_something_else_is_written_anew(content, own, capsys):
    run(capsys, f"{SMALL} --epochs 1")
    Path("run/report.json").write_text(content)
    assert "going on from run/stream.pt" in run(capsys, f"{SMALL} --epochs 1")
    assert report("run")["plan"]["epochs"] == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (" --seed 1", "stream, seed"),
        (" --tasks 2", "stream"),
        (" --method finetune", "method, settings"),
        (" --set lr=0.5", "settings"),
        (" --epochs 5", "epochs"),
        (" --batch-norm running", "batch_norm"),
        (" --hidden 9", "hidden"),
    ],
)
def test_a_run_asked_for_otherwise_does_not_go_on(change, named, own, capsys):
    run(capsys, f"{SMALL} --epochs 1")
    assert f"another setting of {named};" in run(capsys, f"{SMALL} --epochs 1{change}", 2)


def test_other_data_do_not_go_on(own, capsys):
    run(capsys, f"{SMALL} --epochs 1")
    np.savez("own.npz", **{**own, "x_train": own["x_train"] + np.arange(16).reshape(4, 4)})
    assert "another setting of stream" in run(capsys, f"{SMALL} --epochs 1", 2)


def test_a_torn_state_is_named(own, capsys):
    run(capsys, SMALL)
    state = Path("run/stream.pt")
    state.write_bytes(state.read_bytes()[:100])
    Path("run/report.json").unlink()
    assert "stream.pt is no checkpoint" in run(capsys, SMALL, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (SMALL.replace("own.npz", "nowhere.npz"), "cannot read nowhere.npz: no such file"),
        (SMALL.replace("own.npz", "mnist"), "say where they are"),
        (f"{SMALL} --stream split-class", "3 tasks cannot share the 4 classes of own evenly; give one of 1, 2, 4"),
        (
            f"{SMALL} --stream split-task",
            "4 classes of own evenly, with two or more in each; give one of 1, 2",
        ),
        (
            f"{SMALL} --tasks 4 --stream split-domain",
            "with two or more in each; give one of 1, 2",
        ),
        (f"{SMALL} --stream drifting", "invalid choice: 'drifting'"),
        (f"{SMALL} --set lr", "a name and a finite number such as lr=0.01, got 'lr'"),
        (f"{SMALL} --set window=3", "prior has no window; it has lr="),
        (f"{SMALL} --set strength=-1", "strength must be a finite number > 0"),
        (f"{SMALL} --tasks 0", "argument --tasks: must be at least 1"),
        (f"{SMALL} --hidden 8-x", "such as 400-400"),
        (f"{SMALL} --batch-norm oldest", "invalid choice: 'oldest'"),
        (f"{SMALL} --out own.npz", "cannot write to own.npz"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_learned(line, message, own, capsys, monkeypatch):
    monkeypatch.setattr("varbnn.continual.run.Run.learn_task", lambda *args: pytest.fail("learned"))
    error = run(capsys, line, 2)
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("scenario", "given"), [("class", "1 or 5"), ("domain", "1"), ("task", "1")])
def test_classes_that_make_no_tasks_of_two_are_told_what_can_be_asked_for(scenario, given, own, capsys):
    x, y = np.random.default_rng(0).normal(size=(100, 6)), np.arange(100) % 5
    np.savez("own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    error = run(capsys, f"{SMALL.replace('--tasks 3 ', '')} --stream split-{scenario}", 2)
    assert error.strip().endswith(f"the 5 classes of own make no tasks of 2 each; give --tasks {given}")


def test_a_full_disk_is_one_line_and_the_last_state_stays(own, capsys, monkeypatch):
    def full(state, path, *, save=torch.save):
        full.calls += 1
        if full.calls == 3:
            raise OSError(28, "No space left on device")
        save(state, path)

    full.calls = 0
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", full)
        error = run(capsys, SMALL, 2)
    assert "cannot be written" in error
    assert "No space left on device" in error
    assert "the last complete state is still there" in error
    run(capsys, SMALL)


def test_without_matplotlib_there_are_no_pictures_and_everything_else(own, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = run(capsys, SMALL)
    assert 'No pictures: matplotlib is not installed; pip install "varbnn[plot]"' in out
    assert report("run")["files"] == ["model.pt"]


@pytest.mark.parametrize(
    "wrong",
    [
        "--set lr=-1",
        "--set temperature=0",
        "--set strength=-1",
        "--set lr=inf",
        "--method replay --set share=1",
    ],
)
def test_settings_out_of_range_leave_nothing_behind(own, capsys, wrong):
    assert len(run(capsys, f"{SMALL} {wrong}", 2).strip().splitlines()) == 1
    assert not Path("run").exists() or not list(Path("run").iterdir())


def test_a_finished_run_of_points_is_shown_again(own, capsys):
    run(capsys, f"{SMALL} --method replay")
    assert "it is finished" in run(capsys, f"{SMALL} --method replay")


def test_files_of_the_users_own_are_not_said_to_be_written(own, capsys):
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("")
    told = run(capsys, SMALL)
    assert "Written to run: entropy.png, forgetting.png, heat_map.png, model.pt, report.json\n" in told


def test_a_run_is_shown_again_and_goes_on_from_any_folder(own, tmp_path, capsys, monkeypatch):
    run(capsys, SMALL)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    line = SMALL.replace("own.npz", "../own.npz").replace("--out run", "--out ../run")
    assert "it is finished" in run(capsys, line)
    Path("../run/report.json").unlink()
    assert "going on from ../run/stream.pt" in run(capsys, line)
