"""Inside antithetic(model) passes come in pairs, the second drawn with the opposite noise of the first."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import varbnn as vb
from tests.oracles import coins
from tests.tolerance import assert_within_standard_errors, standard_error
from varbnn.errors import InputError
from varbnn.kernels import draw_signs, opposite, uniform
from varbnn.nn import BinaryLinear
from varbnn.posteriors import Bernoulli, Gaussian

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
FAIR = Bernoulli(init_scale=0.0)
MOMENTS = Bernoulli("moments", init_scale=1.0)


class Twice(nn.Module):
    """Uses one layer twice, remembers the weights it saw and what they answered."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen, self.answers = nn.Linear(8, 8), [], []

    def forward(self, x):
        self.seen = [self.layer.weight.detach()]
        self.answers = [self.layer(x).detach(), self.layer(x).detach()]
        self.seen.append(self.layer.weight.detach())
        return self.layer(torch.tanh(self.layer(x)))


def weights_of(model, passes):
    found = []
    for _ in range(passes):
        model(X)
        found.append(model.seen[0])
    return found


def fair():
    return vb.binarize(Twice(), FAIR)


def assert_pair(first, second):
    """Weights of fair coins that are each other's opposite."""
    assert torch.equal(first, -second)


def assert_no_pair(first, second):
    assert 0.2 < (first == second).float().mean() < 0.8


def test_passes_come_in_pairs_of_opposite_weights_and_pairs_are_independent():
    model = fair()
    with vb.antithetic(model):
        weights = weights_of(model, 6)
    for first, second in zip(weights[::2], weights[1::2], strict=True):
        assert_pair(first, second)
    assert_no_pair(weights[0], weights[2])
    assert_no_pair(weights[2], weights[4])


def test_a_layer_used_twice_has_one_draw_per_pass_also_in_a_model_built_by_hand():
    by_hand = Twice()
    by_hand.layer = BinaryLinear(8, 8, posterior=FAIR)
    for model in (fair(), by_hand):
        seen = []
        with vb.antithetic(model):
            for _ in range(4):
                model(X)
                assert torch.equal(*model.seen)
                seen.append(model.seen[0])
        assert_pair(*seen[:2])
        assert_pair(*seen[2:])


@pytest.mark.parametrize("posterior", [Bernoulli(), Bernoulli("concrete", 0.5), Gaussian()], ids=repr)
def test_noise_and_one_minus_noise_couple_the_draws_of_any_belief(posterior):
    layer = vb.binarize(nn.Linear(20, 10), posterior)
    with torch.no_grad():
        layer.belief[0].normal_()
    torch.manual_seed(4)
    noise = uniform(layer.belief[0])
    torch.manual_seed(4)
    with vb.antithetic(layer):
        first, second = layer.weight, layer.weight
    assert torch.equal(first, posterior.draw(*layer.belief, noise=noise))
    assert torch.equal(second, posterior.draw(*layer.belief, noise=opposite(noise)))


def test_the_second_draw_has_the_law_of_any_other_and_differs_from_the_first_as_often_as_it_can():
    layer = BinaryLinear(7, 20_000, bias=False)
    natural = torch.tensor([-2.0, -0.7, -0.1, 0.0, 0.3, 1.0, 3.0])
    with torch.no_grad():
        layer.natural.copy_(natural)
        with vb.antithetic(layer):
            first, second = layer.weight, layer.weight
    plus = coins.probability_of_plus(natural.numpy())
    for weight in (first, second):
        assert_within_standard_errors((weight > 0).double().mean(0), plus, np.sqrt(plus * (1 - plus) / 20_000))
    agreement = 1 - 4 * np.minimum(plus, 1 - plus)
    assert_within_standard_errors((first * second).mean(0), agreement, np.sqrt((1 - agreement**2) / 20_000))


def test_sure_weights_keep_their_sign_in_both_draws():
    layer = BinaryLinear(1000, 2, bias=False)
    with torch.no_grad():
        layer.natural.copy_(torch.tensor([[50.0], [-50.0]]))
    with vb.antithetic(layer):
        for _ in range(4):
            assert layer.weight.mean(1).tolist() == [1.0, -1.0]


def test_the_first_draw_of_a_pair_is_the_one_that_the_seed_gives_outside():
    for posterior in (Bernoulli(), MOMENTS):
        layer = vb.binarize(nn.Linear(8, 8), posterior)
        torch.manual_seed(2)
        expected = layer(X)
        torch.manual_seed(2)
        with vb.antithetic(layer):
            assert torch.equal(layer(X), expected)


@pytest.mark.parametrize("estimator", ["straight-through", "moments"])
def test_the_average_of_two_gradients_scatters_less_than_with_independent_draws(estimator):
    y = torch.randn(6, 4)
    model = vb.binarize(nn.Linear(8, 4), Bernoulli(estimator))

    def gradient():
        model.zero_grad()
        for _ in range(2):
            (F.mse_loss(model(X), y) / 2).backward()
        return model.natural.grad.clone()

    independent = torch.stack([gradient() for _ in range(300)])
    paired = []
    for _ in range(300):
        with vb.antithetic(model):
            paired.append(gradient())
    paired = torch.stack(paired)
    assert paired.var(0).sum() < 0.5 * independent.var(0).sum()
    error = (standard_error(paired) ** 2 + standard_error(independent) ** 2) ** 0.5
    assert_within_standard_errors(paired.mean(0), independent.mean(0), error)


def test_moments_mirror_the_noise_of_every_output_about_its_mean_and_uses_stay_independent():
    model = vb.binarize(Twice(), MOMENTS)
    centre = F.linear(X, model.layer.natural.tanh(), model.layer.bias)
    with vb.antithetic(model):
        for _ in range(2):
            first, second = ((model(X), model.answers)[1] for _ in range(2))
            for one, other in zip(first, second, strict=True):
                torch.testing.assert_close((one + other) / 2, centre, rtol=1e-5, atol=1e-5)
            a, b = ((answer - centre).flatten() for answer in first)
            assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.6, "two uses in one pass drew the same noise"


def test_moments_want_both_batches_of_a_pair_of_one_shape():
    layer = vb.binarize(nn.Linear(8, 8), MOMENTS)
    with vb.antithetic(layer):
        layer(X[:1])
        with pytest.raises(InputError, match=r"shape \(6, 8\) where the first drew \(1, 8\)"):
            layer(X)


def test_the_weight_and_the_output_of_a_moments_layer_are_different_noise_even_in_one_shape():
    layer = vb.binarize(nn.Linear(6, 6), MOMENTS)
    with vb.antithetic(layer):
        _ = layer.weight
        with pytest.raises(InputError, match="second pass"):
            layer(X[:, :6])


def test_an_odd_pass_at_the_end_is_an_ordinary_draw_and_no_pair_reaches_over_the_end():
    model = fair()
    with vb.antithetic(model):
        first, second, odd = weights_of(model, 3)
    assert_pair(first, second)
    after = weights_of(model, 2)
    assert_no_pair(*after)
    assert_no_pair(odd, after[0])
    with vb.antithetic(model):
        assert_no_pair(odd, weights_of(model, 1)[0])


def test_an_inner_block_has_pairs_of_its_own_and_the_outer_one_goes_on():
    model = fair()
    with vb.antithetic(model):
        (first,) = weights_of(model, 1)
        with vb.antithetic(model):
            inner = weights_of(model, 3)
        (second,) = weights_of(model, 1)
        assert_pair(first, second)
    assert_pair(*inner[:2])
    assert_no_pair(inner[2], first)


def test_an_exception_inside_ends_the_pairs_and_passes_on():
    model = fair()

    def broken():
        with vb.antithetic(model):
            model(X)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    inside = model.seen[0]
    first, second = weights_of(model, 2)
    assert_no_pair(first, second)
    assert_no_pair(inside, first)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_made_inside_draws_for_itself(copied):
    model = fair()
    with vb.antithetic(model):
        (first,) = weights_of(model, 1)
        twin = copied(model)
        others = weights_of(twin, 2)
        (second,) = weights_of(model, 1)
    assert_pair(first, second)
    assert_no_pair(*others)
    assert_no_pair(others[0], first)


@pytest.mark.parametrize("posterior", [FAIR, MOMENTS], ids=repr)
def test_passes_in_eval_mode_and_with_a_held_sample_do_not_count(posterior):
    model = vb.binarize(nn.Sequential(nn.Linear(8, 8, bias=False)), posterior)
    centre = F.linear(X, model[0].natural.tanh())
    with vb.antithetic(model):
        for _ in range(2):
            first = model(X)
            mode = model.eval()(X)
            assert torch.equal(mode, model(X))
            with vb.sampled(model.train()):
                model(X)
            torch.testing.assert_close((first + model(X)) / 2, centre, rtol=1e-5, atol=1e-5)


def test_gradient_accumulation_draws_a_pair_for_every_two_micro_batches():
    model, y = vb.binarize(nn.Sequential(nn.Linear(8, 3)), FAIR), torch.randint(3, (6,))
    expected = torch.zeros(3, 8)
    torch.manual_seed(9)
    with vb.antithetic(model):
        for part in range(6):
            (F.cross_entropy(model(X[[part]]), y[[part]]) / 6).backward()
    torch.manual_seed(9)
    for part in range(0, 6, 2):
        noise = uniform(model[0].natural)
        for example, u in ((part, noise), (part + 1, opposite(noise))):
            weight = draw_signs(torch.zeros(3, 8), noise=u).requires_grad_()
            (F.cross_entropy(F.linear(X[[example]], weight, model[0].bias.detach()), y[[example]]) / 6).backward()
            expected += weight.grad
    torch.testing.assert_close(model[0].natural.grad, expected)


@pytest.mark.parametrize("posterior", [FAIR, MOMENTS], ids=repr)
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "saved"])
@pytest.mark.parametrize("inside", [True, False])
def test_activation_checkpointing_is_refused_before_it_gives_a_wrong_gradient(inside, reentrant, posterior):
    model, x = vb.binarize(nn.Sequential(nn.Linear(8, 3)), posterior), X.clone().requires_grad_()
    for run in (model, model[0]):
        with vb.antithetic(model):
            outputs = [checkpoint(run, x, use_reentrant=reentrant) for _ in range(2)]
            if inside:
                with pytest.raises(InputError, match="recomputed by activation checkpointing"):
                    outputs[0].sum().backward()
        if not inside:
            with pytest.raises(InputError, match="recomputed by activation checkpointing"):
                outputs[1].sum().backward()
        checkpoint(run, x, use_reentrant=reentrant).sum().backward()  # outside, afterwards, all is well


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo does it to trace one
@pytest.mark.parametrize("posterior", [FAIR, MOMENTS], ids=repr)
def test_a_compiled_model_draws_the_pairs_of_the_eager_one(posterior):
    torch._dynamo.reset()
    model = vb.binarize(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)), posterior)
    counter, found = CompileCounterWithBackend("aot_eager"), []
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for run in (model, compiled):
        torch.manual_seed(1)
        found.append([])
        for _ in range(3):
            with vb.antithetic(model):
                found[-1] += [run(X) for _ in range(4)]
    for eager, traced in zip(*found, strict=True):
        torch.testing.assert_close(eager, traced)
    assert counter.frame_count == 3, "before any pair, after a first pass, after a second"
