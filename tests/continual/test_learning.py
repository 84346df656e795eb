"""A stream is learned as a loop written by hand would, and a run that was cut off goes on as if it had not been."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn import continual
from varbnn.continual.evaluation import seed_of
from varbnn.continual.run import steps
from varbnn.errors import CheckpointError, InputError


def some_task(name="one", seed=0, count=60, classes=(0, 1, 2)):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=generator)
    y = torch.tensor(classes)[torch.randint(len(classes), (count,), generator=generator)]
    return continual.Task(name, x, y, x[:30], y[:30], classes=tuple(classes))


def three_tasks():
    return continual.from_tasks([some_task("one", 1), some_task("two", 2), some_task("three", 3)])


@pytest.fixture
def stream():
    return three_tasks()


def network(outputs=3, norm=True, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(8, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU(), nn.Linear(16, outputs)]
    return vb.binarize(nn.Sequential(*layers))


def bayes(model, task, prior):
    return vb.optim.BayesBiNN(model.parameters(), lr=0.05, dataset_size=len(task), prior=prior)


def cosine(optimizer, steps):
    return CosineAnnealingLR(optimizer, steps)


def learned(stream, model, **options):
    settings = dict(epochs=3, batch_size=20, num_samples=2, schedule=cosine, progress=False)
    evaluation = continual.EvaluationPlan(num_samples=3, batchnorm=("task", "newest"))
    settings |= dict(evaluation=evaluation, strategy=continual.PosteriorAsPrior(bayes))
    return continual.learn(model, stream, **{**settings, **options})


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def equal(first, second):
    for name in ("accuracy", "nll", "ece"):
        for protocol, matrix in getattr(first, name).items():
            assert torch.equal(matrix.nan_to_num(-1), getattr(second, name)[protocol].nan_to_num(-1)), (name, protocol)
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in r.history] for r in (first, second)]
    assert repr(rows[0]) == repr(rows[1])
    assert first.tasks == second.tasks


# --- what it does ---


def test_it_is_the_loop_people_write(stream):
    """Order of examples, prior, schedule, draws: a loop by hand gives the same parameters, bit for bit."""
    model = network()
    learned(stream, model)
    own, prior = network(), 0.0
    for number, task in enumerate(stream):
        optimizer = bayes(own, task, prior)
        scheduler = CosineAnnealingLR(optimizer, 9)
        own.train()
        for epoch in range(3):
            order = torch.randperm(60, generator=torch.Generator().manual_seed(seed_of(0, number, epoch)))
            for part in order.split(20):
                optimizer.zero_grad()
                for _ in range(2):
                    (F.cross_entropy(own(task.train_x[part]), task.train_y[part]) / 2).backward()
                optimizer.step()
                scheduler.step()
        prior = vb.as_prior(own)
    same(model.state_dict(), own.state_dict())


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_the_next_prior_is_the_posterior_to_a_power(stream, strength):
    model, seen = network(), []

    def note(model, task, prior):
        seen.append((prior, vb.as_prior(model)))
        return bayes(model, task, prior)

    learned(stream, model, strategy=continual.PosteriorAsPrior(note, strength), epochs=1)
    assert seen[0][0] == 0.0
    for prior, before in seen[1:]:
        for own, natural in zip(prior, before, strict=True):
            assert torch.equal(own, strength * natural)


def test_what_is_measured_is_what_evaluate_says(stream):
    model = network()
    result = learned(stream, model)
    task, newest = stream[0], stream[2]
    for protocol, source in (("task", task), ("newest", newest)):
        generator = torch.Generator().manual_seed(seed_of(0, 2, 0))
        prediction = vb.predict(model, task.test_x, 3, refresh_bn=source.train_x, generator=generator)
        found = vb.evaluate(prediction, task.test_y)
        assert float(result.accuracy[protocol][2, 0]) == pytest.approx(found["accuracy"], abs=1e-12)
        assert float(result.nll[protocol][2, 0]) == pytest.approx(found["nll"], abs=1e-12)
        assert float(result.ece[protocol][2, 0]) == pytest.approx(found["ece"], abs=1e-12)


def test_without_batch_norm_all_protocols_are_one(stream):
    evaluation = continual.EvaluationPlan(num_samples=2, batchnorm=("task", "newest", "running"))
    result = learned(stream, network(norm=False), evaluation=evaluation)
    for other in ("newest", "running"):
        assert torch.equal(result.accuracy["task"].nan_to_num(-1), result.accuracy[other].nan_to_num(-1))


@pytest.mark.parametrize(
    ("tasks", "there"),
    [
        ("seen", [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
        ("newest", [[1, 0, 0], [0, 1, 0], [1, 1, 1]]),
        ("all", [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
    ],
)
def test_which_tasks_are_judged(stream, tasks, there):
    result = learned(stream, network(), evaluation=continual.EvaluationPlan(num_samples=1, tasks=tasks), epochs=1)
    assert torch.equal(~result.accuracy["task"].isnan(), torch.tensor(there, dtype=torch.bool))


def test_forward_transfer_is_measured_against_the_network_as_it_was_before(stream, tmp_path):
    evaluation = continual.EvaluationPlan(num_samples=3, tasks="all", batchnorm=("task", "newest"))
    result = learned(stream, network(), evaluation=evaluation, epochs=1)
    for protocol, source in (("task", stream[2]), ("newest", stream[0])):
        generator = torch.Generator().manual_seed(seed_of(0, 0, 2))
        prediction = vb.predict(network(), stream[2].test_x, 3, refresh_bn=source.train_x, generator=generator)
        accuracy = vb.evaluate(prediction, stream[2].test_y)["accuracy"]
        assert float(result.untrained[protocol][2]) == pytest.approx(accuracy, abs=1e-12)
    matrix = result.accuracy["task"]
    expected = ((matrix[0, 1] - result.untrained["task"][1]) + (matrix[1, 2] - result.untrained["task"][2])) / 2
    found = continual.all_scores(matrix, baseline=result.untrained["task"])["forward_transfer"]
    assert found == pytest.approx(float(expected), abs=1e-12)
    again = continual.Result.from_dict(result.as_dict())
    assert torch.equal(again.untrained["newest"], result.untrained["newest"])


def test_judging_the_untrained_network_changes_nothing_that_is_learned(stream):
    states = []
    for tasks in ("seen", "all"):
        model = network()
        learned(stream, model, evaluation=continual.EvaluationPlan(num_samples=2, tasks=tasks), epochs=1)
        states.append(model.state_dict())
    same(*states)


def test_outputs_of_other_heads_get_no_gradient_and_no_probability():
    stream = continual.from_tasks([some_task("a", 1, classes=(0, 1)), some_task("b", 2, classes=(2, 3))])
    model = network(outputs=4, norm=False)
    before = model[2].natural.detach().clone()

    def plain(model, task):
        return torch.optim.SGD(model.parameters(), lr=0.1)

    tasks = []

    class Watching(continual.FineTune):
        def end(self, model, task, number):
            tasks.append(model[2].natural.detach().clone())

    result = learned(stream, model, strategy=Watching(plain), schedule=None)
    first, second = tasks
    assert not torch.equal(first[:2], before[:2])
    assert torch.equal(first[2:], before[2:]), "the second head moved while the first task was learned"
    assert torch.equal(second[:2], first[:2]), "the first head moved while the second task was learned"
    assert bool((result.accuracy["task"][1] > 0).any())


def test_predictions_among_the_classes_of_a_task_are_renormalised():
    from varbnn.continual.evaluation import among

    task = some_task(classes=(1, 3))
    prediction = vb.Prediction(torch.tensor([[[0.5, 0.1, 0.1, 0.3], [0.2, 0.6, 0.2, 0.0]]], dtype=torch.float64))
    own, labels = among(prediction, torch.tensor([3, 1]), task)
    assert torch.allclose(own.probs, torch.tensor([[[0.25, 0.75], [1.0, 0.0]]], dtype=torch.float64))
    assert labels.tolist() == [1, 0]


def test_a_kept_optimizer_is_one_for_the_whole_stream(stream):
    made = []

    def once(model, task):
        made.append(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        return made[-1]

    learned(stream, network(), strategy=continual.FineTune(once, keep=True), schedule=None, epochs=1)
    assert len(made) == 1
    learned(stream, network(), strategy=continual.FineTune(once), schedule=None, epochs=1)
    assert len(made) == 4


def test_a_schedule_on_a_kept_optimizer_is_refused(stream):
    keeping = continual.FineTune(lambda model, task: torch.optim.SGD(model.parameters(), lr=0.1), keep=True)
    with pytest.raises(InputError, match="schedule"):
        learned(stream, network(), strategy=keeping)


def test_a_strategy_may_use_real_networks_and_penalties(stream):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 3))

    class Ridge(continual.FineTune):
        def penalty(self, model):
            return 1e3 * sum(p.square().sum() for p in model.parameters())

    made = Ridge(lambda model, task: torch.optim.SGD(model.parameters(), lr=1e-4))
    result = learned(stream, model, strategy=made, schedule=None)
    assert max(float(p.detach().abs().max()) for p in model.parameters()) < 0.02
    assert "entropy_bits" not in result.history[0]


def test_the_result_survives_json(stream):
    result = learned(stream, network(), epochs=1)
    back = continual.Result.from_dict(json.loads(json.dumps(result.as_dict(), allow_nan=False)))
    equal(back, result)
    assert back.history == result.history


def test_the_divergence_that_points_do_not_have_is_none_in_json(stream):
    torch.manual_seed(0)
    model = vb.binarize(nn.Linear(8, 3), vb.posteriors.Point())
    plain = continual.FineTune(lambda model, task: vb.optim.StraightThrough(model.parameters()))
    content = json.loads(json.dumps(learned(stream, model, strategy=plain).as_dict(), allow_nan=False))
    assert [row["kl"] for row in content["history"]] == [None] * 3
    content["untrained"] = {"task": [0.5, None, 0.25]}
    back = continual.Result.from_dict(content)
    assert all(math.isnan(row["kl"]) for row in back.history)
    assert math.isnan(back.untrained["task"][1])
    assert back.as_dict() == content


# --- cut off, and gone on ---


class Cut(Exception):
    pass


def cut_after(steps, monkeypatch):
    """Raise in the step of that number, counted over the whole run."""
    from varbnn.continual.run import Run

    count, real = [0], Run.step

    def step(self, *args):
        count[0] += 1
        if count[0] > steps:
            raise Cut
        return real(self, *args)

    monkeypatch.setattr(Run, "step", step)


STRATEGIES = {
    "prior": lambda: continual.PosteriorAsPrior(bayes),
    "kept": lambda: continual.FineTune(lambda m, t: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), keep=True),
    "new": lambda: continual.FineTune(lambda m, t: vb.optim.BayesBiNN(m.parameters(), lr=0.1, dataset_size=60)),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("steps", [0, 4, 9, 17])
def test_a_run_cut_anywhere_ends_as_one_that_was_not(stream, tmp_path, monkeypatch, strategy, steps):
    options = dict(strategy=STRATEGIES[strategy](), schedule=None if strategy == "kept" else cosine)
    uncut = learned(stream, network(), **options)
    options["strategy"] = STRATEGIES[strategy]()
    with monkeypatch.context() as patch:
        cut_after(steps, patch)
        with pytest.raises(Cut):
            learned(stream, network(), checkpoint=tmp_path / "run.pt", checkpoint_every=0.0, **options)
    fresh = network(seed=7)  # what it starts from must not matter
    if not (tmp_path / "run.pt").exists():
        fresh = network()
    options["strategy"] = STRATEGIES[strategy]()
    resumed = learned(stream, fresh, checkpoint=tmp_path / "run.pt", checkpoint_every=0.0, **options)
    equal(resumed, uncut)


PROGRAM = """
import os, signal, sys
from pathlib import Path
from torch.optim.optimizer import register_optimizer_step_post_hook
from tests.continual.test_learning import *

calls = {"step": 0, "replace": 0}

def dying(name, at, real=lambda *_: None):
    def call(*arguments):
        calls[name] += 1
        if calls[name] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return call

state, where = sys.argv[1:]
if where == "step":
    register_optimizer_step_post_hook(dying("step", 14))
else:
    os.replace = dying("replace", 16, os.replace)
learned(three_tasks(), network(), checkpoint=Path(state), checkpoint_every=0.0)
"""


@pytest.mark.parametrize("where", ["step", "replace"])
def test_a_run_killed_inside_a_task_ends_with_the_same_numbers(stream, tmp_path, where):
    """Killed between a step and its checkpoint, and between a checkpoint and its name."""
    state = tmp_path / "killed.pt"
    command = [sys.executable, "-c", PROGRAM, str(state), where]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    found = torch.load(state, weights_only=True)
    assert (found["number"], found["place"]["epoch"]) == (1, 1)
    assert found["place"]["batch"] > 0
    resumed = network()
    result = learned(stream, resumed, checkpoint=state)
    whole = network()
    equal(result, learned(stream, whole))
    same(resumed.state_dict(), whole.state_dict())


def test_a_finished_run_is_not_learned_again(stream, tmp_path, monkeypatch):
    first = learned(stream, network(), checkpoint=tmp_path / "run.pt")
    cut_after(0, monkeypatch)
    equal(learned(stream, network(), checkpoint=tmp_path / "run.pt"), first)


@pytest.mark.parametrize(
    "change",
    [
        dict(epochs=4),
        dict(batch_size=30),
        dict(seed=1),
        dict(num_samples=1),
        dict(evaluation=continual.EvaluationPlan(num_samples=5)),
        dict(strategy=STRATEGIES["new"]()),
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_stream_resumed_with_other_settings_is_refused(stream, tmp_path, change):
    learned(stream, network(), checkpoint=tmp_path / "run.pt", epochs=3)
    before, model = (tmp_path / "run.pt").read_bytes(), network(seed=5)
    beliefs = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"another setting of .*{next(iter(change))}"):
        learned(stream, model, checkpoint=tmp_path / "run.pt", **change)
    assert (tmp_path / "run.pt").read_bytes() == before
    same(model.state_dict(), beliefs)


def test_another_stream_or_another_network_is_refused(stream, tmp_path):
    learned(stream, network(), checkpoint=tmp_path / "run.pt", epochs=1)
    other = continual.from_tasks([some_task("one", 4), some_task("two", 5), some_task("three", 6)])
    with pytest.raises(CheckpointError, match="another setting of stream"):
        learned(other, network(), checkpoint=tmp_path / "run.pt", epochs=1)
    with pytest.raises(CheckpointError, match="another setting of parameters"):
        learned(stream, network(norm=False), checkpoint=tmp_path / "run.pt", epochs=1)


@pytest.mark.parametrize("part", ["test_x", "test_y", "val_x", "val_y"])
def test_other_examples_to_be_judged_by_are_refused(tmp_path, part):
    first, second = some_task(), some_task(seed=1)
    task = replace(first, val_x=first.train_x, val_y=first.train_y)
    other = {"test_x": second.test_x, "test_y": second.test_y, "val_x": second.train_x, "val_y": second.train_y}
    options = dict(checkpoint=tmp_path / "run.pt", epochs=1)
    learned(continual.from_tasks([task]), network(), **options)
    learned(continual.from_tasks([task]), network(), **options)
    with pytest.raises(CheckpointError, match="another setting of stream"):
        learned(continual.from_tasks([replace(task, **{part: other[part]})]), network(), **options)


def test_another_posterior_or_activation_of_the_same_parameters_is_refused(stream, tmp_path):
    def model(activation=nn.ReLU, **options):
        layers = nn.Sequential(nn.Linear(8, 16), activation(), nn.Linear(16, 3))
        return vb.binarize(layers, vb.posteriors.Bernoulli(**options))

    options = dict(checkpoint=tmp_path / "run.pt", epochs=1)
    learned(stream, model(), **options)
    learned(stream, model(), **options)
    with pytest.raises(CheckpointError, match="another setting of posteriors;"):
        learned(stream, model(estimator="moments"), **options)
    with pytest.raises(CheckpointError, match="another setting of modules;"):
        learned(stream, model(nn.Tanh), **options)


def test_a_network_that_refuses_the_state_leaves_the_strategy_as_it_was(stream, tmp_path):
    def replay():
        return continual.Replay(continual.PosteriorAsPrior(bayes), continual.Coreset(5, "random"))

    options = dict(checkpoint=tmp_path / "run.pt", epochs=1)
    learned(stream, network(), **options, strategy=replay())
    model, strategy = network(), replay()
    model.register_buffer("another", torch.zeros(2))  # no parameter, so the settings are the same
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        learned(stream, model, **options, strategy=strategy)
    assert len(strategy.coreset) == 0


def test_a_strategy_that_refuses_its_state_is_as_it_was(stream, tmp_path):
    def springs(size):
        ewc = continual.EWC(lambda m, t: vb.optim.StraightThrough(m.parameters()), 1.0, examples=5)
        return continual.Replay(ewc, continual.Coreset(size, "random"))

    def small():
        torch.manual_seed(0)
        return vb.binarize(nn.Linear(8, 3), posterior=vb.posteriors.Point())

    options = dict(checkpoint=tmp_path / "run.pt", epochs=1)
    learned(stream, small(), **options, strategy=springs(5))
    strategy = springs(6)
    with pytest.raises(CheckpointError, match="another size"):
        learned(stream, small(), **options, strategy=strategy)
    assert strategy.bytes_kept() == 0


def test_a_kept_optimizer_with_other_groups_is_refused(stream, tmp_path, monkeypatch):
    def kept(groups):
        def optimizer(model, task):
            own = list(model.parameters())
            return torch.optim.SGD([{"params": own[number::groups]} for number in range(groups)])

        return continual.FineTune(optimizer, keep=True)

    options = dict(checkpoint=tmp_path / "run.pt", epochs=2, schedule=None)
    with monkeypatch.context() as patch:
        cut_after(4, patch)
        with pytest.raises(Cut):
            learned(stream, network(), **options, checkpoint_every=0.0, strategy=kept(1))
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        learned(stream, network(), **options, strategy=kept(2))


class Penalised(continual.FineTune):
    """A penalty that is asked for with the number of calls so far."""

    def __init__(self, of):
        super().__init__(lambda model, task: torch.optim.SGD(model.parameters(), lr=0.1))
        self.of, self.calls = of, 0

    def penalty(self, model):
        self.calls += 1
        return self.of(model, self.calls)


def normed():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def test_a_step_that_fails_leaves_the_batch_norm_as_the_step_before_left_it(stream):
    after = []

    def exploding(model, calls):
        after.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(model.parameters()).sum() * (math.nan if calls == 2 else 0.0)

    model, options = normed(), dict(batch_size=30, progress=False)
    with pytest.raises(InputError, match="as the step before left it"):
        continual.learn(model, stream, Penalised(exploding), **options)
    assert int(model[1].num_batches_tracked) == 1
    assert all(torch.equal(value, after[0][f"1.{name}"]) for name, value in model[1].named_buffers())


def test_inputs_may_require_grad(stream):
    own = [replace(task, train_x=task.train_x.clone().requires_grad_()) for task in stream]
    models = [normed(), normed()]
    for model, given in zip(models, (stream, continual.from_tasks(own)), strict=True):
        plain = continual.FineTune(lambda model, task: torch.optim.SGD(model.parameters(), lr=0.1))
        learned(given, model, strategy=continual.Replay(plain, continual.Coreset(5, as_bytes=True)))
    same(models[0].state_dict(), models[1].state_dict())


@pytest.mark.parametrize("constant", [torch.tensor(3.0), 3.0, None])
def test_a_penalty_without_gradient_changes_nothing(stream, constant):
    models = [normed(), normed()]
    for model, given in zip(models, (constant, None), strict=True):
        continual.learn(model, stream, Penalised(lambda model, calls, given=given: given), progress=False)
    same(models[0].state_dict(), models[1].state_dict())


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_file_is_refused_and_kept(stream, tmp_path, damage):
    path = tmp_path / "run.pt"
    learned(stream, network(), checkpoint=path, epochs=1)
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    kept = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"run\.pt"):
        learned(stream, network(), checkpoint=path, epochs=1)
    assert path.read_bytes() == kept


def test_a_full_disk_leaves_the_last_complete_state(stream, tmp_path, monkeypatch):
    path, uncut = tmp_path / "run.pt", learned(stream, network())
    real, count = torch.save, [0]

    def full(state, target):
        count[0] += 1
        if count[0] > 5:
            target.write(b"half")
            raise OSError(28, "No space left on device")
        real(state, target)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match=r"No space left on device.*last complete state"):
            learned(stream, network(), checkpoint=path, checkpoint_every=0.0)
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    equal(learned(stream, network(seed=3), checkpoint=path), uncut)


# --- bad input ---


@pytest.mark.parametrize(
    "options", [dict(epochs=0), dict(batch_size=0), dict(num_samples=0), dict(epochs=1.5), dict(batch_size=True)]
)
def test_numbers_out_of_range_are_refused(stream, options):
    with pytest.raises(InputError, match=next(iter(options))):
        learned(stream, network(), **options)


@pytest.mark.parametrize(("count", "batch_size", "given"), [(1, 20, "1 example"), (30, 1, "30 examples")])
def test_batch_norm_hears_which_task_has_batches_of_one(count, batch_size, given):
    task = some_task("small")
    stream = continual.from_tasks([replace(task, train_x=task.train_x[:count], train_y=task.train_y[:count])], 3)
    message = f"a batch of 1 has no variance .* task 'small' is learned from {given} with batch_size={batch_size}; make"
    with pytest.raises(InputError, match=message):
        learned(stream, network(), batch_size=batch_size)
    learned(stream, network(norm=False), batch_size=batch_size, epochs=1)


def test_no_batch_is_left_with_one_example_unless_asked_for():
    for count, batch_size in itertools.product(range(2, 40), range(2, 9)):
        x = torch.zeros(count, 1)
        parts = x.tensor_split(steps(continual.Examples(x, x), batch_size))
        assert min(map(len, parts)) > 1
        assert abs(len(parts) - count / batch_size) < 1
    assert steps(continual.Examples(x, x), 1) == len(x)


def test_labels_that_the_network_has_no_output_for_are_refused(stream):
    class Shifted(continual.PosteriorAsPrior):
        def examples(self, task, number, outputs):
            own = super().examples(task, number, outputs)
            return continual.Examples(own.x, own.y + 1, own.heads)

    with pytest.raises(InputError, match=r"labels from 1 to 3.*0 to 2"):
        learned(stream, network(), strategy=Shifted(bayes))


def test_a_network_with_another_head_is_refused(stream):
    with pytest.raises(InputError, match=r"gives \(20, 5\).*3 outputs"):
        learned(stream, network(outputs=5))


def test_nan_on_the_way_is_refused_and_changes_nothing(stream):
    bad = some_task("bad", 9)
    bad.train_x[3, 2] = math.nan
    model = network()
    with pytest.raises(InputError, match="'bad' has NaN"):
        learned(continual.from_tasks([some_task("good"), bad]), model, epochs=1)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


@pytest.mark.parametrize("strength", [0, -1.0, math.inf, math.nan])
def test_a_strength_must_be_positive(strength):
    with pytest.raises(InputError, match="strength"):
        continual.PosteriorAsPrior(bayes, strength)


@pytest.mark.parametrize(
    "options",
    [
        dict(num_samples=0),
        dict(num_samples=True),
        dict(batchnorm=()),
        dict(batchnorm="old"),
        dict(batchnorm=5),
        dict(batchnorm=[["task"]]),
        dict(part="train"),
        dict(tasks="none"),
        dict(refresh=0),
    ],
)
def test_an_evaluation_of_something_else_is_refused(options):
    with pytest.raises(InputError):
        continual.EvaluationPlan(**options)


def test_a_part_that_is_not_there_is_refused_before_the_task_is_learned(stream):
    """The second task has none; the first is learned and kept."""
    first = replace(stream[0], val_x=stream[0].test_x, val_y=stream[0].test_y)
    plan, learning = continual.EvaluationPlan(part="validation"), []
    watching = Penalised(lambda model, calls: learning.append(model))
    with pytest.raises(InputError, match="task 'two' has no validation examples"):
        continual.learn(normed(), continual.from_tasks([first, stream[1]]), watching, evaluation=plan, batch_size=60)
    assert len(learning) == 1


@pytest.mark.parametrize("evaluation", ["all", {"tasks": "all"}, ""])
def test_what_is_no_plan_of_evaluation_is_refused(stream, evaluation):
    with pytest.raises(InputError, match="evaluation must be a varbnn"):
        learned(stream, network(), evaluation=evaluation)


@pytest.mark.parametrize("tasks", ["seen", "all"])
@pytest.mark.parametrize("outputs", [2, 5])
def test_a_network_with_other_outputs_than_the_stream_is_refused(stream, tasks, outputs):
    model = nn.Linear(8, outputs)
    with pytest.raises(InputError, match=rf"the model gives \(\d+, {outputs}\) .* own tasks has 3 outputs"):
        learned(stream, model, strategy=Penalised(None), evaluation=continual.EvaluationPlan(tasks=tasks))


# --- what other heads say ---


@pytest.mark.parametrize("height", [10.0, 95.0, 150.0, 1e4])
def test_a_task_is_judged_among_its_own_outputs_however_sure_the_others_are(height):
    stream = continual.from_tasks([some_task("a", 1, classes=(0, 1)), some_task("b", 2, classes=(2, 3))])
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    with torch.no_grad():
        model.bias[2:] = height
    x, y = stream[0].test_x, stream[0].test_y
    expected = F.cross_entropy(model(x)[:, :2], y).item()
    still = continual.FineTune(lambda model, task: torch.optim.SGD(model.parameters(), lr=0.0))
    result = continual.learn(model, stream, still, progress=False)
    assert result.nll["task"][0, 0] == pytest.approx(expected, rel=1e-4)
    assert not model._forward_hooks


# --- what is refused before anything is learned ---


def plain(model, task):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(stream=[some_task()]), r"stream must be a varbnn.continual.Stream, got list; .*from_tasks"),
        (dict(strategy=plain), "strategy must be a varbnn.continual.Strategy, got function"),
        (dict(strategy=continual.FineTune(lambda model, task: None)), "returns NoneType; it must return a torch opt"),
        (dict(seed=-1), "seed must be a whole number"),
        (dict(seed=1.5), "seed must be a whole number"),
        (dict(checkpoint_every="a"), "checkpoint_every must be a number of seconds"),
    ],
)
def test_what_is_no_stream_or_strategy_is_refused(stream, options, message):
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    arguments = {"stream": stream, "strategy": continual.FineTune(plain), **options}
    with pytest.raises(InputError, match=message):
        continual.learn(model, progress=False, **arguments)
    same(model.state_dict(), before)


def test_a_task_of_a_single_class_is_refused():
    with pytest.raises(InputError, match="'b' is about output 2 alone"):
        continual.from_tasks([some_task("a", 1, classes=(0, 1)), some_task("b", 2, classes=(2,))])


@pytest.mark.parametrize("number", [0, 1])
def test_a_loss_that_explodes_stops_before_the_step(number, tmp_path):
    """A penalty or a loss that is no number; the file then holds the last step that was well."""
    stream = continual.from_tasks([some_task("one", 1), some_task("two", 2)])

    class Exploding(continual.FineTune):
        def penalty(self, model):
            self.calls = getattr(self, "calls", 0) + 1
            return sum(p.sum() for p in model.parameters()) * (math.inf if self.calls == 2 + 3 * number else 0.0)

    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    options = dict(checkpoint=tmp_path / "run.pt", checkpoint_every=0.0, batch_size=20, progress=False)
    with pytest.raises(InputError, match=f"the loss of task {number} became"):
        continual.learn(model, stream, Exploding(plain), **options)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    saved = torch.load(tmp_path / "run.pt", weights_only=True)["model"]
    same(dict(model.state_dict()), dict(saved))


@pytest.mark.parametrize("number", [np.float64(0.1), np.float32(0.1)])
def test_numbers_of_numpy_go_into_a_state_and_out_again(stream, tmp_path, number):
    def run():
        prior = continual.PosteriorAsPrior(bayes, strength=number)
        return learned(stream, network(), strategy=prior, epochs=1, checkpoint=tmp_path / "run.pt")

    equal(run(), run())


def test_a_strategy_of_ones_own_says_what_it_is(stream, tmp_path):
    class Mine(continual.FineTune):
        def __init__(self, settings):
            super().__init__(plain)
            self.settings = settings

        def describe(self):
            return {**super().describe(), "mine": self.settings}

    options = dict(epochs=1, schedule=None, checkpoint=tmp_path / "run.pt")
    learned(stream, network(), strategy=Mine(1), **options)
    with pytest.raises(CheckpointError, match="another setting of strategy"):
        learned(stream, network(), strategy=Mine(2), **options)
    with pytest.raises(InputError, match="must give plain values, got Tensor"):
        learned(stream, network(), strategy=Mine(torch.zeros(1)), epochs=1)


class Counting(continual.FineTune):
    """Remembers how many tasks have ended, and says so to no file."""

    ended = 0

    def end(self, model, task, number):
        self.ended += 1


class Saying(Counting):
    def state_dict(self):
        return {"ended": self.ended}


class Telling(Saying):
    def load_state_dict(self, state):
        self.ended = state["ended"]


class Careless(Telling):
    """Made from one that does say, and remembers more."""

    def end(self, model, task, number):
        super().end(model, task, number)


class Watching(continual.EWC):
    def end(self, model, task, number):
        super().end(model, task, number)


class Honest(Watching):
    state_dict = continual.EWC.state_dict  # nothing more


class Loud:
    """Mixed in; knows nothing of states."""

    def end(self, model, task, number):
        super().end(model, task, number)


class Mixed(Loud, continual.EWC):
    pass


class Unbound(continual.EWC):
    @staticmethod
    def end(model, task, number):
        pass


class Bound(Unbound):
    state_dict = continual.EWC.state_dict


@pytest.mark.parametrize(
    "made, said",
    [
        (lambda: Mixed(plain), "Mixed has its own end and no state_dict.*: state_dict = EWC.state_dict"),
        (lambda: Unbound(plain), "Unbound has its own end and no state_dict.*: state_dict = EWC.state_dict"),
        (lambda: Bound(plain, examples=5), None),
        (lambda: Counting(plain), "Counting has its own end and no state_dict.*state_dict = FineTune.state_dict"),
        (lambda: Saying(plain), "Saying has its own state_dict and no load_state_dict"),
        (lambda: Careless(plain), "Careless has its own end and no state_dict.*state_dict = Telling.state_dict"),
        (lambda: Watching(plain, examples=5), "Watching has its own end and no state_dict"),
        (lambda: continual.Replay(Counting(plain), continual.Coreset(5, "random")), "Counting has its own end"),
        (lambda: Telling(plain), None),
        (lambda: Honest(plain, examples=5), None),
    ],
)
def test_a_strategy_that_remembers_what_no_file_would_hold_is_refused_at_the_start(stream, tmp_path, made, said):
    torch.manual_seed(0)
    model = vb.binarize(nn.Sequential(nn.Linear(8, 3)), vb.posteriors.Point())
    before = model[0].latent.detach().clone()
    options = dict(epochs=1, schedule=None)
    if said is None:
        learned(stream, model, strategy=made(), checkpoint=tmp_path / "run.pt", **options)
        return
    with pytest.raises(InputError, match=said):
        learned(stream, model, strategy=made(), checkpoint=tmp_path / "run.pt", **options)
    assert torch.equal(model[0].latent, before)
    assert not list(tmp_path.iterdir())
    learned(stream, model, strategy=made(), **options)  # without a file there is nothing to forget


def test_an_optimizer_of_another_network_is_refused_and_one_that_is_wrapped_is_taken(stream):
    class Wrapped:
        def __init__(self, inner):
            self.param_groups, self.step, self.zero_grad = inner.param_groups, inner.step, inner.zero_grad
            self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict

    wrapped = continual.FineTune(lambda model, task: Wrapped(plain(model, task)))
    assert len(learned(stream, network(), strategy=wrapped, schedule=None, epochs=1).tasks) == 3
    other = network()
    with pytest.raises(InputError, match="SGD holds none of the model's 2 beliefs"):
        learned(stream, network(), strategy=continual.FineTune(lambda model, task: plain(other, task)))


def test_a_plateau_is_looked_for_in_the_loss(stream):
    seen = []

    def plateau(optimizer, steps):
        seen.append(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer))
        return seen[-1]

    learned(stream, network(), strategy=continual.FineTune(plain), schedule=plateau, epochs=1)
    assert all(0 < schedule.best < 10 for schedule in seen)


def test_a_task_of_a_single_class_in_a_stream_of_ones_own_is_refused_before_it_is_learned():
    tasks = [some_task("a", 1, classes=(0, 1)), some_task("b", 2, classes=(2,))]
    stream = continual.Stream("mine", 2, lambda number: tasks[number], inputs=8, outputs=3, settings={})
    model = network()
    with pytest.raises(InputError, match="'b' is about output 2 alone"):
        learned(stream, model, strategy=continual.FineTune(plain), schedule=None)


def test_a_checkpoint_in_a_folder_that_is_not_there_is_refused_before_anything_is_learned(stream, tmp_path):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="there is no folder"):
        learned(stream, model, checkpoint=tmp_path / "gone" / "run.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("count, sizes", [(20, [20]), (75, [75]), (149, [149]), (150, [75, 75])])
def test_a_rule_that_counts_examples_hears_how_many_there_are(count, sizes, monkeypatch):
    heard = []
    step = vb.optim.WindowedBayes.step
    monkeypatch.setattr(
        vb.optim.WindowedBayes,
        "step",
        lambda self, *args: (heard.append(self.param_groups[0]["batch_size"]), step(self, *args))[1],
    )
    rules = []

    def windowed(model, task):
        rules.append(vb.optim.WindowedBayes(model.parameters(), lr=0.1, window=1000, batch_size=100))
        return rules[-1]

    strategy = continual.FineTune(windowed)
    stream = continual.from_tasks([some_task(count=count)])
    continual.learn(network(), stream, strategy, epochs=1, batch_size=100, progress=False)
    assert heard == sizes
    assert rules[0].param_groups[0]["batch_size"] == 100


def test_the_order_of_the_examples_does_not_decide_by_what_a_network_is_judged():
    """Training data in the order of their classes: the first 2000 are all of one."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat_interleave(2000)
    x = torch.randn(6000, 8, generator=generator) + 2 * torch.randn(3, 8, generator=generator)[y]
    task = continual.Task("sorted", x, y, x[::20], y[::20], classes=(0, 1, 2))
    result = learned(continual.from_tasks([task]), network(), epochs=2, batch_size=100)
    assert result.accuracy["task"][0, 0] > 0.95


def test_classes_may_be_numbers_of_numpy():
    task = some_task(classes=(0, 1, 2))
    given = tuple(np.unique(task.train_y.numpy()))
    made = continual.Task("one", task.train_x, task.train_y, task.test_x, task.test_y, classes=given)
    assert made.classes == (0, 1, 2)
    assert [type(c) for c in made.classes] == [int] * 3
