"""One rule for counts and numbers, wherever a user gives one."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn import active, continual, data
from varbnn.checks import finite_number, whole_number
from varbnn.data.corruptions import KINDS
from varbnn.errors import InputError
from varbnn.nn.batchnorm import as_data


@pytest.mark.parametrize(
    "given", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)]
)
def test_integers_of_all_libraries_are_whole_numbers(given):
    result = whole_number("count", given, most=3)
    assert result == 3
    assert type(result) is int


@pytest.mark.parametrize(
    "given", [True, np.True_, torch.tensor(True), 3.0, np.float64(3), torch.tensor(3.0), "3", None, 0, 4, [3]]
)
def test_all_else_is_no_whole_number(given):
    with pytest.raises(InputError, match=r"^count must be a whole number from 1 to 3, got "):
        whole_number("count", given, most=3)


@pytest.mark.parametrize("given", [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0), 10**300])
def test_real_numbers_of_all_libraries_are_finite_numbers(given):
    result = finite_number("width", given, above=0)
    assert result == float(given)
    assert type(result) is float


@pytest.mark.parametrize(
    "given", [True, np.False_, torch.tensor(True), 0, -1.0, math.nan, math.inf, 10**400, "2", None, 1j, torch.ones(2)]
)
def test_all_else_is_no_finite_number_above_0(given):
    with pytest.raises(InputError, match=r"^width must be a finite number > 0, got "):
        finite_number("width", given, above=0)


REAL = nn.Linear(2, 2)
TAKES_A_COUNT = {
    "fit": lambda n: vb.fit(REAL, torch.optim.SGD(REAL.parameters()), [], epochs=n),
    "predict": lambda n: vb.predict(REAL, torch.zeros(1, 2), 0, batch_size=n),
    "pack": lambda n: vb.pack(vb.binarize(nn.Linear(2, 2)), num_samples=n),
    "low rank": lambda n: vb.posteriors.LowRankGaussian(rank=n),
    "pool": lambda n: active.Pool(n, 1),
    "coreset": lambda n: continual.Coreset(n),
    "curve": lambda n: vb.optim.Linear(1.0, 0.0, n),
    "noise": lambda n: vb.nn.LearnedNoise(n),
}


@pytest.mark.parametrize("takes", TAKES_A_COUNT.values(), ids=TAKES_A_COUNT)
@pytest.mark.parametrize("given", [True, np.True_, 3.0, np.float64(3), "3", -1])
def test_no_bool_and_no_float_is_a_count_anywhere(takes, given):
    with pytest.raises(InputError, match="must be a whole number ≥ "):
        takes(given)


@pytest.mark.parametrize("count", [np.int32(2), torch.tensor(2)])
def test_counts_of_numpy_and_torch_mean_what_plain_ones_mean(count):
    model = vb.binarize(nn.Linear(3, 2))
    assert vb.pack(model, num_samples=count).num_samples == 2
    assert vb.predict(model, torch.zeros(3, 3), count, batch_size=count).num_samples == 2
    assert vb.optim.Linear(0.0, 1.0, count)(1) == 0.5
    assert vb.nn.LearnedNoise(count).variance.shape == (2,)
    posterior = vb.posteriors.LowRankGaussian(rank=count)
    assert type(posterior.rank) is int  # it is written into files
    assert type(continual.EvaluationPlan(num_samples=count).num_samples) is int


@pytest.mark.parametrize(
    "ask", [lambda m, g: vb.pack(m, 3, generator=g), lambda m, g: vb.freeze(m, "sample", generator=g)]
)
def test_a_seed_is_no_generator(ask):
    model = vb.binarize(nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"generator must be a torch.Generator or None, got 0; a seed makes one"):
        ask(model, 0)
    with pytest.raises(InputError, match="generator must be"), vb.sampled(model, 0):
        pass


@pytest.mark.parametrize(
    "ask",
    [
        lambda seed: data.batches(torch.ones(3, 2), torch.ones(3), 2, seed),
        lambda seed: data.batches(torch.ones(3, 2), torch.ones(3), 2, seed, shuffle=False),
        *(
            lambda seed, kind=kind: data.corruptions.corrupt(torch.zeros(2, 8, 8), kind, 1, generator=seed)
            for kind in KINDS
        ),
        lambda seed: data.corruptions.noise(torch.zeros(2, 8, 8), 1, generator=seed),
        lambda seed: active.Pool(4, 2, seed),
        lambda seed: active.Pool(4, [1, 2], seed),
        lambda seed: active.StreamQuery(budget=0.1, generator=seed),
        lambda seed: active.random(vb.Prediction(torch.full((1, 3, 2), 0.5)), seed),
        lambda seed: active.drawn(torch.ones(3), 2, 1.0, seed),
        lambda seed: continual.k_center(torch.ones(3, 2), 2, seed),
    ],
)
def test_a_seed_is_no_generator_where_data_are_drawn_or_chosen(ask):
    ask(None)
    ask(torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"generator must be a torch.Generator or None, got 0; a seed makes one"):
        ask(0)


@pytest.mark.parametrize("given", ["nonsense", 3.5, "xla:0", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(given):
    model = vb.binarize(nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"device must be one that torch can use here, such as .*, got "):
        vb.predict(model, torch.ones(4, 3), 2, device=given)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.filterwarnings("error")
def test_a_memory_map_of_inputs_is_shared(tmp_path, mode):
    np.save(tmp_path / "x.npy", np.arange(6.0, dtype=np.float32).reshape(3, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    for array in (mapped, np.asarray(mapped)):
        assert as_data(array, "x", nn.Linear(2, 2)).data_ptr() == mapped.ctypes.data
    assert as_data(mapped[1:], "x", nn.Linear(2, 2)).tolist() == [[2, 3], [4, 5]]


def test_what_is_handed_out_shares_no_memory_that_is_read_only(tmp_path):
    np.save(tmp_path / "probs.npy", np.full((2, 3, 2), 0.5))
    prediction = vb.Prediction(np.load(tmp_path / "probs.npy", mmap_mode="r"))
    prediction.numpy()[0, 0] = 0.25  # ended the program
    assert prediction.probs[0, 0].tolist() == [0.25, 0.25]


def test_arrays_that_torch_shares_leave_the_filters_of_warnings_alone(monkeypatch):
    """They are of the process: threads would put back each other's, and what was shown once would be shown again."""
    monkeypatch.setattr(warnings, "catch_warnings", None)
    assert as_data(np.ones((3, 2), dtype=np.float32), "x", nn.Linear(2, 2)).shape == (3, 2)
