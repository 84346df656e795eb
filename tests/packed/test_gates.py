"""Packed gates: the networks say what the model says with their weights, to the bit where its arithmetic is exact."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import varbnn as vb
from tests.packed.models import Net, answers, seeded
from varbnn.nn import Gate
from varbnn.nn.draws import evaluating, holding
from varbnn.packed.build import _draw
from varbnn.packed.layout import weight_of

KINDS = [("signs", False), ("signs", True), ("bits", False), ("bits", True)]
for_every_gate = pytest.mark.parametrize(("values", "reverse"), KINDS, ids=lambda x: str(x))
S = 5


def bare(width: int) -> nn.Module:
    return nn.LayerNorm(width, elementwise_affine=False)


def moving(width: int) -> nn.Module:
    norm = nn.LayerNorm(width)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias, 0, 0.3)
    return norm


def network(gate: Gate, *widths: int, norm=bare) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), norm(outputs), gate]
    return vb.binarize(nn.Sequential(*layers[:-1]))


def asked(model: nn.Module, x: Tensor, seed: int) -> Tensor:
    """S×N×C: the user's model in float32 with each of the networks that `pack` draws from the same seed."""
    layers = [layer for _, layer in vb.nn.binary_layers(model)]
    drawn, results = _draw(layers, S, seeded(seed)), []
    with evaluating(model), torch.no_grad():
        for s in range(S):
            with holding(layers, [weight_of(layer, drawn[layer][s]) for layer in layers]):
                results.append(model(x))
    return torch.stack(results)


def pixels(seed: int, count: int, features: int) -> Tensor:
    """As images of 8 bits: k / 256, of which float32 adds up thousands in any order without rounding."""
    return torch.randint(256, (count, features), generator=seeded(seed)).float() / 256


@for_every_gate
@pytest.mark.parametrize("norm", [bare, moving])
def test_with_exact_inputs_every_network_is_the_model_to_the_bit(values, reverse, norm):
    for seed in range(12):
        torch.manual_seed(seed)
        model = network(Gate(values, reverse=reverse), 50 + 7 * seed, 33 + seed, 40, 10, norm=norm)
        for batch in (1, 2, 17):
            x = pixels(seed, batch, 50 + 7 * seed)
            packed = vb.pack(model, S, generator=seeded(seed))
            expected = asked(model, x, seed)
            assert torch.equal(packed(x), expected)
            assert all(torch.equal(packed.member(s)(x), expected[s]) for s in range(S))


@for_every_gate
@pytest.mark.parametrize("width", [1.0, 2.0, 5.0, 6.0])
def test_inputs_on_the_edge_of_a_gate_fall_as_in_the_model(values, reverse, width):
    """Sums of ±1 are whole numbers: without a norm between, many lie exactly on the edge."""
    on_edge = 0
    for seed in range(10):
        torch.manual_seed(seed)
        model = network(Gate(values, reverse=reverse, width=width), 20 + seed, 37, 31, 9, norm=lambda n: nn.Identity())
        x = torch.randint(2, (16, 20 + seed), generator=seeded(seed)).float() * 2 - 1
        model[2].register_forward_pre_hook(counter := Counter(width))
        expected = asked(model, x, seed)
        model[2]._forward_pre_hooks.clear()
        on_edge += counter.found
        assert torch.equal(vb.pack(model, S, generator=seeded(seed))(x), expected)
    assert on_edge > 100, "no tie was tried"


class Counter:
    def __init__(self, width: float) -> None:
        self.width, self.found = width, 0

    def __call__(self, module, inputs) -> None:
        self.found += int((inputs[0].abs() == self.width).sum())


@for_every_gate
def test_normalised_inputs_on_the_edge_fall_as_in_the_model(values, reverse):
    """Half of the units at c, half at -c, and no epsilon: the norm gives ±1, or the float next to it, alike in both."""
    near, on_edge = 0, 0
    for seed in range(10):
        torch.manual_seed(seed)
        first = vb.nn.BinaryLinear(1, 32, bias=False)
        with torch.no_grad():
            first.natural.fill_(50.0)
            first.natural[::2] = -50.0
        norm = nn.LayerNorm(32, elementwise_affine=False, eps=0.0)
        model = nn.Sequential(first, norm, Gate(values, reverse=reverse), vb.nn.BinaryLinear(32, 7, bias=False))
        x = torch.randint(1, 200, (40, 1), generator=seeded(seed)).float()
        units = norm(x @ first.posterior.mode(*first.belief).T)
        near += int(((units.abs() - 1).abs() < 1e-6).sum())
        on_edge += int((units.abs() == 1).sum())
        assert torch.equal(vb.pack(model, S, generator=seeded(seed))(x), asked(model, x, seed))
    assert near == 10 * 40 * 32
    assert on_edge > 0


@for_every_gate
def test_with_any_inputs_only_a_unit_next_to_an_edge_can_fall_otherwise(values, reverse):
    """Sums in another order differ in the last bits, which a gate forgets unless they decide."""
    rows = 0
    for seed in range(10):
        torch.manual_seed(seed)
        model = network(Gate(values, reverse=reverse), 300, 24, 6)
        x = torch.randn(8, 300, generator=seeded(seed))
        found, expected = vb.pack(model, S, generator=seeded(seed))(x), asked(model, x, seed)
        hidden = nn.Sequential(model[0], model[1])
        clear = ((asked(hidden, x, seed).abs() - 1).abs() > 1e-4).all(-1)
        assert torch.equal(found[clear], expected[clear])
        rows += int(clear.sum())
    assert rows > 200


SHAPES = {
    "after the input": (lambda g: nn.Sequential(g, nn.Linear(20, 5)), (6, 20), ["PackShut", "PackedLinear"]),
    "at the end": (
        lambda g: nn.Sequential(nn.Linear(20, 5), bare(5), g), (6, 20),
        ["PackedLinear", "Real", "GateStep"],
    ),
    "with biases": (
        lambda g: nn.Sequential(nn.Linear(20, 40), bare(40), g, nn.Linear(40, 5)), (6, 20),
        ["PackedLinear", "Real", "PackShut", "PackedLinear"],
    ),
    "with batch norm": (
        lambda g: nn.Sequential(nn.Linear(20, 40), nn.BatchNorm1d(40), g, nn.Linear(40, 9), nn.BatchNorm1d(9), g,
                                nn.Linear(9, 5)), (6, 20),
        ["PackedLinear", "PackShut", "PackedLinear", "PackShut", "PackedLinear"],
    ),
    "into a sign": (
        lambda g: nn.Sequential(nn.Linear(20, 40), bare(40), g, nn.Linear(40, 33), vb.nn.Sign(channels=33),
                                nn.Linear(33, 5)), (6, 20),
        ["PackedLinear", "Real", "PackShut", "PackedLinear", "PackedLinear"],
    ),
    "into relu": (
        lambda g: nn.Sequential(nn.Linear(20, 40), bare(40), g, nn.Linear(40, 33), nn.ReLU(), nn.Linear(33, 5)),
        (6, 20), ["PackedLinear", "Real", "PackShut", "PackedLinear", "PackedLinear"],
    ),
    "for two layers": (
        lambda g: Net(lambda m, x: (lambda h: m.b(h) + m.c(h))(m.g(m.n(m.a(x)))), a=nn.Linear(20, 40), n=bare(40),
                      b=nn.Linear(40, 5), c=nn.Linear(40, 5), g=g), (6, 20),
        ["PackedLinear", "Real", "PackShut", "PackedLinear", "PackedLinear", "Call"],
    ),
    "also as numbers": (
        lambda g: Net(lambda m, x: (lambda h: m.b(h) + h)(m.g(m.n(m.a(x)))), a=nn.Linear(20, 5), n=bare(5),
                      b=nn.Linear(5, 5), g=g), (6, 20), None,
    ),
    "tokens": (
        lambda g: nn.Sequential(nn.Linear(11, 33), bare(33), g, nn.Linear(33, 7)), (4, 6, 11),
        ["PackedLinear", "Real", "PackShut", "PackedLinear"],
    ),
    "left real": (
        lambda g: nn.Sequential(nn.Linear(20, 40), bare(40), g, nn.Linear(40, 5)), (6, 20),
        ["PackedLinear", "Real", "GateStep", "Real"],
    ),
    "averaged": (
        lambda g: nn.Sequential(nn.Conv2d(3, 8, 3), g, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)), (3, 3, 6, 6),
        ["PackedConv", "GateStep", "Real", "Real", "PackedLinear"],
    ),
    "few channels": (
        lambda g: nn.Sequential(nn.Conv2d(3, 8, 3), g, nn.Conv2d(8, 5, 3, padding=1)), (3, 3, 6, 6),
        ["PackedConv", "GateStep", "PackedConv"],
    ),
    "convolutions": (
        lambda g: nn.Sequential(nn.Conv2d(3, 32, 3), g, nn.Conv2d(32, 5, 3, padding=1)), (3, 3, 6, 6), None,
    ),
    "pooled and flattened": (
        lambda g: nn.Sequential(nn.Conv2d(3, 32, 3), g, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 3)),
        (3, 3, 6, 6), None,
    ),
}  # fmt: skip
ONLY_SIGNS = {
    "convolutions": ["PackedConv", "PackShut", "PackedConv"],
    "pooled and flattened": ["PackedConv", "GateStep", "Real", "Real", "PackSigns", "PackedLinear"],
}


@for_every_gate
@pytest.mark.parametrize("name", SHAPES)
def test_gates_in_models_of_every_shape(name, values, reverse, tmp_path):
    make, shape, steps = SHAPES[name]
    torch.manual_seed(0)
    model = make(Gate(values, reverse=reverse, width=2.5 if "Conv" in str(make(nn.Identity())) else 0.75))
    model = vb.binarize(model, skip=["3"] if name == "left real" else [])
    x = torch.randn(*shape, generator=seeded(3))
    packed, expected = vb.pack(model, S, generator=seeded(4)), answers(model, x, S, seeded(4))
    found = [type(step).__name__ for step in packed.program.steps]
    if values == "signs":
        steps = ONLY_SIGNS.get(name, steps)
    if steps is not None:
        assert found == steps
    near = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(packed(x).double(), expected, rtol=0, atol=near)
    for s in range(S):
        torch.testing.assert_close(packed.member(s)(x).double(), expected[s], rtol=0, atol=near)
    packed.save(tmp_path / "gates.vbnn")
    assert torch.equal(vb.load_packed(tmp_path / "gates.vbnn")(x), packed(x))


def test_a_gate_of_ones_own_is_refused_and_one_with_a_hook_too():
    class Wide(Gate):
        def forward(self, x):
            return super().forward(x / 2)

    with pytest.raises(vb.errors.InputError, match="forward of its own"):
        vb.pack(vb.binarize(nn.Sequential(nn.Linear(20, 3), Wide())), 2)
    model = vb.binarize(nn.Sequential(nn.Linear(20, 3), Gate()))
    model[1].register_forward_hook(lambda *_: None)
    with pytest.raises(vb.errors.InputError, match="forward hook"):
        vb.pack(model, 2)


@for_every_gate
def test_packed_files_keep_a_gate_and_its_width(values, reverse, tmp_path):
    model = network(Gate(values, reverse=reverse, width=0.3), 20, 9, 4)
    packed = vb.pack(model, 2)
    packed.save(tmp_path / "gate.vbnn")
    (kept,) = (step.gate for step in vb.load_packed(tmp_path / "gate.vbnn").program.steps if hasattr(step, "gate"))
    assert (kept.values, kept.reverse, kept.width) == (values, reverse, 0.3)


def test_bits_of_many_inputs_stay_whole_numbers():
    """8192 bits: a sum of weights beside each product, both far below 2^24."""
    torch.manual_seed(0)
    model = network(Gate("bits", reverse=True), 4, 8192, 3, norm=bare)
    x = pixels(0, 3, 4)
    found = vb.pack(nn.Sequential(*list(model)[:-1]), S, generator=seeded(1))(x)
    assert torch.equal(found, found.round())
    assert torch.equal(found, asked(nn.Sequential(*list(model)[:-1]), x, 1))
