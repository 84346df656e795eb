"""A packed ensemble as a torch module: compiled, exported, copied, saved, moved, averaged, taken apart."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.packed.models import Net, built, mlp, seeded
from tests.predict.allocations import allocations
from varbnn.errors import InputError
from varbnn.kernels import backend, using_backend
from varbnn.packed.call import FUNCTIONS, Call, Ref

NAMES = [
    "mlp",
    "sign",
    "gates",
    "gates between convolutions",
    "conv",
    "conv, sign",
    "residual",
    "tokens",
    "the input comes in late",
    "view by size",
]


def packed(name: str, num_samples: int = 3) -> tuple[vb.PackedEnsemble, torch.Tensor]:
    model, x = built(name)
    return vb.pack(model, num_samples, generator=seeded()), x


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_as_one_graph(name):
    torch._dynamo.reset()
    ensemble, x = packed(name)
    compiled = torch.compile(ensemble, fullgraph=True, backend="aot_eager")
    near(compiled(x), ensemble(x))
    near(compiled(x[:2]), ensemble(x[:2]))
    if ensemble(x).dim() == 3:
        near(compiled(x, "mean").mean, ensemble(x, "mean").mean)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [torch.export.Dim("batch"), torch.export.Dim.DYNAMIC], ids=["named", "dynamic"])
def test_it_exports_with_any_batch(name, dim):
    ensemble, x = packed(name)
    program = torch.export.export(ensemble, (x,), dynamic_shapes=({0: dim},))
    for rows in (x, torch.cat([x, x, x[:1]]), x[:2]):
        near(program.module()(rows), ensemble(rows))


def test_an_exported_program_survives_a_file():
    ensemble, x = packed("mlp")
    file = io.BytesIO()
    torch.export.save(torch.export.export(ensemble, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), file)
    file.seek(0)
    near(torch.export.load(file).module()(x[:3]), ensemble(x[:3]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda ensemble: pickle.loads(pickle.dumps(ensemble))])
def test_copies_say_the_same(name, how):
    ensemble, x = packed(name)
    twin = how(ensemble)
    assert torch.equal(twin(x), ensemble(x))
    assert twin.nbytes == ensemble.nbytes
    assert all(not torch.equal(a, b) or a.data_ptr() != b.data_ptr() for a, b in zip(twin.buffers(), ensemble.buffers(),
                                                                                     strict=True))  # fmt: skip


@pytest.mark.parametrize("how", [copy.deepcopy, lambda call: pickle.loads(pickle.dumps(call))])
@pytest.mark.parametrize("name", [*FUNCTIONS, "method.relu"])
def test_copies_of_calls_call_the_same(name, how):
    call = Call.named(name, (Ref(0), "shape"), {"dim": 1})
    twin = how(call)
    assert (twin.target, twin.args, twin.kwargs) == (call.target, call.args, call.kwargs)
    assert twin.name() == call.name()


def test_ensembles_whose_forward_picks_the_largest_pickle(tmp_path):
    def forward(m, x):
        return m.b(F.adaptive_max_pool1d(m.a(x).unsqueeze(1), 4).flatten(1))

    packed = vb.pack(vb.binarize(Net(forward, a=nn.Linear(8, 9), b=nn.Linear(4, 3))), 3)
    x = torch.randn(5, 8)
    twin = pickle.loads(pickle.dumps(packed))
    assert torch.equal(twin(x), packed(x))
    twin.save(tmp_path / "a.vbnn")
    assert torch.equal(vb.load_packed(tmp_path / "a.vbnn")(x), packed(x))


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_carries_the_networks(name):
    model, x = built(name)
    one, other = (vb.pack(model, 3, generator=seeded(s)) for s in (0, 1))
    expected = one(x)
    assert not torch.equal(other(x), expected)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(x), expected)


@pytest.mark.parametrize("move", ["half", "double", "bfloat16", "float", "cpu"])
def test_moving_changes_no_dtype(move):
    ensemble, x = packed("conv")
    expected, before = ensemble(x), {name: t.dtype for name, t in ensemble.state_dict().items()}
    getattr(ensemble, move)()
    ensemble.to(torch.float64)
    assert {name: t.dtype for name, t in ensemble.state_dict().items()} == before
    assert torch.equal(ensemble(x), expected)


def test_another_device_takes_everything_along():
    ensemble, _ = packed("conv")
    meta = ensemble.to("meta")
    assert {t.device.type for t in [*meta.buffers(), *meta.parameters()]} == {"meta"}


def test_it_has_no_gradient_and_keeps_none_of_the_callers():
    ensemble, x = packed("mlp")
    assert not ensemble(x.requires_grad_()).requires_grad
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())


def test_under_autocast_it_computes_in_float32_all_the_same():
    ensemble, x = packed("mlp, tanh")
    with torch.autocast("cpu", torch.bfloat16):
        found = ensemble(x)
    assert found.dtype == torch.float32
    near(found, ensemble(x))


# --- the networks one by one ---


@pytest.mark.parametrize("name", ["mlp", "sign", "conv"])
def test_a_member_is_a_plain_network_of_signs(name):
    ensemble, x = packed(name)
    member = ensemble.member(1)
    assert type(member) is nn.Sequential
    weights = [m.weight for m in member.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert all(bool((weight.abs() == 1).all()) for weight in weights)
    near(member(x), ensemble(x)[1])


@pytest.mark.parametrize("s", [-1, 3])
def test_there_is_no_other_member(s):
    with pytest.raises(InputError, match="networks 0 … 2"):
        packed("mlp")[0].member(s)


# --- the average ---


@pytest.mark.parametrize("name", ["mlp", "one layer", "sign", "conv", "residual", "the input comes in late"])
def test_the_average_is_that_of_the_logits(name):
    ensemble, x = packed(name, 5)
    found, probs = ensemble(x, reduce="mean"), ensemble(x).double().softmax(-1)
    expected = vb.Prediction(probs)
    torch.testing.assert_close(found.mean.double(), expected.mean, rtol=0, atol=1e-5)
    for part in ("total", "aleatoric", "epistemic"):
        torch.testing.assert_close(getattr(found, part).double(), getattr(expected, part), rtol=0, atol=1e-5)
    assert bool((found.epistemic >= 0).all())


def test_the_average_never_holds_what_each_says():
    ensemble = vb.pack(vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 50))), 16)
    x = torch.randn(100, 4)
    ensemble(x, reduce="mean")
    everything = 16 * 100 * 50 * 4
    sizes = allocations(lambda: ensemble(x, reduce="mean"))
    assert sizes
    assert max(sizes) < everything / 4
    assert max(allocations(lambda: ensemble(x))) >= everything


# --- what it takes ---


def test_a_weight_takes_a_bit():
    model = vb.binarize(nn.Sequential(nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(),
                                      nn.Linear(512, 512, bias=False)))  # fmt: skip
    x = torch.randn(50, 512)
    ensemble = vb.pack(model, 8, refresh_bn=x)
    assert ensemble.nbytes == 8 * (2 * 512 * 512 // 8 + 2 * 512 * 4)
    assert f"{ensemble.nbytes:,} bytes" in repr(ensemble)


def test_a_layer_used_twice_is_kept_once():
    model, _ = built("layer used twice")
    ensemble = vb.pack(model, 3)
    assert ensemble.nbytes < 1.5 * sum({id(s.weight): s.weight.numel() * 4 for s in ensemble.program.steps
                                        if hasattr(s, "in_features")}.values()) + 4 * 3 * 32 * 2 * 4  # fmt: skip


def test_plain_torch_says_the_same():
    for name in NAMES:
        ensemble, x = packed(name)
        with using_backend("reference"):
            expected = ensemble(x)
        near(ensemble(x), expected)


def test_many_threads_may_call_at_once():
    from concurrent.futures import ThreadPoolExecutor

    ensemble = vb.pack(vb.binarize(mlp()), 4)
    parts = torch.randn(64, 20).split(4)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ensemble, parts))
    near(torch.cat(found, 1), ensemble(torch.cat(parts)))


@pytest.mark.parametrize("rows", [1, 5])
def test_a_backend_that_cannot_be_used_is_no_fault_of_a_layer(rows, monkeypatch):
    packed = vb.pack(vb.binarize(nn.Linear(4, 3)), 2, generator=torch.Generator().manual_seed(0))
    with monkeypatch.context() as patch:
        patch.setenv("VARBNN_BACKEND", "sse9")
        patch.setattr(backend, "_active", None)
        with pytest.raises(InputError, match=r"^the environment variable VARBNN_BACKEND asks for the backend 'sse9'"):
            packed(torch.ones(rows, 4))
    assert packed(torch.ones(rows, 4)).shape == (2, rows, 3)
