"""summary: what is binary, what is real and why, and what it costs; health: what it refuses."""

import math

import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn.errors import InputError, VarbnnWarning


def network():
    return vb.binarize(nn.Sequential(nn.Linear(40, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2, bias=False)))


@pytest.mark.parametrize("dtype, bits", [(torch.float16, 16), (torch.float32, 32), (torch.float64, 64)])
def test_a_binary_weight_has_one_bit_and_a_real_one_those_of_its_dtype(dtype, bits):
    assert [layer.bits for layer in vb.summary(network().to(dtype)).layers] == [1, bits, 1]


def test_rows_are_packed_into_whole_words_and_the_rest_stays_as_it_is():
    first, norm, head = vb.summary(network()).layers
    assert first.deployed_bytes == 6 * 2 * 4 + 6 * 4  # two words for 40 bits, and the bias
    assert norm.deployed_bytes == norm.training_bytes == 4 * 6 * 4 + 8
    assert head.deployed_bytes == 2 * 1 * 4


def test_multiply_accumulates_are_counted_per_example_and_position():
    model = vb.binarize(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6 * 9, 5)))
    conv, linear = vb.summary(model, torch.randn(7, 4, 5, 5)).layers
    assert (conv.binary_macs, linear.binary_macs) == (6 * 9 * 2 * 9, 54 * 5)


def test_the_model_comes_out_as_it_went_in():
    model = network()
    model[1].eval()
    before = [module.training for module in model.modules()]
    vb.summary(model, torch.randn(3, 40))
    assert [module.training for module in model.modules()] == before


def test_no_example_to_count_with_is_refused():
    with pytest.raises(InputError, match="no example"):
        vb.summary(network(), torch.empty(0, 40))


@pytest.mark.parametrize("inputs", [(1, 40), torch.Size((1, 40)), (torch.zeros(1, 40), torch.zeros(1, 40))])
def test_a_shape_or_several_inputs_are_refused(inputs):
    with pytest.raises(InputError, match=r"inputs must be one batch of examples, such as torch.zeros\(1, 64\).*got"):
        vb.summary(network(), inputs)


def test_whole_numbers_where_real_ones_belong_are_refused_in_words():
    with pytest.raises(InputError, match=r"fails on inputs of torch.int64; if they are no tokens, call .float"):
        vb.summary(network(), torch.zeros(1, 40, dtype=torch.long))


def test_health_refuses_a_prior_of_another_shape():
    with pytest.raises(InputError, match=r"'0' has shape \(3,\), its belief \(6, 40\)"):
        vb.health(network(), prior=[torch.zeros(3), torch.zeros(2, 6)])


@pytest.mark.parametrize(
    "prior, given", [(0.0, "got 0.0"), (torch.zeros(2), "got a Tensor"), ([0.0, 0.0], "got a list")]
)
def test_health_refuses_a_prior_that_is_no_row_of_tensors(prior, given):
    model = network()
    vb.health(model, warn=False)
    with pytest.raises(InputError, match=f"a list of tensors, one per belief .2 here.*None for fair coins, {given}"):
        vb.health(model, prior=prior)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_health_refuses_a_broken_belief_by_name(bad):
    model = network()
    with torch.no_grad():
        model[3].natural[1, 2] = bad
    with pytest.raises(InputError, match="'3' has NaN or infinite"):
        vb.health(model)


def test_a_belief_exactly_at_an_informative_prior_is_said_to_have_learned_nothing():
    model = vb.binarize(nn.Linear(50, 20))
    with torch.no_grad():
        model.natural.fill_(2.0)
    assert "hardly left the prior" in (vb.health(model, prior=vb.as_prior(model), warn=False).warning or "")
    assert vb.health(model, warn=False).warning is None  # far from fair coins


def test_a_belief_that_does_not_move_is_noticed_at_the_second_look():
    model = vb.binarize(nn.Linear(100, 100))
    assert vb.health(model, warn=False).warning is None
    with pytest.warns(VarbnnWarning, match="hardly left the prior"):
        vb.health(model)


def test_tied_weights_are_counted_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.hidden = nn.Embedding(100, 16), nn.Linear(16, 16)
            self.head = nn.Linear(16, 100, bias=False)
            self.head.weight = self.embed.weight

    found = vb.summary(vb.binarize(Tied()))
    assert found.real_weights == 1600 + 16
    assert found.training_bytes == 4 * (1600 + 16 + 256)
    assert [row.real_weights for row in found.layers] == [1600, 16, 0]


def test_tied_beliefs_are_counted_once():
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    vb.binarize(model)
    model[1].natural = model[0].natural
    found = vb.summary(model)
    assert (found.binary_weights, found.real_weights, found.training_bytes) == (4096, 0, 4 * 4096)
    assert found.deployed_bytes == 4096 // 8
    assert found.layers[1].deployed_bytes == 0


def test_a_parametrized_belief_makes_no_negative_bytes():
    class Positive(nn.Module):
        def forward(self, x):
            return x.exp()

        def right_inverse(self, y):
            return y.log()

    model = vb.binarize(nn.Sequential(nn.Linear(64, 64)), vb.posteriors.Gaussian("learned"))
    torch.nn.utils.parametrize.register_parametrization(model[0], "precision", Positive())
    found = vb.summary(model)
    assert all(row.deployed_bytes >= 0 for row in found.layers)
    assert all(row.real_weights >= 0 for row in found.layers)


def test_a_model_that_was_never_binarized_is_told_so():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert [row.reason for row in vb.summary(model).layers] == [
        "real; varbnn.binarize makes it binary",
        "no binary twin",
    ]


def test_a_model_without_values_has_no_summary():
    with pytest.raises(InputError, match="meta device"):
        vb.summary(vb.binarize(nn.Linear(4, 3)).to("meta"))


def test_tied_layers_are_measured_once():
    model = vb.binarize(nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 2)))
    prior = vb.as_prior(model)
    model[1].natural = model[0].natural
    state = vb.health(model, prior=[prior[0], prior[2]], warn=False)
    assert state.weights == 8 * 8 + 8 * 2
    assert list(state.layer_entropy_bits) == ["0", "2"]
    assert state.kl == 0
    assert vb.health(model, prior=vb.as_prior(model), warn=False).flips == 0
