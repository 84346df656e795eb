"""Forward-mode derivatives are those of the backward pass: the gradient of a belief is replaced in both."""

import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point

POSTERIORS = [
    Bernoulli(),
    Bernoulli("concrete", relaxation=0.5),
    Bernoulli(gradient="euclidean"),
    Bernoulli("moments"),
    Gaussian(),
    Gaussian("learned"),
    LowRankGaussian(rank=2),
    Point(),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about its own scripts
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("posterior", POSTERIORS, ids=repr)
def test_jvp_is_the_gradient_along_the_direction(posterior, training):
    torch.manual_seed(0)
    model = vb.binarize(nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), posterior).train(training)
    x = torch.randn(5, 8)
    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}

    def loss(parameters):
        torch.manual_seed(1)
        return torch.func.functional_call(model, parameters, (x,)).square().sum()

    gradient = torch.func.grad(loss)(parameters)
    along = sum((gradient[name] * direction[name]).sum() for name in parameters)
    value, tangent = torch.func.jvp(loss, (parameters,), (direction,))
    torch.testing.assert_close(value, loss(parameters))
    torch.testing.assert_close(tangent, along, rtol=1e-4, atol=1e-4)
    assert float(along) != 0
