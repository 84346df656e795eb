"""Whether a calibration error is more than what a calibrated network of the same confidences would show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from varbnn.checks import Values, optional_generator, whole_number
from varbnn.packed import AveragePrediction
from varbnn.predict.checks import as_labels
from varbnn.predict.uncertainty import Prediction, mean_of, require_classes

NUMBERS_AT_ONCE = 4_000_000
"""Of the resampled inputs, so that memory stays at some 100 MB."""


@dataclass(frozen=True)
class CalibrationTest:
    """A calibration error beside what chance alone makes of it. Made by `calibration_test`.

    Attributes:
        ece: as measured, in [0, 1].
        expected: mean of the ECE that a calibrated network with these confidences shows on as many inputs.
        sd: its standard deviation over such sets of inputs.
        p_value: share of sets, those and this one, whose ECE is at least as large; small where the network is not
            calibrated.
    """

    ece: float
    expected: float
    sd: float
    p_value: float

    def __str__(self) -> str:
        return f"ece {self.ece:.4f}, {self.expected:.4f} ± {self.sd:.4f} if calibrated (p {self.p_value:.3f})"


def calibration_test(
    prediction: Prediction | AveragePrediction,
    targets: Values,
    *,
    bins: int = 15,
    repeats: int = 1000,
    generator: torch.Generator | None = None,
) -> CalibrationTest:
    """Compare the expected calibration error with that of labels drawn from the prediction itself.

    The ECE of finitely many inputs is above 0 even for a perfectly calibrated network, the more so the fewer inputs
    and the less sure they are. Drawing for each input whether it is right, with probability its confidence, shows how
    much above; no network can be shown to be better calibrated than that.

    Args:
        prediction: for N inputs.
        targets: N class labels.
        bins: of the calibration error.
        repeats: sets of labels to draw; the p-value is at least 1/(repeats + 1).
        generator: on the CPU; default: torch's.

    Raises:
        InputError: targets that do not fit, `bins` or `repeats` below 1; nothing is drawn then.

    Source: consistency resampling, Bröcker & Smith 2007; as a test of calibration Vaicenavicius et al. 2019, section 5.

    >>> prediction = Prediction([[[0.9, 0.1]] * 100])
    >>> print(calibration_test(prediction, [0] * 70 + [1] * 30, generator=torch.Generator().manual_seed(0)))
    ece 0.2000, 0.0232 ± 0.0180 if calibrated (p 0.001)
    """
    from varbnn.predict.metrics import ExpectedCalibrationError, bin_of  # torchmetrics brings a second of start-up

    require_classes(prediction)
    labels = as_labels(targets, len(prediction), prediction.num_classes).cpu()
    optional_generator(generator)
    repeats = whole_number("repeats", repeats, note=" (1000 is usual)")
    metric = ExpectedCalibrationError(bins)
    mean = mean_of(prediction).cpu()
    metric.update(mean, labels)
    confidence = mean.max(1).values
    drawn = resampled_errors(confidence.double(), bin_of(confidence, bins), bins, repeats, generator)
    ece = metric.compute()
    return CalibrationTest(
        ece=float(ece),
        expected=float(drawn.mean()),
        sd=float(drawn.std(correction=0)),
        p_value=(1 + int((drawn >= ece - 1e-12).sum())) / (1 + repeats),  # sums in another order still tie
    )


def resampled_errors(
    confidence: Tensor, place: Tensor, bins: int, repeats: int, generator: torch.Generator | None
) -> Tensor:
    """ECE of `repeats` sets in which each input is right with probability its confidence.

    Args:
        confidence: N, float64.
        place: bin of each, N.
    """
    errors, at_once = [], max(1, NUMBERS_AT_ONCE // len(confidence))
    for start in range(0, repeats, at_once):
        shape = (min(at_once, repeats - start), len(confidence))
        right = (torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu") < confidence).double()
        gaps = torch.zeros(shape[0], bins, dtype=torch.float64, device="cpu").index_add_(1, place, right - confidence)
        errors.append(gaps.abs().sum(1) / len(confidence))
    return torch.cat(errors)
