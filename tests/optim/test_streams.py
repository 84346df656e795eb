"""The rules for streams: BiMU as coded, its limits one by one, the leak, and latents that resist.

The limits are those in which BiMU turns into another rule; each test says which constants go where.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.contracts.rule import beliefs
from tests.oracles import bimu as coded
from varbnn.errors import InputError
from varbnn.optim import BayesBiNN, BiMU, Metaplastic, StraightThrough, WindowedBayes
from varbnn.optim.paces import Consolidating, Wary
from varbnn.posteriors import Bernoulli, Point, mark_belief

EUCLIDEAN = Bernoulli(**coded.EUCLIDEAN)
PUBLISHED = dict(lr=4.9, likelihood_multiplier=161.3, kl_multiplier=3.76, lr_max=0.0023, memory=700)
WIDE = torch.linspace(-15, 15, 61, dtype=torch.float64)


def believed(*values, posterior=EUCLIDEAN):
    """Parameters marked as beliefs."""
    marked = [nn.Parameter(torch.as_tensor(value, dtype=torch.float64).clone()) for value in values]
    for p in marked:
        mark_belief(p, posterior, posterior.names[0])
    return marked


def variance(natural):
    return torch.cosh(natural.detach()) ** -2


# --- BiMU as coded ---


@pytest.mark.parametrize(
    "settings",
    [
        PUBLISHED,
        {**PUBLISHED, "batch_size": 50},
        dict(lr=0.5, likelihood_multiplier=2.0, kl_multiplier=1.5, lr_max=30.0, memory=90),
    ],
    ids=["published", "published, batches of 50", "hardly damped"],
)
def test_bimu_follows_its_code_over_200_steps_far_out_and_through_steps_without_gradient(settings):
    first, second = believed(WIDE, 0.1 * WIDE[:7])
    optimizer = BiMU([first, second], **settings)
    arrays = [p.detach().numpy().copy() for p in (first, second)]
    group = {"batch_size": 1, **settings, "maximize": False}
    rng = np.random.default_rng(0)
    for t in range(200):
        gradients = [rng.normal(size=a.shape) * 10.0 ** rng.uniform(-6, 0) * (t % 7 != 3) for a in arrays]
        before = [p.detach().clone() for p in (first, second)]
        for i, (p, gradient) in enumerate(zip((first, second), gradients, strict=True)):
            p.grad = torch.from_numpy(gradient)
            arrays[i] = coded.step(arrays[i], gradient, {}, **group)
        optimizer.step()
        for p, start, array in zip((first, second), before, arrays, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), array, rtol=1e-12, atol=1e-12, err_msg=f"step {t}")
            assert torch.equal(p, start) == (t % 7 == 3)


def test_bimu_forgets_nothing_only_where_every_gradient_of_every_group_is_zero():
    first, second = believed([1.0, -2.0], [0.5])
    optimizer = BiMU([{"params": [first]}, {"params": [second]}], **PUBLISHED)
    first.grad, second.grad = torch.zeros_like(first), torch.zeros_like(second)
    optimizer.step()
    assert first.tolist() == [1.0, -2.0]
    second.grad.fill_(1e-30)
    optimizer.step()
    assert bool((first.detach().abs() < torch.tensor([1.0, 2.0])).all())


def test_a_mean_over_a_batch_is_a_step_on_the_sum_that_forgets_as_its_examples_would():
    # without the |g| terms, B equal examples in one step are B steps of one example, to first order
    one, many = believed([0.7, -0.3], [0.7, -0.3])
    settings = dict(lr=1e6, likelihood_multiplier=1.0, kl_multiplier=1.0, lr_max=1e-9, memory=2e-5)
    gradient = torch.tensor([1e-2, 2e-2], dtype=torch.float64)
    single, batched = BiMU([one], **settings), BiMU([many], **settings, batch_size=20)
    one.grad = many.grad = gradient
    for _ in range(20):
        single.step()
    batched.step()
    moved = [p.detach() - torch.tensor([0.7, -0.3], dtype=torch.float64) for p in (one, many)]
    torch.testing.assert_close(*moved, rtol=1e-3, atol=0)


# --- what it turns into ---


def test_without_damping_and_with_small_gradients_bimu_is_a_natural_step_with_a_plain_leak():
    # E1: lr_max to infinity, L |g| far below K s. Then the step is lr L / K in the natural gradient, the leak 1 / N.
    settings = dict(lr=2e8, likelihood_multiplier=1e-9, kl_multiplier=4.0, lr_max=1e14, memory=300)
    (ours,) = believed(WIDE[20:41])  # |λ| up to 5
    (theirs,) = believed(WIDE[20:41], posterior=Bernoulli())
    optimizer = BiMU([ours], **settings, batch_size=3)
    other = WindowedBayes([theirs], lr=2e8 * 1e-9 / 4.0, window=300, batch_size=3, decay="plain")
    rng = np.random.default_rng(1)
    for t in range(200):
        natural = torch.from_numpy(rng.normal(size=21))
        ours.grad, theirs.grad = natural * variance(ours), natural
        optimizer.step()
        other.step()
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-6, atol=1e-6, msg=lambda m, t=t: f"{t}: {m}")


def test_damped_far_enough_bimu_is_gradient_descent_in_lambda_with_a_leak_by_the_variance():
    # E2: K s and L |g| far below 1 / lr_max. Then the step is lr L lr_max, the leak K s lr_max / N.
    settings = dict(lr=4.9e9, likelihood_multiplier=161.3, kl_multiplier=3.76, lr_max=2.3e-12, memory=7e-7)
    (p,) = believed(WIDE)
    optimizer = BiMU([p], **settings)
    effect, expected = optimizer.effect(), WIDE.clone()
    rng = np.random.default_rng(2)
    for _ in range(200):
        gradient = torch.from_numpy(rng.normal(size=len(WIDE)))
        p.grad = gradient
        optimizer.step()
        expected = expected - effect.step * gradient - expected * variance(expected) / effect.window
        torch.testing.assert_close(p.detach(), expected, rtol=1e-6, atol=1e-6)


def test_the_published_constants_are_that_limit_up_to_a_percent_where_gradients_are_small():
    (p,) = believed(WIDE)
    optimizer = BiMU([p], **PUBLISHED)
    effect, gradient = optimizer.effect(), torch.full_like(WIDE, 1e-3)
    p.grad = gradient
    optimizer.step()
    limit = WIDE - effect.step * gradient - WIDE * variance(WIDE) / effect.window
    ratio = (p.detach() - WIDE) / (limit - WIDE)
    assert effect.damping == pytest.approx(0.0086, rel=0.01)
    assert bool(((ratio > 1 / (1 + effect.damping + 4 * 161.3 * 1e-3 * 0.0023) - 1e-9) & (ratio <= 1)).all())


def test_with_a_memory_without_end_a_step_is_bayes_from_the_last_posterior():
    # E4: N to infinity in the natural limit; one step of BayesBiNN with lr 1 whose prior is the present belief
    (ours,) = believed(WIDE[20:41])
    optimizer = BiMU([ours], lr=1e8, likelihood_multiplier=1e-9, kl_multiplier=1.0, lr_max=1e14, memory=math.inf)
    rng = np.random.default_rng(3)
    for _ in range(20):
        natural = torch.from_numpy(rng.normal(size=21))
        (theirs,) = believed(ours.detach(), posterior=Bernoulli())
        other = BayesBiNN([theirs], lr=1.0, dataset_size=1, temperature=10.0, prior=[ours.detach()])
        ours.grad, theirs.grad = natural * variance(ours), natural
        optimizer.step()
        other.step()
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-6, atol=1e-6)


def test_steps_back_are_slower_than_steps_on_by_e_to_the_minus_two_lambda_which_is_the_published_metaplasticity():
    # E5: L |g| far above K s and 1 / lr_max
    lam = torch.linspace(0, 10, 41, dtype=torch.float64)
    group = {"kl_multiplier": 1.0, "lr_max": 1e9}
    huge = torch.full_like(lam, 1e6)
    (back, on) = (Wary()([lam], [direction], group)[0] for direction in (huge, -huge))
    torch.testing.assert_close(back / on, torch.exp(-2 * lam), rtol=1e-4, atol=0)
    (published,) = Consolidating()([lam], [huge], {"metaplasticity": 1.0})
    tail = torch.exp(-2 * lam)
    torch.testing.assert_close(published, 4 * tail / (1 + tail) ** 2, rtol=1e-12, atol=0)
    far = lam > 6  # the same exponential, 4 times as large
    torch.testing.assert_close((published * on / back)[far], torch.full_like(lam[far], 4.0), rtol=2e-4, atol=0)


def test_bimus_steps_back_end_between_a_quarter_and_half_of_lr():
    (p,) = believed(torch.linspace(0, 15, 31))
    start = p.detach().clone()
    optimizer = BiMU([p], lr=0.8, likelihood_multiplier=1.0, kl_multiplier=1.0, lr_max=1e9, memory=math.inf)
    p.grad = torch.full_like(p, 1e9)
    optimizer.step()
    torch.testing.assert_close(start - p.detach(), 0.8 / (2 * (1 + torch.tanh(start))), rtol=1e-6, atol=0)


# --- the exact second derivative: what is metaplastic about it is no curvature ---


def test_newtons_step_on_the_free_energy_is_the_natural_step_with_a_plain_leak():
    vectors = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    rng = np.random.default_rng(4)
    losses = torch.from_numpy(rng.normal(size=16))
    natural = torch.from_numpy(rng.normal(size=4)).requires_grad_()
    memory = 30.0

    def expected(natural):
        return (losses * torch.sigmoid(2 * vectors * natural).prod(-1)).sum()

    (slope,) = torch.autograd.grad(expected(natural), natural, create_graph=True)
    curvature = torch.stack([torch.autograd.grad(s, natural, retain_graph=True)[0][i] for i, s in enumerate(slope)])
    natural, slope = natural.detach(), slope.detach()
    mean, s = torch.tanh(natural), variance(natural)
    torch.testing.assert_close(curvature, -2 * mean * slope, rtol=1e-10, atol=1e-12)
    newton = -(slope + s * natural / memory) / (s + 2 * mean * slope + curvature)
    torch.testing.assert_close(newton, -slope / s - natural / memory, rtol=1e-10, atol=1e-12)
    (p,) = believed(natural, posterior=Bernoulli())
    p.grad = slope / s
    WindowedBayes([p], lr=1.0, window=memory, batch_size=1, decay="plain").step()
    torch.testing.assert_close(p.detach(), natural + newton, rtol=1e-10, atol=1e-12)


# --- the leak ---


@pytest.mark.parametrize("prior", [0.0, 0.4, "tensors"])
def test_windowed_bayes_with_a_plain_leak_is_bayesbinn_step_by_step(prior):
    rng = np.random.default_rng(5)
    starts = [torch.from_numpy(rng.normal(size=shape)) for shape in ((4, 5), (7,))]
    given = [torch.from_numpy(rng.normal(size=s.shape)) for s in starts] if prior == "tensors" else prior
    ours, theirs = (believed(*starts, posterior=Bernoulli()) for _ in range(2))
    window = WindowedBayes(ours, lr=0.77, window=3000, batch_size=50, decay="plain", prior=given)
    bayes = BayesBiNN(theirs, lr=50 / 3000, dataset_size=3000, temperature=1 / 0.77, prior=given)
    for t in range(240):
        if t == 80:
            window.param_groups[0].update(lr=0.2, window=900)
            bayes.param_groups[0].update(lr=50 / 900, dataset_size=900, temperature=5.0)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.from_numpy(rng.normal(size=p.shape)) / 50
            q.grad = p.grad.clone()
        window.step()
        bayes.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", ["plain", "variance"])
def test_the_window_is_in_examples_whatever_the_batch(decay):
    one, many = believed([2.0, -0.5], [2.0, -0.5], posterior=Bernoulli())
    single, batched = (
        WindowedBayes([p], lr=0.01, window=100_000, batch_size=b, decay=decay) for p, b in ((one, 1), (many, 50))
    )
    gradient = torch.tensor([0.1, -0.2], dtype=torch.float64)
    for t in range(1000):
        one.grad = gradient
        single.step()
        if t % 50 == 49:
            many.grad = gradient
            batched.step()
    torch.testing.assert_close(one.detach(), many.detach(), rtol=1e-3, atol=1e-3)


def test_a_plain_leak_bounds_certainty_and_one_by_the_variance_does_not():
    ends = []
    for decay in ("plain", "variance"):
        (p,) = believed([0.0], posterior=Bernoulli())
        optimizer = WindowedBayes([p], lr=0.05, window=100, batch_size=1, decay=decay)
        p.grad = torch.tensor([-1.0], dtype=torch.float64)
        for _ in range(2000):
            optimizer.step()
        ends.append(p.item())
    assert ends[0] == pytest.approx(0.05 * 100, rel=1e-6)
    assert ends[1] > 80


def test_a_window_without_end_forgets_nothing():
    (p,) = believed([3.0], posterior=Bernoulli())
    optimizer = WindowedBayes([p], lr=0.05, window=math.inf, batch_size=10)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert p.tolist() == [3.0]


# --- latents that resist ---


def test_metaplastic_slows_steps_back_by_the_published_factor_and_steps_on_not_at_all():
    latents = torch.linspace(0.05, 2.0, 14, dtype=torch.float64)
    moved = []
    for sign in (1.0, -1.0):  # a gradient of that sign: back towards 0, on and away from it
        (p,) = beliefs(Metaplastic, latents)
        p.grad = torch.full_like(p, sign)
        Metaplastic([p], lr=0.01, metaplasticity=1.35, eps=1e-30).step()
        moved.append((p.detach() - latents).abs())
    torch.testing.assert_close(moved[1], torch.full_like(latents, 0.01), rtol=1e-9, atol=0)
    torch.testing.assert_close(moved[0] / moved[1], 1 / torch.cosh(1.35 * latents) ** 2, rtol=1e-9, atol=0)


def test_without_metaplasticity_it_is_latent_adam():
    (ours,), (theirs,) = beliefs(Metaplastic, WIDE), beliefs(StraightThrough, WIDE)
    runs = [
        (ours, Metaplastic([ours], lr=0.1, metaplasticity=0.0, weight_decay=0.1)),
        (theirs, StraightThrough([theirs], lr=0.1, clip=None, weight_decay=0.1)),
    ]
    generator = torch.Generator().manual_seed(6)
    for _ in range(50):
        gradient = torch.randn(len(WIDE), generator=generator, dtype=torch.float64)
        for p, optimizer in runs:
            p.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(ours, theirs)


# --- what they refuse and say ---


def test_rules_refuse_the_gradient_that_is_not_theirs_by_name():
    (euclidean,), (natural,) = believed([0.0]), believed([0.0], posterior=Bernoulli())
    with pytest.raises(InputError, match=r"BiMU takes the euclidean gradient, but Bernoulli\(\) gives the natural one"):
        BiMU([natural], **PUBLISHED)
    for make in (
        lambda: BayesBiNN([euclidean], lr=0.1, dataset_size=1),
        lambda: WindowedBayes([euclidean], 1.0, window=10, batch_size=1),
    ):
        with pytest.raises(
            InputError, match=r"takes the natural gradient, .* binarize the model with gradient='natural'"
        ):
            make()


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("likelihood_multiplier", 0.0, "likelihood_multiplier must be positive"),
        ("kl_multiplier", -1.0, "kl_multiplier must be finite"),
        ("lr_max", 0.0, "lr_max must be positive"),
        ("lr_max", math.inf, "lr_max must be positive and finite"),
        ("memory", 0.008, "memory must be positive and at least 0.00857, at which one step forgets all"),
        ("memory", math.nan, "memory must be positive"),
        ("batch_size", 0, "batch_size must be positive"),
    ],
)
def test_bimu_refuses_what_is_out_of_range(key, value, message):
    with pytest.raises(InputError, match=message):
        BiMU(believed([0.0]), **{**PUBLISHED, key: value})


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("window", 9, r"window must be at least batch_size \(10\)"),
        ("window", math.nan, "window must be at least"),
        ("batch_size", 0, "batch_size must be positive"),
        ("decay", "none", r"decay must be one of \('variance', 'plain'\)"),
        ("prior", math.inf, "prior must be a finite number"),
    ],
)
def test_windowed_bayes_refuses_what_is_out_of_range(key, value, message):
    settings = dict(lr=0.5, window=100, batch_size=10)
    with pytest.raises(InputError, match=message):
        WindowedBayes(believed([0.0], posterior=Bernoulli()), **{**settings, key: value})


@pytest.mark.parametrize("key, value", [("metaplasticity", -1.0), ("weight_decay", -1.0), ("eps", 0.0)])
def test_metaplastic_refuses_what_is_out_of_range(key, value):
    with pytest.raises(InputError, match=f"{key} must be"):
        Metaplastic(believed([0.0], posterior=Point()), **{key: value})


def test_bimu_says_what_its_five_constants_come_to():
    optimizer = BiMU(believed([0.0]), **PUBLISHED)
    effect = optimizer.effect()
    assert (effect.step, effect.window) == (pytest.approx(1.818, rel=1e-3), pytest.approx(80_944, rel=1e-4))
    assert "a step of 1.82 in λ per example, a window of 80,944 examples, damping 0.0086" in repr(optimizer)
    assert BiMU(believed([0.0]), **{**PUBLISHED, "kl_multiplier": 0.0}).effect().window == math.inf
