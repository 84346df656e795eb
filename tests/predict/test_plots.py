"""Pictures: they show the numbers they should, touch no global state, and need no display."""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from tests.predict.distributions import random_probs
from varbnn.errors import InputError, MissingExtraError
from varbnn.predict import Prediction, evaluate, plots

pytest.importorskip("matplotlib", reason='pictures need matplotlib: pip install "varbnn[plot]"')
from matplotlib.figure import Figure

PREDICTION = Prediction(random_probs(4, 60, 5))
LABELS = np.random.default_rng(0).integers(0, 5, 60)
FOREIGN = Prediction(random_probs(4, 40, 5, seed=1, sharpness=2.0))
HISTORY = [{"epoch": e, "loss": 1 / e, "accuracy": 1 - 0.5 / e, "lr": 0.1, "seconds": 0.5} for e in (1, 2, 3)]
POINTS, CLASSES = torch.randn(30, 2), torch.arange(30) % 2


def split_by_angle(points):
    right = torch.sigmoid(points.sum(1, keepdim=True))
    return Prediction(torch.cat([1 - right, right], 1)[None])


EVERY = {
    "reliability_diagram": lambda ax=None: plots.reliability_diagram(PREDICTION, LABELS, ax=ax),
    "entropy_histogram": lambda ax=None: plots.entropy_histogram(PREDICTION, FOREIGN, ax=ax),
    "layer_entropy": lambda ax=None: plots.layer_entropy({"0": 0.9, "3": 0.1}, ax=ax),
    "risk_coverage": lambda ax=None: plots.risk_coverage(PREDICTION, LABELS, ax=ax),
    "severity_curves": lambda ax=None: plots.severity_curves({"blur": [{"nll": 1.0}]}, ["nll"], ax=ax),
    "training_curves": lambda ax=None: plots.training_curves(HISTORY, ["loss"], ax=ax),
    "uncertainty_map": lambda ax=None: plots.uncertainty_map(split_by_angle, POINTS, CLASSES, resolution=20, ax=ax),
}
each_plot = pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)


def texts(legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def test_every_public_plot_is_tried_here():
    assert set(EVERY) == set(plots.__all__)


@each_plot
def test_a_plot_can_be_saved_without_a_display(draw):
    stream = io.BytesIO()
    draw().savefig(stream, format="png")
    assert stream.getvalue().startswith(b"\x89PNG")


@each_plot
def test_a_plot_leaves_pyplot_and_its_settings_alone(draw):
    import matplotlib.pyplot as plt

    before, settings = plt.get_fignums(), dict(plt.rcParams.items())
    draw()
    assert plt.get_fignums() == before
    assert dict(plt.rcParams.items()) == settings


@each_plot
def test_a_plot_draws_into_the_axes_it_is_given(draw):
    figure = Figure()
    axes = figure.subplots(1, 2)
    given = axes if draw is EVERY["uncertainty_map"] else axes[0]
    assert draw(given) is figure
    assert axes[0].has_data()


@each_plot
def test_a_plot_refuses_another_number_of_axes(draw):
    needed = 2 if draw is EVERY["uncertainty_map"] else 1
    for given in (Figure().subplots(1, 3), []) + ((Figure().subplots(),) if needed == 2 else ()):
        with pytest.raises(InputError, match=f"ax must be {needed}( to 2)? axes, one for every panel, got"):
            draw(given)


@each_plot
def test_every_axis_says_what_it_shows(draw):
    figure = draw()
    shown = [panel for panel in figure.axes if panel.has_data()]
    assert any(panel.get_xlabel() for panel in shown)
    assert all(panel.get_xlabel() or panel.get_ylabel() for panel in shown)


@each_plot
def test_without_matplotlib_the_extra_is_named(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("varbnn.errors.importlib.import_module", _absent)
    with pytest.raises(MissingExtraError, match=r"varbnn\[plot\]"):
        draw()


def _absent(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])


def test_the_reliability_diagram_names_the_error_that_evaluate_finds():
    predictions = {"ours": PREDICTION, "theirs": Prediction(PREDICTION.probs[:1])}
    figure = plots.reliability_diagram(predictions, LABELS, bins=10)
    expected = [f"{name}, ECE {evaluate(p, LABELS, bins=10)['ece']:.3f}" for name, p in predictions.items()]
    assert texts(figure.axes[0].get_legend()) == expected


def test_more_than_three_predictions_get_a_reliability_diagram_each():
    named = {name: Prediction(PREDICTION.probs[: i + 1]) for i, name in enumerate("abc")}
    assert len(plots.reliability_diagram(named, LABELS).axes) == 2
    named["d"] = PREDICTION
    panels = plots.reliability_diagram(named, LABELS, bins=10).axes
    expected = [f"{name}, ECE {evaluate(p, LABELS, bins=10)['ece']:.3f}" for name, p in named.items()]
    assert [panel.get_title() for panel in panels] == expected
    assert len(plots.reliability_diagram(named, LABELS, ax=Figure().subplots()).axes) == 1


def test_the_reliability_diagram_shows_each_full_bin_at_its_mean_with_its_interval():
    probs = np.array([[0.95, 0.05], [0.91, 0.09], [0.7, 0.3]])
    figure = plots.reliability_diagram(Prediction(probs[None]), [0, 1, 0], bins=10)
    bars, dots = figure.axes[0].collections
    np.testing.assert_allclose(dots.get_offsets(), [[0.7, 1.0], [0.93, 0.5]])
    from scipy.stats import binomtest

    for (low, high), hits, count in zip(np.array(bars.get_segments())[:, :, 1], (1, 1), (1, 2), strict=True):
        interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose([low, high], [interval.low, interval.high], atol=1e-4)


def test_the_histogram_shows_every_input_and_names_the_auroc():
    figure = plots.entropy_histogram(PREDICTION, FOREIGN, score="epistemic")
    shares = [patch.get_data().values for patch in figure.axes[0].patches]
    np.testing.assert_allclose([values.sum() for values in shares], 1)
    auroc = evaluate(PREDICTION, LABELS, FOREIGN, score="epistemic")["ood_auroc"]
    assert figure.axes[0].get_legend().get_title().get_text() == f"AUROC {auroc:.3f}"
    assert texts(figure.axes[0].get_legend()) == ["in distribution (60)", "out of distribution (40)"]


@pytest.mark.parametrize("score", ["total", "aleatoric", "epistemic", "confidence"])
def test_certain_and_uniform_inputs_both_fall_inside_the_histogram(score):
    prediction = Prediction(torch.tensor([[[1.0, 0.0, 0.0], [1 / 3] * 3]] * 2))
    (patch, _) = plots.entropy_histogram(prediction, score=score).axes[0].patches
    assert patch.get_data().values.sum() == pytest.approx(1)


def test_fit_and_health_can_be_shown_as_they_come():
    model = vb.binarize(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    data = [(torch.randn(8, 2), torch.arange(8) % 2)]
    history = vb.fit(model, torch.optim.Adam(model.parameters()), data, epochs=2, progress=False)
    shown = [panel.get_ylabel() for panel in plots.training_curves(history).axes]
    assert "flipped weights" in shown
    assert "seconds" not in shown
    layers = plots.layer_entropy(vb.health(model, warn=False).layer_entropy_bits)
    assert [label.get_text() for label in layers.axes[0].get_yticklabels()] == ["0", "2"]


def test_runs_are_told_apart_by_colour_and_line_and_gaps_stay_gaps():
    other = [{"epoch": 1, "loss": 2.0, "kl": math.nan}, {"epoch": 3, "loss": 1.0, "kl": 0.5}]
    figure = plots.training_curves({"a": HISTORY, "b": other}, ["loss", "kl"])
    first, second = figure.axes[0].lines
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    assert list(second.get_xdata()) == [1, 3]
    (line,) = [line for line in figure.axes[1].lines if len(line.get_xdata())]
    np.testing.assert_array_equal(line.get_xydata(), [[1, math.nan], [3, 0.5]])


def test_seven_runs_differ_in_colour_and_the_legend_stays_inside_the_picture():
    runs = {f"a rather long name {i}": HISTORY for i in range(7)}
    figure = plots.training_curves(runs, ["loss", "accuracy"])
    figure.draw_without_rendering()
    (panel, _) = figure.axes
    assert len({line.get_color() for line in panel.lines}) == 7
    (legend,) = figure.legends
    assert texts(legend) == list(runs)
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert legend.get_window_extent().y0 >= panel.bbox.y1


def test_validation_goes_fainter_into_the_panel_of_what_it_is_compared_with():
    history = [{"flips": 3.0, "loss": 1.0, "val_loss": 1.5}, {"flips": 2.0, "loss": 0.5, "val_loss": 0.01}]
    figure = plots.training_curves(history)
    _, loss = figure.axes
    trained, judged = loss.lines
    assert list(judged.get_ydata()) == [1.5, 0.01]
    assert judged.get_color() == trained.get_color()
    assert (judged.get_alpha() or 1) < (trained.get_alpha() or 1)
    assert loss.get_yscale() == "log", "the axis is that of both"
    assert texts(figure.legends[0]) == ["training", "validation"], "although the first panel has none"
    several = plots.training_curves({"a": history, "b": history}, ["loss", "val_loss"], ax=Figure().subplots())
    assert texts(several.axes[0].get_legend()) == ["a", "a, validation", "b", "b, validation"]
    (alone,) = plots.training_curves(history, ["val_loss"]).axes
    assert alone.get_ylabel() == "validation loss,\nnats per example"


def test_validation_without_its_counterpart_looks_like_validation_where_the_legend_tells_them_apart():
    history = [{"val_loss": 1.5, "accuracy": 0.5, "val_accuracy": 0.4}] * 2
    figure = plots.training_curves(history, ["val_loss", "accuracy", "val_accuracy"])
    ((alone,), (trained, judged)) = (panel.lines for panel in figure.axes)
    assert texts(figure.legends[0]) == ["training", "validation"]
    assert (alone.get_label(), alone.get_alpha()) == (judged.get_label(), judged.get_alpha())
    assert alone.get_alpha() != trained.get_alpha()


def test_flips_are_drawn_so_that_thousands_and_none_can_both_be_read():
    history = [{"flips": 40_000.0, "loss": 1.0}, {"flips": 3.0, "loss": 0.5}, {"flips": 0.0, "loss": 0.4}]
    flips, loss = plots.training_curves(history, ["flips", "loss"]).axes
    assert (flips.get_yscale(), flips.get_ylim()[0], loss.get_yscale()) == ("symlog", 0, "linear")


@pytest.mark.parametrize("last, scale", [(0.2, "linear"), (0.01, "log"), (-0.01, "linear"), (math.nan, "linear")])
def test_a_loss_that_falls_to_less_than_a_tenth_is_drawn_on_a_logarithmic_axis(last, scale):
    (panel,) = plots.training_curves([{"loss": 1.0}, {"loss": 0.5}, {"loss": last}]).axes
    assert panel.get_yscale() == scale


def test_records_without_an_epoch_are_counted_from_one():
    (panel,) = plots.training_curves([{"loss": 2.0}, {"loss": 1.0}]).axes
    assert list(panel.lines[0].get_xdata()) == [1, 2]


@pytest.mark.parametrize("draw", [plots.reliability_diagram, plots.risk_coverage, plots.entropy_histogram])
def test_an_average_is_drawn_as_the_samples_it_is_of(draw):
    average = vb.AveragePrediction(PREDICTION.mean, PREDICTION.aleatoric, PREDICTION.num_samples)
    more = () if draw is plots.entropy_histogram else (LABELS,)
    found, wanted = (draw(prediction, *more).axes[0] for prediction in (average, PREDICTION))
    assert [text.get_text() for text in found.texts] == [text.get_text() for text in wanted.texts]
    for one, other in zip(found.lines, wanted.lines, strict=True):
        np.testing.assert_allclose(one.get_xydata(), other.get_xydata(), atol=1e-5)


def test_the_map_asks_packed_networks_as_they_are(tmp_path):
    model = vb.binarize(nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    packed = vb.pack(model, 3, refresh_bn=POINTS)
    packed.save(tmp_path / "map.vbnn")
    with vb.Predictor(tmp_path / "map.vbnn") as predictor:
        ways = (packed, predictor, lambda x: packed(x, reduce="mean"))
        figures = [plots.uncertainty_map(way, POINTS, torch.arange(30) % 3, resolution=9) for way in ways]
    found, *others = (figure.axes[0].collections[0].get_array() for figure in figures)
    for other in others:
        np.testing.assert_allclose(other, found, atol=1e-5)


def test_the_map_asks_a_network_for_its_uncertainty():
    model = vb.binarize(nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    figure = plots.uncertainty_map(model, POINTS, torch.arange(30) % 3, num_samples=3, resolution=15)
    assert [panel.get_title() for panel in figure.axes[:2]] == ["total uncertainty", "epistemic uncertainty"]
    assert texts(figure.legends[0]) == ["class 0", "class 1", "class 2"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_map_puts_each_value_at_its_place():
    mesh = plots.uncertainty_map(split_by_angle, POINTS, CLASSES, resolution=9).axes[0].collections[0]
    corners = mesh.get_coordinates().reshape(-1, 2)
    expected = split_by_angle(torch.tensor(corners)).total
    np.testing.assert_allclose(mesh.get_array().ravel(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: plots.reliability_diagram({}, LABELS), "give at least one, each under a name of its own, got \\[\\]"),
        (lambda: plots.reliability_diagram(PREDICTION, LABELS[:-1]), "one label per input"),
        (lambda: plots.entropy_histogram(PREDICTION, score="entropy"), "score must be one of"),
        (lambda: plots.layer_entropy({}), "at least one layer"),
        (lambda: plots.layer_entropy(torch.nn.ReLU()), "got a ReLU; .* varbnn.health\\(model\\).layer_entropy_bits"),
        (lambda: plots.layer_entropy({"0": 1.4}), "bit per weight, got 1.4 for '0'"),
        (lambda: plots.layer_entropy({"0": math.nan}), "bit per weight"),
        (lambda: plots.training_curves([]), "nothing to draw: 0 records"),
        (lambda: plots.training_curves(HISTORY, ["nll"]), "keys must be among"),
        (lambda: plots.training_curves(HISTORY, ax=Figure().subplots()), "one ax shows one quantity"),
        (lambda: plots.uncertainty_map(split_by_angle, torch.randn(5, 3), [0] * 5), "x must be N×2"),
        (lambda: plots.uncertainty_map(split_by_angle, POINTS, CLASSES + 1), "0 … 1"),
        (lambda: plots.uncertainty_map(lambda x: split_by_angle(x[:3]), POINTS, CLASSES), "all .* points of the grid"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_reason(draw, message):
    with pytest.raises(InputError, match=message):
        draw()


@pytest.mark.parametrize("count", [1, 4, 7])
def test_long_names_leave_the_reliability_diagram_its_room(count):
    named = {f"the posterior of method number {i}, sixteen draws of it, as published": PREDICTION for i in range(count)}
    figure = plots.reliability_diagram(named, LABELS)
    figure.draw_without_rendering()
    whole = figure.bbox
    for panel in figure.axes:
        inner, outer = panel.get_window_extent(), panel.get_tightbbox()
        assert inner.width > 0.1 * whole.width
        assert outer.x0 >= whole.x0 - 1
        assert outer.x1 <= whole.x1 + 1
        assert outer.y1 <= whole.y1 + 1


@pytest.mark.parametrize(
    "call",
    [
        lambda real: plots.reliability_diagram({"a": real}, [0.0, 1.0]),
        lambda real: plots.entropy_histogram(real),
        lambda real: plots.risk_coverage(real, [0.0, 1.0]),
        lambda real: vb.risk_coverage(real, [0.0, 1.0]),
        lambda real: vb.calibration_test(real, [0.0, 1.0]),
        lambda real: vb.TemperatureScaling().fit(real, [0.0, 1.0]),
    ],
)
def test_regression_is_told_where_to_go(call):
    real = vb.RegressionPrediction(torch.zeros(3, 2), 1.0)
    with pytest.raises(InputError, match="got RegressionPrediction; for regression see"):
        call(real)


def test_one_epoch_is_a_whole_number():
    figure = plots.training_curves([{"loss": 0.4}])
    figure.draw_without_rendering()
    panel = figure.axes[0]
    low, high = panel.get_xlim()
    assert [tick for tick in panel.get_xticks() if low <= tick <= high] == [1.0]


def test_foreign_predictions_of_other_classes_are_refused():
    with pytest.raises(InputError, match=f"the same {PREDICTION.num_classes} classes"):
        plots.entropy_histogram(PREDICTION, Prediction(random_probs(2, 3, PREDICTION.num_classes + 1)))


LONG = [f"method number {i}, sixteen draws of it as published" for i in range(8)]
LONGER = {"the posterior of a network whose name is longer than any picture is wide, as published": 0.3, "other": 0.5}


def steps(slope: float) -> list[dict[str, float]]:
    return [{"accuracy": 1 - slope * severity / 10, "nll": slope * severity} for severity in range(6)]


def test_long_names_leave_the_curves_their_room():
    names = dict.fromkeys(LONG, 0.3)
    kinds = ["noise", "blur", "rotation", "contrast"]
    figures = [
        plots.severity_curves({name: dict.fromkeys(kinds, steps(slope)) for name, slope in names.items()}, ("nll",)),
        *(
            plots.severity_curves({name: {"blur": steps(slope)} for name, slope in named.items()}, ("accuracy",))
            for named in (names, LONGER)
        ),
        *(plots.risk_coverage(dict.fromkeys(named, PREDICTION), LABELS) for named in (names, LONGER)),
        plots.training_curves({name: [{"loss": 1.0}, {"loss": 0.5}] for name in LONGER}),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        whole = figure.bbox
        for panel in figure.axes:
            inner, outer = panel.get_window_extent(), panel.get_tightbbox()
            assert inner.height > 1.1 * figure.dpi
            assert inner.width > 1.0 * figure.dpi
            assert whole.x0 - 1 <= outer.x0
            assert outer.x1 <= whole.x1 + 1
            assert whole.y0 - 1 <= outer.y0
            assert outer.y1 <= whole.y1 + 1
        for legend in figure.legends:
            assert legend.get_window_extent().x1 <= whole.x1
            assert all(legend.get_window_extent().y0 >= panel.bbox.y1 for panel in figure.axes)


def test_the_legend_keeps_a_measure_on_one_line():
    figure = plots.risk_coverage(dict.fromkeys(LONG, PREDICTION), LABELS)
    for text, name in zip(texts(figure.axes[0].get_legend()), LONG, strict=True):
        assert text.replace("\n", " ").startswith(name)
        assert "AURC 0." in text


def test_long_names_of_layers_leave_the_bars_their_room():
    names = ["features.encoder.stage3.block2.convolution1.projection", "decoder." * 20, "head"]
    figure = plots.layer_entropy(dict(zip(names, [0.84, 0.93, 0.41], strict=True)))
    figure.draw_without_rendering()
    (panel,) = figure.axes
    inner, outer = panel.get_window_extent(), panel.get_tightbbox()
    assert inner.width > 3 * figure.dpi
    assert figure.bbox.x0 <= outer.x0
    assert figure.bbox.y0 <= outer.y0
    assert all(text.get_window_extent().x1 <= inner.x1 for text in panel.texts)
    first, second, third = [label.get_text() for label in panel.get_yticklabels()]
    assert (first, third) == (names[0], "head")
    assert len(second) <= 61
    assert second.startswith("decoder.decoder")


def test_points_that_no_line_reaches_are_marked():
    values = [1.0, math.nan, 0.5, math.nan, math.nan, 0.3, 0.2, math.nan, 0.1]
    (line,) = plots.training_curves([{"loss": value} for value in values]).axes[0].lines
    assert line.get_marker() == "o"
    assert line.get_markevery() == [0, 2, 8]
    (line,) = plots.training_curves([{"loss": 0.1}, {"loss": 0.2}, {"loss": 0.3}]).axes[0].lines
    assert line.get_marker() == "None"


def test_words_in_a_history_are_left_out():
    history = [{"loss": 0.3, "note": "warm-up"}, {"loss": "diverged", "note": ""}, {"loss": 0.1}]
    (panel,) = plots.training_curves(history).axes
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), [0.3, math.nan, 0.1])
    with pytest.raises(InputError, match=r"among the recorded quantities \['loss'\], got \['note'\]"):
        plots.training_curves(history, ["note"])


def test_disagreement_is_shown_up_to_the_largest_there_is():
    (panel,) = plots.entropy_histogram(PREDICTION, FOREIGN, score="epistemic").axes
    assert panel.get_xlim()[1] == pytest.approx(float(max(PREDICTION.epistemic.max(), FOREIGN.epistemic.max())))
    for stairs in panel.patches[1::2]:
        assert stairs.get_data().values.sum() == pytest.approx(1)
    agreeing = Prediction(np.full((2, 3, 4), 0.25))
    assert plots.entropy_histogram(agreeing, score="epistemic").axes[0].get_xlim()[1] == pytest.approx(math.log(4))


@pytest.mark.parametrize("count, labels", [(1, ["1"]), (2, ["1", "2"]), (7, ["1", "7"])])
def test_few_inputs_in_a_bin_are_counted_legibly(count, labels):
    figure = plots.reliability_diagram(Prediction(np.full((1, count, 2), 0.5)), [0] * count)
    figure.draw_without_rendering()
    spread = figure.axes[1]
    assert [label.get_text() for label in spread.get_yticklabels()] == labels
    assert not any(label.get_visible() and label.get_text() for label in spread.get_yticklabels(minor=True))


def test_a_map_of_a_constant_column_reaches_around_it():
    points = np.array([[-1.0, 1000.0], [1.0, 1000.0]])
    figure = plots.uncertainty_map(split_by_angle, points, [0, 1], resolution=10)
    low, high = figure.axes[0].get_ylim()
    assert (low, high) == pytest.approx((999.65, 1000.35), abs=1e-3)


@pytest.mark.parametrize("options", [{"resolution": 10.0}, {"resolution": 1}, {"margin": -1.0}, {"margin": math.nan}])
def test_a_map_of_no_size_is_refused(options):
    with pytest.raises(InputError, match=r"resolution must be a whole number ≥ 2|margin must be a finite number ≥ 0"):
        plots.uncertainty_map(split_by_angle, [[0.0, 0.0], [1.0, 1.0]], [0, 1], **options)


def test_curves_fit_into_a_part_of_a_figure():
    axes = Figure(figsize=(8, 4)).subfigures(1, 2)[0].subplots()
    prediction, y = vb.Prediction(torch.rand(3, 8, 4).softmax(-1)), torch.arange(8) % 4
    assert plots.risk_coverage({"a": prediction, "b": prediction}, y, ax=axes) is not None
    plots.training_curves({" ": [{"loss": 1.0}], "b": [{"loss": 2.0}]})
    plots.layer_entropy({0: 0.5, 1: 0.7})


def test_networks_that_agree_but_for_rounding_disagree_by_nothing():
    one = torch.rand(1, 20, 4).softmax(-1)
    figure = plots.entropy_histogram(vb.Prediction(one.expand(5, -1, -1)), score="epistemic")
    assert figure.axes[0].get_xlim()[1] == pytest.approx(np.log(4))


NAMES = ("_base", "__", 0, None, ("lr", 0.1), "$a$", "")


@pytest.mark.parametrize("others", [1, 4])
def test_whatever_names_there_are_the_legend_has_them(others):
    """matplotlib hides what starts with "_"; 0 and None were taken for no name, a tuple for many."""
    steps = [evaluate(PREDICTION, LABELS)] * 2
    for name in NAMES:
        named = dict.fromkeys([name, *map(chr, range(97, 97 + others))])
        front = f"{name}, " if name != "" else ""
        figure = plots.reliability_diagram(dict.fromkeys(named, PREDICTION), LABELS)
        figure.draw_without_rendering()
        found = texts(figure.axes[0].get_legend()) if others == 1 else [panel.get_title() for panel in figure.axes]
        assert found[0].strip().startswith(f"{front}ECE 0.")
        assert len(found) == len(named)
        found = texts(plots.risk_coverage(dict.fromkeys(named, PREDICTION), LABELS).axes[0].get_legend())
        assert found[0].strip().startswith(f"{front}AURC 0.")
        assert len(found) == len(named)
        found = texts(plots.training_curves(dict.fromkeys(named, HISTORY), ["loss"]).legends[0])
        assert found[0].strip() == (str(name) if name != "" else "training")
        assert len(found) == len(named)
        if name != "":
            found = texts(plots.severity_curves({key: {"blur": steps} for key in named}, ["nll"]).legends[0])
            assert [text.strip() for text in found] == [str(own) for own in named]


@pytest.mark.parametrize("names", [[], [1, "1"]])
def test_predictions_need_names_that_differ_as_text(names):
    with pytest.raises(InputError, match="give at least one, each under a name of its own"):
        plots.risk_coverage(dict.fromkeys(names, PREDICTION), LABELS)


@pytest.mark.parametrize("bins", [0, -1, 2.5, "a"])
def test_bins_are_counted(bins):
    with pytest.raises(InputError, match="bins must be a whole number ≥ 1"):
        plots.entropy_histogram(PREDICTION, bins=bins)
    with pytest.raises(InputError, match="bins must be a whole number ≥ 1"):
        plots.reliability_diagram(PREDICTION, LABELS, bins=bins)


def test_one_quantity_needs_no_list():
    (panel,) = plots.training_curves(HISTORY, "loss").axes
    assert panel.get_ylabel() == "loss,\nnats per example"
    with pytest.raises(InputError, match=r"got \['lss'\]"):
        plots.training_curves(HISTORY, "lss")


@pytest.mark.parametrize("history", [[], [{}], [{"epoch": 1, "lr": 0.1}], {"a": []}])
def test_a_history_of_nothing_to_draw_says_so(history):
    with pytest.raises(InputError, match=r"nothing to draw: . records? with (no numbers|only epoch, lr, to be named)"):
        plots.training_curves(history)


def test_a_curve_of_no_error_is_seen_on_the_axis():
    right = Prediction(np.eye(3)[None])
    (panel,) = plots.risk_coverage(right, [0, 1, 2]).axes
    (line,) = panel.lines
    assert panel.get_ylim() == (0, 1)
    assert not line.get_clip_on()
    assert line.get_zorder() > panel.spines["bottom"].get_zorder()


def test_a_map_of_a_float64_model_is_asked_at_float64_points():
    """In float32 these points are all one."""
    x = torch.tensor([[1.0, 0.0], [1.0 + 1e-9, 1.0]], dtype=torch.float64)
    seen = []

    def of_second(points):
        seen.append(points)
        return split_by_angle(points)

    plots.uncertainty_map(of_second, x, [0, 1], resolution=5)
    plots.uncertainty_map(of_second, x.numpy(), [0, 1], resolution=5)
    assert (seen[0].dtype, len(seen[0][:, 0].unique())) == (torch.float64, 5)
    assert seen[1].dtype == torch.float32
    model = vb.binarize(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))).double()
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    plots.uncertainty_map(model, x, [0, 1], resolution=5, num_samples=1)
    assert len(seen[-1][:, 0].unique()) == 5
