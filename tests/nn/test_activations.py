"""Sign, Gate and Tails: what they give forward, and the published surrogate gradients backward."""

import numpy as np
import pytest
import torch

from varbnn.errors import InputError
from varbnn.nn import Gate, Sign, Tails

X = [-3.0, -1.0, -0.75, -0.25, -0.0, 0.0, 0.25, 0.75, 1.0, 3.0]
SURROGATES = {
    "clipped": lambda x: np.where(np.abs(x) <= 1, 1.0, 0.0),
    "polynomial": lambda x: np.where(np.abs(x) < 1, 2 - 2 * np.abs(x), 0.0),
    "identity": np.ones_like,
}


@pytest.mark.parametrize("name", SURROGATES)
def test_forward_is_the_sign_with_both_zeros_up(name):
    assert Sign(name)(torch.tensor(X)).tolist() == [-1] * 4 + [1] * 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", SURROGATES)
def test_backward_is_the_published_surrogate(name, dtype):
    x, incoming = torch.tensor(X, dtype=dtype, requires_grad=True), torch.arange(1, 11).to(dtype)
    y = Sign(name)(x)
    assert y.dtype == dtype
    y.backward(incoming)
    np.testing.assert_array_equal(x.grad.double(), incoming.double().numpy() * SURROGATES[name](np.array(X)))


@pytest.mark.parametrize("name", SURROGATES)
def test_nan_is_not_hidden(name):
    assert Sign(name)(torch.tensor([torch.nan, 1.0])).isnan().tolist() == [True, False]


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2)])
def test_the_shift_moves_the_threshold_of_its_channel_and_learns(shape):
    layer = Sign("polynomial", channels=3)
    with torch.no_grad():
        layer.shift.copy_(torch.tensor([-0.5, 0.0, 0.5]))
    x = torch.full(shape, 0.25, requires_grad=True)
    y = layer(x)
    expected = torch.tensor([1.0, 1.0, -1.0]).reshape(1, 3, *[1] * (len(shape) - 2)).expand(shape)
    assert torch.equal(y, expected)
    y.sum().backward()
    per_entry = torch.tensor([0.5, 1.5, 1.5])  # 2 - 2 |x - shift|
    torch.testing.assert_close(layer.shift.grad, -per_entry * (x.numel() / 3))
    torch.testing.assert_close(x.grad, per_entry.reshape(1, 3, *[1] * (len(shape) - 2)).expand(shape))


def test_options_are_checked_and_shown():
    with pytest.raises(InputError, match="surrogate"):
        Sign("tanh")
    for channels in (0, 2.5, "3", True):
        with pytest.raises(InputError, match="channels must be a whole number ≥ 1"):
            Sign(channels=channels)
    assert repr(Sign("polynomial", channels=3)) == "Sign('polynomial', channels=3)"


# --- gates ---

EDGES = [x for edge in (0.5, 1.0, 1.5) for x in (edge - 2**-8, edge, edge + 2**-7)]
G = [*(-x for x in reversed(EDGES)), -0.0, 0.0, *EDGES, np.inf, -np.inf]
GATES = {  # name in the published code: our options, value, surrogate, all at width 1
    "gate": (("signs", False), lambda x: np.where(np.abs(x) < 1, 1.0, -1.0), -1),
    "reversegate": (("signs", True), lambda x: np.where(np.abs(x) > 1, 1.0, -1.0), 1),
    "gateelephant": (("bits", False), lambda x: np.where(np.abs(x) < 1, 1.0, 0.0), -1),
    "reversebinarygate": (("bits", True), lambda x: np.where(np.abs(x) > 1, 1.0, 0.0), 1),
}


def outwards(x: np.ndarray) -> np.ndarray:
    return np.where((x > 0.5) & (x < 1.5), 1.0, 0.0) - np.where((x > -1.5) & (x < -0.5), 1.0, 0.0)


def gate(name: str, width: float = 1.0) -> Gate:
    (values, reverse), _, _ = GATES[name]
    return Gate(values, reverse=reverse, width=width)


@pytest.mark.parametrize("width", [1.0, 0.25, 4.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", GATES)
def test_a_gate_and_its_gradient_are_the_published_ones_edges_included(name, dtype, width):
    _, value, direction = GATES[name]
    x = (torch.tensor(G, dtype=dtype) * width).requires_grad_()  # a power of two keeps every edge where it was
    exact, incoming = x.detach().double().numpy() / width, torch.arange(1, len(G) + 1).to(dtype)
    y = gate(name, width)(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.detach().double(), value(exact))
    y.backward(incoming)
    np.testing.assert_array_equal(x.grad.double(), incoming.double().numpy() * direction * outwards(exact))


@pytest.mark.parametrize("name", GATES)
def test_the_neighbours_of_an_edge_lie_on_their_sides(name):
    _, value, _ = GATES[name]
    for width in (1.0, 0.3, 1e-3, 7.7):
        edge = np.float32(width)
        x = np.array([np.nextafter(edge, np.float32(0)), edge, np.nextafter(edge, np.float32(9))], dtype=np.float32)
        found = gate(name, float(edge))(torch.from_numpy(np.concatenate([x, -x])))
        inner, on, outer = value(np.array([0.0, 1.0, 2.0]))
        assert found.tolist() == [inner, on, outer] * 2
        assert on == min(inner, outer)


@pytest.mark.parametrize("name", GATES)
def test_a_gate_does_not_hide_nan(name):
    assert gate(name)(torch.tensor([torch.nan, 0.0])).isnan().tolist() == [True, False]


@pytest.mark.parametrize("module", [gate(name) for name in GATES] + [Sign("polynomial")], ids=repr)
def test_activations_work_under_vmap_and_autocast(module):
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)) * 1.5

    def gradient(row: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda v: (module(v) * torch.arange(7)).sum())(row)

    expected = x.clone().requires_grad_()
    y = module(expected)
    (y * torch.arange(7)).sum().backward()
    assert torch.equal(torch.vmap(module)(x), y)
    assert torch.equal(torch.vmap(gradient)(x), expected.grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(torch.nn.functional.linear(x, torch.eye(7)))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.float(), module(x.bfloat16().float()))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", GATES)
def test_a_gate_compiles_in_one_graph(name):
    torch._dynamo.reset()
    module, results = gate(name), []
    for run in (module, torch.compile(module, backend="aot_eager", fullgraph=True)):
        x = torch.tensor(G).requires_grad_()
        y = run(x)
        y.sum().backward()
        results.append((y.detach(), x.grad))
    torch._dynamo.reset()
    assert all(torch.equal(eager, compiled) for eager, compiled in zip(*results, strict=True))


def test_options_of_a_gate_are_checked_and_shown():
    for values, options in (("sign", {}), ("bits", dict(width=0)), ("bits", dict(width=float("inf")))):
        with pytest.raises(InputError, match="must be"):
            Gate(values, **options)
    for options in (dict(reverse=1), dict(width=True), dict(width="1"), dict(width=float("nan"))):
        with pytest.raises(InputError, match="must be"):
            Gate(**options)
    assert repr(Gate("bits", reverse=True, width=0.5)) == "Gate('bits', reverse=True, width=0.5)"


def test_tails_are_silent_in_between_and_grow_outwards():
    x = torch.tensor([-2.0, -0.7, 0.0, 0.6, 1.0], requires_grad=True)
    y = Tails(0.7)(x)
    torch.testing.assert_close(y.detach(), torch.tensor([1.3, 0.0, 0.0, 0.0, 0.3]))
    y.sum().backward()
    assert x.grad.tolist() == [-1.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), True])
def test_tails_without_a_threshold_are_refused(threshold):
    with pytest.raises(InputError, match="threshold"):
        Tails(threshold)
