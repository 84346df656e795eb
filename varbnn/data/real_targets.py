"""What a data set with real targets looks like here: inputs and targets standardised, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import Values, as_tensor
from varbnn.data.dataset import Array, flat, standardised
from varbnn.errors import InputError

VALIDATION_SHARE = 0.2


@dataclass(frozen=True, eq=False, repr=False)
class RegressionDataset:
    """Training, validation and test inputs with real targets, all float32.

    Inputs are N×D and targets N×1, standardised as (value - mean) / scale with statistics of the training data alone;
    a column that is constant there has scale 0 and is 0 for every input. `RegressionPrediction.in_units` takes
    predictions back.

    Attributes:
        name: as given to `load`.
        train_x, train_y: what a model may learn from.
        val_x, val_y: set aside from the training data to choose settings by; None unless asked for.
        test_x, test_y: the test split; `test_y` is None where none was published.
        mean, scale: of the inputs, D.
        target_mean, target_scale: of the targets.
        note: why something is absent; empty if nothing is.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    val_x: Tensor | None
    val_y: Tensor | None
    test_x: Tensor
    test_y: Tensor | None
    mean: Tensor
    scale: Tensor
    target_mean: float
    target_scale: float
    note: str = ""

    def undo(self, x: Values) -> Tensor:
        """Standardised inputs back in their own units, N×D.

        Raises:
            InputError: inputs of another width than the training data's.
        """
        return flat(x, "x", (len(self.mean),), self.name) * self.scale + self.mean

    def undo_targets(self, y: Values) -> Tensor:
        """Standardised targets, N×1 or N, back in their own units, float64 and of the same shape.

        Raises:
            InputError: several targets for each input.

        >>> from varbnn import data
        >>> curve = data.load("curve")
        >>> bool((curve.undo_targets(curve.train_y).mean() - curve.target_mean).abs() < 1e-6)
        True
        """
        y = y if isinstance(y, Tensor) else as_tensor(y, "y")
        if y.ndim > 1 and y.shape[-1] != 1:
            raise InputError(f"{self.name} has one target for each input, got {'×'.join(map(str, y.shape))}")
        return y.double() * self.target_scale + self.target_mean

    def __repr__(self) -> str:
        validation = "" if self.val_x is None else f"{len(self.val_x)} validation, "
        inputs = self.train_x.shape[1]
        counts = f"{len(self.train_x)} train, {validation}{len(self.test_x)} test"
        return f"RegressionDataset({self.name}: {counts}; {inputs} input{'s' * (inputs != 1)})"


@dataclass(frozen=True)
class RawTable:
    """A data set in its own units, before anything is set aside: inputs N×D, targets N (or none to test with)."""

    name: str
    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array | None
    note: str = ""


def prepare_table(raw: RawTable, validation: bool, seed: int) -> RegressionDataset:
    """Set a fifth of the training data aside if asked for, then standardise everything by what is left.

    Raises:
        InputError: targets that are constant, or inputs too large to be standardised.
    """
    order = np.random.default_rng(seed).permutation(len(raw.train_x))
    aside = np.sort(order[: round(VALIDATION_SHARE * len(order)) if validation else 0])
    kept = np.setdiff1d(order, aside)
    x, y = raw.train_x[kept].astype(np.float64), raw.train_y[kept].astype(np.float64)
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-12 * np.abs(mean), scale, 0.0)  # of a constant, std is rounding and not quite 0
    center, spread = float(y.mean()), float(y.std())
    if not spread > 0:
        raise InputError(f"{raw.name}: the training targets are constant, so there is nothing to learn; check the file")

    def inputs(values: Array) -> Tensor:
        own = torch.from_numpy(values.astype(np.float64))
        return standardised(own, torch.from_numpy(mean), torch.from_numpy(scale), raw.name)

    def targets(values: Array) -> Tensor:
        return torch.from_numpy(((values - center) / spread).astype(np.float32))[:, None]

    return RegressionDataset(
        name=raw.name,
        train_x=inputs(x),
        train_y=targets(y),
        val_x=inputs(raw.train_x[aside]) if validation else None,
        val_y=targets(raw.train_y[aside]) if validation else None,
        test_x=inputs(raw.test_x),
        test_y=None if raw.test_y is None else targets(raw.test_y),
        mean=torch.as_tensor(mean, dtype=torch.float32),
        scale=torch.as_tensor(scale, dtype=torch.float32),
        target_mean=center,
        target_scale=spread,
        note=raw.note,
    )
