"""Ties and starts of the rules that flip: what happens at w m = threshold exactly, weight by weight."""

from __future__ import annotations

import math

import pytest
import torch

from tests.contracts.rule import beliefs
from varbnn.errors import InputError
from varbnn.optim import Bop, Bop2ndOrder, GradientFilter

STARTS = torch.tensor([1.0, -1.0, 0.0, -0.0, 0.25, -0.25], dtype=torch.float64)


def after_one_step(rule, gradient, starts=STARTS, **settings):
    (p,) = beliefs(rule, starts)
    p.grad = torch.full_like(p, gradient)
    optimizer = rule([p], **settings)
    optimizer.step()
    return p.tolist()


# gamma is 1, so that the average is the gradient and a tie can be hit to the bit
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_at_a_tie_keep_leaves_every_weight_and_larq_makes_it_plus_one(threshold):
    for gradient in {threshold, -threshold}:
        kept = after_one_step(Bop, gradient, gamma=1.0, threshold=threshold)
        assert kept == [1, -1, 1, 1, 1, -1]
        released = after_one_step(Bop, gradient, gamma=1.0, threshold=threshold, ties="larq")
        against = [w * gradient for w in kept]  # only where w m = threshold is there a tie; else the weight is safe
        assert released == [1.0 if a == threshold else w for a, w in zip(against, kept, strict=True)]


@pytest.mark.parametrize("ties", ["keep", "larq"])
@pytest.mark.parametrize("rule", [Bop, Bop2ndOrder])
def test_past_the_threshold_a_weight_flips_and_short_of_it_it_stays(rule, ties):
    more = dict(sigma=1.0) if rule is Bop2ndOrder else {}
    # of Bop2ndOrder z = ±1 after one step with γ = σ = 1, up to its 1e-10
    flips = dict(gamma=1.0, threshold=0.5, ties=ties, **more)
    assert after_one_step(rule, 1.0, **flips) == [-1, -1, -1, -1, -1, -1]
    assert after_one_step(rule, -1.0, **flips) == [1, 1, 1, 1, 1, 1]
    stays = dict(gamma=1.0, threshold=1.5, ties=ties, **more)
    assert after_one_step(rule, 1.0, **stays) == after_one_step(rule, -1.0, **stays) == [1, -1, 1, 1, 1, -1]


def test_one_step_of_the_next_number_past_the_threshold_flips():
    threshold = 1e-8
    past = math.nextafter(threshold, 1)
    assert after_one_step(Bop, past, gamma=1.0, threshold=threshold)[:2] == [-1, -1]
    assert after_one_step(Bop, -past, gamma=1.0, threshold=threshold)[:2] == [1, 1]


@pytest.mark.parametrize("rule", [Bop, Bop2ndOrder, GradientFilter])
def test_a_weight_that_never_has_a_gradient_keeps_its_sign(rule):
    (p,) = beliefs(rule, STARTS)
    optimizer = rule([p])
    for _ in range(50):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    assert p.tolist() == [1, -1, 1, 1, 1, -1]


def test_with_ties_as_larq_has_them_and_no_threshold_it_becomes_plus_one():
    assert after_one_step(Bop, 0.0, threshold=0.0, ties="larq") == [1, 1, 1, 1, 1, 1]


def test_the_first_step_of_the_filter_forgets_the_start_unless_its_state_is_set():
    assert after_one_step(GradientFilter, 1e-30) == [-1, -1, -1, -1, -1, -1]
    (p,) = beliefs(GradientFilter, STARTS)
    optimizer = GradientFilter([p], alpha=0.5, gamma=1.0)
    optimizer.set_state("slow", [-STARTS])
    p.grad = torch.full_like(p, 0.5)
    optimizer.step()
    assert p.tolist() == [1, -1, -1, -1, -1, -1]  # m = (g - start) / 2


def test_state_that_does_not_fit_is_refused_and_nothing_is_set():
    parameters = beliefs(GradientFilter, torch.ones(2), torch.ones(3))
    optimizer = GradientFilter(parameters)
    for name, values, message in (
        ("exp_avg", [torch.zeros(2), torch.zeros(3)], "no state 'exp_avg'; it keeps fast, slow"),
        ("slow", [torch.zeros(2)], "1 tensors for 2 beliefs"),
        ("slow", [torch.zeros(2), torch.zeros(4)], r"shape \(4,\), its belief \(3,\)"),
        ("slow", [torch.zeros(2), torch.full((3,), math.nan)], "NaN or infinite"),
    ):
        with pytest.raises(InputError, match=message):
            optimizer.set_state(name, values)
        assert not optimizer.state


@pytest.mark.parametrize(
    "rule, key, value",
    [
        (Bop, "gamma", 0.0),
        (Bop, "gamma", 1.5),
        (Bop, "threshold", -1e-8),
        (Bop, "threshold", math.nan),
        (Bop, "ties", "flip"),
        (Bop, "lr", 1e5),
        (Bop2ndOrder, "sigma", 0.0),
        (Bop2ndOrder, "sigma", math.nan),
        (Bop2ndOrder, "bias_correction", "unbiased"),
        (GradientFilter, "alpha", 0.0),
        (GradientFilter, "alpha", 1.1),
        (GradientFilter, "gamma", -0.1),
    ],
)
def test_a_hyper_parameter_out_of_range_is_refused_at_construction_and_at_the_step(rule, key, value):
    with pytest.raises(InputError, match=rf"{key} must be .*got"):
        rule(beliefs(rule, torch.ones(2)), **{key: value})
    (p,) = beliefs(rule, torch.ones(2))
    optimizer = rule([p])
    optimizer.param_groups[0][key] = value
    p.grad = torch.ones(2)
    with pytest.raises(InputError, match=rf"{key} must be .*got"):
        optimizer.step()
    assert p.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("correction", [None, "adam", "released"])
def test_steps_at_lr_0_flip_nothing_and_leave_the_next_as_if_they_had_not_been(correction, dtype):
    """A warm-up begins there, and so do tools that take a state out of a fresh optimizer."""
    starts = STARTS[:2].to(dtype).repeat(40)
    (warm,), (cold,) = beliefs(Bop2ndOrder, starts), beliefs(Bop2ndOrder, starts)
    settings = dict(gamma=0.1, sigma=1.0, threshold=0.0, bias_correction=correction)  # σ = 1 remembers one gradient
    optimizers = [Bop2ndOrder([p], **settings) for p in (warm, cold)]
    for p in (warm, cold):
        p.grad = torch.randn(80, generator=torch.Generator().manual_seed(0)).to(dtype)
    optimizers[0].param_groups[0]["lr"] = 0.0
    optimizers[0].step()
    optimizers[0].step()
    assert torch.equal(warm, starts)
    optimizers[0].param_groups[0]["lr"] = 1.0
    for optimizer in optimizers:
        optimizer.step()
    assert torch.equal(warm, cold)
    assert not torch.equal(cold, starts)
