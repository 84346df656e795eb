"""The predictive layer of every backend against the formulas in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from varbnn.bits import pack, pack_blocks, sign
from varbnn.kernels.backend import usable_backends, using_backend
from varbnn.kernels.ops import predictive

every_backend = pytest.mark.parametrize("backend", usable_backends())
often = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def by_formula(values, weights, scale=1.0, shift=0.0):
    """Mean of the softmaxes and of their entropies, from ±1 weights (S, N, K), in float64 by scipy."""
    product = np.einsum("smk,snk->smn", np.broadcast_to(values, (len(weights), *values.shape[1:])), weights)
    probs = softmax(product * scale + shift, axis=-1)
    return probs.mean(0), entropy(probs, axis=-1).mean(0)


def assert_near(result, expected):
    for ours, theirs in zip(result, expected, strict=True):
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5, rtol=1e-5)


@every_backend
@often
@given(
    samples=st.integers(1, 4),
    shares=st.booleans(),
    rows=st.integers(1, 19),
    inputs=st.integers(1, 100),
    outputs=st.integers(1, 40),
    is_packed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_shape(backend, samples, shares, rows, inputs, outputs, is_packed, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(1 if shares else samples, rows, inputs, generator=generator)
    values = sign(values) if is_packed else values
    weights = sign(torch.randn(samples, outputs, inputs, generator=generator))
    scale, shift = torch.rand(samples, 1, outputs, generator=generator), torch.randn(1, 1, outputs, generator=generator)
    expected = by_formula(values.double().numpy(), weights.double().numpy(), scale.numpy(), shift.numpy())
    with using_backend(backend):
        given_values = pack(values) if is_packed else values
        result = predictive(given_values, pack_blocks(weights), inputs, outputs, scale[:, 0], shift[:, 0])
    assert_near(result, expected)


@every_backend
@pytest.mark.parametrize("size", [1e-3, 30.0, 1e4])
def test_certain_and_undecided_networks(backend, size):
    values, weights = torch.randn(1, 9, 33) * size, sign(torch.randn(3, 21, 33))
    with using_backend(backend):
        mean, entropies = predictive(values, pack_blocks(weights), 33, 21)
    assert_near((mean, entropies), by_formula(values.numpy(), weights.numpy()))
    assert bool((entropies >= 0).all())
    np.testing.assert_allclose(mean.sum(-1).numpy(), 1, atol=1e-6)


@every_backend
def test_nan_in_a_row_is_nan_there_and_nowhere_else(backend):
    values, weights = torch.randn(1, 12, 20), pack_blocks(sign(torch.randn(2, 18, 20)))
    with using_backend(backend):
        clean = predictive(values, weights, 20, 18)
        values[0, 3, 7], values[0, 10, 1] = torch.nan, torch.inf
        mean, entropies = predictive(values, weights, 20, 18)
    spoilt = torch.zeros(12, dtype=torch.bool)
    spoilt[[3, 10]] = True
    assert torch.equal(entropies.isnan(), spoilt)
    assert torch.equal(mean.isnan().all(-1), spoilt)
    assert torch.equal(mean[~spoilt], clean[0][~spoilt])


@every_backend
def test_the_number_of_threads_changes_no_bit(backend):
    values, weights = torch.randn(4, 101, 300), pack_blocks(sign(torch.randn(4, 70, 300)))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with using_backend(backend):
                results.append(predictive(values, weights, 300, 70))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        if backend == "reference":  # torch promises no such thing
            assert torch.allclose(one, two, atol=1e-5)
        else:
            assert torch.equal(one, two)


HUGE = """
import resource, torch
from varbnn.kernels.ops import predictive
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
samples, rows, outputs = 64, 33600, 1000
weight = torch.randint(-2**31, 2**31 - 1, (samples, 63, 1, 16), dtype=torch.int32)
weight[:, -1, :, outputs % 16:] = 0
values = torch.randint(-2**31, 2**31 - 1, (1, rows, 1), dtype=torch.int32)
before = peak()
mean, entropy = predictive(values, weight, 32, outputs)
assert samples * rows * outputs > 2**31
last = predictive(values[:, -1:], weight, 32, outputs)
assert torch.equal(mean[-1:], last[0]) and torch.equal(entropy[-1:], last[1])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
@pytest.mark.skipif(usable_backends() == ["reference"], reason="plain torch holds the logits of one network")
def test_more_than_two_to_the_31_logits_neither_wrap_nor_are_held():
    used = int(subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True).stdout)
    result = 33600 * 1000 * 4
    assert used < 1.5 * result  # their logits would be 64 times the result
