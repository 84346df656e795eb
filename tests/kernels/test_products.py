"""Products of real activations by every backend: float32 against float64, 8 bits against plain torch bit for bit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from varbnn.bits import pack_blocks, unpack
from varbnn.errors import InputError
from varbnn.kernels import ops, plain, usable_backends, using_backend

BACKENDS = usable_backends()
LEVELS = BACKENDS[1:]
SIZES = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 127, 129, 300]))


@pytest.fixture(params=BACKENDS)
def backend(request):
    with using_backend(request.param):
        yield request.param


@pytest.fixture(params=["linear", "linear_int8"])
def product(request):
    return getattr(ops, request.param)


def signs(*shape: int) -> torch.Tensor:
    return torch.randint(2, shape).mul_(2).sub_(1).float()


def exact(values, weights, scale, shift):
    """The product with its scale and shift in float64, and how far float32 may be from it."""
    result = values.double() @ weights.double().transpose(1, 2)
    size = values.double().abs().sum(-1, keepdim=True).expand_as(result)
    if scale is not None:
        result, size = result * scale.double().unsqueeze(1), size * scale.double().abs().unsqueeze(1)
    if shift is not None:
        result, size = result + shift.double().unsqueeze(1), size + shift.double().abs().unsqueeze(1)
    return result, (values.shape[-1] + 4) * 2.0**-24 * size  # the bound for a sum of so many terms in any order


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 13),
    inputs=SIZES,
    outputs=SIZES,
    samples=st.integers(1, 3),
    own=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    finish=st.tuples(st.booleans(), st.booleans()),
    activation=st.sampled_from(["none", "relu", "sign"]),
    seed=st.integers(0, 1000),
)
def test_linear_is_within_rounding_of_float64(rows, inputs, outputs, samples, own, finish, activation, seed):
    torch.manual_seed(seed)
    first = [samples if is_own else 1 for is_own in own]
    weights, values = signs(samples, outputs, inputs), torch.randn(first[0], rows, inputs)
    scale = torch.randn(first[1], outputs) if finish[0] else None
    shift = torch.randn(first[2], outputs) if finish[1] else None
    expected, bound = exact(values, weights, scale, shift)
    for name in BACKENDS:
        with using_backend(name):
            result = ops.linear(values, pack_blocks(weights), inputs, outputs, scale, shift, activation)
        if activation == "sign":
            wrong = unpack(result, outputs).double() * expected < -bound
            assert not wrong.any(), name
            assert unused_bits(result, outputs) == 0, name
        else:
            wanted = expected.clamp_min(0) if activation == "relu" else expected
            assert ((result.double() - wanted).abs() <= bound).all(), name


def unused_bits(packed: torch.Tensor, length: int) -> int:
    last = packed[..., -1].long() & 0xFFFFFFFF
    return int((last >> (length - 1) % 32 + 1).sum())


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 18),
    inputs=SIZES,
    outputs=SIZES,
    samples=st.integers(1, 3),
    own=st.booleans(),
    finish=st.booleans(),
    activation=st.sampled_from(["none", "relu", "sign"]),
    size=st.sampled_from([1e-44, 1e-38, 1e-3, 1.0, 1e30]),
)
def test_linear_int8_is_plain_torch_bit_for_bit(rows, inputs, outputs, samples, own, finish, activation, size):
    torch.manual_seed(inputs)
    values = torch.randn(samples if own else 1, rows, inputs) * size
    values[0, 0] = torch.arange(inputs).sub(inputs // 2)  # halves to be rounded, where the largest is 127 / 2
    scale, shift = (torch.randn(samples, outputs), torch.randn(1, outputs)) if finish else (None, None)
    arguments = (values, pack_blocks(signs(samples, outputs, inputs)), inputs, outputs, scale, shift, activation)
    expected = plain.linear_int8(*arguments)
    for name in LEVELS:
        with using_backend(name):
            assert torch.equal(ops.linear_int8(*arguments), expected), name


@pytest.mark.parametrize("inputs", [513, 8191, 8193, 17000])
def test_inputs_beyond_the_caches_and_the_16_bit_sums(backend, inputs):
    weights, values = signs(2, 33, inputs), torch.randn(2, 5, inputs)
    expected, bound = exact(values, weights, None, None)
    assert ((ops.linear(values, pack_blocks(weights), inputs, 33).double() - expected).abs() <= bound).all()
    shared, bound = exact(values[:1], weights, None, None)
    assert ((ops.linear(values[:1], pack_blocks(weights), inputs, 33).double() - shared).abs() <= bound).all()
    ones = torch.ones(1, 9, inputs)  # 127 times every input: the largest sums there are
    ones[:, ::2] *= -1
    result = ops.linear_int8(ones, pack_blocks(torch.ones(1, 33, inputs)), inputs, 33)
    torch.testing.assert_close(result, ones.sum(-1, keepdim=True).expand_as(result), rtol=1e-6, atol=0)


@pytest.mark.parametrize("level", LEVELS)
def test_the_number_of_threads_changes_no_bit(level, product):
    before = torch.get_num_threads()
    cases = [(1, 3, 200, 1000), (3, 1, 700, 500), (2, 70, 300, 400)]
    for samples, rows, outputs, inputs in cases:
        for values in (torch.randn(1, rows, inputs), torch.randn(samples, rows, inputs)):
            weight = pack_blocks(signs(samples, outputs, inputs))
            results = {}
            try:
                for threads in (1, 2, 7):
                    torch.set_num_threads(threads)
                    with using_backend(level):
                        results[threads] = product(values, weight, inputs, outputs)
            finally:
                torch.set_num_threads(before)
            assert torch.equal(results[1], results[2])
            assert torch.equal(results[1], results[7])


def test_rows_and_samples_do_not_depend_on_their_neighbours(backend, product):
    values, weight = torch.randn(3, 11, 100), pack_blocks(signs(3, 50, 100))
    together = product(values, weight, 100, 50)
    for s in range(3):
        for row in range(11):
            alone = product(values[s : s + 1, row : row + 1], weight[s : s + 1], 100, 50)
            torch.testing.assert_close(alone[0, 0], together[s, row], rtol=1e-5, atol=1e-5)
            if backend != "reference":
                assert torch.equal(alone[0, 0], together[s, row])


def test_any_memory_layout_is_taken(backend, product):
    values, weight = torch.randn(2, 40, 9).transpose(1, 2), pack_blocks(signs(2, 20, 40))
    scale = torch.randn(20, 2).T
    spread = weight.repeat_interleave(2, dim=-1)[..., ::2]
    expected = product(values.contiguous(), weight, 40, 20, scale.contiguous())
    assert not spread.is_contiguous()
    assert torch.equal(product(values, spread, 40, 20, scale), expected)


def test_a_view_that_starts_at_no_boundary_of_16_bytes_is_taken(backend, product):
    storage = torch.randn(1 + 3 * 37)
    values, weight = storage[1:].view(1, 3, 37), pack_blocks(signs(1, 20, 37))
    shifted = torch.empty(weight.numel() + 1, dtype=torch.int32)[1:].view_as(weight).copy_(weight)
    result, expected = product(values, shifted, 37, 20), product(values.clone(), weight, 37, 20)
    torch.testing.assert_close(result, expected)
    assert backend == "reference" or torch.equal(result, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_number_stays_in_its_row(backend, product, bad):
    values, weight = torch.randn(1, 9, 100), pack_blocks(signs(2, 40, 100))
    good = product(values, weight, 100, 40)
    values[0, 4, 57] = bad
    result = product(values, weight, 100, 40)
    others = [row for row in range(9) if row != 4]
    torch.testing.assert_close(result[:, others], good[:, others])
    assert not result[:, 4].isfinite().any()
    if product is ops.linear and math.isinf(bad):
        assert result[:, 4].isinf().all()


def test_relu_keeps_nan_and_its_sign_is_refused(backend, product):
    values, weight = torch.full((1, 1, 5), math.nan), pack_blocks(signs(1, 3, 5))
    assert product(values, weight, 5, 3, activation="relu").isnan().all()
    with pytest.raises(InputError, match="NaN, which has no sign"):
        product(values, weight, 5, 3, activation="sign")
    fine = torch.ones(1, 1, 5)
    with pytest.raises(InputError, match="NaN, which has no sign"):
        product(fine, weight, 5, 3, shift=torch.tensor([[0.0, math.nan, 0.0]]), activation="sign")


def test_the_sign_of_zero_is_plus(backend, product):
    weight = pack_blocks(torch.tensor([[[1.0, 1.0], [-1.0, 1.0]]]))
    for values in ([1.0, -1.0], [-0.0, -0.0], [0.0, 0.0]):
        result = product(torch.tensor([[values]]), weight, 2, 2, activation="sign")
        assert unpack(result, 2)[0, 0, 0] == 1
    assert unpack(product(torch.zeros(1, 1, 2), weight, 2, 2, scale=-torch.ones(1, 2), activation="sign"), 2).min() == 1


@pytest.mark.parametrize("samples, rows, outputs", [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_nothing_to_compute_gives_an_empty_result(backend, product, samples, rows, outputs):
    weight = torch.zeros(samples, -(-outputs // 16), 1, 16, dtype=torch.int32)
    result = product(torch.zeros(1, rows, 7), weight, 7, outputs)
    assert result.shape == (samples, rows, outputs)
    assert result.dtype == torch.float32


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(values=torch.zeros(1, 2, 8)), "activations must be float32"),
        (dict(values=torch.zeros(1, 2, 7, dtype=torch.float64)), "activations must be float32"),
        (dict(values=torch.zeros(3, 2, 7)), "activations must be float32"),
        (dict(weight=torch.zeros(2, 1, 1, 16)), "take int32 blocks of shape"),
        (dict(weight=torch.zeros(2, 2, 1, 16, dtype=torch.int32)), "take int32 blocks of shape"),
        (dict(scale=torch.ones(2, 4)), "scale must be float32"),
        (dict(shift=torch.ones(3)), "shift must be float32"),
        (dict(activation="tanh"), "activation must be one of"),
    ],
)
def test_what_does_not_fit_is_named(product, change, message):
    fitting = dict(values=torch.zeros(1, 2, 7), weight=torch.zeros(2, 1, 1, 16, dtype=torch.int32))
    with pytest.raises(InputError, match=message):
        product(**{**fitting, "in_features": 7, "out_features": 3, **change})


@pytest.mark.parametrize("name", ["linear", "linear_int8"])
@pytest.mark.parametrize("activation", ["none", "sign"])
def test_the_operation_passes_the_checks_of_torch(backend, name, activation):
    arguments = (torch.randn(1, 3, 37), pack_blocks(signs(2, 20, 37)), 37, 20, torch.ones(1, 20), None, activation)
    torch.library.opcheck(getattr(torch.ops.varbnn, name).default, arguments)


def test_torch_compile_sees_through_it(product):
    weight = pack_blocks(signs(2, 20, 37))

    def network(x):
        return product(x * 2, weight, 37, 20, activation="relu").sum(0)

    x = torch.randn(1, 3, 37)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="aot_eager")(x), network(x))
