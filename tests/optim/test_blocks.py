"""Steps in blocks: the same numbers, to the last bit, as over whole tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.contracts.rule import beliefs, members
from varbnn.kernels import using_backend
from varbnn.optim import blocks

SETTINGS = [pytest.param(member, s, id=f"{member}-{i}") for member in members() for i, s in enumerate(member.settings)]
SIZE = 64  # of a block in these tests: a multiple of every vector unit's width


@pytest.fixture(autouse=True)
def in_torch():
    with using_backend("reference"):  # the compiled step needs no blocks
        yield


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "SIZE", SIZE)


def trained(member, settings, steps=12):
    torch.manual_seed(5)
    shapes = [(13, 20), (7,), (64,), (5, 3), (129,)]
    parameters = beliefs(member, *(0.3 * torch.randn(shape, dtype=torch.float64) for shape in shapes))
    optimizer = member(parameters, **settings)
    for _ in range(steps):
        for p in parameters:
            p.grad = 0.1 * torch.randn_like(p)
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("member, settings", SETTINGS)
def test_a_step_in_blocks_is_the_step_over_whole_tensors(member, settings, monkeypatch):
    whole, optimizer = trained(member, settings)
    monkeypatch.setattr(blocks, "SIZE", SIZE)
    cut, other = trained(member, settings)
    for p, q in zip(whole, cut, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)
        for name, value in optimizer.state[p].items():
            torch.testing.assert_close(value, other.state[q][name], rtol=0, atol=0)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_cover_every_weight_once_are_views_and_stay_below_their_size():
    tensors = [torch.zeros(13, 20), torch.zeros(7), torch.zeros(()), torch.zeros(0, 4), torch.zeros(64)]
    states = [{"m": torch.zeros_like(t), "weight": torch.zeros(1)} for t in tensors]
    for own, gradients, kept in blocks.blocks(tensors, [torch.ones_like(t) for t in tensors], states):
        assert sum(t.numel() for t in own) <= SIZE
        for t, g, state in zip(own, gradients, kept, strict=True):
            assert t.shape == g.shape == state["m"].shape
            assert state["weight"].shape == (1,)
            t.add_(g)
            state["m"].add_(g)
    assert all(bool((t == 1).all()) and bool((s["m"] == 1).all()) for t, s in zip(tensors, states, strict=True))


@pytest.mark.usefixtures("small_blocks")
def test_tensors_of_one_belief_stay_in_one_block():
    tensors = [torch.zeros(100), torch.ones(100), torch.zeros(3), torch.ones(3)]
    for own, _, _ in blocks.blocks(tensors, tensors, [{} for _ in tensors], together=2):
        assert len(own) % 2 == 0
        for location, precision in zip(own[::2], own[1::2], strict=True):
            assert location.shape == precision.shape
            assert not location.any()
            assert bool(precision.all())


@pytest.mark.usefixtures("small_blocks")
def test_axes_before_those_of_the_weight_stay_whole():
    location, factors = torch.zeros(10, 30), torch.arange(5.0).reshape(5, 1, 1).expand(5, 10, 30).contiguous()
    state, seen = {"m": factors.clone(), "weight": torch.zeros(1)}, 0
    for (m, z), (g, _), (_, kept) in blocks.blocks([location, factors], [location, factors], [{}, state], together=2):
        assert m.numel() + z.numel() <= 2 * SIZE
        assert z.shape == (5, *m.shape)
        assert kept["m"].shape == z.shape
        assert g.shape == m.shape
        torch.testing.assert_close(z[:, 0], torch.arange(5.0))
        m.add_(1)
        seen += m.numel()
    assert seen == 300
    assert bool((location == 1).all())


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("what", ["belief", "gradient", "state"])
def test_what_is_not_contiguous_comes_whole(what):
    plain, turned = torch.zeros(20, 30), torch.zeros(30, 20).T
    belief, gradient, state = (turned if name == what else plain for name in ("belief", "gradient", "state"))
    ((own, gradients, kept),) = blocks.blocks([belief], [gradient], [{"m": state}])
    assert own[0] is belief
    assert gradients[0] is gradient
    assert kept[0]["m"] is state


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("member, settings", SETTINGS)
def test_a_convolution_in_channels_last_steps_as_any_other(member, settings):
    results = []
    for last in (False, True):
        torch.manual_seed(2)
        parameters = beliefs(member, 0.3 * torch.randn(8, 4, 3, 3))
        marks = [p.belief for p in parameters]
        if last:
            parameters = [nn.Parameter(in_channels_last(p.detach())) for p in parameters]
            for p, mark in zip(parameters, marks, strict=True):
                p.belief = mark
        optimizer = member(parameters, **settings)
        for _ in range(5):
            for p in parameters:
                gradient = 0.1 * torch.randn(p.shape)
                p.grad = in_channels_last(gradient) if last else gradient
            optimizer.step()
        assert all(p.is_contiguous() != last for p in parameters)
        results.append([p.detach() for p in parameters])
    for plain, turned in zip(*results, strict=True):
        torch.testing.assert_close(plain, turned.contiguous(), rtol=1e-5, atol=1e-6)


def in_channels_last(tensor):
    """Of axes before those of the weight, torch knows nothing."""
    return tensor.flatten(0, -4).contiguous(memory_format=torch.channels_last).view_as(tensor)


@pytest.mark.usefixtures("small_blocks")
def test_a_convolution_in_channels_last_comes_in_blocks_too():
    kernels, factors = in_channels_last(torch.randn(8, 4, 3, 3)), in_channels_last(torch.randn(2, 8, 4, 3, 3))
    pair = [nn.Parameter(kernels), nn.Parameter(factors)]
    for p in pair:
        p.grad = torch.ones_like(p)
    count = torch.zeros(1)
    states = [{"m": torch.zeros_like(p), "weight": count} for p in pair]
    turned = blocks.in_memory_order(pair, states, together=2)
    pieces = 0
    with torch.no_grad():
        for (own, own_factors), gradients, kept in blocks.blocks(*turned, together=2):
            assert own_factors.shape == (2, *own.shape)
            assert kept[0]["weight"] is count
            for p, g, state in zip((own, own_factors), gradients, kept, strict=True):
                p.copy_(g)
                state["m"].sub_(g)
            pieces += 1
    assert pieces > 1
    assert all(bool((p == 1).all()) and bool((s["m"] == -1).all()) for p, s in zip(pair, states, strict=True))
