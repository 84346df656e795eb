"""The alarm rings when a network fills up without learning better, and at no other time."""

from __future__ import annotations

import math

import pytest
import torch

from varbnn import continual
from varbnn.errors import InputError


def made_up(entropy, accuracy=None, saturated=0.3):
    """A result with this entropy after every task, and these accuracies on the newest."""
    count = len(entropy)
    history = [{"entropy_bits": bits, "fullest_bits": bits / 3, "saturated": saturated} for bits in entropy]
    matrix = torch.diag(torch.tensor(accuracy or [0.9] * count, dtype=torch.float64))
    return continual.Result("made up", count, [f"{i}" for i in range(count)], {"task": matrix}, history=history)


def test_a_network_that_fills_up_at_constant_accuracy_is_reported():
    found = continual.capacity(made_up([0.9, 0.7, 0.5, 0.3]))
    assert found.falling == 3
    assert found.per_task == pytest.approx(0.2)
    assert found.tasks_left == pytest.approx(1.5)
    assert found.fullest_bits == pytest.approx(0.1)
    assert "filling up" in found.warning
    assert "0.30 bit per weight left" in found.warning
    assert "30% settled, 0.20 less after each of the last 3 tasks" in str(found)
    assert "full after 1.5 more" in found.warning


@pytest.mark.parametrize(
    ("entropy", "accuracy"),
    [
        ([0.9, 0.7, 0.5, 0.3], [0.80, 0.85, 0.90, 0.95]),  # it buys accuracy
        ([0.9, 0.3, 0.3, 0.3], None),  # it has come to rest
        ([0.9, 0.5, 0.4], None),  # not for long enough
        ([0.9, 0.3, 0.4, 0.3], None),  # it went up in between
        ([0.99, 0.9, 0.8, 0.7], None),  # there is room
        ([0.0, 0.0, 0.0, 0.0], None),  # one network, which never had a posterior
        ([0.9, 0.7, 0.5, 0.3], [0.9, math.nan, 0.9, math.nan]),  # nobody knows how well it learned
    ],
)
def test_otherwise_there_is_no_warning(entropy, accuracy):
    assert continual.capacity(made_up(entropy, accuracy)).warning is None


def test_a_network_that_is_full_is_reported_though_nothing_falls_any_more():
    entropy = [0.5, 0.1, 0.0102, 0.0101, 0.0101, 0.0101]
    found = continual.capacity(made_up(entropy, [0.9, 0.9, 0.8, 0.8, 0.7, 0.6], saturated=0.98))
    assert found.falling == 0
    assert "network is full (0.01 bit per weight left)" in found.warning
    assert "(-20.0%): take a wider" in found.warning
    assert continual.capacity(made_up(entropy, [0.9, 0.9, 0.8, 0.8, 0.7, 0.95])).warning is None  # it still learns
    assert continual.capacity(made_up(entropy), below=0.01).warning is None
    assert continual.capacity(made_up([0.5, 0.02])).warning is None  # too few tasks to compare


def test_falling_accuracy_warns_and_says_by_how_much():
    found = continual.capacity(made_up([0.6, 0.5, 0.4, 0.3], [0.9, 0.9, 0.88, 0.85]))
    assert found.gained == pytest.approx(-0.05)
    assert "(-5.0%)" in found.warning


def test_how_far_to_look_back_and_when_to_worry_are_chosen():
    falling = made_up([0.99, 0.9, 0.8, 0.7])
    assert continual.capacity(falling, below=1.0).warning is not None
    assert continual.capacity(made_up([0.9, 0.4]), tasks=1).warning is not None
    assert continual.capacity(made_up([0.5, 0.4, 0.3], [0.9, 0.9, 0.93]), tasks=2).warning is None
    assert continual.capacity(made_up([0.5, 0.4, 0.3], [0.9, 0.9, 0.93]), tasks=2, tolerance=0.05).warning is not None


def test_what_rests_has_room_for_ever():
    found = continual.capacity(made_up([0.5, 0.5]))
    assert (found.falling, found.per_task, found.tasks_left) == (0, 0.0, math.inf)


def test_without_entropy_there_is_nothing_to_say():
    with pytest.raises(InputError, match="no task was learned yet"):
        continual.capacity(continual.Result("empty", 2))
    with pytest.raises(InputError, match="no binary weights"):
        continual.capacity(continual.Result("float", 1, ["a"], history=[{"loss": 0.1}]))


@pytest.mark.parametrize("wrong", [{"tasks": 0}, {"below": 2.0}, {"below": "x"}, {"tolerance": -0.1}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        continual.capacity(made_up([0.5, 0.4]), **wrong)
