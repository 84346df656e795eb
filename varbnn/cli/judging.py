"""What trained networks are worth: measures, the temperature that suits them, and a word where something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import varbnn as vb
from varbnn.data import Dataset

AT_ONCE = 1000
"""Inputs in one call of the packed networks."""

NOTHING_LEARNED = 0.98
"""Of the NLL of the classes' shares: a network above it, calibrated, has learned next to nothing else."""

TOO_SURE = 2.0
"""Temperature of calibration from which on it is said."""


def answers(networks: Callable[[Tensor], Tensor], x: Tensor) -> vb.Prediction:
    """What packed networks say about prepared inputs, N×D, of which it takes some at a time."""
    return vb.Prediction(torch.cat([networks(part).softmax(-1) for part in x.split(AT_ONCE)], 1))


def judgement(data: Dataset, packed: vb.PackedEnsemble) -> dict[str, Any]:
    """Measures on the validation and the test part, the temperature that suits the former, and what there is to say."""
    assert data.val_x is not None
    assert data.val_y is not None
    ood = None if data.ood_x is None else answers(packed, data.ood_x)
    judged, targets = answers(packed, data.val_x), data.val_y
    temperature = _temperature(judged, targets)
    report: dict[str, Any] = {"temperature": temperature, "remark": remark(judged, targets, data.train_y, temperature)}
    report["validation"] = dict(vb.evaluate(judged, targets, ood=ood))
    if len(data.test_x):
        judged, targets = answers(packed, data.test_x), data.test_y
        report["test"] = dict(vb.evaluate(judged, targets, ood=ood))
    return {"report": report, "judged": judged, "targets": targets}


def remark(judged: vb.Prediction, targets: Tensor, seen: Tensor, temperature: float) -> str | None:
    """A sentence where networks know no more than the shares of the classes in `seen`, or are far too sure."""
    right = judged.labels == targets
    if bool(right.all()):
        return None
    reached = vb.evaluate(vb.TemperatureScaling(temperature)(judged), targets)["nll"]
    shares = torch.bincount(seen, minlength=judged.num_classes).double() / len(seen)
    guessed = float(F.nll_loss(shares.log().expand(len(targets), -1), targets))
    by_chance = float(shares.max()) + 0.5 / len(targets) ** 0.5  # and a standard error
    if reached > NOTHING_LEARNED * guessed and float(right.float().mean()) <= by_chance:
        return (
            "The networks know next to nothing but how frequent each class is: calibrated, their NLL is "
            f"{reached:.3f}, that of the shares {guessed:.3f}. Either the labels have little to do with the inputs, or "
            "nothing was learned: try more --epochs, --activation sign, a warmer --preset (mnist), or for a table the "
            "estimators of varbnn.bridges.sklearn, which are made for tables."
        )
    if temperature > TOO_SURE:
        return (
            f"The networks are too sure: dividing their logits by {temperature:.2f} suits the validation data. varbnn "
            "predict --calibrated does so."
        )
    return None


def _temperature(judged: vb.Prediction, targets: Tensor) -> float:
    """That of `vb.TemperatureScaling`, or 1 where validation data without an error would make it 0."""
    right = bool((judged.labels == targets).all())
    return 1.0 if right else vb.TemperatureScaling().fit(judged, targets).temperature
