"""freeze gives torch's own layers with exactly ±1 weights and no trace of varbnn."""

import io
import pickle

import pytest
import torch
from torch import nn

import varbnn as vb
from tests.tolerance import assert_within_standard_errors
from varbnn.errors import InputError, VarbnnWarning
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point

pytestmark = pytest.mark.filterwarnings("ignore:this model has batch norm")  # one test of its own asks for it


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3, bias=False),
    )


POSTERIORS = [Bernoulli(), Bernoulli("concrete", numerics="reference"), Point(), Gaussian("learned")]
X = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("error")
def test_batch_norm_without_fresh_statistics_is_warned_of_where_the_user_stands():
    with pytest.warns(VarbnnWarning, match="pass refresh_bn=training inputs") as caught:
        vb.freeze(vb.binarize(network()))
    assert caught[0].filename == __file__
    vb.freeze(vb.binarize(network()), refresh_bn=X)
    vb.freeze(vb.binarize(network(), Point()))


def traces(pickled):
    return pickled.count(b"varbnn")


@pytest.mark.parametrize("how", ["mode", "sample"])
@pytest.mark.parametrize("posterior", POSTERIORS, ids=repr)
def test_the_result_is_stock_torch_without_any_varbnn_object(posterior, how):
    frozen = vb.freeze(vb.binarize(network(), posterior), how)
    assert [type(m) for m in frozen.modules()] == [type(m) for m in network().modules()]
    assert list(frozen.state_dict()) == list(network().state_dict())
    assert frozen[0].weight.abs().unique().tolist() == frozen[4].weight.abs().unique().tolist() == [1.0]
    assert not frozen[0].weight.requires_grad
    assert not traces(pickle.dumps(frozen)), "a varbnn object stayed behind"
    file = io.BytesIO()
    torch.save(frozen, file)
    assert not traces(file.getvalue())


def test_parts_that_were_binarized_on_their_own_leave_no_trace_either():
    frozen = vb.freeze(nn.Sequential(vb.binarize(network()), vb.binarize(nn.Linear(3, 2))))
    assert not traces(pickle.dumps(frozen))


def test_the_result_loads_what_an_ordinary_network_loads():
    frozen, plain = vb.freeze(vb.binarize(network())), network()
    plain.load_state_dict(frozen.state_dict())
    assert torch.equal(plain.eval()(X), frozen.eval()(X))
    frozen.load_state_dict(network().state_dict())


def test_the_mode_network_computes_what_the_model_does_in_eval():
    model = vb.binarize(network())
    model(X)
    assert torch.equal(vb.freeze(model).eval()(X), model.eval()(X))


def test_a_sample_comes_from_the_generator_and_follows_the_posterior():
    model = vb.binarize(nn.Sequential(nn.Linear(300, 300)))
    with torch.no_grad():
        model[0].natural.fill_(0.5)
    first, again, other = (vb.freeze(model, "sample", generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    mean = torch.tanh(torch.tensor(0.5)).item()
    assert_within_standard_errors(first[0].weight.mean(), mean, ((1 - mean**2) / 90_000) ** 0.5)


@pytest.mark.parametrize("how", ["mode", "sample"])
def test_the_model_itself_is_unchanged_and_shares_no_memory(how):
    model = vb.binarize(network())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = vb.freeze(model, how, refresh_bn=X)
    with torch.no_grad():
        for tensor in frozen.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    y = model(X)
    assert not torch.equal(y, model(X)), "the model no longer draws"


def test_shared_layers_stay_shared_and_modes_and_dtypes_stay():
    shared = nn.Linear(4, 4)
    model = vb.binarize(nn.Sequential(shared, nn.Tanh(), shared).double()).eval()
    frozen = vb.freeze(model)
    assert frozen[0] is frozen[2]
    assert frozen[0].weight.dtype == torch.float64
    assert not frozen.training


def test_a_half_model_freezes_to_half_weights():
    frozen = vb.freeze(vb.binarize(nn.Sequential(nn.Linear(4, 3))).half())
    assert frozen[0].weight.dtype == torch.float16
    assert frozen(torch.randn(2, 4).half()).dtype == torch.float16


def test_hooks_of_the_user_stay_and_a_bare_layer_freezes():
    layer = vb.binarize(nn.Linear(4, 3))
    layer.register_forward_hook(torch.nn.Identity())
    frozen = vb.freeze(layer)
    assert type(frozen) is nn.Linear
    assert len(frozen._forward_hooks) == 1


def test_of_a_compiled_model_the_network_inside_is_frozen():
    model = vb.binarize(network())
    frozen, plain = vb.freeze(torch.compile(model, backend="eager"), refresh_bn=X), vb.freeze(model, refresh_bn=X)
    assert type(frozen) is nn.Sequential
    assert frozen.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(frozen.eval()(X), plain.eval()(X))
    assert type(vb.freeze(torch.compile(vb.nn.BinaryLinear(4, 2), backend="eager"))) is nn.Linear


def test_refresh_bn_estimates_the_statistics_of_the_frozen_weights():
    frozen = vb.freeze(vb.binarize(network()), "sample", refresh_bn=X)
    activations = frozen[0](X).detach()
    torch.testing.assert_close(frozen[1].running_mean, activations.mean((0, 2, 3)))
    torch.testing.assert_close(frozen[1].running_var, activations.var((0, 2, 3)))


def test_freezing_while_a_sample_is_held_still_gives_the_mode():
    model = vb.binarize(network())
    with vb.sampled(model):
        frozen = vb.freeze(model)
    assert torch.equal(frozen[4].weight, model.eval()[4].weight)
    assert not traces(pickle.dumps(frozen))


def test_an_unknown_way_and_a_model_without_binary_layers_are_refused():
    with pytest.raises(InputError, match="'mode' or 'sample'"):
        vb.freeze(vb.binarize(network()), "mean")
    with pytest.raises(InputError, match="no binary layer"):
        vb.freeze(network())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("posterior", [*POSTERIORS, LowRankGaussian(rank=2)], ids=repr)
def test_a_broken_belief_is_refused_whichever_of_its_parameters_it_is_in(posterior, value):
    for name in posterior.names:
        model = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), posterior)
        with torch.no_grad():
            model[1].get_parameter(name).view(-1)[-1] = value
        for ask in (
            lambda model: vb.freeze(model),
            lambda model: vb.freeze(model, "sample"),
            lambda model: vb.as_prior(model),
            lambda model: vb.predict(model, torch.randn(5, 4), 0),
            lambda model: vb.health(model),
        ):
            with pytest.raises(InputError, match="the belief of layer '1' has NaN or infinite entries"):
                ask(model)
