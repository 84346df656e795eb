"""What every strategy promises, and each against its paper's equations. New strategies are found by themselves."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.continual.test_learning import Cut, bayes, cosine, cut_after, equal, learned, network, same, some_task
from varbnn import continual
from varbnn.continual.ewc import fisher_diagonal
from varbnn.continual.joint import start_afresh
from varbnn.continual.mean_field import held, layers_of
from varbnn.errors import CheckpointError, InputError


def adam(model, task):
    return torch.optim.Adam(model.parameters(), lr=0.01)


def the_stream():
    """Two tasks of two outputs of four, and one of the first two again."""
    classes = ((0, 1), (2, 3), (0, 1))
    return continual.from_tasks([some_task(f"task {n}", n, classes=own) for n, own in enumerate(classes)], outputs=4)


def binary(seed=0):
    return network(outputs=4, seed=seed)


def points(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)]
    return vb.binarize(nn.Sequential(*layers), posterior=vb.posteriors.Point())


def real(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def gaussian(seed=0):
    return continual.mean_field(real(seed))


def bayes_again(model, task):
    return bayes(model, task, vb.as_prior(model))


def reminding(coreset, inside=None, **options):
    inside = inside or continual.PosteriorAsPrior(bayes)
    return continual.Rehearsal(inside, coreset, bayes_again, **{"epochs": 2, "batch_size": 10, **options})


CASES = {
    "FineTune": (lambda: continual.FineTune(adam, keep=True), points),
    "PosteriorAsPrior": (lambda: continual.PosteriorAsPrior(bayes, strength=1.5, bits=8), binary),
    "Joint": (lambda: continual.Joint(adam, the_stream(), restart=True), points),
    "EWC": (lambda: continual.EWC(adam, examples=10), points),
    "OnlineEWC": (lambda: continual.OnlineEWC(adam, examples=10, gamma=0.9), real),
    "MeanField": (lambda: continual.MeanField(adam), gaussian),
    "Replay": (lambda: continual.Replay(continual.FineTune(adam), continual.Coreset(15, "random")), points),
    "Rehearsal": (lambda: reminding(continual.Coreset(15, "k-center", withhold=True)), binary),
}
EVERY = sorted(
    name
    for name in continual.__all__
    if isinstance(getattr(continual, name), type)
    and issubclass(getattr(continual, name), continual.Strategy)
    and name != "Strategy"
)


def go(strategy, model, **options):
    schedule = None if strategy.keep else cosine
    return learned(the_stream(), model, **{"schedule": schedule, "strategy": strategy, **options})


def flat(state):
    """A copy of a state that went through a file."""
    target = io.BytesIO()
    torch.save(state, target)
    return torch.load(io.BytesIO(target.getvalue()), weights_only=True)


def assert_equal_states(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal_states(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for own, others in zip(one, other, strict=True):
            assert_equal_states(own, others)
    else:
        assert one == other


def tensors_in(state):
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for item in state.values() if isinstance(state, dict) else state:
            yield from tensors_in(item)


# --- the contract ---


def test_every_strategy_has_a_case():
    assert sorted(CASES) == EVERY


@pytest.mark.parametrize("steps", [0, 4, 13, 22])
@pytest.mark.parametrize("name", EVERY)
def test_a_run_cut_anywhere_ends_as_one_that_was_not(name, steps, tmp_path, monkeypatch):
    make, network_for = CASES[name]
    whole_model, path = network_for(), tmp_path / "run.pt"
    uncut = go(make(), whole_model)
    with monkeypatch.context() as patch:
        cut_after(steps, patch)
        with pytest.raises(Cut):
            go(make(), network_for(), checkpoint=path, checkpoint_every=0.0)
    fresh = network_for(seed=7) if path.exists() else network_for()  # what a resumed run starts from must not matter
    resumed = go(make(), fresh, checkpoint=path, checkpoint_every=0.0)
    equal(resumed, uncut)
    same(fresh.state_dict(), whole_model.state_dict())


@pytest.mark.parametrize("steps", [4, 13, 22])
@pytest.mark.parametrize("name", sorted(set(EVERY) - {"Replay", "Rehearsal"}))  # a coreset is of one run
def test_a_run_cut_anywhere_goes_on_with_the_objects_it_had(name, steps, tmp_path, monkeypatch):
    make, network_for = CASES[name]
    path, whole = tmp_path / "run.pt", network_for()
    uncut = go(make(), whole)
    strategy, model = make(), network_for()  # which seeds torch's generator
    with monkeypatch.context() as patch:
        cut_after(steps, patch)
        with pytest.raises(Cut):
            go(strategy, model, checkpoint=path)  # states only where tasks end
    if not path.exists():
        model = network_for()  # nothing to go on from
    equal(go(strategy, model, checkpoint=path), uncut)
    same(model.state_dict(), whole.state_dict())


@pytest.mark.parametrize("rule", ["WindowedBayes", "FollowingPrior"])
@pytest.mark.parametrize("steps", [4, 13])
def test_a_kept_rule_goes_on_inside_a_task(rule, steps, tmp_path, monkeypatch):
    def kept():
        options = dict(window=500, batch_size=20) | (dict(settling=100) if rule == "FollowingPrior" else {})
        return continual.FineTune(lambda m, t: getattr(vb.optim, rule)(m.parameters(), lr=0.1, **options), keep=True)

    path, whole = tmp_path / "run.pt", binary()
    uncut = go(kept(), whole)
    with monkeypatch.context() as patch:
        cut_after(steps, patch)
        with pytest.raises(Cut):
            go(kept(), binary(), checkpoint=path, checkpoint_every=0.0)
    model = binary(seed=7)
    equal(go(kept(), model, checkpoint=path, checkpoint_every=0.0), uncut)
    same(model.state_dict(), whole.state_dict())


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"Replay", "Rehearsal"}))
def test_a_second_run_with_the_same_strategy_is_as_the_first(name):
    make, network_for = CASES[name]
    strategy, models = make(), (network_for(), network_for())
    runs = []
    for model in models:
        torch.manual_seed(0)
        runs.append(go(strategy, model))
    equal(*runs)
    same(models[0].state_dict(), models[1].state_dict())


OTHERS = {
    "FineTune": lambda: continual.FineTune(adam),
    "PosteriorAsPrior": lambda: continual.PosteriorAsPrior(bayes, strength=1.0, bits=8),
    "Joint": lambda: continual.Joint(adam, the_stream()),
    "EWC": lambda: continual.EWC(adam, 1.0, examples=10),
    "OnlineEWC": lambda: continual.OnlineEWC(adam, examples=10, gamma=0.8),
    "MeanField": lambda: continual.MeanField(adam, temperature=0.5),
    "Replay": lambda: continual.Replay(continual.FineTune(adam), continual.Coreset(15, "random"), share=0.1),
    "Rehearsal": lambda: reminding(continual.Coreset(15, "k-center", withhold=True), epochs=1),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_state_of_a_strategy_with_other_numbers_is_refused(name, tmp_path):
    make, network_for = CASES[name]
    options = dict(checkpoint=tmp_path / "run.pt", epochs=1, schedule=None)
    go(make(), network_for(), **options)
    with pytest.raises(CheckpointError, match="another setting of strategy"):
        go(OTHERS[name](), network_for(), **options)
    if name == "Replay":
        inside = continual.Replay(continual.EWC(adam, examples=10), continual.Coreset(15, "random"))
        with pytest.raises(CheckpointError, match="another setting of strategy"):
            go(inside, network_for(), **options)


@pytest.mark.parametrize("name", EVERY)
def test_only_the_end_of_a_task_changes_the_state(name, monkeypatch):
    make, network_for = CASES[name]
    strategy, stream, model = make(), the_stream(), network_for()
    go(strategy, model)
    state = flat(strategy.state_dict())
    again = make()
    again.load_state_dict(state)
    assert_equal_states(flat(again.state_dict()), state) if not strategy.keep else None
    extra = some_task("task 3", 3, classes=(2, 3))
    if name == "Joint":
        strategy.stream = continual.from_tasks([*stream, extra], outputs=4)
    before = flat(strategy.state_dict())
    strategy.examples(extra, 3, 4)
    strategy.begin(model, extra, 3)
    strategy.penalty(model)
    strategy.for_prediction(model, stream[2], 2)
    strategy.predict(model, extra.test_x, 2, extra.train_x, torch.Generator().manual_seed(0))
    assert_equal_states(flat(strategy.state_dict()), before)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_kept_is_reported(name):
    make, network_for = CASES[name]
    strategy, model = make(), network_for()
    result = go(strategy, model)
    sizes = [row["bytes_kept"] for row in result.history]
    assert sizes == sorted(sizes)
    weights = sum(p.numel() for p in model.parameters())
    binary_weights = 8 * 16 + 16 * 4
    inputs = 60 * (8 * 4 + 8)
    expected = {
        "FineTune": [2 * 4 * weights + 4 * len(list(model.parameters()))] * 3,  # two moments, and a count for each
        "PosteriorAsPrior": [0, *2 * [binary_weights + 2 * 8]],
        "Joint": [0, inputs, 2 * inputs],
        "EWC": [2 * 4 * weights * tasks for tasks in (1, 2, 3)],
        "OnlineEWC": [2 * 4 * weights] * 3,
        "MeanField": [4 * (weights - 2 * 16)] * 3,  # all but those of batch norm, which have no Gaussians
        "Replay": [15 * (8 * 4 + 8) * tasks for tasks in (1, 2, 3)],
        "Rehearsal": [4 * binary_weights * (tasks > 1) + 15 * (8 * 4 + 8) * tasks for tasks in (1, 2, 3)],
    }
    assert sizes == expected[name]


@pytest.mark.parametrize("name", EVERY)
def test_outputs_of_other_heads_are_not_needed(name):
    """A task about some of the outputs is learned and judged among those alone."""
    make, network_for = CASES[name]
    result = go(make(), network_for(), epochs=1)
    assert bool(torch.isfinite(result.nll["task"][2]).all())


# --- joint ---


def test_joint_learns_all_tasks_so_far_each_in_its_own_head():
    stream = the_stream()
    joint = continual.Joint(adam, stream)
    found = joint.examples(stream[1], 1, 4)
    assert torch.equal(found.x, torch.cat([stream[0].train_x, stream[1].train_x]))
    assert torch.equal(found.y, torch.cat([stream[0].train_y, stream[1].train_y]))
    expected = torch.tensor([[True, True, False, False]] * 60 + [[False, False, True, True]] * 60)
    assert torch.equal(found.heads, expected)


def test_the_optimizer_of_joint_sees_all_examples_so_far():
    sizes = []

    def counting(model, task):
        sizes.append((len(task), task.classes))
        return adam(model, task)

    go(continual.Joint(counting, the_stream()), real(), epochs=1)
    assert sizes == [(60, (0, 1)), (120, (0, 1, 2, 3)), (180, (0, 1, 2, 3))]


def test_joint_with_a_restart_begins_where_a_new_network_would():
    stream, model = the_stream(), real()
    joint = continual.Joint(adam, stream, restart=True)
    torch.manual_seed(3)
    joint.begin(model, stream[1], 1)
    torch.manual_seed(3)
    expected = real(seed=3)
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(8, 6), vb.nn.Scale(6, 0.5, shift=True)),
        lambda: continual.mean_field(nn.Sequential(nn.Linear(8, 6)), init_sd=0.1),
        lambda: nn.Sequential(nn.Linear(8, 1), vb.nn.LearnedNoise(initial=0.25)),
    ],
)
def test_a_restart_reaches_the_layers_of_this_library(make):
    torch.manual_seed(3)
    expected, model = make().state_dict(), make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    torch.manual_seed(3)
    start_afresh(model)
    same(model.state_dict(), expected)


def test_joint_refuses_another_stream():
    other = continual.from_tasks([some_task("another")])
    with pytest.raises(InputError, match=r"'task 0'.*'another'"):
        go(continual.Joint(adam, other), real())


# --- elastic weight consolidation ---


def network_of_two_layers(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    model(torch.randn(50, 8))  # running statistics that are not those of the start
    return model if kind == "real" else vb.binarize(model, posterior=vb.posteriors.Point())


def own_logits(model, x):
    """By hand, from numpy copies of the parameters: hidden activations and logits of one example."""
    first, norm, _, last = model
    weights = [layer.weight.detach().numpy().astype(np.float64) for layer in (first, last)]
    before = weights[0] @ x + first.bias.detach().numpy()
    scale = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy() + norm.eps)
    standard = (before - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + norm.eps)
    after = norm.weight.detach().numpy() * standard + norm.bias.detach().numpy()
    hidden = np.maximum(after, 0)
    return weights, scale, standard, after, hidden, weights[1] @ hidden + last.bias.detach().numpy()


@pytest.mark.parametrize("kind", ["real", "points"])
def test_the_fisher_information_is_the_mean_square_of_gradients_written_out_by_hand(kind):
    model = network_of_two_layers(kind).eval()
    x, y = some_task(classes=(0, 1)).train_x[:12], some_task(classes=(0, 1)).train_y[:12]
    allowed = torch.tensor([[True, True, False, True]])
    found = fisher_diagonal(model, x, y, allowed)
    total = {name: np.zeros(p.shape) for name, p in model.named_parameters()}
    names = list(total)
    for row, label in zip(x.double().numpy(), y.tolist(), strict=True):
        weights, scale, standard, after, hidden, logits = own_logits(model, row)
        logits[~allowed[0].numpy()] = -np.inf
        out = np.exp(logits - logits.max())
        out = out / out.sum()
        out[label] -= 1
        back = (weights[1].T @ out) * (after > 0)
        gradients = [np.outer(back * scale, row), back * scale, back * standard, back, np.outer(out, hidden), out]
        order = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]
        for name, gradient in zip(order, gradients, strict=True):
            own = name if name in total else name.replace("weight", "latent")
            total[own] += gradient**2 / len(x)
    for name in names:
        assert torch.allclose(found[name].double(), torch.from_numpy(total[name]), rtol=1e-4, atol=1e-9), name


def test_the_square_of_a_mean_gradient_is_something_else():
    model = network_of_two_layers("real").eval()
    task = some_task(classes=(0, 1))
    found = fisher_diagonal(model, task.train_x, task.train_y)["3.bias"]
    (mean,) = torch.autograd.grad(F.cross_entropy(model(task.train_x), task.train_y), model[3].bias)
    assert float(found.sum()) > 2 * float(mean.square().sum())


def test_labels_sampled_from_the_model_give_the_information_of_a_softmax():
    """Of a bias of the last layer it is p (1 - p); a mean over so many examples lies within 5 standard errors."""
    model = nn.Linear(3, 2)
    torch.manual_seed(1)
    x = torch.randn(4000, 3)
    found = fisher_diagonal(model, x)["bias"]
    p = model(x).softmax(-1)[:, 0].detach()
    expected, fourth = (p * (1 - p)).mean(), (p * (1 - p) * ((1 - p) ** 3 + p**3)).mean()
    error = math.sqrt(float(fourth) / len(x))
    assert abs(float(found[0] - expected)) < 5 * error
    wrong = fisher_diagonal(model, x, torch.zeros(len(x), dtype=torch.int64))["bias"]  # labels it would not choose
    assert abs(float(wrong[0] - expected)) > 5 * error


def test_the_fisher_information_leaves_the_model_as_it_was():
    model = network_of_two_layers("points").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fisher_diagonal(model, torch.randn(5, 8))
    same(model.state_dict(), before)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def importance(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


def one_weight(value):
    model = nn.Module()
    model.w = nn.Parameter(torch.tensor(value))
    return model


@pytest.mark.parametrize(
    ("kind", "expected"), [("EWC", 3.0 * (2 * 0.5**2 + 5 * 1.0**2)), ("OnlineEWC", 3.0 * (0.5 * 2 + 5) * 1.0**2)]
)
def test_the_penalty_is_that_of_the_paper(kind, expected, monkeypatch):
    strategy = {
        "EWC": continual.EWC(adam, strength=6.0),
        "OnlineEWC": continual.OnlineEWC(adam, strength=6.0, gamma=0.5),
    }[kind]
    found = iter([(importance(w=2.0), importance(w=0.5)), (importance(w=5.0), importance(w=0.0))])
    monkeypatch.setattr(strategy, "_measured", lambda model, task: next(found))
    model = one_weight(1.0)
    assert strategy.penalty(model) is None
    strategy.end(model, some_task(), 0)
    strategy.end(model, some_task(), 1)
    assert strategy.penalty(model).item() == pytest.approx(expected)


def test_very_stiff_springs_keep_the_network_and_none_let_it_go():
    def moved(strength):
        model, places = real(), []

        class Watching(continual.EWC):
            def end(self, model, task, number):
                super().end(model, task, number)
                places.append(model[0].weight.detach().clone())

        def sgd(model, task):
            return torch.optim.SGD(model.parameters(), lr=0.1)

        go(Watching(sgd, strength, examples=60), model, epochs=20, schedule=None)
        return float((places[1] - places[0]).norm())

    assert moved(30.0) < 0.75 * moved(0.0)


@pytest.mark.parametrize(
    "options", [dict(strength=-1.0), dict(strength=math.nan), dict(examples=0), dict(labels="all")]
)
def test_springs_refuse_what_is_out_of_range(options):
    with pytest.raises(InputError, match=next(iter(options))):
        continual.EWC(adam, **options)


@pytest.mark.parametrize("gamma", [1.1, -0.1, math.nan, "a"])
def test_a_gamma_that_is_no_share_is_refused(gamma):
    with pytest.raises(InputError, match="gamma"):
        continual.OnlineEWC(adam, gamma=gamma)


def test_springs_of_a_layer_that_was_frozen_for_a_task_hold_on(monkeypatch):
    strategy = continual.OnlineEWC(adam, strength=2.0, gamma=0.5)
    tasks = [
        (importance(a=8.0, b=4.0), importance(a=1.0, b=1.0)),
        (importance(b=3.0, c=1.0), importance(b=2.0, c=2.0)),
        (importance(a=1.0, b=1.0), importance(a=3.0, b=3.0)),
    ]
    found = iter(tasks)
    monkeypatch.setattr(strategy, "_measured", lambda model, task: next(found))
    for number in range(2):
        strategy.end(nn.Module(), some_task(), number)
    ((stiff, places),) = strategy._springs
    assert (stiff, places) == (importance(a=4.0, b=5.0, c=1.0), importance(a=1.0, b=2.0, c=2.0))
    strategy.end(nn.Module(), some_task(), 2)
    ((stiff, places),) = strategy._springs
    assert (stiff, places) == (importance(a=3.0, b=3.5, c=0.5), importance(a=3.0, b=3.0, c=2.0))


@pytest.mark.parametrize("kind", [continual.EWC, continual.OnlineEWC])
def test_a_layer_may_be_frozen_for_a_task(kind):
    def optimizer(model, task):
        model[0].requires_grad_(task.name != "b")
        return torch.optim.Adam(model.parameters())

    stream = continual.from_tasks([some_task(name, number) for number, name in enumerate("abc")])
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3))
    continual.learn(model, stream, kind(optimizer, examples=5), progress=False)


def test_a_network_of_which_nothing_learns_has_no_fisher_information():
    with pytest.raises(InputError, match="Linear has no parameter that learns"):
        fisher_diagonal(nn.Linear(2, 2).requires_grad_(False), torch.zeros(3, 2))


# --- mean-field Gaussians ---


def test_outputs_of_a_mean_field_layer_are_distributed_as_those_of_drawn_weights():
    torch.manual_seed(0)
    layer = continual.mean_field(nn.Linear(5, 3), init_sd=0.3).train()
    x, draws = torch.randn(1, 5), 20000
    local = layer(x.expand(draws, 5)).detach()
    rows = []
    for _ in range(2000):
        with held(layer):
            rows.append(layer(x)[0].detach())
    drawn = torch.stack(rows)
    mean = F.linear(x, layer.weight, layer.bias)[0].detach()
    variance = 0.09 * (x.square().sum() + 1)
    for found in (local, drawn):
        error = math.sqrt(float(variance) / len(found))
        assert bool(((found.mean(0) - mean).abs() < 5 * error).all())
        assert bool(((found.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / len(found))).all())


def test_a_mean_field_convolution_has_the_moments_of_its_weights():
    torch.manual_seed(0)
    layer = continual.mean_field(nn.Conv2d(1, 2, 3, padding=1), init_sd=0.2).train()
    x = torch.randn(1, 1, 4, 4)
    found = layer(x.expand(20000, 1, 4, 4)).detach()
    variance = 0.04 * (F.conv2d(x.square(), torch.ones(1, 1, 3, 3), padding=1)[0, 0] + 1)
    mean = F.conv2d(x, layer.weight, layer.bias, padding=1)[0].detach()
    assert bool(((found.mean(0) - mean).abs() < 5 * (variance / 20000).sqrt()).all())
    assert bool(((found.var(0) / variance - 1).abs() < 0.05 + 5 * math.sqrt(2 / 20000)).all())


def test_the_divergence_is_that_of_torch():
    model, strategy = gaussian(), continual.MeanField(adam, prior_sd=0.7)
    task = some_task(classes=(0, 1))
    strategy.begin(model, task, 0)

    def torch_says(centres):
        total = 0.0
        for layer, (means, sds) in zip(layers_of(model), centres, strict=True):
            for (_, mean, sd), centre, spread in zip(layer.gaussians(), means, sds, strict=True):
                own = torch.distributions.Normal(mean, sd)
                total += torch.distributions.kl_divergence(own, torch.distributions.Normal(centre, spread)).sum()
        return total.item()

    first = [([torch.tensor(0.0)] * 2, [torch.tensor(0.7)] * 2)] * 2
    assert strategy.divergence(model).item() == pytest.approx(torch_says(first), rel=1e-5)
    strategy.end(model, task, 0)
    assert strategy.divergence(model).item() == pytest.approx(0.0, abs=1e-3)
    before = [
        tuple(zip(*[(m.detach().clone(), s.detach().clone()) for _, m, s in layer.gaussians()], strict=True))
        for layer in layers_of(model)
    ]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    assert strategy.divergence(model).item() == pytest.approx(torch_says(before), rel=1e-4)
    assert strategy.penalty(model).item() == pytest.approx(torch_says(before) / 60, rel=1e-4)


def test_a_mean_field_network_is_asked_by_drawn_weights():
    model = gaussian().eval()
    strategy, x = continual.MeanField(adam), torch.randn(7, 8)
    one = strategy.predict(model, x, 3, None, torch.Generator().manual_seed(0))
    other = strategy.predict(model, x, 3, None, torch.Generator().manual_seed(0))
    assert torch.equal(one.probs, other.probs)
    assert one.probs.shape == (3, 7, 4)
    assert not torch.equal(one.probs[0], one.probs[1])
    assert all(layer.held is None for layer in layers_of(model))


def test_mean_field_refuses_what_it_cannot_use():
    with pytest.raises(InputError, match="no layer"):
        continual.mean_field(nn.Sequential(nn.ReLU()))
    with pytest.raises(InputError, match="init_sd"):
        continual.mean_field(nn.Linear(2, 2), init_sd=0.0)
    with pytest.raises(InputError, match="mean_field first"):
        go(continual.MeanField(adam), real())
    with pytest.raises(InputError, match="prior_sd"):
        continual.MeanField(adam, prior_sd=0.0)


# --- stored examples ---


def test_replay_mixes_the_share_that_was_asked_for():
    stream, coreset = the_stream(), continual.Coreset(6, "random")
    replay = continual.Replay(continual.FineTune(adam), coreset, share=0.25)
    assert len(replay.examples(stream[0], 0, 4).y) == 60
    coreset.add(stream[0])
    found = replay.examples(stream[1], 1, 4)
    kept_x, kept_y = coreset.of(0)
    assert torch.equal(found.x[:60], stream[1].train_x)
    assert torch.equal(found.y[:60], stream[1].train_y)
    which = (found.x[60:, None] == kept_x).all(-1)
    assert sorted(which.sum(0).tolist()) == [3, 3, 3, 3, 4, 4]
    assert torch.equal(found.y[60:], kept_y[which.int().argmax(1)])
    assert torch.equal(found.heads[:60], torch.tensor([[False, False, True, True]]).expand(60, 4))
    assert torch.equal(found.heads[60:], torch.tensor([[True, True, False, False]]).expand(20, 4))
    once = continual.Replay(continual.FineTune(adam), coreset, share=None).examples(stream[1], 1, 4)
    assert len(once.y) == 66


@pytest.mark.parametrize("size", [7, 25, 60])  # everything is repeated, some of it is drawn
def test_replay_learns_as_much_of_every_earlier_task(size):
    stream = continual.from_tasks([some_task(f"task {n}", n) for n in range(5)])
    coreset = continual.Coreset(size, "random")
    replay = continual.Replay(continual.FineTune(adam), coreset)
    for number in range(4):
        coreset.add(stream[number])
    found = replay.examples(stream[4], 4, 3)
    again = found.x[60:]
    counts = [[int((again == row).all(1).sum()) for row in coreset.of(number)[0]] for number in range(4)]
    assert [sum(own) for own in counts] == [15] * 4
    assert max(max(own) - min(own) for own in counts) <= 1
    assert torch.equal(replay.examples(stream[4], 4, 3).x, found.x)  # as a run that goes on asks again


def test_replay_of_more_than_its_share_forgets_no_task():
    """Of digits learned two by two, what is stored of the later ones used to be passed over."""
    stream = continual.split(vb.data.load("digits"), scenario="class")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    replay = continual.Replay(continual.FineTune(adam), continual.Coreset(200, "random"))
    result = continual.learn(model, stream, replay, epochs=10, progress=False)
    assert float(result.accuracy["task"][-1].min()) > 0.3


def test_replay_remembers_what_fine_tuning_forgets():
    """Of two tasks that contradict each other in one head, the first is known only to who has seen it again."""
    first = some_task("a", 1, count=200, classes=(0, 1, 2))
    y = first.train_x[:, :3].argmax(1)
    first = continual.Task("a", first.train_x, y, first.train_x, y, classes=(0, 1, 2))
    second = continual.Task("b", -first.train_x, y, -first.train_x, y, classes=(0, 1, 2))
    stream = continual.from_tasks([first, second])

    def known(strategy):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
        result = learned(stream, model, strategy=strategy, schedule=None, epochs=20, num_samples=1)
        return float(result.accuracy["task"][1, 0])

    replay = continual.Replay(continual.FineTune(adam), continual.Coreset(100, "random"))
    assert known(replay) > known(continual.FineTune(adam)) + 0.2


def test_what_is_withheld_is_not_trained_on():
    stream, coreset = the_stream(), continual.Coreset(15, "random", withhold=True)
    sizes = []

    def counting(model, task, prior):
        sizes.append(len(task))
        return bayes(model, task, prior)

    strategy = reminding(coreset, continual.PosteriorAsPrior(counting))
    own = strategy.examples(stream[0], 0, 4)
    strategy.begin(binary(), stream[0], 0)
    assert len(own.y) == 45
    assert sizes == [45]
    left = {tuple(row) for row in own.x.tolist()}
    coreset.add(stream[0])
    assert left.isdisjoint(tuple(row) for row in coreset.x.tolist())


def few_of(task, count):
    return replace(task, name=f"{count} of {task.name}", train_x=task.train_x[:count], train_y=task.train_y[:count])


def test_tasks_with_fewer_examples_than_are_kept_are_replayed_as_often_as_the_others():
    """Sizes 15, 3 and 60; the newest has 60 new examples, and half of what is learned are stored ones."""
    first, second, third = (few_of(task, count) for task, count in zip(the_stream(), (15, 3, 60), strict=True))
    coreset = continual.Coreset(20, "random")
    replay = continual.Replay(continual.FineTune(adam), coreset)
    coreset.add(first)
    coreset.add(second)
    rows = replay.examples(third, 2, 4).x[60:]
    assert len(rows) == 60
    for task, times in ((first, 2), (second, 10)):
        often = [int((rows == row).all(1).sum()) for row in task.train_x]
        assert sum(often) == 30
        assert set(often) == {times}
    fresh = continual.Replay(continual.FineTune(adam), continual.Coreset(20, "random"))
    learned(continual.from_tasks([first, second, third], outputs=4), points(), strategy=fresh)
    assert len(fresh.coreset) == 15 + 3 + 20


def test_a_reminder_is_for_a_copy_and_leaves_randomness_alone():
    stream, model, coreset = the_stream(), binary(), continual.Coreset(15, "random")
    strategy = reminding(coreset)
    coreset.add(stream[0])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    reminded = strategy.for_prediction(model, stream[0], 0)
    assert torch.equal(torch.get_rng_state(), generator)
    same(model.state_dict(), before)
    again = strategy.for_prediction(model, stream[0], 0)
    same(reminded.state_dict(), again.state_dict())
    assert not torch.equal(reminded[0].natural, model[0].natural)


def test_a_reminder_seeds_no_other_device(monkeypatch):
    seeded = []
    stream, model, coreset = the_stream(), binary(), continual.Coreset(15, "random")
    strategy = reminding(coreset)
    coreset.add(stream[0])
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    strategy.for_prediction(model, stream[0], 0)
    assert seeded == []


def test_a_reminder_is_the_loop_people_write():
    """One batch of everything that is stored, with the head of each example, from what was learned as the prior."""
    stream, model, coreset = the_stream(), network(outputs=4, norm=False), continual.Coreset(15, "random")
    strategy = reminding(coreset, epochs=1, batch_size=100)
    coreset.add(stream[0])
    coreset.add(stream[1])
    reminded = strategy.for_prediction(model, stream[1], 1)
    from varbnn.continual.evaluation import seed_of

    own = seed_of(0, 1)
    torch.manual_seed(own)
    expected, prior = network(outputs=4, norm=False), vb.as_prior(model)
    torch.manual_seed(own)
    optimizer = vb.optim.BayesBiNN(expected.parameters(), lr=0.05, dataset_size=30, prior=prior)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed_of(own, 0, 0)))
    logits = expected(coreset.x[order]).masked_fill(~coreset.heads(4)[order], -math.inf)
    F.cross_entropy(logits, coreset.y[order]).backward()
    optimizer.step()
    same(reminded.state_dict(), expected.state_dict())


def test_a_reminder_of_one_example_is_refused_where_batch_norm_needs_more():
    with pytest.raises(InputError, match=r"a batch of 1 has no variance .* 'what is stored' is learned from 1 example"):
        go(reminding(continual.Coreset(1, "random")), binary(), epochs=1)


def test_both_kinds_of_remembering_share_one_coreset():
    coreset = continual.Coreset(15, "random", withhold=True)
    strategy = reminding(coreset, continual.Replay(continual.PosteriorAsPrior(bayes), coreset))
    result = go(strategy, binary())
    assert len(coreset) == 45
    assert result.history[-1]["bytes_kept"] == coreset.nbytes + 4 * (8 * 16 + 16 * 4)


def test_a_used_coreset_is_refused():
    coreset = continual.Coreset(15, "random")
    go(continual.Replay(continual.FineTune(adam), coreset), points(), epochs=1)
    with pytest.raises(InputError, match="new one"):
        go(continual.Replay(continual.FineTune(adam), coreset), points(), epochs=1)


@pytest.mark.parametrize(("strategy", "coreset"), [(adam, continual.Coreset(5)), (continual.FineTune(adam), 5)])
def test_what_is_no_strategy_or_no_coreset_is_refused(strategy, coreset):
    with pytest.raises(InputError, match=r"Replay takes a strategy and a coreset.*for the (Strategy|Coreset)"):
        continual.Replay(strategy, coreset)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, "a", math.nan])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match="share"):
        continual.Replay(continual.FineTune(adam), continual.Coreset(5), share=share)


@pytest.mark.parametrize("option", ["epochs", "batch_size", "num_samples"])
def test_a_reminder_out_of_range_is_refused(option):
    with pytest.raises(InputError, match=option):
        reminding(continual.Coreset(5), **{option: 0})


def test_what_two_strategies_withhold_together_is_withheld_once():
    task, asked = some_task("one", 0), []
    coreset = continual.Coreset(7, "random", withhold=True)

    def remembered(model, given, prior=0.0):
        asked.append(given)
        return bayes(model, given, prior)

    inside = continual.Replay(continual.PosteriorAsPrior(remembered), coreset)
    outside = continual.Rehearsal(inside, coreset, remembered, epochs=1, batch_size=10)
    learned = outside.examples(task, 0, 3)
    outside.begin(binary(), task, 0)
    assert len(learned.y) == len(asked[0]) == len(task) - 7
    kept = set(map(tuple, task.train_x[coreset.pick(task)].tolist()))
    assert kept.isdisjoint(map(tuple, learned.x.tolist()))


def test_withholding_all_of_a_task_is_refused_before_the_task_is_learned():
    task = some_task()
    model = points()
    replay = continual.Replay(continual.FineTune(adam), continual.Coreset(len(task) + 1, "random", withhold=True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="withholding 61 leaves none"):
        continual.learn(model, continual.from_tasks([task]), replay, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_prior_that_a_kept_optimizer_carries_is_counted():
    def following(model, task):
        return vb.optim.FollowingPrior(model.parameters(), lr=1.0, window=1e4, settling=1e3, batch_size=20)

    torch.manual_seed(0)
    model = vb.binarize(nn.Linear(8, 4, bias=False))
    result = go(continual.FineTune(following, keep=True), model)
    assert [row["bytes_kept"] for row in result.history] == [4 * 8 * 4] * 3
    assert [row["bytes_kept"] for row in go(continual.FineTune(adam), points()).history] == [0] * 3


def test_a_frozen_layer_has_a_prior_too():
    """The factory of docs/continual.md gives the optimizer every belief, frozen or not."""

    def beliefs(model, task, prior):
        own = [p for p in model.parameters() if vb.posteriors.belief_of(p) is not None]
        return vb.optim.BayesBiNN(own, lr=0.05, dataset_size=len(task), prior=prior)

    torch.manual_seed(0)
    model = vb.binarize(nn.Sequential(nn.Linear(8, 8, bias=False), nn.Tanh(), nn.Linear(8, 4, bias=False)))
    model[0].requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    go(continual.PosteriorAsPrior(beliefs), model)
    assert [torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)] == [True, False]


def test_beliefs_that_cannot_be_rounded_are_refused_before_they_are_learned():
    torch.manual_seed(0)
    model, began = vb.binarize(nn.Linear(8, 4), vb.posteriors.Gaussian()), []
    rounding = continual.PosteriorAsPrior(lambda *given: began.append(given), bits=8)
    with pytest.raises(InputError, match="only natural parameters can be stored"):
        go(rounding, model)
    assert not began


@pytest.mark.parametrize("kind", ["forgotten", "points"])
def test_a_factory_that_does_not_hand_the_prior_on_is_noticed(kind):
    posterior = vb.posteriors.Point() if kind == "points" else vb.posteriors.Bernoulli()
    model = vb.binarize(nn.Linear(4, 2), posterior)

    def factory(model, task, prior):
        if kind == "points":
            return vb.optim.StraightThrough(model.parameters())
        return vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=len(task))

    x, y = torch.randn(8, 4), torch.arange(8) % 2
    stream = continual.from_tasks([continual.Task(name, x, y, x, y, (0, 1)) for name in "ab"])
    with pytest.raises(InputError, match=r"has no prior"):
        continual.learn(model, stream, continual.PosteriorAsPrior(factory), epochs=1, batch_size=4, progress=False)


def test_a_strength_that_a_posterior_has_not_is_refused_before_it_learns():
    model = vb.binarize(nn.Linear(8, 2), posterior=vb.posteriors.LowRankGaussian(rank=2))
    with pytest.raises(InputError, match="LowRankGaussian cannot be raised to a power"):
        continual.PosteriorAsPrior(bayes, strength=0.5).begin(model, some_task(), 0)
