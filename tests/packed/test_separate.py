"""A packed ensemble is a thing of its own: it shares no memory with the model, and its members none with it."""

from __future__ import annotations

import os
import stat
import types

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from tests.packed.models import ZOO, built
from varbnn.errors import CheckpointError, InputError
from varbnn.packed.call import Call, Constant, Ref
from varbnn.packed.file import save
from varbnn.packed.program import Program
from varbnn.saving import replacing, restore
from varbnn.saving import save as write_state


def storages(module: nn.Module) -> set[int]:
    tensors = [*module.parameters(), *module.buffers()]
    return {t.untyped_storage().data_ptr() for t in tensors if t.numel()}


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
@pytest.mark.parametrize("name", ZOO)
def test_ensemble_model_and_members_share_no_memory(name):
    model, inputs = built(name)
    packed = vb.pack(model, 3)
    assert not storages(packed) & storages(model)
    members = [packed.member(s) for s in range(3)]
    before = packed(inputs)
    for member in members:
        assert not storages(packed) & storages(member)
        for tensor in (*member.parameters(), *member.buffers()):
            tensor.data.zero_()
        member.double()
    assert torch.equal(packed(inputs), before)


def test_training_on_after_packing_leaves_the_networks_as_drawn():
    torch.manual_seed(0)
    x = torch.randn(5, 4)
    model = vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=100, real_lr=0.1)
    packed = vb.pack(model, 4)
    before = packed(x)
    for _ in range(3):
        nn.functional.cross_entropy(model(torch.randn(50, 4)), torch.randint(3, (50,))).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(packed(x), before)


def test_an_ensemble_inside_of_a_module_that_trains_stays_in_eval():
    packed = vb.pack(vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.RReLU(), nn.Linear(8, 3))), 2)
    x = torch.randn(5, 4)
    before = packed(x)
    nn.ModuleDict({"teacher": packed}).train()
    assert not packed.training
    assert torch.equal(packed(x), before)
    assert packed.train() is packed


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)


class Called(Net):
    def __call__(self, x):
        return super().__call__(x) * 100


def with_forward():
    net = Net()
    net.forward = types.MethodType(lambda self, x: self.layer(x) * 100, net)
    return net


@pytest.mark.parametrize(("made", "words"), [(with_forward, "forward of its own"), (Called, "__call__ of its own")])
def test_code_put_into_the_model_itself_is_refused_and_predict_runs_it(made, words):
    model = vb.binarize(made())
    with pytest.raises(InputError, match=words):
        vb.pack(model, 2)
    x = torch.randn(6, 4)
    logits = model.eval()(x)
    torch.testing.assert_close(vb.predict(model, x, 0).probs[0], logits.softmax(-1))


def test_a_real_layer_with_a_forward_of_its_own_is_packed_and_not_saved(tmp_path):
    act = nn.Tanh()
    act.forward = lambda value: torch.tanh(value) * 100
    model = vb.binarize(nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 3)))
    packed, x = vb.pack(model, 0), torch.randn(5, 4)
    torch.testing.assert_close(packed(x)[0], model.eval()(x), rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="Tanh of the model has a forward of its own"):
        packed.save(tmp_path / "own.vbnn")
    assert not list(tmp_path.iterdir())


def test_divisions_that_can_end_the_process_are_refused_when_they_come_up(tmp_path):
    divided = Call(torch.div, (Ref(0), -1), {"rounding_mode": "trunc"})
    program = Program([Constant(torch.tensor([-(2**63)])), divided, Call(torch.add, (Ref(0), Ref(1)), {})],
                      [(), (1,), (0, 2)], 3)  # fmt: skip
    save(program, 1, tmp_path / "forged.vbnn")
    with pytest.raises(InputError, match="divides whole numbers"):
        vb.load_packed(tmp_path / "forged.vbnn")(torch.zeros(2, 1))
    for operand in (-1, torch.tensor(-1)):
        with pytest.raises(InputError, match="divides whole numbers"):
            Call("div", (Ref(0), operand), {"rounding_mode": "trunc"})(torch.tensor([-(2**63)]))
    assert Call(torch.div, (Ref(0), 4.0), {"rounding_mode": "trunc"})(torch.tensor([-7.0])).item() == -1


@pytest.mark.parametrize("pool, dims", [(nn.functional.avg_pool2d, 2), (nn.functional.avg_pool3d, 3)])
def test_so_are_averages_of_whole_numbers(pool, dims, tmp_path):
    smallest = Constant(torch.full((1, 1, *[4] * dims), -(2**63)))
    averaged = Call(pool, (Ref(0), 1, 1, 0, False, True, -1), {})
    save(Program([smallest, averaged], [(), (1,)], 2), 1, tmp_path / "forged.vbnn")
    with pytest.raises(InputError, match="divides whole numbers"):
        vb.load_packed(tmp_path / "forged.vbnn")(torch.zeros(1, 1))
    ones = torch.ones(1, 1, *[4] * dims)
    assert torch.equal(averaged(ones), -ones)


@pytest.mark.parametrize(("function", "name"), [(torch.abs, "torch.abs"), ("abs", "method.abs")])
def test_no_file_says_where_results_are_written(function, name, tmp_path):
    call = Call(function, (Ref(0),), {"out": Ref(1)})
    constants = [Constant(torch.ones(2)), Constant(torch.ones(3))]
    with pytest.raises(InputError, match="with out="):
        save(Program([*constants, call], [(), (), (0, 1)], 3), 1, tmp_path / "forged.vbnn")
    with pytest.raises(InputError, match="with out="):
        Call.named(name, call.args, call.kwargs)


def test_gates_pack_whatever_the_default_dtype():
    before = torch.get_default_dtype()
    model = vb.binarize(nn.Sequential(nn.Linear(64, 64), vb.nn.Gate("bits"), nn.Linear(64, 3)))
    try:
        torch.set_default_dtype(torch.float64)
        packed = vb.pack(model, 2)
    finally:
        torch.set_default_dtype(before)
    x = torch.randn(5, 64)
    torch.testing.assert_close(packed(x)[1], packed.member(1)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_not_replaced_by_a_file(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices here")
    with pytest.raises(InputError, match="names no regular file"):
        vb.pack(vb.binarize(nn.Sequential(nn.Linear(4, 3))), 2).save(device)
    assert stat.S_ISCHR(os.stat(device).st_mode)


def test_a_pipe_is_not_replaced_and_links_are_followed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="names no regular file"), replacing(tmp_path / "pipe"):
        pass
    (tmp_path / "store").mkdir()
    (tmp_path / "last.pt").symlink_to(tmp_path / "store" / "run.pt")
    with replacing(tmp_path / "last.pt") as file:
        file.write(b"state")
    assert (tmp_path / "last.pt").is_symlink()
    assert (tmp_path / "store" / "run.pt").read_bytes() == b"state"
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "last.pt") as file:
        file.write(bytes([1 // 0]))
    assert (tmp_path / "last.pt").read_bytes() == b"state"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["run.pt"]


def test_a_file_keeps_its_permissions(tmp_path):
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3)))
    seen = []
    for mode in (0o600, 0o640):
        (tmp_path / "a.vbnn").touch()
        (tmp_path / "a.vbnn").chmod(mode)
        with replacing(tmp_path / "a.vbnn") as file:
            seen.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode))  # before anything is in it
        vb.pack(model, 2).save(tmp_path / "a.vbnn")
        seen.append(stat.S_IMODE((tmp_path / "a.vbnn").stat().st_mode))
    assert seen == [0o600, 0o600, 0o640, 0o640]
    (tmp_path / "usual").touch()
    vb.pack(model, 2).save(tmp_path / "new.vbnn")
    assert (tmp_path / "new.vbnn").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("broken", [{"state": None, "param_groups": None}, None, []])
def test_a_state_that_cannot_be_loaded_leaves_everything_as_it_was(broken, tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    before = model.weight.detach().clone()
    state = {"model": {key: value + 1 for key, value in model.state_dict().items()}, "optimizer": broken}
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        restore(tmp_path / "state.pt", {"model": model, "optimizer": optimizer}, state)
    assert torch.equal(model.weight, before)


def test_a_graph_of_torch_fx_is_packed():
    model = vb.binarize(torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))))
    x = torch.randn(5, 8)
    torch.testing.assert_close(vb.pack(model, 0)(x)[0], model.eval()(x))


def test_a_file_in_its_place_counts_where_its_folder_cannot_be_synced(tmp_path, monkeypatch):
    real = os.fsync

    def files_only(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    write_state(tmp_path / "a.pt", {"a": 1})
    assert torch.load(tmp_path / "a.pt") == {"a": 1}


def test_drafts_of_killed_writers_are_tidied_up_later_and_those_of_living_ones_are_not(tmp_path):
    killed, living = replacing(tmp_path / "a.pt"), replacing(tmp_path / "a.pt")
    killed.__enter__()
    (draft,) = tmp_path.iterdir()
    os.utime(draft, (0, 0))
    living.__enter__()
    write_state(tmp_path / ("学" * 80), {})
    assert draft.exists()
    write_state(tmp_path / "a.pt", {"a": 1})
    assert not draft.exists()
    assert len(list(tmp_path.glob(".*.draft"))) == 1
    living.__exit__(None, None, None)
    assert not list(tmp_path.glob(".*.draft"))


def test_paths_that_name_no_file_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", f"{tmp_path}/new/", tmp_path):
        with pytest.raises(OSError, match="names no regular file"), replacing(path):
            pass
    assert (tmp_path / "loop").is_symlink()


def test_numpys_numbers_name_members():
    packed = vb.pack(vb.binarize(nn.Linear(4, 3)), 2)
    x = torch.randn(5, 4)
    torch.testing.assert_close(packed.member(np.int64(1))(x), packed(x)[1])


@pytest.mark.parametrize("number", [1.5, True, -1, 2])
def test_members_are_counted_in_whole_numbers(number):
    with pytest.raises(InputError, match="networks 0 … 1"):
        vb.pack(vb.binarize(nn.Linear(4, 3)), 2).member(number)


def test_convolutions_say_what_they_take():
    packed = vb.pack(vb.binarize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))), 2)
    with pytest.raises(InputError, match="inputs of shape N × 3 × size × size, got 2 × 1 × 4 × 4"):
        packed(torch.randn(2, 1, 4, 4))
    assert packed(torch.randn(2, 3, 4, 4)).shape == (2, 2, 2)
