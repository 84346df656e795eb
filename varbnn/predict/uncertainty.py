"""What S sampled networks say about N inputs, and how unsure they are: together, each by itself, of one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import Values, as_tensor
from varbnn.errors import InputError
from varbnn.packed import AveragePrediction
from varbnn.packed.ensemble import mutual_information
from varbnn.predict.checks import at_least_float32, check_probability_rows, tolerance_of


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Prediction:
    """Class probabilities of S networks for N inputs, samples first; never merged with the batch.

    With p_s the row of network s and p̄ their mean over s, in nats per input:

        total      H(p̄)            entropy of the mean: how unsure the ensemble is
        aleatoric  mean_s H(p_s)    how unsure each network is by itself
        epistemic  total - aleatoric ≥ 0    how much they disagree (mutual information of label and network)

    Args:
        probs: S×N×C tensor, array or nested lists, rows summing to 1 within 1e-3. Anyone's will do. Memory is shared,
            not copied (half precision becomes float32); the device is kept.

    Results have the dtype of `probs`; sums run in float64, one sample at a time, so that nothing of size S×N×C is made.

    Raises:
        InputError: not three-dimensional, S or N = 0, C < 2, not floating, NaN, negative, or rows that do not sum to 1.

    Source: total and epistemic as in Depeweg et al. 2018, eq. 3; mutual information as in Houlsby et al. 2011 (BALD).

    >>> sure_but_split = Prediction([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> sure_but_split
    Prediction(2 samples × 1 input × 2 classes, float64)
    >>> print(
    ...     f"{sure_but_split.total.item():.4f} = {sure_but_split.aleatoric.item():.4f} aleatoric"
    ...     f" + {sure_but_split.epistemic.item():.4f} epistemic"
    ... )
    0.6931 = 0.0000 aleatoric + 0.6931 epistemic
    """

    probs: Tensor

    def __init__(self, probs: Values) -> None:
        probs = as_tensor(probs, "probs")
        if probs.ndim == 2:
            raise InputError(
                f"probs must be S×N×C (samples × inputs × classes), got N×C = {tuple(probs.shape)}. "
                "For a single network pass probs[None]."
            )
        if probs.ndim != 3 or 0 in probs.shape or probs.shape[2] < 2:
            raise InputError(
                "probs must be S×N×C (samples × inputs × classes) with S ≥ 1, N ≥ 1, C ≥ 2, "
                f"got shape {tuple(probs.shape)}. Write one probability p as the two columns 1 - p, p."
            )
        if not probs.is_floating_point():
            raise InputError(f"probs must be floating point, got {probs.dtype}; call .float() on one-hot rows")
        given, probs = probs.dtype, at_least_float32(probs)
        for index, rows in enumerate(probs):  # one at a time: the masks of a check are as large as what it checks
            check_probability_rows(rows, f"probs[{index}]", tolerance_of(given))
            if given != probs.dtype:
                rows /= rows.sum(1, keepdim=True)  # a copy by now; its rounding would be refused later
        object.__setattr__(self, "probs", probs)

    @property
    def num_samples(self) -> int:
        """S, how many networks voted."""
        return self.probs.shape[0]

    @property
    def num_classes(self) -> int:
        """C."""
        return self.probs.shape[2]

    @property
    def mean(self) -> Tensor:
        """Mean over the samples, N×C: the predictive distribution."""
        return self._mean64().to(self.probs.dtype)

    @property
    def labels(self) -> Tensor:
        """Most probable class of the mean, N, int64; among equals the first."""
        return self._mean64().argmax(-1)

    @property
    def confidence(self) -> Tensor:
        """Largest probability of the mean, N, in [1/C, 1]."""
        return self._mean64().amax(-1).to(self.probs.dtype)

    @property
    def total(self) -> Tensor:
        """Entropy of the mean, N, nats in [0, log C]."""
        return _entropy(self._mean64()).to(self.probs.dtype)

    @property
    def aleatoric(self) -> Tensor:
        """Mean entropy of the samples, N, nats in [0, total]."""
        return self._aleatoric64().to(self.probs.dtype)

    @property
    def epistemic(self) -> Tensor:
        """Mutual information of label and network, N, nats in [0, log min(C, S)]; exactly 0 where all agree."""
        roundings = 4 + self.num_samples / 4  # of float64, where sums over S were up to S / 8 roundings off
        found = mutual_information(_entropy(self._mean64()), self._aleatoric64(), roundings)
        return found.to(self.probs.dtype)

    def numpy(self) -> np.ndarray[Any, np.dtype[Any]]:
        """`probs` as an S×N×C array; shares memory with a CPU tensor."""
        array: np.ndarray[Any, np.dtype[Any]] = self.probs.cpu().numpy()
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]:
        """The same for numpy's functions, but for those that ask for a method of their name (`numpy.mean`)."""
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __len__(self) -> int:
        """N, the number of inputs."""
        return self.probs.shape[1]

    def __getitem__(self, index: Any) -> Prediction:
        """The same networks' predictions for some inputs: an integer, slice, list, label or boolean tensor over N.

        >>> pred = Prediction(torch.full((4, 10, 2), 0.5))
        >>> pred[2:5], pred[0]
        (Prediction(4 samples × 3 inputs × 2 classes, float32), Prediction(4 samples × 1 input × 2 classes, float32))
        """
        return Prediction(self.probs[:, input_index(index, len(self))])

    def __repr__(self) -> str:
        samples, inputs, classes = self.probs.shape
        dtype = str(self.probs.dtype).removeprefix("torch.")
        return f"Prediction({count(samples, 'sample')} × {count(inputs, 'input')} × {classes} classes, {dtype})"

    def __str__(self) -> str:
        total, aleatoric = _entropy(self._mean64()).mean().item(), self._aleatoric64().mean().item()
        return (
            f"{self!r}\nuncertainty per input, nats: {total:.4f} total = {aleatoric:.4f} aleatoric "
            f"+ {max(total - aleatoric, 0.0):.4f} epistemic"
        )

    def _mean64(self) -> Tensor:
        return mean64(self.probs)

    def _aleatoric64(self) -> Tensor:
        accumulated = torch.zeros(self.probs.shape[1], dtype=torch.float64, device=self.probs.device)
        for rows in self.probs:
            accumulated += _entropy(rows.double())
        return accumulated / self.num_samples


def mean64(samples: Tensor) -> Tensor:
    """Mean over the first axis in float64, one sample at a time: .mean(dtype=float64) would copy all of them first.

    >>> mean64(torch.tensor([[1.0], [2.0]]))
    tensor([1.5000], dtype=torch.float64)
    """
    accumulated = torch.zeros(samples.shape[1:], dtype=torch.float64, device=samples.device)
    for sample in samples:
        accumulated += sample
    return accumulated / len(samples)


def input_index(index: Any, num_inputs: int) -> slice | Tensor:
    """`index` over the inputs such that the axis stays: an integer becomes a slice of one.

    Raises:
        InputError: more than one index, no index, no input, a mask of another length.
        IndexError: an integer outside the inputs (which is also what ends a loop over a prediction).
    """
    if isinstance(index, tuple) or index is None or index is Ellipsis:
        raise InputError(
            "index the inputs only: pred[3], pred[10:20], pred[mask]; for samples or classes index pred.probs"
        )
    if isinstance(index, slice):
        try:
            chosen = range(num_inputs)[index]
        except (TypeError, ValueError) as error:
            raise InputError(f"index the inputs with a slice of integers, got {index}: {error}") from None
        if len(chosen) == 0:
            raise InputError(f"{index} selects none of {num_inputs} inputs; a prediction needs N ≥ 1")
        return index if chosen.step > 0 else torch.tensor(chosen)
    if isinstance(index, int | np.integer) and not isinstance(index, bool):
        start = range(num_inputs)[index]
        return slice(start, start + 1)
    places = as_tensor(index, "an index of inputs").cpu()
    if places.numel() == 0 or places.ndim > 1:
        raise InputError(
            f"an index of inputs must be an integer, a slice or one axis of N ≥ 1 integers, got shape "
            f"{tuple(places.shape)}"
        )
    if places.is_floating_point() or (places.dtype == torch.bool and places.ndim == 0):
        raise InputError(f"index the inputs with integers or a mask, got {str(places.dtype).removeprefix('torch.')}")
    if places.dtype == torch.bool:
        if len(places) != num_inputs or not bool(places.any()):
            raise InputError(
                f"a mask must choose at least one of the {num_inputs} inputs, got {len(places)} values, "
                f"{int(places.sum())} of them true"
            )
        return places
    places = places.long()  # torch takes bytes for a mask, and knows few kinds of integers
    if not -num_inputs <= int(places.min()) <= int(places.max()) < num_inputs:
        raise IndexError(f"an index lies outside the {num_inputs} inputs: {int(places.min())} … {int(places.max())}")
    return input_index(int(places), num_inputs) if places.ndim == 0 else places


def _entropy(probs: Tensor) -> Tensor:
    """Entropy over the last axis in nats; 0 log 0 = 0 exactly."""
    return (0 - torch.xlogy(probs, probs).sum(-1)).clamp_min(0)  # 0 - x, not -x: a sure row has entropy 0, not -0


def count(number: int, noun: str) -> str:
    """`number` and `noun`, with the plural's s.

    >>> count(1, "input"), count(2, "input")
    ('1 input', '2 inputs')
    """
    return f"{number} {noun}" + "s" * (number != 1)


Averaged = Prediction | AveragePrediction
"""What has a mean, `labels` and uncertainties, which is enough for most measures."""

INSTEAD = {
    "RegressionPrediction": "for regression see its interval, varbnn.evaluate and varbnn.NoiseScaling",
    "AveragePrediction": "this needs what each network says: varbnn.predict(packed, x)",
}


def require_classes(prediction: object, *, each: bool = False) -> None:
    """Raise InputError unless `prediction` is of class probabilities, with `each` those of each network."""
    if not isinstance(prediction, Prediction if each else Averaged):
        kind = type(prediction).__name__
        advice = INSTEAD.get(kind, "wrap S×N×C: Prediction(probs), of logits Prediction(logits.softmax(-1))")
        raise InputError(f"prediction must be a Prediction, of class probabilities, got {kind}; {advice}")


def mean_of(prediction: Averaged) -> Tensor:
    """Class probabilities averaged over the networks, N×C, float64."""
    return prediction.mean.double() if isinstance(prediction, AveragePrediction) else mean64(prediction.probs)
