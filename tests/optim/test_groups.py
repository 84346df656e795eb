"""How parameters are split into beliefs and real ones, and that torch's schedulers move both."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import varbnn as vb
from tests.contracts.rule import beliefs, members
from varbnn.errors import InputError
from varbnn.optim import BayesBiNN, StraightThrough
from varbnn.posteriors import Point


def network(posterior=None):
    return vb.binarize(
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)), posterior=posterior
    )


def layout(optimizer):
    return [(g["kind"], len(g["params"]), g["lr"]) for g in optimizer.param_groups]


def bayes(params, **more):
    return BayesBiNN(params, **{"lr": 0.1, "dataset_size": 10, **more})


def test_model_parameters_become_one_group_of_each_kind():
    model = network()
    optimizer = bayes(model.parameters(), real_lr=0.3)
    assert layout(optimizer) == [("belief", 2, 0.1), ("real", 4, 0.3)]
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(model[0].natural), id(model[3].natural)]


def test_beliefs_alone_and_real_parameters_alone_stay_one_group():
    model = network()
    assert layout(bayes([model[0].natural])) == [("belief", 1, 0.1)]
    groups = [{"params": [model[0].natural]}, {"params": model[1].parameters()}]
    assert layout(bayes(groups)) == [("belief", 1, 0.1), ("real", 2, 0.01)]


def test_a_float_model_is_refused_and_not_silently_trained_by_adamw():
    with pytest.raises(InputError, match=r"none of the parameters holds a belief.*binarize"):
        bayes(nn.Linear(4, 2).parameters())


def test_named_parameters_keep_their_names():
    optimizer = bayes(network().named_parameters())
    assert [g["param_names"] for g in optimizer.param_groups] == [
        ["0.natural", "3.natural"],
        ["0.bias", "1.weight", "1.bias", "3.bias"],
    ]


def test_the_lr_of_a_mixed_group_is_the_beliefs_and_of_a_real_group_its_own():
    model, other = network(), network()
    optimizer = bayes(
        [
            {"params": model.parameters(), "lr": 0.2, "real_lr": 0.4},
            {"params": other[0].parameters(), "lr": 0.5},
            {"params": other[1].parameters(), "lr": 0.6},
            {"params": [other[3].natural]},
            {"params": [other[3].bias]},
        ],
        real_lr=0.3,
    )
    mixed, split, alone = (
        [("belief", 2, 0.2), ("real", 4, 0.4)],
        [("belief", 1, 0.5), ("real", 1, 0.3)],
        [("real", 2, 0.6)],
    )
    assert layout(optimizer) == [*mixed, *split, *alone, ("belief", 1, 0.1), ("real", 1, 0.3)]


def test_an_initial_lr_in_a_mixed_group_is_the_beliefs_and_the_others_begin_at_their_own():
    model = network()
    groups = [{"params": model.parameters(), "lr": 0.1, "initial_lr": 0.2}]
    optimizer = bayes(groups, real_lr=0.003)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5, last_epoch=5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.0015]
    alone = bayes([{"params": model[0].natural}, {"params": model[1].parameters(), "lr": 0.1, "initial_lr": 0.2}])
    assert alone.param_groups[1]["initial_lr"] == 0.2


def test_what_a_rule_knows_in_a_mixed_group_is_meant_for_the_beliefs():
    def decays(group):
        optimizer = StraightThrough([{"params": network(Point()).parameters(), **group}], real_weight_decay=0.01)
        return [g["weight_decay"] for g in optimizer.param_groups]

    assert decays({}) == [0.0, 0.01]
    assert decays({"weight_decay": 0.2}) == [0.2, 0.01]
    assert decays({"weight_decay": 0.2, "real_weight_decay": 0.3}) == [0.2, 0.3]
    real = {"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.2, "betas": (0.5, 0.6)}
    alone = StraightThrough([{"params": network(Point())[0].latent}, real]).param_groups[1]
    assert (alone["weight_decay"], alone["betas"]) == (0.2, (0.5, 0.6))


def test_a_weight_decay_of_beliefs_alone_is_refused_where_the_rule_has_none():
    model = network()
    with pytest.raises(InputError, match=r"BayesBiNN has no weight_decay of beliefs.*weight_decay=0\.5"):
        bayes([{"params": [model[0].natural], "weight_decay": 0.5}, {"params": model[1].parameters()}])
    mixed = {"params": model[3].parameters(), "weight_decay": 0.2}
    optimizer = bayes([{"params": [model[0].natural], "weight_decay": 0.0}, mixed], real_weight_decay=0.1)
    assert [g["weight_decay"] for g in optimizer.param_groups if g["kind"] == "real"] == [0.2]
    before = len(optimizer.param_groups)
    with pytest.raises(InputError, match="no weight_decay of beliefs"):
        optimizer.add_param_group({"params": [network()[0].natural], "weight_decay": 0.5})
    assert len(optimizer.param_groups) == before
    latent = network(Point())[0].latent
    assert StraightThrough([{"params": [latent], "weight_decay": 0.5}]).param_groups[0]["weight_decay"] == 0.5


def test_a_real_group_carries_no_hyper_parameters_of_the_rule():
    real = bayes(network().parameters()).param_groups[1]
    assert not {"dataset_size", "temperature", "momentum", "prior"} & real.keys()


OF_OTHERS = (
    "name", "param_names", "lr_scale", "initial_lr", "swa_lr", "max_lr", "min_lr", "base_momentum", "max_momentum",
    "foreach", "fused", "capturable", "differentiable", "layer_decay",
)  # fmt: skip


@pytest.mark.parametrize("member", members(), ids=str)
def test_a_misspelt_hyper_parameter_is_refused_and_notes_of_others_stay(member):
    (settings, *_) = member.settings
    params = beliefs(member, torch.zeros(3, 2))
    optimizer = member([{"params": params, **dict.fromkeys(OF_OTHERS, 0.5)}], **settings)
    assert all(optimizer.param_groups[0][key] == 0.5 for key in OF_OTHERS)
    more = beliefs(member, torch.zeros(2, 3))
    for key in (key for key in optimizer.defaults if len(key) > 4):
        misspelt = key[:3] + key[4:]
        with pytest.raises(InputError, match=f"a group has '{misspelt}', which nothing reads: did you mean '{key}'"):
            optimizer.add_param_group({"params": more, misspelt: optimizer.param_groups[0][key]})
        assert len(optimizer.param_groups) == 1


def test_an_empty_list_and_a_parameter_given_twice_are_refused_as_in_torch():
    model = network()
    with pytest.raises(ValueError, match="empty parameter list"):
        bayes([])
    with pytest.raises(ValueError, match="more than one parameter group"):
        bayes([{"params": model.parameters()}, {"params": [model[0].natural]}])


def test_values_per_group_override_and_changing_them_takes_effect_at_once():
    cold, warm, still = (network()[0].natural for _ in range(3))
    optimizer = bayes([{"params": [cold], "temperature": 0.5}, {"params": [warm]}, {"params": [still], "lr": 0.0}])
    start = {p: p.detach().clone() for p in (cold, warm, still)}
    for p in start:
        p.grad = torch.ones_like(p)
    optimizer.step()
    for p, lr, temperature in ((cold, 0.1, 0.5), (warm, 0.1, 1.0), (still, 0.0, 1.0)):
        torch.testing.assert_close(p.detach(), (1 - lr) * start[p] - lr * 10 / temperature)
    optimizer.param_groups[2].update(lr=1.0, dataset_size=3)
    optimizer.step()
    torch.testing.assert_close(still.detach(), torch.full_like(still, -3.0))


def test_parameters_added_later_are_split_and_trained():
    model, later = network(), network()
    optimizer = bayes(model.parameters())
    optimizer.add_param_group({"params": later.parameters(), "lr": 0.2, "real_lr": 0.5})
    assert layout(optimizer) == [("belief", 2, 0.1), ("real", 4, 0.01), ("belief", 2, 0.2), ("real", 4, 0.5)]
    start = [p.detach().clone() for p in later.parameters()]
    (model(torch.randn(8, 4)) - later(torch.randn(8, 4))).square().mean().backward()
    optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip(later.parameters(), start, strict=True) if p.grad.any())


def test_a_model_of_another_posterior_is_refused_with_the_way_out():
    with pytest.raises(InputError, match=r"BayesBiNN trains Bernoulli posteriors.*latent of Point\(\).*binarize"):
        bayes(network(Point()).parameters())


def test_a_model_of_several_posteriors_takes_one_optimizer_for_each():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), skip=["1"])
    vb.binarize(model, posterior=Point())
    optimizers = [bayes(model[0].parameters()), StraightThrough(model[1].parameters())]
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.randn(8, 4)).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


SCHEDULES = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=8),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.5, 0.05], total_steps=8),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.9**t),
    "lambda each": lambda o: lr_scheduler.LambdaLR(o, [lambda t: 0.9**t, lambda t: 0.5**t]),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 5)], milestones=[3]
    ),
    "step": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_scheduler_moves_beliefs_and_real_parameters_as_it_moves_two_groups_of_torchs(schedule, momentum):
    model = network()
    optimizer = bayes(model.parameters(), real_lr=0.02, momentum=momentum)
    two = [{"params": [torch.ones(1)], "lr": 0.1}, {"params": [torch.ones(1)], "lr": 0.02}]
    reference = torch.optim.SGD(two, momentum=momentum)
    ours, theirs = SCHEDULES[schedule](optimizer), SCHEDULES[schedule](reference)
    seen = []
    for _ in range(7):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        before = model[0].natural.detach().clone()
        optimizer.step()
        reference.step()
        if optimizer.param_groups[0]["momentum"] == 0:
            group = optimizer.param_groups[0]
            expected = (1 - group["lr"]) * before - group["lr"] * 10 * model[0].natural.grad
            torch.testing.assert_close(model[0].natural.detach(), expected)
        ours.step()
        theirs.step()
        seen.append([group["lr"] for group in optimizer.param_groups])
        assert seen[-1] == [group["lr"] for group in reference.param_groups]
    assert len({beliefs for beliefs, _ in seen}) > 1
    assert len({real for _, real in seen}) > 1
    assert torch.isfinite(model[0].natural).all()
