"""One step: equal to the transcription in numpy, in both ways to compute products, and refused where input is bad."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.oracles import integer as oracle
from varbnn.errors import InputError
from varbnn.integer import IntegerNetwork, as_model, fit, step
from varbnn.integer.arithmetic import margin_errors, matmul, shifted

WIDTHS = (40, 24, 9, 17, 5)


def batch(generator, size=13):
    codes = torch.randint(2, (size, WIDTHS[0]), generator=generator, dtype=torch.int8) * 2 - 1
    return codes, torch.randint(WIDTHS[-1], (size,), generator=generator)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("settings", oracle.SETTINGS, ids=str)
def test_every_step_is_that_of_the_transcription(settings):
    network = IntegerNetwork(WIDTHS, **settings, generator=generator(0))
    counters = [layer.counter.numpy().astype(np.int64) for layer in network.counters]
    thresholds = [layer.threshold.numpy().astype(np.int64) for layer in network.counters[:-1]]
    ours, theirs, inputs = generator(1), generator(1), generator(2)

    def uniform(low, high, shape):
        return torch.randint(low, high, shape, generator=theirs, dtype=torch.int32).numpy().astype(np.int64)

    largest = {}
    for number in range(60):
        codes, labels = batch(inputs, size=(13, 1, 32)[number % 3])
        shift = number % 4
        scores = step(network, codes, labels, shift, ours)
        expected, found = oracle.step(
            counters, thresholds, codes.numpy().astype(np.int64), labels.numpy(), shift, uniform=uniform, **settings
        )
        np.testing.assert_array_equal(scores.numpy(), expected)
        for layer, counter in zip(network.counters, counters, strict=True):
            np.testing.assert_array_equal(layer.counter.numpy(), counter)
        for layer, threshold in zip(network.counters, thresholds, strict=False):
            np.testing.assert_array_equal(layer.threshold.numpy(), threshold)
        largest = {name: max(value, largest.get(name, 0)) for name, value in found.items()}
    # errors have four bits; sums of errors per output and sums over the batch stay in the ranges that are relied on
    assert 4 <= largest["error"] <= 7
    assert 1 <= largest["below"] <= 7
    assert 8 <= largest["update"] <= 7 * 32
    assert torch.equal(ours.get_state(), theirs.get_state())


@pytest.mark.parametrize("bits, spread", [(3, 0), (4, 4), (6, 0), (8, 0), (8, 16)])
def test_float_products_and_integer_products_train_the_same_bits_and_no_state_is_a_float(bits, spread):
    states = []
    for products in ("float32", "int32"):
        network = IntegerNetwork(WIDTHS, bits=bits, spread=spread, products=products, generator=generator(0))
        own, inputs = generator(1), generator(2)
        for number in range(80):
            scores = step(network, *batch(inputs, 32), number // 16, own)
            assert scores.dtype == torch.int32
        states.append(network.state_dict())
    assert {value.dtype for value in states[0].values()} == {torch.int8, torch.int32}
    assert not list(network.parameters())
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


class Floats(TorchDispatchMode):
    """Which operations give floating-point tensors."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and (result.is_floating_point() or result.is_complex()):
            self.found.add(operation.overloadpacket.__name__)
        return result


@pytest.mark.parametrize("products, allowed", [("int32", set()), ("float32", {"_to_copy", "mm"})])
def test_no_operation_of_a_step_is_in_floating_point_but_float_products(products, allowed):
    network = IntegerNetwork(WIDTHS, spread=16, products=products, generator=generator(0))
    codes, labels = batch(generator(2))
    with Floats() as floats:
        step(network, codes, labels, 2, generator(1))
        network(codes)
        network.sample(1)
    assert floats.found <= allowed


def test_half_and_double_leave_the_integers():
    network = IntegerNetwork(WIDTHS).half().double()
    assert {value.dtype for value in network.state_dict().values()} == {torch.int8, torch.int32}


def test_float_products_are_exact_to_the_last_sum_below_their_limit():
    terms = 2**24 // 7
    errors = torch.full((1, terms), 7, dtype=torch.int32)
    ones = torch.ones(terms, 1, dtype=torch.int8)
    ones[-1] = -1
    assert matmul(errors, ones, "float32").item() == 7 * (terms - 2) == matmul(errors, ones, "int32").item()


@pytest.mark.parametrize("value", [-13, -1, 0, 5, 22])
@pytest.mark.parametrize("shift", [1, 3, 4])
def test_shifts_round_without_bias(value, shift):
    n = 200_000
    values = torch.full((n,), value, dtype=torch.int32)
    rounded = shifted(values, shift, generator(value + 100 * shift))
    exact = value / 2**shift
    assert set(rounded.unique().tolist()) <= {int(np.floor(exact)), int(np.ceil(exact))}
    share = exact - np.floor(exact)
    assert abs(rounded.double().mean().item() - exact) <= 5 * np.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize("bits", [3, 5, 8])
def test_counters_saturate_and_never_wrap_round(bits):
    network = IntegerNetwork([6, 3], bits=bits, generator=generator(0))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = torch.ones(64, 6, dtype=torch.int8)
    right, network.margin = torch.zeros(64, dtype=torch.int64), 1000  # always pushed, by 4 · 64 at once
    for _ in range(300):
        step(network, codes, right, 0, generator(1))
    counter = network.counters[0].counter
    assert torch.equal(counter[0], torch.full((6,), high, dtype=torch.int8))
    assert bool((counter[1:] == low).any())
    assert int(counter.min()) >= low


def test_the_margin_pushes_the_right_class_and_the_best_wrong_one():
    scores = torch.tensor([[10, 6, 3], [10, 7, 3], [10, 10, 3], [2, 9, 8], [-9, -8, -8]], dtype=torch.int32)
    errors = margin_errors(scores, torch.tensor([0, 0, 1, 2, 0]), margin=4)
    expected = [[0, 0, 0], [4, -4, 0], [-4, 4, 0], [0, -4, 4], [4, -4, 0]]
    assert errors.tolist() == expected


def test_an_error_beyond_the_reach_is_not_passed_on():
    network = IntegerNetwork([4, 2, 3], generator=generator(0))
    below = network.counters[0]
    below.threshold.fill_(100)  # farther from every sum than the reach, 2
    before = below.counter.clone()
    for seed in range(5):
        codes = torch.randint(2, (8, 4), generator=generator(seed), dtype=torch.int8) * 2 - 1
        step(network, codes, torch.arange(8) % 3, 0)
        below.threshold.fill_(100)
    assert torch.equal(below.counter, before)


class TestBadInput:
    def bad(self, match, codes=None, labels=None, shift=2):
        network, good = IntegerNetwork(WIDTHS, generator=generator(0)), batch(generator(1))
        before = {name: value.clone() for name, value in network.state_dict().items()}
        codes, labels = good[0] if codes is None else codes, good[1] if labels is None else labels
        with pytest.raises(InputError, match=match):
            step(network, codes, labels, shift)
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    def test_labels_out_of_range(self):
        self.bad(r"labels must be 0 … 4, the network's classes, got 0 … 5", labels=torch.arange(13) % 6)
        self.bad(r"got -1 … 3", labels=torch.arange(13) % 5 - 1)

    def test_labels_of_another_kind_or_number(self):
        self.bad(r"labels must be 13 integers, a tensor, got torch.float32 \(13,\)", labels=torch.zeros(13))
        self.bad(
            r"labels must be 13 integers, a tensor, got torch.int64 \(12,\)", labels=torch.zeros(12, dtype=torch.int64)
        )
        self.bad("got torch.bool", labels=torch.zeros(13, dtype=torch.bool))

    @pytest.mark.parametrize(
        "labels, match",
        [
            ([0] * 13, "got a list"),
            (np.zeros(13, dtype=np.int64), "got a ndarray"),
            ("none", "got a str"),
            (torch.zeros(13, dtype=torch.int64).to_sparse(), "got torch.sparse_coo torch.int64"),
            (torch.full((13,), 2**63 + 1, dtype=torch.uint64), "labels must be 0 … 4, the network's classes"),
        ],
    )
    def test_labels_that_are_no_dense_tensor_of_classes(self, labels, match):
        self.bad(match, labels=labels)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int16])
    def test_labels_of_every_whole_kind_are_the_same_labels(self, dtype):
        codes, labels = batch(generator(1))
        one, other = (IntegerNetwork(WIDTHS, generator=generator(0)) for _ in range(2))
        history = fit(one, [(codes, labels)], epochs=3, generator=generator(2), progress=False)
        again = fit(other, [(codes, labels.to(dtype))], epochs=3, generator=generator(2), progress=False)
        assert [row["accuracy"] for row in history] == [row["accuracy"] for row in again]
        assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))

    def test_codes_that_are_sparse(self):
        self.bad("got torch.sparse_coo torch.int8", codes=torch.ones(13, 40, dtype=torch.int8).to_sparse())

    def test_another_network(self):
        codes, labels = batch(generator(1))
        for use in (
            lambda other: step(other, codes, labels, 2),
            lambda other: fit(other, [(codes, labels)], epochs=1, progress=False),
            as_model,
        ):
            with pytest.raises(InputError, match="network must be an IntegerNetwork, got a Linear"):
                use(torch.nn.Linear(40, 5))

    def test_a_seed_is_no_generator(self):
        network, (codes, labels) = IntegerNetwork(WIDTHS, generator=generator(0)), batch(generator(1))
        before = {name: value.clone() for name, value in network.state_dict().items()}
        for use in (
            lambda: IntegerNetwork(WIDTHS, generator=0),
            lambda: step(network, codes, labels, 2, 0),
            lambda: fit(network, [(codes, labels)], epochs=1, generator=0, progress=False),
            lambda: network.sample(1, 0),
        ):
            with pytest.raises(InputError, match=r"generator must be a torch.Generator or None, got 0"):
                use()
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    def test_codes_that_are_floats(self):
        self.bad("codes must be a tensor of int8, .1 and -1, got torch.float32", codes=torch.ones(13, 40))

    def test_codes_of_another_width(self):
        self.bad(r"codes must be N×40, got \(13, 39\)", codes=torch.ones(13, 39, dtype=torch.int8))

    def test_codes_that_are_neither_plus_nor_minus_one(self):
        self.bad(r"must be \+1 or -1 throughout", codes=torch.zeros(13, 40, dtype=torch.int8))

    def test_an_empty_batch(self):
        self.bad(r"the batch is empty, codes have shape \(0, 40\)", torch.ones(0, 40, dtype=torch.int8), torch.ones(0))

    @pytest.mark.parametrize("shift", [-1, 25, 1.5, True])
    def test_a_shift_that_is_none(self, shift):
        self.bad("shift must be a whole number from 0 to 24, got", shift=shift)


class TestBadSettings:
    @pytest.mark.parametrize("bits", [2, 9, 8.0, True])
    def test_bits(self, bits):
        with pytest.raises(InputError, match=f"bits must be a whole number from 3 to 8, got {bits}"):
            IntegerNetwork([4, 2], bits=bits)

    @pytest.mark.parametrize("spread", [-1, 9, 0.5])
    def test_spread(self, spread):
        with pytest.raises(
            InputError, match="spread must be a whole number from 0 to 8, half the range of a counter, got"
        ):
            IntegerNetwork([4, 2], bits=4, spread=spread)

    @pytest.mark.parametrize("widths", [[4], [4, 1], [4, 0, 2], [4, 2.5, 2], []])
    def test_widths(self, widths):
        with pytest.raises(InputError, match="widths must be"):
            IntegerNetwork(widths)

    def test_products(self):
        with pytest.raises(InputError, match=r"products must be one of \('float32', 'int32'\), got 'float16'"):
            IntegerNetwork([4, 2], products="float16")

    def test_a_width_at_which_float_products_are_not_exact(self):
        with pytest.raises(InputError, match=r"sums up to 16,777,222; products='float32' is exact below 16,777,216"):
            IntegerNetwork([1, 2_396_746, 2])
        IntegerNetwork([1, 2_396_746, 2], products="int32")
        IntegerNetwork([1, 2_396_745, 2])

    def test_a_batch_at_which_float_products_are_not_exact(self):
        network = IntegerNetwork([1, 2])
        codes, labels = torch.ones(2_396_746, 1, dtype=torch.int8), torch.zeros(2_396_746, dtype=torch.int64)
        with pytest.raises(InputError, match="updates by 2,396,746 examples have sums up to 16,777,222"):
            step(network, codes, labels, 2)


def test_autocast_does_not_round_the_sums():
    codes = torch.where(torch.rand(8, 1500) < 0.9, 1, -1).to(torch.int8)
    network = IntegerNetwork([1500, 3], generator=torch.Generator().manual_seed(0))
    network.layers[0].counter.fill_(1)
    plain = network(codes)
    assert plain.abs().max() > 256
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(codes), plain)
