"""Models of whole numbers: tokens into an embedding, packed, called, saved, loaded and asked by predict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from tests.packed.models import Net, seeded
from varbnn.errors import InputError
from varbnn.nn.draws import binary_layers, holding
from varbnn.packed.build import _draw
from varbnn.packed.layout import weight_of
from varbnn.predict import route

TOKENS = torch.randint(50, (7, 6), generator=seeded(1))


def bag(m, x):
    return m.b(torch.relu(m.n(m.a(m.embed(x).mean(1)))))


def attentive(m, x):
    h = m.a(m.embed(x) + m.place)
    out, _ = m.attention(h, h, h, key_padding_mask=x == 0, need_weights=False)
    return m.b(m.gate(out[:, 0]))


def recurrent(m, x):
    _, (h, _) = m.lstm(m.a(m.embed(x)))
    return m.b(h[-1])


def mixed(m, x):
    return m.b(torch.cat([m.a(m.embed(x[:, 0])), x[:, 1:].float() / 50], 1)[:, :32].relu())


def offset(m, x):
    return m.b(m.a(m.embed((x + m.offsets) % 50).sum(1)).relu())


def convolved(m, x):
    return m.b(m.n(m.conv(m.embed(x).transpose(1, 2))).relu().amax(2))


def looked_up(m, x):
    return m.b(m.a(m.place[x % 6] + m.embed.weight[x]).amax(1))


FORWARDS = [bag, looked_up, attentive, recurrent, mixed, offset, convolved]


def model_of(run, width: int = 32) -> nn.Module:
    torch.manual_seed(0)
    model = Net(
        run, embed=nn.Embedding(50, width), a=nn.Linear(width, width), b=nn.Linear(width, 3), n=nn.BatchNorm1d(width),
        conv=nn.Conv1d(width, width, 3), lstm=nn.LSTM(width, width, batch_first=True), gate=vb.nn.Sign(),
        attention=nn.MultiheadAttention(width, 4, batch_first=True), place=torch.randn(6, width),
    )  # fmt: skip
    model.register_buffer("offsets", torch.arange(6) * 5)
    return vb.binarize(model, skip=["lstm", "attention"])


def each(model: nn.Module, inputs: torch.Tensor, num_samples: int, generator: torch.Generator) -> torch.Tensor:
    """What the model itself says with each of the networks that `pack` draws."""
    layers = [layer for _, layer in binary_layers(model)]
    model.eval()
    with torch.no_grad():
        drawn = _draw(layers, num_samples, generator)
        answers = []
        for s in range(num_samples):
            with holding(layers, [weight_of(layer, drawn[layer][s]) for layer in layers]):
                answers.append(model(inputs))
    return torch.stack(answers)


@pytest.mark.parametrize("run", FORWARDS)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_every_network_says_what_the_model_says(run, rows):
    model = model_of(run)
    packed = vb.pack(model, 3, generator=seeded(5))
    x = TOKENS[:rows]
    expected = each(model, x, 3, seeded(5)) if rows else torch.empty(3, 0, 3)
    near = {"rtol": 0, "atol": 1e-4 * float(expected.abs().max()) if rows else 0}
    torch.testing.assert_close(packed(x), expected, **near)
    torch.testing.assert_close(packed(x.int()), expected, **near)
    torch.testing.assert_close(packed(x.t().contiguous().t()), expected, **near)
    if rows:
        torch.testing.assert_close(packed.member(2)(x), expected[2], **near)
        torch.testing.assert_close(packed(x, reduce="mean").mean, expected.softmax(-1).mean(0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["bag", "sequence"])
def test_a_file_keeps_a_model_of_tokens(name, tmp_path):
    torch.manual_seed(0)
    layers = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)
    embed = nn.Embedding(50, 8, padding_idx=0)
    model = vb.binarize(nn.Sequential(embed, *layers) if name == "sequence" else model_of(bag))
    packed = vb.pack(model, 3)
    packed.save(tmp_path / "tokens.vbnn")
    assert packed.program.takes() == {"tokens": 50}
    assert torch.equal(vb.load_packed(tmp_path / "tokens.vbnn")(TOKENS), packed(TOKENS))
    with vb.Predictor(tmp_path / "tokens.vbnn") as predictor:
        for dtype in (np.int64, np.int16, np.uint8, ">i4", np.uint32):
            assert torch.equal(predictor(TOKENS.numpy().astype(dtype)), packed(TOKENS))
        assert torch.equal(predictor(TOKENS.byte()), packed(TOKENS))


MASKS = {
    "operator": lambda m, x: (x != 0).float(),
    "method": lambda m, x: x.gt(0).to(torch.float32),
    "function": lambda m, x: torch.ge(x, 1).to(dtype=m.embed(x).dtype),
    "number": lambda m, x: x.clamp(max=1).float(),
    "like": lambda m, x: (x > 0).type_as(m.place),
    "whole": lambda m, x: 1 - (x == 0).long().double(),
    "other": lambda m, x: (x > 0).to(m.embed(x)),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_file_keeps_a_mean_over_those_that_are_no_padding(name, tmp_path):
    def masked(m, x):
        mask = MASKS[name](m, x).unsqueeze(-1)
        return m.b(m.a(((m.embed(x) * mask).sum(1) / mask.sum(1).clamp(min=1)).float()).relu())

    model, tokens = model_of(masked).eval(), TOKENS * (TOKENS % 3 > 0)
    packed = vb.pack(model, 0)
    packed.save(tmp_path / "masked.vbnn")
    loaded = vb.load_packed(tmp_path / "masked.vbnn")
    assert torch.equal(loaded(tokens), packed(tokens))
    torch.testing.assert_close(loaded(tokens)[0], model(tokens).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [["meta"], [torch.float32, True], [torch.device("cpu")]])
def test_a_file_converts_to_no_device(options, tmp_path):
    model = vb.binarize(Net(lambda m, x: m.a(x).to(*options), a=nn.Linear(6, 3)))
    with pytest.raises(InputError, match=r"calls method\.to with anything but a dtype, which a packed file can"):
        vb.pack(model, 2).save(tmp_path / "a.vbnn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda: model_of(bag), lambda: model_of(mixed), lambda: vb.binarize(nn.Linear(6, 3))])
def test_tokens_and_real_numbers_are_not_taken_for_each_other(make):
    packed = vb.pack(make(), 2)
    wrong = TOKENS if packed.program.takes() == {"features": 6} else torch.rand(7, 6)
    for inputs in (wrong, wrong):  # the first call looks at each step, later ones do not
        with pytest.raises((InputError, RuntimeError), match=r"takes? (floating|tokens)|fails on two inputs"):
            packed(inputs)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_the_dtype_that_was_given_is_named(dtype):
    packed = vb.pack(vb.binarize(torch.nn.Linear(4, 3)), 2)
    with pytest.raises(InputError, match=f"take floating inputs, got {dtype}; call"):
        packed(torch.ones(5, 4, dtype=dtype))


@pytest.mark.parametrize("token", [-1, 50])
def test_a_token_that_does_not_exist_is_named(token):
    x = TOKENS.clone()
    x[3, 2] = token
    with pytest.raises(InputError, match=rf"take tokens 0 … 49, got {token}"):
        vb.pack(model_of(bag), 2)(x)


def test_whole_numbers_never_pass_for_packed_signs():
    model = vb.binarize(Net(lambda m, x: m.a(x.flatten(1)), a=nn.Linear(6, 3)))
    with pytest.raises(InputError, match=r"takes floating inputs, got torch\.int64"):
        vb.pack(model, 2)(TOKENS.int())


def test_statistics_are_measured_with_tokens():
    model = model_of(bag)
    packed = vb.pack(model, 3, refresh_bn=TOKENS, generator=seeded(5))
    layers = [layer for _, layer in binary_layers(model)]
    drawn = _draw(layers, 3, seeded(5))
    for s in range(3):
        with holding(layers, [weight_of(layer, drawn[layer][s]) for layer in layers]), torch.no_grad():
            vb.refresh_batchnorm(model, TOKENS)
            expected = model.eval()(TOKENS)
        torch.testing.assert_close(packed(TOKENS)[s], expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_predict_packs_models_of_tokens(monkeypatch):
    monkeypatch.setattr(route, "FASTER_LEVELS", frozenset({"reference", "scalar", "avx2", "avx512"}))
    model = model_of(recurrent, 512)
    assert route.reason_for_loop(model, 8, torch.device("cpu")) is None
    found = vb.predict(model, TOKENS, 8, generator=seeded(5))
    packed = vb.pack(model, 8, generator=seeded(5))
    torch.testing.assert_close(found.probs, packed(TOKENS).softmax(-1))
    again = vb.predict(packed, [TOKENS[:4], TOKENS[4:]])
    torch.testing.assert_close(again.probs, found.probs)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
def test_images_of_whole_numbers_are_asked_as_the_model_takes_them(dtype, monkeypatch):
    monkeypatch.setattr(route, "FASTER_LEVELS", frozenset({"reference", "scalar", "avx2", "avx512"}))
    torch.manual_seed(0)
    layers = {"a": nn.Linear(64, 2048), "b": nn.Linear(2048, 3)}
    model = vb.binarize(Net(lambda m, x: m.b(m.a((x * 3).float()).relu()), **layers))
    x = torch.randint(256, (7, 64), generator=seeded(1)).to(dtype)
    found = vb.predict(model, x, 8, generator=seeded(5), task="regression").means
    if dtype == torch.uint8:  # 3 times that, modulo 256
        packed = vb.pack(model, 8, generator=seeded(5))
        torch.testing.assert_close(found, packed(x), rtol=1e-5, atol=1e-2)
        expected = each(model, x, 8, seeded(5))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert found.shape == (8, 7, 3)


def across(m, x):
    h = m.embed(x).mean(1)
    return m.b(m.a(torch.einsum("nc,mc->nm", h, h) @ h))


@pytest.mark.parametrize("token", [0, 1, 49])
def test_a_lone_input_is_joined_by_another(token):
    with pytest.raises(InputError, match="across the batch"):
        vb.pack(model_of(across), 2)(torch.full((1, 6), token))


def counted_from_one(m, x):
    return m.b(m.a(m.embed(x - 1).mean(1)).relu())


def one_category(m, x):
    return m.b(m.a(m.place[:1][x[:, 0]] + m.embed(x[:, 1])).relu())


@pytest.mark.parametrize("run, row", [(counted_from_one, [1] * 6), (one_category, [0] * 6)], ids=["ids", "table"])
def test_a_lone_input_is_answered_though_the_one_made_up_is_none_of_the_models(run, row):
    model, x = model_of(run), torch.tensor([row])
    packed = vb.pack(model, 3, generator=seeded(5))
    torch.testing.assert_close(packed(x), each(model, x, 3, seeded(5)), rtol=0, atol=1e-5)
    assert packed(x[:0]).shape == (3, 0, 3)
    assert packed(x.repeat(5, 1)).shape == (3, 5, 3)


def test_statistics_though_two_equal_inputs_cannot_be_told_apart_by_one_made_up():
    model = model_of(lambda m, x: m.b(m.n(m.a(m.embed(x - 1).mean(1))).relu()))
    x = torch.cat([torch.ones(2, 6, dtype=torch.long), TOKENS[:5] + 1])
    first, last = (vb.pack(model, 3, refresh_bn=data, generator=seeded(5)) for data in (x, x.flip(0)))
    torch.testing.assert_close(first(x), last(x))


def test_the_first_two_inputs_tell_what_a_lone_one_could_not():
    def mixing_from_one(m, x):
        return across(m, x - 1)

    packed = vb.pack(model_of(mixing_from_one), 1)
    packed(torch.ones(1, 6, dtype=torch.long))
    with pytest.raises(InputError, match="across the batch"):
        packed(torch.tensor([[1] * 6, [2] * 6]))


def test_an_input_that_is_none_of_the_models_is_still_refused():
    with pytest.raises(InputError, match="fails on two inputs"):
        vb.pack(model_of(counted_from_one), 3)(torch.zeros(1, 6, dtype=torch.long))


def test_no_input_of_a_model_with_a_single_token():
    model = vb.binarize(nn.Sequential(nn.Embedding(1, 8), nn.Linear(8, 3)))
    assert vb.pack(model, 2)(torch.zeros(0, 6, dtype=torch.long)).shape == (2, 0, 6, 3)
