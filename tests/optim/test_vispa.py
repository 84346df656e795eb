"""What is particular to VISPA: what it becomes without factors, the constraint, and the pairs that it moves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.contracts.rule import beliefs
from varbnn.errors import CheckpointError, InputError
from varbnn.kernels import using_backend
from varbnn.optim import VISPA, Cosine, Scheduler, StraightThrough
from varbnn.posteriors import LowRankGaussian, Point

X, Y = torch.randn(24, 8), torch.randint(4, (24,))


def network(posterior) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 4)]
    return vb.binarize(nn.Sequential(*layers), posterior)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()


@pytest.mark.parametrize("backend", ["reference", None], ids=["torch", "compiled"])
@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9, "weight_decay": 0.01},
        {"momentum": 0.0, "weight_decay": 0.01},
        {"momentum": 0.8, "dampening": 0.8},
        {"momentum": 0.0},
    ],
    ids=str,
)
def test_without_factors_it_is_straight_through_sgd_to_the_bit(settings, backend):
    ours, theirs = network(LowRankGaussian(rank=0)), network(Point())
    with torch.no_grad():
        for here, there in zip(vb.nn.binary_layers(ours), vb.nn.binary_layers(theirs), strict=True):
            here[1].location.copy_(there[1].latent)
            here[1].bias.copy_(there[1].bias)
    optimizer = VISPA(ours.parameters(), lr=0.3, **settings)
    other = StraightThrough(theirs.parameters(), lr=0.3, base="sgd", clip=None, **settings)
    before = [layer.weight.clone() for _, layer in vb.nn.binary_layers(theirs)]
    with using_backend(backend) if backend else torch.enable_grad():
        for _ in range(20):
            train(ours, optimizer, 3)
            train(theirs, other, 3)
            for here, there in zip(vb.nn.binary_layers(ours), vb.nn.binary_layers(theirs), strict=True):
                assert torch.equal(here[1].location, there[1].latent)
    now = [layer.weight for _, layer in vb.nn.binary_layers(theirs)]
    assert any(not torch.equal(a, b) for a, b in zip(before, now, strict=True)), "nothing flipped"


@pytest.mark.parametrize("constraint", ["none", "unit"])
def test_stretching_each_weight_alike_changes_no_forward(constraint):
    posterior = LowRankGaussian(rank=3, scale=4.0, constraint=constraint)
    model = network(posterior)
    train(model, VISPA(model.parameters(), lr=0.3), 30)
    torch.manual_seed(8)
    here = model(X)
    with torch.no_grad():
        for _, layer in vb.nn.binary_layers(model):
            stretch = 0.1 + torch.rand_like(layer.location)
            layer.location.mul_(stretch)
            layer.factors.mul_(stretch)
    torch.manual_seed(8)
    assert torch.equal(here, model(X))


def test_after_each_step_the_constraint_holds_and_without_it_the_norms_are_free():
    sizes = {}
    for constraint in ("none", "unit"):
        model = network(LowRankGaussian(rank=3, scale=4.0, constraint=constraint))
        optimizer = VISPA(model.parameters(), lr=0.3)
        for _ in range(5):
            train(model, optimizer, 1)
            layer = model[0]
            sizes[constraint] = (layer.location.square() + layer.factors.square().sum(0) / 4).detach()
            if constraint == "unit":
                torch.testing.assert_close(sizes["unit"], torch.ones(16, 8))
    assert float(sizes["none"].std()) > 0.1


def test_the_factors_have_a_learning_rate_of_their_own():
    posterior = LowRankGaussian(rank=2)
    layer = vb.binarize(nn.Linear(4, 3, bias=False), posterior)
    location, factors = layer.location.detach().clone(), layer.factors.detach().clone()
    optimizer = VISPA(layer.parameters(), lr=0.5, momentum=0.0, factor_lr_scale=0.0)
    layer.location.grad, layer.factors.grad = torch.ones(3, 4), torch.ones(2, 3, 4)
    optimizer.step()
    torch.testing.assert_close(layer.location.detach(), location - 0.5)
    assert torch.equal(layer.factors.detach(), factors)
    optimizer.param_groups[0]["factor_lr_scale"] = 3.0
    optimizer.step()
    torch.testing.assert_close(layer.factors.detach(), factors - 1.5)


def test_a_warm_up_and_a_cosine_move_both_tensors_and_the_real_parameters():
    model = network(LowRankGaussian(rank=2))
    optimizer = VISPA(model.parameters(), lr=0.5, real_lr=0.1)
    schedule = Scheduler(optimizer, lr=Cosine(0.5, 0.0, steps=10))
    warm_up = torch.optim.lr_scheduler.LinearLR(VISPA(model.parameters(), lr=0.5), 0.1, total_iters=5)
    for _ in range(10):
        train(model, optimizer, 1)
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)
    assert warm_up.get_last_lr()[0] == pytest.approx(0.05)


def test_of_a_loss_that_is_linear_in_the_weights_the_factors_learn_nothing_on_average():
    layer = vb.binarize(nn.Linear(3, 2, bias=False), LowRankGaussian(rank=2, scale=1.0))
    total = torch.zeros(2, 2, 3)
    for _ in range(2000):
        layer.zero_grad()
        layer.weight.sum().backward()
        total += layer.factors.grad / 2000
    assert float(total.abs().max()) < 5 / math.sqrt(2000)
    torch.testing.assert_close(layer.location.grad, torch.ones(2, 3))


# --- pairs ---


def test_constraints_or_scales_that_differ_need_groups_of_their_own():
    for option, first, second in (("constraint", "none", "unit"), ("scale", 1.0, 100.0)):
        layers = [vb.binarize(nn.Linear(3, 2), LowRankGaussian(rank=2, **{option: value})) for value in (first, second)]
        with pytest.raises(InputError, match=f"{option}s .* give each {option} a group of its own"):
            VISPA([p for layer in layers for p in layer.parameters()])
        optimizer = VISPA([{"params": layer.parameters()} for layer in layers])
        assert [g[option] for g in optimizer.param_groups if g["kind"] == "belief"] == [first, second]


def test_a_location_without_its_factors_is_refused():
    layer = vb.binarize(nn.Linear(3, 2), LowRankGaussian(rank=2))
    with pytest.raises(InputError, match="followed by the factors of the same layer"):
        VISPA([layer.factors, layer.location])
    with pytest.raises(InputError, match="followed by the factors of the same layer"):
        VISPA([layer.location])
    optimizer = VISPA(layer.parameters())
    layer.factors.requires_grad_(False)
    layer.location.grad = torch.ones(2, 3)
    with pytest.raises(InputError, match=r"move together.*LowRankGaussian\(rank=0\)"):
        optimizer.step()


def test_a_state_saved_under_another_constraint_or_scale_is_refused():
    for options in ({"constraint": "unit"}, {"scale": 4.0}):
        here, there = (network(LowRankGaussian(rank=2, **o)) for o in ({}, options))
        saved = VISPA(there.parameters()).state_dict()
        with pytest.raises(CheckpointError, match="the saved state"):
            VISPA(here.parameters()).load_state_dict(saved)


@pytest.mark.parametrize(
    "key, value",
    [("momentum", 1.0), ("dampening", -0.1), ("weight_decay", -1.0), ("factor_lr_scale", math.inf)],
)
def test_hyper_parameters_out_of_range_are_refused(key, value):
    with pytest.raises(InputError, match=f"{key} must be"):
        VISPA(beliefs(VISPA, torch.randn(3)), **{key: value})


def test_training_by_fit_in_antithetic_pairs_and_a_resumed_run_ends_as_the_other(tmp_path):
    loader = [(X, Y)] * 2

    def run(epochs, path=None):
        model = network(LowRankGaussian(rank=2, scale=4.0, scope="network", constraint="unit"))
        optimizer = VISPA(model.parameters(), lr=0.3)
        torch.manual_seed(1)
        vb.fit(model, optimizer, loader, epochs=epochs, num_samples=2, antithetic=True, progress=False, checkpoint=path)
        return model

    whole = run(4)
    run(2, tmp_path / "run.pt")
    resumed = run(4, tmp_path / "run.pt")
    for here, there in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(here, there)
