"""A predictor maps its file, answers from several threads, and does not mind what happens to the name of the file."""

from __future__ import annotations

import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from tests.packed.mutations import packed
from varbnn.errors import CheckpointError, InputError, VarbnnWarning


@pytest.fixture
def saved(tmp_path):
    """A path, the ensemble that is saved there, and inputs."""
    ensemble, x = packed("linear", num_samples=3)
    ensemble.save(tmp_path / "a.vbnn")
    return tmp_path / "a.vbnn", ensemble, x


@pytest.mark.parametrize("verify", [True, False])
def test_it_answers_as_the_ensemble_does(saved, verify):
    path, ensemble, x = saved
    predictor = vb.Predictor(path, verify=verify)
    assert predictor.num_samples == 3
    assert torch.equal(predictor(x), ensemble(x))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ">f4"])
def test_it_takes_arrays_of_any_layout(saved, dtype):
    path, ensemble, x = saved
    array = np.asfortranarray(x.numpy().astype(np.float16).astype(dtype))
    array.flags.writeable = False
    assert torch.equal(vb.Predictor(path)(array), ensemble(x.half()))


@pytest.mark.parametrize("inputs", [np.zeros((2, 33), int), np.array([["a"]]), np.array(["2020"], "datetime64[D]")])
def test_an_array_of_other_things_is_refused(saved, inputs):
    with pytest.raises(
        InputError, match=rf"floating inputs.*, got (an array of )?(torch\.)?{re.escape(str(inputs.dtype))}"
    ):
        vb.Predictor(saved[0])(inputs)


def test_after_closing_it_says_so(saved):
    path, _, x = saved
    with vb.Predictor(path) as predictor:
        predictor(x)
        assert repr(predictor) == f"Predictor({str(path)!r}, 3 networks)"
    assert repr(predictor) == f"Predictor({str(path)!r}, closed)"
    with pytest.raises(InputError, match=r"a\.vbnn was closed; open another"):
        predictor(x)
    predictor.close()


def test_several_threads_may_ask_at_once(saved):
    path, ensemble, _ = saved
    inputs = [torch.randn(n, 33) for n in range(1, 30)]
    with vb.Predictor(path) as predictor, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(predictor, inputs * 4))
    for x, answer in zip(inputs * 4, answers, strict=True):
        assert torch.equal(answer, ensemble(x))


@pytest.mark.parametrize("happens", ["replaced", "removed"])
def test_the_file_may_be_replaced_or_removed_meanwhile(saved, happens):
    path, ensemble, x = saved
    predictor = vb.Predictor(path, verify=False)
    if happens == "replaced":
        packed("images")[0].save(path)
    else:
        path.unlink()
    assert torch.equal(predictor(x), ensemble(x))
    if happens == "replaced":
        assert vb.Predictor(path)(torch.randn(2, 2, 4, 6)).shape == (2, 2, 4)


def test_writing_to_mapped_weights_does_not_change_the_file(saved):
    path, _, _ = saved
    before = path.read_bytes()
    predictor = vb.Predictor(path)
    for buffer in predictor.ensemble.buffers():
        buffer.zero_()
    assert path.read_bytes() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_weights_stay_in_pages_that_processes_share(tmp_path):
    model = vb.binarize(nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 10)))
    vb.pack(model, 16).save(tmp_path / "a.vbnn")
    with vb.Predictor(tmp_path / "a.vbnn") as predictor:
        predictor(torch.randn(3, 512), reduce="mean")
        text = Path("/proc/self/smaps").read_text(encoding="utf-8")
        ours = re.search(rf"{re.escape(str(tmp_path / 'a.vbnn'))}\n(.*?)VmFlags", text, re.DOTALL)
        pages = {name: int(size) for name, size in re.findall(r"(\w+): +(\d+) kB", ours.group(1))}
    assert pages["Size"] * 1024 >= (tmp_path / "a.vbnn").stat().st_size
    assert pages["Private_Dirty"] == 0


def test_what_is_no_packed_file_is_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        vb.Predictor(tmp_path / "missing")
    path = saved[0]
    shutil.copy(path, tmp_path / "b.vbnn")
    with open(tmp_path / "b.vbnn", "r+b") as file:
        file.truncate(path.stat().st_size - 4)
    with pytest.raises(CheckpointError, match="it was cut short or extended"):
        vb.Predictor(tmp_path / "b.vbnn", verify=False)


def test_the_average_is_that_of_the_ensemble(tmp_path):
    x = torch.randn(20, 6)
    ensemble = vb.pack(vb.binarize(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))), 4)
    ensemble.save(tmp_path / "c.vbnn")
    found, expected = vb.Predictor(tmp_path / "c.vbnn")(x, reduce="mean"), ensemble(x, reduce="mean")
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.aleatoric, expected.aleatoric)


def test_one_output_is_no_class(tmp_path):
    ensemble = vb.pack(vb.binarize(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))), 4)
    ensemble.save(tmp_path / "r.vbnn")
    for answer in (ensemble, vb.Predictor(tmp_path / "r.vbnn")):
        assert answer(torch.randn(5, 6)).shape == (4, 5, 1)
        with pytest.raises(InputError, match="at least 2 classes"):
            answer(torch.randn(5, 6), reduce="mean")


def test_sure_networks_have_no_uncertainty_and_not_minus_that():
    layer = vb.binarize(nn.Linear(4, 2, bias=False), vb.posteriors.Point())
    answer = vb.pack(nn.Sequential(layer, vb.nn.Scale(2, initial=1e4)), 0)(100 * torch.ones(3, 4), reduce="mean")
    assert not torch.signbit(answer.total).any()
    assert not torch.signbit(answer.aleatoric).any()


@pytest.mark.parametrize("outputs", [1, 3])
def test_learned_noise_can_be_packed_and_saved(outputs, tmp_path):
    body = vb.binarize(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs)))
    model, x = nn.Sequential(body, vb.nn.LearnedNoise(outputs, initial=0.3)), torch.randn(10, 6)
    ensemble = vb.pack(model, 3)
    ensemble.save(tmp_path / "n.vbnn")
    answer = vb.Predictor(tmp_path / "n.vbnn")(x)
    assert answer.shape == (3, 10, 2 * outputs)
    torch.testing.assert_close(answer, ensemble(x))
    for s in range(3):
        torch.testing.assert_close(answer[s], ensemble.member(s)(x))
    torch.testing.assert_close(answer[..., outputs:].exp(), torch.full((3, 10, outputs), 0.3))


def test_statistics_that_fit_no_network_are_warned_of(recwarn):
    model, x = vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))), torch.randn(50, 4)
    vb.pack(model, 2, refresh_bn=x)
    with pytest.warns(VarbnnWarning, match="pass refresh_bn=training inputs"):
        vb.pack(model, 2)
    assert not recwarn.list


def test_learned_noise_of_another_width_is_noticed():
    body = vb.binarize(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    ensemble = vb.pack(nn.Sequential(body, vb.nn.LearnedNoise(1)), 3)
    with pytest.raises(InputError):
        ensemble(torch.randn(10, 6))
