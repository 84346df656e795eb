"""Which of a fixed set of inputs to label next.

A score is computed for every input by itself, and the inputs with the highest are taken. Several of them may be nearly
the same, so a batch tells less than the sum of its scores: ask for few at a time, or let `power` draw them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from varbnn.active.scores import Acquisition, Asked, drawn, require_count, scores_of, top
from varbnn.checks import Values, as_tensor, optional_generator, whole_number
from varbnn.errors import InputError


class Pool:
    """Which of N inputs are labelled, and which could be.

    Args:
        size: N.
        start: how many are labelled at first, drawn at random; or their indices.
        generator: source of random starts, of the random acquisition and of draws; torch's global one when absent.

    Attributes:
        labelled: indices, int64, in the order in which they were labelled.
        unlabelled: the others, ascending.

    Raises:
        InputError: a start outside 1 … N, indices that are not distinct or outside 0 … N-1, or a generator that is
            none.

    >>> from varbnn import Prediction
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
        optional_generator(generator)
        self.generator = generator
        size = whole_number("size", size)
        if not isinstance(start, Sequence | Tensor | np.ndarray) or getattr(start, "ndim", 1) == 0:
            number = whole_number("start", start, most=size, note=", the size of the pool, or indices")
            device = generator.device if generator is not None else torch.device("cpu")
            chosen = torch.randperm(size, generator=generator, device=device)[:number].cpu()
        else:
            chosen = as_tensor(start, "start")
            whole = not (chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool)
            chosen = chosen.to("cpu", torch.int64, copy=True)
            inside = (
                whole and chosen.ndim == 1 and len(chosen) > 0 and 0 <= int(chosen.min()) <= int(chosen.max()) < size
            )
            if not inside or len(chosen.unique()) < len(chosen):
                raise InputError(f"start must be distinct indices from 0 to {size - 1}, at least one")
        self.labelled = chosen
        free = torch.ones(size, dtype=torch.bool)
        free[chosen] = False
        self.unlabelled = free.nonzero().squeeze(1)

    def query(
        self,
        prediction: Asked,
        count: int,
        acquisition: Acquisition | Callable[[Asked], Values] = "bald",
        *,
        power: float | None = None,
    ) -> Tensor:
        """Choose `count` inputs to label and count them as labelled.

        Args:
            prediction: for the unlabelled inputs, in the order of `unlabelled`.
            count: at most as many as are left.
            acquisition: by which score: a name, or a function of one's own from the prediction to N finite numbers, the
                higher, the more is learnt. For regression, whose
                predictions have an axis of outputs, ``lambda p: p.epistemic.reshape(len(p), -1).sum(1)``.
            power: None takes the highest scores. A number draws, with probability ∝ score^power, so that a large batch
                is not all of a kind; 1 is the published one. Not for "margin", whose scores are negative.

        Returns:
            Their indices in the pool, the most informative first, or in the order in which they were drawn.

        Raises:
            InputError: a prediction for another number of inputs, too large a count, an unknown acquisition, one that
                does not give N finite numbers, or one of how networks disagree for one network, a power that is not
                positive or that the scores do not admit.

        >>> from varbnn import Prediction
        >>> pool, prediction = Pool(3, start=[1]), Prediction([[[0.9, 0.1], [0.5, 0.5]]])
        >>> pool.query(prediction, 1, lambda p: 1 - p.confidence).tolist()  # least confidence
        [2]
        """
        if len(prediction) != len(self.unlabelled):
            raise InputError(
                f"the prediction must be for the {len(self.unlabelled)} unlabelled inputs, got {len(prediction)}; "
                "predict x[pool.unlabelled]"
            )
        require_count(count, len(prediction))
        scores = scores_of(prediction, acquisition, self.generator)
        places = top(scores, count) if power is None else drawn(scores, count, power, self.generator)
        chosen = self.unlabelled[places]
        kept = torch.ones(len(self.unlabelled), dtype=torch.bool)
        kept[places] = False
        self.unlabelled = self.unlabelled[kept]
        self.labelled = torch.cat([self.labelled, chosen])
        return chosen

    def __repr__(self) -> str:
        return f"Pool({len(self.labelled)} labelled, {len(self.unlabelled)} not)"
