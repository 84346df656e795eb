"""The sign of a low-rank normal vector: its joint law, what it hands back, and who shares its noise."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

import varbnn as vb
from tests.tolerance import assert_within_standard_errors, standard_error
from varbnn.errors import CheckpointError, InputError
from varbnn.posteriors import LowRankGaussian, Point
from varbnn.posteriors.low_rank import xavier

DRAWS = 4000
X = torch.randn(6, 5)


def belief(rank=3, *, zero_mean=False):
    rng = np.random.default_rng(0)
    location = np.zeros((2, 3)) if zero_mean else rng.normal(size=(2, 3)) / 5
    return torch.from_numpy(location), torch.from_numpy(rng.normal(size=(rank, 2, 3)))


def samples(posterior, *tensors, draws=DRAWS):
    noises = [posterior.noise(tensors[0], torch.Generator().manual_seed(i)) for i in range(draws)]
    return torch.stack([posterior.sample(*tensors, noise=noise) for noise in noises]).flatten(1).numpy()


def check_moments(drawn, mean, correlation):
    mean, correlation = mean.flatten().numpy(), correlation.numpy()
    assert_within_standard_errors(drawn.mean(0), mean, standard_error(drawn))
    spread = np.sqrt(1 - mean**2)
    products = (drawn - mean)[:, :, None] * (drawn - mean)[:, None, :] / np.outer(spread, spread)
    off = ~np.eye(len(mean), dtype=bool)
    assert_within_standard_errors(products.mean(0)[off], correlation[off], standard_error(products)[off])


# --- the law ---


@pytest.mark.parametrize("scope", ["layer", "neuron"])
@pytest.mark.parametrize("rounding", ["mean", "homogeneous"])
@pytest.mark.parametrize("zero_mean", [False, True])
def test_draws_have_the_mean_and_the_correlations_that_the_law_says(scope, rounding, zero_mean):
    posterior = LowRankGaussian(rank=3, scale=4.0, scope=scope, rounding=rounding)
    tensors = belief(zero_mean=zero_mean)
    check_moments(samples(posterior, *tensors), posterior.mean(*tensors), posterior.correlation(*tensors))


def test_the_mean_is_an_error_function_and_with_homogeneous_rounding_an_arcsine():
    location, factors = belief()
    posterior = LowRankGaussian(rank=3, scale=4.0, constraint="unit")
    location, factors = posterior._constrained(location, factors)
    m = location.numpy()
    np.testing.assert_allclose(
        posterior.mean(location, factors), np.vectorize(math.erf)(m / np.sqrt(2 * (1 - m**2))), rtol=1e-12
    )
    homogeneous = LowRankGaussian(rank=3, scale=4.0, constraint="unit", rounding="homogeneous")
    np.testing.assert_allclose(homogeneous.mean(location, factors), 2 / math.pi * np.arcsin(m), rtol=1e-12)


def test_without_means_the_correlation_is_the_arcsine_of_that_of_the_latents():
    location, factors = belief(zero_mean=True)
    rows = factors.reshape(3, -1).T.numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = 2 / math.pi * np.arcsin(np.clip(rows @ rows.T, -1, 1))
    for rounding in ("mean", "homogeneous"):
        found = LowRankGaussian(rank=3, rounding=rounding).correlation(location, factors)
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("rho", [-0.99, -0.6, 0.0, 0.3, 0.9, 0.999])
def test_the_correlation_is_that_of_the_bivariate_orthant(rho):
    a = np.array([0.7, -0.4])
    z = torch.tensor([[1.0, rho], [0.0, math.sqrt(1 - rho**2)]], dtype=torch.float64)
    found = LowRankGaussian(rank=2, scale=1.0).correlation(torch.from_numpy(a), z)[0, 1]
    # P(x > -a, y > -b), by one integral over x
    plus = integrate.quad(
        lambda x: stats.norm.pdf(x) * stats.norm.cdf((a[1] + rho * x) / math.sqrt(1 - rho**2)), -a[0], 12, epsabs=1e-13
    )[0]
    p = stats.norm.cdf(a)
    expected = (plus - p.prod()) / np.sqrt((p * (1 - p)).prod())
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_equal_latents_and_opposite_ones_draw_equal_and_opposite_weights():
    location = torch.tensor([0.3, 0.3, -0.3, 0.5])
    factors = torch.tensor([[1.0, 1.0, -1.0, 0.0]])
    matrix = LowRankGaussian(rank=1).correlation(location, factors)
    torch.testing.assert_close(matrix[0], torch.tensor([1.0, 1.0, -1.0, 0.0]))
    assert float(matrix[3, 3]) == 1  # and nothing hangs together with what is certain
    chosen = LowRankGaussian(rank=1).correlation(location, factors, torch.tensor([2, 0]))
    torch.testing.assert_close(chosen, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))


@pytest.mark.parametrize(
    "pair", [(0.3, 0.5), (7.0, 7.0), (7.5, 7.5), (8.0, 8.0), (7.0, 8.4), (-1.0, 2.0), (30.0, 30.0)]
)
@pytest.mark.parametrize("factor", [1.0, 3.7, -1.0])
def test_signs_of_one_latent_hang_together_as_its_two_thresholds_say(pair, factor):
    a = np.array(pair)
    b = a * [1, np.sign(factor)]  # the second sign is that of ±(b + g)
    low, high = stats.norm.logcdf(-b).min(), stats.norm.logcdf(-b).max()
    up, down = stats.norm.logcdf(b).min(), stats.norm.logcdf(b).max()
    expected = np.sign(factor) * np.exp((low + up - high - down) / 2)
    location = torch.tensor(a * [1, abs(factor)])
    found = LowRankGaussian(rank=1, scale=1.0).correlation(location, torch.tensor([[1.0, factor]], dtype=torch.float64))
    np.testing.assert_allclose(found[0, 1], expected, rtol=1e-9, atol=1e-150)


def test_without_a_rank_every_weight_is_certain_and_goes_with_itself_alone():
    posterior = LowRankGaussian(rank=0)
    assert torch.equal(posterior.correlation(torch.ones(3), torch.zeros(0, 3)), torch.eye(3))
    assert torch.equal(posterior.correlation(torch.ones(3), torch.zeros(0, 3), [0, 2]), torch.eye(2))


def test_a_positive_factor_for_each_weight_changes_no_draw_and_no_law():
    location, factors = belief()
    stretch = torch.rand(2, 3, dtype=torch.float64) + 0.1
    for rounding in ("mean", "homogeneous"):
        posterior = LowRankGaussian(rank=3, rounding=rounding)
        assert np.array_equal(
            samples(posterior, location, factors, draws=200),
            samples(posterior, location * stretch, factors * stretch, draws=200),
        )
        here, there = (posterior.natural(location * s, factors * s) for s in (1, stretch))
        torch.testing.assert_close(here, there)


@pytest.mark.parametrize("rounding", ["mean", "homogeneous"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_natural_parameter_is_odd_and_increasing_without_gaps_up_to_certainty(rounding, dtype):
    location = torch.logspace(-20, 4, 500, dtype=dtype)
    location = torch.cat([location, torch.tensor([math.inf], dtype=dtype)])
    posterior, factors = LowRankGaussian(rank=1, scale=1.0, rounding=rounding), torch.ones(1, 501, dtype=dtype)
    natural = posterior.natural(location, factors)
    assert torch.equal(posterior.natural(-location, factors), -natural)
    assert bool((natural.diff() > 0).all())
    assert math.isinf(float(natural[-1]))
    certain = posterior.natural(torch.tensor([-2.0, 0.0]), torch.zeros(1, 2))
    assert certain.tolist() == [-math.inf, math.inf]


# --- what it hands back ---


@pytest.mark.parametrize("scope", ["layer", "neuron"])
@pytest.mark.parametrize("rounding", ["mean", "homogeneous"])
def test_the_gradient_arrives_straight_at_the_location_and_times_the_noise_at_the_factors(scope, rounding):
    posterior = LowRankGaussian(rank=2, scale=7.0, scope=scope, rounding=rounding)
    location, factors = torch.randn(3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    noise, arriving = posterior.noise(location), torch.randn(3, 4)
    posterior.draw(location, factors, noise=noise).backward(arriving)
    gain, normal = (noise[0].abs(), noise[1:]) if rounding == "homogeneous" else (torch.tensor(1.0), noise)
    if scope == "neuron":
        gain, normal = gain.unsqueeze(-1) if gain.dim() else gain, normal.unsqueeze(-1)
    else:
        normal = normal.reshape(2, 1, 1)
    torch.testing.assert_close(location.grad, arriving * gain, rtol=0, atol=0)
    torch.testing.assert_close(factors.grad, arriving * normal.expand(2, 3, 4 if scope == "layer" else 1))


def test_under_autocast_weights_and_gradients_are_those_without():
    posterior = LowRankGaussian(rank=4, scale=1.0)
    location, factors = torch.randn(50, 40) / 50, torch.randn(4, 50, 40)
    noise = posterior.noise(location)
    with torch.autocast("cpu", torch.bfloat16):
        inside = posterior.draw(location, factors, noise=noise)
    assert torch.equal(inside, posterior.draw(location, factors, noise=noise))


@pytest.mark.parametrize("scope", ["layer", "neuron", "network"])
def test_channels_last_is_kept_and_changes_no_draw(scope):
    plain = vb.nn.BinaryConv2d(8, 6, 3, posterior=LowRankGaussian(2, scope=scope), bias=False)
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    torch.manual_seed(1)
    first = plain.weight
    torch.manual_seed(1)
    second = turned.weight
    assert torch.equal(first, second)
    assert second.stride() == turned.location.stride()


def test_antithetic_draws_mirror_the_spread_and_not_the_location():
    posterior = LowRankGaussian(rank=2, scale=1.0, scope="neuron", rounding="homogeneous")
    fair = vb.binarize(nn.Linear(5, 4, bias=False), posterior)
    with torch.no_grad():
        fair.location.zero_()
    with vb.antithetic(fair):
        assert torch.equal(fair(X), -fair(X))
    fair.location.data.fill_(1e3)
    with vb.antithetic(fair):
        assert torch.equal(fair(X), fair(X))


# --- who shares its noise ---


def twins(scope):
    """Two layers with the same belief, of which every weight is fair."""
    model = vb.binarize(nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)), LowRankGaussian(rank=3, scope=scope))
    with torch.no_grad():
        for layer in model:
            layer.location.zero_()
            layer.factors.copy_(model[0].factors)
    return model


def drawn(model):
    seen = []
    handles = [m.register_forward_hook(lambda m, args, out: seen.append(m.weight.detach())) for m in model]
    model(X)
    for handle in handles:
        handle.remove()
    return seen


def test_in_one_pass_layers_share_their_noise_if_the_scope_is_the_network():
    shared = twins("network")
    for _ in range(3):
        first, second = drawn(shared)
        assert torch.equal(first, second)
    assert not torch.equal(drawn(shared)[0], drawn(shared)[0])
    first, second = drawn(twins("layer"))
    assert not torch.equal(first, second)
    with vb.antithetic(shared):
        (first, second), (third, fourth) = drawn(shared), drawn(shared)
    assert torch.equal(first, second)
    assert torch.equal(third, fourth)
    assert torch.equal(first, -third)


@pytest.mark.parametrize("scope, same", [("network", True), ("layer", False)])
def test_a_sampled_frozen_predicted_or_packed_network_shares_it_likewise(scope, same):
    model = twins(scope)
    with vb.sampled(model):
        assert torch.equal(model[0].weight, model[1].weight) == same
    frozen = vb.freeze(model, how="sample")
    assert torch.equal(frozen[0].weight, frozen[1].weight) == same
    packed = vb.pack(model, num_samples=3)
    for s in range(3):
        weights = [m.weight for m in packed.member(s).modules() if isinstance(m, nn.Linear)]
        assert torch.equal(*weights) == same


@pytest.mark.parametrize("layer, shape", [(nn.Linear(5, 20), (4, 5)), (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5))])
def test_packed_draws_are_those_of_the_posterior_itself(layer, shape):
    posterior, kind = LowRankGaussian(rank=1, scale=1.0), type(layer)
    model = vb.binarize(nn.Sequential(layer), posterior)
    with torch.no_grad():
        model[0].location.zero_()
    half = posterior.sample(*model[0].belief)  # up to the sign of r
    packed = vb.pack(model, num_samples=16, generator=torch.Generator().manual_seed(1))
    kinds = set()
    for s in range(16):
        (weight,) = (m.weight for m in packed.member(s).modules() if isinstance(m, kind))
        assert torch.equal(weight, half) or torch.equal(weight, -half)
        kinds.add(torch.equal(weight, half))
    assert kinds == {True, False}
    again = vb.pack(model, num_samples=16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(packed(torch.ones(shape)), again(torch.ones(shape)))


def test_checkpointing_a_part_of_a_network_with_shared_noise_is_refused():
    model = twins("network")
    inner = model[1].forward
    model[1].forward = lambda x: torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)
    loss = model(X.clone().requires_grad_()).sum()
    with pytest.raises(InputError, match="shares belief or noise with others"):
        loss.backward()


# --- beginnings and errors ---


def test_it_starts_as_xavier_would_or_as_the_released_code_does():
    weight = torch.empty(60, 40, 5)
    location, factors = LowRankGaussian(rank=8).initial(weight)
    for tensor in (location, factors):
        assert float(tensor.std()) == pytest.approx(math.sqrt(2 / (100 * 5)), rel=0.05)
    _, small = LowRankGaussian(rank=8, init="released").initial(weight)
    assert float(small.std()) == pytest.approx(math.sqrt(2 / ((60 + 8) * 40 * 5)), rel=0.05)
    reference = nn.init.xavier_normal_(torch.empty(8, 60, 40, 5))
    assert xavier(reference.shape) == pytest.approx(float(reference.std()), rel=0.05)


def test_a_belief_of_constraint_unit_starts_on_it():
    posterior = LowRankGaussian(rank=3, scale=4.0, constraint="unit")
    for location, factors in (posterior.initial(torch.empty(6, 5)), posterior.from_weight(torch.randn(6, 5), 2.0)):
        torch.testing.assert_close(location.square() + factors.square().sum(0) / 4, torch.ones(6, 5))


def test_rank_zero_is_the_point():
    posterior, location = LowRankGaussian(rank=0), torch.randn(4, 3)
    tensors = (location, torch.empty(0, 4, 3))
    assert torch.equal(posterior.draw(*tensors), Point().draw(location))
    assert torch.equal(posterior.natural(*tensors), Point().natural(location))
    assert posterior.independent


def test_rank_zero_is_no_collapse_and_needs_no_statistics_of_a_draw():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), LowRankGaussian(rank=0))
    state = vb.health(model)  # would warn, and warnings are errors
    assert state.warning is None
    assert state.entropy_bits == 0
    assert math.isnan(state.kl), "as for Point"
    vb.predict(model, torch.randn(2, 4), 1)
    with pytest.warns(vb.errors.VarbnnWarning, match="collapsed"):
        vb.health(vb.binarize(nn.Linear(40, 30), LowRankGaussian(rank=1, scale=1e12)))


@pytest.mark.parametrize(
    "options",
    [
        {"rank": -1},
        {"rank": 2.0},
        {"rank": True},
        {"scale": 0.0},
        {"scale": math.inf},
        {"constraint": "box"},
        {"scope": "model"},
        {"rounding": "up"},
        {"init": "zeros"},
    ],
)
def test_what_is_no_option_is_refused(options):
    (name,) = options
    with pytest.raises(InputError, match=f"{name} must be"):
        LowRankGaussian(**options)


def test_noise_of_another_shape_is_refused_with_the_right_one():
    with pytest.raises(InputError, match=r"shape \(2, 3\) here, got \(5,\)"):
        LowRankGaussian(rank=2, scope="neuron").sample(torch.zeros(3, 4), torch.zeros(2, 3, 4), noise=torch.zeros(5))


def test_a_checkpoint_of_another_rank_is_refused():
    here, there = (vb.binarize(nn.Linear(4, 3), LowRankGaussian(rank=rank)) for rank in (2, 5))
    with pytest.raises(CheckpointError, match=r"factors has shape \(2, 3, 4\), the checkpoint \(5, 3, 4\)"):
        here.load_state_dict(there.state_dict())


@pytest.mark.parametrize("what", ["kl", "entropy", "mean"])
def test_what_it_knows_can_be_differentiated(what):
    torch.manual_seed(0)
    posterior = LowRankGaussian(rank=3)
    location, factors = torch.randn(4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    belief = (location.requires_grad_(), factors.requires_grad_())
    assert torch.autograd.gradcheck(getattr(posterior, what), belief)


def test_a_certain_weight_spoils_no_gradient():
    location = torch.tensor([1.0, -2.0], requires_grad=True)
    factors = torch.tensor([[0.0, 1.0]], requires_grad=True)
    LowRankGaussian(rank=1).entropy(location, factors).sum().backward()
    assert location.grad.isfinite().all()
