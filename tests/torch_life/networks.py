"""The small networks that the tests of this folder train."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb


def plain(posterior=None) -> nn.Module:
    """No batch norm: the loss of a batch is the mean of its parts."""
    return vb.binarize(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)), posterior=posterior)


def normalised(posterior=None) -> nn.Module:
    layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4), nn.BatchNorm1d(4))
    return vb.binarize(layers, posterior=posterior)


class Shared(nn.Module):
    """Uses one layer twice in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.head = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.inner(torch.tanh(self.norm(self.inner(x)))))


def batch(size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 8), torch.randint(4, (size,))


def bayes(model: nn.Module, **more) -> vb.optim.BayesBiNN:
    return vb.optim.BayesBiNN(model.parameters(), **{"lr": 0.01, "dataset_size": 100, "momentum": 0.9, **more})


def train_step(model, optimizer, x, y) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(first, second, **tolerance) -> None:
    """Equal dictionaries of tensors; to the bit unless a tolerance is given."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(
            value, second[key], **(tolerance or {"rtol": 0, "atol": 0}), msg=lambda m, k=key: f"{k}: {m}"
        )
