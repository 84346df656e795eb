"""Answers from a packed file that stays where it is."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from varbnn.errors import InputError
from varbnn.packed.ensemble import AveragePrediction, PackedEnsemble
from varbnn.packed.load import load_packed

Inputs = Tensor | np.ndarray[Any, Any]


class Predictor:
    """A packed file, opened for answers: weights are mapped, so opening is quick and processes share the pages.

    It can be called from several threads at once; each call uses the threads that torch is set to
    (`torch.set_num_threads`), so with many callers 1 is best. The file may be replaced by another while it is open, as
    `PackedEnsemble.save` does it (a new file takes the name): the predictor goes on with the old one. A file that is
    cut short in place, however, takes the pages away from under it, and the system ends the process.

    Args:
        path: written by `PackedEnsemble.save`.
        verify: compare checksums and look at the numbers, for which all of the file is read once. Without, opening
            takes milliseconds at any size.

    Attributes:
        path: as given.
        ensemble: the `PackedEnsemble` with mapped weights.
        num_samples: networks in it.

    Raises:
        CheckpointError: as `load_packed`.

    >>> import tempfile, varbnn as vb
    >>> from torch import nn
    >>> packed = vb.pack(vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))), num_samples=5)
    >>> folder = tempfile.TemporaryDirectory()
    >>> packed.save(f"{folder.name}/small.vbnn")
    >>> with Predictor(f"{folder.name}/small.vbnn") as predictor:
    ...     answer = predictor(np.zeros((10, 4)), reduce="mean")
    >>> answer.mean.shape
    torch.Size([10, 3])
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        self.path = os.fspath(path)
        self._ensemble: PackedEnsemble | None = load_packed(path, mmap=True, verify=verify)
        self.num_samples = self._ensemble.num_samples

    @property
    def ensemble(self) -> PackedEnsemble:
        if self._ensemble is None:
            raise InputError(f"the predictor of {self.path} was closed; open another")
        return self._ensemble

    @overload
    def __call__(self, inputs: Inputs, reduce: None = None) -> Tensor: ...
    @overload
    def __call__(self, inputs: Inputs, reduce: Literal["mean"]) -> AveragePrediction: ...
    def __call__(self, inputs: Inputs, reduce: Literal["mean"] | None = None) -> Tensor | AveragePrediction:
        """What the networks say.

        Args:
            inputs: N inputs, a tensor on the CPU or an array, of any floating dtype, or whole numbers for tokens.
            reduce: ``None``, or ``"mean"`` for classifiers.

        Returns:
            ``float32`` S×N×…, or an `AveragePrediction`.

        Raises:
            InputError: the predictor was closed, or as `PackedEnsemble`.
        """
        if isinstance(inputs, np.ndarray):
            if inputs.dtype.kind not in "fiu":
                raise InputError(f"a predictor takes floating inputs or whole numbers, got an array of {inputs.dtype}")
            dtype = np.float32 if inputs.dtype.kind == "f" else inputs.dtype.newbyteorder("=")
            inputs = torch.from_numpy(np.array(inputs, dtype=dtype, order="C"))
        return self.ensemble(inputs, reduce)

    def close(self) -> None:
        """Let go of the file; its pages are unmapped when nothing else holds tensors of the ensemble."""
        self._ensemble = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"{self.num_samples} networks" if self._ensemble is not None else "closed"
        return f"Predictor({self.path!r}, {state})"
