"""Forwards as people write them: functional forms, further arguments, tuples, and noise, which is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.packed.models import Net, answers, seeded
from varbnn.errors import InputError
from varbnn.packed.noise import refuse_noise
from varbnn.packed.steps import PackedLinear

X = torch.randn(6, 5, 20, generator=seeded(1))


def model_of(run) -> nn.Module:
    torch.manual_seed(0)
    parts = {
        "a": nn.Linear(20, 8), "b": nn.Linear(8, 3), "relu": nn.ReLU(), "dropout": nn.Dropout(),
        "attention": nn.MultiheadAttention(8, 2, batch_first=True), "early": nn.LSTM(20, 20, batch_first=True),
        "cell": nn.LSTMCell(8, 8), "lstm": nn.LSTM(8, 8, 2, batch_first=True),
        "gru": nn.GRU(8, 8, batch_first=True, bidirectional=True), "place": nn.Embedding(20, 8),
    }  # fmt: skip
    causal = torch.full((5, 5), -1e9).triu(1)
    return vb.binarize(Net(run, mask=causal, **parts), skip=["attention", "cell", "early", "lstm", "gru"])


def agree(run) -> vb.PackedEnsemble:
    model = model_of(run)
    packed = vb.pack(model, 3, generator=seeded(5))
    expected = answers(model, X, 3, seeded(5))
    near = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(packed(X).double(), expected, rtol=0, atol=near)
    torch.testing.assert_close(packed.member(1)(X).double(), expected[1], rtol=0, atol=near)
    return packed


FORMS = {
    "F.relu": lambda m, x: m.b(F.relu(m.a(x))),
    "torch.relu": lambda m, x: m.b(torch.relu(m.a(x))),
    "a method": lambda m, x: m.b(m.a(x).relu()),
    "in place": lambda m, x: m.b(F.relu(m.a(x), inplace=True)),
    "by keyword": lambda m, x: m.b(m.relu(input=m.a(input=x))),
    "clamp": lambda m, x: m.b(m.a(x).clamp(min=0)),
    "torch.clamp": lambda m, x: m.b(torch.clamp(m.a(x), 0.0)),
    "clamp_min_": lambda m, x: m.b(m.a(x).clamp_min_(0)),
    "dropout": lambda m, x: m.b(F.relu(F.dropout(m.a(x), 0.5, m.training))),
    "dropout by keyword": lambda m, x: m.b(F.relu(F.dropout1d(m.a(x), training=m.training))),
}


@pytest.mark.parametrize("name", FORMS)
def test_functional_forms_become_the_steps_of_the_modules(name):
    steps = agree(FORMS[name]).program.steps
    assert [type(step).__name__ for step in steps] == ["PackedLinear", "PackedLinear"]
    assert steps[0].activation == "relu"


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.b(m.a(x).clamp(0, 1)),
        lambda m, x: m.b(m.a(x).clamp(max=0)),
        lambda m, x: m.b(m.a(x).clamp(min=0.5)),
        lambda m, x: m.b(F.hardtanh(m.a(x))),
        lambda m, x: m.b(torch.sign(m.a(x))),  # 0 at 0, where Sign is 1
    ],
)
def test_what_is_no_relu_is_not_taken_for_one(run):
    assert [type(step).__name__ for step in agree(run).program.steps] == ["PackedLinear", "Call", "PackedLinear"]


def test_the_reader_of_the_docs_reads_functional_forwards(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "packed-file.md").read_text()
    (code,) = (block for block in re.findall("```python\n(.*?)```", text, re.DOTALL) if "def read(path)" in block)
    torch.manual_seed(0)
    parts = {"a": nn.Linear(100, 8), "n": nn.BatchNorm1d(8), "b": nn.Linear(8, 3)}
    model = vb.binarize(Net(lambda m, x: m.b(F.relu(m.n(m.a(x.flatten(1))))), **parts))
    packed = vb.pack(model, 3, refresh_bn=X)
    packed.save(tmp_path / "model.vbnn")
    found: dict = {"np": np}
    exec(code.partition("\noutputs = ")[0], found)
    answer = found["run"](*found["read"](tmp_path / "model.vbnn"), X.numpy())
    torch.testing.assert_close(torch.from_numpy(answer).float(), packed(X), rtol=0, atol=1e-4)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(20, 8), nn.Linear(8, 3)

    def forward(self, x, mask=None, *rest, scale=2.0, **options):
        h = scale * self.a(x)
        if mask is not None:
            h = h * mask
        if rest or options:
            h = -h
        return self.b(h.relu())


def test_further_arguments_take_their_defaults():
    torch.manual_seed(0)
    model = vb.binarize(Masked())
    expected = answers(model, X, 3, seeded(5))
    torch.testing.assert_close(vb.pack(model, 3, generator=seeded(5))(X).double(), expected, rtol=1e-5, atol=1e-4)


def attention(m, x):
    h = m.a(x)
    out, _ = m.attention(h, h, h)
    return m.b(out)


def causal_attention(m, x):
    h = m.a(x)
    return m.b(m.attention(h, h, h, need_weights=False, attn_mask=m.mask)[0])


def padded_attention(m, x):
    h = m.a(x)
    return m.b(m.attention(h, h, h, key_padding_mask=x[:, :, 0] > 0.9)[0])


def every_step(m, x):
    out, (_, _) = m.lstm(m.a(x), None)
    return m.b(out[:, -1])


def last_layer(m, x):
    _, (h, c) = m.lstm(m.a(x))
    return m.b(h[-1] + c[0])


def both_directions(m, x):
    _, h = m.gru(m.a(x))
    return m.b(torch.cat([h[-2, :, :4], h[-1][:, 4:]], 1))


def cell_by_cell(m, x):
    steps = m.a(x)
    h, c = m.cell(steps[:, 0])
    for i in range(1, 5):
        h, c = m.cell(steps[:, i], (h, c))
    return m.b(h - c)


def before_the_first_draw(m, x):
    return m.b(m.a(m.early(x)[1][0][-1]))


@pytest.mark.parametrize(
    "run",
    [
        *(attention, causal_attention, padded_attention, every_step, last_layer, both_directions, cell_by_cell),
        before_the_first_draw,
    ],
)
def test_modules_with_options_and_tuples_are_packed(run):
    agree(run)


@pytest.mark.parametrize("run", [lambda m, x: m.b(m.lstm(m.a(x))[1][0].transpose(0, 1).flatten(1)[:, :8])])
def test_states_that_are_not_picked_are_refused(run):
    with pytest.raises(InputError, match="across the batch, or moves it"):
        vb.pack(model_of(run), 3)


PLACES = {
    "a dimension": lambda m, x: m.b(m.a(x) + m.place(torch.arange(x.shape[1]))),
    "size": lambda m, x: m.b(m.a(x) + m.place(torch.arange(x.size(1), device=x.device)).to(x.dtype)),
    "by keyword": lambda m, x: m.b(m.a(x) + F.gelu(m.place(torch.arange(x.size(dim=1)) % 3))),
    "of the table": lambda m, x: m.b(m.a(x) + m.place(torch.arange(m.place.weight.shape[0]))[:5]),
    "of own rows": lambda m, x: (lambda h: m.b(h + m.place(torch.arange(h.shape[1]))))(m.a(x)),
    "number": lambda m, x: m.b(m.a(x / x.shape[2]) * x.shape[1] ** -0.5 + m.mask.shape[0]),
}
UNSURE = {
    "counted from the end": lambda m, x: m.b(m.a(x) + m.place(torch.arange(x.shape[-2])).relu()),
    "the batch": lambda m, x: m.b(m.a(x) + m.place(torch.arange(x.shape[0]) * 0)[:, None]),
    "the whole shape": lambda m, x: m.b(m.a(x).reshape(x.shape[:2] + (8,))),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_sizes_behind_the_batch_give_is_the_same_for_all_networks(name):
    layers = [step for step in agree(PLACES[name]).program.steps if isinstance(step, PackedLinear)]
    assert [layer.shared for layer in layers] == [True, False]


@pytest.mark.parametrize("name", UNSURE)
def test_sizes_that_may_be_that_of_the_batch_are_those_of_all_networks_rows(name):
    layers = [step for step in agree(UNSURE[name]).program.steps if isinstance(step, PackedLinear)]
    assert not any(layer.shared for layer in layers)


def test_binary_layers_on_what_sizes_give_are_refused():
    with pytest.raises(InputError, match="does not come from the input"):
        vb.pack(model_of(lambda m, x: m.b(m.a(x)) + m.b(m.place(torch.arange(x.shape[1])))), 2)


def test_a_binary_layer_takes_no_options():
    with pytest.raises(InputError, match=r"a .BinaryLinear. is called with options"):
        vb.pack(model_of(lambda m, x: m.b(m.a(x, None))), 3)


NOISY = {
    "randn_like": lambda m, x: m.b(m.a(x + torch.randn_like(x))),
    "bernoulli": lambda m, x: m.b(m.a(x.sigmoid().bernoulli())),
    "dropout": lambda m, x: m.b(F.dropout(m.a(x), 0.5)),
    "dropout2d": lambda m, x: m.b(F.dropout2d(m.a(x), 0.5, True)),
    "normal": lambda m, x: m.b(m.a(torch.normal(x, 1.0))),
    "gumbel_softmax": lambda m, x: F.gumbel_softmax(m.b(m.a(x))),
    "randn": lambda m, x: m.b(m.a(x + torch.randn(20))),
    "rand": lambda m, x: m.b(m.a(x)) if torch.rand(()) < 0.5 else -m.b(m.a(x)),
    "scaled_dot_product_attention": lambda m, x: m.b(F.scaled_dot_product_attention(m.a(x), m.a(x), m.a(x), None, 0.5)),
}


@pytest.mark.parametrize("name", NOISY)
def test_a_forward_that_draws_is_refused_by_name(name):
    with pytest.raises(InputError, match=rf"draws random numbers \({name}\).*varbnn.predict runs any model"):
        vb.pack(model_of(NOISY[name]), 3)


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.b(F.scaled_dot_product_attention(m.a(x), m.a(x), m.a(x))),
        lambda m, x: m.b(F.rrelu(m.a(x))),
        lambda m, x: m.b(m.dropout(m.a(x))),
        lambda m, x: m.b(F.dropout(m.a(x), 0.0)),
        lambda m, x: m.b(F.dropout1d(m.a(x), p=0)),
    ],
)
def test_what_could_draw_and_does_not_is_packed(run):
    agree(run)


def test_pooling_at_random_is_noise():
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.FractionalMaxPool2d(2, output_size=3)))
    with pytest.raises(InputError, match=r"draws random numbers .0 .FractionalMaxPool2d"):
        refuse_noise(graph, graph.graph)
