"""The parts of benchmarks/permuted.py that decide what its numbers mean."""

from __future__ import annotations

import pytest
import torch

from varbnn import continual, data
from varbnn.cli.lifelong import falling
from varbnn.nn import binary_layers


@pytest.fixture
def benchmark_modules(script):
    return script("permuted"), script("permuted_methods")


def test_the_ceiling_sees_the_tasks_of_the_stream(benchmark_modules):
    permuted, _ = benchmark_modules
    digits = data.load("digits")
    mixed = permuted.Mixed(digits, tasks=3, batch_size=100, seed=4)
    for order, task in zip(mixed.orders, continual.permuted(digits, 3, seed=4), strict=True):
        assert torch.equal(digits.train_x[:, order], task.train_x)
    assert sum(len(y) for _, y in mixed) == 3 * len(digits.train_y)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_every_parameter_is_a_belief(benchmark_modules, norm):
    _, methods = benchmark_modules
    model = methods.network(norm, methods.LIVING)
    beliefs = sum(belief.numel() for _, layer in binary_layers(model) for belief in layer.belief)
    assert sum(p.numel() for p in model.parameters()) == beliefs == 784 * 100 + 100 * 100 + 100 * 10


def test_layers_above_start_late_and_all_rates_end_at_zero():
    groups = [{"params": [torch.zeros(1, requires_grad=True)]}, {"params": [torch.ones(1, requires_grad=True)]}]
    groups[1]["late"] = 0.3
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler = falling(optimizer, 100)
    rates = []
    for _ in range(101):
        rates.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    first, above = zip(*rates, strict=True)
    assert first[0] == 1.0
    assert above[0] == 0.0
    assert above[15] == pytest.approx(first[15] / 4)
    assert above[30:] == first[30:]
    assert first[100] == pytest.approx(0.0)
