"""Bernoulli(estimator="moments"): outputs drawn from the exact mean and variance that ±1 weights give them."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.oracles import coins
from tests.tolerance import assert_within_standard_errors, standard_error
from varbnn.errors import InputError
from varbnn.nn import BinaryConv1d, BinaryConv2d, BinaryConv3d, BinaryLinear
from varbnn.posteriors import Bernoulli, Point

MOMENTS = Bernoulli(estimator="moments")

# kind, arguments, options, shape of the input: at most six weights each, so that all ±1 weights can be tried
LAYERS = {
    "linear": (BinaryLinear, (5, 1), {}, (3, 5)),
    "linear with sequences": (BinaryLinear, (3, 2), {}, (2, 4, 3)),
    "linear without a batch": (BinaryLinear, (4, 1), dict(bias=False), (4,)),
    "conv1d": (BinaryConv1d, (2, 1, 3), {}, (2, 2, 6)),
    "conv1d without a batch": (BinaryConv1d, (2, 1, 3), {}, (2, 6)),
    "conv1d grouped": (BinaryConv1d, (2, 2, 3), dict(groups=2, bias=False), (2, 2, 6)),
    "conv1d reflecting": (BinaryConv1d, (1, 2, 3), dict(padding=2, padding_mode="reflect"), (2, 1, 4)),
    "conv2d": (BinaryConv2d, (1, 1, (2, 3)), dict(bias=False), (2, 1, 4, 4)),
    "conv2d strided": (BinaryConv2d, (1, 1, (2, 3)), dict(stride=2, padding=1), (2, 1, 5, 4)),
    "conv2d circular": (BinaryConv2d, (1, 1, (3, 2)), dict(padding=1, padding_mode="circular"), (1, 1, 4, 3)),
    "conv2d dilated": (BinaryConv2d, (1, 1, (2, 2)), dict(dilation=2, padding="same"), (1, 1, 3, 3)),
    "conv3d": (BinaryConv3d, (1, 1, (1, 2, 3)), dict(padding=(0, 1, 1)), (1, 1, 2, 3, 3)),
}


def make(name, posterior=MOMENTS):
    kind, arguments, options, shape = LAYERS[name]
    layer = kind(*arguments, posterior=posterior, dtype=torch.float64, **options)
    with torch.no_grad():
        layer.natural.normal_()
    return layer, torch.randn(shape, dtype=torch.float64)


@torch.no_grad()
def exact(layer, x):
    """Mean and standard deviation of every output, over all ±1 weights."""
    natural, twin = layer.natural, vb.freeze(layer)
    outputs = []
    for vector in coins.sign_vectors(natural.numel()):
        twin.weight.copy_(torch.from_numpy(vector).reshape(natural.shape))
        outputs.append(twin(x))
    p = torch.from_numpy(coins.joint(coins.probability_of_plus(natural.flatten().numpy())))
    p, outputs = p.reshape(-1, *[1] * outputs[0].dim()), torch.stack(outputs)
    mean = (p * outputs).sum(0)
    return mean, (p * (outputs - mean).square()).sum(0).sqrt()


@pytest.mark.parametrize("name", LAYERS)
def test_the_output_is_normal_with_the_mean_and_variance_over_all_weights(name):
    layer, x = make(name)
    torch.manual_seed(6)
    y = layer(x)
    torch.manual_seed(6)
    noise = torch.randn_like(y)
    mean, deviation = exact(layer, x)
    torch.testing.assert_close(y, mean + deviation * noise, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "conv2d strided"])
def test_outputs_have_these_moments_and_no_correlation_between_examples_positions_and_passes(name):
    layer, x = make(name)
    mean, deviation = exact(layer, x[:1])
    many = x[:1].expand(20_000, *x.shape[1:])
    with torch.no_grad():
        first, second = ((layer(many) - mean) / deviation for _ in range(2))
    assert_within_standard_errors(first.mean(0), 0, standard_error(first))
    assert_within_standard_errors(first.square().mean(0), 1, standard_error(first.square()))
    products = [first[1:] * first[:-1], first * second]
    flat = first.flatten(1)
    products += [flat[:, 1:] * flat[:, :-1]] if flat.shape[1] > 1 else []
    for product in products:
        assert_within_standard_errors(product.mean(0), 0, standard_error(product))


NATURAL = [0.8, -0.3, 0.6, -1.2]
INPUT, TARGET = np.array([1.0, -2.0, 0.5, 1.5]), 0.7


def gradients(estimator, loss, passes, rows):
    """λ.grad of `passes` forward passes with `rows` equal examples each."""
    layer = BinaryLinear(4, 1, bias=False, posterior=Bernoulli(estimator), dtype=torch.float64)
    with torch.no_grad():
        layer.natural.copy_(torch.tensor([NATURAL]))
    x, found = torch.from_numpy(INPUT).expand(rows, 4), []
    for _ in range(passes):
        layer.zero_grad()
        loss(layer(x)).mean().backward()
        found.append(layer.natural.grad[0].clone())
    return torch.stack(found)


def squared(output):
    return (output - TARGET).square()


def test_the_gradient_of_a_squared_error_is_unbiased_where_straight_through_lacks_the_curvature():
    plus, mean = coins.probability_of_plus(NATURAL), np.tanh(NATURAL)
    vectors = coins.sign_vectors(4)
    losses = (vectors @ INPUT - TARGET) ** 2
    others = coins.joint(plus)[:, None] / np.where(vectors > 0, plus, 1 - plus)
    truth = (vectors * others * losses[:, None]).sum(0) / 2  # ½ E[loss(w = +1) - loss(w = -1)]
    straight = 2 * (mean @ INPUT - TARGET) * INPUT
    np.testing.assert_allclose(truth, straight - 2 * mean * INPUT**2, rtol=1e-12)
    found = gradients("moments", squared, passes=200, rows=500)
    assert_within_standard_errors(found.mean(0), truth, standard_error(found))
    assert bool((standard_error(found) < 0.1 * np.abs(truth - straight)).all()), "too few draws to tell them apart"
    found = gradients("straight-through", squared, passes=3000, rows=1)
    assert_within_standard_errors(found.mean(0), straight, standard_error(found))


def test_for_a_loss_linear_in_the_output_both_estimators_agree():
    found = gradients("moments", lambda y: 3 * y, passes=100, rows=20)
    assert_within_standard_errors(found.mean(0), 3 * INPUT, standard_error(found))
    found = gradients("straight-through", lambda y: 3 * y, passes=2, rows=1)
    np.testing.assert_allclose(found, [3 * INPUT] * 2)


def test_the_gradient_of_a_minibatch_scatters_much_less_than_with_drawn_weights():
    x, y = torch.randn(32, 20), torch.randint(5, (32,))
    scatter = {}
    for estimator in ("moments", "straight-through"):
        torch.manual_seed(2)
        model = vb.binarize(nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 5)), Bernoulli(estimator))
        found = []
        for _ in range(100):
            model.zero_grad()
            F.cross_entropy(model(x) / 5, y).backward()
            found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        scatter[estimator] = torch.stack(found).var(0).sum().item()
    assert scatter["moments"] < 0.5 * scatter["straight-through"]


def odd_integers(values):
    return bool((values.remainder(2) == 1).all())


def test_outside_training_the_weights_are_exactly_plus_or_minus_one():
    model, x = vb.binarize(nn.Linear(7, 4, bias=False), MOMENTS), torch.ones(3, 7)
    assert not odd_integers(model(x)), "sums of seven ±1 are odd; a normal draw is not"
    with vb.sampled(model):
        assert torch.equal(model(x), F.linear(x, model.weight))
        assert odd_integers(model(x))
    twin = vb.binarize(nn.Linear(7, 4, bias=False))
    twin.load_state_dict(model.state_dict())
    ours, theirs = (vb.predict(m, x, num_samples=3, generator=torch.Generator().manual_seed(1)) for m in (model, twin))
    assert torch.equal(ours.probs, theirs.probs)
    assert odd_integers(vb.freeze(model)(x))
    assert odd_integers(model.eval()(x))
    assert torch.equal(model(x), F.linear(x, MOMENTS.mode(model.natural)))


@pytest.mark.parametrize("name", ["linear", "conv1d reflecting", "conv2d strided"])
@pytest.mark.parametrize("natural", [100.0, -100.0, 30.0])
def test_sure_weights_and_zero_inputs_give_finite_outputs_and_gradients(name, natural):
    layer, x = make(name)
    layer.float()
    for inputs in (x.float(), torch.zeros_like(x.float()), torch.full_like(x.float(), 1e-25)):
        layer.zero_grad()
        with torch.no_grad():
            layer.natural.fill_(natural)
        inputs.requires_grad_()
        y = layer(inputs)
        y.square().sum().backward()
        expected = layer.eval()(inputs)  # the mode, which is the only weight left
        layer.train()
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        for gradient in (layer.natural.grad, layer.bias.grad, inputs.grad):
            assert bool(gradient.isfinite().all())


def test_an_empty_batch_is_refused_in_training():
    with pytest.raises(InputError, match="empty batch"):
        BinaryLinear(3, 2, posterior=MOMENTS)(torch.zeros(0, 3))


def test_the_global_seed_decides_the_outputs():
    layer, x = make("conv2d")
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(layer(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_a_layer_used_twice_in_a_model_draws_two_independent_outputs():
    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x):
            return self.layer(x) - self.layer(x)

    model = vb.binarize(Difference(), MOMENTS).double()
    _, deviation = exact(model.layer, x := torch.randn(1, 4, dtype=torch.float64))
    with torch.no_grad():
        found = (model(x.expand(20_000, 4)) / deviation).square()
    assert_within_standard_errors(found.mean(), 2, standard_error(found)[0])


@pytest.mark.parametrize("posterior", [Bernoulli(), Bernoulli("concrete"), Bernoulli("mean"), Point()], ids=repr)
def test_posteriors_without_moments_draw_their_weight_and_nothing_else(posterior):
    assert posterior.moments(*posterior.initial(torch.randn(2, 3))) is None
    layer, x = BinaryLinear(5, 2, posterior=posterior), torch.randn(4, 5)
    torch.manual_seed(3)
    y = layer(x)
    torch.manual_seed(3)
    assert torch.equal(y, F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [300.0, 1.0, 0.01])
@pytest.mark.parametrize("how", ["autocast", "model in half"])
def test_half_precisions_draw_the_same_outputs_up_to_their_rounding(how, dtype, size):
    layer, x = BinaryLinear(50, 4, posterior=MOMENTS), size * torch.randn(30, 50)
    centre, variance = x @ layer.natural.tanh().T, x.square() @ (1 - layer.natural.tanh().square()).T
    with torch.no_grad():
        layer.bias.zero_()
    if how == "autocast":
        with torch.autocast("cpu", dtype=dtype):
            torch.manual_seed(1)
            y = layer(x)
    else:
        x = x.to(dtype)
        torch.manual_seed(1)
        y = layer.to(dtype)(x)
    torch.manual_seed(1)
    noise = torch.randn_like(y)
    assert y.dtype == dtype
    scale = variance.sqrt().mean().item()
    torch.testing.assert_close(y.float(), centre + variance.sqrt() * noise.float(), rtol=0, atol=0.05 * scale)
    (y.float() / size).square().mean().backward()
    assert layer.natural.grad.dtype == torch.float32
    assert bool(layer.natural.grad.isfinite().all())
    assert math.isfinite(layer.bias.grad.float().sum().item())
