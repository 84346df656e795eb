"""The compiled step agrees with the parts in torch, on every instruction set that this machine has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn

import varbnn as vb
from varbnn.kernels import native, steps
from varbnn.kernels.backend import REFERENCE, usable_backends, using_backend
from varbnn.kernels.steps import COMBINED
from varbnn.optim import (
    VISPA,
    BayesBiNN,
    BiMU,
    Bop,
    Bop2ndOrder,
    FollowingPrior,
    GaussianBLR,
    GradientFilter,
    Metaplastic,
    Rule,
    StraightThrough,
    WindowedBayes,
)
from varbnn.optim.leaks import VarianceLeak
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point, Posterior

LEVELS = [name for name in usable_backends() if name != REFERENCE]
pytestmark = pytest.mark.skipif(not LEVELS, reason=f"no compiled kernels: {native.problem()}")

BAYES = {"lr": 0.02, "dataset_size": 100, "temperature": 0.5}
RULES: dict[str, tuple[Posterior, type[Rule], dict[str, Any]]] = {
    "adam": (Point(), StraightThrough, {"lr": 0.01}),
    "adam, coupled decay": (Point(), StraightThrough, {"lr": 0.01, "weight_decay": 0.1}),
    "adam, decoupled decay": (
        Point(),
        StraightThrough,
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "sgd, dampened": (Point(), StraightThrough, {"base": "sgd", "lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "sgd, plain": (Point(), StraightThrough, {"base": "sgd", "lr": 0.1, "weight_decay": 0.1, "clip": None}),
    "clipped": (Point(), StraightThrough, {"lr": 0.2, "clip": 0.5}),
    "bop": (Point(), Bop, {"gamma": 0.1, "threshold": 0.05}),
    "bop, larq": (Point(), Bop, {"gamma": 0.1, "threshold": 0.05, "ties": "larq"}),
    "second order": (Point(), Bop2ndOrder, {"gamma": 0.1, "sigma": 0.2, "threshold": 0.5}),
    "released": (
        Point(),
        Bop2ndOrder,
        {"gamma": 0.1, "sigma": 0.2, "threshold": 3.0, "bias_correction": "released"},
    ),
    "corrected": (Point(), Bop2ndOrder, {"gamma": 0.1, "sigma": 0.2, "threshold": 0.5, "bias_correction": "adam"}),
    "filter": (Point(), GradientFilter, {"gamma": 0.3, "alpha": 0.2}),
    "bayesbinn": (Bernoulli(), BayesBiNN, BAYES),
    "bayesbinn, prior": (Bernoulli(), BayesBiNN, {**BAYES, "prior": 0.3}),
    "bayesbinn, momentum": (Bernoulli(), BayesBiNN, {**BAYES, "momentum": 0.9, "prior": 0.3}),
    "window": (Bernoulli(), WindowedBayes, {"lr": 0.1, "window": 300, "batch_size": 5, "decay": "plain"}),
    "window, prior": (
        Bernoulli(),
        WindowedBayes,
        {"lr": 0.1, "window": 300, "batch_size": 5, "decay": "plain", "prior": 0.3},
    ),
    "ascent": (Bernoulli(), BayesBiNN, {**BAYES, "maximize": True}),
    "fixed": (Gaussian(), GaussianBLR, {**BAYES, "prior_precision": 2.0}),
    "learned": (Gaussian(form="learned"), GaussianBLR, {**BAYES, "prior": 0.2}),
    "learned, momentum": (Gaussian(form="learned"), GaussianBLR, {**BAYES, "momentum": 0.8}),
    "natural": (Gaussian(form="natural"), GaussianBLR, BAYES),
    "natural, momentum": (Gaussian(form="natural"), GaussianBLR, {**BAYES, "momentum": 0.8}),
    "vispa": (LowRankGaussian(rank=3), VISPA, {"lr": 0.1, "weight_decay": 0.1}),
    "vispa, plain": (LowRankGaussian(rank=3), VISPA, {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.1}),
    "vispa, dampened": (LowRankGaussian(rank=3), VISPA, {"lr": 0.1, "dampening": 0.9, "factor_lr_scale": 0.5}),
    "vispa, unit": (LowRankGaussian(rank=3, constraint="unit"), VISPA, {"lr": 0.1}),
    "variance": (Bernoulli(), WindowedBayes, {"lr": 0.5, "window": 300, "batch_size": 50}),
    "variance, prior": (Bernoulli(), WindowedBayes, {"lr": 0.5, "window": 300, "batch_size": 50, "prior": 0.7}),
    "following": (Bernoulli(), FollowingPrior, {"lr": 0.5, "window": 300, "settling": 200, "batch_size": 50}),
    "bimu": (
        Bernoulli(gradient="euclidean"),
        BiMU,
        {
            "lr": 4.9,
            "likelihood_multiplier": 161.3,
            "kl_multiplier": 3.76,
            "lr_max": 0.3,
            "memory": 70,
            "batch_size": 5,
        },
    ),
    "metaplastic": (Point(), Metaplastic, {"lr": 0.05}),
    "metaplastic, decay": (Point(), Metaplastic, {"lr": 0.05, "metaplasticity": 3.0, "weight_decay": 0.1}),
    "natural, prior": (Gaussian(form="natural"), GaussianBLR, {**BAYES, "prior": 0.5, "prior_precision": 4.0}),
}


def trained(name: str, backend: str, shape: tuple[int, int] = (7, 33), prior: bool = False) -> list[Tensor]:
    """Beliefs and states after 12 steps, in a row."""
    torch.manual_seed(0)
    posterior, rule, settings = RULES[name]
    layer = vb.binarize(nn.Linear(*shape, bias=False), posterior)
    parameters = list(layer.parameters())
    if prior:
        settings = {**settings, "prior": [0.1 + torch.rand_like(p) for p in parameters]}
    optimizer = rule(parameters, **settings)
    with using_backend(backend):
        for _ in range(12):
            for p in parameters:
                p.grad = 0.1 * torch.randn_like(p)
            optimizer.step()
    states = [t for p in parameters for _, t in sorted(optimizer.state[p].items())]
    return [t.detach().clone() for t in (*parameters, *states)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", RULES)
def test_every_rule_steps_as_in_torch(name: str, level: str) -> None:
    for fast, slow in zip(trained(name, level), trained(name, REFERENCE), strict=True):
        torch.testing.assert_close(fast, slow, rtol=2e-5, atol=2e-6 * float(slow.abs().max()))


@pytest.mark.parametrize(
    "name",
    ["bayesbinn", "bayesbinn, momentum", "window", "variance", "following", "fixed", "learned", "natural, prior"],
)
def test_a_prior_for_every_weight(name: str) -> None:
    for fast, slow in zip(trained(name, LEVELS[-1], prior=True), trained(name, REFERENCE, prior=True), strict=True):
        torch.testing.assert_close(fast, slow, rtol=2e-5, atol=2e-6 * float(slow.abs().max()))


@pytest.mark.parametrize("name", RULES)
def test_levels_and_threads_give_the_same_bits(name: str) -> None:
    shape = (401, 400)  # more than two parts for the threads, and a tail
    first = trained(name, LEVELS[0], shape)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        others = [trained(name, level, shape) for level in LEVELS]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_a_convolution_in_channels_last_takes_the_compiled_step(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(steps, "step", lambda how, memory: taken.append(memory))
    layer = vb.binarize(nn.Conv2d(4, 8, 3, bias=False).to(memory_format=torch.channels_last), Point())
    (belief,) = layer.parameters()
    layer(torch.randn(2, 4, 8, 8)).square().sum().backward()
    assert belief.grad is not None
    assert not belief.is_contiguous()
    StraightThrough([belief], lr=0.1).step()
    (memory,) = taken
    for tensor in memory.tensors():
        assert tensor.is_contiguous()
    assert memory.belief.data_ptr() == belief.data_ptr()
    assert memory.gradient.data_ptr() == belief.grad.data_ptr()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_found_in_every_layout(value: float) -> None:
    for spread in (torch.zeros(3, 4, 5, 6).to(memory_format=torch.channels_last), torch.zeros(9, 7).T):
        assert steps.all_finite(spread) is True
        spread[2, 1] = value
        assert steps.all_finite(spread) is False


@pytest.mark.parametrize("ties", ["keep", "larq"])
def test_ties_and_odd_latents(ties: str) -> None:
    # gamma 1/2 and these numbers are exact in float32: evidence is 0.5, the threshold is met exactly
    latents = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0, -0.0, -0.3, math.nan, math.inf])
    gradients = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0, 2.0, -4.0, 1.0, 4.0])
    results = []
    for backend in [*LEVELS, REFERENCE]:
        layer = vb.binarize(nn.Linear(9, 1, bias=False), Point())
        (belief,) = layer.parameters()
        with torch.no_grad():
            belief.copy_(latents)
        optimizer = Bop([belief], gamma=0.5, threshold=0.5, ties=ties)
        belief.grad = gradients.clone().reshape(1, -1)
        with using_backend(backend):
            optimizer.step()
        results.append(belief.detach().clone())
    for result in results:
        torch.testing.assert_close(result, results[-1], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_the_pull_to_a_coin_is_accurate_everywhere(level: str, prior: float) -> None:
    sizes = np.concatenate([np.geomspace(1e-20, 1.0, 3000), np.linspace(0.9, 17, 4000), np.geomspace(15, 1e6, 3000)])
    exact = np.concatenate([sizes, -sizes]).astype(np.float32)
    belief, pull = torch.from_numpy(exact.copy()), torch.zeros(len(exact))
    # an average of rate 1 keeps the pull itself, and lr 0 moves nothing
    how = steps.settings("average", "coin", "descend", rate=1.0, strength=1.0, prior=prior)
    with using_backend(level):
        steps.step(how, steps.Memory(belief, torch.zeros_like(belief), (pull,)))
    u = exact.astype(np.float64)
    a = np.abs(u)
    window = special.ndtr(a) * special.erfcx(a / math.sqrt(2)) * math.sqrt(2 * math.pi)
    expected = window * (log_odds(u) - log_odds(np.array([prior]))) / 2
    # where both log-odds cancel, what remains of their rounding counts
    allowed = 1e-6 * np.abs(expected) + 1e-6 * window * abs(log_odds(np.array([prior])))
    assert np.all(np.abs(pull.numpy() - expected) <= allowed)


def log_odds(u: np.ndarray) -> np.ndarray:
    a = np.abs(u)
    tail = special.erfcx(a / math.sqrt(2)) / 2
    far = np.log1p(-tail * np.exp(-(a**2) / 2)) - np.log(tail) + a**2 / 2
    near = 2 * np.arctanh(special.erf(np.minimum(a, 1.0) / math.sqrt(2)))
    return np.copysign(np.where(a < 1, near, far), u)


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    layer = vb.binarize(nn.Linear(40, 30, bias=False), Bernoulli())
    optimizer = BayesBiNN(layer.parameters(), **BAYES)
    (belief,) = layer.parameters()
    loss = (belief * belief).sum()
    belief.grad = torch.ones_like(belief)
    with using_backend(LEVELS[-1]):
        optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", ["strided gradient", "float64", "bfloat16"])
def test_other_tensors_take_the_path_through_torch(kind: str) -> None:
    dtype = {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(kind, torch.float32)
    torch.manual_seed(1)
    start, gradient = torch.randn(6, 5), torch.randn(5, 6).T
    results = []
    for backend in (LEVELS[-1], REFERENCE):
        layer = vb.binarize(nn.Linear(5, 6, bias=False), Bernoulli())
        (belief,) = layer.parameters()
        belief.data = start.to(dtype, copy=True)
        belief.grad = gradient.to(dtype) if kind == "strided gradient" else gradient.to(dtype).contiguous()
        optimizer = BayesBiNN([belief], **BAYES)
        with using_backend(backend):
            optimizer.step()
        results.append(belief.detach().clone())
    assert torch.equal(*results)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_entry_anywhere_is_found(level: str, value: float) -> None:
    with using_backend(level):
        for count in (1, 3, 67, 200_000):
            tensor = torch.full((count,), 3e38)
            assert steps.all_finite(tensor)
            for place in {0, count // 4, count // 2, 3 * count // 4, count - 1}:
                tensor[place] = value
                assert steps.all_finite(tensor) is False
                tensor[place] = -3e38
        assert steps.all_finite(tensor.double()) is None


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"vispa, unit", "vispa, dampened"}))
def test_the_step_is_a_compiled_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above compare torch with itself."""
    taken: list[str] = []
    for function in ("step", "step_pair"):
        real = getattr(steps, function)
        monkeypatch.setattr(steps, function, lambda *given, real=real: (taken.append("compiled"), real(*given)))
    trained(name, LEVELS[-1])
    assert len(taken) >= 12


def test_parts_that_the_library_knows_with_others_only_take_the_path_through_torch() -> None:
    class Slow(Bop):
        forgetting = VarianceLeak()

    steps_of = {}
    for backend in (LEVELS[-1], REFERENCE):
        layer = vb.binarize(nn.Linear(5, 6, bias=False), Point())
        (belief,) = layer.parameters()
        belief.grad = torch.linspace(-1, 1, 30).reshape(6, 5)
        belief.data = torch.linspace(-2, 2, 30).reshape(6, 5)
        optimizer = Slow([belief], gamma=1.0, threshold=0.0)
        optimizer.param_groups[0].update(batch_size=50, window=300, prior=0.5)
        with using_backend(backend):
            optimizer.step()
        steps_of[backend] = belief.detach().clone()
    assert torch.equal(*steps_of.values())


def test_every_choice_of_the_library_is_one_that_a_rule_makes() -> None:
    known = {name for choices in COMBINED.values() for name in choices}
    assert all(f in steps.FILTERS and p in steps.PULLS and d in steps.DECISIONS for f, p, d in known)
    assert not steps.combine("average", "variance", "descend")
    assert not steps.combine("identity", "none", "wary")
    assert not steps.combine("identity", "paced", "descend")
    assert steps.combine("average", "coupled", "flip")


@pytest.mark.parametrize("level", LEVELS)
def test_saturated_beliefs_step_as_in_torch(level: str) -> None:
    """Far out e^(-2 |λ|) underflows: the paces must end where those of torch do."""
    start = torch.cat([torch.logspace(-30, 3, 500), -torch.logspace(-30, 3, 500), torch.zeros(3)])
    for name in ("variance", "following", "bimu", "metaplastic"):
        posterior, rule, settings = RULES[name]
        found = []
        for backend in (level, REFERENCE):
            layer = vb.binarize(nn.Linear(len(start), 1, bias=False), posterior)
            (belief,) = layer.parameters()
            optimizer = rule([belief], **settings)
            with using_backend(backend):
                for sign in (1.0, -1.0):
                    belief.data = start.clone().reshape(1, -1)
                    belief.grad = torch.full_like(belief, 1e-3 * sign)
                    optimizer.step()
            found.append(belief.detach().clone())
        torch.testing.assert_close(*found, rtol=2e-5, atol=1e-30)


def test_a_part_without_a_compiled_form_still_steps() -> None:
    class Doubled(Bop):
        class filter(type(Bop.filter)):  # type: ignore[misc, name-defined]
            def compiled(self, state: Any, group: Any) -> None:
                return None

        filter = filter()

    torch.manual_seed(0)
    layer = vb.binarize(nn.Linear(5, 6, bias=False), Point())
    (belief,) = layer.parameters()
    belief.grad = torch.randn_like(belief)
    before = belief.detach().clone()
    Doubled([belief], gamma=1.0, threshold=0.0).step()
    assert not torch.equal(belief, before)
    assert set(belief.detach().unique().tolist()) <= {-1.0, 1.0}
