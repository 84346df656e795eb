"""Make probabilities as sure as they are right, by one number fitted on validation data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from varbnn.checks import Values, as_tensor, finite_number
from varbnn.errors import InputError, VarbnnWarning
from varbnn.predict.checks import are_probabilities, as_labels
from varbnn.predict.uncertainty import INSTEAD, Prediction, require_classes

LOWEST, HIGHEST = 1e-2, 1e2  # beyond these the probabilities are one-hot or uniform to every digit that matters
FLAT = 1e-12  # nats: a loss that varies by less does so by rounding
SMALLEST = torch.finfo(torch.float32).tiny  # log-probabilities end here, at -87: see `TemperatureScaling`


class TemperatureScaling:
    """Divide the logits of every sampled network by one temperature, such that the NLL of their mean is least.

    The scaled samples stay S×N×C, so the split into aleatoric and epistemic uncertainty survives. With one sample this
    is the usual temperature scaling. Labels of single samples never change; labels of the mean can, since the samples'
    weights in it do.

    This is the *calibration* temperature of logits. It has nothing to do with the temperature of the posterior (how
    much the prior weighs, an argument of the optimizers), nor with the relaxation of the concrete estimator.

    Probabilities carry logits up to a constant per row; those below 1.2e-38 (float32's smallest) are taken as that, so
    that a network which is certain and wrong can still be cooled down.

    Args:
        temperature: an earlier fit, to use again: ``TemperatureScaling(float(scaling))``. Above 1 softens.

    Source: Guo et al. 2017, section 4.2, for one network.

    >>> overconfident = Prediction([[[0.99, 0.01], [0.99, 0.01], [0.01, 0.99], [0.99, 0.01]]])
    >>> scaling = TemperatureScaling().fit(overconfident, [0, 0, 1, 1])  # 3 of 4 right
    >>> print(f"{scaling.temperature:.2f}: {scaling(overconfident).confidence[0]:.2f}")
    4.18: 0.75
    """

    def __init__(self, temperature: float | None = None) -> None:
        if temperature is not None:
            temperature = finite_number("temperature", temperature, above=0, note=" (1 changes nothing)")
        self._temperature = temperature

    @property
    def temperature(self) -> float:
        """The fitted temperature.

        Raises:
            InputError: nothing is fitted yet.
        """
        if self._temperature is None:
            raise InputError("no temperature yet; call fit(validation_prediction, validation_targets) first")
        return self._temperature

    def fit(self, prediction: Prediction | Values, targets: Values) -> TemperatureScaling:
        """Find the temperature in [0.01, 100] that minimises the NLL of the mean; deterministic. 1 where none does more
        than another, as where all classes are equally probable.

        Args:
            prediction: of validation inputs, which neither trained the network nor will test it; or logits, N×C of one
                network or S×N×C.
            targets: N class labels.

        Raises:
            InputError: targets that do not fit, logits of another shape or not finite.

        Warns:
            VarbnnWarning: every label is right, and 1 is used; or the best temperature lies at an end of the range.
        """
        samples = _samples_of(prediction)
        labels = as_labels(targets, samples[0].shape[0], samples[0].shape[1]).to(samples[0].device)
        log_probs = (lambda sample: sample) if not isinstance(prediction, Prediction) else _log

        def loss(log_temperature: float) -> float:
            return _nll_of_mean(samples, log_probs, labels, math.exp(log_temperature))

        grid = torch.linspace(math.log(LOWEST), math.log(HIGHEST), 33, dtype=torch.float64).tolist()
        found = lowest_point(loss, grid)
        least = loss(found)
        one_is_best = loss(0.0) <= least + FLAT
        coldest_is_best = loss(grid[0]) <= least + FLAT < loss(grid[-1])
        all_right = bool((_labels_of_mean(samples, log_probs) == labels).all())
        self._temperature = 1.0 if one_is_best or (coldest_is_best and all_right) else math.exp(found)
        if coldest_is_best and all_right:
            warnings.warn(
                "every label is right, and the nearer the temperature to 0 the better: 1 is used. Fit on more "
                "validation data",
                VarbnnWarning,
                stacklevel=2,
            )
        elif not one_is_best and (coldest_is_best or not LOWEST * 1.01 < self._temperature < HIGHEST / 1.01):
            warnings.warn(
                f"the best temperature, {self._temperature:.3g}, lies at the end of [{LOWEST:g}, {HIGHEST:g}]: "
                "the labels are too few, or have nothing to do with the prediction. Fit on more validation data.",
                VarbnnWarning,
                stacklevel=2,
            )
        return self

    def __call__(self, prediction: Prediction) -> Prediction:
        """The prediction at the fitted temperature, S×N×C in the same dtype.

        Raises:
            InputError: nothing is fitted yet, or no `Prediction`.
        """
        temperature = self.temperature
        require_classes(prediction, each=True)
        scaled = torch.empty_like(prediction.probs)
        for target, probs in zip(scaled, prediction.probs, strict=True):
            target.copy_((_log(probs) / temperature).softmax(-1))
        return Prediction(scaled)

    def __float__(self) -> float:
        return self.temperature

    def __repr__(self) -> str:
        return f"TemperatureScaling({'' if self._temperature is None else f'{self._temperature:.6g}'})"


def lowest_point(loss: Callable[[float], float], grid: Sequence[float]) -> float:
    """Where `loss` is least between the neighbours of the best point of `grid`, which is ascending.

    The NLL of a mean of networks can have several minima, so a coarse search comes first. Where all points are equally
    good, it is the middle one.
    """
    from scipy.optimize import minimize_scalar  # late: half a second of start-up

    losses = [loss(point) for point in grid]
    if max(losses) - min(losses) < FLAT:
        return grid[len(grid) // 2]
    best = losses.index(min(losses))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def _samples_of(prediction: Prediction | Values) -> Tensor:
    """Probabilities or logits, S×N×C."""
    if isinstance(prediction, Prediction):
        return prediction.probs
    if type(prediction).__name__ in INSTEAD:
        require_classes(prediction, each=True)
    logits = as_tensor(prediction, "logits")
    if logits.ndim == 2:
        logits = logits[None]
    if logits.ndim != 3 or 0 in logits.shape or logits.shape[2] < 2 or not logits.is_floating_point():
        raise InputError(f"logits must be floating, N×C or S×N×C with C ≥ 2, got {tuple(logits.shape)} {logits.dtype}")
    if not all(bool(sample.isfinite().all()) for sample in logits):
        raise InputError("logits hold NaN or inf; look for a diverged network")
    if are_probabilities(logits):
        raise InputError("these rows are probabilities, not logits; wrap them: Prediction(probs), of shape S×N×C")
    return logits


def _log(probs: Tensor) -> Tensor:
    """Log-probabilities in float64, bounded below."""
    return probs.double().clamp_min(SMALLEST).log()


def _labels_of_mean(samples: Tensor, log_probs: Callable[[Tensor], Tensor]) -> Tensor:
    """Most probable class of the mean at temperature 1, N; one sample at a time."""
    total = torch.zeros(samples.shape[1:], dtype=torch.float64, device=samples.device)
    for sample in samples:
        total += log_probs(sample).double().softmax(-1)
    return total.argmax(-1)


def _nll_of_mean(samples: Tensor, log_probs: Callable[[Tensor], Tensor], labels: Tensor, temperature: float) -> float:
    """Mean over inputs of -log mean_s softmax(log_probs(sample_s) / temperature)[label], nats; one sample at a time."""
    total = torch.full(labels.shape, -torch.inf, dtype=torch.float64, device=samples.device)
    for sample in samples:
        rows = (log_probs(sample).double() / temperature).log_softmax(-1)
        total = torch.logaddexp(total, rows.gather(1, labels[:, None]).squeeze(1))
    return math.log(len(samples)) - total.mean().item()
