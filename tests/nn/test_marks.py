"""A belief keeps its mark, by which rules know it, however its parameter comes into the layer."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import varbnn as vb
from varbnn.errors import InputError
from varbnn.posteriors import Bernoulli, belief_of


def by_register(layer):
    layer.register_parameter("natural", nn.Parameter(layer.natural.detach().clone()))


def by_attribute(layer):
    layer.natural = nn.Parameter(layer.natural.detach().clone())


def by_parametrization(layer):
    parametrizations.weight_norm(layer, "natural")
    parametrize.remove_parametrizations(layer, "natural")


def by_assignment(layer):
    layer.load_state_dict(layer.state_dict(), assign=True)


@pytest.mark.parametrize("put", [by_register, by_attribute, by_parametrization, by_assignment])
def test_a_belief_in_the_place_of_another_is_one(put):
    model = vb.binarize(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)))
    put(model[0])
    assert belief_of(model[0].natural) is not None
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.0, dataset_size=100)
    assert [len(group["params"]) for group in optimizer.param_groups if group["kind"] == "belief"] == [2]


def parametrized(layer):
    parametrize.register_parametrization(layer, "natural", nn.Identity())


def pruned(layer):
    with torch.no_grad():  # torch itself cannot copy the product otherwise
        prune.l1_unstructured(layer, "natural", 0.5)


@pytest.mark.parametrize("put", [parametrized, pruned])
@pytest.mark.parametrize("how", ["copied", "from meta", "half", "assigned"])
def test_a_belief_under_a_parametrization_or_pruning_keeps_mark_and_precision(put, how):
    def count(model):
        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
        return [(group["kind"], [tuple(p.shape) for p in group["params"]]) for group in optimizer.param_groups]

    model = vb.binarize(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    put(model[0])
    prior, groups = vb.as_prior(model), count(model)
    if how == "copied":
        other = copy.deepcopy(model)
        assert [p is q for p, q in zip(model.parameters(), other.parameters(), strict=True)] == [False] * 4
    elif how == "assigned":
        other = model
        other.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, assign=True)
    else:
        other = model.half() if how == "half" else model.to("meta").to_empty(device="cpu")
    assert count(other) == groups
    assert groups[0] == ("belief", [(8, 6), (3, 8)])
    if how != "from meta":  # whose values are whatever was in the memory
        assert all(torch.equal(p, q) for p, q in zip(vb.as_prior(other), prior, strict=True))
    assert {p.dtype for p in vb.as_prior(other)} == {torch.float32}
    assert other[0].bias.dtype == (torch.float16 if how == "half" else torch.float32)


def test_a_parametrized_layer_is_copied_without_the_draw_under_way():
    model = vb.binarize(nn.Sequential(nn.Linear(6, 8)))
    parametrized(model[0])
    model[0].weight.sum().backward()
    copies = []
    model[0].register_forward_hook(lambda layer, _, output: copies.append(copy.deepcopy(layer)))
    model(torch.randn(2, 6))
    assert copies[0]._drawn is None
    assert type(copies[0]) is type(model[0])


@pytest.mark.parametrize("wrong", ["tensor", "shape", "many"])
@pytest.mark.parametrize("outputs", [1, 8])
def test_a_posterior_that_starts_with_something_else_is_told_so(wrong, outputs):
    class Own(Bernoulli):
        def initial(self, weight, generator=None):
            return {"tensor": weight, "shape": (weight[0],), "many": (weight, weight)}[wrong]

        def from_weight(self, weight, strength, generator=None):
            return self.initial(weight)

    with pytest.raises(InputError, match=r"Own.initial and from_weight must give a tuple of 1 \(natural\)"):
        vb.binarize(nn.Linear(4, outputs), Own())
    with pytest.raises(InputError, match="must give a tuple of 1"):
        vb.binarize(nn.Linear(4, outputs), Own(), strength=1.0)
    assert torch.is_tensor(vb.binarize(nn.Linear(4, outputs)).natural)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tracers_are_told_what_to_read_instead():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(InputError, match=r"varbnn\.freeze"):
        torch.fx.symbolic_trace(model)
    frozen, x = vb.freeze(model).eval(), torch.randn(5, 4)
    torch.testing.assert_close(torch.fx.symbolic_trace(frozen)(x), model.eval()(x))
    torch.testing.assert_close(torch.jit.script(frozen)(x), model(x))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_train_as_they_evaluate():
    model = vb.binarize(nn.Sequential(nn.Linear(8, 3)))
    nested = torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(5, 8)])
    assert [len(part) for part in model(nested).unbind()] == [len(part) for part in model.eval()(nested).unbind()]


def test_summaries_take_arrays():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3)))
    assert vb.summary(model, np.zeros((2, 4), "f")).layers[0].binary_macs == 12
