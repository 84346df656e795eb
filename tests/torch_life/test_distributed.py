"""Two ranks on one machine: data parallel, and sharded parameters."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

import varbnn as vb
from tests.torch_life import ranks
from tests.torch_life.networks import bayes, normalised, plain, train_step
from varbnn.optim import VISPA
from varbnn.posteriors import LowRankGaussian

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="needs a torch built with gloo"
)


@pytest.fixture(scope="module")
def both():
    """What the two ranks found, by the name of the work; starting processes takes longer than all of it."""
    return ranks.launch()


def assert_equal_lists(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or {"rtol": 0, "atol": 0}))


def test_data_parallel_ranks_draw_differently_average_their_natural_gradients_and_stay_equal(both):
    first, second = both["data_parallel"]
    assert first["draw"].abs().eq(1).all()
    assert not torch.equal(first["draw"], second["draw"])
    mean = [(a + b) / 2 for a, b in zip(first["own"], second["own"], strict=True)]
    for rank in (first, second):
        assert_equal_lists(rank["averaged"], mean, rtol=1e-5, atol=1e-7)
    assert_equal_lists(first["parameters"], second["parameters"])


def test_data_parallel_keeps_the_buffers_of_the_published_numerics_equal(both):
    first, second = both["data_parallel_published"]
    assert_equal_lists(first["parameters"], second["parameters"])
    assert torch.equal(first["buffer"], second["buffer"])


def test_data_parallel_ranks_average_gradients_that_are_products_with_their_own_noise(both):
    first, second = both["data_parallel_low_rank"]
    assert any(not torch.equal(a, b) for a, b in zip(first["own"], second["own"], strict=True))
    mean = [(a + b) / 2 for a, b in zip(first["own"], second["own"], strict=True)]
    for rank in (first, second):
        assert_equal_lists(rank["averaged"], mean, rtol=1e-5, atol=1e-7)
    assert_equal_lists(first["parameters"], second["parameters"])


def test_location_and_factors_sharded_along_different_axes_keep_their_constraint(both):
    first, second = both["sharded_low_rank"]
    torch.manual_seed(0)
    model = plain(LowRankGaussian(rank=4, scale=1.0, constraint="unit"))
    optimizer = VISPA(model.parameters(), lr=0.5)
    torch.manual_seed(1)
    losses = [train_step(model, optimizer, *ranks.shard_of_the_batch(0)) for _ in range(3)]
    for rank in (first, second):
        assert rank["losses"] == pytest.approx(losses, rel=1e-5)
        assert_equal_lists(rank["parameters"], [p.detach() for p in model.parameters()], rtol=1e-4, atol=1e-5)


def test_sharded_beliefs_are_recognised_and_train_as_on_one_process(both):
    first, second = both["sharded"]
    assert first["kinds"] == ["belief 2", "real 2"]
    torch.manual_seed(0)
    model = plain()
    optimizer = bayes(model)
    torch.manual_seed(1)
    losses = [train_step(model, optimizer, *ranks.shard_of_the_batch(0)) for _ in range(3)]
    for rank in (first, second):
        assert rank["losses"] == pytest.approx(losses, rel=1e-5)
        assert_equal_lists(rank["parameters"], [p.detach() for p in model.parameters()], rtol=1e-4, atol=1e-5)
        assert "NaN or infinite" in rank["refused"], "on both ranks, although one shard is finite"
        assert rank["unchanged"]


def test_fit_health_and_predict_of_sharded_models_are_those_of_one_process(both):
    torch.manual_seed(0)
    model = normalised()
    rows = ranks.run_of_fit(model)
    entropy = vb.health(model, warn=False).layer_entropy_bits
    x, refresh = ranks.shard_of_the_batch(1)[0], ranks.shard_of_the_batch(0)[0]
    probs = vb.predict(model, x, 3, refresh_bn=refresh, generator=torch.Generator().manual_seed(3)).probs
    for rank in both["sharded_fit"]:
        for there, here in zip(rank["rows"], rows, strict=True):
            assert there == pytest.approx(here, rel=1e-5)
        assert_equal_lists(rank["parameters"], [p.detach() for p in model.parameters()], rtol=1e-4, atol=1e-5)
        assert rank["entropy"] == pytest.approx(entropy, rel=1e-5)
        torch.testing.assert_close(rank["probs"], probs, rtol=1e-3, atol=1e-4)


def test_a_sharded_run_goes_on_from_its_files(both):
    for rank in both["sharded_fit"]:
        assert rank["resumed"] == rank["rows"]
        assert_equal_lists(rank["resumed_parameters"], rank["parameters"])


@pytest.mark.parametrize("name", ["freeze", "pack"])
def test_copies_of_sharded_models_are_refused_with_what_to_do(both, name):
    for rank in both["sharded_fit"]:
        assert "spread over ranks by fully_shard" in rank[name]
        assert "full_state_dict=True" in rank[name]


def test_where_one_rank_ends_the_training_all_do(both):
    first, second = both["ended_by_one_rank"]
    assert first["epochs"] == second["epochs"] == 2
    assert_equal_lists(first["parameters"], second["parameters"])


def test_where_one_rank_alone_is_asked_all_end(both):
    assert both["ended_by_the_only_one_asked"] == [{"epochs": 2, "again": 2}] * 2


def test_ranks_that_train_one_model_look_for_one_plateau(both):
    first, second = both["plateau"]
    means = [sum(pair) / 2 for pair in zip(first["val_loss"], second["val_loss"], strict=True)]
    assert first["val_loss"] != second["val_loss"]
    assert first["best"] == second["best"] == pytest.approx(min(means), rel=1e-6)
    assert first["lr"] == second["lr"]
    assert first["best of one"] == second["best of one"] == pytest.approx(min(second["judged"]), rel=1e-6)


def test_sharded_ranks_train_with_their_own_draws(both):
    first, second = both["sharded_with_own_draws"]
    assert first["losses"] != second["losses"]
    assert torch.equal(first["mode"], second["mode"])
