"""On a real GPU: every operation against its definition on the CPU. Skipped, loudly, where there is none.

What the tests on the CPU cannot show is shown here: that the driver takes the machine code, that real warps do not
race, that addresses are aligned, and that nothing waits for the device.
"""

import pytest
import torch

from tests.kernels.convolutions import packed_weights
from tests.kernels.cuda.cases import (
    BITS,
    CONVOLUTIONS,
    PACKED_CONVOLUTIONS,
    PREDICTIONS,
    REAL,
    assert_close,
    epilogues,
    signs,
    weights,
)
from varbnn import bits
from varbnn.kernels import backend, cuda, ops, plain

if not torch.cuda.is_available():
    pytest.skip("THE CUDA KERNELS ARE NOT RUN ON A GPU: torch sees none", allow_module_level=True)

DEVICES = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
GPU = DEVICES[0]


@pytest.fixture(autouse=True)
def kernels_are_used(monkeypatch):
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    for device in DEVICES:
        assert backend.implementation(device) is cuda, cuda.problem(device.index)


def on(device, *arguments):
    return [given.to(device) if isinstance(given, torch.Tensor) else given for given in arguments]


def both(name, *arguments, device=GPU):
    """What the GPU gives, brought back, and what the definition gives."""
    got = getattr(torch.ops.varbnn, name)(*on(device, *arguments))
    expected = getattr(plain, name)(*arguments)
    if isinstance(got, tuple):
        return [tensor.cpu() for tensor in got], list(expected)
    return got.cpu(), expected


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("outputs, inputs, samples", [(1, 1, 1), (33, 300, 17), (48, 12_800, 2), (2048, 784, 3)])
def test_samples_are_the_bits_of_the_cpu(device, outputs, inputs, samples):
    natural, seed = torch.randn(outputs, inputs), torch.tensor([-(2**40) - 12345])
    got, expected = both("sample_blocks", natural, seed, 2**31 - 1, 2**32 - samples, samples, device=device)
    assert torch.equal(got, expected)
    got, expected = both("draw", natural, seed, 3, 5, device=device)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("shape", [(1,), (5, 31), (9, 1025), (300, 2048)])
def test_signs_are_packed_and_counted(shape):
    got, expected = both("pack_signs", torch.randn(shape))
    assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("samples, rows, outputs, inputs", [*BITS, (4, 257, 2048, 2048), (2, 16, 2048, 784)])
def test_products_of_signs_are_exact(samples, rows, outputs, inputs, shared, device):
    weight, values = weights(samples, outputs, inputs), signs(1 if shared else samples, rows, inputs)
    for (scale, shift), activation in zip(epilogues(samples, outputs), ("none", "sign", "relu"), strict=True):
        got, expected = both("linear", values, weight, inputs, outputs, scale, shift, activation, device=device)
        assert torch.equal(got, expected)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize(
    "samples, rows, outputs, inputs", [*REAL, (32, 1, 2048, 784), (16, 16, 2048, 2048), (2, 300, 2048, 2048)]
)
def test_products_of_real_numbers_are_as_good_as_float32(samples, rows, outputs, inputs, shared, device):
    weight, values = weights(samples, outputs, inputs), torch.randn(1 if shared else samples, rows, inputs)
    for (scale, shift), activation in zip(epilogues(samples, outputs), ("none", "sign", "relu"), strict=True):
        options = (values, weight, inputs, outputs, scale, shift, activation)
        assert_close(torch.ops.varbnn.linear(*on(device, *options)).cpu(), *options)


@pytest.mark.parametrize("samples, rows, outputs, inputs", [(3, 8, 70, 300), (2, 40, 65, 512), (4, 129, 2048, 2048)])
def test_products_of_8_bits_are_those_of_the_definition(samples, rows, outputs, inputs):
    weight, values = weights(samples, outputs, inputs), torch.randn(samples, rows, inputs)
    for (scale, shift), activation in zip(epilogues(samples, outputs), ("none", "sign", "relu"), strict=True):
        got, expected = both("linear_int8", values, weight, inputs, outputs, scale, shift, activation)
        assert torch.equal(got, expected)


@pytest.mark.parametrize("kind", ["real", "packed"])
@pytest.mark.parametrize("samples, rows, outputs, inputs", [*PREDICTIONS, (32, 1, 10, 2048), (32, 500, 10, 2048)])
def test_predictions_are_the_average_over_the_networks(samples, rows, outputs, inputs, kind):
    weight, values = weights(samples, outputs, inputs), torch.randn(samples, rows, inputs)
    scale = torch.full((1, outputs), 3 / inputs**0.5)
    values = bits.pack(bits.sign(values)) if kind == "packed" else values
    for got, expected in zip(*both("predictive", values, weight, inputs, outputs, scale, None), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=5e-7)


@pytest.mark.parametrize(
    "kind, case", [("integers", case) for case in CONVOLUTIONS] + [("signs", case) for case in PACKED_CONVOLUTIONS]
)
def test_convolutions_of_whole_numbers_are_exact(kind, case):
    values, weight = getattr(case, kind)(), packed_weights(case.weights(), case.groups)
    got, expected = both("conv", values, weight, *case.options(), case.scale(), case.shift(), case.activation)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("rows", [1, 2, 16, 70, 700])
@pytest.mark.parametrize("kind", ["real", "packed", "int8"])
def test_the_same_call_gives_the_same_bits_every_time(kind, rows):
    """A race between warps would show as a result that changes."""
    weight, values = weights(4, 520, 1000).to(GPU), torch.randn(4, rows, 1000, device=GPU)
    if kind == "packed":
        values = ops.pack_signs(values)[0]
    name = torch.ops.varbnn.linear_int8 if kind == "int8" else torch.ops.varbnn.linear
    first = name(values, weight, 1000, 520, None, None, "none")
    for _ in range(100):
        assert torch.equal(name(values, weight, 1000, 520, None, None, "none"), first)


def network(values, first, second, last):
    hidden = ops.linear(values, first, 100, 64, activation="sign")
    hidden = ops.linear(hidden, second, 64, 64, activation="relu")
    return ops.predictive(hidden, last, 64, 5)


@pytest.fixture
def small_network():
    layers = (weights(3, 64, 100), weights(3, 64, 64), weights(3, 5, 64))
    values = torch.randn(1, 40, 100)
    return on(GPU, values, *layers), network(values, *layers)


def _agrees(got, expected):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-6)


def test_nothing_waits_for_the_device(small_network):
    given, expected = small_network
    network(*given)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = network(*given)
        drawn = ops.sample_blocks(torch.zeros(20, 70, device=GPU), given[1].new_zeros(1, dtype=torch.int64), 0, 0, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    _agrees(got, expected)
    assert drawn.shape == (2, 2, 3, 16)


def test_work_is_ordered_by_the_stream_it_is_given_to(small_network):
    (values, *layers), expected = small_network
    network(values, *layers)
    side = torch.cuda.Stream(GPU)
    late = torch.empty_like(values)
    side.wait_stream(torch.cuda.current_stream(GPU))
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # on another stream the kernels would read before this copy
        late.copy_(values)
        got = network(late, *layers)
    side.synchronize()
    _agrees(got, expected)


def test_a_cuda_graph_replays_the_network_on_new_input(small_network):
    (values, *layers), _ = small_network
    network(values, *layers)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = network(values, *layers)
    other = torch.randn(1, 40, 100)
    values.copy_(other)
    graph.replay()
    torch.cuda.synchronize()
    _agrees(got, network(other, *(layer.cpu() for layer in layers)))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("ignore")  # of inductor, about its own settings
def test_torch_compile_sees_through_the_operations(small_network, backend):
    given, expected = small_network
    _agrees(torch.compile(network, fullgraph=True, backend=backend)(*given), expected)


@pytest.mark.skipif(len(DEVICES) < 2, reason="ONE GPU ONLY: several devices are not tested")
def test_a_tensors_device_counts_and_not_the_current_one(small_network):
    given, expected = small_network
    with torch.cuda.device(DEVICES[0]):
        got = network(*(tensor.to(DEVICES[1]) for tensor in given))
    assert {tensor.device for tensor in got} == {DEVICES[1]}
    _agrees(got, expected)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.get_device_properties(0).total_memory < 20 << 30, reason="needs 20 GB on the GPU")
def test_results_of_more_than_2_to_the_31_elements_are_addressed_right():
    rows, outputs, inputs = 1_100_000, 2048, 32
    weight, values = weights(1, outputs, inputs), torch.randn(1, rows, inputs)
    packed = bits.pack(bits.sign(values))
    some = torch.tensor([0, 1, rows // 2, 2**31 // outputs - 1, 2**31 // outputs, rows - 1])
    for given in (values, packed):
        got = torch.ops.varbnn.linear(*on(GPU, given, weight, inputs, outputs, None, None, "none"))
        assert got.numel() > 2**31
        expected = plain.linear(given[:, some], weight, inputs, outputs, None, None, "none")
        torch.testing.assert_close(got[:, some.to(GPU)].cpu(), expected, rtol=1e-5, atol=1e-5)
        del got
