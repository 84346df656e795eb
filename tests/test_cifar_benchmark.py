"""The CIFAR-10 benchmark in small: how images are varied, and that an interrupted run ends as a whole one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import cifar10


def test_an_image_is_shifted_by_at_most_four_pixels_and_perhaps_mirrored():
    images = torch.randn(40, 3, 32, 32)
    varied = cifar10.Varied(images.flatten(1), torch.zeros(40), torch.Generator().manual_seed(0)).vary(images)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    found = set()
    for image, out in zip(padded, varied.numpy(), strict=True):
        shifts = [
            (row, column, flip)
            for row in range(9)
            for column in range(9)
            for flip in (False, True)
            if np.array_equal(image[:, row : row + 32, column : column + 32][:, :, :: -1 if flip else 1], out)
        ]
        assert len(shifts) == 1
        found.add(shifts[0])
    assert len(found) > 25
    assert {flip for _, _, flip in found} == {False, True}


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 120), ("test", 30)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype(np.uint8)
    np.savez(tmp_path / "cifar10.npz", **arrays)
    return tmp_path


def run(folder, monkeypatch, name):
    out = folder / f"{name}.json"
    sizes = ["--width", "0.03", "--epochs", "2", "--methods", "posterior", "--samples", "2", "--device", "cpu"]
    places = ["--data-dir", str(folder), "--checkpoints", str(folder / name), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["cifar10.py", *sizes, *places])
    cifar10.main()
    (runs,) = json.loads(out.read_text())["runs"].values()
    return {key: value for key, value in runs["posterior"][0].items() if "seconds" not in key}


def test_an_interrupted_run_ends_as_a_whole_one(folder, monkeypatch):
    whole = run(folder, monkeypatch, "whole")
    through, passes = cifar10.Varied.__iter__, []

    def interrupted(self):
        passes.append(1)
        for number, batch in enumerate(through(self)):
            if len(passes) == 2 and number == 1:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(cifar10.Varied, "__iter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, monkeypatch, "halted")
    assert list((folder / "halted").glob("*.pt"))
    assert run(folder, monkeypatch, "halted") == whole
    assert not list((folder / "halted").glob("*.pt"))
