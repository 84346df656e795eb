"""Proper scores, calibration and out-of-distribution detection as torchmetrics metrics.

Import this module by name (``from varbnn.predict.metrics import Brier``): torchmetrics brings matplotlib, so `import
varbnn` leaves both alone. The scores keep sums or bin counts, never predictions; detection needs every score.
Sums run in float64. A batch of zero inputs changes nothing. Further keywords go to `torchmetrics.Metric`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC
from torchmetrics.utilities import dim_zero_cat

from varbnn.checks import Values, as_tensor, finite_number, whole_number
from varbnn.errors import InputError
from varbnn.predict.checks import as_labels, as_probability_rows

__all__ = ["NegativeLogLikelihood", "Brier", "ExpectedCalibrationError", "FPR95", "ood_auroc"]

SMALLEST = torch.finfo(torch.float32).tiny  # 1.18e-38, where float32 begins to lose digits and then reaches 0


class MeanOverInputs(Metric):
    """A score per input, summed; `compute` gives the mean over all inputs seen, NaN before the first."""

    is_differentiable: ClassVar[bool] = False  # type: ignore[misc]
    higher_is_better: ClassVar[bool] = False  # type: ignore[misc]
    full_state_update: ClassVar[bool] = False  # type: ignore[misc]

    num_inputs: Tensor

    def __init__(self, setting: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Named by class and setting: MetricCollection merges metrics whose states have equal names and, after one
        # batch, equal values.
        self._sum = f"{type(self).__name__}{setting}_sum"
        self.add_state(self._sum, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_inputs", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probs: Values, target: Values) -> None:
        """Add a batch: probabilities N×C, class labels N.

        Raises:
            InputError: not distributions, or labels that do not fit; nothing is added then.
        """
        rows = as_probability_rows(probs)
        labels = as_labels(target, rows.shape[0], rows.shape[1], "target").to(rows.device)
        added = self.scores(rows, labels).sum(dtype=torch.float64)
        setattr(self, self._sum, getattr(self, self._sum) + added)
        self.num_inputs += len(rows)

    def scores(self, rows: Tensor, labels: Tensor) -> Tensor:
        """The score of each input, N, from checked probabilities N×C and labels N."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """Mean score, a float64 scalar."""
        score_sum: Tensor = getattr(self, self._sum)
        return score_sum / self.num_inputs


class NegativeLogLikelihood(MeanOverInputs):
    """Mean of -log p(label), nats per input, at least 0.

    Args:
        floor: probabilities below it count as `floor`, so that one impossible label costs 87 nats and not infinity.
            0 gives infinity.

    >>> metric = NegativeLogLikelihood()
    >>> metric.update([[0.5, 0.5], [0.0, 1.0]], [0, 1])
    >>> print(f"{metric.compute():.4f}")
    0.3466
    """

    def __init__(self, floor: float = SMALLEST, **kwargs: Any) -> None:
        floor = finite_number("floor", floor, least=0, most=1 - 2**-53, note=", for a label costs at most -log(floor)")
        super().__init__(setting=f"_{floor}", **kwargs)
        self.floor = floor

    def scores(self, rows: Tensor, labels: Tensor) -> Tensor:
        """-log p(label) of each input."""
        of_label = rows.gather(1, labels[:, None]).squeeze(1).double()
        return (0 - of_label.clamp_min(self.floor).log()).clamp_min(0)  # a sum within tolerance may put p above 1


class Brier(MeanOverInputs):
    """Mean squared distance between the probabilities and the one-hot label, summed over the classes; in [0, 2].

    For two classes it is twice the one-sided Brier score that scikit-learn gives.
    Source: Brier 1950, eq. 2.

    >>> metric = Brier()
    >>> metric.update([[1.0, 0.0], [1.0, 0.0]], [0, 1])
    >>> metric.compute().item()
    1.0
    """

    def scores(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Squared distance of each row from its corner."""
        distance = rows.to(torch.float64, copy=True)
        distance[torch.arange(len(rows), device=rows.device), labels] -= 1
        return distance.square_().sum(1)


class ExpectedCalibrationError(Metric):
    """Gap between confidence and accuracy, averaged over equal-width bins of the confidence; in [0, 1].

        ece = Σ_b n_b/N · |accuracy_b - confidence_b|,   bin b holds the inputs with confidence in ((b-1)/B, b/B]

    The confidence is the largest probability, the label its first class. Edges are compared in float32, so that a
    confidence of 0.2 belongs to the bin that ends at 0.2 in every dtype. A confidence of exactly 1 lies in the last
    bin; torchmetrics 1.9 opens one more for it and then disagrees with the definition (torchmetrics issue 3510).

    Args:
        bins: B.

    Source: Naeini et al. 2015; Guo et al. 2017, eq. 3.

    >>> metric = ExpectedCalibrationError(bins=10)
    >>> metric.update([[0.0, 1.0], [0.05, 0.95]], [1, 0])  # both in (0.9, 1], one right
    >>> print(f"{metric.compute():.3f}")
    0.475
    """

    is_differentiable: ClassVar[bool] = False  # type: ignore[misc]
    higher_is_better: ClassVar[bool] = False  # type: ignore[misc]
    full_state_update: ClassVar[bool] = False  # type: ignore[misc]

    counts: Tensor
    confidence_sum: Tensor
    correct_sum: Tensor

    def __init__(self, bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins = whole_number("bins", bins, note=" (15 is usual)")
        self.add_state("counts", torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("confidence_sum", torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("correct_sum", torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probs: Values, target: Values) -> None:
        """Add a batch: probabilities N×C, class labels N.

        Raises:
            InputError: not distributions, or labels that do not fit; nothing is added then.
        """
        rows = as_probability_rows(probs)
        labels = as_labels(target, rows.shape[0], rows.shape[1], "target").to(rows.device)
        confidence, predicted = rows.max(1)
        index = bin_of(confidence, self.bins)
        self.counts.index_add_(0, index, torch.ones_like(confidence, dtype=torch.float64))
        self.confidence_sum.index_add_(0, index, confidence.double())
        self.correct_sum.index_add_(0, index, (predicted == labels).double())

    def compute(self) -> Tensor:
        """The error, a float64 scalar; NaN before the first input."""
        return (self.confidence_sum - self.correct_sum).abs().sum() / self.counts.sum()


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """Which of the equal-width bins ((b-1)/B, b/B] each confidence lies in, from 0, compared in float32."""
    inner = (torch.arange(1, bins, dtype=torch.float64, device=confidence.device) / bins).float()
    return torch.bucketize(confidence.float(), inner)  # counts the edges below: an edge belongs to the bin it ends


class FPR95(Metric):
    """Share of foreign inputs that are accepted when 95 % of the familiar ones are; in [0, 1].

    "Positive" is the familiar input (in distribution), "accepted" means uncertainty ≤ threshold, and the threshold is
    the smallest that accepts at least 95 % of the familiar inputs. Inputs tied with the threshold are accepted. 0.95 is
    chance, 0 is perfect. Keeps all scores (one number per input): the quantile needs them.

    Source: Hendrycks & Gimpel 2017 and the tables after it (there often with confidence as the score).

    >>> metric = FPR95()
    >>> metric.update([0.1, 0.2, 0.3, 0.2, 0.9], [False, False, False, True, True])
    >>> metric.compute().item()
    0.5
    """

    is_differentiable: ClassVar[bool] = False  # type: ignore[misc]
    higher_is_better: ClassVar[bool] = False  # type: ignore[misc]
    full_state_update: ClassVar[bool] = False  # type: ignore[misc]

    familiar: list[Tensor]
    foreign: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("familiar", [], dist_reduce_fx="cat")
        self.add_state("foreign", [], dist_reduce_fx="cat")

    def update(self, uncertainty: Values, is_ood: Values) -> None:
        """Add a batch: uncertainties N (larger is less sure), and N booleans that are true for foreign inputs.

        Raises:
            InputError: another shape, NaN, or a mask that is not boolean.
        """
        scores, mask = as_tensor(uncertainty, "uncertainty"), as_tensor(is_ood, "is_ood")
        if scores.ndim != 1 or scores.shape != mask.shape or (len(mask) and mask.dtype != torch.bool):
            raise InputError(
                f"uncertainty and is_ood must be N numbers and N booleans, got {tuple(scores.shape)} {scores.dtype} "
                f"and {tuple(mask.shape)} {mask.dtype}"
            )
        if scores.isnan().any():
            raise InputError("uncertainty holds NaN, which has no order; look for a diverged network")
        mask = mask.bool().to(scores.device)
        self.familiar.append(scores[~mask].double())
        self.foreign.append(scores[mask].double())

    def compute(self) -> Tensor:
        """The rate, a float64 scalar; NaN while one of the two groups is empty."""
        familiar, foreign = (
            dim_zero_cat(group) if len(group) else torch.empty(0) for group in (self.familiar, self.foreign)
        )
        if len(familiar) == 0 or len(foreign) == 0:
            return torch.tensor(torch.nan, dtype=torch.float64)
        accepted = -(-95 * len(familiar) // 100)  # ceiling in integers: 0.95 * n is not always what it should be
        threshold = familiar.kthvalue(accepted).values
        return (foreign <= threshold).double().mean()


def ood_auroc(familiar: Values, foreign: Values) -> float:
    """Probability that a foreign input is less sure than a familiar one, ties counting half; through `BinaryAUROC`.

    Args:
        familiar, foreign: uncertainties in and out of distribution, any scale.

    Raises:
        InputError: no axis or several, nothing in one of the two, or NaN, which has no order.

    >>> ood_auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
    0.875
    """
    familiar, foreign = _scores(familiar, "familiar"), _scores(foreign, "foreign")
    scores = torch.cat([familiar, foreign.to(familiar.device)])
    # BinaryAUROC squashes scores outside [0, 1] by a sigmoid, which makes new ties; ranks keep the order and the ties.
    _, ranks = scores.unique(return_inverse=True)
    is_foreign = torch.arange(len(scores), device=scores.device) >= len(familiar)
    metric = BinaryAUROC().to(scores.device)
    metric.update(ranks.double() / max(int(ranks.max()), 1), is_foreign.long())
    return float(metric.compute())


def _scores(values: Values, name: str) -> Tensor:
    scores = as_tensor(values, name).double()
    if scores.ndim != 1 or len(scores) == 0:
        raise InputError(f"{name} must be the uncertainties of N ≥ 1 inputs, got shape {tuple(scores.shape)}")
    if scores.isnan().any():
        raise InputError(f"{name} holds NaN, which has no order; look for a diverged network")
    return scores
