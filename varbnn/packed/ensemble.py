"""Many sampled networks as one module with 1 bit per weight."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, Self, overload

import torch
from torch import Tensor, nn

from varbnn.errors import InputError, VarbnnError
from varbnn.nn.batchnorm import require_dense
from varbnn.packed.file import save
from varbnn.packed.program import Program, entering, is_numeric
from varbnn.packed.rows import FAILURES, Probe
from varbnn.packed.steps import PackedLinear, by_network

WORKING_BYTES = 2**23
"""Activations that are held at once, so that they stay in the caches; larger batches run in parts."""


@dataclass(frozen=True)
class AveragePrediction:
    """What many networks say together, without what each says.

    Attributes:
        mean: class probabilities averaged over the networks, N×C.
        aleatoric: entropy of each network's own probabilities, averaged over the networks, N, in nats.
        num_samples: S, how many networks.
    """

    mean: Tensor
    aleatoric: Tensor
    num_samples: int

    @property
    def num_classes(self) -> int:
        """C."""
        return self.mean.shape[1]

    @property
    def labels(self) -> Tensor:
        """Most probable class of the mean, N, int64; among equals the first."""
        return self.mean.argmax(-1)

    @property
    def confidence(self) -> Tensor:
        """Largest probability of the mean, N, in [1/C, 1]."""
        return self.mean.amax(-1)

    def __len__(self) -> int:
        """N, the number of inputs."""
        return len(self.mean)

    def __repr__(self) -> str:
        return f"AveragePrediction({len(self.mean)} inputs × {self.mean.shape[-1]} classes)"

    @property
    def total(self) -> Tensor:
        """Entropy of `mean`, N, in nats."""
        return 0 - torch.special.xlogy(self.mean, self.mean).sum(-1)  # not -x: a sure row has entropy 0, not -0

    @property
    def epistemic(self) -> Tensor:
        """Mutual information of label and weights, N, in nats: how much the networks disagree."""
        return mutual_information(self.total, self.aleatoric)


def mutual_information(total: Tensor, aleatoric: Tensor, roundings: float = 8) -> Tensor:
    """``total - aleatoric``, N, in nats; exactly 0 where so many roundings of 1 + total could make the difference.

    What `PackedEnsemble` says of 3 to 1000 equal networks is one rounding off.

    >>> mutual_information(torch.tensor([0.7, 0.7]), torch.tensor([0.6999996, 0.2]))
    tensor([0.0000, 0.5000])
    """
    difference = total - aleatoric
    return difference.masked_fill(difference <= roundings * torch.finfo(difference.dtype).eps * (1 + total), 0.0)


class PackedEnsemble(nn.Module):
    """S networks drawn from a posterior, with 1 bit per binary weight; made by `varbnn.pack`.

    Called with N inputs it gives S×N×C outputs, those of each network; with ``reduce="mean"`` the classifier's average
    over the networks, for which S×N×C is never held. Computes in float32 and has no gradient.
    """

    def __init__(self, program: Program, num_samples: int) -> None:
        super().__init__()
        self.program = program
        self.num_samples = num_samples
        self._row_bytes = 0  # of the largest value for one input; 0 until a call has looked

    @overload
    def forward(self, inputs: Tensor, reduce: None = None) -> Tensor: ...
    @overload
    def forward(self, inputs: Tensor, reduce: Literal["mean"]) -> AveragePrediction: ...
    def forward(self, inputs: Tensor, reduce: Literal["mean"] | None = None) -> Tensor | AveragePrediction:
        """What the networks say.

        Args:
            inputs: N inputs, any floating dtype; whole numbers where the model does (`nn.Embedding` first).
            reduce: ``None``, or ``"mean"`` for classifiers.

        Returns:
            ``float32`` S×N×…, or an `AveragePrediction`.

        Raises:
            InputError: inputs of another kind or shape than the networks take, or that hold NaN or inf, `reduce` on
                outputs that are not N×C or overflow.
        """
        if reduce not in (None, "mean"):
            raise InputError(f"reduce must be None or 'mean', got {reduce!r}")
        if not isinstance(inputs, Tensor) or not is_numeric(inputs) or inputs.dim() == 0:
            kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise InputError(f"a packed ensemble takes a tensor of inputs, floating or whole numbers, got {kind}")
        with torch.no_grad():
            given, tokens = inputs.dtype, not inputs.is_floating_point() and "tokens" in (self.program.takes() or {})
            inputs = inputs.long() if tokens else entering(inputs)
            if torch.compiler.is_compiling() or torch.compiler.is_exporting():
                return self._answer(inputs, reduce)
            require_dense(inputs, "the inputs")
            self.program.require_fit(inputs, given)
            if not bool(inputs.isfinite().all()):
                raise InputError("the inputs hold NaN or inf; clean or drop those rows")
            try:
                if len(inputs) == 0:  # one made up and left out: a reshape of nothing to (0, -1) has no answer
                    return _first(0, self._answer_to_one(inputs, reduce))
                return _joined((self._answer(part, reduce) for part in self._parts(inputs)), len(inputs))
            except FAILURES as error:
                if _is_no_fault_of_inputs(error):
                    raise
                what = f"these networks fail on inputs of shape {' × '.join(map(str, inputs.shape))}"
                raise InputError(f"{what}: {str(error).partition(chr(10))[0]}") from error

    def _parts(self, inputs: Tensor) -> list[Tensor]:
        if self._row_bytes == 0 and (problem := self.examine(inputs)) is not None:
            raise InputError(problem)
        rows = max(1, WORKING_BYTES // max(1, self._row_bytes))
        return [inputs] if len(inputs) <= rows else list(inputs.split(rows))

    def examine(self, inputs: Tensor) -> str | None:
        """Run two of `inputs` and see whether every step treats them independently; done by itself at the first call.

        Returns:
            What does not, in a sentence; None where all is well.
        """
        with torch.no_grad():
            probe = Probe(self.program.steps, self.program.wires, self.num_samples).run(entering(inputs))
        self._row_bytes = probe.row_bytes if probe.problem is None else 0
        return probe.problem

    def _answer_to_one(self, inputs: Tensor, reduce: str | None) -> Tensor | AveragePrediction:
        """To an input of that shape that the model can take."""
        one = inputs.new_zeros((1, *inputs.shape[1:]))
        if inputs.is_floating_point():
            return self._answer(one, reduce)
        try:
            return self._answer(one + 1, reduce)  # token 0 is often padding, which a model may mask
        except IndexError:  # there is no token 1
            return self._answer(one, reduce)

    def _answer(self, inputs: Tensor, reduce: str | None) -> Tensor | AveragePrediction:
        if reduce is None:
            outputs = self.program(inputs)
            rows = self.num_samples * inputs.shape[0]
            if not isinstance(outputs, Tensor) or outputs.dim() == 0 or outputs.shape[0] != rows:
                raise InputError(f"the model must return one row per input, got {_shape(outputs, self.num_samples)}")
            return by_network(outputs.float(), self.num_samples)
        steps, wires, output = self.program.steps, self.program.wires, self.program.output
        last = steps[output - 1]
        if isinstance(last, PackedLinear) and last.activation == "none" and not last.int8:
            before = self.program.run(inputs, wires[output - 1][0])
            if before.dim() == 2 and last.out_features > 1:
                return AveragePrediction(*last.predictive(before), self.num_samples)
        logits = self._answer(inputs, None)
        assert isinstance(logits, Tensor)
        if logits.dim() != 3 or logits.shape[2] < 2:
            shape = tuple(logits.shape[1:])
            raise InputError(
                f"reduce='mean' takes classifiers, with outputs N×C of at least 2 classes; these have shape {shape}"
            )
        log_probs = logits.log_softmax(-1)
        probs = log_probs.exp()
        return AveragePrediction(probs.mean(0), 0 - torch.special.xlogy(probs, probs).sum(-1).mean(0), len(probs))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As torch's, but `half` and `double` change nothing: bits have no precision and the rest is float32."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(moved, recurse)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, also as a part of a module that is trained: nothing in it learns."""
        return super().train(False)

    def member(self, s: int) -> nn.Module:
        """Network `s` as a plain float module with ±1 weights, with memory of its own.

        Raises:
            InputError: there is no network of that number.
        """
        if isinstance(s, bool) or not isinstance(s, Integral) or not 0 <= int(s) < self.num_samples:
            raise InputError(f"this ensemble has networks 0 … {self.num_samples - 1}, got {s!r}")
        network = self.program.member(int(s))
        own = {_memory(tensor) for tensor in (*self.parameters(), *self.buffers())}
        fresh = {id(p): p for p in network.parameters() if _memory(p) not in own}  # the weights, which are large
        return copy.deepcopy(network, fresh)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the networks to a file that `varbnn.load_packed` and `varbnn.Predictor` open, usually ``*.vbnn``.

        The file appears whole or not at all; docs/packed-file.md says what is in it.

        Raises:
            InputError: a function or layer that a file cannot hold (it keeps no code), numbers that are not finite,
                or a path that cannot be written to. A file that was there is then as it was.
        """
        save(self.program, self.num_samples, path)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors it holds."""
        tensors = {t.data_ptr(): t.nbytes for t in (*self.buffers(), *self.parameters())}
        return sum(tensors.values())

    def extra_repr(self) -> str:
        return f"{self.num_samples} networks, {self.nbytes:,} bytes"


def _joined(answers: Iterable[Tensor | AveragePrediction], count: int) -> Tensor | AveragePrediction:
    """One answer for all `count` inputs; written into place, since parts kept alive would tear holes into memory."""
    whole: list[Tensor] = []
    start = 0
    for answer in answers:
        dim = 1 if isinstance(answer, Tensor) else 0
        parts = [answer] if isinstance(answer, Tensor) else [answer.mean, answer.aleatoric]
        if not isinstance(answer, Tensor) and not bool(answer.mean.isfinite().all()):
            row = start + int(answer.mean.isfinite().all(1).logical_not().nonzero()[0])
            raise InputError(
                f"the networks' outputs for input {row} (counted from 0) hold NaN or inf, as too large numbers make "
                "them; look at that input, and at the batch-norm statistics"
            )
        if parts[0].shape[dim] == count:
            return answer
        if not whole:
            whole = [part.new_empty([*part.shape[:dim], count, *part.shape[dim + 1 :]]) for part in parts]
        for room, part in zip(whole, parts, strict=True):
            room.narrow(dim, start, part.shape[dim]).copy_(part)
        start += parts[0].shape[dim]
    return whole[0] if isinstance(answer, Tensor) else AveragePrediction(whole[0], whole[1], answer.num_samples)


def _first(count: int, answer: Tensor | AveragePrediction) -> Tensor | AveragePrediction:
    if isinstance(answer, Tensor):
        return answer[:, :count]
    return AveragePrediction(answer.mean[:count], answer.aleatoric[:count], answer.num_samples)


def _is_no_fault_of_inputs(error: Exception) -> bool:
    if isinstance(error, VarbnnError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ("allocate memory", "CUDA error"))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _shape(outputs: object, num_samples: int) -> str:
    if not isinstance(outputs, Tensor):
        return type(outputs).__name__
    return f"shape {tuple(outputs.shape)} for {num_samples} networks together"
