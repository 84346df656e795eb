"""Beliefs in half precision: state and arithmetic stay float32."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from tests.contracts.rule import beliefs, members
from varbnn.optim import BayesBiNN
from varbnn.posteriors import Bernoulli, mark_belief

SETTINGS = [pytest.param(member, s, id=f"{member}-{i}") for member in members() for i, s in enumerate(member.settings)]
halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def made(member, settings, dtype):
    torch.manual_seed(6)
    parameters = [p.to(dtype) for p in (torch.randn(4, 3), torch.randn(5))]
    marked = beliefs(member, *parameters)
    return marked, member(marked, **settings)


def steps(parameters, optimizer, count, seed=7):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in parameters:
            p.grad = (0.1 * torch.randn(p.shape, generator=generator)).to(p.dtype)
        optimizer.step()


@halves
@pytest.mark.parametrize("member, settings", SETTINGS)
def test_state_is_float32_and_every_step_is_the_float32_step_rounded(member, settings, dtype):
    parameters, optimizer = made(member, settings, dtype)
    for t in range(20):
        wide, other = made(member, settings, torch.float32)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        with torch.no_grad():
            for p, q in zip(parameters, wide, strict=True):
                q.copy_(p)
        steps(parameters, optimizer, 1, seed=t)
        for p, q in zip(parameters, wide, strict=True):
            q.grad = p.grad.float()
        other.step()
        for p, q in zip(parameters, wide, strict=True):
            assert torch.equal(p, q.to(dtype))
            assert all(value.dtype == torch.float32 for value in optimizer.state[p].values())
            assert bool(torch.isfinite(p).all())


@pytest.mark.parametrize("member, settings", SETTINGS)
def test_resuming_keeps_the_float32_state(member, settings):
    parameters, optimizer = made(member, settings, torch.bfloat16)
    steps(parameters, optimizer, 5)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), [p.data for p in parameters]), file)
    steps(parameters, optimizer, 5, seed=8)
    file.seek(0)
    state, values = torch.load(file, weights_only=True)
    again, resumed = made(member, settings, torch.bfloat16)
    with torch.no_grad():
        for p, value in zip(again, values, strict=True):
            p.copy_(value)
    resumed.load_state_dict(state)
    steps(again, resumed, 5, seed=8)
    assert all(torch.equal(p, q) for p, q in zip(parameters, again, strict=True))
    assert all(v.dtype == torch.float32 for p in again for v in resumed.state[p].values())


def real_parameter(dtype):
    torch.manual_seed(8)
    parameter, belief = torch.nn.Parameter(torch.randn(4).to(dtype)), torch.nn.Parameter(torch.zeros(3), False)
    mark_belief(belief, Bernoulli(), "natural")
    return parameter, BayesBiNN([belief, parameter], lr=0.1, dataset_size=8, real_weight_decay=0.1)


def real_steps(parameter, optimizer, count):
    generator = torch.Generator().manual_seed(9)
    for _ in range(count):
        parameter.grad = (1e-3 * torch.randn(4, generator=generator)).to(parameter.dtype)
        optimizer.step()


@halves
def test_real_parameters_take_the_float32_step_of_adamw_rounded(dtype):
    parameter, optimizer = real_parameter(dtype)
    theirs = torch.nn.Parameter(parameter.detach().float())
    adamw = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    generator = torch.Generator().manual_seed(10)
    for _ in range(20):
        with torch.no_grad():
            theirs.copy_(parameter)
        # float16 could hold neither the square of this gradient nor eps
        parameter.grad = (1e-4 * torch.randn(4, generator=generator)).to(dtype)
        theirs.grad = parameter.grad.float()
        optimizer.step()
        adamw.step()
        assert torch.equal(parameter, theirs.to(dtype))
        assert all(value.dtype == torch.float32 for value in optimizer.state[parameter].values())


@halves
@pytest.mark.parametrize("saved_as", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_state_of_another_precision_goes_on_in_float32(dtype, saved_as):
    other, first = real_parameter(saved_as)
    real_steps(other, first, 5)
    state = first.state_dict()
    parameter, optimizer = real_parameter(dtype)
    optimizer.load_state_dict(state)
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(optimizer.state[parameter][name], first.state[other][name].float())
        assert optimizer.state[parameter][name].dtype == torch.float32
    real_steps(parameter, optimizer, 1)
    assert bool(parameter.isfinite().all())
    assert optimizer.state[parameter]["step"] == 6


@pytest.mark.parametrize("member, settings", SETTINGS)
def test_what_a_hook_makes_of_a_state_is_restored_in_float32(member, settings):
    parameters, optimizer = made(member, settings, torch.bfloat16)
    steps(parameters, optimizer, 3)
    own = optimizer.state_dict()

    def halved(_, state):
        return {**state, "state": {i: {k: v / 3 for k, v in s.items()} for i, s in state["state"].items()}}

    again, resumed = made(member, settings, torch.bfloat16)
    resumed.register_load_state_dict_pre_hook(halved)
    resumed.load_state_dict(own)
    for index, p in enumerate(again):
        for name, value in own["state"].get(index, {}).items():
            assert torch.equal(resumed.state[p][name], value / 3)
