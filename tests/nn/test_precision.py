"""Layers follow .to(...) like any module, but a belief never drops below float32."""

import copy

import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn.posteriors import Bernoulli, Gaussian, Point, belief_of

MOVES = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "to half": lambda m: m.to(torch.float16),
    "to meta": lambda m: m.to("meta"),
    "to meta half": lambda m: m.to(device="meta", dtype=torch.float16),
    "double": lambda m: m.double(),
    "double and back to half": lambda m: m.double().half(),
}
POSTERIORS = [
    Bernoulli(),
    Bernoulli("concrete", numerics="reference"),
    Bernoulli("moments"),
    Point(),
    Gaussian("learned"),
]


def model_with(posterior):
    return vb.binarize(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)), posterior)


@pytest.mark.parametrize("with_gradients", [False, True], ids=["fresh", "with gradients"])
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
@pytest.mark.parametrize("posterior", POSTERIORS, ids=repr)
def test_beliefs_and_their_gradients_stay_at_least_float32(posterior, move, with_gradients):
    model = model_with(posterior)
    if with_gradients:
        model(torch.randn(4, 6)).sum().backward()
    model = move(model)
    for layer in (model[0], model[2]):
        for tensor in layer.belief:
            assert tensor.dtype in (torch.float32, torch.float64)
            assert tensor.device == model[0].bias.device
            if with_gradients and tensor.requires_grad:
                assert tensor.grad.dtype == tensor.dtype
                assert tensor.grad.device == tensor.device
        for name in posterior.names:
            parameter = layer.get_parameter(name)
            assert belief_of(parameter) is not None, "the mark was lost on the way"
            assert parameter.is_leaf
            assert parameter.requires_grad


def test_halving_changes_no_entry_of_a_belief_and_halves_everything_else():
    model = model_with(Bernoulli())
    before = model[0].natural.detach().clone()
    model.half()
    assert torch.equal(model[0].natural, before)
    assert model[0].bias.dtype == model[1].weight.dtype == torch.float16


def test_double_doubles_the_belief_too():
    model = model_with(Bernoulli()).double()
    assert {t.dtype for t in model[0].belief} == {torch.float64}
    assert model(torch.randn(4, 6).double()).dtype == torch.float64


@pytest.mark.parametrize("estimator", ["straight-through", "moments", "mean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_model_runs_in_half_and_trains_its_float32_belief(dtype, estimator):
    layers = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    model = vb.binarize(layers, Bernoulli(estimator)).to(dtype)
    y = model(torch.randn(4, 6, dtype=dtype))
    assert y.dtype == dtype
    y.sum().backward()
    assert model[0].natural.grad.dtype == torch.float32
    assert bool((model[0].natural.grad != 0).any())


def test_a_half_convolution_equals_the_float_one_on_exact_inputs():
    layer = vb.binarize(nn.Conv2d(3, 4, 3, bias=False)).eval()
    x = torch.randint(-3, 4, (2, 3, 6, 6)).float()
    assert torch.equal(layer(x), layer.bfloat16()(x.bfloat16()).float())


def test_a_meta_model_comes_back_through_to_empty_and_reset():
    model = model_with(Bernoulli()).to("meta").to_empty(device="cpu")
    for layer in model:
        layer.reset_parameters()
    assert bool(torch.isfinite(model(torch.randn(4, 6))).all())
    assert belief_of(model[0].natural) is not None


def test_a_model_binarized_on_the_meta_device_stays_there():
    with torch.device("meta"):
        model = vb.binarize(nn.Sequential(nn.Linear(6, 5)))
    assert model[0].natural.is_meta


class TwoPrecisions(nn.Module):
    """A float32 norm, as one keeps it, in front of layers in bfloat16, of which one has no bias."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.middle = nn.Linear(6, 5).bfloat16()
        self.head = nn.Linear(5, 2, bias=False).bfloat16()

    def forward(self, x):
        return self.head(self.middle(self.norm(x).bfloat16()).relu())


@pytest.mark.parametrize("how", ["mode", "sample"])
def test_a_frozen_network_of_two_precisions_says_what_the_model_says(how):
    model, x = vb.binarize(TwoPrecisions()).eval(), torch.randn(4, 6)
    frozen = vb.freeze(model, how, generator=torch.Generator().manual_seed(0))
    if how == "mode":
        assert torch.equal(frozen(x), model(x))
    else:
        with vb.sampled(model, torch.Generator().manual_seed(0)):
            assert torch.equal(frozen(x), model(x))
    assert frozen.norm.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "move, dtype",
    [
        (lambda m: m, torch.float32),
        (lambda m: m.bfloat16(), torch.bfloat16),
        (lambda m: m.bfloat16().to("cpu"), torch.bfloat16),
        (lambda m: m.to("meta").half().to_empty(device="cpu"), torch.float16),
        (lambda m: m.half().float(), torch.float32),
        (lambda m: m.double(), torch.float64),
        (lambda m: copy.deepcopy(m.bfloat16()), torch.bfloat16),
        (lambda m: (m.load_state_dict(copy.deepcopy(m).double().state_dict(), assign=True), m)[1], torch.float64),
    ],
)
def test_layers_without_biases_freeze_in_the_precision_that_torchs_own_would_have(move, dtype):
    real = move(nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 2, bias=False)))
    for model in (vb.binarize(real), move(vb.binarize(nn.Sequential(nn.Linear(6, 5, bias=False))))):
        frozen = vb.freeze(model)
        assert frozen[0].weight.dtype == dtype
        assert frozen(torch.randn(3, 6, dtype=dtype)).dtype == dtype
