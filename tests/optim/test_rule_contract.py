"""The contract of `tests/contracts/rule.py`, run on every rule that varbnn.optim has."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import varbnn.optim
from tests.contracts.rule import (
    ORACLES,
    Twins,
    beliefs,
    close,
    file_of,
    hyper_parameters,
    members,
    objections,
    oracle_of,
    rules,
)
from varbnn.errors import CheckpointError, InputError, VarbnnWarning
from varbnn.optim.filters import Filter
from varbnn.optim.parts import chosen
from varbnn.posteriors import Bernoulli, Point, mark_belief

RULES, MEMBERS = rules(), members()
SETTINGS = [pytest.param(member, s, id=f"{member}-{i}") for member in MEMBERS for i, s in enumerate(member.settings)]
STEPS = 220

every_class = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
every_rule = pytest.mark.parametrize("rule", MEMBERS, ids=str)
every_setting = pytest.mark.parametrize("rule, settings", SETTINGS)


def starts(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(3, 4)), rng.normal(size=5)
    first[0, 0] = second[0] = 0.0  # starts on the tie
    return [first, second]


def simple(rule, *values, **more):
    """A rule in its oracle's first setting, on beliefs that start at `values`."""
    parameters = beliefs(rule, *values)
    return parameters, rule(parameters, **{**rule.settings[0], **more})


# --- the suite finds its members ---


def test_every_exported_rule_is_found():
    public = {getattr(varbnn.optim, name) for name in varbnn.optim.__all__} - {varbnn.optim.Rule}
    exported = {kind for kind in public if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)}
    assert exported == set(RULES)


@every_class
def test_a_rule_takes_parameters_and_lr_by_place_and_all_else_by_name(rule):
    parameters = inspect.signature(rule).parameters.values()
    by_place = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert by_place in (["params", "lr"], ["params"])


@every_class
def test_a_rule_has_a_complete_oracle(rule):
    assert objections(rule) == []


@every_class
def test_a_deleted_oracle_fails_by_the_name_of_its_rule(rule, tmp_path):
    shutil.copytree(ORACLES, tmp_path / "oracles")
    (tmp_path / "oracles" / f"{file_of(rule)}.py").unlink(missing_ok=True)
    assert objections(rule, tmp_path / "oracles") == [
        f"{rule.__name__} has no oracle: write tests/oracles/{file_of(rule)}.py"
    ]


@every_class
def test_an_oracle_that_leans_on_torch_or_leaves_a_hyper_parameter_out_is_named(rule, tmp_path):
    text = "import torch\nSETTINGS = [dict(lr=1.0)]\nCHANGES = {}\ndef step(belief, gradient, state): return belief\n"
    (tmp_path / f"{file_of(rule)}.py").write_text(text)
    imports, untried = objections(rule, tmp_path)
    assert imports == f"the oracle of {rule.__name__} imports ['torch']; numpy is enough"
    assert all(name in untried for name in hyper_parameters(rule) if name != "lr")


# --- equal to the oracle ---


@every_setting
def test_equals_its_oracle_on_a_fixed_gradient_sequence_while_hyper_parameters_change(rule, settings):
    twins = Twins(rule, [({}, starts()), ({"lr": 0.01}, starts(1))], **settings)
    rng = np.random.default_rng(2)
    for t in range(STEPS):
        if t in oracle_of(rule.rule).CHANGES:
            twins.change(oracle_of(rule.rule).CHANGES[t])
        fixed = [[rng.normal(size=a.shape) / (1 + t // 40) for a in arrays] for arrays in twins.arrays]
        for arrays in fixed:
            arrays[0][..., 0, :] = 0.0  # a row that never sees a gradient
        twins.step(lambda belief, i, j, fixed=fixed: fixed[i][j])
        twins.assert_equal(f"step {t}")


@every_setting
def test_equals_its_oracle_where_the_gradient_depends_on_the_weights(rule, settings):
    twins = Twins(rule, [({}, starts()), ({"lr": 0.02}, starts(3))], **settings)
    rng = np.random.default_rng(4)
    mix = [[rng.normal(size=(a.size, a.size)) / a.size for a in arrays] for arrays in twins.arrays]
    target = [[rng.normal(size=a.size) for a in arrays] for arrays in twins.arrays]
    for arrays, goals in zip(mix, target, strict=True):
        arrays[0][1], goals[0][1] = 0.0, 0.0

    def gradient(belief, i, j):
        weight = np.where(belief >= 0, 1.0, -1.0).ravel()
        return (mix[i][j] @ weight - target[i][j]).reshape(belief.shape) + 0.1 * np.tanh(belief)

    for t in range(STEPS):
        if t in oracle_of(rule.rule).CHANGES:
            twins.change(oracle_of(rule.rule).CHANGES[t])
        twins.step(gradient)
        twins.assert_equal(f"step {t}")


@every_setting
def test_one_belief_at_a_time_moves_as_all_together(rule, settings):
    together, together_optimizer = beliefs(rule, *starts()), None
    together_optimizer = rule(together, **settings)
    alone = beliefs(rule, *starts())
    alone_optimizers = [rule(belief, **settings) for belief in rule.by_belief(alone)]
    for _ in range(20):
        for p, q in zip(together, alone, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        together_optimizer.step()
        for optimizer in alone_optimizers:
            optimizer.step()
        assert all(torch.equal(p, q) for p, q in zip(together, alone, strict=True))


# --- symmetries ---


@every_setting
def test_negating_start_prior_and_gradients_negates_the_trajectory(rule, settings):
    mirrored = {key: -value if key == "prior" else value for key, value in settings.items()}
    first, second = beliefs(rule, starts()[0]), beliefs(rule, -starts()[0])
    here, there = rule(first, **settings), rule(second, **mirrored)
    for _ in range(50):
        for (p, parity), q in zip(rule.parities(first), second, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = parity * p.grad
        here.step()
        there.step()
        assert all(torch.equal(p, parity * q) for (p, parity), q in zip(rule.parities(first), second, strict=True))


@every_setting
def test_reordering_the_entries_reorders_the_trajectory(rule, settings):
    order = torch.randperm(12)
    first, second = beliefs(rule, starts()[0].ravel()), beliefs(rule, starts()[0].ravel()[order.numpy()])
    here, there = rule(first, **settings), rule(second, **settings)
    for _ in range(50):
        for p, q in zip(first, second, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad[..., order]
        here.step()
        there.step()
        assert all(torch.equal(p[..., order], q) for p, q in zip(first, second, strict=True))


@every_setting
def test_maximising_moves_as_minimising_with_negated_gradients(rule, settings):
    first, second = beliefs(rule, starts()[0]), beliefs(rule, starts()[0])
    up, down = rule(first, **{**settings, "maximize": True}), rule(second, **{**settings, "maximize": False})
    for _ in range(20):
        for p, q in zip(first, second, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = -p.grad
        up.step()
        down.step()
        assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))


# --- resume and copies ---


def run(parameters, optimizer, steps):
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn_like(p) + 0.1 * p.detach()
        optimizer.step()


@every_setting
def test_a_safely_loaded_state_continues_bit_for_bit_in_an_optimizer_built_otherwise(rule, settings):
    others = rule.settings
    other = others[(others.index(settings) + 1) % len(others)]
    parameters = [*beliefs(rule, *starts()), nn.Parameter(torch.randn(4))]
    optimizer = rule(parameters, real_lr=0.3, **settings)
    run(parameters, optimizer, 7)
    file = io.BytesIO()
    torch.save(
        {"optimizer": optimizer.state_dict(), "values": [p.data for p in parameters], "rng": torch.get_rng_state()},
        file,
    )
    run(parameters, optimizer, 7)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh = [*beliefs(rule, *starts()), nn.Parameter(torch.zeros(4))]
    for p, value in zip(fresh, saved["values"], strict=True):
        p.data.copy_(value)
    resumed = rule(fresh, real_lr=0.7, **other)
    resumed.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])
    run(fresh, resumed, 7)
    assert all(torch.equal(p, q) for p, q in zip(parameters, fresh, strict=True))


@every_setting
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_parameters_and_optimizer_continues_like_the_original(rule, settings, copied):
    parameters = [*beliefs(rule, *starts()), nn.Parameter(torch.randn(4))]
    optimizer = rule(parameters, **settings)
    run(parameters, optimizer, 3)
    others, other = copied((parameters, optimizer))
    state = torch.get_rng_state()
    run(parameters, optimizer, 3)
    torch.set_rng_state(state)
    run(others, other, 3)
    assert all(torch.equal(p, q) for p, q in zip(parameters, others, strict=True))
    # a copy can do everything the original can: warn about a missing gradient, and take another group
    for p in rule.by_belief(others)[0]:
        p.grad = None
    with pytest.warns(VarbnnWarning, match="beliefs have no gradient"):
        other.step()
    other.add_param_group({"params": [*beliefs(rule, torch.ones(2)), nn.Parameter(torch.ones(2))]})
    assert [group["kind"] for group in other.param_groups[-2:]] == ["belief", "real"]


@every_rule
def test_state_of_a_float32_belief_is_float32(rule):
    for settings in rule.settings:
        parameters = beliefs(rule, torch.randn(3), torch.randn(2, 2))
        optimizer = rule(parameters, **settings)
        run(parameters, optimizer, 2)
        assert {v.dtype for s in optimizer.state.values() for v in s.values()} <= {torch.float32}


# --- bad input: a clear error, and nothing has changed ---


def unchanged_by(optimizer, parameters, message, error=InputError):
    before = copy.deepcopy((optimizer.state_dict(), [p.detach() for p in parameters], [p.grad for p in parameters]))
    with pytest.raises(error, match=message):
        optimizer.step()
    state, values, gradients = before
    assert all(torch.equal(p, q) for p, q in zip(parameters, values, strict=True))
    for p, g in zip(parameters, gradients, strict=True):
        assert (p.grad is None) == (g is None)
    assert str(optimizer.state_dict()) == str(state)


@every_rule
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["belief", "real"])
def test_a_gradient_that_is_not_finite_is_refused(rule, bad, where):
    parameters = [*beliefs(rule, torch.randn(3)), nn.Parameter(torch.randn(2))]
    optimizer = rule(parameters, **rule.settings[0])
    run(parameters, optimizer, 2)
    for p in parameters:
        p.grad = torch.ones_like(p)
    parameters[-1 if where == "real" else 0].grad[1] = bad
    unchanged_by(optimizer, parameters, f"1 of {len(parameters)} gradients have NaN or infinite entries")


@every_rule
def test_infinities_that_cancel_in_a_sum_are_refused_and_large_finite_gradients_are_not(rule):
    parameters, optimizer = simple(rule, torch.randn(2), torch.randn(2))
    for p in parameters:
        p.grad = torch.zeros_like(p)
    p, q = parameters[0], parameters[-1]
    p.grad[..., 0], q.grad[..., 0] = float("inf"), -float("inf")
    unchanged_by(optimizer, parameters, f"2 of {len(parameters)} gradients")
    p.grad, q.grad = torch.full_like(p, 3e38), torch.zeros_like(q)  # their float32 sum overflows, they do not
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()


@pytest.mark.parametrize(
    "rule", [m for m in MEMBERS if m.rule.__name__ in ("BayesBiNN", "GaussianBLR", "BiMU")], ids=str
)
def test_a_gain_that_float32_cannot_hold_is_refused(rule):
    usual = rule.settings[0]
    huge = {"likelihood_multiplier": 1e39} if "likelihood_multiplier" in usual else {"temperature": 1e-40}
    with pytest.raises(InputError, match=r"multiplied by \S+, which float32 cannot hold; look at "):
        simple(rule, torch.randn(3), **huge)
    with pytest.raises(InputError, match="too large to convert"):
        simple(
            rule, torch.randn(3), **{"dataset_size" if "dataset_size" in usual else "likelihood_multiplier": 10**400}
        )
    parameters, optimizer = simple(rule, torch.randn(3))
    before = [p.detach().clone() for p in parameters]
    optimizer.param_groups[0].update(huge)  # as a schedule does
    for p in parameters:
        p.grad = torch.ones_like(p)
    with pytest.raises(InputError, match="which float32 cannot hold"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(parameters, before, strict=True))


@every_rule
def test_a_step_without_any_gradient_is_refused(rule):
    parameters, optimizer = simple(rule, torch.randn(3))
    unchanged_by(optimizer, parameters, "no parameter that learns has a gradient: call loss.backward")


@every_rule
def test_sparse_gradients_are_refused(rule):
    embedding = nn.Embedding(5, 2, sparse=True)
    marked = beliefs(rule, torch.randn(3))
    optimizer = rule([*marked, embedding.weight], **rule.settings[0])
    for p in marked:
        p.grad = torch.ones_like(p)
    embedding(torch.tensor([1])).sum().backward()
    unchanged_by(optimizer, marked, "dense gradients only")


@every_rule
def test_beliefs_without_gradient_stay_and_are_told_once(rule):
    parameters, optimizer = simple(rule, torch.randn(3), torch.randn(3))
    first, second = rule.by_belief(parameters)
    before = [q.detach().clone() for q in second]
    for p in first:
        p.grad = torch.ones_like(p)
    with pytest.warns(VarbnnWarning, match=f"{len(second)} beliefs have no gradient"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert all(torch.equal(q, start) for q, start in zip(second, before, strict=True))
    assert not any(optimizer.state[q] for q in second)


@every_rule
def test_frozen_beliefs_and_real_parameters_without_gradient_are_no_cause_for_a_warning(rule):
    parameters = beliefs(rule, torch.randn(3), torch.randn(3))
    first, second = rule.by_belief(parameters)
    optimizer = rule([*parameters, nn.Parameter(torch.ones(1))], **rule.settings[0])
    for p, q in zip(first, second, strict=True):
        q.requires_grad_(False)
        p.grad = torch.ones_like(p)
    optimizer.step()


@every_rule
def test_integer_parameters_are_refused(rule):
    with pytest.raises(InputError, match="parameter has dtype torch"):
        rule([torch.zeros(2, dtype=torch.int64)], **rule.settings[0])


@every_rule
def test_what_is_no_parameter_is_refused(rule):
    with pytest.raises(InputError, match="parameters are tensors, got str"):
        rule(["weight"], **rule.settings[0])
    belief = beliefs(rule, torch.zeros(2))
    for params in (nn.Linear(2, 2).parameters, 5, [{"params": nn.Linear(2, 2).parameters}]):
        with pytest.raises(InputError, match=r"takes parameters, or groups of them, got a (method|int); .*parameters"):
            rule(params, **rule.settings[0])
    for group in ({"lr": 0.1}, {}):
        with pytest.raises(InputError, match="a group is a dict with params"):
            rule([group], **rule.settings[0])
        with pytest.raises(InputError, match="a group is a dict with params"):
            rule([{"params": belief}, group], **rule.settings[0])
    for rate in (torch.tensor([0.1, 0.2]), np.array([0.1, 0.2])):
        with pytest.raises(InputError, match="lr"):
            rule(belief, **{**rule.settings[0], "lr": rate})
    with pytest.raises(InputError, match="is a set"):
        rule([{"params": set(beliefs(rule, torch.zeros(2)))}], **rule.settings[0])


@every_rule
def test_a_belief_of_another_posterior_is_refused_by_name(rule):
    other = next(p for p in (Bernoulli(), Point()) if type(p) is not type(rule.posterior))
    parameter = nn.Parameter(torch.zeros(2))
    mark_belief(parameter, other, other.names[0])
    kind = type(rule.posterior).__name__
    message = f"{rule.rule.__name__} trains {kind} posteriors, .* is the {other.names[0]} of"
    with pytest.raises(InputError, match=message):
        rule([parameter], **rule.settings[0])


@every_rule
def test_a_refused_group_leaves_the_optimizer_as_it_was(rule):
    p, q, r = rule.by_belief(beliefs(rule, torch.randn(3), torch.randn(3), torch.randn(3)))
    real = nn.Parameter(torch.ones(1))
    optimizer = rule([*p, real], **rule.settings[0])
    groups = str(optimizer.param_groups)
    for bad in (
        {"params": q, "lr": -1.0},
        {"params": [*q, nn.Parameter(torch.ones(1))], "real_lr": -1.0},
        {"params": [*q, real]},
    ):
        with pytest.raises(ValueError):
            optimizer.add_param_group(bad)
        assert str(optimizer.param_groups) == groups
    optimizer.add_param_group({"params": [*q, *r]})


@every_rule
@pytest.mark.parametrize(
    "key, value",
    [("lr", -1.0), ("lr", float("nan")), ("real_lr", -1.0), ("real_lr", float("nan")), ("real_weight_decay", -1.0)],
)
def test_learning_rates_out_of_range_are_refused_at_construction(rule, key, value):
    parameters = [*beliefs(rule, torch.randn(3)), nn.Parameter(torch.ones(1))]
    with pytest.raises(InputError, match=f"got {value}"):
        rule(parameters, **{**rule.settings[0], key: value})


@every_rule
@pytest.mark.parametrize("kind", [0, 1], ids=["belief", "real"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_learning_rate_set_out_of_range_in_a_group_is_refused_at_the_step(rule, kind, value):
    parameters = [*beliefs(rule, torch.randn(3)), nn.Parameter(torch.ones(1))]
    optimizer = rule(parameters, **rule.settings[0])
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.param_groups[kind]["lr"] = value
    unchanged_by(optimizer, parameters, f"lr must be .*, got {value}")


# --- small habits of torch's optimizers ---


@every_rule
def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned(rule):
    parameters, optimizer = simple(rule, torch.ones(3))
    calls = []

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = sum((p * 2).sum() for p in parameters)
        loss.backward()
        calls.append(loss)
        return loss

    assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    assert not torch.equal(parameters[0], torch.ones(3))


@every_setting
def test_zero_size_and_scalar_parameters_take_part(rule, settings):
    parameters = [
        *beliefs(rule, torch.zeros(0, 3), torch.tensor(0.5)),
        nn.Parameter(torch.zeros(0)),
        nn.Parameter(torch.tensor(1.0)),
    ]
    shapes = [tuple(p.shape) for p in parameters]
    optimizer = rule(parameters, **settings)
    run(parameters, optimizer, 3)
    assert [tuple(p.shape) for p in parameters] == shapes


@every_setting
def test_a_step_leaves_the_gradients_as_they_were(rule, settings):
    parameters = [*beliefs(rule, *starts()), nn.Parameter(torch.randn(4))]
    optimizer = rule(parameters, **settings)
    for _ in range(2):
        gradients = [torch.randn_like(p) for p in parameters]
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g.clone()
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(parameters, gradients, strict=True))


@every_setting
def test_real_parameters_move_exactly_as_under_adamw(rule, settings):
    values = [torch.randn(3, 2), torch.randn(4), torch.randn(0)]
    ours, theirs = [nn.Parameter(v.clone()) for v in values], [nn.Parameter(v.clone()) for v in values]
    marked = beliefs(rule, torch.randn(3))
    optimizer = rule([ours[0], *marked, *ours[1:]], real_lr=0.02, real_weight_decay=0.1, **settings)
    settings_of_real = optimizer.param_groups[1]
    adamw = torch.optim.AdamW(
        theirs,
        lr=0.02,
        weight_decay=0.1,
        betas=settings_of_real["betas"],
        eps=settings_of_real["eps"],
        maximize=settings.get("maximize", False),
    )
    for _ in range(30):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for p in marked:
            p.grad = torch.randn_like(p)
        optimizer.step()
        adamw.step()
        assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
    close(ours[0], theirs[0].detach().numpy(), "after the run")


@every_rule
def test_numbers_of_numpy_are_numbers_and_can_be_saved(rule, tmp_path):
    settings = {
        key: np.float64(value) if isinstance(value, float) else np.int64(value) if type(value) is int else value
        for key, value in rule.settings[0].items()
    }
    values = torch.randn(3)
    optimizer, plain = (rule(beliefs(rule, values), **chosen) for chosen in (settings, rule.settings[0]))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_same_state(optimizer, copied_state(plain))


@every_rule
@pytest.mark.parametrize("bad", ["0.1", None])
def test_what_is_no_number_is_refused(rule, bad):
    key = next(key for key, value in rule.settings[0].items() if isinstance(value, float))
    with pytest.raises(InputError, match=f"{key}"):
        rule(beliefs(rule, torch.randn(3)), **{**rule.settings[0], key: bad})


@every_rule
def test_a_state_is_loaded_as_often_as_one_likes(rule):
    optimizer = rule(beliefs(rule, torch.randn(3)), **rule.settings[0])
    saved = copy.deepcopy(optimizer.state_dict())
    for _ in range(3):
        optimizer.load_state_dict(saved)
    twin = copy.deepcopy(optimizer)
    twin.load_state_dict(saved)
    twin.add_param_group({"params": beliefs(rule, torch.randn(2))})
    twin.load_state_dict(copy.deepcopy(twin.state_dict()))


@every_rule
def test_a_state_of_another_rule_is_refused_before_anything_is_changed(rule):
    optimizer = rule(beliefs(rule, torch.randn(3)), **rule.settings[0])
    before = copy.deepcopy(optimizer.state_dict())
    other = torch.optim.SGD([torch.zeros(3)], lr=0.5).state_dict()
    with pytest.raises(CheckpointError, match="no state of this"):
        optimizer.load_state_dict(other)
    assert optimizer.state_dict() == before
    swapped = copy.deepcopy(before)
    swapped["param_groups"][0]["kind"] = "real"
    with pytest.raises(CheckpointError, match="is of kind 'real', not 'belief'"):
        optimizer.load_state_dict(swapped)
    assert optimizer.state_dict() == before


@every_rule
def test_a_damaged_state_is_refused_before_anything_is_changed(rule):
    optimizer = rule(beliefs(rule, torch.randn(3)), **rule.settings[0])
    before = copy.deepcopy(optimizer.state_dict())
    (group,) = before["param_groups"]
    without = {key: value for key, value in group.items() if key != "params"}
    groups = [None, 5, [None], [without], [group | {"params": None}], [group | {"params": [[0]]}]]
    damaged = [{**before, "param_groups": value} for value in groups]
    damaged += [{**before, "state": value} for value in (None, 5, [], {0: 5})]
    damaged += [{**before, "param_groups": [group | {key: "x"}]} for key in ("lr", "gamma") if key in group]
    for state in damaged:
        with pytest.raises(CheckpointError):
            optimizer.load_state_dict(copy.deepcopy(state))
        assert optimizer.state_dict() == before
    with pytest.raises(CheckpointError, match="got a list; give"):
        optimizer.load_state_dict([before])
    optimizer.load_state_dict(before)


def copied_state(optimizer):
    return copy.deepcopy(optimizer.state_dict())


def assert_same_state(optimizer, before):
    now = optimizer.state_dict()
    assert now["param_groups"] == before["param_groups"]
    assert now["state"].keys() == before["state"].keys()
    for index, own in before["state"].items():
        assert now["state"][index].keys() == own.keys()
        assert all(torch.equal(now["state"][index][name], value) for name, value in own.items())


@every_setting
def test_a_state_with_holes_or_nan_is_refused_before_anything_is_changed(rule, settings):
    params = [*beliefs(rule, torch.randn(3)), nn.Parameter(torch.zeros(3))]
    optimizer = rule(params, **settings)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    before = copied_state(optimizer)
    for index, own in before["state"].items():
        for name, value in own.items():
            for bad in (torch.full_like(value, torch.nan), torch.full_like(value, torch.inf), 1.0):
                damaged = copy.deepcopy(before)
                damaged["state"][index][name] = bad
                with pytest.raises(CheckpointError, match=f"saved {name} of parameter {index} "):
                    optimizer.load_state_dict(damaged)
            if name == "prior" or len(own.keys() - {"prior"}) == 1:
                continue  # without it nothing is remembered, as before the first step
            damaged = copy.deepcopy(before)
            del damaged["state"][index][name]
            with pytest.raises(CheckpointError, match=f"of parameter {index} lacks {name}"):
                optimizer.load_state_dict(damaged)
        assert_same_state(optimizer, before)


@every_setting
def test_a_state_that_was_set_can_be_saved_and_loaded(rule, settings):
    parameters = beliefs(rule, torch.randn(3))
    optimizer = rule(parameters, **settings)
    names = chosen(optimizer.filter, optimizer.param_groups[0]).names(optimizer.param_groups[0])
    if not names:
        pytest.skip("remembers nothing")
    for name in names:
        fresh = rule(parameters, **settings)
        fresh.set_state(name, [np.ones(p.shape) for p in parameters])
        before = copied_state(fresh)
        assert torch.equal(before["state"][0][name], torch.ones_like(parameters[0]))
        fresh.load_state_dict(before)
        assert_same_state(fresh, before)


@every_rule
def test_a_hook_that_looks_on_switches_no_check_off(rule):
    optimizer = rule(beliefs(rule, torch.randn(3)), **rule.settings[0])
    before, seen = copied_state(optimizer), []
    optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(state))
    for bad in (torch.optim.SGD([torch.zeros(3)], lr=0.5).state_dict(), [before], 5, {**before, "state": {0: 5}}):
        with pytest.raises(CheckpointError):
            optimizer.load_state_dict(bad)
        assert_same_state(optimizer, before)
    optimizer.load_state_dict(before)
    assert len(seen) == 3  # torch cannot copy the others to begin with
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1


def test_a_filter_of_ones_own_may_keep_what_it_likes():
    class Counting(Filter):
        def begin(self, beliefs, states, group):
            for state in states:
                state["count"] = state.get("count", torch.zeros(1)) + 1

        def __call__(self, gradients, states, group):
            return [g / float(state["count"]) for g, state in zip(gradients, states, strict=True)]

    class Mine(varbnn.optim.BayesBiNN):
        filter = Counting()

    layer = varbnn.binarize(nn.Linear(4, 2, bias=False))
    optimizer = Mine(layer.parameters(), lr=0.1, dataset_size=10)
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [float(state["count"]) for state in optimizer.state.values()] == [1]


@every_setting
def test_a_state_of_another_models_shapes_is_refused_before_anything_is_changed(rule, settings):
    def stepped(size: int) -> torch.optim.Optimizer:
        params = [*beliefs(rule, torch.randn(size)), nn.Parameter(torch.zeros(size))]
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer = rule(params, **settings)
        optimizer.step()
        return optimizer

    optimizer, other = stepped(3), stepped(5).state_dict()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(CheckpointError, match=r"of parameter \d has shape \([\d, ]+\), the parameter \([\d, ]+\)"):
        optimizer.load_state_dict(other)
    now = optimizer.state_dict()
    assert now["param_groups"] == before["param_groups"]
    assert all(torch.equal(now["state"][i][k], v) for i, of in before["state"].items() for k, v in of.items())


@every_setting
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_learning_rate_may_be_a_tensor(rule, settings, dtype):
    starts_at, ended = torch.randn(5, dtype=dtype), []
    for lr in (settings.get("lr", 1.0), torch.tensor(settings.get("lr", 1.0), dtype=torch.float64)):
        parameters = beliefs(rule, starts_at)
        optimizer = rule(parameters, **{**settings, "lr": lr})
        for p in parameters:
            p.grad = torch.full_like(p, 0.1)
        optimizer.step()
        ended.append([p.detach().clone() for p in parameters])
    for one, other in zip(*ended, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_average_that_is_set_counts_as_complete(dtype):
    """Set to what the gradient then is, it changes nothing: the first step is that of the gradient alone."""
    gradient = torch.tensor([0.5, -2.0, 0.1], dtype=dtype)
    steps = {
        "BayesBiNN": (0.1 * gradient, dict(dataset_size=1, momentum=0.9), {"momentum": gradient}),
        "StraightThrough": (0.1 * gradient.sign(), {}, {"exp_avg": gradient, "exp_avg_sq": gradient.square()}),
    }
    for name, (expected, settings, averages) in steps.items():
        kind = Bernoulli() if name == "BayesBiNN" else Point()
        p = nn.Parameter(torch.zeros(3, dtype=dtype))
        mark_belief(p, kind, kind.names[0])
        optimizer = getattr(varbnn.optim, name)([p], lr=0.1, **settings)
        for state, average in averages.items():
            optimizer.set_state(state, [average])
        p.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(p.detach(), -expected, rtol=1e-5, atol=0)


@every_rule
def test_numbers_of_numpy_for_real_parameters_can_be_saved_too(rule, tmp_path):
    params = [
        {"params": [*beliefs(rule, torch.randn(3)), nn.Parameter(torch.ones(1))], "betas": (np.float64(0.9), 0.9)}
    ]
    optimizer = rule(params, **{**rule.settings[0], "real_lr": np.float64(1e-3)})
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with pytest.raises(InputError, match=r"^lr must be finite and ≥ 0 \(real_lr\), got '0.1'$"):
        rule([*beliefs(rule, torch.randn(3)), nn.Parameter(torch.ones(1))], **{**rule.settings[0], "real_lr": "0.1"})


@every_rule
def test_a_word_in_place_of_a_number_is_named_with_what_is_allowed(rule):
    taken = inspect.signature(rule.rule).parameters
    defaults = rule(beliefs(rule, torch.randn(3)), **rule.settings[0]).defaults
    numbers = {key for key, value in defaults.items() if type(value) in (int, float)} & set(taken)
    assert "lr" in numbers
    for key in numbers - {"prior"}:
        with pytest.raises(InputError, match=f"^{key} must be .*, got 'x'$"):
            rule(beliefs(rule, torch.randn(3)), **{**rule.settings[0], key: "x"})


@every_rule
def test_a_hook_may_make_a_state_of_this_rule_of_another(rule):
    optimizer = rule(beliefs(rule, torch.randn(3)), **rule.settings[0])
    groups = copy.deepcopy(optimizer.state_dict()["param_groups"])

    def migrated(optimizer, state):
        return {**state, "param_groups": groups}

    state = {**optimizer.state_dict(), "param_groups": [{**groups[0], "kind": None}]}
    with pytest.raises(CheckpointError):
        optimizer.load_state_dict(state)
    optimizer.register_load_state_dict_pre_hook(migrated)
    optimizer.load_state_dict(state)
