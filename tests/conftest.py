"""Every test starts from the same random state, on one thread, and leaves the defaults of torch as they were."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the workers of `-n 2` are the parallelism


@pytest.fixture(autouse=True)
def fresh_random_state():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third parties draw from numpy's global state
    torch.manual_seed(0)


@pytest.fixture
def script(monkeypatch):
    """Imports a script of benchmarks/ by its name; it finds those beside it."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parent.parent / "benchmarks"), *sys.path])
    return importlib.import_module


@pytest.fixture(autouse=True)
def unchanged_torch_defaults():
    """A test that leaves another default dtype, or gradients switched off, would change the tests after it."""
    yield
    changed = []
    if torch.get_default_dtype() != torch.float32:
        changed.append(f"default dtype {torch.get_default_dtype()}")
        torch.set_default_dtype(torch.float32)
    if not torch.is_grad_enabled():
        changed.append("gradients disabled")
        torch.set_grad_enabled(True)
    if changed:
        pytest.fail(f"the test left behind: {', '.join(changed)}")
