"""How much is learnt from the label of an input: scores of predictions, the higher the more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from varbnn.checks import Values, as_tensor, finite_number, optional_generator, whole_number
from varbnn.errors import InputError
from varbnn.packed import AveragePrediction
from varbnn.predict import Prediction, RegressionPrediction
from varbnn.predict.uncertainty import require_classes

Acquisition = Literal["bald", "entropy", "margin", "variation_ratio", "random"]
Asked = Prediction | AveragePrediction | RegressionPrediction
"""What can be scored: by name predictions of classes, by a function of one's own all."""
DISAGREEMENT = ("bald", "variation_ratio")
"""Scores of at least two networks."""
LARGEST_POWER = 1e300
"""Times the logarithm of the smallest number it is still finite."""


def bald(prediction: Prediction | AveragePrediction, generator: torch.Generator | None = None) -> Tensor:
    """Mutual information of label and network, N, nats: what the networks disagree about (`Prediction.epistemic`).

    Raises:
        InputError: one network, which has nobody to disagree with.

    Source: Houlsby et al. 2011; Gal, Islam & Ghahramani 2017, section 4.

    >>> agree_to_doubt, disagree = [[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]
    >>> bald(Prediction([agree_to_doubt, disagree])).round(decimals=2).tolist()
    [0.0, 0.69]
    """
    require_several("bald", prediction.num_samples)
    return prediction.epistemic


def entropy(prediction: Prediction | AveragePrediction, generator: torch.Generator | None = None) -> Tensor:
    """Entropy of the mean, N, nats: whatever is in doubt, badly written digits too (`Prediction.total`)."""
    return prediction.total


def margin(prediction: Prediction | AveragePrediction, generator: torch.Generator | None = None) -> Tensor:
    """Minus the lead of the most probable class of the mean over the second, N, in [-1, 0].

    Source: Scheffer, Decomain & Wrobel 2001.

    >>> margin(Prediction([[[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]]])).tolist()
    [-0.25, -0.5]
    """
    first, second = prediction.mean.topk(2, dim=-1).values.unbind(-1)
    return second - first


def variation_ratio(prediction: Prediction, generator: torch.Generator | None = None) -> Tensor:
    """Share of the networks that do not vote for the most probable class of the mean, N, in [0, 1].

    With S networks it has S + 1 values, so it can say that all agree, and that exactly. float64: 3 of 10 are 0.3.

    Raises:
        InputError: an averaged prediction, or one network.

    Source: Cottart et al. 2026. Freeman 1965 counts votes against the class with most votes, and is never larger.

    >>> variation_ratio(Prediction([[[0.9, 0.1]], [[0.6, 0.4]], [[0.2, 0.8]], [[0.7, 0.3]]])).tolist()
    [0.25]
    """
    require_classes(prediction, each=True)
    require_several("variation_ratio", prediction.num_samples)
    votes = prediction.probs.argmax(-1)
    return (votes != prediction.labels).sum(0).double() / len(votes)


def random(prediction: Asked, generator: torch.Generator | None = None) -> Tensor:
    """Uniform numbers, N: what every other score has to beat.

    Raises:
        InputError: a generator that is none.
    """
    optional_generator(generator)
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.rand(len(prediction), generator=generator, device=device)


ACQUISITIONS: dict[str, Callable[..., Tensor]] = {
    "bald": bald,
    "entropy": entropy,
    "margin": margin,
    "variation_ratio": variation_ratio,
    "random": random,
}
"""Every score by its name; the higher, the more is learnt from the label."""


def scores_of(
    prediction: Asked, acquisition: Acquisition | Callable[[Asked], Values], generator: torch.Generator | None = None
) -> Tensor:
    """Scores by name or by a function of one's own, N, on the CPU.

    Raises:
        InputError: an unknown name, one that asks how networks disagree where there is one, or a function that does not
            give one number per input.
    """
    if callable(acquisition):
        scores = as_tensor(acquisition(prediction), "the scores of the acquisition")
        if scores.shape != (len(prediction),):
            raise InputError(
                f"the acquisition must give one score for each of {len(prediction)} inputs, got shape "
                f"{tuple(scores.shape)}"
            )
    elif isinstance(acquisition, str) and acquisition in ACQUISITIONS:
        if acquisition != "random":
            require_classes(prediction)
        scores = ACQUISITIONS[acquisition](prediction, generator)
    else:
        known = ", ".join(ACQUISITIONS)
        raise InputError(f"acquisition must be one of {known}, or a function of the prediction, got {acquisition!r}")
    return scores.detach().cpu()


def require_several(acquisition: str, num_samples: int) -> None:
    """Raise InputError where one network shall be scored by how networks disagree: all scores would be 0."""
    if acquisition in DISAGREEMENT and num_samples == 1:
        raise InputError(
            f"{acquisition!r} is how much networks disagree, and one has nobody to disagree with; predict with "
            "num_samples ≥ 2, or take 'entropy' or 'margin'"
        )


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores, highest first; among equals the earlier input, so the choice is definite.

    Raises:
        InputError: scores that are not N finite numbers, or a count outside 1 … N.

    >>> top(torch.tensor([0.1, 0.7, 0.3, 0.7]), 3).tolist()
    [1, 3, 2]
    """
    _require_choice(scores, count)
    return scores.sort(descending=True, stable=True).indices[:count]


def drawn(scores: Tensor, count: int, power: float, generator: torch.Generator | None = None) -> Tensor:
    """Indices of `count` inputs, drawn one after the other with probability ∝ scores^power among those that are left.

    The highest scores of a batch are often of a kind; a draw spreads over all that score well. power → 0 takes any
    input with a score above 0, power → ∞ the highest. Scores of 0 come last, in random order.

    Source: Kirsch et al. 2023 ("PowerBALD", power 1); as there by Gumbel-top-k, here written as a race of exponential
    waiting times.

    Raises:
        InputError: as `top`; negative scores, a power that is not positive and finite, or a generator that is none.

    >>> drawn(torch.tensor([0.0, 1e-9, 3.0]), 3, power=2.0).tolist()
    [2, 1, 0]
    """
    power = finite_number("power", power, above=0, most=LARGEST_POWER, note=" (None takes the highest scores)")
    optional_generator(generator)
    _require_choice(scores, count)
    if bool((scores < 0).any()):
        raise InputError("power raises scores that are ≥ 0, as those of 'bald' and 'entropy'; these are negative")
    device = generator.device if generator is not None else torch.device("cpu")
    waiting = torch.empty(len(scores), dtype=torch.float64, device=device).exponential_(generator=generator)
    log_waiting = waiting.log().to(scores.device)
    random_order = log_waiting.argsort()
    arrival = (log_waiting - power * scores.double().log())[random_order]  # inf for a score of 0
    return random_order[arrival.sort(stable=True).indices][:count]


def _require_choice(scores: Tensor, count: int) -> None:
    if scores.ndim != 1 or not bool(scores.isfinite().all()):
        raise InputError(f"scores must be N finite numbers, got shape {tuple(scores.shape)} or NaN or inf")
    require_count(count, len(scores))


def require_count(count: object, most: int) -> None:
    """Raise InputError unless so many inputs can be chosen of `most`."""
    whole_number("count", count, most=most, note=", the inputs there are")
