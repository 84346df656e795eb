"""What GaussianBLR is by its formulas: latent SGD, a precision that stays positive, BayesBiNN in another coordinate."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.contracts.rule import Member, beliefs
from varbnn.errors import CheckpointError, InputError
from varbnn.optim import BayesBiNN, GaussianBLR, StraightThrough
from varbnn.optim.blocks import SIZE
from varbnn.posteriors import Gaussian, Point, as_prior, belief_of
from varbnn.posteriors.gaussian import bell, log_odds, natural_window

FORMS = ["fixed", "learned", "natural"]
every_form = pytest.mark.parametrize("form", FORMS)


def latents(form, *values):
    return beliefs(Member(GaussianBLR, Gaussian(form), ()), *values)


def pair(location, precision):
    """Location and precision of one belief, in float64."""
    m, s = latents("learned", torch.as_tensor(location, dtype=torch.float64))
    with torch.no_grad():
        s.copy_(torch.as_tensor(precision, dtype=torch.float64))
    return m, s


# --- fixed: latent weights through a window ---


def test_the_fixed_form_is_latent_sgd_with_weight_decay_seen_through_the_bell():
    rho, size, temperature, strength = 0.05, 40, 0.5, 3.0
    start = torch.randn(6, 5, dtype=torch.float64)
    mix, target = torch.randn(6, 6, dtype=torch.float64) / 4, torch.randn(6, 5, dtype=torch.float64) / 8
    (m,), (r,) = latents("fixed", start), beliefs(StraightThrough, start)
    rule = GaussianBLR([m], rho, dataset_size=size, temperature=temperature, prior_precision=strength)
    decay = strength * temperature / size
    sgd = StraightThrough([r], lr=rho * size / temperature, base="sgd", weight_decay=decay, clip=None)
    for step in range(200):
        for p in (m, r):
            p.grad = bell(p.detach()) * (mix @ torch.where(p.detach() >= 0, 1.0, -1.0).double() - target)
        rule.step()
        sgd.step()
        torch.testing.assert_close(m, r, rtol=1e-9, atol=1e-9, msg=lambda text, t=step: f"step {t}: {text}")


def test_the_gradient_that_a_layer_hands_over_is_the_straight_through_one_times_the_bell():
    layer, x = vb.binarize(nn.Linear(7, 3, bias=False), Gaussian(), strength=3.0), torch.randn(4, 7)
    twin = vb.binarize(nn.Linear(7, 3, bias=False), Point())
    torch.manual_seed(1)
    with torch.no_grad():
        twin.latent.copy_(layer.posterior.sample(layer.location))
    torch.manual_seed(1)  # the layer draws the same
    layer(x).square().sum().backward()
    twin(x).square().sum().backward()
    torch.testing.assert_close(layer.location.grad, bell(layer.location.detach()) * twin.latent.grad)


# --- learned: the precision ---


@pytest.mark.parametrize("curvature", [-1e8, -1e3, -1.5, 0.0, 1e3, 1e8])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_precision_stays_positive_whatever_the_curvature(curvature, momentum):
    m, s = latents("learned", torch.tensor([0.3, -2.0, 0.0]))
    optimizer = GaussianBLR([m, s], lr=1.0, dataset_size=10, momentum=momentum)
    for step in range(300):
        m.grad = torch.zeros(3)
        s.grad = torch.full((3,), curvature * (-1.0) ** (step // 50))
        optimizer.step()
        assert bool((s > 0).all())
        assert bool(torch.isfinite(s).all())


def test_without_data_the_belief_goes_to_the_prior():
    m, s = pair([2.0, -1.0], [0.2, 9.0])
    optimizer = GaussianBLR([m, s], lr=0.2, dataset_size=10, prior_precision=4.0, prior=0.5)
    for _ in range(300):
        m.grad, s.grad = torch.zeros_like(m), torch.zeros_like(s)
        optimizer.step()
    torch.testing.assert_close(m, torch.full_like(m, 0.5))
    torch.testing.assert_close(s, torch.full_like(s, 4.0))


@pytest.mark.parametrize("slope", [-0.6, 0.8])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_fixed_point_of_the_learned_form_is_a_minimum_of_the_variational_objective(slope, momentum):
    """One weight, where the window is exact: no gradient in m nor in S of N E[l] + T KL(N(m, 1/S) ‖ N(m₀, 1/s₀))."""
    size, temperature, m0, s0 = 6, 2.0, 0.3, 1.5

    def objective(m, s):
        divergence = (math.log(s / s0) + s0 / s + s0 * (m - m0) ** 2 - 1) / 2
        return size * slope * math.erf(m * math.sqrt(s / 2)) + temperature * divergence

    m, s = pair([0.0], [1.0])
    optimizer = GaussianBLR(
        [m, s], 0.1, dataset_size=size, temperature=temperature, prior_precision=s0, momentum=momentum, prior=m0
    )
    posterior = Gaussian("learned")
    for _ in range(2000):
        optimizer.zero_grad()
        (slope * posterior.draw(m, s)).sum().backward()
        optimizer.step()
    here, h = (m.item(), s.item()), 1e-5
    assert (objective(here[0] + h, here[1]) - objective(here[0] - h, here[1])) / (2 * h) == pytest.approx(0, abs=1e-8)
    assert (objective(here[0], here[1] + h) - objective(here[0], here[1] - h)) / (2 * h) == pytest.approx(0, abs=1e-8)
    assert objective(*here) < objective(0.0, 1.0)
    assert m.item() * slope < 0


def test_a_weight_pushed_outwards_grows_surer_in_both_of_its_numbers():
    m, s = pair([0.5, -0.5], [1.0, 1.0])
    optimizer = GaussianBLR([m, s], lr=0.05, dataset_size=10)
    (torch.tensor([-1.0, 1.0]) * Gaussian("learned").draw(m, s)).sum().backward()
    optimizer.step()
    assert m[0] > 0.5
    assert m[1] < -0.5
    assert bool((s > 1).all())


@pytest.mark.parametrize("step", [0.5, 1.0, 1.9, 2.1, 6.0])
@pytest.mark.parametrize("precision", [0.25, 1.0, 9.0])
def test_a_weight_pushed_back_opens_up_below_a_step_of_two_and_closes_beyond(step, precision):
    m, s = pair([0.5], [precision])
    gradient, ratio = 0.01, step / (0.5 * 0.01)  # lr · N/T of which the step |m G| is `step`
    optimizer = GaussianBLR([m, s], lr=1e-3, dataset_size=1e3 * ratio, prior_precision=precision)
    slope = torch.exp(-(m * m * s).detach() / 2) * math.sqrt(2 / math.pi) * s.detach().sqrt()
    (Gaussian("learned").draw(m, s) * gradient / slope).sum().backward()
    torch.testing.assert_close(m.grad, torch.full_like(m, gradient))
    optimizer.step()
    assert s.item() / precision == pytest.approx(1 - step + step**2 / 2, rel=1e-6)
    assert (s.item() < precision) == (step < 2)


def test_a_large_pair_moves_in_blocks_as_in_one_piece():
    start, cut = torch.randn(SIZE + 7), SIZE // 3
    whole = latents("learned", start)
    parts = latents("learned", start[:cut], start[cut:])
    settings = dict(lr=0.1, dataset_size=3, momentum=0.5)
    one, two = GaussianBLR(whole, **settings), GaussianBLR(parts, **settings)
    for _ in range(3):
        for index, p in enumerate(whole):
            p.grad = 0.1 * torch.randn_like(p)
            parts[index].grad, parts[index + 2].grad = p.grad[:cut].clone(), p.grad[cut:].clone()
        one.step()
        two.step()
    for index, p in enumerate(whole):
        assert torch.equal(p, torch.cat([parts[index], parts[index + 2]]))


# --- natural: BayesBiNN in another coordinate ---


def apart_from_bayesbinn(rho: float) -> np.ndarray:
    """After one step from the same coins: λ of the one, less λ of the other."""
    u0 = torch.linspace(-4, 4, 17, dtype=torch.float64)
    gradient = torch.linspace(0.7, -0.3, 17, dtype=torch.float64)
    prior = log_odds(torch.tensor(0.4, dtype=torch.float64)).item() / 2
    (u,) = latents("natural", u0)
    (natural,) = beliefs(BayesBiNN, log_odds(u0) / 2)
    ours, theirs = (
        GaussianBLR([u], rho, dataset_size=30, temperature=5.0, prior=0.4),
        BayesBiNN([natural], rho, dataset_size=30, temperature=5.0, prior=prior),
    )
    u.grad, natural.grad = natural_window(u0) * gradient, gradient
    ours.step()
    theirs.step()
    return (log_odds(u.detach()) / 2 - natural.detach()).abs().numpy()


def test_the_natural_form_makes_the_step_of_bayesbinn_to_first_order():
    """dλ/du = 2 φ / (1 - μ²) = 1 / f, so a step -ρ f (g + λ - λ₀) in u is -ρ (g + λ - λ₀) in λ, up to order ρ²."""
    coarse, fine = apart_from_bayesbinn(1e-3), apart_from_bayesbinn(5e-4)
    assert coarse.max() < 1e-4
    moved = coarse > 1e-9  # elsewhere the curvature of λ(u) is 0
    assert moved.sum() >= 15
    np.testing.assert_allclose(coarse[moved] / fine[moved], 4, rtol=0.02)


def test_the_natural_form_ends_where_bayesbinn_ends():
    gradient = torch.tensor([0.3, -0.05, 0.0], dtype=torch.float64)
    (u,), (natural,) = latents("natural", torch.zeros(3).double()), beliefs(BayesBiNN, torch.zeros(3).double())
    ours, theirs = GaussianBLR([u], 0.05, dataset_size=20), BayesBiNN([natural], 0.05, dataset_size=20)
    for _ in range(2000):
        u.grad, natural.grad = natural_window(u.detach()) * gradient, gradient
        ours.step()
        theirs.step()
    torch.testing.assert_close(log_odds(u.detach()) / 2, natural.detach(), rtol=1e-9, atol=1e-9)


def test_for_the_natural_form_prior_and_prior_precision_name_a_coin():
    for precision, prior, coin in ((4.0, 0.5, 1.0), (4.0, 0.0, 0.0), (1.0, -0.7, -0.7)):
        (u,) = latents("natural", torch.tensor([2.0, -3.0], dtype=torch.float64))
        optimizer = GaussianBLR([u], 0.3, dataset_size=10, prior_precision=precision, prior=prior)
        for _ in range(300):
            u.grad = torch.zeros(2, dtype=torch.float64)
            optimizer.step()
        torch.testing.assert_close(u, torch.full_like(u, coin), rtol=1e-9, atol=1e-9)


# --- yesterday's posterior as prior ---


@every_form
def test_without_data_the_belief_returns_to_the_posterior_given_as_prior(form):
    yesterday = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), Gaussian(form), strength=0.8).double()
    for p in yesterday.parameters():
        mark = belief_of(p)
        if mark is not None and mark.name == "precision":
            p.data.uniform_(0.5, 3.0)
    today = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), Gaussian(form)).double()
    optimizer = GaussianBLR(today.parameters(), lr=0.3, dataset_size=10, prior=as_prior(yesterday), real_lr=0.0)
    for _ in range(300):
        for p in today.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    for found, expected in zip(as_prior(today), as_prior(yesterday), strict=True):
        torch.testing.assert_close(found, expected)
    assert vb.health(today, prior=as_prior(yesterday), warn=False).kl == pytest.approx(0, abs=1e-9)


def test_health_takes_location_and_precision_of_every_layer_as_prior():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), Gaussian("learned"), strength=1.0)
    prior = as_prior(model)
    assert len(prior) == 4
    assert vb.health(model, prior=prior, warn=False).kl == pytest.approx(0, abs=1e-7)
    wider = [prior[0], prior[1] / 4, prior[2], prior[3] / 4]
    assert vb.health(model, prior=wider, warn=False).kl > 0.01
    with pytest.raises(InputError, match="prior has 2 tensors for 4 beliefs in 2 binary layers"):
        vb.health(model, prior=prior[::2])
    with pytest.raises(InputError, match=r"layer '1' has shape \(3, 4\), its belief \(2, 3\)"):
        vb.health(model, prior=[*prior[:3], prior[1]])


def test_a_prior_precision_that_is_not_positive_is_refused():
    m, s = latents("learned", torch.zeros(2))
    with pytest.raises(InputError, match="not positive"):
        GaussianBLR([m, s], 0.1, dataset_size=10, prior=[torch.zeros(2), torch.tensor([1.0, 0.0])])


# --- what a group may hold ---


def test_two_forms_in_one_group_are_refused_and_in_two_groups_are_not():
    first, second = latents("fixed", torch.zeros(2)), latents("learned", torch.zeros(2))
    with pytest.raises(InputError, match="forms fixed and learned; give each form a group"):
        GaussianBLR([*first, *second], 0.1, dataset_size=10)
    optimizer = GaussianBLR([{"params": first}, {"params": second}], 0.1, dataset_size=10)
    assert [group["form"] for group in optimizer.param_groups] == ["fixed", "learned"]


def test_the_form_is_that_of_the_beliefs_and_real_parameters_have_none():
    optimizer = GaussianBLR([*latents("natural", torch.zeros(2)), nn.Parameter(torch.zeros(2))], 0.1, dataset_size=10)
    assert optimizer.param_groups[0]["form"] == "natural"
    assert not {"form", "prior_precision"} & set(optimizer.param_groups[1])


@pytest.mark.parametrize("order", [[1, 0], [0, 2, 1, 3], [0], [0, 1, 2], [0, 3, 2, 1]])
def test_pairs_out_of_order_are_refused(order):
    parameters = latents("learned", torch.zeros(2), torch.zeros(3))
    with pytest.raises(InputError, match=r"followed by the precision of the same layer, as model.parameters\(\)"):
        GaussianBLR([parameters[i] for i in order], 0.1, dataset_size=10)


def test_half_a_pair_without_gradient_is_refused_and_nothing_changes():
    m, s = latents("learned", torch.ones(2))
    optimizer = GaussianBLR([m, s], 0.1, dataset_size=10)
    m.grad = torch.ones(2)
    with pytest.warns(vb.errors.VarbnnWarning), pytest.raises(InputError, match="move together"):
        optimizer.step()
    assert m.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("own, saved", [("fixed", "natural"), ("natural", "fixed")])
def test_the_state_of_another_form_is_refused(own, saved):
    (p,), (q,) = latents(own, torch.zeros(2)), latents(saved, torch.zeros(2))
    optimizer, other = GaussianBLR([p], 0.1, dataset_size=10), GaussianBLR([q], 0.1, dataset_size=10)
    with pytest.raises(CheckpointError, match=f"form '{own}', the saved state '{saved}'"):
        optimizer.load_state_dict(other.state_dict())


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_prior_precision_out_of_range_is_refused(value):
    with pytest.raises(InputError, match=f"prior_precision must be positive and finite, got {value}"):
        GaussianBLR(latents("fixed", torch.zeros(2)), 0.1, dataset_size=10, prior_precision=value)


# --- a network ---


def network():
    return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2), nn.BatchNorm1d(2))


def problem():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(400, 16, generator=generator)
    return x, (x[:, :8].sum(1) > x[:, 8:].sum(1)).long()


@every_form
def test_a_network_learns_predicts_saves_and_copies(form):
    x, y = problem()
    model = vb.binarize(network(), Gaussian(form))
    optimizer = GaussianBLR(model.parameters(), lr=0.05, dataset_size=400, temperature=0.1)
    for _ in range(60):
        for batch in torch.randperm(400).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    prediction = vb.predict(model, x, num_samples=8, refresh_bn=[(x, y)])
    assert float((prediction.mean.argmax(1) == y).float().mean()) > 0.9
    assert 0.01 < vb.health(model, warn=False).entropy_bits < 0.99

    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = vb.binarize(network(), Gaussian(form))
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (loaded, copy.deepcopy(model)):
        other.eval()
        model.eval()
        assert torch.equal(other(x), model(x))
        GaussianBLR(other.parameters(), lr=0.05, dataset_size=400)  # the copy's beliefs are still known as such


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_without_precision_is_not_taken_for_a_bernoulli_one(strict):
    state = vb.binarize(network(), Gaussian("learned")).state_dict()
    with pytest.raises(CheckpointError, match="the checkpoint has location"):
        vb.binarize(network()).load_state_dict(state, strict=strict)
    with pytest.raises(RuntimeError, match="precision"):
        vb.binarize(network(), Gaussian()).load_state_dict(state)
