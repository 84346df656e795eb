"""Packed convolutions of every backend against torch in float64."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.convolutions import Case, activated, cases, exact, packed_weights
from varbnn.errors import InputError
from varbnn.kernels.backend import usable_backends, using_backend
from varbnn.kernels.ops import conv

every_backend = pytest.mark.parametrize("backend", usable_backends())
often = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORDS = st.sampled_from([32, 64])  # channels that fill whole words, which take another path than others

IMAGE = Case(2, False, 2, 64, 40, (9, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)


def check(backend, case, values):
    weights = case.weights()
    with using_backend(backend):
        result = conv(
            values, packed_weights(weights, case.groups), *case.options(), case.scale(), case.shift(), case.activation
        )
    expected = activated(exact(case, values, weights, case.scale(), case.shift()), case.activation)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert torch.equal(result, expected)


@every_backend
@often
@given(case=cases())
def test_whole_numbers_are_exact(backend, case):
    check(backend, case, case.integers())


@every_backend
@often
@given(case=cases(WORDS))
def test_whole_numbers_are_exact_where_channels_fill_words(backend, case):
    check(backend, case, case.integers())


@every_backend
@often
@given(case=cases().map(lambda c: replace(c, groups=1)))
def test_signs_are_exact_and_padding_is_zero_not_minus_one(backend, case):
    check(backend, case, case.signs())


@every_backend
@often
@given(case=cases(WORDS))
def test_signs_are_exact_where_channels_fill_words(backend, case):
    check(backend, case, case.signs())


WIDE = Case(2, True, 1, 512, 17, (4, 90), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)  # cut along x


@every_backend
@pytest.mark.parametrize(
    "case",
    [
        WIDE,
        replace(WIDE, stride=(2, 3), dilation=(1, 2)),
        replace(WIDE, channels=1056, groups=3, outputs=51),
        # taller, and the last box across is so narrow that the places of one call lie in several of its rows
        *(replace(WIDE, outputs=3, space=(12, width), samples=1) for width in (21, 22, 23, 25)),
        replace(WIDE, outputs=3, channels=1024, space=(12, 17), samples=1),
        replace(WIDE, outputs=3, channels=256, space=(12, 43), samples=1, stride=(2, 1)),
        Case(1, False, 1, 32, 5, (300,), (5,), (1,), (2, 2), (1,), 1),
        Case(
            1, False, 1, 32, 5, (30, 2), (3, 1), (1, 1), (6, 6, 0, 0), (6, 1), 1
        ),  # sees few of the rows it reaches over
        Case(1, False, 2, 32, 33, (1, 1, 1), (3, 3, 3), (1, 1, 1), (1, 1) * 3, (1, 1, 1), 1),
        Case(1, True, 1, 64, 16, (5, 5), (1, 1), (7, 7), (20, 20, 0, 0), (1, 1), 1),  # most places see padding only
    ],
    ids=[
        "wide",
        "strided",
        "groups",
        "rest 1",
        "rest 2",
        "rest 3",
        "rest 5",
        "1024",
        "256",
        "line",
        "dilated",
        "pixel",
        "padding",
    ],
)
@pytest.mark.parametrize("kind", ["integers", "signs"])
def test_shapes_that_are_cut_into_boxes(backend, case, kind):
    check(backend, case, getattr(case, kind)())


@every_backend
def test_real_numbers_are_as_near_to_float64_as_torch_is(backend):
    case = replace(IMAGE, channels=256)
    values, weights = case.reals(), case.weights()
    expected = exact(case, values, weights)
    with using_backend("reference"):
        by_torch = (conv(values, packed_weights(weights, 1), *case.options()) - expected).abs().max()
    with using_backend(backend):
        ours = (conv(values, packed_weights(weights, 1), *case.options()) - expected).abs().max()
    assert ours < 4 * by_torch  # sums of 2304 numbers, each in an order of its own
    assert ours < 2e-6 * expected.abs().max() * 10


@every_backend
@pytest.mark.parametrize("kind", ["reals", "signs"])
@pytest.mark.parametrize("case", [IMAGE, replace(IMAGE, channels=20, batch=1), WIDE], ids=["words", "patches", "wide"])
def test_the_number_of_threads_changes_no_bit(backend, case, kind):
    case = replace(case, samples=3)
    values, weights = getattr(case, kind)(), packed_weights(case.weights(), 1)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with using_backend(backend):
                results.append(conv(values, weights, *case.options()))
    finally:
        torch.set_num_threads(before)
    if backend == "reference":  # torch promises no such thing
        assert torch.allclose(results[0], results[1], rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


@every_backend
@pytest.mark.parametrize("channels", [3, 64])
def test_a_shared_input_is_the_same_input_for_each(backend, channels):
    case = replace(IMAGE, channels=channels, shares_input=True, samples=3)
    values, weights = case.integers(), packed_weights(case.weights(), 1)
    with using_backend(backend):
        shared = conv(values, weights, *case.options())
        own = conv(values.expand(3, *values.shape[1:]), weights, *case.options())
        first = conv(values, weights[:1], *case.options())
    assert torch.equal(shared, own)
    assert torch.equal(shared[:1], first)


@every_backend
@pytest.mark.parametrize("channels", [3, 64])
def test_nan_and_infinity_reach_the_places_that_see_them_and_no_others(backend, channels):
    case = replace(IMAGE, channels=channels, samples=1)
    values, weights = case.integers(), case.weights()
    values[0, 0, 4, 3, 1] = torch.nan
    values[0, 1, 0, 0, 2] = torch.inf
    expected = exact(case, values, weights).float()
    with using_backend(backend):
        result = conv(values, packed_weights(weights, 1), *case.options())
        kept = conv(values, packed_weights(weights, 1), *case.options(), activation="relu")
        with pytest.raises(InputError, match="NaN, which has no sign"):
            conv(values, packed_weights(weights, 1), *case.options(), activation="sign")
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.nan_to_num(), expected.nan_to_num())
    assert torch.equal(kept.isnan(), expected.isnan())


@every_backend
def test_an_input_in_another_memory_order(backend):
    case = IMAGE
    values, weights = case.integers(), packed_weights(case.weights(), 1)
    turned = values.movedim(-1, 2).contiguous().movedim(2, -1)
    assert not turned.is_contiguous()
    with using_backend(backend):
        assert torch.equal(conv(turned, weights, *case.options()), conv(values, weights, *case.options()))


@every_backend
def test_no_images_and_no_networks_give_empty_results(backend):
    with using_backend(backend):
        for case in (replace(IMAGE, batch=0), replace(IMAGE, samples=0, shares_input=True)):
            values = torch.zeros(case.input_shape())
            weights = torch.zeros(case.samples, 3, 18, 16, dtype=torch.int32)
            assert conv(values, weights, *case.options()).shape == (case.samples, case.batch, 9, 7, 40)


@every_backend
def test_a_kernel_larger_than_its_input_is_refused(backend):
    weights = torch.zeros(1, 1, 4, 16, dtype=torch.int32)
    with using_backend(backend), pytest.raises(InputError, match="the kernel reaches over 4 places of dimension 0"):
        conv(torch.zeros(1, 1, 3, 32), weights, 32, 1, [4], [1], [0, 0], [1])


@pytest.mark.skipif(usable_backends() == ["reference"], reason="plain torch holds every bit as a float")
def test_more_than_two_to_the_31_outputs_do_not_wrap():
    places, outputs = 2**15 + 8, 2**16
    case = Case(1, True, 1, 32, outputs, (places,), (1,), (1,), (0, 0), (1,), 1)
    values = torch.zeros(1, 1, places, 1, dtype=torch.int32)
    values[..., -1, :] = -1  # the last place is all +1, the others all -1
    weights = packed_weights(torch.ones(1, outputs, 32, 1), 1)
    result = conv(values, weights, *case.options(), activation="sign")
    assert result.numel() * 32 > 2**31
    assert bool((result[0, 0, -1] == -1).all())
    assert not bool(result[0, 0, :-1].any())
