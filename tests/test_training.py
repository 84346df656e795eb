"""The loop: what it refuses, what it leaves behind, and that a resumed run is the same run."""

from __future__ import annotations

import copy
import io
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, Subset, TensorDataset

import varbnn as vb
from varbnn import data, saving
from varbnn.errors import CheckpointError, InputError, VarbnnWarning

X, Y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3

pytestmark = pytest.mark.filterwarnings("ignore::varbnn.errors.VarbnnWarning")  # these runs are too short to learn


class FullDisk(io.BytesIO):
    """Takes 1000 bytes."""

    def write(self, content) -> int:
        if self.tell() + len(content) > 1000:
            raise OSError(28, "No space left on device")
        return super().write(content)


def test_a_full_disk_is_called_so_when_torchs_writer_calls_it_a_wrong_position(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "replacing", lambda path: FullDisk())
    with pytest.raises(CheckpointError, match=r"written \(\[Errno 28\] No space left on device\); nothing was written"):
        saving.save(tmp_path / "x.pt", {"x": torch.zeros(5000)})


def network() -> nn.Module:
    return vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))


def run(epochs, checkpoint=None, rule=None, **options):
    torch.manual_seed(0)
    model = network()
    optimizer = (rule or bayes)(model)
    loader = data.batches(X, Y, 16, torch.Generator().manual_seed(1))
    history = vb.fit(model, optimizer, loader, epochs=epochs, checkpoint=checkpoint, progress=False, **options)
    return model, [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def bayes(model: nn.Module) -> torch.optim.Optimizer:
    return vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=64, temperature=0.1)


def assert_same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("options", [{}, dict(num_samples=2, antithetic=True)], ids=["plain", "antithetic"])
def test_a_resumed_run_ends_bit_for_bit_as_the_uninterrupted_one_flips_included(tmp_path, options):
    whole, expected = run(4, **options)
    run(2, tmp_path / "run.pt", **options)
    resumed, history = run(4, tmp_path / "run.pt", **options)
    assert_same_state(whole.state_dict(), resumed.state_dict())
    assert history == expected


def test_a_checkpoint_of_another_optimizer_loads_nothing(tmp_path):
    run(1, tmp_path / "run.pt")
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(CheckpointError, match="begun with optimizer='BayesBiNN', the optimizer given has 'Adam'"):
        vb.fit(model, adam, [(X, Y)], epochs=2, checkpoint=tmp_path / "run.pt", progress=False)
    assert_same_state(model.state_dict(), before)
    assert not adam.state


def test_nan_inputs_are_refused_before_they_reach_the_batch_norm_statistics():
    model, bad = network(), X.clone()
    bad[3, 1] = math.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="inputs has NaN"):
        vb.fit(model, bayes(model), [(bad, Y)], epochs=1, progress=False)
    assert_same_state(model.state_dict(), before)


@pytest.mark.parametrize("batch", [{"x": X, "y": Y}, X, (X, Y, Y), (X, 1)], ids=["dict", "tensor", "triple", "int"])
def test_a_loader_that_yields_no_pairs_is_refused(batch):
    model = network()
    with pytest.raises(InputError, match=r"must yield \(inputs, targets\)"):
        vb.fit(model, bayes(model), [batch], epochs=1, progress=False)


def test_a_loader_that_yields_nothing_is_refused():
    model = network()
    with pytest.raises(InputError, match="yielded no batch"):
        vb.fit(model, bayes(model), [], epochs=1, progress=False)


@pytest.mark.parametrize("cut", [lambda data: data, lambda data: Subset(data, range(32))], ids=["whole", "subset"])
def test_a_dataset_of_single_examples_is_refused_before_anything_changes(cut):
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"loader must yield batches, got a (TensorDataset|Subset).*DataLoader\(data"):
        vb.fit(model, bayes(model), cut(TensorDataset(X, Y)), epochs=1, progress=False)
    assert_same_state(model.state_dict(), before)


@pytest.mark.parametrize("base", [IterableDataset, Dataset])
def test_a_dataset_that_yields_ready_batches_is_a_loader(base):
    class Ready(base):
        def __iter__(self):
            return zip(X.split(16), Y.split(16), strict=True)

    def trained(loader):
        torch.manual_seed(0)
        model = network()
        vb.fit(model, bayes(model), loader, epochs=1, progress=False)
        return model.state_dict()

    assert_same_state(trained(Ready()), trained(list(Ready())))


@pytest.mark.filterwarnings("default::varbnn.errors.VarbnnWarning")
@pytest.mark.parametrize("rule", [True, False])
def test_what_optimizers_of_torch_lack_is_told_to_their_users_only(rule):
    model = vb.binarize(nn.Linear(4, 3), vb.posteriors.Bernoulli(init_scale=0.0))
    optimizer = bayes(model) if rule else torch.optim.SGD(model.parameters())
    for group in optimizer.param_groups:
        group["lr"] = 1e-9
    with pytest.warns(VarbnnWarning, match="hardly left the prior") as caught:
        vb.fit(model, optimizer, [(X, Y)], epochs=1, progress=False)
    assert ["an optimizer of torch has no temperature" in str(w.message) for w in caught] == [not rule]


def test_a_layer_used_twice_in_a_model_built_by_hand_draws_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = vb.nn.BinaryLinear(4, 4)
            self.seen = []

        def forward(self, x):
            self.seen.append(self.inner.weight.detach().clone())
            x = self.inner(x)
            self.seen.append(self.inner.weight.detach().clone())
            return self.inner(x)

    model = Twice()
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
    vb.fit(model, optimizer, [(torch.randn(8, 4), torch.arange(8) % 4)] * 2, epochs=1, progress=False)
    first, again, second, _ = model.seen
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("posterior", [vb.posteriors.Bernoulli(), vb.posteriors.Bernoulli("moments")], ids=repr)
def test_antithetic_draws_are_the_loop_one_would_write(posterior):
    def start():
        torch.manual_seed(3)
        model = vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), posterior)
        return model, bayes(model), data.batches(X, Y, 16, torch.Generator().manual_seed(1))

    fitted, optimizer, loader = start()
    vb.fit(fitted, optimizer, loader, epochs=2, num_samples=2, antithetic=True, progress=False)
    model, optimizer, loader = start()
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            with vb.antithetic(model):
                for _ in range(2):
                    (nn.functional.cross_entropy(model(x), y) / 2).backward()
            optimizer.step()
    assert_same_state(fitted.state_dict(), model.state_dict())
    independent, optimizer, loader = start()
    vb.fit(independent, optimizer, loader, epochs=2, num_samples=2, progress=False)
    assert not torch.equal(independent[0].natural, fitted[0].natural)


@pytest.mark.parametrize("number", [1, 3])
def test_an_odd_number_of_antithetic_draws_is_refused(number):
    model = network()
    with pytest.raises(InputError, match="num_samples must be even"):
        vb.fit(model, bayes(model), [(X, Y)], epochs=1, num_samples=number, antithetic=True, progress=False)


def test_step_flips_are_the_modes_that_the_first_step_of_an_epoch_turns():
    class Pull(torch.optim.Optimizer):
        """Takes `steps[t]` from every belief in its step t."""

        def __init__(self, params, steps):
            super().__init__(params, {"lr": 1.0})
            self.steps = iter(steps)

        def step(self):
            change = next(self.steps)
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p -= change

    model = vb.binarize(nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False)))
    with torch.no_grad():
        model[0].natural.copy_(torch.tensor([[0.5, 1.5, 2.5, -0.5], [0.0, 0.9, 1.0, 9.0]]))
        model[1].natural.copy_(torch.tensor([[-1.0, 0.1], [3.0, 1.1]]))
    batch = (torch.randn(5, 4), torch.arange(5) % 2)
    # by 1: 0.5, 0.0, 0.9 and 0.1 turn, 1.0 becomes 0, which is +1; then in the same epoch by 1 more, not counted here
    optimizer = Pull(model.parameters(), steps=[1.0, 1.0, -2.0, 0.0, 0.0, 100.0])
    history = vb.fit(model, optimizer, [batch, batch], epochs=3, progress=False)
    # the second epoch starts by going back by 2: all that turned in the first
    assert [row["step_flips"] for row in history] == [4.0, 7.0, 0.0]
    assert [row["flips"] for row in history] == [7.0, 7.0, 10.0]


def test_a_real_model_has_no_step_flips():
    model = nn.Linear(4, 3)
    (row,) = vb.fit(model, torch.optim.SGD(model.parameters(), lr=0.1), [(X, Y)], epochs=1, progress=False)
    assert not {"flips", "step_flips"} & set(row)


def test_a_loader_with_a_batch_sampler_resumes_bit_for_bit(tmp_path):
    def run(epochs, checkpoint=None):
        torch.manual_seed(0)
        sampler = RandomSampler(X, generator=torch.Generator().manual_seed(1))
        loader = DataLoader(TensorDataset(X, Y), batch_sampler=BatchSampler(sampler, 16, drop_last=False))
        model = network()
        vb.fit(model, bayes(model), loader, epochs=epochs, checkpoint=checkpoint, progress=False)
        return model

    whole = run(4)
    run(2, tmp_path / "run.pt")
    assert_same_state(whole.state_dict(), run(4, tmp_path / "run.pt").state_dict())


class TestTheOptimizerBelongsToTheModel:
    def test_one_from_before_binarize_is_refused(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        adam = torch.optim.Adam(model.parameters())
        vb.binarize(model)
        with pytest.raises(InputError, match=r"Adam holds none of the model's 2 beliefs.*after varbnn.binarize"):
            vb.fit(model, adam, [(X, Y)], epochs=1, progress=False)

    def test_one_of_another_model_is_refused(self):
        with pytest.raises(InputError, match="BayesBiNN holds none of the model's 2 beliefs"):
            vb.fit(network(), bayes(network()), [(X, Y)], epochs=1, progress=False)

    def test_one_of_another_real_model_is_refused(self):
        with pytest.raises(InputError, match="SGD holds none of the model's parameters"):
            vb.fit(nn.Linear(4, 3), torch.optim.SGD(nn.Linear(4, 3).parameters()), [(X, Y)], epochs=1, progress=False)

    def test_arguments_in_the_other_order_are_refused(self):
        model = network()
        with pytest.raises(InputError, match="a model and an optimizer, in this order, got BayesBiNN and Sequential"):
            vb.fit(bayes(model), model, [(X, Y)], epochs=1, progress=False)

    def test_beliefs_that_are_left_out_earn_a_warning_and_frozen_ones_none(self):
        model = network()
        half = vb.optim.BayesBiNN(model[0].parameters(), lr=0.1, dataset_size=64)
        with pytest.warns(VarbnnWarning, match="does not hold 1 of the model's 2 beliefs"):
            vb.fit(model, half, [(X, Y)], epochs=1, progress=False)
        model[3].natural.requires_grad_(False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vb.fit(model, half, [(X, Y)], epochs=1, progress=False)
        assert not [w for w in caught if "does not hold" in str(w.message)]


def test_a_run_goes_on_with_the_settings_it_began_with(tmp_path):
    run(2, tmp_path / "run.pt")

    def warmer(model):
        return vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=64, temperature=1.0)

    before = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"begun with temperature=0.1, the optimizer given has 1.0"):
        run(3, tmp_path / "run.pt", rule=warmer)
    assert (tmp_path / "run.pt").read_bytes() == before


@pytest.mark.parametrize(
    "first, second, named",
    [
        (dict(lr=0.1), dict(lr=0.2), "lr=0.1"),
        (dict(betas=(0.9, 0.999)), dict(betas=(0.5, 0.9)), "betas="),
        (dict(weight_decay=0.1), dict(weight_decay=0.0, foreach=True), "weight_decay=0.1"),
        (dict(lr=torch.tensor(0.1)), dict(lr=0.1), None),
        (dict(foreach=False), dict(foreach=True), None),
    ],
)
def test_what_was_chosen_for_an_optimizer_of_torch_is_kept(tmp_path, first, second, named):
    def adam(options):
        return lambda model: torch.optim.Adam(model.parameters(), **options)

    run(1, tmp_path / "run.pt", rule=adam(first))
    if named is None:
        assert len(run(2, tmp_path / "run.pt", rule=adam(second))[1]) == 2
        return
    with pytest.raises(CheckpointError, match=f"begun with {named}"):
        run(2, tmp_path / "run.pt", rule=adam(second))


def test_a_rate_that_is_a_tensor_and_moves_goes_on(tmp_path):
    def go(epochs):
        torch.manual_seed(0)
        model = network()
        adam = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1))
        schedule = torch.optim.lr_scheduler.ExponentialLR(adam, 0.5)
        options = dict(epochs=epochs, scheduler=schedule, checkpoint=tmp_path / "run.pt", progress=False)
        return [round(float(row["lr"]), 6) for row in vb.fit(model, adam, [(X, Y)], **options)]

    go(2)
    assert go(4) == [0.1, 0.05, 0.025, 0.0125]


def test_real_rates_are_settings_too(tmp_path):
    def bold(model):
        return vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=64, temperature=0.1, real_lr=0.5)

    run(1, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match=r"begun with real_lr=0\.01, the optimizer given has 0\.5"):
        run(2, tmp_path / "run.pt", rule=bold)


def test_an_interrupt_between_schedule_and_file_does_not_end_the_run(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = network()
    optimizer = bayes(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    written = [0]

    def interrupted(path, state, original=saving.save):
        written[0] += 1
        if written[0] == 3:
            raise KeyboardInterrupt
        original(path, state)

    def go():
        return vb.fit(
            model, optimizer, [(X, Y)], epochs=5, scheduler=schedule, progress=False, checkpoint=tmp_path / "run.pt"
        )

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go()
    assert [row["lr"] for row in go()] == [0.1 * 0.5**epoch for epoch in range(5)]


def test_a_run_goes_on_with_the_objects_that_a_schedule_has_moved(tmp_path):
    def objects():
        torch.manual_seed(0)
        model = network()
        optimizer = bayes(model)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        return model, optimizer, data.batches(X, Y, 16, torch.Generator().manual_seed(1)), schedule

    def go(model, optimizer, loader, schedule, epochs, **options):
        return vb.fit(model, optimizer, loader, epochs=epochs, scheduler=schedule, progress=False, **options)

    whole, parts = objects(), None
    go(*whole, 4)
    parts = objects()
    go(*parts, 2, checkpoint=tmp_path / "run.pt")
    go(*parts, 4, checkpoint=tmp_path / "run.pt")
    assert_same_state(parts[0].state_dict(), whole[0].state_dict())
    fresh = objects()
    go(*fresh, 4, checkpoint=tmp_path / "run.pt")
    assert_same_state(fresh[0].state_dict(), whole[0].state_dict())


def test_a_plateau_is_looked_for_in_the_loss():
    torch.manual_seed(0)
    model = network()
    optimizer = bayes(model)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    rows = vb.fit(model, optimizer, [(X, Y)], epochs=3, scheduler=schedule, progress=False)
    assert schedule.best == min(row["loss"] for row in rows)


def test_a_plateau_is_looked_for_in_the_validation_loss_where_there_is_one():
    torch.manual_seed(0)
    model = network()
    optimizer = bayes(model)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    options = dict(validation=[(X[:16], Y[:16])], scheduler=schedule, progress=False)
    rows = vb.fit(model, optimizer, [(X, Y)], epochs=4, **options)
    assert schedule.best == min(row["val_loss"] for row in rows) != min(row["loss"] for row in rows)


# --- what counts as accuracy ---


def once(model, x, y, loss=nn.functional.cross_entropy):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return vb.fit(model, optimizer, [(x, y)], epochs=1, loss=loss, progress=False)[0]


def test_ignored_targets_are_not_counted():
    model, y = nn.Linear(4, 3), Y.clone()
    right = float((model(X[32:]).argmax(1) == Y[32:]).float().mean())
    y[:32] = -100
    assert once(model, X, y)["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    "outputs, targets, loss",
    [
        (1, Y % 2, lambda o, t: nn.functional.binary_cross_entropy_with_logits(o[:, 0], t.float())),
        (3, Y[:, None], lambda o, t: nn.functional.cross_entropy(o, t[:, 0])),
        (2, Y, vb.nn.gaussian_nll),
        (3, torch.eye(3, dtype=torch.int64)[Y], lambda o, t: ((o - t) ** 2).mean()),
    ],
)
def test_targets_that_are_no_numbers_of_classes_have_no_accuracy(outputs, targets, loss):
    assert "accuracy" not in once(nn.Linear(4, outputs), X, targets, loss)


@pytest.mark.parametrize("model", [lambda: nn.Linear(4, 1), lambda: vb.binarize(nn.Linear(4, 1))])
def test_an_optimizer_of_torch_is_held_back_from_a_gradient_that_is_not_finite(model):
    model = model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(InputError, match="gradients have NaN"):
        vb.fit(model, adam, [(X, Y)], epochs=1, loss=lambda o, t: (o - o.detach()).abs().sqrt().sum(), progress=False)
    assert_same_state(model.state_dict(), before)


@pytest.mark.parametrize(
    "targets, loss, found",
    [
        (torch.full((64,), -100), nn.functional.cross_entropy, "nan"),  # all ignored, and gradients of 0
        (torch.full((64, 3), torch.nan), nn.functional.mse_loss, "nan"),
        (Y, lambda o, t: o.sum() * 0 + torch.inf, "inf"),
    ],
)
@pytest.mark.parametrize("rule", [bayes, lambda model: torch.optim.Adam(model.parameters())], ids=["rule", "torch"])
def test_a_loss_that_is_no_number_is_refused_before_it_moves_anything(targets, loss, found, rule):
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(
        InputError, match=f"the loss of a batch of the loader is {found}; are all of its targets ignored"
    ):
        vb.fit(model, rule(model), [(X, targets)], epochs=1, loss=loss, progress=False)
    assert_same_state(dict(model.named_parameters()), before)


@pytest.mark.parametrize("by", ["loader", "validation loader"])
@pytest.mark.parametrize(
    "targets, loss, said",
    [
        (Y, nn.CrossEntropyLoss(reduction="none"), r"loss must be one number, .* got torch.float32 \(64,\)"),
        (Y, lambda o, t: 0.5, "loss must be one number, .* as a tensor; got a float"),
        (
            Y + 5,
            nn.functional.cross_entropy,
            r"targets of the {} must lie in 0 … 2, as the model has 3 outputs \(Target",
        ),
        (Y - 7, nn.functional.cross_entropy, r"must lie in 0 … 2"),
    ],
)
def test_what_is_no_loss_and_targets_without_an_output_are_named(targets, loss, said, by):
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def judged(output, y):  # in train mode all is well, unless the loader is asked for
        return loss(output, y) if (by == "loader") == output.requires_grad else nn.functional.cross_entropy(output, Y)

    options = dict(validation=[(X, targets)]) if by == "validation loader" else {}
    loader = [(X, Y if options else targets)]
    with pytest.raises(InputError, match=said.format(by)):
        vb.fit(model, bayes(model), loader, epochs=1, loss=judged, progress=False, **options)
    if by == "loader":
        assert_same_state(dict(model.named_parameters()), before)


def test_an_index_error_of_the_users_own_is_shown():
    with pytest.raises(IndexError, match="list index"):
        once(nn.Linear(4, 3), X, Y, lambda o, t: [][0])


def test_outputs_may_be_whatever_the_loss_takes():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x), x

    def fitted(model, loss):
        torch.manual_seed(0)
        options = dict(epochs=2, loss=loss, validation=[(X, Y)], progress=False)
        return [(row["loss"], row["val_loss"]) for row in vb.fit(model, bayes(model), [(X, Y)], **options)]

    torch.manual_seed(0)
    pair = Pair()
    plain = copy.deepcopy(pair.inner)
    assert fitted(pair, lambda o, t: nn.functional.cross_entropy(o[0], t)) == fitted(plain, nn.functional.cross_entropy)


def test_a_batch_of_the_wrong_parts_is_named_by_them():
    with pytest.raises(InputError, match="got tuple of ndarray, Tensor"):
        once(nn.Linear(4, 3), X.numpy(), Y)


@pytest.mark.parametrize(
    "rule, first, second, named",
    [
        ("StraightThrough", dict(clip=1.0), dict(clip=None), "clip=1.0"),
        ("StraightThrough", dict(clip=None), dict(clip=1.0), "clip=None"),
        ("Bop2ndOrder", dict(bias_correction=None), dict(bias_correction="adam"), "bias_correction=None"),
    ],
)
def test_a_setting_that_is_absent_is_a_setting(tmp_path, rule, first, second, named):
    def made(options):
        def of(model):
            return getattr(vb.optim, rule)(model.parameters(), **options)

        return of

    def go(options, epochs):
        torch.manual_seed(0)
        model = vb.binarize(nn.Linear(4, 3), vb.posteriors.Point())
        return vb.fit(
            model, made(options)(model), [(X, Y)], epochs=epochs, checkpoint=tmp_path / "run.pt", progress=False
        )

    go(first, 1)
    with pytest.raises(CheckpointError, match=f"begun with {named}"):
        go(second, 2)


def test_a_rate_of_a_group_that_a_schedule_moves_is_a_setting(tmp_path):
    def go(rate, epochs):
        torch.manual_seed(0)
        model = network()
        groups = [{"params": model[0].parameters(), "lr": rate}, {"params": [*model[1].parameters(), model[3].natural]}]
        optimizer = vb.optim.BayesBiNN(groups, lr=0.1, dataset_size=64)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        options = dict(epochs=epochs, scheduler=schedule, checkpoint=tmp_path / "run.pt", progress=False)
        return vb.fit(model, optimizer, [(X, Y)], **options)

    go(0.2, 1)
    with pytest.raises(CheckpointError, match="begun with initial_lr="):
        go(0.3, 2)
    assert len(go(0.2, 2)) == 2


@pytest.mark.parametrize(
    "first, second, named",
    [
        (dict(lr=0.2), dict(lr=0.3), "lr of group 0=0.2, the optimizer given has 0.3"),
        (dict(temperature=0.2), dict(temperature=1.0), "temperature of group 0=0.2, the optimizer given has 1.0"),
        (dict(real_lr=0.2), dict(real_lr=0.3), "lr of group 1=0.2"),
        (dict(), dict(prior=1), "prior tensors='none'"),
        (dict(prior=1), dict(prior=2), "prior tensors='sha256 "),
        (dict(prior=1, lr=0.2), dict(prior=1, lr=0.2), None),
    ],
)
def test_settings_of_a_group_and_prior_tensors_are_settings_too(tmp_path, first, second, named):
    def rule(options):
        def of(model):
            own = {key: value for key, value in options.items() if key != "prior"}
            groups = [{"params": model[0].parameters(), **own}, {"params": [model[3].natural]}]
            tensors = [options["prior"] * torch.ones(8, 4), torch.ones(3, 8)] if "prior" in options else 0.0
            return vb.optim.BayesBiNN(groups, lr=0.1, dataset_size=64, prior=tensors)

        return of

    run(1, tmp_path / "run.pt", rule=rule(first))
    if named is None:
        whole, _ = run(2, rule=rule(first))
        assert_same_state(whole.state_dict(), run(2, tmp_path / "run.pt", rule=rule(second))[0].state_dict())
        return
    with pytest.raises(CheckpointError, match=f"begun with {named}"):
        run(2, tmp_path / "run.pt", rule=rule(second))


LINE = vb.optim.Linear(0.1, 0.5, 6)
SCHEDULES = {
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=10.0),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(
        o, max_lr=[0.1, 0.05], total_steps=8, cycle_momentum="momentum" in o.defaults
    ),
    "any key": lambda o: vb.optim.Scheduler(
        o, real_lr=lambda t: 0.1 / (1 + t), **{"temperature" if "temperature" in o.defaults else "lr": LINE}
    ),
    "warm-up": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.LinearLR(o, 0.1), torch.optim.lr_scheduler.ExponentialLR(o, 0.5)], [2]
    ),
    "chain": lambda o: torch.optim.lr_scheduler.ChainedScheduler(
        [torch.optim.lr_scheduler.MultiStepLR(o, [1, 3]), torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2)]
    ),
    "function": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
}


@pytest.mark.parametrize("rule", ["BayesBiNN", "FollowingPrior"])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("same", [False, True], ids=["built anew", "the same objects"])
def test_what_schedules_and_steps_move_is_no_other_setting(tmp_path, name, rule, same):
    def objects():
        torch.manual_seed(0)
        model = network()
        own = (
            dict(dataset_size=64, momentum=0.5)
            if rule == "BayesBiNN"
            else dict(window=1e3, settling=1e2, batch_size=16)
        )
        optimizer = getattr(vb.optim, rule)(model.parameters(), lr=0.1, prior=vb.as_prior(model), **own)
        return model, optimizer, data.batches(X, Y, 16, torch.Generator().manual_seed(1)), SCHEDULES[name](optimizer)

    def go(model, optimizer, loader, schedule, epochs, **options):
        return vb.fit(model, optimizer, loader, epochs=epochs, scheduler=schedule, progress=False, **options)

    whole = objects()
    go(*whole, 6)
    parts = objects()
    for epochs in (2, 4, 6):
        go(*parts, epochs, checkpoint=tmp_path / "run.pt")
        parts = parts if same else objects()
    if not same:
        go(*parts, 6, checkpoint=tmp_path / "run.pt")
    assert_same_state(parts[0].state_dict(), whole[0].state_dict())


RATES = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    "first, second, said",
    [
        (lambda o: RATES.StepLR(o, 1, 0.5), None, "scheduler='StepLR', given is 'none'"),
        (None, lambda o: RATES.StepLR(o, 1, 0.5), "scheduler='none', given is 'StepLR'"),
        (
            lambda o: RATES.CosineAnnealingLR(o, 6),
            lambda o: RATES.StepLR(o, 6),
            "'CosineAnnealingLR', given is 'StepLR'",
        ),
        (
            lambda o: RATES.StepLR(o, 1, 0.5),
            lambda o: RATES.StepLR(o, 1, 0.9),
            "gamma=0.5, the scheduler given has 0.9",
        ),
        (lambda o: RATES.CosineAnnealingLR(o, 2), lambda o: RATES.CosineAnnealingLR(o, 4), "T_max=2, .* has 4"),
        (lambda o: RATES.MultiStepLR(o, [1, 5]), lambda o: RATES.MultiStepLR(o, [1, 4]), "milestones="),
        (
            lambda o: RATES.SequentialLR(o, [RATES.LinearLR(o, 0.5), RATES.ExponentialLR(o, 0.5)], [1]),
            lambda o: RATES.SequentialLR(o, [RATES.LinearLR(o, 0.5), RATES.ExponentialLR(o, 0.9)], [1]),
            "gamma of part 1=0.5, the scheduler given has 0.9",
        ),
        (
            lambda o: RATES.SequentialLR(o, [RATES.LinearLR(o, 0.5), RATES.ExponentialLR(o, 0.5)], [1]),
            lambda o: RATES.SequentialLR(o, [RATES.LinearLR(o, 0.5), RATES.ConstantLR(o, 0.5)], [1]),
            "LinearLR, ExponentialLR.*given is .*LinearLR, ConstantLR",
        ),
        (
            lambda o: RATES.ReduceLROnPlateau(o, patience=3),
            lambda o: RATES.ReduceLROnPlateau(o, patience=4),
            "patience=3, the scheduler given has 4",
        ),
    ],
)
def test_a_run_goes_on_with_the_scheduler_it_began_with(tmp_path, first, second, said):
    def go(schedule, epochs):
        torch.manual_seed(0)
        model = network()
        optimizer = bayes(model)
        states.append((model, copy.deepcopy(model.state_dict())))
        options = dict(checkpoint=tmp_path / "run.pt", progress=False)
        return vb.fit(model, optimizer, [(X, Y)], epochs=epochs, scheduler=schedule and schedule(optimizer), **options)

    states = []
    go(first, 2)
    before = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(CheckpointError, match=f"begun with .*{said}"):
        go(second, 4)
    assert_same_state(states[-1][0].state_dict(), states[-1][1])
    assert (tmp_path / "run.pt").read_bytes() == before
    assert len(go(first, 4)) == 4


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: RATES.MultiStepLR(o, np.array([1, 3]), gamma=np.float64(0.5)),
        lambda o: RATES.CosineAnnealingLR(o, T_max=np.int64(4), eta_min=np.float64(1e-3)),
        lambda o: RATES.StepLR(o, np.int64(1), gamma=np.sqrt(0.1)),
    ],
)
def test_schedulers_with_numbers_of_numpy_go_on(tmp_path, schedule):
    def go(epochs, file):
        torch.manual_seed(0)
        model = network()
        optimizer = bayes(model)
        options = dict(checkpoint=tmp_path / file, progress=False)
        vb.fit(model, optimizer, [(X, Y)], epochs=epochs, scheduler=schedule(optimizer), **options)
        return model.state_dict()

    go(2, "parts.pt")
    assert_same_state(go(4, "parts.pt"), go(4, "whole.pt"))


def test_without_a_checkpoint_nothing_is_asked_of_a_schedulers_state():
    class Forgetful(RATES.StepLR):
        def state_dict(self):
            raise NotImplementedError

    model = network()
    optimizer = bayes(model)
    assert len(vb.fit(model, optimizer, [(X, Y)], epochs=2, scheduler=Forgetful(optimizer, 1), progress=False)) == 2


@pytest.mark.parametrize("name", ["epochs", "num_samples"])
@pytest.mark.parametrize("value", [0, 1.5, 2.0, "3", True, None])
def test_counts_that_are_none_are_refused(name, value):
    model = network()
    with pytest.raises(InputError, match=f"{name} must be a whole number ≥ 1, got {value!r}"):
        vb.fit(model, bayes(model), [(X, Y)], **{"epochs": 1, name: value}, progress=False)


def test_a_checkpoint_in_a_folder_that_is_not_there_is_refused_before_anything_is_trained(tmp_path):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"there is no folder .*gone; make it first"):
        vb.fit(model, bayes(model), [(X, Y)], epochs=1, checkpoint=tmp_path / "gone" / "run.pt", progress=False)
    assert_same_state(model.state_dict(), before)


def test_numpys_counts_are_counts_and_end_in_no_checkpoint(tmp_path):
    def run(epochs, path=tmp_path / "state.pt"):
        torch.manual_seed(0)
        model = vb.binarize(nn.Linear(4, 2))
        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
        loader = [(torch.ones(8, 4), torch.arange(8) % 2)]
        count = np.int64(2)
        return vb.fit(model, optimizer, loader, epochs=epochs, num_samples=count, progress=False, checkpoint=path)

    assert all(type(value) in (int, float) for row in run(np.int64(1)) for value in row.values())
    assert len(run(np.int64(2))) == 2


def test_samplers_that_shuffle_by_the_epoch_are_told_it_also_after_a_resume(tmp_path):
    class Told(torch.utils.data.SequentialSampler):
        def __init__(self, source):
            super().__init__(source)
            self.epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    dataset = TensorDataset(torch.randn(8, 4), torch.arange(8) % 2)
    sampler = Told(dataset)
    for epochs in (2, 5):
        torch.manual_seed(0)
        model = vb.binarize(nn.Linear(4, 2))
        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
        loader = DataLoader(dataset, 4, sampler=sampler)
        vb.fit(model, optimizer, loader, epochs=epochs, progress=False, checkpoint=tmp_path / "run.pt")
    assert list(dict.fromkeys(sampler.epochs)) == [0, 1, 2, 3, 4]


def test_every_rank_writes_and_reads_a_checkpoint_of_its_own(tmp_path, monkeypatch):
    """With one file for all, the last one's random state would be everybody's after a resume: equal draws."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)

    def draws(rank, epochs):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        torch.manual_seed(0)
        model = vb.binarize(nn.Linear(4, 2))
        torch.manual_seed(100 + rank)
        optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=8)
        loader = [(torch.ones(8, 4), torch.arange(8) % 2)]
        vb.fit(model, optimizer, loader, epochs=epochs, progress=False, checkpoint=tmp_path / "run.pt")
        return torch.rand(3)

    for epochs in (1, 2):
        first, second = draws(0, epochs), draws(1, epochs)
        assert not torch.equal(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.pt.0", "run.pt.1"]
