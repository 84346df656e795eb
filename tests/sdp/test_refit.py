"""Layers left real behind binary ones, against ridge regression written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from varbnn.sdp import binarize_layerwise
from varbnn.sdp.captured import rows_of
from varbnn.sdp.refit import RIDGE, refitted

QUIET = dict(progress=False, method="descent")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()


X = torch.randn(300, 12, generator=torch.Generator().manual_seed(1)).double()


def ridge(inputs, targets, old, with_bias):
    """Rows are added for the ridge, a column of ones for the bias, and lstsq does the rest."""
    middle = inputs.mean(0) if with_bias else 0.0 * inputs[0]
    held = RIDGE * ((inputs - middle) ** 2).sum(0).mean()
    size = inputs.shape[1]
    a = np.block([[inputs, np.ones((len(inputs), 1))], [np.sqrt(held) * np.eye(size), np.zeros((size, 1))]])
    b = np.concatenate([targets, np.sqrt(held) * old.T])
    a = a if with_bias else a[:, :-1]
    found = np.linalg.lstsq(a, b, rcond=None)[0]
    return found[:size].T, found[size:]


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_ridge_regression_around_its_weights(bias):
    torch.manual_seed(3)
    layer = nn.Linear(6, 4, bias=bias).double()
    real, seen = torch.randn(2, 1, 50, 6).double() + 1
    seen[..., 2] = 0.0  # an input that is always the same keeps its weights
    found = refitted(layer, real, seen)
    with torch.no_grad():
        weight, shift = ridge(seen[0].numpy(), layer(real[0]).numpy(), layer.weight.numpy(), bias)
    assert found["weight"].numpy() == pytest.approx(weight, abs=1e-9)
    assert torch.equal(found["weight"][:, 2], layer.weight[:, 2])
    assert ("bias" in found) == bias
    if bias:
        assert found["bias"].numpy() == pytest.approx(shift[0], abs=1e-9)


@torch.no_grad()
def test_groups_of_a_convolution_are_fitted_apart():
    torch.manual_seed(4)
    layer = nn.Conv2d(4, 6, 3, groups=2, padding=1).double()
    real, seen = torch.randn(2, 7, 4, 5, 5).double()
    found = refitted(layer, rows_of(layer, real), rows_of(layer, seen))
    for group in (0, 1):
        own = slice(3 * group, 3 * group + 3)
        wanted = layer(real)[:, own].movedim(1, -1).reshape(-1, 3).numpy()
        weight, shift = ridge(
            rows_of(layer, seen)[group].numpy(), wanted, layer.weight[own].reshape(3, -1).numpy(), True
        )
        assert found["weight"][own].reshape(3, -1).numpy() == pytest.approx(weight, abs=1e-9)
        assert found["bias"][own].numpy() == pytest.approx(shift[0], abs=1e-9)


def test_inputs_without_variation_leave_the_layer_as_it_is():
    layer, same = nn.Linear(3, 2).double(), torch.ones(1, 20, 3).double()
    found = refitted(layer, same, same)
    assert torch.equal(found["weight"], layer.weight)
    assert torch.allclose(found["bias"], layer.bias)


@torch.no_grad()
def test_skipped_layers_make_up_for_the_binary_ones_before_them(tmp_path):
    net = network()

    def error(model):
        return float((model(X) - net(X)).square().sum())

    kept, _ = binarize_layerwise(net, X, skip=["0", "4"], refit=False, **QUIET)
    path = tmp_path / "state"
    fitted, report = binarize_layerwise(net, X, skip=["0", "4"], state=path, **QUIET)
    assert torch.equal(kept[4].weight, net[4].weight)
    assert torch.equal(fitted[0].weight, net[0].weight)  # nothing binary is before it
    assert torch.equal(fitted[2].weight, kept[2].weight)
    assert error(fitted) < 0.8 * error(kept)
    assert report.left_real == {"0": "skipped", "4": "skipped, fitted again"}
    assert [layer.name for layer in report.layers] == ["2"]
    again, _ = binarize_layerwise(net, X, skip=["0", "4"], state=path, **QUIET)
    assert torch.equal(again[4].weight, fitted[4].weight)
    apart, report = binarize_layerwise(net, X, skip=["0", "4"], inputs="float", **QUIET)
    assert torch.equal(apart[4].weight, net[4].weight)
    assert report.left_real["4"] == "skipped"
