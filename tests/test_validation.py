"""Data that is not trained on, and who looks after every epoch: what is seen, what is left alone, who ends it."""

from __future__ import annotations

import copy
import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import varbnn as vb
from varbnn import data
from varbnn.errors import InputError

X, Y = torch.randn(96, 4, generator=torch.Generator().manual_seed(0)), torch.arange(96) % 3
NEW_X, NEW_Y = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)), torch.arange(50) % 3

pytestmark = pytest.mark.filterwarnings("ignore::varbnn.errors.VarbnnWarning")  # these runs are too short to learn


def network(posterior=None) -> nn.Module:
    layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    return vb.binarize(layers, posterior)


def run(epochs=3, posterior=None, loader=None, **options):
    torch.manual_seed(0)
    model = network(posterior)
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=96, temperature=0.1)
    loader = loader or data.batches(X, Y, 16, torch.Generator().manual_seed(1))
    history = vb.fit(model, optimizer, loader, epochs=epochs, progress=False, **options)
    return model, [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def without_validation(history):
    return [{key: value for key, value in row.items() if not key.startswith("val_")} for row in history]


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def shuffled(x, y, generator=None):
    return DataLoader(TensorDataset(x, y), batch_size=20, shuffle=True, generator=generator)


class TestNothingOfTheTrainingIsDisturbed:
    @pytest.mark.parametrize("options", [{}, dict(num_samples=2, antithetic=True)], ids=["plain", "antithetic"])
    @pytest.mark.parametrize(
        "posterior", [vb.posteriors.Bernoulli(), vb.posteriors.Bernoulli("concrete", numerics="reference")], ids=repr
    )
    def test_the_same_weights_statistics_and_rows_as_without(self, posterior, options):
        plain, expected = run(posterior=posterior, **options)
        torch.manual_seed(5)
        judged, rows = run(posterior=posterior, validation=[(NEW_X, NEW_Y)], **options)
        assert_same_state(plain, judged)
        assert without_validation(rows) == expected
        assert all({"val_loss", "val_accuracy"} <= set(row) for row in rows)
        assert [module.training for module in judged.modules()] == [module.training for module in plain.modules()]

    def test_nor_by_loaders_that_draw_their_order_from_the_same_generators(self):
        plain, expected = run(loader=shuffled(X, Y))
        judged, rows = run(loader=shuffled(X, Y), validation=shuffled(NEW_X, NEW_Y))
        assert_same_state(plain, judged)
        assert without_validation(rows) == expected
        own, shared = (torch.Generator().manual_seed(3) for _ in range(2))
        plain, _ = run(loader=shuffled(X, Y, own))
        judged, _ = run(loader=shuffled(X, Y, shared), validation=shuffled(NEW_X, NEW_Y, shared))
        assert_same_state(plain, judged)

    def test_nor_by_data_that_draw_from_numpy_and_python(self):
        class Noisy:
            def __init__(self, x, y):
                self.x, self.y = x, y

            def __iter__(self):
                yield self.x + np.random.normal() + random.random(), self.y  # noqa: NPY002 - those are meant

        ended = []
        for options in ({}, dict(validation=Noisy(NEW_X, NEW_Y))):
            np.random.seed(0)  # noqa: NPY002
            random.seed(0)
            ended.append(run(loader=Noisy(X, Y), **options)[0])
        assert_same_state(*ended)

    def test_nor_where_the_loss_fails(self):
        def fails(output, y):
            if not torch.is_grad_enabled():
                raise RuntimeError("on purpose")
            return F.cross_entropy(output, y)

        model = network()
        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=96)
        loader = data.batches(X, Y, 16, torch.Generator().manual_seed(1))
        with pytest.raises(RuntimeError, match="on purpose"):
            vb.fit(model, optimizer, loader, epochs=1, loss=fails, validation=[(NEW_X, NEW_Y)], progress=False)
        assert all(module.training for module in model.modules())
        assert int(model[1].num_batches_tracked) == 6


class TestWhatIsMeasured:
    def test_it_is_the_mode_with_statistics_of_its_own(self):
        found = []

        @torch.no_grad()
        def look(history):
            twin = copy.deepcopy(model).eval()
            vb.refresh_batchnorm(twin, X)
            found.append(float(F.cross_entropy(twin(NEW_X), NEW_Y)))
            found.append(float((twin(NEW_X).argmax(1) == NEW_Y).float().mean()))

        torch.manual_seed(0)
        model = network()
        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=96, temperature=0.1)
        uneven = [(NEW_X[:7], NEW_Y[:7]), (NEW_X[7:], NEW_Y[7:])]
        batches = [(X[:48], Y[:48]), (X[48:], Y[48:])]
        rows = vb.fit(model, optimizer, batches, epochs=2, validation=uneven, after_epoch=look, progress=False)
        seen = [value for row in rows for value in (row["val_loss"], row["val_accuracy"])]
        assert seen == pytest.approx(found, rel=1e-5)

    def test_a_loader_may_fill_the_same_memory_again(self):
        class Reusing:
            def __iter__(self):
                x = torch.empty(32, 4)
                for start in (0, 32, 64):
                    yield x.copy_(X[start : start + 32]), Y[start : start + 32]

        fresh = [(X[start : start + 32], Y[start : start + 32]) for start in (0, 32, 64)]
        assert (
            run(loader=Reusing(), validation=[(NEW_X, NEW_Y)])[1] == run(loader=fresh, validation=[(NEW_X, NEW_Y)])[1]
        )

    @pytest.mark.parametrize("all_of_them", [True, False])
    def test_frozen_batch_norms_keep_the_statistics_they_have(self, all_of_them):
        class Frozen(nn.Sequential):
            def train(self, mode=True):
                return super().train(False)

        torch.manual_seed(0)
        own = nn.BatchNorm1d(4)
        own.running_mean += 0.5
        own.running_var *= 3
        learning = [] if all_of_them else [nn.BatchNorm1d(8)]
        model = vb.binarize(nn.Sequential(Frozen(own), nn.Linear(4, 8), *learning, nn.ReLU(), nn.Linear(8, 3)))
        found = []

        @torch.no_grad()
        def look(history):
            twin = copy.deepcopy(model)
            if not all_of_them:
                normed = twin[1].eval()(twin[0](X))
                twin[2].running_mean, twin[2].running_var = normed.mean(0), normed.var(0)
            found.append(float(F.cross_entropy(twin.eval()(NEW_X), NEW_Y)))

        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=96, temperature=0.1)
        new = [(NEW_X, NEW_Y)]
        rows = vb.fit(model, optimizer, [(X, Y)], epochs=2, validation=new, after_epoch=look, progress=False)
        assert [row["val_loss"] for row in rows] == pytest.approx(found, rel=1e-5)
        assert own.running_mean.tolist() == [0.5] * 4

    def test_about_a_thousand_inputs_are_enough_for_the_statistics(self):
        passes = []
        model = network()
        model.register_forward_pre_hook(lambda module, args: None if module.training else passes.append(len(args[0])))
        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=96)
        batches = [(torch.randn(400, 4), torch.arange(400) % 3)] * 5
        vb.fit(model, optimizer, batches, epochs=1, validation=[(NEW_X, NEW_Y)], progress=False)
        assert passes == [400, 400, 400, 50]

    def test_a_real_network_keeps_its_running_statistics_as_in_torch(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        adam = torch.optim.Adam(model.parameters())
        (row,) = vb.fit(model, adam, [(X, Y)], epochs=1, validation=[(NEW_X, NEW_Y)], progress=False)
        assert row["val_loss"] == pytest.approx(F.cross_entropy(model.eval()(NEW_X), NEW_Y).item(), rel=1e-6)

    def test_real_targets_have_no_accuracy(self):
        model = vb.binarize(nn.Linear(4, 1))
        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=96)
        new = [(NEW_X, NEW_X[:, :1])]
        batches = [(X, X[:, :1])]
        (row,) = vb.fit(model, optimizer, batches, epochs=1, loss=F.mse_loss, validation=new, progress=False)
        assert "val_loss" in row
        assert "val_accuracy" not in row

    def test_a_resumed_run_judges_as_the_uninterrupted_one(self, tmp_path):
        options = dict(validation=[(NEW_X, NEW_Y)])
        whole, expected = run(4, **options)
        run(2, checkpoint=tmp_path / "run.pt", **options)
        resumed, rows = run(4, checkpoint=tmp_path / "run.pt", **options)
        assert_same_state(whole, resumed)
        assert rows == expected


class TestWhoEndsIt:
    def test_true_ends_the_training_after_the_epoch_that_was_seen(self):
        seen = []

        def third(history):
            seen.append(len(history))
            return len(history) == 3

        ended, rows = run(10, after_epoch=third)
        whole, expected = run(3)
        assert seen == [1, 2, 3]
        assert rows == expected
        assert_same_state(ended, whole)

    def test_a_run_that_was_ended_is_over_until_it_is_asked_to_go_on(self, tmp_path):
        asked = []

        def at_once(history):
            asked.append(len(history))
            return True

        path = tmp_path / "run.pt"
        ended, rows = run(4, checkpoint=path, after_epoch=at_once)
        before = path.read_bytes()
        again, same = run(4, checkpoint=path, after_epoch=at_once)
        assert (len(rows), same, asked) == (1, rows, [1])
        assert_same_state(again, ended)
        assert path.read_bytes() == before
        whole, expected = run(4)
        on, rows = run(4, checkpoint=path)
        assert rows == expected
        assert_same_state(on, whole)
        assert len(run(6, checkpoint=path, after_epoch=lambda history: False)[1]) == 6  # which was not ended

    def test_a_run_that_was_killed_and_not_ended_goes_on(self, tmp_path):
        def patient(history):
            if len(history) == 2 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                raise KeyboardInterrupt
            return len(history) == 3

        path = tmp_path / "run.pt"
        with pytest.raises(KeyboardInterrupt):
            run(9, checkpoint=path, after_epoch=patient)
        resumed, rows = run(9, checkpoint=path, after_epoch=patient)
        whole, expected = run(3)
        assert rows == expected
        assert_same_state(resumed, whole)

    def test_patience_in_three_lines_ends_where_the_numbers_say(self):
        losses = iter([3.0, 2.0, 2.5, 1.0, 1.5, 1.25, 1.0])

        def patient(history):
            history[-1]["nll"] = next(losses)
            values = [row["nll"] for row in history]
            return len(values) - values.index(min(values)) > 2

        _, rows = run(20, after_epoch=patient)
        assert [row["nll"] for row in rows] == [3.0, 2.0, 2.5, 1.0, 1.5, 1.25]

    def test_what_is_written_into_a_row_is_kept_also_in_the_file(self, tmp_path):
        def written(history):
            history[-1]["own"] = np.float64(0.5) * len(history)
            history[-1]["tensor"] = torch.tensor(2)

        run(1, checkpoint=tmp_path / "run.pt", after_epoch=written)
        _, rows = run(2, checkpoint=tmp_path / "run.pt", after_epoch=written)
        assert [(row["own"], row["tensor"]) for row in rows] == [(0.5, 2.0), (1.0, 2.0)]
        assert all(type(value) in (int, float) for row in rows for value in row.values())

    def test_what_is_written_into_earlier_rows_is_kept_too(self, tmp_path):
        def written(history):
            history[0]["own"] = np.float64(len(history))

        run(2, checkpoint=tmp_path / "run.pt", after_epoch=written)
        assert run(2, checkpoint=tmp_path / "run.pt")[1][0]["own"] == 2.0

    @pytest.mark.parametrize("answer", [0.3, "stop", {"loss": 1.0}, np.ones(2) > 0, torch.ones(2) > 0])
    def test_an_answer_that_is_neither_yes_nor_no_is_refused(self, answer):
        with pytest.raises(InputError, match="after_epoch must return True to end the training"):
            run(after_epoch=lambda history: answer)

    @pytest.mark.parametrize("value", ["good", "0.5", b"1", None, np.ones(2), torch.ones(2)])
    def test_what_is_no_number_is_refused_by_name(self, value):
        with pytest.raises(InputError, match=r"after_epoch wrote .* into the row as 'own'"):
            run(after_epoch=lambda history: history[-1].update(own=value))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(validation=iter([(X, Y)])), "gone through in every epoch.*got a list_iterator"),
        (dict(validation=3), "validation must be a loader.*got a int"),
        (dict(validation=(X, Y)), r"first batch of validation must be a pair .* got Tensor; give \[\(x, y\)\]"),
        (dict(validation=X), r"got Tensor; give \[\(x, y\)\]"),
        (dict(validation=[X]), r"got Tensor; give \[\(x, y\)\]"),
        (dict(validation=X.numpy()), r"got ndarray; give \[\(x, y\)\]"),
        (dict(validation=[]), r"got nothing; give \[\(x, y\)\]"),
        (dict(after_epoch=3), "after_epoch must be a function of the history, got a int"),
        (dict(loss=None), "loss must be a function of outputs and targets, got None"),
        (dict(loader=None), r"loader must yield \(inputs, targets\).*got a NoneType"),
        (dict(scheduler="cosine"), "scheduler must be one of torch's.*got 'cosine'"),
        (dict(optimizer=torch.optim.LBFGS), "LBFGS asks for the loss several times a step"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_trained(options, message):
    model = network()
    before = copy.deepcopy(model)
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=96)
    own = {"loader": [(X, Y)], "optimizer": optimizer, **options}
    own["optimizer"] = own["optimizer"](model.parameters()) if "optimizer" in options else optimizer
    with pytest.raises(InputError, match=message):
        vb.fit(model, epochs=1, progress=False, **own)
    assert_same_state(model, before)


@pytest.mark.parametrize(
    "batches, message",
    [
        (DataLoader([]), "the validation loader yielded no batch"),
        (DataLoader(X), r"the validation loader must yield \(inputs, targets\).*got Tensor"),
        ([(X * math.nan, Y)], "a batch of the validation loader's inputs has NaN"),
        (
            [(X, Y), (X, torch.full_like(Y, -100))],
            "the loss of a batch of the validation loader is nan.*all of its targets",
        ),
    ],
)
def test_validation_data_are_checked_as_training_data_are(batches, message):
    with pytest.raises(InputError, match=message):
        run(validation=batches)


def test_fit_and_health_count_flips_each_from_its_own_last_look():
    _, expected = run(3)
    torch.manual_seed(0)
    model = network()
    modes, told = [], []

    def look(history=None):
        modes.append(torch.cat([layer.posterior.mode(*layer.belief).flatten() for layer in (model[0], model[4])]))
        told.append(vb.health(model, warn=False).flips)

    class Watched:
        """Somebody asks for the model's health in the middle of an epoch."""

        def __init__(self):
            self.batches = data.batches(X, Y, 16, torch.Generator().manual_seed(1))

        def __iter__(self):
            for number, batch in enumerate(self.batches):
                if number == 3:
                    look()
                yield batch

    look()
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=96, temperature=0.1)
    rows = vb.fit(model, optimizer, Watched(), epochs=3, after_epoch=look, progress=False)
    assert [row["flips"] for row in rows] == [row["flips"] for row in expected]
    assert told == [None, *(int((one != other).sum()) for one, other in pairwise(modes))]
