"""Which methods are one method: trajectories compared at every step, each claim with its exact conditions.

Everything in float64. Two beliefs in two groups, 240 steps, once on gradients that are fixed beforehand and once on
gradients that depend on the ±1 weights at hand; some coordinates never have a gradient.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.contracts.rule import beliefs
from varbnn.bits import sign
from varbnn.optim import BayesBiNN, Bop, Bop2ndOrder, GradientFilter, StraightThrough
from varbnn.posteriors import Bernoulli, mark_belief

STEPS = 240
SHAPES = [(4, 5), (7,)]


class Gradients:
    """Of a quadratic in the weights, with a forcing that changes over time so that the weights keep flipping."""

    def __init__(self, feedback: bool) -> None:
        rng = np.random.default_rng(3)
        self.forcing = [torch.from_numpy(rng.normal(size=(STEPS, *shape))) for shape in SHAPES]
        sizes = [int(np.prod(shape)) for shape in SHAPES]
        self.mixing = [torch.from_numpy(rng.normal(size=(n, n)) / sqrt(n)) * feedback for n in sizes]

    def __call__(self, t: int, i: int, weight: Tensor) -> Tensor:
        slow = 2 * np.sin(t / 10 + i)
        gradient = (self.mixing[i] @ weight.ravel()).reshape(weight.shape) + self.forcing[i][t] + slow
        gradient[0] = gradient[-1] = 0.0  # dead coordinates
        return gradient


@pytest.fixture(params=[False, True], ids=["fixed gradients", "gradients that depend on the weights"])
def gradients(request):
    return Gradients(feedback=request.param)


def starts(scale: float = 1.0) -> list[Tensor]:
    rng = np.random.default_rng(7)
    return [scale * torch.from_numpy(rng.normal(size=shape)) for shape in SHAPES]


def make(rule, values, **settings):
    """A rule on beliefs that start at `values`, each in a group of its own."""
    parameters = beliefs(rule, *values)
    return parameters, rule([{"params": [p]} for p in parameters], **settings)


def weights(parameters) -> list[Tensor]:
    return [sign(p.detach()) for p in parameters]


def step(run, gradients, t) -> None:
    parameters, optimizer = run
    for i, (p, weight) in enumerate(zip(parameters, weights(parameters), strict=True)):
        p.grad = gradients(t, i, weight)
    optimizer.step()


def race(gradients, *runs, each=lambda t: None, before=lambda t: None, steps=STEPS) -> None:
    """Run side by side; all weights must be equal after every step, and many must have flipped."""
    flips, last = 0, weights(runs[0][0])
    for t in range(steps):
        before(t)
        for run in runs:
            step(run, gradients, t)
        now = weights(runs[0][0])
        for k, (parameters, _) in enumerate(runs[1:]):
            for here, there in zip(now, weights(parameters), strict=True):
                assert torch.equal(here, there), f"run {k + 1} has other weights than run 0 after step {t}"
        each(t)
        flips += sum(int((a != b).sum()) for a, b in zip(now, last, strict=True))
        last = now
    assert flips > 25, f"only {flips} flips of 27 weights: a run that stands still compares nothing"


def close(values, expected) -> None:
    for value, other in zip(values, expected, strict=True):
        torch.testing.assert_close(value.detach(), other.detach(), rtol=1e-12, atol=1e-12)


def kept(run, name) -> list[Tensor]:
    parameters, optimizer = run
    return [optimizer.state[p][name] for p in parameters]


def set_groups(run, **values) -> None:
    for group in run[1].param_groups:
        group.update(values)


# --- BayesBiNN, latent SGD, an average of the gradient and Bop ---

RATES = {0: 0.02, 80: 0.05, 160: 0.004}  # the learning rate, changed on the way


def test_bayesbinn_is_latent_sgd_with_decay_is_the_sign_of_an_average_is_bop_without_threshold(gradients):
    # conditions: the same p.grad, here at the mode weights; no momentum; prior 0; no clip. λ may be of any size, the
    # learning rate may change. κ, the scale of the latents, is free.
    size, temperature, kappa = 60, 0.5, 30.0
    natural = starts(3.0)
    to_average = -temperature / size  # m = -λ T / N, also before the first step
    bayes = make(BayesBiNN, natural, lr=1.0, dataset_size=size, temperature=temperature)
    latent = make(
        StraightThrough,
        [kappa * temperature / size * v for v in natural],
        base="sgd",
        clip=None,
        weight_decay=1 / kappa,
    )
    bop = make(Bop, [sign(v) for v in natural], gamma=1.0, threshold=0.0)
    average = [to_average * v for v in natural]
    bop[1].set_state("exp_avg", average)

    def before(t):
        if t in RATES:
            set_groups(bayes, lr=RATES[t])
            set_groups(latent, lr=kappa * RATES[t])
            set_groups(bop, lr=RATES[t])  # multiplies gamma
        rate = bayes[1].param_groups[0]["lr"]
        for i, weight in enumerate(weights(bayes[0])):
            average[i] = (1 - rate) * average[i] + rate * gradients(t, i, weight)

    def each(t):
        close([to_average * p for p in bayes[0]], average)
        close([-p / kappa for p in latent[0]], average)
        close(kept(bop, "exp_avg"), average)
        assert all(torch.equal(w, -sign(m)) for w, m in zip(weights(bayes[0]), average, strict=True))

    race(gradients, bayes, latent, bop, before=before, each=each)


class Published:
    """BayesBiNN on relaxed draws as in the published code, its gradient through the posterior."""

    relaxation, size = 1e-10, 54000

    def __init__(self, init_scale: float) -> None:
        self.posterior = Bernoulli(
            "concrete", relaxation=self.relaxation, numerics="reference", init="sign", init_scale=init_scale
        )
        self.naturals, self.buffers = [], []
        for shape in SHAPES:
            natural, *buffers = self.posterior.initial(torch.empty(shape, dtype=torch.float64))
            self.naturals.append(nn.Parameter(natural))
            mark_belief(self.naturals[-1], self.posterior, "natural")
            self.buffers.append(buffers)
        self.optimizer = BayesBiNN([{"params": [p]} for p in self.naturals], lr=1.0, dataset_size=self.size)

    def step(self, gradients, t) -> list[Tensor]:
        """Returns the weights that were drawn."""
        drawn = [self.posterior.draw(p, *b) for p, b in zip(self.naturals, self.buffers, strict=True)]
        self.optimizer.zero_grad()
        for i, weight in enumerate(drawn):
            weight.backward(gradients(t, i, weight.detach()))
        self.optimizer.step()
        return [weight.detach() for weight in drawn]


def test_the_published_bayesbinn_in_saturation_is_latent_sgd_with_decay_is_bop_without_threshold(gradients):
    # conditions: one draw per step, no momentum, prior 0, and at every step |λ| ≥ 19.07, from where tanh is 1 in
    # float64 (float32: 9.02). Then the factor of the concrete estimator is 1 / relaxation, and the noise of a draw,
    # at most ½ log 2⁵³ = 18.4 in float64, decides nothing. A coordinate without gradient decays as (1 - lr)ᵗ, so it
    # leaves saturation one day whatever its start; here it does not within the run.
    bayes, kappa = Published(init_scale=25.0), 1e-3
    to_average = -bayes.relaxation / bayes.size
    average = [to_average * p.detach() for p in bayes.naturals]
    latent = make(StraightThrough, [-kappa * m for m in average], base="sgd", clip=None, weight_decay=1 / kappa)
    bop = make(Bop, [-sign(m) for m in average], gamma=1.0, threshold=0.0)
    bop[1].set_state("exp_avg", average)
    rates, flips = {0: 1e-3, 80: 2e-3, 160: 2e-4}, 0
    for t in range(STEPS):
        if t in rates:
            set_groups((None, bayes.optimizer), lr=rates[t])
            set_groups(latent, lr=kappa * rates[t])
            set_groups(bop, lr=rates[t])
        assert all(bool((p.abs() >= 19.07).all()) for p in bayes.naturals), "not saturated"
        before = [weights(latent[0]), weights(bop[0])]
        drawn = bayes.step(gradients, t)
        for other in before:
            assert all(torch.equal(a, b) for a, b in zip(drawn, other, strict=True)), f"step {t}"
        step(latent, gradients, t)
        step(bop, gradients, t)
        close([to_average * p for p in bayes.naturals], kept(bop, "exp_avg"))
        close([-p / kappa for p in latent[0]], kept(bop, "exp_avg"))
        flips += sum(int((a != b).sum()) for a, b in zip(drawn, weights(bop[0]), strict=True))
    assert flips > 50


def test_the_published_start_is_not_saturated_in_float64():
    # λ = ±10 saturates float32 only: the mean lags, so the first two steps are scaled by e / (1 - tanh²(10) + e) = 1/83
    bayes, seen = Published(init_scale=10.0), []
    set_groups((None, bayes.optimizer), lr=1e-4)
    for t in range(4):
        gradient = torch.ones(4, 5, dtype=torch.float64)
        bayes.step(lambda t, i, weight, g=gradient: g if i == 0 else torch.zeros_like(weight), t)
        seen.append(float(bayes.naturals[0].grad[0, 0]) * bayes.relaxation)
    assert seen == pytest.approx([1 / 83.4, 1 / 83.4, 1, 1], rel=1e-3)


def test_bayesbinn_with_momentum_is_latent_sgd_whose_learning_rate_carries_the_bias_correction(gradients):
    # conditions: momentum = dampening = β, coupled decay 1 / κ, learning rate κ a_t / (1 - βᵗ), velocity 0 at the
    # start; prior 0; no clip. Only the learning rate depends on time, so no constant one does it.
    beta, size, kappa = 0.9, 40, 5.0
    natural = starts(2.0)
    bayes = make(BayesBiNN, natural, lr=0.1, dataset_size=size, momentum=beta)
    latent = make(
        StraightThrough, [kappa / size * v for v in natural], base="sgd", clip=None, momentum=beta, dampening=beta,
        weight_decay=1 / kappa,
    )  # fmt: skip

    def before(t):
        rate = 0.1 if t < 120 else 0.03
        set_groups(bayes, lr=rate)
        set_groups(latent, lr=kappa * rate / (1 - beta ** (t + 1)))

    def each(t):
        close([kappa / size * p for p in bayes[0]], latent[0])
        close([m / size for m in kept(bayes, "momentum")], kept(latent, "momentum"))

    race(gradients, bayes, latent, before=before, each=each)


# --- latent SGD and the gradient filter ---


@pytest.mark.parametrize("order", [1, -1], ids=["alpha is the smaller root", "alpha is the larger root"])
@pytest.mark.parametrize("dampening", [0.0, 0.4])
def test_latent_sgd_with_momentum_and_coupled_decay_is_the_gradient_filter(gradients, order, dampening):
    # conditions: constant learning rate, √momentum ≤ 1 - √e with e = lr (1 - dampening) weight_decay, no clip;
    # velocity 0 at the start. A dampening only scales the learning rate.
    lr, decay, momentum = 0.1 / (1 - dampening), 0.02, 0.8
    e = lr * (1 - dampening) * decay
    assert sqrt(momentum) <= 1 - sqrt(e)
    alpha, gamma = sorted(np.roots([1, -(1 - momentum + e), e]).tolist())[::order]
    latent = make(
        StraightThrough, starts(0.3), base="sgd", clip=None, lr=lr, momentum=momentum, dampening=dampening,
        weight_decay=decay,
    )  # fmt: skip
    filtered = make(GradientFilter, starts(0.3), alpha=alpha, gamma=gamma)
    for name in ("slow", "fast"):
        filtered[1].set_state(name, [-decay * r for r in latent[0]])

    def each(t):
        slow = [-decay * r.detach() for r in latent[0]]
        close(kept(filtered, "slow"), slow)
        velocity = kept(latent, "momentum")
        fast = [m + gamma * (1 - alpha) / (1 - dampening) * v for m, v in zip(slow, velocity, strict=True)]
        close(kept(filtered, "fast"), fast)

    race(gradients, latent, filtered, each=each)


@pytest.mark.parametrize("dampening", [0.85, 0.0], ids=["dampening = momentum", "no dampening"])
def test_latent_sgd_with_decoupled_decay_is_the_gradient_filter_also_while_the_learning_rate_decays(
    gradients, dampening
):
    # conditions: no clip, velocity 0 at the start; alpha = lr · weight_decay, gamma = 1 - momentum. Dampening other
    # than momentum only changes the unit of the latents, by c = (1 - dampening) / (1 - momentum).
    momentum, decay = 0.85, 0.3
    unit = (1 - dampening) / (1 - momentum)
    latent = make(
        StraightThrough, starts(0.3), base="sgd", clip=None, momentum=momentum, dampening=dampening,
        weight_decay=decay, decoupled_weight_decay=True,
    )  # fmt: skip
    filtered = make(GradientFilter, starts(0.3), alpha=decay, gamma=1 - momentum)
    filtered[1].set_state("slow", [-decay / unit * r for r in latent[0]])

    def before(t):
        rate = 0.2 * (1 - t / STEPS)
        set_groups(latent, lr=rate)
        set_groups(filtered, lr=rate)  # multiplies alpha

    def each(t):
        close(kept(filtered, "slow"), [-decay / unit * r for r in latent[0]])
        close(kept(filtered, "fast"), [v / unit for v in kept(latent, "momentum")])

    race(gradients, latent, filtered, before=before, each=each)


@pytest.mark.parametrize("factor", [0.125, 16.0, 3.7])
@pytest.mark.parametrize(
    "settings",
    [
        dict(base="sgd", lr=0.1, momentum=0.9, weight_decay=0.02, clip=None),
        dict(base="sgd", lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.5, decoupled_weight_decay=True, clip=None),
        dict(base="adam", lr=0.05, weight_decay=0.02, clip=None),
        dict(base="sgd", lr=0.1, clip=0.4),
        dict(base="adam", lr=0.05, clip=0.4),
    ],
    ids=["sgd", "sgd, decoupled", "adam", "sgd in a box", "adam in a box"],
)
def test_latents_have_no_scale(gradients, settings, factor):
    # conditions: start, lr and clip times the factor, decay divided by it; a gradient that sees signs only. A power of
    # 2 changes no bit. Adam is no exception, as its direction is in units of the gradient and not of the latent.
    scaled = dict(settings)
    scaled |= dict(lr=factor * settings["lr"], weight_decay=settings.get("weight_decay", 0.0) / factor)
    scaled["clip"] = None if settings["clip"] is None else factor * settings["clip"]
    one, other = make(StraightThrough, starts(0.3), **settings), make(StraightThrough, starts(0.3 * factor), **scaled)

    def each(t):
        close([factor * r for r in one[0]], other[0])
        assert factor == 3.7 or all(torch.equal(factor * r, s) for r, s in zip(one[0], other[0], strict=True))

    with torch.no_grad():
        for r, s in zip(one[0], other[0], strict=True):
            s.copy_(factor * r)
    race(gradients, one, other, each=each)


# --- the rules that flip ---


def test_the_gradient_filter_with_gamma_1_is_bop_without_threshold(gradients):
    # conditions: Bop's gamma = alpha, ties kept; learning rates alike, which may change
    filtered, bop = (
        make(GradientFilter, starts(), alpha=0.1, gamma=1.0),
        make(Bop, starts(), gamma=0.1, threshold=0.0, ties="keep"),
    )

    def before(t):
        for run in (filtered, bop):
            set_groups(run, lr=1 - t / (2 * STEPS))

    race(gradients, filtered, bop, before=before, each=lambda t: close(kept(filtered, "slow"), kept(bop, "exp_avg")))


def test_they_part_on_coordinates_without_gradient_where_bop_breaks_ties_as_larq_does(gradients):
    kept_ones = make(GradientFilter, starts(), alpha=0.1, gamma=1.0)
    bop = make(Bop, starts(), gamma=0.1, threshold=0.0, ties="larq")
    fixed, first = Gradients(feedback=False), weights(kept_ones[0])
    assert any(bool((w[0] < 0).any()) for w in first)
    for t in range(STEPS):
        step(kept_ones, fixed, t)
        step(bop, fixed, t)
        for here, there, at_first in zip(weights(kept_ones[0]), weights(bop[0]), first, strict=True):
            assert torch.equal(here[1:-1], there[1:-1])
            assert torch.equal(here[0], at_first[0])
            assert bool((there[0] == 1).all())


@pytest.mark.parametrize("correction", [None, "released", "adam"])
@pytest.mark.parametrize("sigma", [1e-3, 0.7])
def test_bop2ndorder_without_threshold_is_bop_without_threshold_whatever_sigma(gradients, sigma, correction):
    # z is the average divided by something positive
    second = make(Bop2ndOrder, starts(), gamma=0.1, sigma=sigma, threshold=0.0, bias_correction=correction)
    bop = make(Bop, starts(), gamma=0.1, threshold=0.0)
    race(gradients, second, bop, each=lambda t: close(kept(second, "exp_avg"), kept(bop, "exp_avg")))


def test_the_released_correction_is_the_biased_form_with_threshold_times_gamma_over_root_sigma(gradients):
    # conditions: constant γ and σ; gradients well above 1e-10 √σ, the guard of the division
    gamma, sigma, threshold = 0.05, 0.01, 0.6
    released = make(Bop2ndOrder, starts(), gamma=gamma, sigma=sigma, threshold=threshold, bias_correction="released")
    biased = make(Bop2ndOrder, starts(), gamma=gamma, sigma=sigma, threshold=threshold * gamma / sqrt(sigma))
    race(gradients, released, biased)


def test_the_released_correction_is_adams_at_the_first_step_and_at_no_other(gradients):
    settings = dict(gamma=0.05, sigma=0.01, threshold=0.5)
    released = make(Bop2ndOrder, starts(), bias_correction="released", **settings)
    adam = make(Bop2ndOrder, starts(), bias_correction="adam", **settings)
    parted = []
    for t in range(STEPS):
        step(released, gradients, t)
        step(adam, gradients, t)
        pairs = zip(weights(released[0]), weights(adam[0]), strict=True)
        parted.append(any(not torch.equal(a, b) for a, b in pairs))
        (weight, weight_sq), p = (kept(adam, name) for name in ("weight", "weight_sq")), adam[0][0]
        alike = float(weight[0]) == pytest.approx(0.05) and float(weight_sq[0]) == pytest.approx(0.01)
        assert alike == (t == 0), f"step {t} of {p.shape}"
    assert not parted[0]
    assert any(parted)


def test_bop2ndorder_flips_where_torchs_adam_would_step_against_the_weight_by_more_than_the_threshold(gradients):
    # conditions: bias_correction="adam", betas (1 - γ, 1 - σ), eps 1e-10, constant rates. The direction is tested and
    # not summed up, which is why this is not straight-through Adam.
    gamma, sigma, threshold = 0.2, 0.05, 0.4
    parameters, optimizer = make(
        Bop2ndOrder, starts(), gamma=gamma, sigma=sigma, threshold=threshold, bias_correction="adam"
    )
    zeros = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in SHAPES]
    adam = torch.optim.Adam(zeros, lr=1.0, betas=(1 - gamma, 1 - sigma), eps=1e-10)
    expected, flips = weights(parameters), 0
    for t in range(STEPS):
        for i, zero in enumerate(zeros):
            zero.data.zero_()
            zero.grad = gradients(t, i, expected[i])
        adam.step()
        flip = [w * -zero.detach() > threshold for w, zero in zip(expected, zeros, strict=True)]
        expected = [torch.where(f, -w, w) for f, w in zip(flip, expected, strict=True)]
        flips += sum(int(f.sum()) for f in flip)
        step((parameters, optimizer), gradients, t)
        assert all(torch.equal(p.detach(), w) for p, w in zip(parameters, expected, strict=True)), f"step {t}"
    assert flips > 50


def test_bop_is_a_latent_that_decays_to_the_threshold_on_its_side_and_jumps_by_twice_it_on_crossing_zero(gradients):
    # e = τ w - m: e ← e - γ (e - τ sign e) - γ g, and where its sign has changed e ← e + 2 τ sign e. The jump is the
    # hysteresis: whoever has just crossed is sent 2 τ away from the border. At τ = 0 it is latent SGD with decay.
    gamma, threshold = 0.1, 0.15
    bop = make(Bop, starts(), gamma=gamma, threshold=threshold)
    first = [w.numpy() for w in weights(bop[0])]
    latents = [threshold * w for w in first]
    flips, jumps = 0, 0
    for t in range(STEPS):
        step(bop, gradients, t)
        for i, e in enumerate(latents):
            side = np.where(e >= 0, 1.0, -1.0)
            gradient = gradients(t, i, torch.from_numpy(side)).numpy()
            e = e - gamma * (e - threshold * side) - gamma * gradient
            crossed = e * side < 0
            e = np.where(crossed, e + 2 * threshold * np.sign(e), e)
            weight, average = bop[0][i].detach().numpy(), bop[1].state[bop[0][i]]["exp_avg"].numpy()
            np.testing.assert_array_equal(np.where(e >= 0, 1.0, -1.0), weight, err_msg=f"step {t}")
            np.testing.assert_allclose(threshold * weight - average, e, rtol=1e-12, atol=1e-12)
            flips, jumps = flips + int((weight != side).sum()), jumps + int(crossed.sum())
            latents[i] = e
    assert flips == jumps
    assert flips > 50
