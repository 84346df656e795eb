"""The network: one saturating counter per weight, one integer threshold per hidden neuron, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from varbnn.checks import described, optional_generator, whole_number
from varbnn.errors import CheckpointError, InputError
from varbnn.integer.arithmetic import LARGEST_ERROR, PRODUCTS, integers, log2_root, matmul, require_exact, signs

FEWEST_BITS, MOST_BITS = 3, 8


class Counters(nn.Module):
    """The state of one layer, and the powers of two that its size asks for.

    Attributes:
        counter: int8, outputs × inputs; its sign is the weight, 0 is +1.
        threshold: int32, of each output; the head has none.
        ends: least and largest value of a counter.
        reach: how far from the threshold an error still passes: about √inputs, one deviation of a random sum.
        error_shift: that brings the errors of its outputs, summed over them, to about the size of one.
    """

    counter: Tensor
    threshold: Tensor | None

    def __init__(self, inputs: int, outputs: int, bits: int, head: bool, generator: torch.Generator | None) -> None:
        super().__init__()
        self.ends = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.reach = 2 ** log2_root(inputs)
        self.error_shift = log2_root(2 if head else outputs)  # two classes of the head have an error
        quarter, empty = 2 ** (bits - 3), torch.empty(outputs, inputs)
        self.register_buffer("counter", integers(-quarter, quarter, empty, generator).to(torch.int8))
        self.register_buffer("threshold", None if head else torch.zeros(outputs, dtype=torch.int32))

    def mode(self) -> Tensor:
        """The signs, int8."""
        return signs(self.counter)

    def drawn(self, spread: int, generator: torch.Generator | None) -> Tensor:
        """+1 where counter + u ≥ 0, u uniform on -spread … spread - 1; int8."""
        if spread == 0:
            return self.mode()
        return signs(self.counter + integers(-spread, spread, self.counter, generator))

    def centred(self, inputs: Tensor, weight: Tensor, products: str) -> Tensor:
        """Sums of the inputs, less the thresholds; int32."""
        sums = matmul(inputs, weight.T, products)
        return sums if self.threshold is None else sums - self.threshold

    def require_state(self, state_dict: Mapping[str, Any], prefix: str) -> None:
        """Raise CheckpointError if what `state_dict` holds for this layer is of another kind or size."""
        for name, own in self.named_buffers():
            value = state_dict.get(f"{prefix}{name}", own)
            if described(value) != described(own):
                raise CheckpointError(f"{prefix}{name} is {described(value)} in the state, and {described(own)} here")
        counter = state_dict.get(f"{prefix}counter")
        if counter is not None:
            found = int(counter.min()), int(counter.max())
            if found[0] < self.ends[0] or found[1] > self.ends[1]:
                raise CheckpointError(
                    f"{prefix}counter goes from {found[0]} to {found[1]}, and here from {self.ends[0]} to "
                    f"{self.ends[1]}; make a network of more bits"
                )
        threshold, most = state_dict.get(f"{prefix}threshold"), self.counter.shape[1]
        if threshold is not None and int(threshold.long().abs().max()) > most:
            raise CheckpointError(f"{prefix}threshold goes beyond ±{most}, the largest sum of this layer")


class IntegerNetwork(nn.Module):
    """A perceptron of ±1 weights and sign activations whose whole state, in training too, is integers.

    A weight is the sign of a counter that stays between -2^(bits-1) and 2^(bits-1) - 1. A hidden neuron is +1 where its
    sum of ±1 products reaches its threshold, else -1; the sums of the last layer are the scores of the classes.

    With a `spread` R the counter is a belief: in training every step draws the weight, +1 where counter + u ≥ 0 with u
    uniform on -R … R - 1. So P(+1) is the line (counter + R) / 2R cut off at 0 and 1, and the mean of the weight is
    counter / R, cut off at ±1.

    Args:
        widths: inputs, hidden layers, classes.
        bits: of a counter, 3 to 8; kept in int8.
        spread: R, at most 2^(bits-1), where the highest counter is still short of certain; 0 draws nothing.
        products: ``"float32"`` computes sums by exact products of whole numbers in float32, ``"int32"`` by integers
            (CPU only, slower). They agree to the bit.
        generator: of the first counters, uniform on the middle quarter of their range.

    The state says the spread as ``_extra_state``. A state of another spread, of other widths, or with counters beyond
    this range is refused by a CheckpointError, and nothing is loaded.

    Raises:
        InputError: an argument outside these, or layers so wide that `products` would not be exact.

    >>> network = IntegerNetwork([4, 8, 3], bits=4, generator=torch.Generator().manual_seed(0))
    >>> codes = torch.tensor([[1, -1, 1, 1]], dtype=torch.int8)
    >>> network(codes).shape
    torch.Size([1, 3])
    >>> {name: value.dtype for name, value in network.named_buffers()}
    {'layers.0.counter': torch.int8, 'layers.0.threshold': torch.int32, 'layers.1.counter': torch.int8}
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        bits: int = 8,
        spread: int = 0,
        products: str = "float32",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        optional_generator(generator)
        self.widths = _widths(widths, products)
        self.bits = whole_number("bits", bits, FEWEST_BITS, MOST_BITS)
        half = 2 ** (self.bits - 1)
        self.spread = whole_number("spread", spread, 0, half, note=", half the range of a counter")
        self.products = products
        sizes = list(pairwise(self.widths))
        self.layers = nn.ModuleList(
            Counters(inputs, outputs, self.bits, number == len(sizes), generator)
            for number, (inputs, outputs) in enumerate(sizes, 1)
        )
        self.margin = 4 * self.counters[-1].reach

    @property
    def counters(self) -> list[Counters]:
        """The layers, from the inputs on."""
        return cast(list[Counters], list(self.layers))

    def forward(self, codes: Tensor) -> Tensor:
        """Scores of the most probable network.

        Args:
            codes: int8, N×inputs, every one +1 or -1, as a `Thermometer` makes them.

        Returns:
            int32, N×classes.

        Raises:
            InputError: codes of another dtype, width or value.
        """
        self.require_codes(codes)
        return self.outputs(codes, [layer.mode() for layer in self.counters])[-1]

    def drawn(self, generator: torch.Generator | None = None) -> list[Tensor]:
        """One draw of all weights, ±1 in int8, layer by layer."""
        optional_generator(generator)
        return [layer.drawn(self.spread, generator) for layer in self.counters]

    def outputs(self, codes: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """The sums of every layer less its thresholds, int32, under these weights."""
        found: list[Tensor] = []
        for layer, weight in zip(self.counters, weights, strict=True):
            found.append(layer.centred(signs(found[-1]) if found else codes, weight, self.products))
        return found

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> list[Self]:
        """Networks drawn from the belief, each without doubt about itself: its counters are at their ends.

        Args:
            num_samples: how many.
            generator: of the draws; torch's global one when absent.

        Raises:
            InputError: `num_samples` below 1, or a generator that is none.

        >>> network = IntegerNetwork([4, 8, 3], spread=16)
        >>> [one.spread for one in network.sample(2)]
        [0, 0]
        """
        return [self._settled(generator) for _ in range(whole_number("num_samples", num_samples))]

    def _settled(self, generator: torch.Generator | None) -> Self:
        settled = copy.deepcopy(self)
        for layer, weight in zip(settled.counters, self.drawn(generator), strict=True):
            low, high = layer.ends
            layer.counter = torch.where(weight > 0, high, low).to(torch.int8)
        settled.spread = 0
        return settled

    def require_codes(self, codes: Tensor) -> None:
        """Raise InputError unless `codes` are int8 N×inputs of ±1."""
        dense = isinstance(codes, Tensor) and codes.layout is torch.strided
        if not dense or codes.dtype != torch.int8:
            raise InputError(
                f"codes must be a tensor of int8, +1 and -1, got {described(codes)}; a Thermometer makes them"
            )
        if codes.dim() != 2 or codes.shape[1] != self.widths[0]:
            raise InputError(f"codes must be N×{self.widths[0]}, got {tuple(codes.shape)}")
        if not bool((codes.abs() == 1).all()):
            raise InputError("codes must be +1 or -1 throughout; a Thermometer makes them")

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.spread, dtype=torch.int32)

    def set_extra_state(self, state: Tensor) -> None:
        spread = state.item() if isinstance(state, Tensor) and state.numel() == 1 else described(state)
        if spread != self.spread:
            raise CheckpointError(f"the state is of a network with spread={spread}, this one has {self.spread}")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        if not isinstance(state_dict, Mapping):
            raise CheckpointError(f"a state is a dictionary of tensors, got {described(state_dict)}")
        here, given = self.state_dict().keys(), state_dict.keys()
        if strict and here != given:  # torch would say so once the others are loaded
            raise CheckpointError(
                f"the state is not that of a network {'-'.join(map(str, self.widths))}: it lacks "
                f"{sorted(here - given) or 'nothing'} and has {sorted(given - here) or 'nothing'} besides"
            )
        return super().load_state_dict(state_dict, strict, assign)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.set_extra_state(state_dict.get(f"{prefix}_extra_state", self.get_extra_state()))
        for number, layer in enumerate(self.counters):  # all of them, before any is loaded
            layer.require_state(state_dict, f"{prefix}layers.{number}.")
        super()._load_from_state_dict(cast(dict[str, Any], state_dict), prefix, *args)

    def extra_repr(self) -> str:
        return f"{'-'.join(map(str, self.widths))}, bits={self.bits}, spread={self.spread}, products={self.products!r}"


def require_network(network: object) -> None:
    """Raise InputError unless it is an `IntegerNetwork`."""
    if not isinstance(network, IntegerNetwork):
        raise InputError(f"network must be an IntegerNetwork, got {described(network)}")


def _widths(widths: Sequence[int], products: str) -> tuple[int, ...]:
    """As Python's integers, if `products` are exact for layers so wide."""
    if not isinstance(widths, Sequence) or len(widths) < 2:
        raise InputError(f"widths must be inputs, hidden layers and classes, got {widths!r}")
    sizes = [whole_number("widths", width) for width in widths[:-1]]
    sizes.append(whole_number("widths", widths[-1], 2, note=" in the last place, the classes"))
    if products not in PRODUCTS:
        raise InputError(f"products must be one of {tuple(PRODUCTS)}, got {products!r}")
    for inputs, outputs in pairwise(sizes):
        require_exact(inputs, 1, products, f"{inputs:,} inputs")
        require_exact(outputs, LARGEST_ERROR, products, f"errors of {outputs:,} outputs")
    return tuple(sizes)
