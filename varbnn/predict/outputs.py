"""What is kept of what one network or several say about a batch: probabilities or real numbers, checked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from varbnn.errors import InputError
from varbnn.nn.noise import gaussian_parts
from varbnn.predict.checks import are_probabilities, at_least_float32


class Reader:
    """Makes of outputs what is kept of them.

    Attributes:
        normalised: whether the first logits were probabilities already.
    """

    def __init__(self, task: str) -> None:
        self.task, self.normalised = task, False
        self._first = True

    def __call__(self, outputs: object, num_inputs: int) -> Tensor:
        values = _require_outputs(outputs, num_inputs)
        result = READ[self.task](values).cpu()
        if self._first and self.task == "classification":
            self.normalised = are_probabilities(values)
        self._first = False
        return result


def _require_outputs(outputs: object, num_inputs: int) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != num_inputs:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(f"the model must return one row per input, {num_inputs} here, got {shape}")
    if not bool(outputs.isfinite().all()):
        raise InputError(
            "the model's outputs hold NaN or inf; look at varbnn.health(model) and at the batch-norm statistics"
        )
    return at_least_float32(outputs)


def _probabilities(logits: Tensor) -> Tensor:
    if logits.ndim > 2:
        raise InputError(
            f"predict takes one label for each input, logits n×C, got {tuple(logits.shape)}; for several labels per "
            "input ask held draws yourself, with varbnn.sampled(model)"
        )
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(
            f"a classifier must return logits n×C with C ≥ 2, got {tuple(logits.shape)}; give a single logit z as the "
            "two columns 0, z, and pass task='regression' for real outputs"
        )
    return logits.softmax(-1)


def _real_outputs(means: Tensor) -> Tensor:
    if means.ndim > 2:
        raise InputError(f"a regression model must return means n or n×D, got {tuple(means.shape)}; flatten them")
    return means


def _gaussian_outputs(outputs: Tensor) -> Tensor:
    return torch.cat(gaussian_parts(outputs), 1)


READ: dict[str, Callable[[Tensor], Tensor]] = {
    "classification": _probabilities,
    "regression": _real_outputs,
    "gaussian": _gaussian_outputs,
}
"""By task: outputs of one network, checked, and what is kept of them."""
