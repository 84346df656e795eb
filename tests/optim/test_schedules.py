"""Schedules: every curve is its closed form, the groups and the layers follow it, and a resumed run continues it."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LRScheduler, SequentialLR

import varbnn as vb
from varbnn.errors import CheckpointError, InputError, VarbnnWarning
from varbnn.optim import Constant, Cosine, Exponential, Linear, Scheduler, Staircase
from varbnn.posteriors import Bernoulli, Point, belief_of

CONCRETE = Bernoulli(estimator="concrete", relaxation=0.7)
X, Y = torch.linspace(-1, 1, 32).view(8, 4), torch.tensor([0, 1, 2, 1] * 2)


def network(posterior=None, seed=0):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    return vb.binarize(layers, posterior=posterior or Point())


def two_groups(model, rule=vb.optim.Bop, **more):
    return rule([{"params": model[:3].parameters()}, {"params": model[3].parameters()}], **more)


def train_step(model, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()


def values(optimizer, key, kind="belief"):
    return [group[key] for group in optimizer.param_groups if group.get("kind") in (kind, None)]


def follow(model, optimizer, schedule, steps, *keys):
    """What the first group with each key holds at every step, the first one included."""
    seen = []
    for _ in range(steps):
        seen.append([values(optimizer, key)[0] for key in keys])
        train_step(model, optimizer)
        schedule.step()
    return np.array(seen)


# --- curves ---


STEPS = np.arange(30)
PART = np.minimum(STEPS / 12, 1)
CLOSED_FORMS = {
    "constant": (Constant(0.3), np.full(30, 0.3)),
    "linear": (Linear(1e-7, 1e-2, 12), 1e-7 * (1 - PART) + 1e-2 * PART),
    "cosine": (Cosine(0.5, 0.1, 12), 0.1 + 0.2 * (1 + np.cos(np.pi * PART))),
    "exponential": (Exponential(1e-1, 1e-4, 12), 10.0 ** (-1 - 3 * PART)),
    "staircase": (Staircase(1e-4, 0.1, every=12), 10.0 ** np.repeat([-4, -5, -6], [12, 12, 6])),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_curve_is_its_closed_form_also_beyond_its_end(name):
    curve, expected = CLOSED_FORMS[name]
    np.testing.assert_allclose([curve(int(t)) for t in STEPS], expected, rtol=1e-13)


@pytest.mark.parametrize("kind", [Linear, Cosine, Exponential])
def test_a_curve_starts_and_ends_exactly_where_it_was_told_and_stays_between(kind):
    curve = kind(0.1, 0.7, steps=49)
    assert (curve(0), curve(49), curve(10**6)) == (0.1, 0.7, 0.7)
    assert all(0.1 <= curve(t) <= curve(t + 1) <= 0.7 for t in range(60))


def test_a_cosine_is_torchs():
    (p,) = nn.Linear(1, 1, bias=False).parameters()
    optimizer = torch.optim.SGD([p], lr=0.5)
    torchs, curve = CosineAnnealingLR(optimizer, T_max=9, eta_min=0.01), Cosine(0.5, 0.01, steps=9)
    for t in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(curve(t), rel=1e-12)
        optimizer.step()
        torchs.step()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Constant(float("nan")), "value must be a finite number, got nan"),
        (lambda: Linear("a", 1.0, 3), "start must be a finite number, got 'a'"),
        (lambda: Cosine(1.0, float("inf"), 3), "end must be a finite number, got inf"),
        (lambda: Linear(1.0, 0.0, 0), "steps must be a whole number ≥ 1 .*got 0"),
        (lambda: Cosine(1.0, 0.0, 1e3), r"steps must be a whole number ≥ 1 .*got 1000.0"),
        (lambda: Exponential(1e-3, 0.0, 10), "end must be positive, got 0.0; to reach 0 use Linear or Cosine"),
        (lambda: Exponential(-1.0, 1.0, 10), "start must be positive, got -1.0"),
        (lambda: Staircase(1.0, 0.0, 5), "factor must be a finite number > 0 .*got 0.0"),
        (lambda: Staircase(1.0, 0.1, -5), "every must be a whole number ≥ 1 .*got -5"),
    ],
)
def test_a_curve_refuses(make, message):
    with pytest.raises(InputError, match=message):
        make()


# --- groups ---


def test_the_group_holds_the_value_of_every_step_and_other_keys_stay():
    model = network()
    optimizer = vb.optim.Bop(model.parameters(), lr=0.5, real_lr=0.3)
    curves = dict(gamma=Staircase(1e-2, 0.1, every=3), threshold=Linear(1e-5, 1e-8, steps=5))
    before = [{k: v for k, v in g.items() if k not in (*curves, "params")} for g in optimizer.param_groups]
    schedule = Scheduler(optimizer, **curves)
    assert isinstance(schedule, LRScheduler)
    seen = follow(model, optimizer, schedule, 8, *curves)
    assert seen.tolist() == [[curve(t) for curve in curves.values()] for t in range(8)]
    assert schedule.last_epoch == 8
    assert schedule.get_last_lr() == [0.5, 0.3]
    after = [{k: v for k, v in g.items() if k in before[0] or k in before[1]} for g in optimizer.param_groups]
    assert after == before


def test_real_keys_are_those_of_the_real_groups():
    model = network()
    optimizer = vb.optim.StraightThrough(model.parameters(), lr=0.1, weight_decay=0.2)
    schedule = Scheduler(optimizer, real_lr=Linear(1.0, 0.0, 2), real_weight_decay=Constant(0.5), lr=Constant(0.7))
    train_step(model, optimizer)
    schedule.step()
    assert values(optimizer, "lr") == [0.7]
    assert values(optimizer, "lr", "real") == [0.5]
    assert values(optimizer, "weight_decay") == [0.2]
    assert values(optimizer, "weight_decay", "real") == [0.5]
    assert schedule.get_last_lr() == [0.7, 0.5]


def test_a_list_gives_each_group_its_curve_and_none_leaves_it_alone():
    model = network()
    optimizer = two_groups(model, gamma=0.5)
    assert [g["kind"] for g in optimizer.param_groups] == ["belief", "real"] * 2
    schedule = Scheduler(optimizer, gamma=[None, Linear(1.0, 0.2, 4)], real_lr=[Linear(0.2, 0.1, 1), None])
    train_step(model, optimizer)
    schedule.step()
    assert values(optimizer, "gamma") == [0.5, 0.8]
    assert values(optimizer, "lr", "real") == [0.1, 0.01]


def test_any_torch_optimizer_and_any_function_of_the_step():
    layer = nn.Linear(2, 2)
    groups = [{"params": [p], "lr": torch.tensor(0.1)} for p in layer.parameters()]
    optimizer = torch.optim.SGD(groups)
    first = optimizer.param_groups[0]["lr"]
    schedule = Scheduler(optimizer, momentum=lambda step: np.float32(step) / 4, lr=[lambda step: 2 - step, None])
    optimizer.step()
    schedule.step()
    assert [g["momentum"] for g in optimizer.param_groups] == [0.25, 0.25]
    assert all(type(g["momentum"]) is float for g in optimizer.param_groups)
    assert optimizer.param_groups[0]["lr"] is first  # a tensor stays the tensor that a captured graph reads
    assert [float(lr) for lr in schedule.get_last_lr()] == [1.0, pytest.approx(0.1)]


def test_the_published_schedule_of_bop2ndorder():
    model = network()
    optimizer = vb.optim.Bop2ndOrder(model.parameters())
    schedule = Scheduler(
        optimizer, threshold=Linear(1e-5, 1e-8, 5), gamma=Linear(1e-2, 1e-5, 5), sigma=Linear(1e-7, 1e-2, 5)
    )
    by_hand = [
        [1.0000e-5, 1.0000e-2, 1.000000e-7],
        [8.0020e-6, 8.0020e-3, 2.000080e-3],
        [6.0040e-6, 6.0040e-3, 4.000060e-3],
        [4.0060e-6, 4.0060e-3, 6.000040e-3],
        [2.0080e-6, 2.0080e-3, 8.000020e-3],
        [1.0000e-8, 1.0000e-5, 1.000000e-2],
        [1.0000e-8, 1.0000e-5, 1.000000e-2],
    ]
    seen = follow(model, optimizer, schedule, 7, "threshold", "gamma", "sigma")
    np.testing.assert_allclose(seen, by_hand, rtol=1e-13)


def test_the_temperature_of_bayesbinn_and_alpha_of_the_gradient_filter():
    model = network(Bernoulli())
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
    schedule = Scheduler(optimizer, temperature=Exponential(1.0, 1e-2, 2))
    np.testing.assert_allclose(follow(model, optimizer, schedule, 3, "temperature")[:, 0], [1, 0.1, 0.01])
    model = network()
    optimizer = vb.optim.GradientFilter(model.parameters())
    schedule = Scheduler(optimizer, alpha=Linear(1e-2, 2e-2, 1))
    assert follow(model, optimizer, schedule, 2, "alpha").tolist() == [[1e-2], [2e-2]]


# --- beside other schedulers ---


@pytest.mark.parametrize("first", ["torch's", "ours"])
def test_it_runs_beside_torchs_scheduler(first):
    def lrs(ours):
        model = network()
        optimizer = vb.optim.Bop(model.parameters(), lr=0.8, real_lr=0.2)
        make = {
            "torch's": lambda: CosineAnnealingLR(optimizer, T_max=6),
            "ours": lambda: Scheduler(optimizer, gamma=Linear(1e-2, 1e-3, 6)),
        }
        order = [first, *(set(make) - {first})]
        made = [make[name]() for name in order if ours or name != "ours"]
        seen = []
        for _ in range(6):
            train_step(model, optimizer)
            for scheduler in made:
                scheduler.step()
            seen.append([g["lr"] for g in optimizer.param_groups])
            if ours:
                assert values(optimizer, "gamma") == [Linear(1e-2, 1e-3, 6)(scheduler.last_epoch)]
        return seen

    assert lrs(ours=True) == lrs(ours=False)


def test_a_key_that_somebody_else_sets_too_is_said_once_and_overwritten():
    model = network()
    optimizer = vb.optim.Bop(model.parameters())
    schedule = Scheduler(optimizer, real_lr=Constant(0.5))
    torchs = CosineAnnealingLR(optimizer, T_max=6)
    train_step(model, optimizer)
    torchs.step()
    with pytest.warns(VarbnnWarning, match=r"lr of group 1 is 0\.\d+ where this schedule had written 0\.5"):
        schedule.step()
    assert values(optimizer, "lr", "real") == [0.5]
    train_step(model, optimizer)
    torchs.step()
    schedule.step()  # filterwarnings = error


def test_a_sequence_of_schedules_starts_the_second_at_its_step_0():
    model = network()
    optimizer = vb.optim.Bop(model.parameters())
    parts = [Scheduler(optimizer, gamma=Linear(0.1, 0.3, 2)), Scheduler(optimizer, gamma=Linear(1.0, 0.5, 2))]
    sequence = SequentialLR(optimizer, parts, milestones=[2])
    np.testing.assert_allclose(follow(model, optimizer, sequence, 5, "gamma")[:, 0], [0.1, 0.2, 1.0, 0.75, 0.5])


# --- resume ---


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def concrete_run(seed):
    model = network(CONCRETE, seed)
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8, momentum=0.9)
    ours = Scheduler(
        optimizer,
        model=model,
        relaxation=Cosine(1.0, 0.1, 9),
        temperature=Staircase(1.0, 0.5, every=3),
        real_lr=Linear(1e-2, 0.0, 8),
    )
    return model, optimizer, ours


def go(model, optimizer, schedule, steps):
    for _ in range(steps):
        train_step(model, optimizer)
        schedule.step()


@pytest.mark.parametrize("scheduler_first", [False, True])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(scheduler_first):
    whole = concrete_run(0)
    go(*whole, 4)
    saved = saved_and_loaded([item.state_dict() for item in whole] + [torch.get_rng_state()])
    assert saved[2] == {"last_epoch": 4, "_step_count": 5}
    go(*whole, 5)
    resumed = concrete_run(1)
    for i in (2, 1, 0) if scheduler_first else (0, 1, 2):
        resumed[i].load_state_dict(saved[i])
    torch.set_rng_state(saved[3])
    assert resumed[0][0].posterior.relaxation == Cosine(1.0, 0.1, 9)(4)
    go(*resumed, 5)
    for mine, its in zip(resumed[0].state_dict().values(), whole[0].state_dict().values(), strict=True):
        assert torch.equal(mine, its)
    assert resumed[1].state_dict()["param_groups"] == whole[1].state_dict()["param_groups"]
    assert resumed[0][3].posterior == whole[0][3].posterior


@pytest.mark.parametrize("beside", [False, True])
def test_fit_resumes_a_schedule_from_its_checkpoint(tmp_path, beside):
    def run(epochs, path=None):
        model, optimizer, schedule = concrete_run(2)
        if beside:
            optimizer.param_groups[1]["lr"] = 0.02
            schedule = Scheduler(optimizer, model=model, relaxation=Cosine(1.0, 0.1, 9), temperature=Constant(0.3))
            schedule = ChainedScheduler([CosineAnnealingLR(optimizer, 6), schedule])
        torch.manual_seed(3)
        rows = vb.fit(
            model, optimizer, [(X, Y)], epochs=epochs, scheduler=schedule, checkpoint=path, progress=False, label="t"
        )
        return model, optimizer, [row["loss"] for row in rows]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VarbnnWarning)  # a collapsed posterior is no matter here
        whole = run(5)
        run(2, tmp_path / "run.pt")
        resumed = run(5, tmp_path / "run.pt")
    assert resumed[2] == whole[2]
    assert resumed[1].state_dict()["param_groups"] == whole[1].state_dict()["param_groups"]
    for mine, its in zip(resumed[0].parameters(), whole[0].parameters(), strict=True):
        assert torch.equal(mine, its)


def test_a_state_that_is_no_schedulers_changes_nothing():
    optimizer = vb.optim.Bop(network().parameters())
    schedule = Scheduler(optimizer, gamma=Linear(0.1, 0.2, 4))
    with pytest.raises(CheckpointError, match=r"two integers, got \['last_epoch'\]"):
        schedule.load_state_dict({"last_epoch": 3})
    assert schedule.last_epoch == 0
    assert values(optimizer, "gamma") == [0.1]


def test_a_waiting_part_of_a_resumed_sequence_writes_nothing():
    def make():
        model = network()
        optimizer = vb.optim.Bop(model.parameters())
        parts = [Scheduler(optimizer, gamma=Linear(0.1, 0.3, 4)), Scheduler(optimizer, gamma=Constant(1.0))]
        return model, optimizer, SequentialLR(optimizer, parts, milestones=[4])

    model, optimizer, sequence = make()
    go(model, optimizer, sequence, 2)
    other, other_optimizer, other_sequence = make()
    other_sequence.load_state_dict(saved_and_loaded(sequence.state_dict()))
    assert values(other_optimizer, "gamma") == values(optimizer, "gamma") == [0.2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch: the optimizer has not stepped yet
        follow(other, other_optimizer, other_sequence, 2)
    assert values(other_optimizer, "gamma") == [1.0]


# --- relaxation ---


def test_a_relaxation_schedule_changes_what_is_drawn_and_the_marks_follow():
    model = network(CONCRETE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = Scheduler(optimizer, model=model, relaxation=Linear(1.0, 0.2, 2))
    layer = model[0]
    noise = torch.rand_like(layer.natural)

    def drawn_and_factor():
        weight = layer.posterior.draw(*layer.belief, noise=noise)
        (factor,) = torch.autograd.grad(weight.sum(), layer.natural)
        return weight.detach(), factor

    natural = layer.natural.detach()
    for relaxation in (1.0, 0.6, 0.2, 0.2):
        weight, factor = drawn_and_factor()
        expected = torch.tanh((natural + torch.logit(noise) / 2) / relaxation)
        torch.testing.assert_close(weight, expected)
        by_formula = (1 - expected.double() ** 2) / (relaxation * (1 - natural.double().tanh() ** 2))
        torch.testing.assert_close(factor, by_formula.float(), rtol=1e-3, atol=1e-4)  # 1 - w² cancels near ±1
        for part in (model[0], model[3]):
            assert part.posterior.relaxation == pytest.approx(relaxation)
            assert belief_of(part.natural).posterior is part.posterior
        train_step(model, optimizer)
        schedule.step()


def test_relaxation_leaves_other_options_of_the_posterior_and_other_layers_alone():
    model = nn.Sequential(
        vb.nn.BinaryLinear(4, 4, posterior=Bernoulli(estimator="concrete", numerics="reference", init_scale=0.3)),
        vb.nn.BinaryLinear(4, 4, posterior=Bernoulli(relaxation=0.4)),
        vb.nn.BinaryLinear(4, 4, posterior=Point()),
    )
    others = [model[1].posterior, model[2].posterior]
    Scheduler(torch.optim.SGD(model.parameters(), lr=0.1), model=model, relaxation=Constant(0.5))
    assert model[0].posterior == Bernoulli("concrete", 0.5, numerics="reference", init_scale=0.3)
    assert all(layer.posterior is other for layer, other in zip(model[1:], others, strict=True))


# --- errors ---


def test_an_unknown_key_is_answered_with_those_there_are():
    model = network()
    with pytest.raises(InputError, match=r"no group has 'tau'.*lr, gamma, threshold.*real_lr, real_weight_decay"):
        Scheduler(vb.optim.Bop(model.parameters()), tau=Constant(0.1))
    with pytest.raises(InputError, match="no group has 'ties'"):  # not a number
        Scheduler(vb.optim.Bop(model.parameters()), ties=Constant(0.1))
    with pytest.raises(InputError, match="no group has 'real_lr'"):
        Scheduler(vb.optim.Bop([model[0].latent]), real_lr=Constant(0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    CosineAnnealingLR(optimizer, 3)
    with pytest.raises(InputError, match="no group has 'initial_lr'"):
        Scheduler(optimizer, initial_lr=Constant(0.1))


@pytest.mark.parametrize("given", [1e-4, None, "cosine", Linear])
def test_what_is_not_a_curve_is_refused(given):
    with pytest.raises(InputError, match=r"gamma must be a curve.*Constant\(value\)"):
        Scheduler(vb.optim.Bop(network().parameters()), gamma=given)


def test_the_number_of_curves_must_be_that_of_the_groups():
    optimizer = two_groups(network())
    with pytest.raises(InputError, match="gamma has 3 curves for 2 groups of kind 'belief'"):
        Scheduler(optimizer, gamma=[Constant(0.1)] * 3)
    with pytest.raises(InputError, match="lr has 2 curves for 1 groups; give"):
        Scheduler(torch.optim.SGD(network().parameters(), lr=0.1), lr=[Constant(0.1)] * 2)


@pytest.mark.parametrize(
    "curves, message",
    [
        (dict(gamma=Linear(1e-4, 0.0, 50)), r"at step 50 of the schedule: gamma must be in \(0, 1\]"),
        (dict(threshold=lambda step: step - 1), "at step 0 of the schedule: threshold must be finite and ≥ 0"),
        (dict(real_lr=[Linear(0.1, -0.1, 7)]), r"at step 7 of the schedule: lr must be .*\(real_lr\)"),
        (dict(lr=Constant(3.0), gamma=Linear(0.1, 0.5, 9)), "at step 9 of the schedule: lr must be so small that"),
        (dict(gamma=Staircase(0.5, 3.0, every=4)), "at step 4 of the schedule: gamma"),
        (dict(gamma=lambda step: float("nan")), "the curve of gamma must give finite numbers, got nan at step 0"),
        (dict(gamma=lambda step: "a"), "the curve of gamma must give finite numbers, got 'a' at step 0"),
    ],
)
def test_a_value_the_rule_refuses_is_found_at_construction_and_nothing_is_written(curves, message):
    optimizer = vb.optim.Bop(network().parameters())
    before = optimizer.state_dict()["param_groups"]
    with pytest.raises(InputError, match=message):
        Scheduler(optimizer, **curves)
    assert optimizer.state_dict()["param_groups"] == before


def test_a_prior_that_is_kept_as_tensors_cannot_be_scheduled():
    model = network(Bernoulli())
    bayes = dict(lr=0.1, dataset_size=8)
    tensors = vb.optim.BayesBiNN(model.parameters(), **bayes, prior=vb.as_prior(model))
    following = vb.optim.FollowingPrior(model.parameters(), lr=0.1, window=99, settling=9, batch_size=3, prior=1.0)
    for optimizer in (tensors, following):
        with pytest.raises(InputError, match="the prior of group 0 is kept as tensors"):
            Scheduler(optimizer, prior=Constant(0.0))
        Scheduler(optimizer, lr=Constant(0.05), prior=[None])
    number = vb.optim.BayesBiNN(model.parameters(), **bayes)
    schedule = Scheduler(number, prior=Constant(2.0))
    assert number.param_groups[0]["prior"] == 2.0
    number.load_state_dict(tensors.state_dict())
    train_step(model, number)
    with pytest.warns(VarbnnWarning), pytest.raises(InputError, match="the prior of group 0 is kept as tensors"):
        schedule.step()


def test_other_misuse_is_refused():
    model = network(CONCRETE)
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
    with pytest.raises(InputError, match="no curve was given"):
        Scheduler(optimizer, model=model)
    with pytest.raises(InputError, match="must be a torch optimizer, got Sequential"):
        Scheduler(model, lr=Constant(0.1))
    with pytest.raises(InputError, match=r"relaxation belongs to the layers.*give model=model"):
        Scheduler(optimizer, relaxation=Constant(0.1))
    with pytest.raises(InputError, match=r"relaxation must be a finite number > 0; .* got 0"):
        Scheduler(optimizer, model=model, relaxation=Linear(1.0, 0.0, 5))
    with pytest.raises(InputError, match="relaxation must be a curve"):
        Scheduler(optimizer, model=model, relaxation=[Constant(0.1)])
    for estimator in ("straight-through", "moments", "mean"):
        with pytest.raises(InputError, match="no layer of the model draws with a relaxation"):
            Scheduler(optimizer, model=network(Bernoulli(estimator)), relaxation=Constant(0.1))
    assert model[0].posterior == CONCRETE


# --- torch.compile ---


def test_a_compiled_step_follows_the_schedule_also_past_the_limit_of_compilations():
    def run(compiled):
        torch._dynamo.reset()  # a limit that another test has reached would hold here too
        model = network()
        optimizer = vb.optim.Bop(model.parameters())
        schedule = Scheduler(optimizer, gamma=Linear(0.5, 0.1, 4))
        counter = CompileCounterWithBackend("aot_eager")
        step = torch.compile(optimizer.step, backend=counter) if compiled else optimizer.step
        for _ in range(6):
            optimizer.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            step()
            schedule.step()
        torch._dynamo.reset()
        assert (counter.frame_count > 1) == compiled
        return [optimizer.state[p]["exp_avg"] for p in optimizer.param_groups[0]["params"]], model

    with torch._dynamo.config.patch(recompile_limit=3):
        averages, model = run(compiled=True)
    expected, twin = run(compiled=False)
    for mine, its in zip(averages, expected, strict=True):
        torch.testing.assert_close(mine, its)
    assert torch.equal(model[0].latent, twin[0].latent)


def test_a_curve_alone_moves_groups_that_are_added_later_and_a_list_asks_for_theirs():
    model, later = network(), network(seed=1)
    optimizer = vb.optim.Bop(model.parameters(), gamma=0.5)
    alone = Scheduler(optimizer, gamma=Linear(0.5, 0.1, 4), real_lr=Linear(0.2, 0.1, 4))
    listed = Scheduler(optimizer, threshold=[Linear(0.5, 0.1, 4)])
    optimizer.add_param_group({"params": later.parameters(), "gamma": 0.25})
    for p in (*model.parameters(), *later.parameters()):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    alone.step()
    found = [(group["kind"], group.get("gamma"), group["lr"]) for group in optimizer.param_groups]
    assert found == [("belief", 0.4, 1.0), ("real", None, Linear(0.2, 0.1, 4)(1))] * 2
    with pytest.raises(InputError, match="threshold has 1 curves for 2 groups of kind 'belief'"):
        listed.step()


def test_a_staircase_beyond_all_numbers_is_refused_by_its_name():
    with pytest.raises(
        InputError, match=r"Staircase\(start=1.0, factor=2.0, every=1\) is beyond all numbers at step 5000"
    ):
        Staircase(1.0, 2.0, 1)(5000)
