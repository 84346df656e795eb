"""A plan copied step by step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from varbnn.packed.trace import Plan


@dataclass
class Rewrite:
    """Copies a plan step by step, leaving out or putting in."""

    old: Plan

    def __post_init__(self) -> None:
        self.new, self.values = Plan(), {0: 0}
        self.uses = [0] * (len(self.old.steps) + 1)
        for wire in [*self.old.wires, (self.old.output,)]:
            for value in wire:
                self.uses[value] += 1

    def only_use(self, value: int) -> bool:
        return self.uses[value] == 1

    def producer(self, value: int) -> nn.Module | None:
        return None if value == 0 else self.old.steps[value - 1]

    def keep(self, index: int, step: nn.Module, *inputs: int) -> int:
        """Copy step `index`, as `step`; returns its new value."""
        wire = inputs or tuple(self.values[value] for value in self.old.wires[index])
        self.values[index + 1] = self.new.add(step, *wire)
        return self.values[index + 1]

    def merge(self, index: int) -> None:
        """Leave step `index` out: its value is that of its input."""
        self.values[index + 1] = self.values[self.old.wires[index][0]]

    def done(self) -> Plan:
        self.new.output = self.values[self.old.output]
        return self.new
