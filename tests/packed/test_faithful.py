"""Forwards that torch.fx reads otherwise than they run: refused by `pack`, and asked one by one by `predict`."""

from __future__ import annotations

import collections
import copy
import pickle
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

import varbnn as vb
from tests.packed.models import Net, answers, seeded
from varbnn.errors import InputError
from varbnn.packed import draw_packed
from varbnn.predict.route import reason_for_loop

X = torch.randn(6, 512, generator=seeded(1))
WIDE = 512  # enough weights in 8 networks to be packed by predict


def relu_inside(m, x):
    h = m.a(x)
    F.relu(h, inplace=True)
    return m.o(h)


def relu_by_place(m, x):
    h = m.a(x)
    F.relu(h, True)
    return m.o(h)


def statement(m, x):
    h = m.a(x)
    torch.relu_(h)
    return m.o(h)


def residual_block(m, x):
    h = m.a(x)
    return m.o(h + m.b(m.relu(h)))


def other_name(m, x):
    h = m.a(x)
    r = h
    h += m.b(h)
    return m.o(h + r)


def added_to_shared(m, x):
    h = x * 1.5
    h.add_(m.a(x))
    return m.o(h)


def chained(m, x):
    h = m.a(x)
    h.mul_(0.5).clamp_(-1, 1)
    return m.o(h.relu_())


def through_a_view(m, x):
    h = m.a(x)
    part = h[:, :4]
    part *= 0
    return m.o(h)


def dropped_out(m, x):
    h = m.a(x)
    t = F.relu(F.dropout(h, 0.2, training=m.training), inplace=True)
    return m.o(h + m.b(t))


def raveled(m, x):
    h = m.a(x)
    h.ravel().mul_(0.0)
    return m.o(h)


def by_keyword(m, x):
    h = m.a(x)
    torch.relu_(input=h)
    return m.o(h)


def gated(m, x):
    a, b = m.a(x).chunk(2, 1)
    a = F.relu(a, inplace=True)
    return m.o(torch.cat([a, b], 1))


def of_sizes(m, x):
    places = torch.arange(x.shape[1])
    places.add_(1)
    return m.o(m.a(x) * places)


def number_times_tensor(m, x):
    size = x.shape[1]
    scaled = size
    scaled *= m.a(x)
    return m.o(scaled / size)


def by_type(m, x):
    if isinstance(x, torch.Tensor) and type(x) is torch.Tensor:
        x = x.clamp(-0.1, 0.1)
    return m.o(m.a(x))


def by_attribute(m, x):
    if hasattr(x, "tensors"):
        x = x.tensors
    return m.o(m.a(x))


def prototypes(m, x):
    return m.a(x) @ m.b(m.protos).transpose(0, 1)


def writing_into_inputs(m, x):
    x -= 1.0
    return m.o(m.a(x))


def counted(m, x):
    rows = x.shape[0]
    count = rows
    count += 1
    return m.o(m.a(x).reshape(rows, -1)) * (count - rows)


def positions(m, x):
    h = m.a(x.view(-1, 4, 128)) + m.pos(torch.arange(4))
    return m.o(h.mean(1))


def model_of(run, width=WIDE, **parts):
    torch.manual_seed(0)
    parts = parts or {"a": nn.Linear(width, width), "b": nn.Linear(width, width), "o": nn.Linear(width, 3)}
    model = Net(run, **parts)
    return vb.binarize(model, skip=["pos"] if "pos" in parts else ())


PACKED = [
    *(by_keyword, gated, of_sizes, number_times_tensor, counted, relu_inside, relu_by_place, statement, other_name),
    *(added_to_shared, chained, writing_into_inputs),
]


def all_models():
    yield from ((run.__name__, model_of(run)) for run in PACKED)
    own = {"a": nn.Linear(WIDE, WIDE), "b": nn.Linear(WIDE, WIDE), "o": nn.Linear(WIDE, 3), "relu": nn.ReLU(True)}
    yield "residual_block", model_of(residual_block, **own)
    own = {"a": nn.Linear(128, WIDE), "o": nn.Linear(WIDE, 3), "pos": nn.Embedding(4, WIDE)}
    yield "positions", model_of(positions, **own)


MODELS = dict(all_models())


@pytest.mark.parametrize("name", MODELS)
def test_what_writes_into_its_input_is_packed_as_it_runs(name):
    model = MODELS[name]
    expected = answers(model, X.clone(), 3, seeded(5))
    packed = vb.pack(model, 3, generator=seeded(5))
    torch.testing.assert_close(packed(X.clone()).double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    member = packed.member(1)(X.clone())
    torch.testing.assert_close(member.double(), expected[1], rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("run", [through_a_view, dropped_out, raveled, prototypes])
def test_what_cannot_be_packed_is_refused(run):
    model = with_prototypes() if run is prototypes else model_of(run)
    with pytest.raises(InputError, match=r"may share and that is used later|does not come from the input"):
        vb.pack(model, 3)


def with_prototypes():
    parts = {"a": nn.Linear(WIDE, WIDE), "b": nn.Linear(WIDE, WIDE), "protos": torch.randn(3, WIDE)}
    return model_of(prototypes, **parts)


def normed(run):
    torch.manual_seed(0)
    layers = {"a": nn.Linear(WIDE, WIDE), "n": nn.BatchNorm1d(WIDE), "o": nn.Linear(WIDE, 3)}
    return vb.binarize(Net(lambda m, x: run(m, x), **layers))


def test_with_inputs_at_hand_pack_asks_the_model_itself():
    for run in (by_type, by_attribute):
        model = normed(lambda m, x, run=run: m.o(m.n(m.a(x.clamp(-0.1, 0.1)))) if run is by_type and isinstance(
            x, torch.Tensor) else run(m, x))  # fmt: skip
        with pytest.raises(InputError, match=r"torch.fx|fails on two inputs"):
            vb.pack(model, 3, refresh_bn=X)


REFUSED = ["through_a_view", "dropped_out", "by_type", "by_attribute", "prototypes"]


@pytest.mark.parametrize("name", [*MODELS, *REFUSED])
def test_predict_says_what_the_networks_say(name):
    others = {"prototypes": with_prototypes}
    model = MODELS.get(name) or others.get(name, lambda: model_of(globals()[name]))()
    before, x = copy.deepcopy(model.state_dict()), X.clone()
    found = vb.predict(model, x, 16, generator=seeded(2)).probs
    assert torch.equal(x, X), "the inputs were written into"
    if name in MODELS:
        expected = vb.pack(model, 16, generator=seeded(2))(X.clone()).softmax(-1)
    else:
        with pytest.raises(InputError):
            draw_packed(model, 16, None, seeded(2), rows=X)
        generator, each = seeded(2), []
        for _ in range(16):
            with vb.sampled(model, generator), torch.no_grad():
                each.append(model.eval()(X.clone()).softmax(-1))
        expected = torch.stack(each)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("first", [0.1, 8.0])
def test_one_input_that_answers_alike_hides_no_other(first):
    """Clamped where the type is looked at: the first input is not, the others are."""

    def forward(m, x):
        return m.o(m.a(x.clamp(-1, 1) if type(x) is torch.Tensor else x))

    x = 8 * X
    x[0] = first * X[0].clamp(-1, 1)
    with pytest.raises(InputError, match="off by"):
        draw_packed(model_of(forward), 4, None, seeded(0), rows=x)


def test_outputs_that_are_not_finite_hide_nothing():
    def forward(m, x):
        y = m.o(m.a(x.clamp(-0.1, 0.1) if type(x) is torch.Tensor else x))
        return torch.cat([y, torch.full_like(y[:, :1], -torch.inf)], 1)

    with pytest.raises(InputError, match="off by"):
        draw_packed(model_of(forward), 4, None, seeded(0), rows=X)

    def masked(m, x):
        y = m.o(m.a(x))
        return torch.cat([y, torch.full_like(y[:, :1], -torch.inf)], 1)

    assert draw_packed(model_of(masked), 4, None, seeded(0), rows=X).num_samples == 4


@pytest.mark.parametrize("last", [nn.Flatten(0), nn.Unflatten(1, (1, 1))])
def test_outputs_of_any_shape_are_compared(last):
    layers = [nn.Linear(WIDE, WIDE), nn.BatchNorm1d(WIDE), nn.ReLU(), nn.Linear(WIDE, 1), last]
    model = vb.binarize(nn.Sequential(*layers))
    assert vb.pack(model, 4, refresh_bn=X)(X).shape[:2] == (4, 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("activation", [nn.ReLU, vb.nn.Sign])
def test_rounding_of_the_model_itself_is_no_objection(dtype, activation):
    torch.manual_seed(0)
    layers = [[nn.Linear(64, 64), nn.BatchNorm1d(64), activation()] for _ in range(8)]
    model = vb.binarize(nn.Sequential(*(module for layer in layers for module in layer), nn.Linear(64, 3))).to(dtype)
    packed = vb.pack(model, 4, refresh_bn=torch.randn(50, 64).to(dtype))
    assert packed.num_samples == 4


def test_inputs_that_are_all_the_same_are_no_objection():
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64), nn.BatchNorm1d(64), vb.nn.Sign(), nn.Linear(64, 3)]
    assert vb.pack(vb.binarize(nn.Sequential(*layers)), 4, refresh_bn=torch.ones(50, 64)).num_samples == 4


# --- code that is put into layers ---


class Scaled(vb.nn.BinaryLinear):
    def forward(self, x):
        return super().forward(x) * 0.1


class Stretched(vb.nn.BinaryLinear):
    @property
    def weight(self):
        return super().weight * 2.0


def replaced(layer):
    layer.forward = types.MethodType(lambda self, x: -type(self).forward(self, x), layer)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Scaled(8, 8),
        lambda: Stretched(8, 8),
        lambda: replaced(vb.nn.BinaryLinear(8, 8)),
    ],
)
def test_code_of_its_own_in_a_binary_layer_is_neither_packed_nor_frozen_away(layer):
    model = nn.Sequential(layer(), nn.ReLU(), vb.nn.BinaryLinear(8, 3))
    with pytest.raises(InputError, match=r"0 \(.*\) has a (forward|weight) of its own"):
        vb.pack(model, 2)
    with pytest.raises(InputError, match=r"0 \(.*\) has a (forward|weight) of its own.*varbnn\.sampled"):
        vb.freeze(model, "mode")


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Identity(), nn.BatchNorm1d(8)])
def test_code_put_into_a_module_that_packing_replaces_is_refused(module):
    model = nn.Sequential(vb.nn.BinaryLinear(8, 8), replaced(module), vb.nn.BinaryLinear(8, 3))
    with pytest.raises(InputError, match="has a forward of its own"):
        vb.pack(model, 2)


def test_hooks_on_all_modules_are_refused():
    hook = register_module_forward_hook(lambda module, inputs, output: None)
    try:
        with pytest.raises(InputError, match="forward hooks on all modules"):
            vb.pack(vb.binarize(nn.Linear(4, 3)), 2)
    finally:
        hook.remove()


# --- what a forward keeps ---


def test_a_forward_that_keeps_values_keeps_none_of_the_tracing():
    def forward(m, x):
        m.count += 1
        m.kept = m.a(x)
        m.log.append(m.kept)
        if "h" not in m.cache:
            m.cache["h"] = m.o(m.kept)
        return m.cache.pop("h")

    model = model_of(forward)
    model.count, model.log, model.cache, model.kept = 0, [], {}, None
    vb.pack(model, 2)
    assert (model.count, model.log, model.cache, model.kept) == (0, [], {}, None)
    assert "_tensor_constant0" not in vars(model)


def test_buffers_deeper_containers_and_unchangeable_ones_stay():
    class Frozen(dict):
        def __setitem__(self, key, value):
            raise TypeError("frozen")

        clear = update = __setitem__

    def forward(m, x):
        h = m.a(x)
        m.calls += 1
        m.deep["in"]["h"] = h
        m.last.append(h)
        return m.o(h)

    model = model_of(forward)
    model.register_buffer("calls", torch.zeros(2))
    model.deep, model.last, model.config = {"in": {}}, collections.deque([1]), Frozen(a=1)
    vb.pack(model, 2, refresh_bn=X)
    assert (model.deep, list(model.last), model.config) == ({"in": {}}, [1], {"a": 1})
    assert torch.equal(model.calls, torch.zeros(2))


def test_two_threads_may_pack_while_a_third_goes_on_with_its_own():
    model, before = model_of(relu_inside), model_of(relu_inside).state_dict()
    failed = []

    def ask():
        try:
            for _ in range(3):
                vb.pack(model, 4)
        except InputError as error:
            failed.append(error)

    def go_on():
        own = nn.Sequential(nn.Linear(4, 4, bias=True), nn.ReLU())
        for _ in range(300):
            if not isinstance(own(torch.zeros(2, 4)), torch.Tensor):
                failed.append("a stand-in")

    threads = [*(threading.Thread(target=ask) for _ in range(2)), threading.Thread(target=go_on)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(layer._held is None for layer in (model.a, model.b, model.o))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not failed


def test_a_forward_that_cannot_be_traced_leaves_no_constants():
    def forward(m, x):
        h = m.a(x) * torch.ones(WIDE)
        return m.o(h) if h.max() > 0 else m.o(-h)

    model = model_of(forward)
    names = set(vars(model))
    for _ in range(2):
        vb.predict(model, X, 8)
    assert set(vars(model)) == names


def test_a_packed_model_and_its_ensemble_pickle():
    model = vb.binarize(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)))
    packed, x = vb.pack(model, 2), torch.randn(5, 8)
    again, copied = pickle.loads(pickle.dumps((model, packed)))
    assert torch.equal(copied(x), packed(x))
    assert torch.equal(again.eval()(x), model.eval()(x))


# --- one batch norm in two places; convolutions of many groups ---


def test_a_batch_norm_used_on_shared_and_on_own_rows_is_measured_over_both():
    torch.manual_seed(0)
    parts = {"a": nn.Linear(16, 16), "n": nn.BatchNorm1d(16), "o": nn.Linear(16, 3)}
    model, x = vb.binarize(Net(lambda m, x: m.o(m.n(m.a(m.n(x)))), **parts)), torch.randn(50, 16) * 3 + 1
    packed = vb.pack(model, 3, refresh_bn=x, generator=seeded(0))
    with vb.sampled(model) as held:
        layers = [held.a, held.o]
        for layer, step in zip(layers, [s for s in packed.program.steps if hasattr(s, "in_features")], strict=True):
            layer._held = step.member(1)[0].weight.detach()
        vb.refresh_batchnorm(held, x)
        expected = held.eval()(x)
    torch.testing.assert_close(packed(x)[1], expected, rtol=1e-4, atol=1e-4)


def test_predict_asks_convolutions_of_many_groups_one_by_one():
    layers = [nn.Conv2d(3, 512, 1), nn.Conv2d(512, 512, 3, padding=1, groups=512), nn.Flatten(), nn.Linear(8192, 3)]
    model = vb.binarize(nn.Sequential(*layers))
    assert "outputs in a group" in str(reason_for_loop(model, 64, torch.device("cpu")))


def with_float(m, x):
    h = m.a(x.float())
    return m.o(h.relu() if type(x) is torch.Tensor else h)


def with_lock(m, x):
    return m.o(m.a(x.clamp(-0.1, 0.1) if type(x) is torch.Tensor else x))


def noisy(m, x):
    return m.o(m.a(x) + 300 * torch.from_numpy(np.random.default_rng().standard_normal(WIDE)).float())


@pytest.mark.parametrize("run", [with_float, with_lock, noisy])
def test_models_that_cannot_be_asked_exactly_have_no_excuse(run):
    model = model_of(run)
    model.lock = threading.Lock()  # cannot be copied
    with pytest.raises(InputError, match="off by"):
        draw_packed(model, 8, None, seeded(0), rows=X)
    assert vb.predict(model, X, 8).probs.shape == (8, 6, 3)


def test_ordered_dicts_and_buffers_that_are_replaced_stay():
    def forward(m, x):
        m.cache[f"k{len(m.cache)}"] = 1
        m.calls = m.calls + 1
        return m.o(m.a(x))

    model = model_of(forward)
    model.register_buffer("calls", torch.zeros(()))
    model.register_buffer("unused", torch.tensor(torch.nan).expand(3))
    model.cache = collections.OrderedDict(first=0)
    draw_packed(model, 4, None, seeded(0), rows=X)
    assert list(model.cache.items()) == [("first", 0)]
    assert float(model.calls) == 0.0


def test_a_loader_may_itself_predict_in_another_thread():
    model = vb.binarize(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    other = vb.binarize(nn.Linear(8, 3))

    def ask(found):
        found.append(vb.pack(other, 2))

    class Loader:
        def __iter__(self):
            found = []
            thread = threading.Thread(target=ask, args=(found,), daemon=True)
            thread.start()
            thread.join(30)
            assert found, "it waits for the one that waits for it"
            yield torch.randn(20, 8)

    assert vb.pack(model, 2, refresh_bn=Loader()).num_samples == 2


def test_threads_that_pack_one_model_leave_it_in_train_mode():
    model = vb.binarize(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))).train()
    x, inside, done = torch.randn(20, 8), threading.Event(), threading.Event()

    def second():
        inside.set()
        assert done.wait(30)
        yield x

    thread = threading.Thread(target=lambda: vb.pack(model, 2, refresh_bn=second()), daemon=True)

    def first():
        thread.start()
        assert inside.wait(30)
        yield x

    vb.pack(model, 2, refresh_bn=first())
    done.set()
    thread.join(30)
    assert not thread.is_alive()
    assert all(module.training for module in model.modules())


def test_an_ensemble_drawn_while_others_are_is_the_one_drawn_alone():
    model = vb.binarize(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))).train()
    x = torch.randn(20, 8)
    expected = vb.pack(model, 2, refresh_bn=x, generator=seeded(5))(x)
    with ThreadPoolExecutor(4) as threads:
        packs = [threads.submit(vb.pack, model, 2, refresh_bn=x, generator=seeded(5)) for _ in range(40)]
        assert all(torch.equal(each.result()(x), expected) for each in packs)
    assert all(module.training for module in model.modules())
