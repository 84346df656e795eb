"""binarize: what becomes binary, what stays real, and that everything else about the model survives."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import varbnn as vb
from varbnn.errors import InputError
from varbnn.nn import BinaryConv2d, BinaryLayer, BinaryLinear
from varbnn.posteriors import Bernoulli, Point


class MyLinear(nn.Linear):
    pass


class Tied(nn.Module):
    """One parameter in an embedding and in the head, as language models do."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, index):
        return self.head(self.body(self.embedding(index)))


def binary_names(model):
    return [name for name, module in model.named_modules() if isinstance(module, BinaryLayer)]


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 2))


def test_works_in_place_and_returns_the_same_object_with_the_same_layers():
    model = network()
    layers = list(model.modules())
    assert vb.binarize(model) is model
    assert all(a is b for a, b in zip(layers, model.modules(), strict=True))
    assert binary_names(model) == ["0", "1.0", "2"]


def test_every_twin_is_converted():
    model = nn.ModuleList([nn.Linear(1, 1), nn.Conv1d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv3d(1, 1, 1)])
    vb.binarize(model)
    assert [type(m).__name__ for m in model] == ["BinaryLinear", "BinaryConv1d", "BinaryConv2d", "BinaryConv3d"]


def test_a_bare_layer_comes_back_as_its_twin_and_is_the_same_object():
    layer = nn.Conv2d(2, 3, 3, stride=2, groups=1, padding="valid", bias=False)
    assert vb.binarize(layer) is layer
    assert type(layer) is BinaryConv2d
    assert (layer.stride, layer.padding, layer.bias) == ((2, 2), "valid", None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.MultiheadAttention(4, 2),
        lambda: nn.LSTM(4, 3),
        lambda: nn.Embedding(5, 4),
        lambda: nn.ConvTranspose2d(1, 1, 2),
        lambda: nn.Bilinear(2, 2, 2),
        lambda: MyLinear(4, 4),
        lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=0.5),
        lambda: nn.BatchNorm1d(4),
    ],
    ids=[
        "attention",
        "lstm",
        "embedding",
        "transposed",
        "bilinear",
        "subclass",
        "normed",
        "pruned",
        "batchnorm",
    ],
)
def test_what_has_no_twin_stays_exactly_as_it_was(make):
    model = nn.ModuleDict({"left": make(), "linear": nn.Linear(4, 4)})
    kinds = [type(m) for m in model["left"].modules()]
    names = list(model["left"].state_dict())
    vb.binarize(model)
    assert binary_names(model) == ["linear"]
    assert [type(m) for m in model["left"].modules()] == kinds
    assert list(model["left"].state_dict()) == names
    with pytest.raises(InputError, match="no layer to make binary"):
        vb.binarize(nn.ModuleDict({"left": make()}))


def test_a_lazy_layer_is_refused_because_it_would_come_out_real():
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3))
    assert "no weight yet" in str(vb.summary(model))
    with pytest.raises(InputError, match="1 has no weight yet"):
        vb.binarize(model)
    assert type(model[0]) is nn.Linear
    model(torch.zeros(2, 4))
    assert binary_names(vb.binarize(model)) == ["0", "1"]


def test_a_transformer_keeps_real_attention_and_its_fast_path_sees_the_mode():
    model = vb.binarize(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0))
    assert binary_names(model) == ["linear1", "linear2"]
    model.eval()
    x = torch.randn(2, 3, 8)
    slow = model(x)  # gradients are recorded, which rules torch's fast path out
    with torch.no_grad():
        torch.testing.assert_close(model(x), slow, rtol=1e-4, atol=1e-5)


def test_tied_parameters_stay_real_and_tied():
    model = vb.binarize(Tied())
    assert binary_names(model) == ["body"]
    assert model.head.weight is model.embedding.weight
    model(torch.tensor([1, 2])).sum().backward()


def test_a_shared_module_becomes_one_binary_module():
    shared = nn.Linear(4, 4)
    model = vb.binarize(nn.Sequential(shared, nn.ReLU(), shared))
    assert model[0] is model[2]
    assert [name for name, _ in model.named_parameters()] == ["0.bias", "0.natural"]


@pytest.mark.parametrize(
    "skip, left",
    [
        (lambda model: ["1"], ["0", "2"]),
        (lambda model: ["1.0", "2"], ["0"]),
        (lambda model: [model[1]], ["0", "2"]),
        (lambda model: [model[2]], ["0", "1.0"]),
        (lambda model: model[2], ["0", "1.0"]),
        (lambda model: model[1], ["0", "2"]),
        (lambda model: lambda name, module: name in ("0", "2"), ["1.0"]),
        (lambda model: (name for name in ["0"]), ["1.0", "2"]),
    ],
    ids=["prefix", "names", "container", "module", "bare module", "bare container", "function", "generator"],
)
def test_skip_leaves_what_it_names(skip, left):
    model = network()
    assert binary_names(vb.binarize(model, skip=skip(model))) == left


def test_skip_by_class():
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Linear(2, 2))
    for skip in ([nn.Conv1d], nn.Conv1d):
        assert binary_names(vb.binarize(model, skip=skip)) == ["1"]


def test_a_name_covers_whole_dotted_parts_only():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "head2": nn.Linear(2, 2)})
    assert binary_names(vb.binarize(model, skip=["head"])) == ["head2"]


@pytest.mark.parametrize("skip", [["heed"], [nn.Linear(1, 1)], "2", [3], [""], None, 3])
def test_a_skip_that_names_nothing_is_refused_and_the_model_unchanged(skip):
    model = network()
    with pytest.raises(InputError, match="skip"):
        vb.binarize(model, skip=skip)
    assert binary_names(model) == []
    assert not model._forward_pre_hooks


def test_nothing_to_make_binary_is_an_error():
    for model in (nn.ReLU(), nn.Sequential()):
        with pytest.raises(InputError, match="no layer to make binary"):
            vb.binarize(model)
    with pytest.raises(InputError, match="no layer to make binary"):
        vb.binarize(network(), skip=[nn.Linear])


@pytest.mark.parametrize("posterior", [Bernoulli, "bernoulli", Bernoulli().mean])
def test_what_is_not_a_posterior_is_refused(posterior):
    with pytest.raises(InputError, match="posterior"):
        vb.binarize(network(), posterior)
    with pytest.raises(InputError, match="posterior must be a varbnn posterior"):
        vb.nn.BinaryLinear(3, 2, posterior=posterior)


@pytest.mark.parametrize("name", ["binarize", "freeze", "health", "summary"])
@pytest.mark.parametrize("model", [None, nn.Linear(2, 2).parameters, "model"])
def test_what_is_no_model_is_refused(name, model):
    with pytest.raises(InputError, match=r"a model is a torch\.nn\.Module, got"):
        getattr(vb, name)(model)


def test_what_is_no_model_has_no_sample():
    with pytest.raises(InputError, match=r"a model is a torch\.nn\.Module, got None"), vb.sampled(None):
        pass


class Lacking(Bernoulli):
    def draw(self, natural, noise=None):
        return natural.missing_in_my_draw

    def mode(self, natural):
        return natural.missing_in_my_mode


def test_a_posterior_that_lacks_something_says_what():
    layer = vb.binarize(nn.Linear(3, 2), Lacking())
    for mode in ("draw", "mode"):
        with pytest.raises(RuntimeError, match=f"Lacking gave no weight: .*missing_in_my_{mode}") as caught:
            layer.train(mode == "draw")(torch.randn(4, 3))
        assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.parametrize("posterior", [Bernoulli(), Bernoulli("concrete", numerics="reference"), Point()], ids=repr)
def test_strength_starts_from_the_signs_of_the_weights_with_the_size_asked_for(posterior):
    model = network()
    weight = model[0].weight.detach().clone()
    vb.binarize(model, posterior, strength=0.7)
    assert torch.equal(model.eval()[0].weight, weight.sign())
    belief = model[0].belief[0].detach()
    torch.testing.assert_close(belief.square().mean().sqrt(), torch.tensor(0.7))
    torch.testing.assert_close(belief / belief.norm(), weight / weight.norm())


@pytest.mark.parametrize(
    "posterior",
    [vb.posteriors.Bernoulli(), vb.posteriors.Bernoulli(init="sign"), vb.posteriors.LowRankGaussian(2)],
    ids=repr,
)
@pytest.mark.parametrize("strength", [None, 0.5])
def test_a_generator_alone_decides_how_beliefs_start(posterior, strength):
    real, started = network(), []
    for seed in (3, 3, 4):
        model = vb.binarize(
            copy.deepcopy(real), posterior, strength=strength, generator=torch.Generator().manual_seed(seed)
        )
        started.append(torch.cat([p.flatten() for p in vb.as_prior(model)]))
    assert torch.equal(started[0], started[1])
    assert torch.equal(started[0], started[2]) == (strength is not None and posterior.names == ("natural",))


def test_a_generator_leaves_the_global_one_alone_and_none_takes_it():
    model = network()
    before = torch.get_rng_state()
    vb.binarize(copy.deepcopy(model), generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), before)
    vb.binarize(model)
    assert not torch.equal(torch.get_rng_state(), before)


def test_what_is_no_generator_is_refused_and_the_model_unchanged():
    with pytest.raises(InputError, match=r"generator must be a torch\.Generator"):
        vb.binarize(model := network(), generator=3)
    assert not any(isinstance(module, vb.nn.BinaryLayer) for module in model.modules())


def test_a_bad_strength_or_a_broken_weight_is_refused_and_the_model_unchanged():
    for strength in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="strength"):
            vb.binarize(model := network(), strength=strength)
        assert binary_names(model) == []
    model = network()
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        vb.binarize(model, strength=1.0)
    assert binary_names(model) == []


def test_hooks_mode_flags_dtype_and_frozen_parameters_survive():
    model = network().double().eval()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append("forward"))
    model[0].note = "mine"
    bias = model[0].bias
    vb.binarize(model)
    model(torch.randn(3, 4, dtype=torch.float64))
    assert calls == ["forward"]
    assert model[0].note == "mine"
    assert model[0].bias is bias
    assert not any(m.training for m in model.modules())
    assert model[0].natural.dtype == torch.float64
    assert {n: p.requires_grad for n, p in model.named_parameters() if not p.requires_grad} == {
        "0.natural": False,
        "2.bias": False,
    }


def test_a_half_model_gets_float32_beliefs_and_keeps_half_biases():
    model = vb.binarize(network().half())
    assert model[0].natural.dtype == torch.float32
    assert model[0].bias.dtype == torch.float16


def test_a_second_binarize_changes_nothing():
    model = vb.binarize(network())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(model._forward_pre_hooks), len(model._forward_hooks), len(model._load_state_dict_pre_hooks)]
    assert vb.binarize(model) is model
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert isinstance(model[0].posterior, Bernoulli)
    assert hooks == [len(model._forward_pre_hooks), len(model._forward_hooks), len(model._load_state_dict_pre_hooks)]


def test_layers_that_were_skipped_can_be_converted_later():
    model = vb.binarize(network(), skip=["2"])
    vb.binarize(model, Point())
    assert binary_names(model) == ["0", "1.0", "2"]
    assert isinstance(model[2], BinaryLinear)
    assert list(model[2].state_dict()) == ["bias", "latent"]


def test_another_posterior_for_a_model_that_is_binary_already_is_refused():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3)))
    assert vb.binarize(model, vb.posteriors.Bernoulli()) is model
    for again in (dict(posterior=vb.posteriors.Point()), dict(strength=1.0)):
        with pytest.raises(InputError, match="binary already"):
            vb.binarize(model, **again)


def test_setting_the_weight_says_where_to_write():
    layer = vb.binarize(nn.Linear(4, 3))
    with pytest.raises(AttributeError, match="write into natural"):
        layer.weight = nn.Parameter(torch.zeros(3, 4))
    with pytest.raises(InputError, match="holds no belief"):
        vb.as_prior(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"BayesBiNN\(model.parameters\(\)"):
        vb.optim.BayesBiNN(layer, lr=0.1, dataset_size=10)


def test_a_posterior_that_fails_half_way_leaves_the_model_as_it_was():
    @dataclass(frozen=True, repr=False)
    class Fails(vb.posteriors.Bernoulli):
        def initial(self, weight, generator=None):
            if weight.shape[0] == 2:
                raise RuntimeError("not this one")
            return super().initial(weight, generator)

    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="not this one"):
        vb.binarize(model, Fails())
    assert [type(layer) for layer in model] == [nn.Linear, nn.Linear]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
