"""Which inputs of a stream to label: each is labelled when it comes, or never, and none is kept."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from varbnn.active.scores import ACQUISITIONS, Acquisition
from varbnn.checks import finite_number, optional_generator
from varbnn.errors import CheckpointError, InputError
from varbnn.packed import AveragePrediction
from varbnn.predict import Prediction
from varbnn.predict.uncertainty import require_classes

DECADES = 3.0
"""From nothing saved to all that can be, the bar falls by so many powers of ten: more than scores that matter span."""

WHOLE = 1 - 1e-10
"""Saved, it is a label: ten times 0.1 add up to less than 1 in floating point."""


class StreamQuery:
    """Decides for every input of a stream whether its label is worth asking for.

        threshold   ask where score ≥ threshold
        budget      every input saves `budget` of a label, up to `reserve` labels, and a label costs 1. Ask where
                    score ≥ bar and a whole label is saved; of all scores possible,
                    bar = lowest + (highest - lowest) · 10^(-3 · saved / reserve)
        both        the bar does not fall below the threshold

    What is saved is budget · seen - labels used, the sum over all inputs of how far asking fell short of its share; so
    the bar is under integral control. Where inputs worth asking are many, it settles at the score that the share
    `budget` of them exceeds; where they are few it falls, and the labels saved serve the next change of the stream.
    ``labels_used ≤ budget · seen`` holds at every moment, up to rounding, for any sequence of scores. An input that all
    networks agree about has the variation ratio 0 and is never asked about, whatever is saved.

    Args:
        budget: most labels per input, in (0, 1].
        threshold: least score that is asked about, in the unit of the score.
        acquisition: the score, a name from `varbnn.active.ACQUISITIONS`.
        reserve: most labels that can be saved, at least 1. Few follow the stream fast and roughly.
        generator: source of random scores; torch's global one when absent.

    Attributes:
        seen: inputs asked about so far, labelled or not.
        labels_used: labels asked for.
        saved: labels that can be spent now; infinite without a budget.

    Raises:
        InputError: neither budget nor threshold, a value out of range, or a generator that is none.

    >>> query = StreamQuery(threshold=0.3)
    >>> agree, split = [[0.9, 0.1], [0.9, 0.1]], [[0.6, 0.4], [0.2, 0.8]]
    >>> query.ask(Prediction([[agree[0], split[0]], [agree[1], split[1]]]))
    tensor([False,  True])
    >>> query
    StreamQuery('variation_ratio', threshold=0.3): 1 label for 2 inputs
    """

    def __init__(
        self,
        *,
        budget: float | None = None,
        threshold: float | None = None,
        acquisition: Acquisition = "variation_ratio",
        reserve: float = 20.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if budget is None and threshold is None:
            raise InputError("a query needs a budget (labels per input), a threshold (least score), or both")
        if budget is not None:
            budget = finite_number("budget", budget, above=0, most=1, note=", labels per input")
        if threshold is not None:
            threshold = finite_number("threshold", threshold, note=" in the unit of the score")
        if acquisition not in ACQUISITIONS:
            raise InputError(f"acquisition must be one of {', '.join(ACQUISITIONS)}, got {acquisition!r}")
        optional_generator(generator)
        self.reserve = finite_number("reserve", reserve, least=1, note=" of labels")
        self.budget, self.threshold, self.acquisition = budget, threshold, acquisition
        self.generator = generator
        self.seen = self.labels_used = 0
        self.saved = math.inf if budget is None else 0.0

    def ask(self, prediction: Prediction | AveragePrediction) -> Tensor:
        """Decide about the inputs of `prediction`, one after the other, and count.

        Args:
            prediction: for N inputs; from the draws that a training step makes anyway, or from any others.

        Returns:
            bool N, on the device of the prediction: label these, now.

        Raises:
            InputError: no prediction, an averaged one for the variation ratio, or one network for a score of how
                networks disagree. Nothing is counted then.
        """
        require_classes(prediction)
        scores: list[float] = ACQUISITIONS[self.acquisition](prediction, self.generator).tolist()
        mask = [self._decide(score, prediction.num_classes) for score in scores]
        return torch.tensor(mask, dtype=torch.bool, device=prediction.mean.device)

    def bar(self, num_classes: int) -> float:
        """The least score that would be asked about now, where a whole label is saved."""
        least = -math.inf if self.threshold is None else self.threshold
        if self.budget is None:
            return least
        lowest, highest = _range(self.acquisition, num_classes)
        return max(least, lowest + (highest - lowest) * math.pow(10.0, -DECADES * self.saved / self.reserve))

    def _decide(self, score: float, num_classes: int) -> bool:
        self.seen += 1
        if self.budget is not None:
            self.saved = min(self.saved + self.budget, self.reserve)
        asked = score >= self.bar(num_classes) and self.saved >= WHOLE
        if asked:
            self.labels_used += 1
            self.saved = max(self.saved - 1, 0.0)
        return asked

    def state_dict(self) -> dict[str, Any]:
        """All it takes to go on with the stream: plain values, and the generator's state if it has one of its own."""
        counted = {"seen": self.seen, "labels_used": self.labels_used, "saved": self.saved}
        generator = None if self.generator is None else self.generator.get_state()
        return {"settings": self._settings(), **counted, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the query was whose `state_dict` this is.

        Raises:
            CheckpointError: it had other settings, or is no such state. The query is as it was then.
        """
        names = {"settings", "seen", "labels_used", "saved", "generator"}
        if not isinstance(state, dict) or state.keys() != names:
            raise CheckpointError(f"the state of a query is a dict of {', '.join(sorted(names))}")
        if state["settings"] != self._settings():
            raise CheckpointError(
                f"this query has the settings {self._settings()}, the state was saved with {state['settings']}; "
                "make the query as it was made then"
            )
        seen, used, saved = state["seen"], state["labels_used"], state["saved"]
        most = math.inf if self.budget is None else self.reserve
        fits = _count(seen) and _count(used) and _number(saved) and 0 <= saved <= most
        if not fits or used > (seen if self.budget is None else self.budget * seen * (1 + 1e-9)):
            raise CheckpointError(f"a query cannot have seen {seen!r} inputs, used {used!r} labels and saved {saved!r}")
        if (state["generator"] is None) != (self.generator is None):
            raise CheckpointError("one of query and state has a random generator of its own, the other has none")
        if self.generator is not None:
            try:
                self.generator.set_state(state["generator"])
            except (TypeError, RuntimeError) as error:
                raise CheckpointError(f"the generator's state of this query cannot be taken: {error}") from None
        self.seen, self.labels_used, self.saved = seen, used, float(saved)

    def _settings(self) -> dict[str, Any]:
        return {
            "budget": self.budget,
            "threshold": self.threshold,
            "acquisition": self.acquisition,
            "reserve": self.reserve,
        }

    def __repr__(self) -> str:
        limits = {"budget": self.budget, "threshold": self.threshold}
        given = "".join(f", {name}={value:g}" for name, value in limits.items() if value is not None)
        labels, inputs = "label" + "s" * (self.labels_used != 1), "input" + "s" * (self.seen != 1)
        return f"StreamQuery({self.acquisition!r}{given}): {self.labels_used} {labels} for {self.seen} {inputs}"


def _range(score: str, num_classes: int) -> tuple[float, float]:
    """Lowest and highest value that `score` can have."""
    if score in ("bald", "entropy"):
        return 0.0, math.log(num_classes)
    return (-1.0, 0.0) if score == "margin" else (0.0, 1.0)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
