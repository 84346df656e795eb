"""Networks made binary layer by layer, against the layers themselves, enumeration and one another."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from tests.sdp.test_batch import optimum
from varbnn.errors import CheckpointError, InputError
from varbnn.sdp import batch, binarize_layerwise, layerwise, with_sign_layers
from varbnn.sdp.captured import rows_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 5 * 5, 6, bias=False), nn.ReLU(), nn.Linear(6, 3),
    ).eval()  # fmt: skip


X = torch.randn(80, 2, 5, 5, generator=torch.Generator().manual_seed(1))
QUIET = dict(progress=False, tolerance=0.05)


@pytest.fixture(scope="module")
def done():
    return binarize_layerwise(network(), X, **QUIET)


CONVOLUTIONS = [
    (nn.Conv1d(3, 4, 3), (2, 3, 9)),
    (nn.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2, padding=3), (2, 4, 11)),
    (nn.Conv2d(3, 4, (3, 2), padding="same", dilation=(1, 2)), (2, 3, 6, 7)),
    (nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"), (2, 4, 6, 5)),
    (nn.Conv2d(2, 4, 3, stride=(2, 3), padding=(2, 0), padding_mode="circular"), (3, 2, 7, 8)),
    (nn.Conv2d(2, 4, 3), (2, 7, 8)),
    (nn.Conv3d(2, 4, (2, 3, 1), stride=(1, 2, 1), padding=(1, 1, 0), groups=2), (2, 2, 4, 5, 3)),
    (nn.Linear(4, 3), (2, 5, 4)),
]


@pytest.mark.parametrize("layer, shape", CONVOLUTIONS, ids=lambda value: str(value))
@torch.no_grad()
def test_rows_times_weights_are_the_outputs_of_the_layer(layer, shape):
    layer, x = copy.deepcopy(layer).double(), torch.randn(shape, dtype=torch.float64)
    rows = rows_of(layer, x)
    weight = layer.weight.reshape(len(rows), len(layer.weight) // len(rows), -1)
    outputs = torch.einsum("gmk,gpk->mgp", rows, weight).reshape(rows.shape[1], -1) + layer.bias
    wanted = layer(x)
    if not isinstance(layer, nn.Linear):
        wanted = wanted if wanted.dim() == x.dim() and x.dim() == layer.weight.dim() else wanted[None]
        wanted = wanted.movedim(1, -1)
    assert torch.allclose(outputs, wanted.reshape(outputs.shape), atol=1e-12)


def test_weights_are_a_scale_times_signs_and_the_original_is_untouched(done):
    model, report = done
    assert [layer.name for layer in report.layers] == ["0", "4", "6"]
    for layer in report.layers:
        weight = model.get_submodule(layer.name).weight.detach()
        rows = weight.reshape(len(weight), -1).abs()
        assert torch.equal(rows, rows[:, :1].expand_as(rows))
        assert np.allclose(rows[:, 0], layer.scales)
        assert layer.bound <= layer.error <= layer.xnor_error
    before = network()
    again, _ = binarize_layerwise(before, X, method="descent", progress=False)
    assert all(
        torch.equal(a, b) for a, b in zip(before.state_dict().values(), network().state_dict().values(), strict=True)
    )
    assert not torch.equal(again[0].weight, before[0].weight)


@torch.no_grad()
def test_objectives_are_what_the_layers_do():
    """A first layer with a bias, from its outputs; and the second, whose inputs are those of the binary first."""
    torch.manual_seed(2)
    net, x = (
        nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2, bias=False)).double(),
        torch.randn(60, 8).double(),
    )
    binary, report = binarize_layerwise(net, x, progress=False)
    first = (net[0](x) - binary[0](x)).square().sum(0)
    second = (net(x) - binary(x)).square().sum(0)
    assert report["0"].objectives == pytest.approx(first.numpy(), rel=1e-9)
    assert report["2"].objectives == pytest.approx(second.numpy(), rel=1e-9)
    y = (x @ net[0].weight.T).numpy()
    xnor = y - (x @ net[0].weight.sign().T * net[0].weight.abs().mean(1)).numpy()
    assert report["0"].xnor == pytest.approx((xnor**2).sum(0))
    assert report["0"].energies == pytest.approx((y**2).sum(0))
    # the least over signs and scales, by enumeration, of what a bias leaves
    centred = (x - x.mean(0)).numpy()
    best = [optimum(centred, y[:, p] - y[:, p].mean(), "free") for p in range(5)]
    assert (report["0"].lower_bounds <= np.array(best) * (1 + 1e-9)).all()
    assert report["0"].objectives == pytest.approx(np.array(best), rel=0.2)


def test_inputs_of_the_float_model_are_another_choice(done):
    _, report = binarize_layerwise(network(), X, inputs="float", **QUIET)
    assert np.array_equal(report["0"].objectives, done[1]["0"].objectives)
    assert not np.array_equal(report["4"].objectives, done[1]["4"].objectives)


def test_batch_norm_describes_the_binary_network(done):
    model = copy.deepcopy(done[0])
    before = model[1].running_mean.clone()
    vb.refresh_batchnorm(model, X)
    assert torch.allclose(before, model[1].running_mean, atol=1e-6)


def test_skipped_and_unused_layers_stay_real():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early, self.never = nn.Linear(4, 2), nn.Linear(3, 4), nn.Linear(2, 2)

        def forward(self, x):
            return self.late(self.early(x).relu())

    model = Model()
    binary, report = binarize_layerwise(model, torch.randn(50, 3), skip=["late"], **QUIET)
    assert [layer.name for layer in report.layers] == ["early"]
    assert report.left_real == {"late": "skipped, fitted again", "never": "not used by the model"}
    assert not torch.equal(binary.late.weight, model.late.weight)
    assert torch.equal(binary.never.weight, model.never.weight)
    assert "left real: late (skipped, fitted again)" in str(report)


def test_a_dead_input_and_rows_at_random():
    x = torch.randn(300, 6)
    x[:, 2] = 0
    _, report = binarize_layerwise(nn.Linear(6, 3), x, max_rows=100, **QUIET)
    assert report[""].rows == 100
    assert np.isfinite(report[""].objectives).all()
    assert "(model)" in str(report)


def test_a_loader_of_batches_does_as_one_tensor(done):
    model, report = binarize_layerwise(network(), [(X[:50], None), (X[50:], None)], **QUIET)
    assert np.allclose(report["6"].objectives, done[1]["6"].objectives, rtol=1e-3)
    assert torch.equal(model[0].weight.sign(), done[0][0].weight.sign())


@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, monkeypatch, done, where):
    path, calls = tmp_path / "state.safetensors", []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == where + 1:
            raise KeyboardInterrupt
        return batch.least_squares_batch(*args, **kwargs)

    monkeypatch.setattr(layerwise, "least_squares_batch", interrupted)
    partly, report = binarize_layerwise(network(), X, state=path, **QUIET)
    assert not report.complete
    assert "interrupted" in str(report)
    assert torch.equal(partly[6].weight, network()[6].weight)
    monkeypatch.undo()
    model, report = binarize_layerwise(network(), X, state=path, **QUIET)
    assert report.complete
    for key, tensor in done[0].state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key
    for layer in report.layers:
        assert np.array_equal(layer.lower_bounds, done[1][layer.name].lower_bounds)


def test_a_state_of_another_run_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    binarize_layerwise(nn.Linear(3, 2), torch.ones(4, 3), state=path, **QUIET)
    with pytest.raises(CheckpointError, match="another model"):
        binarize_layerwise(nn.Linear(3, 2), torch.ones(4, 3), state=path, **QUIET)
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        binarize_layerwise(nn.Linear(3, 2), torch.ones(4, 3), state=path, **QUIET)


@torch.no_grad()
def test_with_sign_layers_it_packs_and_answers_the_same(done):
    signed = with_sign_layers(done[0]).eval()
    assert [type(signed[i][0]).__name__ for i in (0, 4, 6)] == ["BinaryConv2d", "BinaryLinear", "BinaryLinear"]
    assert torch.allclose(signed(X), done[0](X), atol=1e-4)
    packed = vb.pack(signed, num_samples=0)
    assert torch.allclose(packed(X)[0], done[0](X), atol=1e-4)
    with pytest.raises(InputError, match="one magnitude"):
        with_sign_layers(nn.Linear(8, 8))


@torch.no_grad()
def test_with_sign_layers_a_layer_used_at_two_places_keeps_its_scales_at_both():
    torch.manual_seed(0)
    x, tied = torch.randn(200, 6), nn.Linear(6, 6)
    binary, _ = binarize_layerwise(nn.Sequential(tied, nn.ReLU(), tied), x, **QUIET)
    signed = with_sign_layers(binary)
    assert signed[0] is signed[2]
    torch.testing.assert_close(signed(x), binary(x))


class Noted(nn.ReLU):
    """A module with a state that is no tensor."""

    def get_extra_state(self):
        return {"note": "mine"}

    def set_extra_state(self, state):
        pass


def test_numbers_of_numpy_and_states_that_are_no_tensors_are_taken():
    torch.manual_seed(0)
    net, options = nn.Sequential(nn.Linear(4, 2), Noted()), dict(max_rows=20, num_roundings=7, seed=3)
    kinds = dict(max_rows=np.int64, num_roundings=np.int32, seed=np.uint8)
    plain, _ = binarize_layerwise(net, X[:, 0, 0, :4], **options, **QUIET)
    found, _ = binarize_layerwise(net, X[:, 0, 0, :4], **{k: kinds[k](v) for k, v in options.items()}, **QUIET)
    assert torch.equal(found[0].weight, plain[0].weight)


def test_max_rows_is_a_whole_number():
    with pytest.raises(InputError, match="max_rows must be a whole number"):
        binarize_layerwise(nn.Linear(3, 2), torch.ones(4, 3), max_rows=2.5, **QUIET)


@pytest.mark.parametrize(
    "model, x, options, words",
    [
        (nn.Linear(3, 2), torch.full((4, 3), float("nan")), {}, "NaN"),
        (nn.Linear(3, 2), torch.ones(0, 3), {}, "empty"),
        (nn.Linear(3, 2), iter([torch.ones(4, 3)]), {}, "every layer"),
        (nn.ReLU(), torch.ones(4, 3), {}, "no layer"),
        (nn.Linear(3, 2), torch.ones(4, 3), {"inputs": "both"}, "'binary' or 'float'"),
        (nn.Linear(3, 2), torch.ones(4, 3), {"max_rows": 0}, "max_rows"),
        (nn.Linear(3, 2), torch.ones(4, 3), {"skip": ["nowhere"]}, "there is no"),
        (nn.Linear(3, 2), torch.ones(4, 3), {"method": "magic"}, "one of"),
    ],
)
def test_what_does_not_fit_is_refused(model, x, options, words):
    with pytest.raises(InputError, match=words):
        binarize_layerwise(model, x, progress=False, **options)


@pytest.mark.parametrize("shuffled", ["loader", "augmented"])
def test_inputs_in_another_order_on_a_later_pass_are_refused(shuffled):
    if shuffled == "loader":
        data = torch.utils.data.DataLoader(X, batch_size=20, shuffle=True)
    else:

        class Augmented:
            def __iter__(self):
                return iter([X + torch.rand(()), X])

        data = Augmented()
    with pytest.raises(InputError, match="other inputs, or another order, on a later pass"):
        binarize_layerwise(network(), data, method="descent", **QUIET)


def test_no_batch_at_all_is_refused():
    with pytest.raises(InputError, match="yields no batch"):
        binarize_layerwise(network(), [], **QUIET)


def test_a_state_that_cannot_be_written_is_heard_of_before_a_layer_is_solved(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(layerwise, "least_squares_batch", None)
    with pytest.raises(CheckpointError, match="cannot be written"):
        binarize_layerwise(network(), X, state=tmp_path / "file" / "state", **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_layer_called_by_keyword_is_seen_and_an_unknown_one_is_named(done):
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(input=x)

    _, report = binarize_layerwise(Keyword(), torch.randn(30, 4), **QUIET)
    assert [layer.name for layer in report.layers] == ["layer"]
    with pytest.raises(KeyError, match="no layer 'zz'"):
        done[1]["zz"]
