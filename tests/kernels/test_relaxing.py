"""Relaxed weights and the factors of their gradients by the compiled levels, against their definition in float64."""

import math

import numpy as np
import pytest
import torch

from tests.tolerance import assert_within_standard_errors
from varbnn.errors import InputError
from varbnn.kernels import draw_relaxed, ops, philox, plain, reference, using_backend
from varbnn.kernels.backend import REFERENCE, usable_backends
from varbnn.posteriors import Bernoulli

LEVELS = [name for name in usable_backends() if name != REFERENCE]
SEED = torch.tensor(-123_456_789_123_456_789)

pytestmark = pytest.mark.skipif(not LEVELS, reason="no compiled library")


def on_every_level(natural, *options):
    results = []
    for name in LEVELS:
        with using_backend(name):
            results.append(ops.relax(natural, SEED, *options))
    return results


@pytest.mark.parametrize("euclidean", [False, True])
@pytest.mark.parametrize("relaxation", [1e-2, 0.1, 1.0, 7.0])
@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
def test_every_level_computes_the_definition(scale, relaxation, euclidean):
    natural = torch.linspace(-scale, scale, 1511)
    noise = philox.uniform(natural.shape, SEED)
    weight, factor = reference.draw_relaxed(natural.double(), relaxation, euclidean, noise)
    # float32 rounds λ + δ by 1e-7 of itself; relaxation divides that, and the factor has it in its exponent
    for own_weight, own_factor in on_every_level(natural, relaxation, euclidean):
        torch.testing.assert_close(own_weight.double(), weight, rtol=0, atol=5e-7 + 3e-7 / relaxation)
        exponent = 1e-6 * (1 + scale) * (1 + 1 / relaxation)
        torch.testing.assert_close(own_factor, factor.float(), rtol=exponent, atol=1e-35 / relaxation)


def test_levels_agree_to_the_bit_on_any_number_of_threads():
    natural = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0)) * 4
    results = on_every_level(natural, 0.1, False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        results += on_every_level(natural, 0.1, False)
    finally:
        torch.set_num_threads(before)
    for weight, factor in results:
        assert torch.equal(weight, results[0][0])
        assert torch.equal(factor, results[0][1])


@pytest.mark.parametrize("shape", [(), (1,), (255,), (256,), (257,), (3, 5, 7, 11), (0,), (4, 0)])
def test_any_shape_and_layout(shape):
    natural = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    want = plain.relax(natural, SEED, 0.5, False)
    for got in on_every_level(natural, 0.5, False):
        for mine, theirs in zip(got, want, strict=True):
            assert mine.shape == shape
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    if natural.dim() > 1:
        turned = natural.transpose(0, 1).contiguous().transpose(0, 1)
        for mine, theirs in zip(ops.relax(turned, SEED, 0.5), want, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_beliefs_without_end_and_without_number():
    natural = torch.tensor([math.inf, -math.inf, math.nan, 3e38, -3e38, 1e-40, 0.0, 88.0, -200.0])
    for weight, factor in on_every_level(natural, 0.1, True):
        assert weight[:2].tolist() == [1, -1]
        assert weight[2].isnan()
        assert weight[3:5].tolist() == [1, -1]
        assert factor[3:5].tolist() == [0, 0]
        assert bool(weight[5:].isfinite().all())
    for weight, factor in on_every_level(natural[3:], 0.1, False):
        assert bool(weight.isfinite().all())
        assert bool(factor.isfinite().all())


def test_the_noise_is_uniform_and_independent():
    """Of 2^16 numbers: moments of words, of neighbours in a word, of neighbours in a group, within standard errors."""
    count = 1 << 16
    noise = philox.uniform(torch.Size((count,)), torch.tensor(99)).numpy()
    assert noise.min() > 0
    assert noise.max() < 1
    assert_within_standard_errors(noise.mean(), 0.5, math.sqrt(1 / 12 / count), z=4)
    assert_within_standard_errors((noise**2).mean(), 1 / 3, math.sqrt(4 / 45 / count), z=4)
    centred = noise - 0.5
    for lag in (1, 64, 128, 256):
        assert_within_standard_errors(
            (centred[lag:] * centred[:-lag]).mean(), 0.0, 1 / 12 / math.sqrt(count - lag), z=4
        )


def test_weights_and_factors_have_their_law():
    """P(w > 0) = sigmoid(2 λ), and without a loss the factor has mean 1: d/dμ of the mean of the exact coin is 1."""
    natural = torch.linspace(-2, 2, 2000)
    torch.manual_seed(0)
    draws = [draw_relaxed(natural, 0.3) for _ in range(500)]
    plus = 1 / (1 + np.exp(-2 * natural.double().numpy()))
    found = torch.stack([weight for weight, _ in draws]).gt(0).double().mean(0)
    assert_within_standard_errors(found, plus, np.sqrt(plus * (1 - plus) / 500), z=6)
    torch.manual_seed(0)
    with using_backend(REFERENCE):
        others = [draw_relaxed(natural, 0.3) for _ in range(500)]
    for mine, theirs in zip(*(map(torch.stack, zip(*of, strict=True)) for of in (draws, others)), strict=True):
        error = ((mine.double().var(0) + theirs.double().var(0)) / 500).sqrt()
        assert_within_standard_errors(mine.double().mean(0), theirs.double().mean(0), error, z=6)


@pytest.mark.parametrize(
    ("natural", "seed", "relaxation", "words"),
    [
        (torch.zeros(3, dtype=torch.float64), SEED, 0.1, "float32"),
        (torch.zeros(3), SEED.to(torch.int32), 0.1, "seed must be one int64"),
        (torch.zeros(3), torch.tensor([1, 2]), 0.1, "seed must be one int64"),
        (torch.zeros(3), SEED, 1e-31, "relaxation must be between"),
        (torch.zeros(3), SEED, math.nan, "relaxation must be between"),
    ],
)
def test_arguments_that_do_not_fit(natural, seed, relaxation, words):
    with pytest.raises(InputError, match=words):
        ops.relax(natural, seed, relaxation)


@pytest.mark.parametrize("euclidean", [False, True])
def test_torch_knows_the_operation(euclidean):
    torch.library.opcheck(torch.ops.varbnn.relax.default, (torch.randn(4, 5), SEED, 0.1, euclidean))


@pytest.mark.parametrize("gradient", ["natural", "euclidean"])
def test_a_draw_hands_the_gradient_on_times_its_factor(gradient):
    posterior = Bernoulli("concrete", relaxation=0.2, gradient=gradient)
    natural = torch.randn(50, 40, generator=torch.Generator().manual_seed(2)).requires_grad_()
    arriving = torch.randn(50, 40, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(4)
    posterior.draw(natural).backward(arriving)
    torch.manual_seed(4)
    seed = torch.randint(1 << 62, ())
    _, factor = plain.relax(natural.detach(), seed, 0.2, gradient == "euclidean")
    torch.testing.assert_close(natural.grad, factor * arriving, rtol=1e-4, atol=1e-6)


def test_calls_that_vmap_makes_one_of_draw_for_themselves():
    natural = torch.zeros(3, 40, 40)

    def weight(own):
        return draw_relaxed(own, 0.5)[0]

    different = torch.vmap(weight, randomness="different")(natural)
    assert different.shape == natural.shape
    assert not torch.equal(different[0], different[1])
    same = torch.vmap(weight, randomness="same")(natural)
    assert torch.equal(same[0], same[1])


@pytest.mark.parametrize("relaxation", [1e-300, 1e-40, 1e-30, 1e-10, 1e30, 1e32])
def test_relaxations_out_of_any_use_give_signs_and_finite_factors(relaxation):
    natural = torch.linspace(-5, 5, 2000)
    torch.manual_seed(0)
    weight, factor = draw_relaxed(natural, relaxation)
    assert bool(weight.isfinite().all())
    assert bool(factor.isfinite().all())
    if relaxation < 1:
        assert bool((weight.abs() == 1).all())


@pytest.mark.parametrize("relaxation", [1.0, 7.0, 10.0, 100.0, 1e4, 1e8])
def test_small_weights_of_large_relaxations_keep_their_digits(relaxation):
    natural = torch.full((4000,), 1.0)
    torch.manual_seed(0)
    weight, _ = draw_relaxed(natural, relaxation)
    assert weight.unique().numel() > 3900
    if relaxation > 1:  # λ + δ, of mean λ and variance π² / 12, can be had back
        scaled = torch.atanh(weight.double()) * relaxation
        assert_within_standard_errors(scaled.mean(), 1.0, math.pi / math.sqrt(12 * 4000), z=4)


def test_vmap_over_nothing_gives_nothing():
    empty = torch.vmap(lambda own: draw_relaxed(own, 0.5), randomness="different")(torch.empty(0, 40, 50))
    assert [tuple(part.shape) for part in empty] == [(0, 40, 50)] * 2
