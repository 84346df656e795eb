"""Choose what to label next: the inputs that the sampled networks know least about.

    pool = active.Pool(len(x), start=20, generator=generator)
    while len(pool.labelled) < 200:
        model = train(x[pool.labelled], y[pool.labelled])                       # your own function
        pool.query(vb.predict(model, x[pool.unlabelled], refresh_bn=x), 10)     # moves ten inputs, by BALD

A score is computed for every input by itself, and the inputs with the highest are taken. Several of them may be nearly
the same, so a batch tells less than the sum of its scores; few at a time, or a random share, is the remedy here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from varbnn.errors import InputError
from varbnn.predict import Prediction

__all__ = ["ACQUISITIONS", "Acquisition", "Pool", "bald", "entropy", "margin", "random", "top"]

Acquisition = Literal["bald", "entropy", "margin", "random"]


def bald(prediction: Prediction, generator: torch.Generator | None = None) -> Tensor:
    """Mutual information of label and network, N, nats: what the networks disagree about (`Prediction.epistemic`).

    Source: Houlsby et al. 2011; Gal, Islam & Ghahramani 2017, section 4.

    >>> agree_to_doubt, disagree = [[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]
    >>> bald(Prediction([agree_to_doubt, disagree])).round(decimals=2).tolist()
    [0.0, 0.69]
    """
    return prediction.epistemic


def entropy(prediction: Prediction, generator: torch.Generator | None = None) -> Tensor:
    """Entropy of the mean, N, nats: whatever is in doubt, badly written digits too (`Prediction.total`)."""
    return prediction.total


def margin(prediction: Prediction, generator: torch.Generator | None = None) -> Tensor:
    """Minus the lead of the most probable class of the mean over the second, N, in [-1, 0].

    Source: Scheffer, Decomain & Wrobel 2001.

    >>> margin(Prediction([[[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]]])).tolist()
    [-0.25, -0.5]
    """
    first, second = prediction.mean.topk(2, dim=-1).values.unbind(-1)
    return second - first


def random(prediction: Prediction, generator: torch.Generator | None = None) -> Tensor:
    """Uniform numbers, N: what every other score has to beat."""
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.rand(len(prediction), generator=generator, device=device)


ACQUISITIONS: dict[Acquisition, Callable[..., Tensor]] = {
    "bald": bald,
    "entropy": entropy,
    "margin": margin,
    "random": random,
}
"""Every score by its name; the higher, the more is learnt from the label."""


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores, highest first; among equals the earlier input, so the choice is definite.

    Raises:
        InputError: scores that are not N finite numbers, or a count outside 1 … N.

    >>> top(torch.tensor([0.1, 0.7, 0.3, 0.7]), 3).tolist()
    [1, 3, 2]
    """
    if scores.ndim != 1 or not bool(scores.isfinite().all()):
        raise InputError(f"scores must be N finite numbers, got shape {tuple(scores.shape)} or NaN or inf")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(scores):
        raise InputError(f"count must be an integer from 1 to {len(scores)}, the inputs there are, got {count!r}")
    return scores.sort(descending=True, stable=True).indices[:count]


class Pool:
    """Which of N inputs are labelled, and which could be.

    Args:
        size: N.
        start: how many are labelled at first, drawn at random; or their indices.
        generator: source of random starts and of the random acquisition; torch's global one when absent.

    Attributes:
        labelled: indices, int64, in the order in which they were labelled.
        unlabelled: the others, ascending.

    Raises:
        InputError: a start outside 1 … N, or indices that are not distinct or outside 0 … N-1.

    >>> pool = Pool(6, start=[4, 1])
    >>> prediction = Prediction([[[0.9, 0.1], [0.5, 0.5], [0.8, 0.2], [0.6, 0.4]]])  # for 0, 2, 3, 5
    >>> pool.query(prediction, 2, "entropy").tolist()
    [2, 5]
    >>> pool.labelled.tolist(), pool.unlabelled.tolist()
    ([4, 1, 2, 5], [0, 3])
    """

    def __init__(
        self, size: int, start: int | Sequence[int] | Tensor, generator: torch.Generator | None = None
    ) -> None:
        self.generator = generator
        if isinstance(start, int):
            if not 1 <= start <= size:
                raise InputError(f"start must be from 1 to {size}, the size of the pool, got {start}")
            device = generator.device if generator is not None else torch.device("cpu")
            chosen = torch.randperm(size, generator=generator, device=device)[:start].cpu()
        else:
            chosen = torch.as_tensor(start, dtype=torch.int64)
            inside = chosen.ndim == 1 and len(chosen) > 0 and int(chosen.min()) >= 0 and int(chosen.max()) < size
            if not inside or len(chosen.unique()) < len(chosen):
                raise InputError(f"start must be distinct indices from 0 to {size - 1}, at least one")
        self.labelled = chosen
        free = torch.ones(size, dtype=torch.bool)
        free[chosen] = False
        self.unlabelled = free.nonzero().squeeze(1)

    def query(self, prediction: Prediction, count: int, acquisition: Acquisition = "bald") -> Tensor:
        """Choose `count` inputs to label and count them as labelled.

        Args:
            prediction: for the unlabelled inputs, in the order of `unlabelled`.
            count: at most as many as are left.
            acquisition: by which score.

        Returns:
            Their indices in the pool, the most informative first.

        Raises:
            InputError: a prediction for another number of inputs, too large a count, an unknown acquisition.
        """
        if acquisition not in ACQUISITIONS:
            raise InputError(f"acquisition must be one of {', '.join(ACQUISITIONS)}, got {acquisition!r}")
        if len(prediction) != len(self.unlabelled):
            raise InputError(
                f"the prediction must be for the {len(self.unlabelled)} unlabelled inputs, got {len(prediction)}; "
                "predict x[pool.unlabelled]"
            )
        places = top(ACQUISITIONS[acquisition](prediction, self.generator).cpu(), count)
        chosen = self.unlabelled[places]
        kept = torch.ones(len(self.unlabelled), dtype=torch.bool)
        kept[places] = False
        self.unlabelled = self.unlabelled[kept]
        self.labelled = torch.cat([self.labelled, chosen])
        return chosen

    def __repr__(self) -> str:
        return f"Pool({len(self.labelled)} labelled, {len(self.unlabelled)} not)"
