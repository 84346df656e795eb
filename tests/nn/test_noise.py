"""Learned noise and its loss, compared with scipy; scales around binary layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import varbnn as vb
from varbnn.data import batches
from varbnn.errors import InputError
from varbnn.nn import LearnedNoise, Scale, gaussian_nll


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_loss_is_the_mean_of_minus_the_log_density(outputs):
    rng = np.random.default_rng(0)
    means, log_variance, targets = rng.normal(size=(3, 7, outputs))
    found = gaussian_nll(torch.tensor(np.hstack([means, log_variance])), torch.tensor(targets))
    expected = -stats.norm.logpdf(targets, means, np.exp(log_variance / 2)).sum(1).mean()
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_flat_targets_will_do_for_one_output():
    outputs = torch.randn(5, 2)
    targets = torch.randn(5)
    assert gaussian_nll(outputs, targets) == gaussian_nll(outputs, targets[:, None])


@pytest.mark.parametrize(
    "outputs, targets, message",
    [
        (torch.zeros(4, 3), torch.zeros(4, 1), "n×2D"),
        (torch.zeros(4), torch.zeros(4), "n×2D"),
        (torch.zeros(4, 0), torch.zeros(4, 0), "n×2D"),
        (torch.zeros(4, 4), torch.zeros(4), "shape of the means"),
        (torch.zeros(4, 2), torch.zeros(1, 1), "shape of the means"),
        (torch.zeros(4, 2), torch.full((4, 1), torch.nan), "NaN"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(outputs, targets, message):
    with pytest.raises(InputError, match=message):
        gaussian_nll(outputs, targets)


def test_the_loss_stays_finite_where_the_noise_would_vanish():
    outputs = torch.tensor([[0.0, -1e4]], requires_grad=True)
    gaussian_nll(outputs, torch.zeros(1, 1)).backward()
    assert outputs.grad.isfinite().all()


def test_noise_is_learned_to_its_maximum_likelihood():
    torch.manual_seed(0)
    y = 3.0 * torch.randn(500, 1)
    model = LearnedNoise()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = gaussian_nll(model(torch.zeros_like(y)), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(model.variance) == pytest.approx(float(y.square().mean()), rel=1e-4)


@pytest.mark.parametrize("options", [dict(outputs=0), dict(outputs=True), dict(initial=0.0), dict(initial=torch.inf)])
def test_options_of_the_noise_are_checked(options):
    with pytest.raises(InputError):
        LearnedNoise(**options)


def test_noise_takes_only_as_many_means_as_it_was_made_for():
    with pytest.raises(InputError, match="n×2, got"):
        LearnedNoise(2)(torch.zeros(4, 3))


def test_a_scale_multiplies_and_shifts_each_feature():
    scale = Scale(3, 2.0, shift=True)
    with torch.no_grad():
        scale.shift.copy_(torch.tensor([0.0, 1.0, 2.0]))
    assert scale(torch.ones(1, 3)).tolist() == [[2.0, 3.0, 4.0]]
    with pytest.raises(InputError, match="whole number ≥ 1"):
        Scale(0)


def heteroscedastic(seed: int = 0):
    torch.manual_seed(seed)
    x = torch.rand(2000, 1) * 2 - 1
    return x, x + (0.05 + 0.5 * (x > 0)) * torch.randn_like(x)


@pytest.mark.parametrize("heads", ["one noise", "noise by input"])
def test_fit_learns_the_noise_of_the_data(heads):
    x, y = heteroscedastic()
    hidden = [Scale(1), nn.Linear(1, 64), nn.ReLU()]
    own = heads == "noise by input"
    head = nn.Linear(64, 2 if own else 1)
    model = vb.binarize(nn.Sequential(*hidden, head, *([] if own else [LearnedNoise()])), skip=[head])
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=1e-2, dataset_size=len(x), temperature=1e-2)
    vb.fit(model, optimizer, batches(x, y, 50), epochs=15, loss=gaussian_nll, progress=False)
    prediction = vb.predict(model, x, 8, task="gaussian")
    deviation = prediction.aleatoric.sqrt()
    left, right = deviation[x < -0.2].mean().item(), deviation[x > 0.2].mean().item()
    if own:
        assert left < 0.5 * right
        assert right == pytest.approx(0.55, rel=0.25)
    else:
        assert left == pytest.approx(right)
        assert left == pytest.approx((0.5 * (0.05**2 + 0.55**2)) ** 0.5, rel=0.25)
    assert vb.evaluate(prediction, y)["rmse"] < 0.45


def test_predict_reads_means_and_variances_and_refuses_other_outputs():
    model = vb.binarize(nn.Sequential(nn.Linear(2, 4)))
    x = torch.randn(6, 2)
    generator = torch.Generator().manual_seed(1)
    found = vb.predict(model, x, 3, task="gaussian", generator=generator)
    raw = vb.predict(model, x, 3, task="regression", generator=torch.Generator().manual_seed(1)).means
    assert torch.equal(found.means, raw[..., :2])
    torch.testing.assert_close(found.noise_variance, raw[..., 2:].exp())
    with pytest.raises(InputError, match="the model says it"):
        vb.predict(model, x, 3, task="gaussian", noise_variance=1.0)
    with pytest.raises(InputError, match="n×2D"):
        vb.predict(vb.binarize(nn.Linear(2, 3)), x, 3, task="gaussian")


def test_scales_and_noise_pack_like_any_layer():
    model = vb.binarize(nn.Sequential(Scale(4), nn.Linear(4, 8), Scale(8, 0.5, shift=True), nn.ReLU(), nn.Linear(8, 1)))
    x = torch.randn(5, 4)
    packed = vb.pack(model, 3)
    for s in range(3):
        torch.testing.assert_close(packed(x)[s], packed.member(s)(x), rtol=1e-5, atol=1e-5)
