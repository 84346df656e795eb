"""Make regression as sure as it is right, by one number fitted on validation data."""

from __future__ import annotations

import math
import warnings

import torch

from varbnn.checks import Values, finite_number
from varbnn.errors import InputError, VarbnnWarning
from varbnn.predict.calibration import lowest_point
from varbnn.predict.checks import as_real_targets
from varbnn.predict.mixture import log_density
from varbnn.predict.regression import RegressionPrediction

LOWEST, HIGHEST = -30.0, 30.0  # of the log factor, relative to the mean squared error
END = 0.01  # so near to them the search has ended there


class NoiseScaling:
    """Multiply the noise variance of every network by one factor, such that the NLL of their mixture is least.

    The noise that training learns is that of one draw around the data: it holds the scatter of the draws too, which
    the mixture of many adds a second time. This takes it out again. Of a prediction without noise the factor is the
    noise variance itself, as the precision of MC dropout is chosen (Gal and Ghahramani 2016, appendix 4.2).

    Args:
        factor: an earlier fit, to use again: ``NoiseScaling(float(scaling))``.

    >>> prediction = RegressionPrediction([[0.0, 0.0, 0.0, 0.0]], noise_variance=4.0)
    >>> scaling = NoiseScaling().fit(prediction, [1.0, -1.0, 1.0, -1.0])
    >>> print(f"{scaling.factor:.3f}: {scaling(prediction).aleatoric[0]:.3f}")
    0.250: 1.000
    """

    def __init__(self, factor: float | None = None) -> None:
        if factor is not None:
            factor = finite_number("factor", factor, above=0, note=" (1 leaves the noise as it is)")
        self._factor = factor

    @property
    def factor(self) -> float:
        """The fitted factor.

        Raises:
            InputError: nothing is fitted yet.
        """
        if self._factor is None:
            raise InputError("no factor yet; call fit(validation_prediction, validation_targets) first")
        return self._factor

    def fit(self, prediction: RegressionPrediction, targets: Values) -> NoiseScaling:
        """Find the factor that minimises the NLL of the mixture; deterministic.

        Args:
            prediction: of validation inputs, which neither trained the network nor will test it.
            targets: shaped like one sample.

        Raises:
            InputError: targets that do not fit, or that every network meets exactly (no noise at all is likeliest).

        Warns:
            VarbnnWarning: the best factor lies at an end of the range, as when one network meets every target exactly.
        """
        _require_regression(prediction)
        truth = as_real_targets(targets, prediction.means.shape[1:]).to(prediction.means.device)
        noise = _noise(prediction).double()
        squares = ((prediction.means.double() - truth).square() / noise).mean().item()
        if squares == 0.0:
            raise InputError("every network meets every target exactly, so no noise variance is too small; give others")

        def loss(log_factor: float) -> float:
            return -log_density(prediction.means, noise * math.exp(log_factor), truth).mean().item()

        centre = math.log(squares)
        log_factor = lowest_point(loss, [centre + step for step in torch.linspace(LOWEST, HIGHEST, 61).tolist()])
        self._factor = math.exp(log_factor)
        if not LOWEST + END < log_factor - centre < HIGHEST - END:
            warnings.warn(
                f"the best factor, {self._factor:.3g}, lies at the end of what was searched: some network meets its "
                "targets exactly, or nearly so beside the others, and no noise is too small for it. Fit on more "
                "validation data.",
                VarbnnWarning,
                stacklevel=2,
            )
        return self

    def __call__(self, prediction: RegressionPrediction) -> RegressionPrediction:
        """The same means with the noise scaled.

        Raises:
            InputError: nothing is fitted yet, or no `RegressionPrediction`.
        """
        _require_regression(prediction)
        return RegressionPrediction(prediction.means, _noise(prediction) * self.factor)

    def __float__(self) -> float:
        return self.factor

    def __repr__(self) -> str:
        return f"NoiseScaling({'' if self._factor is None else f'{self._factor:.6g}'})"


def _require_regression(prediction: object) -> None:
    if not isinstance(prediction, RegressionPrediction):
        kind = type(prediction).__name__
        raise InputError(f"noise is of regression: give a RegressionPrediction (task='gaussian'), got {kind}")


def _noise(prediction: RegressionPrediction) -> torch.Tensor:
    noise = prediction.noise_variance
    return torch.ones((), dtype=prediction.means.dtype, device=prediction.means.device) if noise is None else noise
