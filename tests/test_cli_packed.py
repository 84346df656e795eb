"""The commands around packed files: pack, predict, info and bench."""

from __future__ import annotations

import csv
import sys
import types
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import varbnn as vb
from varbnn import cli

pytestmark = pytest.mark.filterwarnings("ignore:this model has batch norm")

MODEL = """
from torch import nn
import varbnn as vb

def model():
    return vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))

def real():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

def tokens():
    layers = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    return vb.binarize(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), *layers))

def word():
    return "model"

value = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module, checkpoints of its model, inputs, and a packed file; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MODEL)
    namespace: dict = {}
    exec(MODEL, namespace)
    model = namespace["model"]()
    torch.save(model.state_dict(), "model.pt")
    torch.save({"model": model.state_dict(), "history": []}, "run.pt")
    torch.save([1, 2], "list.pt")
    torch.save({f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}, "compiled.pt")
    torch.save(AveragedModel(model).state_dict(), "averaged.pt")
    both = AveragedModel(model).state_dict()
    torch.save({f"_orig_mod.{name}": tensor for name, tensor in both.items()}, "both.pt")
    torch.save(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).state_dict(), "real.pt")
    torch.save({**model.state_dict(), "\x1b[31m": torch.zeros(1)}, "forged.pt")
    (tmp_path / "junk.pt").write_bytes(b"\x80\x02junk")
    safetensors.torch.save_file({"more": torch.zeros(1), **model.state_dict()}, "more.safetensors")
    safetensors.torch.save_file(model.state_dict(), "model.safetensors")
    wide = torch.nn.Sequential(*(model[i] for i in range(3)), vb.nn.BinaryLinear(8, 5)).state_dict()
    torch.save(wide, "wide.pt")
    x = np.random.default_rng(0).normal(size=(30, 4))
    np.save("x.npy", x)
    np.savez("x.npz", x_test=x, y=np.arange(30))
    np.savez("two.npz", a=x, b=x)
    np.save("words.npy", np.array(["a"]))
    np.save("objects.npy", np.array([object()]), allow_pickle=True)
    np.save("nan.npy", np.full((2, 4), np.nan))
    np.save("wide.npy", np.zeros((2, 5)))
    vb.pack(model, 5, refresh_bn=torch.from_numpy(x).float()).save("a.vbnn")
    (tmp_path / "cut.vbnn").write_bytes((tmp_path / "a.vbnn").read_bytes()[:-4])
    flipped = bytearray((tmp_path / "a.vbnn").read_bytes())
    flipped[-1] ^= 1
    (tmp_path / "flipped.vbnn").write_bytes(flipped)
    return tmp_path


def run(capsys, line: str) -> str:
    """What a command that goes well prints."""
    assert cli.main(line.split()) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("checkpoint", ["model.pt", "run.pt", "model.safetensors"])
def test_pack_draws_from_a_checkpoint(checkpoint, folder, capsys):
    out = run(capsys, f"pack mine:model {checkpoint} --samples 3 --seed 1 --refresh-bn x.npz --out b.vbnn")
    assert out.startswith("b.vbnn: 3 sampled networks, ")
    assert out.endswith("batch norms re-estimated from 30 inputs\n")
    x = torch.from_numpy(np.load("x.npy")).float()
    model = sys.modules["mine"].model()
    model.load_state_dict(torch.load("model.pt"))
    expected = vb.pack(model, 3, refresh_bn=x, generator=torch.Generator().manual_seed(1))
    assert torch.equal(vb.load_packed("b.vbnn")(x), expected(x))


def test_pack_without_samples_takes_the_mode(folder, capsys):
    assert "b.vbnn: the mode as 1 network, " in run(capsys, "pack mine:model model.pt --samples 0 --out b.vbnn")
    assert vb.load_packed("b.vbnn").num_samples == 1


@pytest.mark.parametrize("inputs", ["x.npy", "x.npz", "two.npz --key b"])
def test_predict_writes_probabilities_and_uncertainty(inputs, folder, capsys):
    answer = vb.load_packed("a.vbnn")(torch.from_numpy(np.load("x.npy")).float(), reduce="mean")
    expected = {"class": answer.mean.argmax(1), "probs": answer.mean, "total": answer.total}
    expected |= {"aleatoric": answer.aleatoric, "epistemic": answer.epistemic}
    out = run(capsys, f"predict a.vbnn {inputs} --out p.npz --threads 1")
    assert out.startswith("a.vbnn: 5 networks, 30 inputs, ")
    found = np.load("p.npz")
    assert set(found.files) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values.numpy())
    out = run(capsys, f"predict a.vbnn {inputs} --out p.csv")
    assert out.endswith("p.csv: input, class, total, aleatoric, epistemic, p0, p1, p2\n")
    with open("p.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["input", "class", "total", "aleatoric", "epistemic", "p0", "p1", "p2"]
    for name, values in expected.items():
        if name != "probs":
            np.testing.assert_array_equal(np.float32([row[name] for row in rows]), np.float32(values))
    np.testing.assert_array_equal(np.float32([[row[f"p{c}"] for c in range(3)] for row in rows]), answer.mean)


def test_predict_can_write_what_each_network_says(folder, capsys):
    run(capsys, "predict a.vbnn x.npy --reduce none --out p.npz")
    expected = vb.load_packed("a.vbnn")(torch.from_numpy(np.load("x.npy")).float())
    np.testing.assert_array_equal(np.load("p.npz")["outputs"], expected.numpy())


def test_predict_and_info_know_tokens(folder, capsys):
    nn = torch.nn
    model = vb.binarize(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3)))
    packed, tokens = vb.pack(model, 2), torch.randint(9, (5, 3))
    packed.save("b.vbnn")
    np.save("tokens.npy", tokens.numpy())
    run(capsys, "predict b.vbnn tokens.npy --reduce none --out p.npz")
    np.testing.assert_array_equal(np.load("p.npz")["outputs"], packed(tokens).numpy())
    assert "input      N × …, tokens 0 … 8\n" in run(capsys, "info b.vbnn")


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.float64])
def test_every_token_is_looked_up_by_its_own_number(kind, folder, capsys):
    count = 2**24 + 4  # float32 has no 2**24 + 1
    table = torch.zeros(count, 1)
    table[2**24 :] = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    module = sys.modules["mine"] = types.ModuleType("mine")
    layers = torch.nn.Embedding.from_pretrained(table), torch.nn.Flatten(), torch.nn.Linear(3, 2)
    model = vb.binarize(torch.nn.Sequential(*layers, torch.nn.BatchNorm1d(2)))
    module.model = lambda: model
    tokens = np.random.default_rng(0).integers(2**24, count, (20, 3))
    np.save("tokens.npy", tokens.astype(kind))
    torch.save(model.state_dict(), "large.pt")
    run(capsys, "pack mine:model large.pt --samples 2 --refresh-bn tokens.npy --out b.vbnn")
    run(capsys, "predict b.vbnn tokens.npy --reduce none --out p.npz")
    tokens = torch.from_numpy(tokens)
    expected = vb.pack(model, 2, refresh_bn=tokens, generator=torch.Generator().manual_seed(0))(tokens)
    np.testing.assert_array_equal(np.load("p.npz")["outputs"], expected.numpy())


@pytest.mark.parametrize("kind", ["<f2", ">f8", "g", ">i2", "u2", "u8", "?"])
def test_inputs_may_be_of_any_kind_of_number(kind, folder, capsys):
    x = np.abs(np.load("x.npy") * 3).round().astype(kind)
    np.save("other.npy", x[::-1])
    run(capsys, "predict a.vbnn other.npy --reduce none --out p.npz")
    expected = vb.load_packed("a.vbnn")(torch.from_numpy(x[::-1].astype(np.float32)))
    np.testing.assert_array_equal(np.load("p.npz")["outputs"], expected.numpy())


def test_pack_re_estimates_batch_norms_from_tokens(folder, capsys):
    namespace: dict = {}
    exec(MODEL, namespace)
    model, tokens = namespace["tokens"](), torch.randint(9, (40, 3))
    torch.save(model.state_dict(), "tokens.pt")
    np.save("tokens.npy", tokens.numpy())
    run(capsys, "pack mine:tokens tokens.pt --samples 2 --refresh-bn tokens.npy --out b.vbnn")
    expected = vb.pack(model, 2, refresh_bn=tokens, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vb.load_packed("b.vbnn")(tokens), expected(tokens))


def test_predict_shows_the_first_inputs(folder, capsys):
    lines = run(capsys, "predict a.vbnn x.npy").splitlines()
    assert lines[2].split() == ["input", "class", "probability", "total", "aleatoric", "epistemic"]
    assert [line.split()[0] for line in lines[3:14]] == [*map(str, range(10)), "mean"]
    assert lines[-1] == "uncertainty in nats; 20 inputs more: write all with --out FILE.csv or FILE.npz"
    assert torch.get_num_threads() == 1


def test_info_shows_what_is_in_a_file(folder, capsys):
    out = run(capsys, "info a.vbnn")
    for line in (
        f"written by varbnn {vb.__version__}\n",
        "networks   5\n",
        "input      N × 4\n",
        "weights    56 binary in each network, 1 bit each\n",
        "checksums  5 tensors, all right\n",
        "1     linear  input  4 → 8, scale, shift, relu",
        "2     linear  1      8 → 3, shift",
    ):
        assert line in out


def test_info_shows_every_kind_of_step(folder, capsys):
    from tests.packed.mutations import networks, packed

    for name in networks():
        packed(name)[0].save("b.vbnn")
        out = run(capsys, "info b.vbnn")
        assert "all right" in out
    assert "functional.pad" in out
    assert "LayerNorm" in out


@pytest.mark.parametrize(
    "first, shape, told",
    [
        (nn.Conv2d(3, 4, 3), (2, 3, 5, 5), "N × 3 channels × height × width"),
        (nn.ConvTranspose1d(3, 4, 3), (2, 3, 5), "N × 3 channels × length"),
        (nn.Linear(7, 4), (2, 7), "N × 7"),
        (vb.nn.Scale(7), (2, 7), "N × 7"),
        (nn.Tanh(), (2, 7), "whatever its first step takes"),
    ],
)
def test_info_knows_what_real_layers_take(first, shape, told, folder, capsys):
    binary = {3: vb.nn.BinaryConv1d, 4: vb.nn.BinaryConv2d}.get(len(shape))
    second = vb.nn.BinaryLinear(first(torch.zeros(shape)).shape[1], 2) if binary is None else binary(4, 2, 1)
    packed = vb.pack(nn.Sequential(first, second), 2)
    packed(torch.zeros(shape))
    packed.save("b.vbnn")
    assert f"input      {told}\n" in run(capsys, "info b.vbnn")


def test_info_of_a_damaged_file_says_what_it_should_be_and_fails(folder, capsys):
    assert cli.main(["info", "flipped.vbnn"]) == 2
    captured = capsys.readouterr()
    assert "networks   5\n" in captured.out
    assert captured.err.startswith("varbnn: cannot load flipped.vbnn: the checksum of tensor ")
    assert captured.err.count("\n") == 1


def test_bench_compares_with_float(folder, capsys, monkeypatch):
    monkeypatch.setattr("varbnn.cli.bench.SECONDS", 0.0)
    before = torch.get_rng_state()
    out = run(capsys, "bench --network 33-20-3 --samples 2 --batch 1 5 --threads 1")
    assert "network  33-20-3 with batch norm and ReLU, 2 sampled networks\n" in out
    assert [line.split()[0] for line in out.splitlines()[4:7]] == ["batch", "1", "5"]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("pack mine model.pt --out b", "MODEL must be module:function, for instance models:digits, got 'mine'"),
        ("pack mine.py:model model.pt --out b", "MODEL must be module:function"),
        ("pack .mine:model model.pt --out b", "MODEL must be module:function"),
        ("pack absent:model model.pt --out b", "there is no module absent"),
        ("pack mine.sub:model model.pt --out b", "there is no module mine.sub"),
        ("pack mine:absent model.pt --out b", "mine has no function absent"),
        ("pack mine:value model.pt --out b", "mine has no function value"),
        ("pack mine:word model.pt --out b", "mine:word must return a torch.nn.Module, it returned str"),
        ("pack mine:model absent.pt --out b", "cannot read absent.pt: no such file or directory"),
        ("pack mine:model mine.py --out b", "mine.py is no checkpoint of torch or safetensors"),
        ("pack mine:model x.npy --out b", "x.npy is no checkpoint of torch or safetensors"),
        ("pack mine:model junk.pt --out b", "junk.pt is no checkpoint of torch or safetensors"),
        ("pack mine:model forged.pt --out b", r"forged.pt has the unknown \x1b[31m; is it of another model?"),
        (
            "pack mine:model compiled.pt --out b",
            "compiled.pt has names that begin with _orig_mod., as of torch.compile; save model._orig_mod.state_dict()",
        ),
        (
            "pack mine:model averaged.pt --out b",
            "averaged.pt has names that begin with module., as of DistributedDataParallel or AveragedModel; save",
        ),
        ("pack mine:model both.pt --out b", "begin with _orig_mod.module., as of torch.compile around Distributed"),
        ("pack mine:model real.pt --out b", "real.pt has 0.weight, a real weight; load it in MODEL, before"),
        (
            "pack mine:real model.pt --out b",
            "model.pt has 0.natural, 3.natural, and the model no binary layer; let MODEL return varbnn.binarize(model)",
        ),
        ("pack mine:model list.pt --out b", "list.pt holds a list, expected a state_dict"),
        ("pack mine:model more.safetensors --out b", "more.safetensors has the unknown more; is it of another model?"),
        ("pack mine:model wide.pt --out b", "wide.pt: 3.bias has shape (5,), that of the model has (3,)"),
        ("pack mine:model model.pt --out b --samples -1", "argument --samples: must be at least 0, got -1"),
        ("pack mine:model model.pt --out no/b.vbnn", "cannot write no/b.vbnn: no such file or directory"),
        ("pack mine:model model.pt", "the following arguments are required: --out"),
        ("pack mine:model model.pt --out b --refresh-bn two.npz", "two.npz holds a, b; choose one with --key"),
        ("predict a.vbnn absent.npy", "cannot read absent.npy: no such file or directory"),
        ("predict a.vbnn mine.py", "mine.py is not a readable .npy or .npz file"),
        ("predict a.vbnn objects.npy", "objects.npy is not a readable .npy or .npz file"),
        ("predict a.vbnn words.npy", "words.npy must hold numbers"),
        ("predict a.vbnn x.npz --key z", "x.npz holds x_test, y; 'z' is none of them"),
        ("predict a.vbnn x.npy --key z", "x.npy holds one array without a name; leave --key out"),
        ("predict a.vbnn nan.npy", "the inputs hold NaN or inf"),
        ("predict a.vbnn wide.npy", "these networks take inputs of shape N × 4, got 2 × 5"),
        ("predict a.vbnn x.npy --out p.txt", "--out must end in .npz or .csv, got p.txt"),
        ("predict a.vbnn x.npy --out no/p.csv", "cannot write no/p.csv: no such file or directory"),
        ("predict a.vbnn x.npy --reduce none --out p.csv", "write them with --out FILE.npz"),
        ("predict absent.vbnn x.npy", "cannot read absent.vbnn: no such file or directory"),
        ("predict cut.vbnn x.npy", "cannot load cut.vbnn: its tensors take"),
        ("predict x.npy x.npy", "cannot load x.npy: it is no packed file, or it was cut short: its first 8"),
        ("info cut.vbnn", "it was cut short or extended"),
        ("info absent", "cannot read absent: no such file or directory"),
        ("bench --network 784", "argument --network: must be widths up to 2**20 such as 784-512-10, got '784'"),
        ("bench --network 100000-100000", "32 float networks would take 1280.0 GB, at most 4.3 GB are compared"),
        ("bench --batch 0", "argument --batch: must be at least 1, got 0"),
    ],
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(arguments, message, folder, capsys):
    before = {path.name for path in folder.iterdir()}
    assert cli.main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("varbnn: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == before - {"__pycache__"}


def test_a_damaged_checkpoint_is_one_line_wherever_the_damage_is(folder, capsys):
    model = torch.load("model.pt")
    torch.save(model, "legacy.pt", _use_new_zipfile_serialization=False)
    whole, random = (folder / "legacy.pt").read_bytes(), np.random.default_rng(0)
    seen = set()
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[random.integers(600)] = random.integers(256)
        (folder / "legacy.pt").write_bytes(damaged)
        try:
            torch.load("legacy.pt", weights_only=True)
        except Exception as error:  # noqa: BLE001
            seen.add(type(error))
            assert cli.main(["pack", "mine:model", "legacy.pt", "--out", "b"]) == 2
            assert capsys.readouterr().err.count("\n") == 1
    assert {IndexError, KeyError} & seen


def test_pack_refuses_more_networks_than_can_be_told_apart(folder, capsys):
    assert cli.main(["pack", "mine:model", "model.pt", "--out", "b", "--samples", "1000000000000000"]) == 2
    assert "samples must lie between 0 and 2**32" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(0,), (2,), (2, 5), (0, 5), (2, 0), (2, 2, 2, 2)], ids=str)
@pytest.mark.parametrize(
    "first", [torch.nn.Flatten(), torch.nn.Unflatten(1, (2, 2)), torch.nn.Conv1d(3, 4, 2)], ids=str
)
def test_inputs_of_a_strange_shape_are_one_line(first, shape, folder, capsys):
    vb.pack(vb.binarize(torch.nn.Sequential(first, torch.nn.Flatten(), torch.nn.Linear(4, 3))), 2).save("b.vbnn")
    np.save("strange.npy", np.zeros(shape))
    for reduce in ("--reduce none --out p.npz", "--reduce mean"):
        assert cli.main(f"predict b.vbnn strange.npy {reduce}".split()) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1


def test_a_mistake_in_the_users_own_code_shows_its_traceback(folder):
    (folder / "mine.py").write_text("import no_such_package\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        cli.main(["pack", "mine:model", "model.pt", "--out", "b.vbnn"])


def test_pack_tells_of_statistics_that_fit_no_network(folder, capsys):
    line = ["pack", "mine:model", "model.pt", "--out", "b.vbnn"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.main(line) == 0
        told = capsys.readouterr().err
        assert "varbnn: warning: this model has batch norm" in told
        assert "pass --refresh-bn with training inputs to re-estimate" in told
        assert cli.main([*line, "--refresh-bn", "x.npy"]) == 0
    assert capsys.readouterr().err == ""
