"""The loop: its schedule, what it reports, that it learns, and that a resumed run is the same run to the bit."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from varbnn import data
from varbnn.errors import CheckpointError, InputError
from varbnn.integer import IntegerNetwork, fit, step

WIDTHS = (30, 16, 12, 3)


def problem(count=256):
    """Codes whose class is which of three groups of ten bits has most of +1; ties go to the first."""
    codes = torch.randint(2, (count, 30), generator=torch.Generator().manual_seed(5), dtype=torch.int8) * 2 - 1
    return codes, codes.view(count, 3, 10).sum(2).argmax(1)


def run(epochs=6, loader=None, network=None, **options):
    generator = torch.Generator().manual_seed(0)
    network = network or IntegerNetwork(WIDTHS, spread=16, generator=generator)
    loader = data.batches(*problem(), 32, torch.Generator().manual_seed(1)) if loader is None else loader
    history = fit(network, loader, epochs=epochs, generator=generator, progress=False, **options)
    return network, [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def assert_same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


class Killed:
    """A loader that is interrupted in its n-th pass."""

    def __init__(self, loader, passes):
        self.loader, self.generator, self.left = loader, loader.generator, passes

    def __iter__(self):
        for number, batch in enumerate(self.loader):
            if self.left == 1 and number == 3:
                raise KeyboardInterrupt
            yield batch
        self.left -= 1


@pytest.mark.parametrize("epochs, shifts, expected", [
    (10, (2, 6), [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
    (4, (2, 6), [2, 3, 4, 5]),
    (3, (1, 1), [1, 1, 1]),
    (1, (0, 3), [0]),
])  # fmt: skip
def test_every_shift_has_its_share_of_the_epochs(epochs, shifts, expected):
    assert [row["shift"] for row in run(epochs, shifts=shifts)[1]] == expected


@pytest.mark.parametrize("spread", [0, 16])
def test_it_learns(spread):
    network = IntegerNetwork((30, 64, 3), spread=spread, generator=torch.Generator().manual_seed(2))
    _, history = run(30, network=network)
    codes, labels = problem()
    assert float((network(codes).argmax(1) == labels).double().mean()) > 0.9
    assert history[-1]["accuracy"] > history[0]["accuracy"] + 0.1
    assert history[-1]["flips"] < history[0]["flips"]


def test_it_is_the_loop_one_would_write():
    fitted, history = run(2, shifts=(1, 2))
    generator = torch.Generator().manual_seed(0)
    network = IntegerNetwork(WIDTHS, spread=16, generator=generator)
    loader, before, right = data.batches(*problem(), 32, torch.Generator().manual_seed(1)), None, []
    for shift in (1, 2):
        before = [layer.mode() for layer in network.counters]
        right.append(sum(int((step(network, x, y, shift, generator).argmax(1) == y).sum()) for x, y in loader))
    assert_same_state(fitted, network)
    assert [row["accuracy"] for row in history] == [count / 256 for count in right]
    flips = sum(int((layer.mode() != old).sum()) for layer, old in zip(network.counters, before, strict=True))
    assert history[-1]["flips"] == flips > 0


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    whole, expected = run()
    loader = data.batches(*problem(), 32, torch.Generator().manual_seed(1))
    with pytest.raises(KeyboardInterrupt):
        run(loader=Killed(loader, passes=3), checkpoint=tmp_path / "run.pt")
    resumed, history = run(checkpoint=tmp_path / "run.pt")
    assert_same_state(whole, resumed)
    assert history == expected
    again, history = run(checkpoint=tmp_path / "run.pt")  # there is nothing left to do
    assert_same_state(whole, again)
    assert history == expected


def test_a_data_loader_of_torch_goes_on_to_the_same_bits(tmp_path):
    def loader():
        generator = torch.Generator().manual_seed(1)
        return DataLoader(TensorDataset(*problem()), 32, shuffle=True, generator=generator)

    whole, _ = run(4, loader())
    killed = loader()
    wrapped = Killed(killed, passes=2)
    with pytest.raises(KeyboardInterrupt):
        run(4, wrapped, checkpoint=tmp_path / "run.pt")
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert state["generators"].keys() == {"loader", "own"}
    with pytest.raises(CheckpointError, match=r"begun with generators of \['loader', 'own'\], this run has"):
        run(4, loader(), checkpoint=tmp_path / "run.pt")
    fresh = loader()
    resumed, _ = run(4, Killed(fresh, passes=9), checkpoint=tmp_path / "run.pt")
    assert_same_state(whole, resumed)


def test_the_global_generator_is_kept_too(tmp_path):
    def go(passes=9, **options):
        torch.manual_seed(0)
        network = IntegerNetwork(WIDTHS, spread=8)
        loader = Killed(data.batches(*problem(), 32, torch.Generator().manual_seed(1)), passes)
        fit(network, loader, epochs=4, progress=False, **options)
        return network

    whole = go()
    with pytest.raises(KeyboardInterrupt):
        go(passes=3, checkpoint=tmp_path / "run.pt")
    assert_same_state(whole, go(checkpoint=tmp_path / "run.pt"))


@pytest.mark.parametrize(
    "changed, match",
    [
        (dict(epochs=8), "begun with epochs=6, this run has 8; go on with the same"),
        (dict(shifts=(2, 7)), r"begun with shifts=\(2, 6\), this run has \(2, 7\)"),
        (dict(network=IntegerNetwork(WIDTHS, bits=4, spread=8)), "begun with bits=8, this run has 4"),
        (dict(network=IntegerNetwork(WIDTHS)), "begun with spread=16, this run has 0"),
        (dict(network=IntegerNetwork((30, 8, 3), spread=16)), r"begun with widths=\(30, 16, 12, 3\)"),
    ],
)
def test_a_checkpoint_of_other_settings_loads_nothing(tmp_path, changed, match):
    run(checkpoint=tmp_path / "run.pt")
    network = changed.get("network")
    before = None if network is None else {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=match):
        run(checkpoint=tmp_path / "run.pt", **changed)
    if network is not None:
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_file_that_is_no_checkpoint_and_a_folder_that_is_not_there_are_named(tmp_path):
    (tmp_path / "run.pt").write_text("nothing")
    with pytest.raises(CheckpointError, match=r"is no checkpoint of varbnn\.integer\.fit"):
        run(checkpoint=tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="there is no folder"):
        run(checkpoint=tmp_path / "nowhere" / "run.pt")


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(epochs=0), "epochs must be a whole number ≥ 1, got 0"),
        (dict(shifts=(6, 2)), r"must not fall, got \(6, 2\)"),
        (dict(shifts=(-1, 2)), "shifts must be a whole number from 0 to 24, got -1"),
        (dict(shifts=(2,)), "shifts must be two"),
        (dict(loader=[]), "the loader yielded no batch"),
        (dict(loader=[torch.ones(2, 30)]), r"must yield \(codes, labels\), two tensors, got Tensor"),
        (dict(loader=[(torch.ones(2, 30), [0, 1])]), r"must yield \(codes, labels\), two tensors, got tuple"),
        (dict(loader=[(torch.ones(2, 30), torch.tensor([0, 1]))]), "codes must be a tensor of int8"),
    ],
)
def test_bad_input_is_refused(options, match):
    network = IntegerNetwork(WIDTHS)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=match):
        run(network=network, **options)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_bar_shows_shift_accuracy_and_flips(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    network = IntegerNetwork(WIDTHS)
    fit(network, data.batches(*problem(), 32), epochs=2, label="digits")
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("digits", "shift=4", "acc=", "flips="))


def test_a_file_whose_generator_does_not_fit_changes_nothing(tmp_path):
    path, own = tmp_path / "run.pt", torch.Generator().manual_seed(0)
    network = IntegerNetwork(WIDTHS)
    fit(network, data.batches(*problem(), 32), epochs=2, generator=own, checkpoint=path, progress=False)
    state = torch.load(path)
    state["generators"]["own"] = torch.zeros(16, dtype=torch.uint8)  # as of another device
    torch.save(state, path)
    fresh, other = IntegerNetwork(WIDTHS), torch.Generator().manual_seed(1)
    before, drawing = {name: value.clone() for name, value in fresh.state_dict().items()}, other.get_state()
    with pytest.raises(CheckpointError, match="belongs to another"):
        fit(fresh, data.batches(*problem(), 32), epochs=2, generator=other, checkpoint=path, progress=False)
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())
    assert torch.equal(drawing, other.get_state())
