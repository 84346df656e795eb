"""Measures by severity: the corruption, the prediction and the evaluation put together by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn import data, plots
from varbnn.data.corruptions import KINDS, corrupt
from varbnn.errors import InputError
from varbnn.predict import Prediction, severity_curves

IMAGES = torch.rand(30, 8, 8, generator=torch.Generator().manual_seed(0)) * 16
LABELS = torch.arange(30) % 4


@pytest.fixture
def model() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4)]
    return vb.binarize(nn.Sequential(*layers))


def test_each_point_is_evaluate_of_predict_of_corrupt(model):
    refresh = IMAGES / 16
    curves = severity_curves(
        model, IMAGES, LABELS, value_range=(0, 16), inputs=lambda x: x / 16, num_samples=3, refresh_bn=refresh, seed=5
    )
    assert list(curves) == list(KINDS)
    for kind, steps in curves.items():
        for severity, found in enumerate(steps):
            generator = torch.Generator().manual_seed(5)
            worn = corrupt(IMAGES, kind, severity, value_range=(0, 16), generator=generator) if severity else IMAGES
            draws = torch.Generator().manual_seed(5)
            prediction = vb.predict(model, worn / 16, 3, refresh_bn=refresh, generator=draws)
            assert found == vb.evaluate(prediction, LABELS), (kind, severity)


def test_a_function_may_predict_and_gets_the_inputs_of_every_step():
    seen = []

    def uniform(x):
        seen.append(x)
        return Prediction(torch.full((2, len(x), 4), 0.25))

    curves = severity_curves(uniform, IMAGES, LABELS, value_range=(0, 16), kinds=["contrast"], inputs=torch.neg)
    assert [step["accuracy"] for step in curves["contrast"]] == pytest.approx([8 / 30] * 6)
    assert len(seen) == 6
    torch.testing.assert_close(seen[3], -corrupt(IMAGES, "contrast", 3, value_range=(0, 16)))


def test_packed_networks_are_asked_as_they_are(model, tmp_path):
    packed = vb.pack(model, 3, refresh_bn=IMAGES)
    packed.save(tmp_path / "worn.vbnn")
    options = dict(value_range=(0, 16), kinds=["blur"])
    expected = severity_curves(lambda x: vb.predict(packed, x), IMAGES, LABELS, **options)
    assert severity_curves(packed, IMAGES, LABELS, **options) == expected
    with vb.Predictor(tmp_path / "worn.vbnn") as predictor:
        assert severity_curves(predictor, IMAGES, LABELS, **options) == expected
    averaged = severity_curves(lambda x: packed(x, reduce="mean"), IMAGES, LABELS, **options)["blur"]
    for found, wanted in zip(averaged, expected["blur"], strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(InputError, match="got Tensor"):
        severity_curves(lambda x: packed(x), IMAGES, LABELS, **options)


def test_an_array_of_images_will_do(model):
    options = dict(value_range=(0, 16), kinds=["blur"], num_samples=2, refresh_bn=IMAGES)
    found = severity_curves(model, IMAGES.double().numpy(), LABELS.numpy(), **options)
    assert found == severity_curves(model, IMAGES, LABELS, **options)


def test_the_same_seed_gives_the_same_and_torchs_generator_is_left_alone(model):
    before = torch.get_rng_state()
    options = dict(value_range=(0, 16), inputs=lambda x: x / 16, refresh_bn=IMAGES / 16, num_samples=2, kinds=["noise"])
    first, again, other = (severity_curves(model, IMAGES, LABELS, **options, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert torch.equal(torch.get_rng_state(), before)


def test_a_data_set_says_how_its_images_become_inputs():
    digits = data.load("digits")
    images = digits.undo(digits.test_x)
    torch.testing.assert_close(digits.standardise(images), digits.test_x, atol=1e-5, rtol=0)
    assert digits.value_range == (0, 16)
    corrupt(images, "blur", 1, value_range=digits.value_range)  # float32 rounding of undo is within the range
    with pytest.raises(InputError, match=r"digits has inputs of 8×8, got 28×28 for each; resize them"):
        digits.standardise(torch.zeros(3, 28, 28))


def test_the_picture_has_a_panel_per_kind_and_measure_and_a_line_per_model():
    steps = {"blur": [{"accuracy": 1 - i / 10, "nll": i / 5} for i in range(6)]}
    steps["noise"] = [{"accuracy": 0.2, "nll": 3.0 + i} for i in range(6)]  # taller than the panel before it
    figure = plots.severity_curves({"a": steps, "b": steps}, ("accuracy", "nll"))
    assert [panel.get_title() for panel in figure.axes] == ["blur", "noise", "", ""]
    assert [panel.get_ylabel() for panel in figure.axes] == ["accuracy", "", "NLL, nats", ""]
    assert [len(panel.lines) for panel in figure.axes] == [2] * 4
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [step["accuracy"] for step in steps["noise"]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    for panel in figure.axes:
        low, high = panel.get_ylim()
        assert all(low <= value <= high for line in panel.lines for value in line.get_ydata())
    assert not plots.severity_curves(steps, ("nll",)).legends


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: severity_curves(nn.Flatten(), IMAGES, LABELS, value_range=(0, 16), kinds=["fog"]), "got 'fog'"),
        (lambda: severity_curves(nn.Flatten(), IMAGES, LABELS, value_range=(0, 16), kinds=[]), "got none"),
        (lambda: plots.severity_curves({}), "at least one corruption"),
        (lambda: plots.severity_curves({"blur": [{"nll": 1.0}]}, ("auroc",)), "measures must be of .*, got auroc"),
        (lambda: plots.severity_curves({"a": {"blur": []}, "b": {"noise": []}}), "the same corruptions, blur"),
    ],
)
def test_what_has_no_severity_curve_is_refused_with_a_reason(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_bytes_are_images_as_their_numbers_are(model):
    options = dict(value_range=(0, 255), kinds=["blur"], num_samples=2, refresh_bn=IMAGES)
    whole = IMAGES.round().byte()
    expected = severity_curves(model, whole.float(), LABELS, **options)
    assert severity_curves(model, whole, LABELS, **options) == expected
    assert severity_curves(model, whole.numpy(), LABELS, **options) == expected


def test_a_wrong_range_is_refused_before_any_network_is_asked():
    def ask(batch):
        raise AssertionError

    with pytest.raises(InputError, match="images must lie in value_range 0 … 1"):
        severity_curves(ask, IMAGES, LABELS, value_range=(0, 1))
    with pytest.raises(InputError, match="value_range must be"):
        severity_curves(ask, IMAGES, LABELS, value_range=(16, 0))


def test_a_measure_that_was_not_measured_is_named_before_anything_is_drawn():
    curves = {"a": {"blur": [{"nll": 1.0, "ece": 0.1}]}, "b": {"blur": [{"nll": 1.0}]}}
    with pytest.raises(InputError, match="the curves of 'b' lack ece"):
        plots.severity_curves(curves, ("nll", "ece"))
    with pytest.raises(InputError, match="these curves lack accuracy"):
        plots.severity_curves({"blur": [{"nll": 1.0}]})


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_a_seed_that_is_none_is_refused(model, seed):
    with pytest.raises(InputError, match="seed must be a whole number ≥ 0"):
        severity_curves(model, IMAGES, LABELS, value_range=(0, 16), kinds=["blur"], seed=seed)


def test_one_corruption_and_one_measure_need_no_list(model):
    options = dict(value_range=(0, 16), num_samples=2, refresh_bn=IMAGES)
    curves = severity_curves(model, IMAGES, LABELS, kinds="blur", **options)
    assert curves == severity_curves(model, IMAGES, LABELS, kinds=["blur"], **options)
    (panel,) = plots.severity_curves(curves, "nll").axes
    assert panel.get_ylabel() == "NLL, nats"
    with pytest.raises(InputError, match="got 'fog'"):
        severity_curves(model, IMAGES, LABELS, kinds="fog", **options)
    with pytest.raises(InputError, match="got loss"):
        plots.severity_curves(curves, "loss")
