"""Answer only when sure: how often the networks are wrong among the inputs they are surest of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from varbnn.checks import Values, finite_number
from varbnn.packed import AveragePrediction
from varbnn.predict.checks import as_labels
from varbnn.predict.evaluation import UNCERTAINTY, Score, require_score
from varbnn.predict.uncertainty import Prediction


@dataclass(frozen=True, eq=False, repr=False)
class RiskCoverage:
    """The share of wrong labels among the k surest of N inputs, for every k. Made by `risk_coverage`.

    Attributes:
        coverage: k/N for k = 1 … N, N, float64.
        risk: share of wrong labels among those k, N, float64. Among inputs that are equally sure it counts what a
            random order of them would give on average, so the order of the data does not matter.
    """

    coverage: Tensor
    risk: Tensor

    @property
    def area(self) -> float:
        """Mean risk over all coverages (AURC), in [0, 1], lower is better; a perfect ranking still has `least_area`."""
        return float(self.risk.mean())

    @property
    def least_area(self) -> float:
        """The area if every wrong label were less sure than every right one: what the accuracy alone decides."""
        number = len(self.risk)
        wrong = round(float(self.risk[-1]) * number)
        counts = torch.arange(1, number + 1, dtype=torch.float64)
        return float(((counts - (number - wrong)).clamp_min(0) / counts).mean())

    @property
    def excess_area(self) -> float:
        """`area` - `least_area`: what is lost by the ranking, whatever the accuracy (E-AURC); 0 is perfect."""
        return max(self.area - self.least_area, 0.0)

    def accuracy_at(self, coverage: float) -> float:
        """Accuracy on the surest inputs that make up at least the share `coverage`, in (0, 1].

        Raises:
            InputError: a coverage outside (0, 1].
        """
        coverage = finite_number("coverage", coverage, above=0, most=1, note=" (0.9 answers nine inputs in ten)")
        # the coverage itself is k/N in float64, so that 0.7 of 10 inputs finds 7 of them and not 8
        place = int(torch.searchsorted(self.coverage, torch.tensor(coverage, dtype=torch.float64) - 1e-12))
        return 1.0 - float(self.risk[place])

    def __repr__(self) -> str:
        return f"RiskCoverage({len(self.risk)} inputs, area {self.area:.4f}, of which {self.excess_area:.4f} in excess)"


def risk_coverage(
    prediction: Prediction | AveragePrediction, targets: Values, *, score: Score = "total"
) -> RiskCoverage:
    """How wrong the labels of the mean are when only the surest inputs are answered.

    Args:
        prediction: for N inputs, of each network or averaged.
        targets: N class labels.
        score: what counts as unsure: "total" or "epistemic" or "aleatoric" uncertainty, or lack of "confidence"
            (the largest mean probability).

    Raises:
        InputError: targets that do not fit, an unknown `score`, "epistemic" for one sample.

    Source: Geifman & El-Yaniv 2017; the areas as in Geifman, Uziel & El-Yaniv 2019, with the mean over k = 1 … N.

    >>> prediction = Prediction([[[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]])
    >>> curve = risk_coverage(prediction, [0, 1, 0, 1])  # the second surest is wrong
    >>> curve.risk.tolist(), curve.accuracy_at(0.75)
    ([0.0, 0.5, 0.3333333333333333, 0.25], 0.6666666666666667)
    >>> curve
    RiskCoverage(4 inputs, area 0.2708, of which 0.2083 in excess)
    """
    require_score(score, prediction)
    labels = as_labels(targets, len(prediction), prediction.num_classes).to(prediction.labels.device)
    wrong = (prediction.labels != labels).double().cpu()
    values, group, sizes = UNCERTAINTY[score](prediction).cpu().unique(return_inverse=True, return_counts=True)
    of_group = torch.zeros(len(values), dtype=torch.float64).index_add_(0, group, wrong) / sizes
    counts = torch.arange(1, len(wrong) + 1, dtype=torch.float64)
    return RiskCoverage(counts / len(wrong), of_group.repeat_interleave(sizes).cumsum(0) / counts)
