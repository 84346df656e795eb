"""Packed files as ensembles."""

from __future__ import annotations

import os

from varbnn.packed.ensemble import PackedEnsemble
from varbnn.packed.file import read


def load_packed(path: str | os.PathLike[str], *, mmap: bool = False, verify: bool = True) -> PackedEnsemble:
    """The ensemble that `PackedEnsemble.save` wrote, bit for bit.

    Every number of the file is checked before anything is allocated, and nothing in it is executed: what it says to
    compute is looked up in closed lists of steps, functions and torch.nn layers. So a file from a stranger can be
    opened; what it can do is to give wrong answers, or to take long and much memory when it is called.

    Args:
        path: the file.
        mmap: map the weights instead of reading them: they come from the disk when they are first needed, and
            processes that map the same file share them. See `Predictor`.
        verify: compare checksums and look at the numbers, for which all of the file is read once. Without, only the
            structure is checked.

    Returns:
        The ensemble, on the CPU, in eval mode.

    Raises:
        CheckpointError: the file cannot be read, is damaged, of a newer version, or no packed file; the message says
            what was found and what is expected.

    >>> import tempfile, torch, varbnn as vb
    >>> from torch import nn
    >>> packed = vb.pack(vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))), num_samples=5)
    >>> folder = tempfile.TemporaryDirectory()
    >>> packed.save(f"{folder.name}/small.vbnn")
    >>> again = load_packed(f"{folder.name}/small.vbnn")
    >>> x = torch.randn(10, 4)
    >>> torch.equal(again(x), packed(x))
    True
    >>> folder.cleanup()
    """
    opened = read(path, mmap, verify)
    return PackedEnsemble(opened.program, opened.num_samples).eval()
