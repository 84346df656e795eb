"""Streams: each task is what its definition says, the same at every look, and bad data are refused by name."""

from __future__ import annotations

import gc
import json
import math
import pickle
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from varbnn import data
from varbnn.continual import Stream, Task, from_tasks, permuted, rotated, split
from varbnn.data import Dataset
from varbnn.errors import InputError

PARTS = ("train", "val", "test")


def some_images(shape=(6, 5), classes=4, counts=(24, 8, 12), value_range=(0.0, 16.0)) -> Dataset:
    """Random images, every class in every part, standardised by numbers of their own."""
    generator = torch.Generator().manual_seed(7)
    size = math.prod(shape)
    mean, std = torch.tensor(5.0), torch.tensor(3.0)
    parts = {}
    for part, count in zip(PARTS, counts, strict=True):
        grey = torch.randint(0, 17, (count, size), generator=generator).float()
        parts[f"{part}_x"] = (grey - mean) / std
        parts[f"{part}_y"] = torch.arange(count) % classes
    absent = dict(ood_x=None, ood_name="")
    return Dataset(
        "noise", **parts, **absent, num_classes=classes, shape=shape, mean=mean, std=std, value_range=value_range
    )


STREAMS = {
    "permuted": lambda images: permuted(images, tasks=3, seed=1),
    "rotated": lambda images: rotated(images, tasks=3, degrees=120),
    "split, task": lambda images: split(images),
    "split, domain": lambda images: split(images, scenario="domain"),
    "split, class": lambda images: split(images, classes_per_task=1, scenario="class"),
    "own": lambda images: from_tasks(list(split(images)), outputs=4),
}
each_stream = pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)


@each_stream
def test_a_task_is_the_same_every_time_it_is_asked_for(make):
    first, second = make(some_images()), make(some_images())
    for one, other in zip(first, [second[i] for i in range(len(second))], strict=True):
        assert (one.name, one.classes) == (other.name, other.classes)
        for part in PARTS:
            assert torch.equal(getattr(one, f"{part}_x"), getattr(other, f"{part}_x"))
            assert torch.equal(getattr(one, f"{part}_y"), getattr(other, f"{part}_y"))


@each_stream
def test_a_network_for_the_stream_fits_every_task(make):
    stream = make(some_images())
    for task in stream:
        assert task.train_x.shape == (len(task), stream.inputs)
        assert task.train_x.dtype == torch.float32
        assert set(task.train_y.tolist()) <= set(task.classes) <= set(range(stream.outputs))
    assert len({task.name for task in stream}) == len(stream)


@each_stream
def test_settings_survive_json_and_tell_streams_apart(make):
    images = some_images()
    settings = make(images).settings
    assert json.loads(json.dumps(settings)) == settings == make(some_images()).settings
    relabelled = replace(images, train_y=images.train_y.roll(4 // 2 + 1))
    assert make(relabelled).settings != settings
    repainted = replace(images, train_x=-images.train_x)
    assert make(repainted).settings != settings


@pytest.mark.parametrize("make", list(STREAMS.values())[:-1], ids=list(STREAMS)[:-1])
def test_nothing_is_kept_of_a_task_nobody_holds(make):
    stream = make(some_images())
    kept = [weakref.ref(task) for task in stream]
    gc.collect()
    assert all(reference() is None for reference in kept)


@each_stream
def test_a_stream_goes_through_pickle(make):
    stream = make(some_images())
    again = pickle.loads(pickle.dumps(stream))
    assert torch.equal(again[1].test_x, stream[1].test_x)


def test_permutations_move_every_part_alike_and_differ_between_tasks():
    images = some_images()
    seen = set()
    for task in permuted(images, tasks=10):
        order = [int((images.train_x == column[:, None]).all(0).nonzero()) for column in task.train_x.T]
        assert sorted(order) == list(range(30))
        for part in PARTS:
            assert torch.equal(getattr(task, f"{part}_x"), getattr(images, f"{part}_x")[:, order])
            assert torch.equal(getattr(task, f"{part}_y"), getattr(images, f"{part}_y"))
        seen.add(tuple(order))
    assert len(seen) == 10


def test_a_longer_stream_begins_like_a_shorter_one():
    images = some_images()
    short, long = permuted(images, tasks=2, seed=3), permuted(images, tasks=100, seed=3)
    assert all(torch.equal(a.train_x, b.train_x) for a, b in zip(short, long, strict=False))
    assert not torch.equal(short[0].train_x, permuted(images, tasks=2, seed=4)[0].train_x)


def test_the_first_task_may_stay_as_it_is_and_changes_no_other():
    images = some_images()
    plain, kept = permuted(images, tasks=3), permuted(images, tasks=3, keep_first=True)
    assert torch.equal(kept[0].train_x, images.train_x)
    assert not torch.equal(plain[0].train_x, images.train_x)
    assert all(torch.equal(plain[i].train_x, kept[i].train_x) for i in (1, 2))


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("degrees", [150.0, -90.0])
def test_turned_images_are_scipys(shape, degrees):
    images = some_images(shape)
    stream = rotated(images, tasks=3, degrees=degrees)
    options = dict(reshape=False, order=1, mode="grid-constant", cval=0.0, prefilter=False, axes=(-1, -2))
    for number, task in enumerate(stream):
        for part in PARTS:
            before = images.undo(getattr(images, f"{part}_x")).double().numpy()
            expected = ndimage.rotate(before, number * degrees / 3, **options)
            found = images.undo(getattr(task, f"{part}_x")).numpy()
            np.testing.assert_allclose(found, expected, atol=2e-4)


def test_images_without_a_declared_range_are_filled_with_their_lowest_value():
    images = some_images((16, 16), value_range=None)
    images = replace(images, train_x=images.train_x + 1)  # the lowest grey level is 3 now
    corners = images.undo(rotated(images, tasks=2, degrees=90)[1].test_x)[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.allclose(corners, torch.tensor(3.0), atol=1e-5)


def test_many_images_are_turned_like_few():
    """They are turned some thousands at a time."""
    few = some_images()
    many = replace(few, train_x=few.train_x.repeat(400, 1), train_y=few.train_y.repeat(400))
    turned = rotated(many, tasks=3)[1].train_x
    assert torch.equal(turned, rotated(few, tasks=3)[1].train_x.repeat(400, 1))


@pytest.mark.parametrize(
    "scenario, labels, classes, outputs",
    [("task", [2, 3], (2, 3), 4), ("domain", [0, 1], (0, 1), 2), ("class", [2, 3], (0, 1, 2, 3), 4)],
)
def test_split_scenarios(scenario, labels, classes, outputs):
    images = some_images()
    stream = split(images, scenario=scenario)
    assert (len(stream), stream.outputs, stream[1].name, stream[1].classes) == (2, outputs, "2 and 3", classes)
    for part in PARTS:
        rows = [i for i, y in enumerate(getattr(images, f"{part}_y").tolist()) if y in (2, 3)]
        assert torch.equal(getattr(stream[1], f"{part}_x"), getattr(images, f"{part}_x")[rows])
        assert getattr(stream[1], f"{part}_y").tolist() == [labels[i % 2] for i in range(len(rows))]


def test_all_examples_come_once_in_a_split_stream():
    digits = data.load("digits", validation=True)
    tasks = list(split(digits, classes_per_task=5))
    assert [task.name for task in tasks] == ["0, 1, 2, 3 and 4", "5, 6, 7, 8 and 9"]
    for part in PARTS:
        assert sum(len(getattr(task, f"{part}_x")) for task in tasks) == len(getattr(digits, f"{part}_x"))


@each_stream
def test_data_without_validation_have_tasks_without(make):
    for nothing in (dict(val_x=None, val_y=None), dict(val_x=torch.empty(0, 30), val_y=torch.empty(0).long())):
        assert all(task.val_x is None and task.val_y is None for task in make(replace(some_images(), **nothing)))


def test_a_slice_is_a_stream_of_the_same_network():
    stream = permuted(some_images(), tasks=10)
    part = stream[2:8:2]
    assert isinstance(part, Stream)
    assert ([task.name for task in part], part.outputs) == (["permutation 3", "permutation 5", "permutation 7"], 4)
    assert part[-1].name == part[1:][1].name == "permutation 7"
    assert part[1:].settings == {**stream.settings, "chosen": [4, 6]}
    with pytest.raises(InputError, match="has 10, has none"):
        stream[10:]


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_outside_names_what_there_is(index):
    with pytest.raises(IndexError, match=rf"permuted noise has 3 tasks, 0 … 2, got {index}"):
        permuted(some_images(), tasks=3)[index]


POINTS = replace(some_images(shape=(2,)), name="points")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda images: permuted(images, tasks=0), "tasks must be a whole number ≥ 1, got 0"),
        (lambda images: permuted(images, tasks=2.5), "tasks must be a whole number ≥ 1, got 2.5"),
        (lambda images: permuted(images, tasks=True), "tasks must be a whole number ≥ 1, got True"),
        (lambda images: permuted(images, seed=-1), "seed must be a whole number ≥ 0, got -1"),
        (lambda images: permuted(POINTS, tasks=3), r"3 permutations of 2 inputs repeat \(there are 2\)"),
        (lambda images: permuted("mnist"), "needs a Dataset with classes.*got str"),
        (lambda images: rotated(data.load("curve")), "needs a Dataset with classes.*got RegressionDataset"),
        (lambda images: rotated(images, tasks=-1), "tasks must be a whole number ≥ 1, got -1"),
        (lambda images: rotated(images, degrees=0), "turning 5 tasks by 0° each comes back"),
        (lambda images: rotated(images, tasks=4, degrees=720), "turning 4 tasks by 180° each comes back"),
        (lambda images: rotated(images, degrees=math.nan), "degrees must be a finite number, got nan"),
        (lambda images: rotated(POINTS), "only images can be turned.* of points is of shape 2"),
        (lambda images: rotated(some_images((6, 5, 3))), "images of noise are 6×5×3, colours last"),
        (lambda images: split(images, 3), "has 4 classes, .* tasks of 3; classes_per_task can be 1, 2, 4"),
        (lambda images: split(images, 0), "classes_per_task must be a whole number ≥ 1, got 0"),
        (lambda images: split(images, 1), "with one class per task there is nothing to tell apart"),
        (lambda images: split(images, scenario="tasks"), "scenario must be one of task, domain, class, got 'tasks'"),
        (lambda images: split(replace(images, num_classes=6)), "class 4 of noise has no training example"),
        (
            lambda images: split(replace(images, test_y=images.test_y.clamp(max=2))),
            "class 3 of noise has no test example",
        ),
        (lambda images: permuted(replace(images, test_x=images.test_x[:0])), "zero examples in test_x"),
    ],
)
def test_what_makes_no_stream_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make(some_images())


def a_task(name="a", classes=(0, 1), inputs=3, count=4, **changes) -> Task:
    x, y = torch.zeros(count, inputs), torch.arange(count) % len(classes) + classes[0]
    return Task(**{"name": name, "train_x": x, "train_y": y, "test_x": x, "test_y": y, "classes": classes, **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(count=0), "task 'a' has zero examples in train_x"),
        (dict(test_x=torch.zeros(0, 3), test_y=torch.zeros(0).long()), "task 'a' has zero examples in test_x"),
        (dict(train_y=torch.tensor([0, 1, 5, 2])), "train_y of task 'a' has labels .* classes 0, 1 stands for: 2, 5"),
        (dict(test_y=torch.tensor([0, 1, 1, -1])), "test_y of task 'a' has labels .*: -1"),
        (dict(classes=(1, 0)), r"must be numbers of outputs ≥ 0, each once and in increasing order, got \(1, 0\)"),
        (dict(classes=(0, 0)), "each once and in increasing order"),
        (dict(train_x=torch.zeros(4, 1, 3)), "train_x of task 'a' must be .*N×D.*, got torch.float32 4×1×3"),
        (dict(train_x=torch.zeros(4, 3).byte()), "must be a floating tensor .* got torch.uint8 4×3"),
        (dict(train_y=torch.zeros(4)), "train_y of task 'a' must be int64, .* got torch.float32 4"),
        (dict(train_y=torch.zeros(3).long()), "one label for each of 4 examples, got torch.int64 3"),
        (dict(test_x=torch.zeros(4, 2)), "test_x of task 'a' has 2 inputs, but train_x has 3"),
        (dict(val_x=torch.zeros(4, 3)), "task 'a' has one of val_x and val_y"),
        (dict(train_x=np.zeros((4, 3))), "must be a floating tensor .* got ndarray"),
    ],
)
def test_what_makes_no_task_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        a_task(**changes)


@pytest.mark.parametrize(
    "tasks, outputs, message",
    [
        ([], None, "at least one task"),
        (["a"], None, "tasks must be of varbnn.continual.Task, got str"),
        ([a_task(), a_task()], None, "tasks need names of their own, got 'a' twice"),
        ([a_task(), a_task("b", inputs=2)], None, "'a' has 3, 'b' has 2"),
        ([a_task(), a_task("b", classes=(2, 3))], 3, "task 'b' is about output 3, but the network has 3, .*outputs=4"),
        ([a_task()], 0, "outputs must be a whole number ≥ 1, got 0"),
        ([a_task(train_x=torch.full((4, 3), math.nan))], None, "train_x of task 'a' has NaN"),
    ],
)
def test_what_makes_no_stream_of_tasks_is_refused(tasks, outputs, message):
    with pytest.raises(InputError, match=message):
        from_tasks(tasks, outputs)


def test_a_stream_of_tasks_counts_its_outputs():
    stream = from_tasks([a_task(), a_task("b", classes=(2, 3))], name="mine")
    assert (len(stream), stream.inputs, stream.outputs, stream.name) == (2, 3, 4, "mine")
    assert [task.name for task in stream] == ["a", "b"]


def test_an_image_turned_by_no_angle_is_the_image():
    images = some_images()
    assert torch.equal(rotated(images, tasks=1)[0].train_x, images.train_x)
