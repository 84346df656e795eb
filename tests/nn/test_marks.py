"""A belief keeps its mark, by which rules know it, however its parameter comes into the layer."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

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
