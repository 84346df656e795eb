"""What a solver returns: ±1 weights, and a proved bound on how much better any others can be."""

from __future__ import annotations

from dataclasses import dataclass

from varbnn.sdp.arguments import Array


@dataclass(frozen=True, eq=False)
class Solution:
    """±1 weights with a certificate.

    Attributes:
        weights: ±1, (n,).
        objective: what is minimised, at `weights`.
        lower_bound: proved: no ±1 weights have a smaller objective. -inf where nothing was proved.
        rank: of the relaxation's solution; 1 says that it is a ±1 vector itself. 0 where none was solved.
        seconds: wall time.
        method: how `weights` were found and the bound was proved.
        scale: the factor α of ‖y - α X w‖²; 1 for other problems.
        complete: False where the search was interrupted: the best so far, with the bound so far.
    """

    weights: Array
    objective: float
    lower_bound: float
    rank: int
    seconds: float
    method: str
    scale: float = 1.0
    complete: bool = True

    @property
    def gap(self) -> float:
        """(objective - lower bound) / |objective|: 0 says optimal; no others are better by more than this part."""
        difference = max(self.objective - self.lower_bound, 0.0)
        return difference / abs(self.objective) if self.objective else (0.0 if difference == 0 else float("inf"))

    def __repr__(self) -> str:
        return (
            f"Solution({len(self.weights)} weights, objective {self.objective:.6g}, proved to be at least "
            f"{self.lower_bound:.6g} (gap {self.gap:.2g}), {self.method}, {self.seconds:.2g} s)"
        )
