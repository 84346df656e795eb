"""Checkpoints: a belief loads into a belief of its own kind, anything else is refused and changes nothing."""

import io
import pickle

import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn.errors import CheckpointError
from varbnn.posteriors import Bernoulli, Gaussian, Point, belief_of


def network():
    return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def trained(model):
    for _ in range(3):
        model(torch.randn(8, 6) * 3 + 1)
    return model


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_refused(model, state, match, strict):
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=match):
        model.load_state_dict(state, strict=strict)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before), "a refused checkpoint changed the model"


strictness = pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])


@strictness
def test_a_float_checkpoint_is_refused_and_nothing_changes(strict):
    state = trained(network()).state_dict()
    assert_refused(vb.binarize(network()), state, r"real weights \(1.weight\)", strict)


@strictness
@pytest.mark.parametrize(
    "saved, own",
    [(Point(), Bernoulli()), (Bernoulli(), Point()), (Gaussian("learned"), Point())],
    ids=["point", "bernoulli", "gaussian"],
)
def test_a_checkpoint_of_another_posterior_is_refused_and_nothing_changes(saved, own, strict):
    state = trained(vb.binarize(network(), saved)).state_dict()
    assert_refused(vb.binarize(network(), own), state, f"the checkpoint has {saved.names[0]}", strict)


@strictness
def test_arrays_in_a_checkpoint_are_refused_and_nothing_changes(strict):
    state = {name: value.numpy() for name, value in trained(vb.binarize(network())).state_dict().items()}
    assert_refused(vb.binarize(network()), state, "natural is a ndarray and no tensor", strict)


@strictness
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_checkpoint_with_a_broken_belief_is_refused_and_nothing_changes(bad, strict):
    state = snapshot(trained(vb.binarize(network())))
    state["4.natural"][0, 1] = bad
    assert_refused(vb.binarize(network()), state, "4.*natural has NaN or infinite", strict)


@strictness
def test_a_checkpoint_of_another_shape_is_refused_and_nothing_changes(strict):
    state = snapshot(trained(vb.binarize(network())))
    state["4.natural"] = torch.zeros(3, 5)
    assert_refused(vb.binarize(network()), state, r"shape \(2, 5\), the checkpoint \(3, 5\)", strict)


@strictness
def test_a_wrapped_model_refuses_too_and_its_binary_part_does_not_change(strict):
    model = nn.ModuleDict({"net": vb.binarize(network())})
    state = nn.ModuleDict({"net": trained(network())}).state_dict()
    assert_refused(model, state, "net.1.weight", strict)


def test_a_float_checkpoint_is_refused_by_a_bare_layer():
    assert_refused(vb.binarize(nn.Linear(3, 2)), nn.Linear(3, 2).state_dict(), "real weights", True)


@strictness
def test_a_model_built_by_hand_from_binary_layers_refuses_a_float_checkpoint_too(strict):
    model = nn.Sequential(vb.nn.BinaryLinear(3, 2))
    assert_refused(model, nn.Sequential(nn.Linear(3, 2)).state_dict(), "real weights", strict)


def test_a_float_model_refuses_a_belief():
    with pytest.raises(RuntimeError, match="natural"):
        network().load_state_dict(vb.binarize(network()).state_dict())


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
def test_a_checkpoint_read_with_weights_only_restores_the_posterior_and_keeps_the_mark(assign):
    posterior = Bernoulli("concrete", numerics="reference")
    model, other = trained(vb.binarize(network(), posterior)), vb.binarize(network(), posterior)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), assign=assign)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert belief_of(other[1].natural) is not None
    x = torch.randn(4, 6)
    assert torch.equal(model.eval()(x), other.eval()(x))


def test_a_missing_belief_is_reported_as_torch_does():
    state = vb.binarize(network()).state_dict()
    del state["1.natural"]
    with pytest.raises(RuntimeError, match="Missing key"):
        vb.binarize(network()).load_state_dict(state)
    assert vb.binarize(network()).load_state_dict(state, strict=False).missing_keys == ["1.natural"]


def test_a_pickled_or_saved_model_comes_back_whole():
    model = trained(vb.binarize(network()))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = torch.randn(4, 6)
    for other in (pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        torch.manual_seed(2)
        y = model(x)
        torch.manual_seed(2)
        assert torch.equal(other(x), y)
        assert belief_of(other[1].natural) is not None
        with pytest.raises(CheckpointError):
            other.load_state_dict(network().state_dict())


def test_functional_call_and_vmap_run_an_ensemble_of_beliefs_with_a_draw_each():
    model = vb.binarize(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)))
    beliefs = {name: torch.stack([p.detach()] * 3) for name, p in model.named_parameters()}
    x = torch.randn(4, 6)

    def run(parameters):
        return torch.func.functional_call(model, parameters, (x,))

    y = torch.func.vmap(run, randomness="different")(beliefs)
    assert y.shape == (3, 4, 2)
    assert not torch.equal(y[0], y[1])
    model.eval()
    beliefs["0.natural"] = torch.randn(3, 5, 6)
    y = torch.func.vmap(run)(beliefs)
    for member in range(3):
        torch.testing.assert_close(y[member], run({name: b[member] for name, b in beliefs.items()}))


def test_grad_through_functional_call_and_vmap_is_the_straight_through_gradient():
    layer = vb.binarize(nn.Linear(6, 1, bias=False))
    x = torch.randn(6)

    def loss(natural):
        return torch.func.functional_call(layer, {"natural": natural}, (x,)).sum()

    naturals = torch.randn(3, 1, 6)
    gradients = torch.func.vmap(torch.func.grad(loss), randomness="different")(naturals)
    torch.testing.assert_close(gradients, x.expand(3, 1, 6))


def test_a_concrete_belief_under_vmap_draws_each_member_on_its_own():
    posterior = Bernoulli("concrete", 0.5)
    weights = torch.func.vmap(posterior.draw, randomness="different")(torch.zeros(2, 50))
    assert not torch.equal(weights[0], weights[1])
