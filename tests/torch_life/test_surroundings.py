"""torch's settings and modes around a model: default dtype and device, inference mode, vmap, parametrizations."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import varbnn as vb
from tests.surroundings import default_dtype
from varbnn.errors import InputError
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point

POSTERIORS = [
    Bernoulli(),
    Bernoulli("moments"),
    Bernoulli("concrete"),
    Bernoulli("concrete", numerics="reference"),
    Bernoulli(gradient="euclidean"),
    Point(),
    Point(clip=1.0),
    Gaussian(),
    Gaussian("learned"),
    LowRankGaussian(2),
]
every_posterior = pytest.mark.parametrize("posterior", POSTERIORS, ids=repr)


def model_with(posterior=None, size=6):
    return vb.binarize(nn.Sequential(nn.Linear(size, size), nn.BatchNorm1d(size)), posterior)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_draws_are_signs_whatever_the_default_dtype(dtype):
    """64×64 weights take the compiled draw, which writes float32."""
    with default_dtype(dtype):
        made_here, made_before = vb.binarize(nn.Linear(64, 64)), vb.binarize(nn.Linear(64, 64, dtype=torch.float32))
        for layer in (made_here, made_before):
            assert layer.weight.dtype == layer.natural.dtype
            assert layer.weight.abs().eq(1).all()
            assert vb.freeze(layer, "sample").weight.abs().eq(1).all()
        assert made_here(torch.randn(3, 64)).isfinite().all()


def test_the_same_seed_draws_the_same_whatever_the_default_dtype():
    layer = vb.binarize(nn.Linear(64, 64))
    torch.manual_seed(0)
    expected = layer.weight
    with default_dtype(torch.float64):
        torch.manual_seed(0)
        assert torch.equal(layer.weight, expected)


def test_packing_is_not_upset_by_the_default_dtype():
    model, x = model_with(size=64).eval(), torch.randn(5, 64)
    expected = vb.pack(model, 3, generator=torch.Generator().manual_seed(0), refresh_bn=x)(x)
    with default_dtype(torch.float64):
        found = vb.pack(model, 3, generator=torch.Generator().manual_seed(0), refresh_bn=x)(x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [6, 64])
def test_a_model_on_the_cpu_works_under_another_default_device(size):
    model, x = model_with(size=size), torch.randn(5, size)
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=10, momentum=0.9)
    with torch.device("meta"):
        weight = model[0].weight
        model(x).square().sum().backward()
        optimizer.step()
        vb.refresh_batchnorm(model, x)
    assert weight.device.type == "cpu"
    assert weight.abs().eq(1).all()
    assert model[0].natural.isfinite().all()


@every_posterior
def test_drawing_under_inference_mode(posterior):
    """As MC dropout is used: train mode, no gradient."""
    model, x = model_with(posterior), torch.randn(5, 6)
    with torch.inference_mode():
        outputs = [model(x) for _ in range(20)]
    assert all(out.isfinite().all() for out in outputs)
    if not posterior.certain and posterior != Bernoulli("concrete", numerics="reference"):
        assert any(not torch.equal(outputs[0], out) for out in outputs[1:])
    model(x).square().sum().backward()
    assert all(getattr(model[0], name).grad is not None for name in posterior.names)


@every_posterior
@pytest.mark.parametrize("size", [6, 64])
def test_vmap_with_different_randomness_draws_a_network_for_each(posterior, size):
    layer, x = vb.binarize(nn.Linear(size, size), posterior), torch.randn(5, size)
    outputs = torch.func.vmap(lambda _: layer(x), randomness="different")(torch.arange(20))
    assert outputs.shape == (20, 5, size)
    if not posterior.certain and posterior != Bernoulli("concrete", numerics="reference"):
        assert any(not torch.equal(outputs[0], out) for out in outputs[1:])


class Positive(nn.Module):
    def forward(self, x):
        return x.exp()

    def right_inverse(self, y):
        return y.log()


def test_a_parametrized_precision_moves_and_loads_and_is_not_frozen():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), Gaussian("learned"))
    precision = model[0].precision.detach().clone()
    parametrize.register_parametrization(model[0], "precision", Positive())
    model.double()
    model.load_state_dict(model.state_dict())
    torch.testing.assert_close(model[0].precision, precision.double())
    with pytest.raises(InputError, match="0 has a parametrized or pruned parameter"):
        vb.freeze(model)
    parametrize.remove_parametrizations(model[0], "precision")
    assert vb.freeze(model)(torch.randn(2, 4, dtype=torch.float64)).shape == (2, 2)


def test_a_parametrized_bias_is_not_lost_by_freezing():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3)))
    parametrize.register_parametrization(model[0], "bias", Positive(), unsafe=True)
    with pytest.raises(InputError, match="parametrized or pruned"):
        vb.freeze(model)


def test_a_pruned_belief_moves_and_is_not_frozen():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3)))
    prune.l1_unstructured(model[0], "natural", 0.5)
    model.double()
    assert model(torch.randn(2, 4, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(InputError, match="parametrized or pruned"):
        vb.freeze(model)


def test_low_rank_convolutions_take_channels_last():
    model = vb.binarize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)), LowRankGaussian(2))
    before = [p.detach().clone() for p in model.parameters()]
    model.to(memory_format=torch.channels_last)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(layer.location.is_contiguous(memory_format=torch.channels_last) for layer in model)
    optimizer = vb.optim.VISPA(model.parameters(), lr=1.0)
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].factors, before[1])
    model.half()
    assert model[0].factors.dtype == torch.float32


def test_low_rank_factors_share_memory_when_asked():
    model = vb.binarize(nn.Sequential(nn.Linear(3, 4)), LowRankGaussian(2)).share_memory()
    assert all(p.is_shared() for p in model.parameters())


def test_batch_norm_that_is_called_by_keyword_is_refreshed():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(input=self.linear(x))

    model, x = vb.binarize(Keyword()), torch.randn(50, 4)
    vb.refresh_batchnorm(model, x)
    model.eval()
    torch.testing.assert_close(model.norm.running_mean, model.linear(x).mean(0))
