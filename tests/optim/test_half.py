"""Beliefs in half precision: state and arithmetic stay float32."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from tests.contracts.rule import beliefs, members

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
