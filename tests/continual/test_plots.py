"""Pictures of streams: they show the numbers they should, at any number of tasks, and refuse what cannot be shown."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from varbnn.continual import average_accuracy, learning_accuracy, plots
from varbnn.errors import InputError

pytest.importorskip("matplotlib", reason='pictures need matplotlib: pip install "varbnn[plot]"')
from matplotlib.figure import Figure


def a_matrix(tasks: int, seed: int = 0) -> torch.Tensor:
    """Measured on and below the diagonal."""
    matrix = torch.rand(tasks, tasks, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return matrix.masked_fill(torch.ones(tasks, tasks).triu(1).bool(), torch.nan)


def some_runs(tasks: int, runs: int = 3) -> torch.Tensor:
    return torch.stack([a_matrix(tasks, seed) for seed in range(runs)])


def texts(panel) -> list[str]:
    return [text.get_text() for text in panel.texts]


def labels(figure: Figure) -> list[str]:
    legends = [*figure.legends, *filter(None, (panel.get_legend() for panel in figure.axes))]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


EVERY = {
    "heat_map": lambda tasks, ax=None: plots.heat_map(a_matrix(tasks), ax=ax),
    "forgetting_curves": lambda tasks, ax=None: plots.forgetting_curves(a_matrix(tasks), ax=ax),
    "forgetting_curves, mean": lambda tasks, ax=None: plots.forgetting_curves(some_runs(tasks), "mean", ax=ax),
    "forgetting_curves, age": lambda tasks, ax=None: plots.forgetting_curves({"a": a_matrix(tasks)}, "age", ax=ax),
    "entropy_over_tasks": lambda tasks, ax=None: plots.entropy_over_tasks([0.5] * tasks, ax=ax),
    "trade_off": lambda tasks, ax=None: plots.trade_off({"a": {1.0: some_runs(tasks), 2.0: a_matrix(tasks)}}, ax=ax),
}
each_plot = pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)


def test_every_public_plot_is_tried_here():
    assert {name.split(",")[0] for name in EVERY} == set(plots.__all__)


@each_plot
@pytest.mark.parametrize("tasks", [1, 2, 5, 12, 13, 100])
def test_a_plot_can_be_saved_without_a_display_at_any_number_of_tasks(draw, tasks):
    stream = io.BytesIO()
    draw(tasks).savefig(stream, format="png")
    assert stream.getvalue().startswith(b"\x89PNG")


@each_plot
def test_a_plot_can_go_into_a_figure_of_ones_own(draw):
    figure = Figure()
    first, second = figure.subplots(1, 2)
    assert draw(3, ax=second) is figure
    assert not first.lines
    assert second.lines or second.images


def test_nothing_is_imported_before_something_is_drawn():
    program = "import sys; from varbnn.continual import plots; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_heat_map_shows_what_was_measured_where_it_was():
    panel = plots.heat_map([[0.9, None], [0.625, 0.95]]).axes[0]
    found = {text.get_position()[::-1]: text.get_text() for text in panel.texts}
    assert found == {(0, 0): "90.0", (1, 0): "62.5", (1, 1): "95.0"}
    np.testing.assert_allclose(panel.images[0].get_array().filled(np.nan), [[90, np.nan], [62.5, 95]])
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("accuracy on task", "after learning task")


def test_a_heat_map_of_several_runs_is_their_mean():
    runs = some_runs(4)
    shown = plots.heat_map(runs).axes[0].images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(shown, 100 * runs.mean(0))


def test_all_heat_maps_of_a_figure_have_one_scale():
    high, low = torch.full((3, 3), 0.96), torch.full((3, 3), 0.42)
    maps = [image for panel in plots.heat_map({"a": high, "b": low}).axes for image in panel.images]
    assert [image.get_clim() for image in maps] == [(40, 100)] * 2
    assert plots.heat_map(high).axes[0].images[0].get_clim() == (90, 100)
    assert plots.heat_map(high, value_range=(0, 1)).axes[0].images[0].get_clim() == (0, 100)
    for flat in (torch.ones(2, 2), torch.zeros(2, 2), torch.full((2, 2), torch.nan)):
        least, most = plots.heat_map(flat).axes[0].images[0].get_clim()
        assert 0 <= least < most <= 100


def test_a_heat_map_of_many_tasks_has_no_numbers_and_few_ticks():
    panel = plots.heat_map(a_matrix(100)).axes[0]
    assert not texts(panel)
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "20", "40", "60", "80", "100"]
    assert panel.get_xticks().tolist() == [0, 19, 39, 59, 79, 99]
    assert len(texts(plots.heat_map(a_matrix(12)).axes[0])) == 78


def test_heat_maps_name_tasks_and_methods():
    figure = plots.heat_map({"ours": a_matrix(2), "theirs": a_matrix(2, 1)}, tasks=["0 and 1", "2 and 3"])
    assert [panel.get_title() for panel in figure.axes[:2]] == ["ours", "theirs"]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["0 and 1", "2 and 3"]


def test_curves_of_each_task_begin_where_it_was_learned():
    matrix = a_matrix(4)
    figure = plots.forgetting_curves(matrix)
    for number, curve in enumerate(figure.axes[0].lines):
        assert curve.get_xdata().tolist() == list(range(number + 1, 5))
        np.testing.assert_allclose(curve.get_ydata(), 100 * matrix[number:, number])
    assert labels(figure) == ["task 1", "task 2", "task 3", "task 4"]
    assert labels(plots.forgetting_curves(matrix, tasks=list("abcd"))) == list("abcd")


def test_of_many_tasks_some_have_a_curve_and_a_scale_says_which():
    figure = plots.forgetting_curves({"a": a_matrix(100), "b": a_matrix(100)})
    *panels, scale = figure.axes
    assert [len(panel.lines) for panel in panels] == [20, 20]
    assert [int(curve.get_xdata()[0]) for curve in panels[0].lines] == list(range(1, 101, 5))
    assert (scale.get_ylabel(), labels(figure)) == ("task", [])


def judged_when_new_and_at_the_end(tasks: int) -> torch.Tensor:
    matrix, seldom = a_matrix(tasks), torch.full((tasks, tasks), torch.nan, dtype=torch.float64)
    seldom.diagonal().copy_(matrix.diagonal())
    seldom[-1] = matrix[-1]
    return seldom


@pytest.mark.parametrize("tasks", [4, 8, 25])
def test_curves_of_tasks_that_were_judged_twice_join_both(tasks):
    matrix = judged_when_new_and_at_the_end(tasks)
    curves = plots.forgetting_curves(matrix).axes[0].lines
    for curve in curves:
        number = int(curve.get_xdata()[0]) - 1
        expected = [[number + 1, tasks], [100 * float(matrix[number, number]), 100 * float(matrix[-1, number])]]
        np.testing.assert_allclose(np.unique(curve.get_data(), axis=1), np.unique(expected, axis=1))
        assert curve.get_marker() not in (None, "None")
    assert int(curves[-1].get_xdata()[0]) == tasks  # the newest, of which there is but one point


@pytest.mark.parametrize("tasks", [4, 25])
def test_the_mean_of_tasks_that_were_judged_twice_joins_both(tasks):
    matrix = judged_when_new_and_at_the_end(tasks)
    (curve,) = plots.forgetting_curves(matrix, "mean").axes[0].lines
    assert curve.get_xdata().tolist() == [1, tasks]
    np.testing.assert_allclose(curve.get_ydata(), [100 * float(matrix[0, 0]), 100 * float(matrix[-1].mean())])
    assert curve.get_marker() not in (None, "None")


@pytest.mark.parametrize("show", ["mean", "age"])
def test_curves_of_methods_have_a_line_for_each_and_a_band_of_their_runs(show):
    runs, one = some_runs(5), a_matrix(5, 9)
    figure = plots.forgetting_curves({"three": runs, "one": one}, show)
    first, second = figure.axes[0].lines
    if show == "mean":
        expected = [[average_accuracy(run, number) for number in range(5)] for run in runs]
        alone = [average_accuracy(one, number) for number in range(5)]
    else:
        expected, alone = runs[:, -1].flip(1).tolist(), one[-1].flip(0).tolist()
    assert first.get_xdata().tolist() == list(range(1, 6) if show == "mean" else range(5))
    np.testing.assert_allclose(first.get_ydata(), 100 * np.mean(expected, 0))
    np.testing.assert_allclose(second.get_ydata(), 100 * np.array(alone))
    (band,) = figure.axes[0].collections
    height = np.ptp([y for x, y in band.get_paths()[0].vertices if x == 3])
    assert height == pytest.approx(2 * 100 * np.std(expected, 0, ddof=1)[2 if show == "mean" else 3])
    assert labels(figure) == ["three", "one"]


def test_entropy_is_read_from_a_history_or_given():
    history = [{"entropy_bits": 0.75, "loss": 1.0}, {"entropy_bits": 0.5, "loss": 1.0}]
    figure = plots.entropy_over_tasks({"ours": history, "theirs": [0.25, 0.125, 0.0]})
    assert [curve.get_ydata().tolist() for curve in figure.axes[0].lines] == [[0.75, 0.5], [0.25, 0.125, 0.0]]
    assert figure.axes[0].lines[1].get_xdata().tolist() == [1, 2, 3]
    assert figure.axes[0].get_ylim() == (0, 1)
    assert plots.entropy_over_tasks(history, "loss").axes[0].get_ylabel() == "loss,\nnats per example"
    kl = plots.entropy_over_tasks([{"kl": None}, {"kl": 0.5}], "kl").axes[0]
    assert kl.get_ylabel() == "KL from fair coins,\nnats per weight"
    assert kl.lines[0].get_xydata().tolist() == [[2, 0.5]]
    below = plots.entropy_over_tasks([{"gain": -0.5}, {"gain": -0.1}], "gain").axes[0].get_ylim()
    assert below[0] < -0.5 < -0.1 < below[1]


def test_a_trade_off_has_a_point_for_every_setting():
    weak, strong = some_runs(4), a_matrix(4, 7)
    figure = plots.trade_off(
        {"ours": {0.5: weak, 1_000_000: strong}, "theirs": {"default": strong}}, parameter="window"
    )
    points = np.stack([curve.get_xydata() for curve in figure.axes[0].lines if len(curve.get_xydata()) == 2][:1])[0]
    expected = [
        [np.mean([100 * score(run) for run in runs]) for score in (learning_accuracy, average_accuracy)]
        for runs in (weak, strong[None])
    ]
    np.testing.assert_allclose(points, expected, rtol=1e-6)
    assert texts(figure.axes[0])[:3] == ["0.5", "1,000,000", "default"]
    assert {"ours", "theirs"} <= set(labels(figure))


def test_what_is_written_beside_a_point_stays_within_the_axes():
    low, high = [[0.8, None], [0.7, 0.8]], [[0.95, None], [0.6, 0.95]]
    settings = {1e5: low, 300_000: high}
    figure = plots.trade_off(dict.fromkeys("abcd", settings))
    figure.canvas.draw()
    inside = figure.axes[0].get_window_extent()
    assert len(figure.axes[0].texts) == 8
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1


def test_the_line_of_no_forgetting_is_drawn_where_it_is_in_sight():
    kept, lost = [[0.9, None], [0.89, 0.8]], [[0.9, None], [0.2, 0.8]]
    shown = plots.trade_off({"a": {1: kept, 2: [[0.8, None], [0.8, 0.9]]}})
    assert "nothing forgotten" in labels(shown)
    pale = next(line for line in shown.axes[0].lines if line.get_label() == "nothing forgotten")
    np.testing.assert_allclose(*pale.get_data())
    assert "nothing forgotten" not in labels(plots.trade_off({"a": {1: lost}}))


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: plots.heat_map({}), "at least one, each under a name"),
        (lambda: plots.heat_map(torch.zeros(2, 3)), "accuracy must be T×T, .* got 2×3"),
        (lambda: plots.heat_map({"a": torch.zeros(2, 3)}), "accuracy of 'a' must be T×T"),
        (
            lambda: plots.heat_map({"a": a_matrix(2), "b": a_matrix(3)}),
            "the same number of tasks, got {'a': 2, 'b': 3}",
        ),
        (lambda: plots.heat_map([a_matrix(2), a_matrix(3)]), r"all runs need the same number of tasks, got \[2, 3\]"),
        (lambda: plots.heat_map(torch.zeros(0, 2, 2)), "has no run"),
        (lambda: plots.heat_map(100 * a_matrix(3)), "divide percentages by 100"),
        (lambda: plots.heat_map(a_matrix(3), tasks=["a"]), "tasks must name each of 3 tasks, got 1 names"),
        (
            lambda: plots.heat_map(a_matrix(3), value_range=(20, 100)),
            "value_range must be .lowest, highest. within 0 … 1",
        ),
        (lambda: plots.heat_map(a_matrix(3), ax=Figure().subplots(1, 2)), "ax must be 1 axes"),
        (lambda: plots.heat_map({"a": a_matrix(3), "b": a_matrix(3)}, ax=Figure().subplots()), "ax must be 2 axes"),
        (lambda: plots.forgetting_curves(a_matrix(3), "all"), "show must be one of each, mean, age, got 'all'"),
        (lambda: plots.forgetting_curves(a_matrix(3), tasks=["a"]), "tasks must name each of 3"),
        (lambda: plots.entropy_over_tasks({}), "at least one, each under a name"),
        (lambda: plots.entropy_over_tasks({"a": []}), "at least one number"),
        (lambda: plots.entropy_over_tasks({"a": [{"loss": 1.0}]}), "history of 'a' has no 'entropy_bits', only loss"),
        (lambda: plots.entropy_over_tasks([{"kl": torch.nan}], "kl"), "no finite 'kl'; a network of points has no"),
        (lambda: plots.trade_off({}), "at least one method"),
        (lambda: plots.trade_off({"a": {}}), "at least one setting"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(InputError, match=message):
        draw()


def test_names_are_text_and_none_is_hidden():
    weak, strong = [[0.9, None], [0.5, 0.9]], [[0.9, None], [0.8, 0.7]]
    for figure in (
        plots.forgetting_curves({"_base": weak, 3: strong}, show="mean"),
        plots.trade_off({"_base": {0.5: weak}, 3: {1.0: strong}}),
        plots.entropy_over_tasks({"_base": [0.9, 0.8], 3: [0.9, 0.7]}),
    ):
        (legend,) = figure.legends
        assert [text.get_text().strip() for text in legend.get_texts()] == ["_base", "3"]
