"""SignedBernoulli behaves as a torch distribution and stays accurate where probabilities round."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli as Coin
from torch.distributions import Independent, kl_divergence

from tests.oracles import coins
from tests.tolerance import assert_within_standard_errors, standard_error
from varbnn.errors import InputError
from varbnn.kernels.reference import log_sech2
from varbnn.posteriors import SignedBernoulli

NATURAL = torch.tensor([[-3.0, -0.2, 0.0], [0.4, 1.5, 6.0]], dtype=torch.float64)


def test_agrees_with_torchs_coin_through_the_map_from_signs_to_bits():
    ours, theirs = SignedBernoulli(NATURAL), Coin(logits=2 * NATURAL)
    value = torch.where(torch.rand(2, 3) > 0.5, 1.0, -1.0).double()
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob((value + 1) / 2))
    torch.testing.assert_close(ours.mean, 2 * theirs.mean - 1)
    torch.testing.assert_close(ours.variance, 4 * theirs.variance)
    torch.testing.assert_close(ours.stddev, 2 * theirs.stddev)
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    other = NATURAL.flip(0)
    expected = kl_divergence(theirs, Coin(logits=2 * other))
    torch.testing.assert_close(kl_divergence(ours, SignedBernoulli(other)), expected)


def test_gradients_of_log_prob_entropy_and_kl_are_those_of_torchs_coin():
    value, other = torch.tensor([[1.0, -1, 1], [-1, 1, -1]]).double(), NATURAL.flip(0)
    for ours, theirs in (
        (lambda x: SignedBernoulli(x).log_prob(value), lambda x: Coin(logits=2 * x).log_prob((value + 1) / 2)),
        (lambda x: SignedBernoulli(x).entropy(), lambda x: Coin(logits=2 * x).entropy()),
        (
            lambda x: kl_divergence(SignedBernoulli(x), SignedBernoulli(other)),
            lambda x: kl_divergence(Coin(logits=2 * x), Coin(logits=2 * other)),
        ),
    ):
        grads = []
        for function in (ours, theirs):
            x = NATURAL.clone().requires_grad_()
            function(x).sum().backward()
            grads.append(x.grad)
        torch.testing.assert_close(*grads)


def test_can_be_given_by_its_mean():
    torch.testing.assert_close(SignedBernoulli(mean=torch.tanh(NATURAL)).natural, NATURAL)
    assert SignedBernoulli(mean=torch.tensor([-1.0, 1.0])).natural.tolist() == [-math.inf, math.inf]


@pytest.mark.parametrize("options", [{}, {"natural": 0.0, "mean": 0.0}])
def test_neither_or_both_parameters_are_refused(options):
    with pytest.raises(InputError, match="exactly one"):
        SignedBernoulli(**options)


def test_a_mean_outside_the_interval_and_a_nan_are_refused():
    for options in ({"mean": 1.1}, {"natural": math.nan}):
        with pytest.raises(ValueError, match=r"natural|mean"):
            SignedBernoulli(**options, validate_args=True)


def test_shapes_follow_torch():
    coin = SignedBernoulli(NATURAL)
    assert (coin.batch_shape, coin.event_shape) == ((2, 3), ())
    assert coin.sample((4, 5)).shape == (4, 5, 2, 3)
    assert coin.sample().shape == (2, 3)
    assert SignedBernoulli(0.3).sample((7,)).shape == (7,)
    assert coin.log_prob(torch.ones(6, 2, 3)).shape == (6, 2, 3)
    assert Independent(coin, 1).log_prob(torch.ones(2, 3).double()).shape == (2,)


def test_expand_keeps_the_law_and_the_validation():
    coin = SignedBernoulli(NATURAL, validate_args=True).expand((4, 2, 3))
    assert coin.batch_shape == (4, 2, 3)
    torch.testing.assert_close(coin.mean, torch.tanh(NATURAL).expand(4, 2, 3))
    sample = coin.sample((100,))
    assert not torch.equal(sample[:, 0], sample[:, 1]), "expanded coins are independent"
    with pytest.raises(ValueError, match="support"):
        coin.log_prob(torch.zeros(4, 2, 3))
    assert not SignedBernoulli(NATURAL, validate_args=False).expand((2, 2, 3))._validate_args


def test_values_other_than_the_two_faces_are_refused_only_when_validating():
    for bad in (0.0, 0.5, math.nan):
        with pytest.raises(ValueError, match="support"):
            SignedBernoulli(NATURAL, validate_args=True).log_prob(torch.full((2, 3), bad))
    SignedBernoulli(NATURAL, validate_args=False).log_prob(torch.zeros(2, 3))


def test_enumerated_support_has_probability_one():
    coin = SignedBernoulli(NATURAL)
    support = coin.enumerate_support()
    assert support.shape == (2, 2, 3)
    assert coin.enumerate_support(expand=False).shape == (2, 1, 1)
    torch.testing.assert_close(coin.log_prob(support).exp().sum(0), torch.ones(2, 3).double())
    torch.testing.assert_close((coin.log_prob(support).exp() * support).sum(0), coin.mean)


def test_a_certain_coin_has_log_probabilities_zero_and_minus_infinity():
    coin = SignedBernoulli(torch.tensor([math.inf, -math.inf]))
    assert coin.log_prob(torch.tensor([1.0, -1.0])).tolist() == [0, 0]
    assert coin.log_prob(torch.tensor([-1.0, 1.0])).tolist() == [-math.inf, -math.inf]
    assert coin.mean.tolist() == coin.mode.tolist() == [1, -1]
    assert coin.entropy().tolist() == coin.variance.tolist() == [0, 0]
    assert set(map(tuple, coin.sample((1000,)).tolist())) == {(1.0, -1.0)}


def test_divergences_between_certain_and_uncertain_coins():
    certain, opposite, fair = (SignedBernoulli(torch.tensor(x)) for x in (math.inf, -math.inf, 0.0))
    assert kl_divergence(certain, certain).item() == 0
    assert kl_divergence(certain, opposite).item() == math.inf
    assert kl_divergence(fair, certain).item() == math.inf
    assert kl_divergence(certain, fair).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("natural", [10.0, 40.0, 300.0, -300.0])
def test_nearly_certain_float32_coins_keep_their_tails(natural):
    coin = SignedBernoulli(torch.tensor(natural))
    rare = torch.tensor(-1.0 if natural > 0 else 1.0)
    assert coin.log_prob(rare).item() == pytest.approx(-2 * abs(natural), rel=1e-6)
    entropy = (1 + 2 * abs(natural)) * math.exp(-2 * abs(natural))  # to first order in the rare probability
    assert coin.entropy().item() == pytest.approx(entropy, rel=1e-4, abs=1e-44)
    other = SignedBernoulli(torch.tensor(-natural))
    assert kl_divergence(coin, other).item() == pytest.approx(2 * abs(natural), rel=1e-6)


def test_log_sech2_is_finite_and_even_from_zero_to_a_thousand():
    x = np.array([0.0, 1e-9, 0.3, 5.0, 52.0, 90.0, 1000.0])
    expected = 2 * np.log(2) - 2 * np.logaddexp(x, -x)
    for dtype, rtol in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        for side in (1, -1):
            got = log_sech2(side * torch.from_numpy(x).to(dtype))
            np.testing.assert_allclose(got, expected, rtol=rtol, atol=1e-7 if dtype == torch.float32 else 1e-15)


def test_samples_have_the_mean_of_the_law():
    sample = SignedBernoulli(NATURAL).sample((20_000,))
    plus = coins.probability_of_plus(NATURAL.flatten().numpy())
    stderr = np.sqrt(coins.variance(plus) / 20_000)
    assert_within_standard_errors(sample.mean(0).flatten(), coins.mean(plus), stderr)


def test_a_sample_never_carries_a_gradient():
    coin = SignedBernoulli(NATURAL.clone().requires_grad_())
    assert not coin.sample().requires_grad
    assert not coin.has_rsample


def test_every_quantity_works_under_vmap():
    def one(natural, value):
        coin = SignedBernoulli(natural=natural, validate_args=False)
        other = SignedBernoulli(natural=-natural, validate_args=False)
        return coin.log_prob(value), coin.mean, coin.mode, coin.variance, coin.entropy(), kl_divergence(coin, other)

    value = torch.ones(2, 3).double()
    for mapped, direct in zip(torch.func.vmap(one)(NATURAL, value), one(NATURAL, value), strict=True):
        torch.testing.assert_close(mapped, direct)


def test_sampling_under_vmap_draws_each_row_on_its_own():
    def one(natural):
        return SignedBernoulli(natural=natural, validate_args=False).sample()

    natural = torch.full((2, 5000), 0.3, dtype=torch.float64)
    sample = torch.func.vmap(one, randomness="different")(natural)
    assert not torch.equal(sample[0], sample[1])
    assert_within_standard_errors(sample.mean(1), math.tanh(0.3), standard_error(sample, axis=1))


@pytest.mark.parametrize("step", [1e-5, 1e-4, 1e-3, 1e-1])
def test_the_divergence_of_nearly_equal_coins_and_its_gradient_are_exact(step):
    generator = torch.Generator().manual_seed(0)
    p = 0.5 * torch.randn(2000, generator=generator)
    q = p + step * torch.randn(2000, generator=generator)
    a, b = q.clone().requires_grad_(), p.clone().requires_grad_()
    found = torch.distributions.kl_divergence(SignedBernoulli(natural=a), SignedBernoulli(natural=b))
    found.sum().backward()
    u, v = q.double(), p.double()
    # KL = (u - v) tanh u - log cosh u + log cosh v, its gradients (u - v)(1 - tanh² u) and tanh v - tanh u
    expected = (u - v) * u.tanh() - u.cosh().log() + v.cosh().log()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-15)
    torch.testing.assert_close(a.grad.double(), (u - v) * (1 - u.tanh() ** 2), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(b.grad.double(), v.tanh() - u.tanh(), rtol=1e-5, atol=1e-12)


def test_the_entropy_of_a_point_mass_has_gradient_zero():
    natural = torch.tensor([torch.inf, -torch.inf, 1.0], requires_grad=True)
    SignedBernoulli(natural=natural).entropy().sum().backward()
    assert natural.grad[:2].tolist() == [0.0, 0.0]
    assert natural.grad[2] == pytest.approx(-(1 - torch.tanh(torch.tensor(1.0)) ** 2).item(), rel=1e-5)


def test_log_probabilities_keep_their_digits_where_the_coin_is_sure():
    natural = torch.tensor([-10.3, 10.3, 12.0], dtype=torch.float64)
    expected = -np.logaddexp(0, -2 * natural.numpy())
    np.testing.assert_allclose(SignedBernoulli(natural).log_prob(torch.ones(3).double()), expected, rtol=1e-15)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_whole_numbers_are_taken_as_numbers(dtype):
    given = torch.tensor([1, 0], dtype=dtype)
    whole, real = SignedBernoulli(natural=given), SignedBernoulli(natural=given.float())
    assert whole.sample((5,)).dtype == whole.mean.dtype == whole.log_prob(torch.ones(2)).dtype == torch.float32
    assert whole.enumerate_support().tolist() == real.enumerate_support().tolist()
    torch.testing.assert_close(whole.entropy(), real.entropy(), rtol=0, atol=0)
