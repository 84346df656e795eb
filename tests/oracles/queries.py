"""Which scores of a stream are asked about, written down from the words of the documentation."""

from __future__ import annotations

from fractions import Fraction


def follow(
    scores: list[float], lowest: float, highest: float, reserve: float,
    budget: float | None = None, threshold: float | None = None,
) -> list[bool]:  # fmt: skip
    """One decision per score; `lowest` and `highest` are the ends of the score."""
    asked: list[bool] = []
    saved = Fraction(0)  # ten times 0.1 are 1
    for score in scores:
        if budget is None:
            asked.append(score >= threshold)
            continue
        saved = min(Fraction(str(reserve)), saved + Fraction(str(budget)))
        bar = lowest + (highest - lowest) / 1000 ** float(saved / Fraction(str(reserve)))
        if threshold is not None and bar < threshold:
            bar = threshold
        asked.append(saved >= 1 and score >= bar)
        saved -= asked[-1]
    return asked
