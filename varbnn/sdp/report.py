"""What became of a network that was made binary layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from varbnn.sdp.arguments import Array
from varbnn.text import table


@dataclass(frozen=True, eq=False)
class LayerReport:
    """One layer.

    Attributes:
        name, kind: dotted name and class.
        objectives: ‖y - α X w - bias‖² of each neuron, the bias only where the layer has one.
        lower_bounds: proved: no ±1 weights of that neuron with any scale (and bias) have less.
        energies: ‖y‖² of each neuron.
        xnor: ‖y - ᾱ X sign(v)‖² of each neuron, v the float weights and ᾱ their mean magnitude (Rastegari et al. 2016).
        scales: α of each neuron.
        rows: how many rows X has, the same for all.
        seconds: wall time.
    """

    name: str
    kind: str
    objectives: Array = field(repr=False)
    lower_bounds: Array = field(repr=False)
    energies: Array = field(repr=False)
    xnor: Array = field(repr=False)
    scales: Array = field(repr=False)
    rows: int
    seconds: float

    @property
    def error(self) -> float:
        """Σ objectives / Σ ‖y‖²: what the layer's outputs are off by, relative."""
        return _part(self.objectives, self.energies)

    @property
    def bound(self) -> float:
        """No ±1 weights and scales have a smaller `error`."""
        return _part(self.lower_bounds, self.energies)

    @property
    def xnor_error(self) -> float:
        return _part(self.xnor, self.energies)

    @property
    def gaps(self) -> Array:
        """(objective - lower bound) / objective of each neuron."""
        difference = np.maximum(self.objectives - self.lower_bounds, 0.0)
        return np.divide(difference, self.objectives, out=np.zeros_like(difference), where=self.objectives > 0)


@dataclass(frozen=True, eq=False)
class Report:
    """All layers, in the order in which the model uses them; print it for the table.

    Attributes:
        layers: one report for each layer that is binary now.
        left_real: why the others are not, by name.
        complete: False where the run was interrupted; started again with its state it goes on from there.
    """

    layers: tuple[LayerReport, ...]
    left_real: dict[str, str]
    complete: bool = True

    def __getitem__(self, name: str) -> LayerReport:
        found = {layer.name: layer for layer in self.layers}
        if name not in found:
            raise KeyError(f"no layer {name!r} was made binary; there are {', '.join(map(repr, found))}")
        return found[name]

    def __str__(self) -> str:
        head = ("layer", "type", "neurons", "rows", "XNOR error", "error", "at least", "mean gap", "seconds")
        cells = [
            (
                layer.name or "(model)", layer.kind, f"{len(layer.objectives):,}", f"{layer.rows:,}",
                f"{layer.xnor_error:.4f}", f"{layer.error:.4f}", f"{layer.bound:.4f}",
                f"{layer.gaps.mean():.1%}", f"{layer.seconds:.1f}",
            )
            for layer in self.layers
        ]  # fmt: skip
        lines = table([head, *cells], left=(0, 1)).split("\n")
        rule = "─" * max(map(len, lines))
        notes = [f"left real: {name or '(model)'} ({why})" for name, why in self.left_real.items()]
        notes += [] if self.complete else ["interrupted: the remaining layers are real"]
        return "\n".join([lines[0], rule, *lines[1:], rule, *notes])


def _part(values: Array, energies: Array) -> float:
    total = float(energies.sum())
    return float(values.sum()) / total if total > 0 else 0.0
