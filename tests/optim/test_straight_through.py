"""What is particular to StraightThrough: it is torch's Adam and SGD on the latents, then a box."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.contracts.rule import beliefs, close
from varbnn.errors import InputError
from varbnn.optim import StraightThrough
from varbnn.optim.filters import HeavyBall
from varbnn.optim.parts import OneOf

CASES = [
    (dict(base="adam", lr=0.03), torch.optim.Adam, dict(lr=0.03)),
    (
        dict(base="adam", lr=0.03, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.2, maximize=True),
        torch.optim.Adam,
        dict(lr=0.03, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.2, maximize=True),
    ),
    (dict(base="sgd", lr=0.05), torch.optim.SGD, dict(lr=0.05)),
    (
        dict(base="sgd", lr=0.05, momentum=0.9, weight_decay=0.1, maximize=True),
        torch.optim.SGD,
        dict(lr=0.05, momentum=0.9, weight_decay=0.1, maximize=True),
    ),
]


@pytest.mark.parametrize("clip", [None, 0.6])
@pytest.mark.parametrize("settings, torchs, theirs", CASES, ids=["adam", "adam decay", "sgd", "sgd momentum decay"])
def test_equals_torchs_optimizer_followed_by_clamp(settings, torchs, theirs, clip):
    value = torch.randn(5, 3, dtype=torch.float64).clamp(-0.6, 0.6)
    (latent,), other = beliefs(StraightThrough, value), nn.Parameter(value.clone())
    ours, reference = StraightThrough([latent], clip=clip, **settings), torchs([other], **theirs)
    for _ in range(200):
        latent.grad = torch.randn_like(latent) + 0.3 * latent.detach()
        other.grad = latent.grad.clone()
        ours.step()
        reference.step()
        with torch.no_grad():
            other.clamp_(*((-math.inf, math.inf) if clip is None else (-clip, clip)))
            close(latent, other.numpy(), "latent")
            latent.copy_(other)  # differences of rounding are not to add up through the feedback


def test_the_shortcut_without_momentum_equals_the_general_path():
    class Remembering(HeavyBall):
        def is_identity(self, group, states):
            return False

    class General(StraightThrough):
        filter = OneOf("base", {"sgd": Remembering()})

    value = torch.randn(20, dtype=torch.float64)
    (p,), (q,) = beliefs(StraightThrough, value), beliefs(StraightThrough, value)
    settings = dict(lr=0.1, base="sgd", weight_decay=0.3)
    short, general = StraightThrough([p], **settings), General([q], **settings)
    for _ in range(200):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
        short.step()
        general.step()
        close(p, q.detach().numpy(), "latent")
    assert not short.state[p]


def test_the_clip_is_the_last_word():
    (p,) = beliefs(StraightThrough, torch.tensor([3.0, -3.0, 0.1]))
    p.grad = torch.zeros(3)
    StraightThrough([p], lr=0.1, clip=1.0).step()
    assert p.tolist() == [1.0, -1.0, pytest.approx(0.1)]


BAD = [
    ("base", "rmsprop", r"base must be one of \('adam', 'sgd'\)"),
    ("betas", (0.9, 1.0), "betas must be two numbers"),
    ("betas", (0.9,), "betas must be two numbers"),
    ("betas", (0.9, 0.9, 0.9), "betas must be two numbers"),
    ("eps", 0.0, "eps must be positive"),
    ("momentum", 1.0, "momentum must be in"),
    ("weight_decay", -0.1, "weight_decay must be"),
    ("weight_decay", math.nan, "weight_decay must be"),
    ("weight_decay", math.inf, "weight_decay must be finite and ≥ 0"),
    ("momentum", 0.9, "momentum must be 0 with base='adam'"),
    ("dampening", 0.5, "dampening must be 0 with base='adam'"),
    ("clip", 0.0, "clip must be positive or None"),
    ("clip", math.nan, "clip must be positive or None"),
]


def test_a_group_by_adam_has_none_of_the_momentum_that_the_others_are_given():
    a, b = beliefs(StraightThrough, torch.zeros(3), torch.zeros(2))
    groups = [{"params": [a], "base": "adam"}, {"params": [b]}]
    optimizer = StraightThrough(groups, lr=0.1, base="sgd", momentum=0.9, dampening=0.5)
    assert [(g["momentum"], g["dampening"]) for g in optimizer.param_groups] == [(0.0, 0.0), (0.9, 0.5)]
    with pytest.raises(InputError, match="momentum must be 0"):
        StraightThrough([{"params": [a], "base": "adam", "momentum": 0.9}], base="sgd")


@pytest.mark.parametrize("key, value, message", BAD)
def test_a_hyper_parameter_out_of_range_is_refused_at_construction_in_a_group_and_at_the_step(key, value, message):
    (p,) = beliefs(StraightThrough, torch.zeros(3))
    with pytest.raises(InputError, match=message):
        StraightThrough([p], **{key: value})
    with pytest.raises(InputError, match=message):
        StraightThrough([{"params": [p], key: value}])
    optimizer = StraightThrough([p])
    optimizer.param_groups[0][key] = value
    p.grad = torch.ones(3)
    with pytest.raises(InputError, match=message):
        optimizer.step()
    assert torch.equal(p, torch.zeros(3))
    assert not optimizer.state
