"""Binary networks in Pyro: the bound and its gradients, against enumeration and against BayesBiNN step by step."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from varbnn.errors import InputError, MissingExtraError

pyro = pytest.importorskip("pyro")

from pyro.distributions import Categorical, Normal  # noqa: E402
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate  # noqa: E402

from varbnn.bridges.pyro import PyroNetwork, SignedBernoulli  # noqa: E402

SIZE = 90  # of the whole training data, of which a batch is a part
Z = 5  # standard errors


@pytest.fixture(autouse=True)
def clean():
    pyro.clear_param_store()
    torch.manual_seed(0)
    yield
    pyro.clear_param_store()


def small(**options) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3), nn.BatchNorm1d(3))
    return vb.binarize(nn.Sequential(*layers), vb.posteriors.Bernoulli(**options))


def classifier(network: PyroNetwork):
    def model(x, y=None):
        logits = network(x)
        with pyro.plate("data", SIZE, subsample_size=len(x)):
            return pyro.sample("y", Categorical(logits=logits), obs=y)

    return model


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(30, 4), torch.randint(3, (30,))


def natural(model: nn.Module) -> torch.Tensor:
    return torch.cat([layer.natural.flatten() for _, layer in vb.nn.binary_layers(model)])


# --- gradients ---


@pytest.mark.parametrize("bound", [Trace_ELBO, TraceMeanField_ELBO], ids=lambda bound: bound.__name__)
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_a_step_of_sgd_on_the_bound_is_the_step_of_bayesbinn(bound, temperature):
    ours, theirs, rate = small(), small(), 0.05
    network = PyroNetwork(theirs, prior=0.3, temperature=temperature)
    model = classifier(network)
    beliefs = [layer.natural for _, layer in vb.nn.binary_layers(theirs)]
    sgd = torch.optim.SGD(beliefs, lr=rate / temperature)
    rule = vb.optim.BayesBiNN(
        ours.parameters(), rate, dataset_size=SIZE, temperature=temperature, prior=0.3, real_lr=0.0
    )
    x, y = batch()
    start = natural(ours).clone()
    for step in range(10):
        for optimizer in (sgd, rule):
            optimizer.zero_grad()
        torch.manual_seed(step)
        bound().differentiable_loss(model, network.guide, x, y).backward()
        sgd.step()
        torch.manual_seed(step)
        F.cross_entropy(ours(x), y).backward()
        rule.step()
        torch.testing.assert_close(natural(theirs), natural(ours), rtol=1e-5, atol=2e-5)
    assert (natural(ours) - start).abs().max() > 0.1  # they went somewhere


@pytest.mark.parametrize("bound", [Trace_ELBO, TraceMeanField_ELBO], ids=lambda bound: bound.__name__)
@pytest.mark.parametrize("gradient", ["natural", "euclidean"])
def test_the_prior_pulls_exactly_whatever_is_drawn(bound, gradient):
    network = PyroNetwork(small(gradient=gradient, init_scale=2.0), prior=-0.5, temperature=0.7)
    for _ in range(3):
        network.network.zero_grad()
        bound().differentiable_loss(lambda x: network(x), network.guide, torch.randn(8, 4)).backward()
        for _, layer in vb.nn.binary_layers(network.network):
            slope = 1.0 if gradient == "natural" else 1 - layer.natural.detach().tanh().square()
            torch.testing.assert_close(layer.natural.grad, 0.7 * (layer.natural.detach() + 0.5) * slope)


def test_the_beliefs_of_another_model_are_a_prior():
    network = PyroNetwork(small(), prior=(before := vb.as_prior(small(init_scale=3.0))))
    Trace_ELBO().differentiable_loss(lambda x: network(x), network.guide, torch.randn(8, 4)).backward()
    for (_, layer), prior in zip(vb.nn.binary_layers(network.network), before, strict=True):
        torch.testing.assert_close(layer.natural.grad, layer.natural.detach() - prior)


# --- values, by enumeration ---


def tiny() -> tuple[PyroNetwork, nn.Module]:
    layer = vb.binarize(nn.Linear(2, 2, bias=False), vb.posteriors.Bernoulli(init_scale=0.8))
    return PyroNetwork(layer, prior=0.2), layer


def networks(layer: nn.Module):
    """Every ±1 weight of the layer with its probability."""
    coin = layer.distribution
    for signs in itertools.product([-1.0, 1.0], repeat=4):
        weight = torch.tensor(signs).reshape(2, 2)
        yield weight, coin.log_prob(weight).sum().exp().item()


@torch.no_grad()
def test_the_bound_is_the_one_of_all_networks_together():
    network, layer = tiny()
    x, y = torch.randn(30, 2), torch.randint(2, (30,))
    likelihood = sum(-p * F.cross_entropy(x @ w.T, y, reduction="sum").item() for w, p in networks(layer))
    prior = vb.posteriors.SignedBernoulli(natural=torch.full((2, 2), 0.2))
    exact = likelihood * SIZE / 30 - torch.distributions.kl_divergence(layer.distribution, prior).sum().item()
    drawn = torch.tensor([-Trace_ELBO().loss(classifier(network), network.guide, x, y) for _ in range(800)])
    error = drawn.std() / math.sqrt(len(drawn))
    assert error < 0.03 * abs(exact)
    assert abs(drawn.mean() - exact) < Z * error


@torch.no_grad()
def test_predictive_gives_the_mean_of_all_networks():
    network, layer = tiny()
    x = torch.tensor([[1.0, 0.3]]).expand(30, 2)
    exact = sum(p * (x[0] @ w.T).softmax(0)[1].item() for w, p in networks(layer))
    sites = Predictive(classifier(network), guide=network.guide, num_samples=600)(x)
    labels = sites["y"].float().mean(1)  # the thirty share a network: one number per network
    assert abs(labels.mean() - exact) < Z * labels.std() / math.sqrt(len(labels))
    means = sites["network.weight"].mean(0)
    assert ((means - layer.distribution.mean).abs() < Z / math.sqrt(600)).all()


def test_sites_are_signs_with_the_prior_and_the_beliefs_as_their_laws():
    network = PyroNetwork(small(), prior=0.3, name="net")
    trace = pyro.poutine.trace(network).get_trace(torch.randn(8, 4))
    guide = pyro.poutine.trace(network.guide).get_trace(torch.randn(8, 4))
    for (place, layer), site in zip(
        vb.nn.binary_layers(network.network), ("net.0.weight", "net.3.weight"), strict=True
    ):
        prior, own = trace.nodes[site], guide.nodes[site]
        for node in (prior, own):
            assert node["value"].shape == layer.natural.shape, place
            assert node["value"].abs().eq(1).all()
        fair = vb.posteriors.SignedBernoulli(natural=torch.full_like(layer.natural, 0.3))
        torch.testing.assert_close(prior["fn"].log_prob(prior["value"]), fair.log_prob(prior["value"]).sum())
        torch.testing.assert_close(own["fn"].log_prob(own["value"]), layer.distribution.log_prob(own["value"]).sum())


def test_the_coin_is_the_one_of_the_library_and_a_line_between_its_faces():
    lam = torch.tensor([-math.inf, -30.0, -1.0, 0.0, 0.3, 20.0, math.inf])
    ours, theirs = vb.posteriors.SignedBernoulli(natural=lam), SignedBernoulli(natural=lam)
    for face in (-1.0, 1.0):
        value = torch.full_like(lam, face)
        torch.testing.assert_close(theirs.log_prob(value), ours.log_prob(value))
    value = torch.ones(5, requires_grad=True)
    SignedBernoulli(natural=lam[1:-1]).log_prob(value).sum().backward()
    torch.testing.assert_close(value.grad, lam[1:-1])
    with pytest.raises(ValueError, match="support"):
        SignedBernoulli(natural=torch.zeros(2), validate_args=True).log_prob(torch.tensor([0.0, 1.0]))
    assert theirs.expand((3, 7)).batch_shape == (3, 7)


def test_enumeration_gives_the_evidence():
    x, y = torch.tensor([0.5, -1.0, 2.0, 0.3]), torch.tensor(0.9)

    @config_enumerate
    def model():
        total = torch.tensor(0.0)
        for place in pyro.plate("weights", 4):
            total = total + x[place] * pyro.sample(f"w{place}", SignedBernoulli(natural=torch.tensor(0.4)))
        pyro.sample("y", Normal(total, 0.7), obs=y)

    evidence = 0.0
    for signs in itertools.product([-1.0, 1.0], repeat=4):
        weight = torch.tensor(signs)
        prior = vb.posteriors.SignedBernoulli(natural=torch.full((4,), 0.4)).log_prob(weight).sum()
        evidence += (prior + Normal(weight @ x, 0.7).log_prob(y)).exp().item()
    bound = TraceEnum_ELBO(max_plate_nesting=0)
    assert bound.loss(model, lambda: None) == pytest.approx(-math.log(evidence), rel=1e-5)


# --- life with Pyro ---


def test_svi_steps_every_parameter_of_the_model_in_place():
    trained, by_hand = PyroNetwork(small()), PyroNetwork(small(), name="by hand")
    svi = SVI(classifier(trained), trained.guide, pyro.optim.SGD({"lr": 0.01}), Trace_ELBO())
    x, y = batch()
    for seed in range(3):
        torch.manual_seed(seed)
        svi.step(x, y)
        torch.manual_seed(seed)
        by_hand.network.zero_grad()
        Trace_ELBO().differentiable_loss(classifier(by_hand), by_hand.guide, x, y).backward()
        with torch.no_grad():
            for p in by_hand.network.parameters():
                assert p.grad.abs().sum() > 0
                p -= 0.01 * p.grad
    for (name, ours), theirs in zip(trained.network.named_parameters(), by_hand.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    assert torch.equal(trained.network[1].running_mean, by_hand.network[1].running_mean)  # one forward pass a step
    assert vb.predict(trained.network, x, num_samples=4, refresh_bn=x).probs.shape == (4, 30, 3)


def test_parameters_of_another_network_in_the_store_are_noticed():
    first, second = PyroNetwork(small()), PyroNetwork(small())
    x, y = batch()
    Trace_ELBO().loss(classifier(first), first.guide, x, y)
    Trace_ELBO().loss(classifier(first), first.guide, x, y)
    with pytest.raises(InputError, match="another tensor"):
        Trace_ELBO().loss(classifier(second), second.guide, x, y)
    other = PyroNetwork(small(), name="other")
    Trace_ELBO().loss(classifier(other), other.guide, x, y)
    pyro.clear_param_store()
    Trace_ELBO().loss(classifier(second), second.guide, x, y)


def test_several_networks_at_once_are_refused():
    network = PyroNetwork(small())
    x, y = batch()
    with pytest.raises(InputError, match="one network at a time"):
        Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1).loss(
            classifier(network), network.guide, x, y
        )
    with pytest.raises(InputError, match="one network at a time"), pyro.plate("outer", 3):
        network.guide()
    with pytest.raises(InputError, match="one network at a time"), pyro.plate("outer", 3):
        network(x)


@pytest.mark.parametrize("bound", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("size", [1, 5])
def test_a_network_inside_a_plate_is_refused_when_the_guides_draw_is_replayed_too(bound, validated, size):
    network = PyroNetwork(small())
    x, y = batch()

    def model(x, y):
        with pyro.plate("data", size):
            network(x)

    with pyro.validation_enabled(validated), pytest.raises(InputError, match="one network at a time"):
        bound().loss(model, network.guide, x, y)
    with pyro.validation_enabled(validated), pytest.raises(InputError, match="one network at a time"):
        model(x, y)


def test_what_cannot_be_a_guide_is_refused():
    def with_posterior(posterior):
        return vb.binarize(nn.Sequential(nn.Linear(4, 3)), posterior)

    with pytest.raises(InputError, match="no binary layer"):
        PyroNetwork(nn.Linear(2, 3))
    for posterior in (vb.posteriors.Point(), vb.posteriors.Gaussian(), vb.posteriors.LowRankGaussian(rank=2)):
        with pytest.raises(InputError, match="a rule of its own"):
            PyroNetwork(with_posterior(posterior))
    for estimator in ("concrete", "mean"):
        with pytest.raises(InputError, match="not ±1"):
            PyroNetwork(with_posterior(vb.posteriors.Bernoulli(estimator=estimator)))
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="temperature"):
            PyroNetwork(small(), temperature=temperature)
    with pytest.raises(InputError, match="1 tensors for 2"):
        PyroNetwork(small(), prior=[torch.zeros(5, 4)])
    with pytest.raises(InputError, match="shape"):
        PyroNetwork(small(), prior=[torch.zeros(5, 4), torch.zeros(5, 4)])
    for prior in (math.nan, None, torch.zeros(2)):
        with pytest.raises(InputError, match="prior must be a finite number, or a list"):
            PyroNetwork(small(), prior=prior)
    with pytest.raises(InputError, match="NaN"):
        PyroNetwork(small(), prior=[torch.full((5, 4), math.nan), torch.zeros(3, 5)])
    with pytest.raises(InputError, match="one tensor per layer"):
        PyroNetwork(small(), prior=[0.1, 0.2])


def test_the_rest_of_the_library_does_not_take_the_prior_for_the_model():
    network = PyroNetwork(small())
    with pytest.raises(InputError, match="takes a model"):
        vb.predict(network, torch.randn(3, 4))


def test_tied_layers_are_one_site_with_one_pull_to_the_prior():
    net = vb.binarize(nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)))
    net[1].natural = net[0].natural
    network = PyroNetwork(net, prior=0.4)
    seen = []
    net[1].register_forward_pre_hook(lambda layer, inputs: seen.append((net[0].weight, layer.weight)))
    trace = pyro.poutine.trace(network).get_trace(torch.eye(3))
    assert [name for name, site in trace.nodes.items() if site["type"] == "sample"] == ["network.0.weight"]
    assert seen[0][0] is seen[0][1]
    Trace_ELBO().differentiable_loss(lambda x: network(x), network.guide, torch.eye(3)).backward()
    torch.testing.assert_close(net[0].natural.grad, net[0].natural.detach() - 0.4)


def test_frozen_parameters_stay_out_of_the_store_without_a_warning(recwarn):
    net = small()
    net[0].natural.requires_grad_(False)
    network = PyroNetwork(net)
    Trace_ELBO().differentiable_loss(classifier(network), network.guide, *batch()).backward()
    assert net[0].natural.grad is None
    assert net[3].natural.grad is not None
    assert "network.0.natural" not in pyro.get_param_store()
    assert [str(warning.message) for warning in recwarn] == []


def test_without_pyro_the_import_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "varbnn.bridges.pyro")
    monkeypatch.setitem(sys.modules, "pyro", None)
    with pytest.raises(MissingExtraError, match=r"varbnn\[pyro\]"):
        import varbnn.bridges.pyro  # noqa: F401
