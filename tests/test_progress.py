"""Progress bars are for who is watching: a terminal has them, a file has not."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn import continual, integer
from varbnn.sdp import binarize_layerwise, least_squares_batch

X, Y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3

pytestmark = pytest.mark.filterwarnings("ignore::varbnn.errors.VarbnnWarning")


class Errors(io.StringIO):
    def __init__(self, watched):
        super().__init__()
        self.watched = watched

    def isatty(self):
        return self.watched


def network() -> nn.Module:
    return vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))


def fitted(progress):
    model = network()
    vb.fit(model, torch.optim.SGD(model.parameters(), 0.1), [(X, Y)], epochs=2, progress=progress)


def learned(progress):
    task = continual.Task("one", X, Y, X, Y, classes=(0, 1, 2))
    strategy = continual.FineTune(lambda model, task: torch.optim.SGD(model.parameters(), 0.1))
    continual.learn(network(), continual.from_tasks([task], 3), strategy, progress=progress)


def solved(progress):
    least_squares_batch(np.eye(4), np.ones((4, 3)), progress=progress)


def integers(progress):
    codes = torch.where(X > 0, 1, -1).to(torch.int8)
    integer.fit(integer.IntegerNetwork([4, 8, 3]), [(codes, Y)], epochs=2, progress=progress)


LONG = {
    "fit": fitted,
    "learn": learned,
    "predict": lambda progress: vb.predict(network(), X, 3, refresh_bn=X, progress=progress),
    "pack": lambda progress: vb.pack(network(), 3, refresh_bn=X, progress=progress),
    "predict packed": lambda progress: vb.predict(vb.pack(network(), 3, refresh_bn=X), X, progress=progress),
    "least_squares_batch": solved,
    "integer.fit": integers,
    "binarize_layerwise": lambda progress: binarize_layerwise(nn.Sequential(nn.Linear(4, 2)), X, progress=progress),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("watched, progress, shown", [(True, True, True), (False, True, False), (True, False, False)])
def test_bars_are_drawn_where_they_are_asked_for_and_seen(name, watched, progress, shown, monkeypatch):
    errors = Errors(watched)
    monkeypatch.setattr("sys.stderr", errors)
    LONG[name](progress)
    assert bool(errors.getvalue()) == shown


def test_no_bar_is_drawn_where_there_is_no_standard_error(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    fitted(True)


def test_every_bar_is_made_in_one_place():
    root = Path(vb.__file__).parent
    users = [path for path in root.rglob("*.py") if re.search(r"^\s*(from|import) tqdm", path.read_text("utf-8"), re.M)]
    assert sorted(str(path.relative_to(root)) for path in users) == ["cli/program.py", "progress.py"]
