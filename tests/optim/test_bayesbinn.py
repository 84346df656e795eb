"""What is particular to BayesBiNN: its prior, and which torch optimizers it equals under which conditions."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.contracts.rule import beliefs, close, oracle_of
from varbnn.errors import InputError
from varbnn.optim import BayesBiNN
from varbnn.optim.filters import Momentum
from varbnn.posteriors import Bernoulli, mark_belief

DOUBLE = torch.float64


def start(*shape):
    return torch.randn(*shape, dtype=DOUBLE)


def test_without_momentum_it_is_sgd_with_weight_decay_1_on_the_gradient_times_dataset_size_over_temperature():
    value = start(4, 3)
    (natural,), latent = beliefs(BayesBiNN, value), nn.Parameter(value.clone())
    ours = BayesBiNN([natural], lr=0.03, dataset_size=60, temperature=0.5)
    theirs = torch.optim.SGD([latent], lr=0.03, weight_decay=1)
    mix = start(12, 12)
    for _ in range(200):
        natural.grad = (mix @ natural.detach().sign().ravel()).reshape(4, 3)
        latent.grad = 60 / 0.5 * (mix @ latent.detach().sign().ravel()).reshape(4, 3)
        ours.step()
        theirs.step()
        close(natural, latent.detach().numpy(), "λ")


@pytest.mark.parametrize("scale", [1.0, 1e-6], ids=["kappa 1", "kappa 1e-6"])
def test_the_published_numerics_in_saturation_are_latent_sgd_with_weight_decay(scale):
    # conditions: one draw, no momentum, prior 0, float32 with |λ| ≥ 9.02, noise ½; then the factor is exactly 1 / T
    relaxation, size, lr = 1e-10, 54000, 1e-4
    posterior = Bernoulli(
        estimator="concrete", relaxation=relaxation, numerics="reference", init="sign", init_scale=10.0
    )
    natural, *buffers = posterior.initial(torch.empty(64))
    natural = nn.Parameter(natural)
    mark_belief(natural, posterior, "natural")
    latent = nn.Parameter(natural.detach().double() * scale * relaxation / size)
    ours = BayesBiNN([natural], lr=lr, dataset_size=size)
    theirs = torch.optim.SGD([latent], lr=scale * lr, weight_decay=1 / scale)
    mix, target = torch.randn(64, 64), torch.randn(64)
    flips, before = 0, None
    for _ in range(50):
        weight = posterior.draw(natural, *buffers, noise=torch.tensor(0.5).expand(64))
        assert torch.equal(weight, latent.detach().sign().float())
        flips += 0 if before is None else int((weight != before).sum())
        before = weight.detach()
        ours.zero_grad()
        (weight @ mix @ weight / 64 - weight @ target).backward()
        latent.grad = ((mix + mix.T) @ latent.detach().sign().float() / 64 - target).double()
        ours.step()
        theirs.step()
    assert flips > 0, "a run without a flip compares nothing"
    torch.testing.assert_close(natural.double(), latent * size / (scale * relaxation), rtol=1e-3, atol=0)


@pytest.mark.parametrize("prior", [0.0, 0.4])
def test_the_shortcut_without_momentum_equals_the_general_path(prior):
    class General(BayesBiNN):
        class filter_type(Momentum):
            def is_identity(self, group, states):
                return False

        filter = filter_type()

    (p,), (q,) = beliefs(BayesBiNN, start(20)), beliefs(BayesBiNN, start(20))
    with torch.no_grad():
        q.copy_(p)
    short = BayesBiNN([p], lr=0.1, dataset_size=5, prior=prior)
    general = General([q], lr=0.1, dataset_size=5, prior=prior)
    for _ in range(200):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
        short.step()
        general.step()
        close(p, q.detach().numpy(), "λ")
    assert not short.state[p], "the shortcut keeps no state"
    assert general.state[q]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", [list, tuple])
def test_prior_tensors_equal_the_oracle_each_for_its_own_belief(momentum, kind):
    values, priors = [start(3, 2), start(4)], kind([start(3, 2), start(4)])
    parameters = beliefs(BayesBiNN, *values)
    real = nn.Parameter(start(2))  # between them: the prior counts beliefs only
    optimizer = BayesBiNN(
        [parameters[0], real, parameters[1]], lr=0.05, dataset_size=9, momentum=momentum, prior=priors
    )
    arrays, states = [v.numpy().copy() for v in values], [{}, {}]
    for _ in range(200):
        for i, p in enumerate(parameters):
            p.grad = torch.randn_like(p)
            arrays[i] = oracle_of(BayesBiNN).step(
                arrays[i], p.grad.numpy(), states[i], lr=0.05, dataset_size=9, temperature=1.0, momentum=momentum,
                prior=priors[i].numpy(), maximize=False,
            )  # fmt: skip
        optimizer.step()
        for p, array in zip(parameters, arrays, strict=True):
            close(p, array, "λ")


def test_prior_tensors_are_copies():
    prior = start(3)
    (p,) = beliefs(BayesBiNN, start(3))
    optimizer = BayesBiNN([p], lr=1.0, dataset_size=1, prior=[prior])
    kept = prior.clone()
    prior.fill_(100.0)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(p.detach(), kept, rtol=0, atol=0)


def test_without_gradient_signal_the_belief_goes_to_its_prior_at_rate_1_minus_lr():
    (p,) = beliefs(BayesBiNN, start(5))
    first = p.detach().numpy().copy()
    optimizer = BayesBiNN([p], lr=0.1, dataset_size=3, prior=0.7)
    for _ in range(30):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    close(p, 0.7 + 0.9**30 * (first - 0.7), "λ")


def test_a_learning_rate_of_1_lands_on_the_fixed_point_in_one_step():
    (p,) = beliefs(BayesBiNN, start(5))
    gradient = start(5)
    p.grad = gradient.clone()
    BayesBiNN([p], lr=1.0, dataset_size=8, temperature=2.0, prior=0.25).step()
    close(p, 0.25 - 4 * gradient.numpy(), "λ")


def test_momentum_switched_on_late_starts_its_average_then():
    (p,), (q,) = beliefs(BayesBiNN, np.ones(3)), beliefs(BayesBiNN, np.ones(3))
    late, plain = BayesBiNN([p], lr=0.1, dataset_size=2), BayesBiNN([q], lr=0.1, dataset_size=2)
    for t in range(20):
        if t == 10:
            late.param_groups[0]["momentum"] = 0.9
        p.grad = q.grad = torch.randn_like(p)
        late.step()
        plain.step()
        if t == 10:
            # the first direction of an average whose start-up bias is divided out is the gradient itself
            close(p, q.detach().numpy(), "at the switch")
    assert not torch.allclose(p, q)


BAD = [
    ("lr", 1.5, r"lr must be in \[0, 1\]"),
    ("dataset_size", 0, "dataset_size must be positive"),
    ("dataset_size", -5, "dataset_size must be positive"),
    ("dataset_size", math.nan, "dataset_size must be positive"),
    ("dataset_size", math.inf, "dataset_size must be positive"),
    ("temperature", 0.0, "temperature must be positive"),
    ("temperature", -1.0, "temperature must be positive"),
    ("temperature", math.nan, "temperature must be positive"),
    ("momentum", 1.0, r"momentum must be in \[0, 1\)"),
    ("momentum", -0.1, r"momentum must be in \[0, 1\)"),
    ("prior", math.nan, "prior must be a finite number"),
    ("prior", math.inf, "prior must be a finite number"),
]


@pytest.mark.parametrize("key, value, message", BAD)
def test_a_hyper_parameter_out_of_range_is_refused_at_construction_in_a_group_and_at_the_step(key, value, message):
    good = dict(lr=0.1, dataset_size=10)
    (p,) = beliefs(BayesBiNN, start(3))
    with pytest.raises(InputError, match=message):
        BayesBiNN([p], **{**good, key: value})
    with pytest.raises(InputError, match=message):
        BayesBiNN([{"params": [p], key: value}], **good)
    optimizer = BayesBiNN([p], **good)
    optimizer.param_groups[0][key] = value
    p.grad = torch.ones_like(p)
    before = p.detach().clone()
    with pytest.raises(InputError, match=message):
        optimizer.step()
    assert torch.equal(p, before)


BAD_PRIORS = [
    ([torch.zeros(2)], "a prior has shape"),
    ([], "prior has 0 tensors for 1 beliefs"),
    ([torch.zeros(3), torch.zeros(3)], "prior has 2 tensors for 1 beliefs"),
    ([torch.full((3,), math.nan)], "a prior has NaN"),
    (torch.zeros(3), "prior must be a number, or a list with one tensor per belief"),
]


@pytest.mark.parametrize("prior, message", BAD_PRIORS, ids=[message for _, message in BAD_PRIORS])
def test_a_prior_that_does_not_fit_is_refused(prior, message):
    with pytest.raises(InputError, match=message):
        BayesBiNN(beliefs(BayesBiNN, start(3)), lr=0.1, dataset_size=10, prior=prior)


def test_a_prior_tensor_written_into_a_group_is_refused_with_the_way_to_give_it():
    optimizer = BayesBiNN(beliefs(BayesBiNN, start(300, 100)), lr=0.1, dataset_size=9)
    optimizer.param_groups[0]["prior"] = [torch.zeros(300, 100)]
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(300, 100, dtype=DOUBLE)
    told = r"tensors go to the constructor or to add_param_group\), got a list of torch.float32 \(300, 100\)$"
    with pytest.raises(InputError, match=told):
        optimizer.step()


def test_groups_have_priors_of_their_own_as_tensors_or_numbers():
    (a, b, c), goal = beliefs(BayesBiNN, start(3), start(2), start(4)), torch.tensor([3.0, -2.0, 1.0], dtype=DOUBLE)
    optimizer = BayesBiNN([{"params": [a], "prior": [goal]}, {"params": [b], "prior": 2.0}], lr=0.1, dataset_size=9)
    optimizer.add_param_group({"params": [c], "prior": (torch.arange(4.0),)})
    wanted = {a: goal, b: torch.full((2,), 2.0, dtype=DOUBLE), c: torch.arange(4, dtype=DOUBLE)}
    expected = {p: 0.9 * p.detach() + 0.1 * wanted[p] for p in wanted}
    for p in wanted:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for p, value in expected.items():
        torch.testing.assert_close(p.detach(), value)


def test_beliefs_that_come_later_without_a_prior_are_refused_where_the_others_have_tensors():
    a, b = beliefs(BayesBiNN, start(3), start(2))
    optimizer = copy.deepcopy(BayesBiNN([a], lr=0.1, dataset_size=9, prior=[torch.ones(3)]))
    with pytest.raises(InputError, match="the new group holds beliefs without one"):
        optimizer.add_param_group({"params": [b]})
    for wrong, message in ([torch.ones(3)], "has shape"), ([], "0 tensors for 1 beliefs"), (math.nan, "finite number"):
        with pytest.raises(InputError, match=message):
            optimizer.add_param_group({"params": [b], "prior": wrong})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})  # real ones have no prior
    optimizer.add_param_group({"params": [b], "prior": 0.5})
    assert "prior" not in optimizer.state[b]


def test_a_compiled_step_trains_what_is_set_free_again():
    a, b = beliefs(BayesBiNN, start(3), start(2))
    optimizer = BayesBiNN([a, b], lr=0.1, dataset_size=9)
    step = torch.compile(optimizer.step, backend="eager")
    for free in (False, True):
        a.requires_grad_(free)
        a.grad, b.grad = torch.ones_like(a) if free else None, torch.ones_like(b)
        before = a.detach().clone()
        step()
        assert torch.equal(a, before) != free


def test_a_frozen_belief_stays_whatever_gradient_it_has_left():
    a, b = beliefs(BayesBiNN, start(3), start(2))
    optimizer = BayesBiNN([a, b], lr=0.1, dataset_size=9, momentum=0.9)
    for _ in range(2):
        a.grad, b.grad = torch.zeros_like(a), torch.zeros_like(b)
        before = a.detach().clone(), b.detach().clone()
        optimizer.step()
        assert torch.equal(a, before[0]) != a.requires_grad
        assert not torch.equal(b, before[1])
        a.requires_grad_(False)


@pytest.mark.parametrize("number", [2.0, 0.0])
def test_a_number_in_a_group_beside_prior_tensors_is_refused(number):
    groups = [{"params": beliefs(BayesBiNN, start(3)), "prior": number}, {"params": beliefs(BayesBiNN, start(2))}]
    with pytest.raises(InputError, match="a group has a prior of its own beside a list of tensors"):
        BayesBiNN(iter(groups), lr=0.1, dataset_size=10, prior=[torch.zeros(3), torch.zeros(2)])
    optimizer = BayesBiNN(iter(groups), lr=0.1, dataset_size=10, prior=-1.0)
    assert [group["prior"] for group in optimizer.param_groups] == [number, -1.0]
    again = BayesBiNN(optimizer.param_groups, lr=0.1, dataset_size=10, prior=[torch.zeros(3), torch.zeros(2)])
    assert [again.state[p]["prior"].shape for group in again.param_groups for p in group["params"]] == [(3,), (2,)]


def test_a_hyper_parameter_that_is_an_array_is_named_and_not_printed():
    with pytest.raises(InputError, match=r"lr=torch.float32 \(1000,\), dataset_size=9"):
        BayesBiNN(beliefs(BayesBiNN, start(3)), lr=torch.ones(1000), dataset_size=9)
