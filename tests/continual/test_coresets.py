"""Coresets: the choice is Gonzalez', withheld examples are not trained on, and what is saved comes back."""

from __future__ import annotations

import io
import itertools
import json
import math

import pytest
import torch

from tests.oracles import continual as oracle
from varbnn import data
from varbnn.continual import Coreset, Task, k_center, permuted, split
from varbnn.continual.choosing import CHUNK, random
from varbnn.continual.evaluation import seed_of
from varbnn.errors import CheckpointError, InputError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_points(count: int, inputs: int, seed: int = 0) -> torch.Tensor:
    """On a coarse grid, so that distances are exact and often equal."""
    return torch.randint(-3, 4, (count, inputs), generator=seeded(seed)).float()


def a_task(name="a", count=40, inputs=6, classes=(0, 1), seed=0) -> Task:
    x, y = torch.randn(count, inputs, generator=seeded(seed)), torch.arange(count) % len(classes) + classes[0]
    return Task(name, x, y, x[:4], y[:4], classes=classes)


@pytest.mark.parametrize("count, inputs, size", [(1, 3, 1), (12, 1, 12), (30, 2, 9), (50, 7, 20), (25, 784, 25)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("seed", [0, 1])
def test_k_center_is_gonzalez(count, inputs, size, dtype, seed):
    points = some_points(count, inputs)
    found = k_center(points.to(dtype), size, seeded(seed)).tolist()
    assert found == oracle.farthest_points(points.tolist(), found[0], size)
    assert len(set(found)) == size


def test_k_center_is_gonzalez_over_several_chunks():
    points = some_points(70, CHUNK // 16)  # sixteen rows at a time
    found = k_center(points, 5, seeded(0)).tolist()
    distances = torch.cdist(points.double(), points.double())
    for number in range(1, 5):
        nearest = distances[:, found[:number]].amin(1)
        assert nearest[found[number]] == nearest.max()


def test_k_center_leaves_at_most_twice_what_the_best_choice_leaves():
    points = torch.randn(11, 2, dtype=torch.float64, generator=seeded(3))
    distances = torch.cdist(points, points)
    for size in (2, 3, 4):
        best = min(float(distances[:, list(c)].amin(1).max()) for c in itertools.combinations(range(11), size))
        for seed in range(5):
            left = distances[:, k_center(points, size, seeded(seed))].amin(1).max()
            assert best <= left <= 2 * best


def test_a_smaller_choice_begins_a_larger_one():
    points = torch.randn(100, 5, generator=seeded(0))
    assert k_center(points, 40, seeded(1))[:10].tolist() == k_center(points, 10, seeded(1)).tolist()


def test_the_first_centre_is_drawn():
    points = torch.randn(100, 5, generator=seeded(0))
    assert len({int(k_center(points, 1, seeded(seed))) for seed in range(20)}) > 10


def test_repeats_are_chosen_last_and_once():
    points = torch.tensor([[0.0], [0.0], [5.0], [5.0], [9.0]])
    found = k_center(points, 5, seeded(0)).tolist()
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert {float(points[i]) for i in found[:3]} == {0.0, 5.0, 9.0}


def test_random_choices_are_uniform_and_without_repeats():
    counts = torch.zeros(20)
    for seed in range(2000):
        chosen = random(torch.zeros(20, 1), 5, seeded(seed))
        assert len(set(chosen.tolist())) == 5
        counts[chosen] += 1
    expected, deviation = 2000 * 5 / 20, (2000 * 0.25 * 0.75) ** 0.5
    assert bool(((counts - expected).abs() < 5 * deviation).all())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: k_center(torch.zeros(4, 2), 5), "size must be a whole number from 1 to 4, .*, got 5"),
        (lambda: random(torch.zeros(4, 2), 0), "size must be a whole number from 1 to 4, .*, got 0"),
        (lambda: k_center(torch.zeros(0, 2), 1), "size must be a whole number from 1 to 0"),
        (lambda: k_center(torch.zeros(4, 2, 2), 2), "inputs must be N×D, got 4×2×2"),
        (lambda: k_center(torch.tensor([[0.0], [torch.nan]]), 2), "NaN or infinite"),
        (lambda: k_center(torch.tensor([[0.0], [1e30]]), 2), "overflow"),
        (lambda: Coreset(0), "size must be a whole number ≥ 1, got 0"),
        (lambda: Coreset(5, "k_center"), "choose must be random or k-center, or a function, got 'k_center'"),
        (lambda: Coreset(5, seed=-1), "seed must be a whole number ≥ 0, got -1"),
        (lambda: Coreset(40, withhold=True).rest(a_task()), "has 40 examples, and withholding 40 leaves none"),
        (lambda: Coreset(5).x, "the coreset is empty; add a task first"),
        (lambda: Coreset(5).heads(10), "the coreset is empty"),
        (lambda: Coreset(5).of(0), "has 0 tasks, counted from 0; there is none of number 0"),
        (lambda: kept(a_task(), a_task("b", inputs=3)), "task 'b' has 3 inputs, the tasks kept have 6"),
        (lambda: kept(a_task(classes=(2, 3))).heads(3), "a task kept has class 3, but the network has 3 outputs"),
        (lambda: Coreset(2, lambda x, size, generator: torch.zeros(2).long()).add(a_task()), "2 different indices"),
    ],
)
def test_what_cannot_be_chosen_or_kept_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def kept(*tasks: Task, size: int = 5, **options) -> Coreset:
    coreset = Coreset(size, **options)
    for task in tasks:
        coreset.add(task)
    return coreset


@pytest.mark.parametrize("choose", ["random", "k-center", random])
def test_examples_kept_and_examples_left_are_the_task(choose):
    for number, coreset in enumerate(
        [kept(choose=choose, withhold=True), kept(a_task(), choose=choose, withhold=True)]
    ):
        task = a_task("b", seed=1)
        x, y = coreset.rest(task)
        coreset.add(task)
        own_x, own_y = coreset.of(number)
        assert (len(y), len(own_y)) == (35, 5)
        rows = {(*row, label) for row, label in zip(task.train_x.tolist(), task.train_y.tolist(), strict=True)}
        both = torch.cat([x, own_x]).tolist(), torch.cat([y, own_y]).tolist()
        assert {(*row, label) for row, label in zip(*both, strict=True)} == rows


def test_nothing_is_withheld_unless_asked_for():
    task = a_task()
    x, y = Coreset(5).rest(task)
    assert x is task.train_x
    assert y is task.train_y


def test_the_choice_hangs_on_seed_and_number_of_the_task_alone():
    def chosen(seed, *before):
        coreset = kept(*before, choose="random", seed=seed)
        assert torch.equal(coreset.pick(a_task("now")), coreset.pick(a_task("now")))
        return tuple(coreset.pick(a_task("now")).tolist())

    torch.manual_seed(1)
    first = chosen(0, a_task())
    torch.manual_seed(2)
    assert chosen(0, a_task("another", seed=4)) == first
    assert len({first, chosen(0), chosen(1, a_task()), chosen(0, a_task(), a_task("b"))}) == 4


def test_what_is_kept_at_random_is_not_what_is_learned_first():
    """Of the same seed and task; numpy fills up with zeros, so that (0, 1) and (0, 1, 0) would be one seed."""
    for seed, number in itertools.product(range(3), range(3)):
        coreset = kept(*[a_task("before", seed=1)] * number, choose="random", seed=seed)
        order = torch.randperm(40, generator=seeded(seed_of(seed, number, 0)))
        assert coreset.pick(a_task("now")).tolist() != order[:5].tolist()
    assert len({seed_of(*[0] * count) for count in range(1, 5)}) == 4


def test_a_task_is_chosen_from_once():
    calls = []

    def counted(x, size, generator):
        calls.append(len(x))
        return k_center(x, size, generator)

    coreset, first, second = Coreset(5, counted, withhold=True), a_task(), a_task("b", seed=1)
    for task in (first, first, second):  # the first again is another place in the stream, and chosen from anew
        left, again = coreset.rest(task)[0], coreset.rest(task)[0]
        assert torch.equal(left, again)
        coreset.add(task)
    assert calls == [len(first), len(first), len(second)]


def test_a_choice_remembered_is_that_of_the_present_settings_and_cannot_be_written_to():
    def fresh(size, seed, tasks):
        return kept(*([a_task("b", seed=1)] * tasks), size=size, choose="random", seed=seed).pick(task)

    task, coreset = a_task(), kept(size=5, choose="random", seed=0)
    coreset.pick(task).zero_()
    assert torch.equal(coreset.pick(task), fresh(5, 0, 0))
    coreset.seed = 3
    assert torch.equal(coreset.pick(task), fresh(5, 3, 0))
    coreset.load_state_dict(kept(a_task("b", seed=1), size=5, choose="random", seed=3).state_dict())
    assert torch.equal(coreset.pick(task), fresh(5, 3, 1))


def test_a_coreset_accumulates_in_order_with_heads():
    coreset = kept(a_task(classes=(0, 1)), a_task("b", classes=(2, 3)))
    assert (len(coreset), coreset.x.shape, coreset.classes) == (10, (10, 6), [(0, 1), (2, 3)])
    assert (
        coreset.heads(5).tolist() == [[True, True, False, False, False]] * 5 + [[False, False, True, True, False]] * 5
    )
    assert bool(coreset.heads(5).gather(1, coreset.y[:, None]).all())
    assert kept(a_task(), a_task("b")).heads(2) is None


@pytest.mark.parametrize("choose", ["random", "k-center"])
def test_a_balanced_choice_has_every_class_as_often_as_it_can(choose):
    x, y = torch.randn(43, 3, generator=seeded(0)), torch.tensor([0] * 20 + [1] * 3 + [2] * 20)
    task = Task("uneven", x, y, x[:1], y[:1], classes=(0, 1, 2, 3))
    coreset = kept(task, size=13, choose=choose, balanced=True)
    assert coreset.y.bincount().tolist() == [5, 3, 5]
    assert kept(task, size=2, choose=choose, balanced=True).y.unique().numel() == 2
    assert sorted(kept(task, size=43, choose=choose, balanced=True).pick(task).tolist()) == list(range(43))
    rows = {tuple(row) for row in x.tolist()}
    assert len({tuple(row) for row in coreset.x.tolist()} & rows) == 13


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("choose", ["random", "k-center"])
def test_of_a_task_with_fewer_examples_all_are_kept(choose, balanced):
    small, large = a_task(), Task("large", *[torch.randn(60, 6), torch.arange(60) % 2] * 2, classes=(0, 1))
    coreset = kept(large, small, size=50, choose=choose, balanced=balanced)
    assert [len(coreset.of(number)[1]) for number in (0, 1)] == [50, 40]
    assert sorted(coreset.of(1)[0].tolist()) == sorted(small.train_x.tolist())


@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_bytes_reported_are_those_of_the_tensors(as_bytes):
    coreset = kept(a_task(), a_task("b"), as_bytes=as_bytes)
    assert coreset.nbytes == 10 * 6 * (1 if as_bytes else 4) + 10 * 8
    assert f"{coreset.nbytes} bytes" in repr(coreset)


def test_inputs_come_back_in_their_own_dtype():
    task = a_task()
    task = Task("double", task.train_x.double(), task.train_y, task.test_x.double(), task.test_y, classes=(0, 1))
    for as_bytes in (False, True):
        assert kept(task, as_bytes=as_bytes).x.dtype == torch.float64


def test_inputs_as_bytes_are_within_half_a_level():
    exact, rounded = kept(a_task(), a_task("b", seed=1)), kept(a_task(), a_task("b", seed=1), as_bytes=True)
    for number in range(2):
        (x, y), (near, same) = exact.of(number), rounded.of(number)
        assert torch.equal(y, same)
        level = float(x.max() - x.min()) / 255
        assert 0 < float((x - near).abs().max()) <= level / 2 + 1e-6
    flat = Task("flat", torch.ones(4, 2), torch.zeros(4).long(), torch.ones(4, 2), torch.zeros(4).long(), classes=(0,))
    assert torch.equal(kept(flat, size=2, as_bytes=True).x, torch.ones(2, 2))


def test_grey_images_come_back_from_bytes_as_they_were():
    digits = data.load("digits")
    exact, rounded = (kept(*permuted(digits, tasks=2), size=50, as_bytes=as_bytes) for as_bytes in (False, True))
    levels = (digits.undo(rounded.x).flatten(1)).round()
    assert torch.equal(levels, digits.undo(exact.x).flatten(1).round())


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_coreset_that_is_loaded_goes_on_like_the_one_saved(as_bytes):
    stream = split(data.load("digits"))
    options = dict(size=20, withhold=True, as_bytes=as_bytes)
    coreset, again = kept(stream[0], stream[1], **options), Coreset(**options)
    file = io.BytesIO()
    torch.save(coreset.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    for one in (coreset, again):
        one.add(stream[2])
    assert torch.equal(coreset.x, again.x)
    assert torch.equal(coreset.y, again.y)
    assert (coreset.classes, coreset.nbytes, repr(coreset)) == (again.classes, again.nbytes, repr(again))
    assert torch.equal(coreset.rest(stream[3])[0], again.rest(stream[3])[0])


def test_settings_are_plain():
    assert json.loads(json.dumps(Coreset(5, random).settings)) == Coreset(5, random).settings
    assert Coreset(5, random).settings["choose"] == "random"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("y"), "lacks y"),
        (lambda state: state["settings"].update(size=6), "saved with another size"),
        (lambda state: state["settings"].update(choose="random", seed=4), "saved with another choose, seed"),
        (lambda state: state["classes"].pop(), "does not fit together.*classes of 0 tasks"),
        (lambda state: state.update(y=[state["y"][0][:2]]), r"inputs of \[5\] examples, labels of \[2\]"),
    ],
)
def test_a_state_of_another_coreset_is_refused_and_changes_nothing(change, message):
    state = kept(a_task()).state_dict()
    change(state)
    coreset = kept(a_task("b", seed=1))
    before = coreset.x
    with pytest.raises(CheckpointError, match=message):
        coreset.load_state_dict(state)
    assert torch.equal(coreset.x, before)


def test_inputs_that_are_not_finite_are_not_kept():
    x, y = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    x[2, 1] = math.inf
    coreset = Coreset(4, "random", as_bytes=True)
    with pytest.raises(InputError, match="NaN or infinite"):
        coreset.add(Task("odd", x, y, torch.zeros(4, 2), y, classes=(0, 1)))
    assert len(coreset) == 0


@pytest.mark.parametrize(
    "chosen, message", [([0, 1], "list"), (torch.tensor([0, 99]), "to 99"), (torch.tensor([-1, 0]), "from -1")]
)
def test_a_chooser_that_misses_is_refused(chosen, message):
    with pytest.raises(InputError, match=message):
        Coreset(2, lambda x, size, generator: chosen).add(a_task())
