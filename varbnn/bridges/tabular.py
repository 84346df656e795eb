"""The network, the rule and the training behind the estimators: rows of standardised numbers, no other library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn.data import batches
from varbnn.optim import BayesBiNN, GaussianBLR, Rule, StraightThrough
from varbnn.posteriors import Bernoulli, Gaussian, Point, Posterior

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Kind:
    """A posterior over the ±1 weights and the rule that trains it."""

    posterior: Posterior
    rule: Callable[..., Rule]
    draws: bool = True


KINDS = {
    "bernoulli": Kind(Bernoulli(), BayesBiNN),
    "gaussian": Kind(Gaussian(), GaussianBLR),
    "point": Kind(Point(), StraightThrough, draws=False),
}


def network(
    inputs: int, widths: Iterable[int], outputs: int, kind: Kind, tail: Iterable[nn.Module] = ()
) -> nn.Sequential:
    """Hidden layers of ±1 weights between real scales, and a real linear head.

    No batch norm: its statistics belong to a draw, and over the small batches of small data they are mostly noise.
    Shifts start spread out, because units with weights of ±1 alone are too much alike. `tail` comes after the head.
    All is float32 and drawn so, whatever torch's default.
    """
    layers: list[nn.Module] = [vb.nn.Scale(inputs)]  # how much each feature counts, which ±1 cannot say
    for width in widths:
        scale = vb.nn.Scale(width, inputs**-0.5, shift=True).float()
        scale.reset_parameters()
        assert scale.shift is not None
        nn.init.normal_(scale.shift)
        layers += [nn.Linear(inputs, width, bias=False, dtype=torch.float32), scale, nn.ReLU()]
        inputs = width
    head = nn.Linear(inputs, outputs, dtype=torch.float32)
    model = nn.Sequential(*layers, head, *tail).float()
    vb.binarize(model, kind.posterior, skip=[head])
    return model


def train(
    model: nn.Module,
    kind: Kind,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    *,
    lr: float,
    real_lr: float,
    temperature: float,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    progress: bool,
    label: str,
) -> list[dict[str, float]]:
    """Fit `model` to all rows; both learning rates fall along a cosine. One row of `varbnn.fit`'s history per epoch."""
    options = dict(dataset_size=len(x), temperature=temperature) if kind.draws else {}
    optimizer = kind.rule(model.parameters(), lr=lr, real_lr=real_lr, **options)
    loader = batches(x, y, batch_size, generator)
    schedule = CosineAnnealingLR(optimizer, epochs)
    return vb.fit(
        model, optimizer, loader, epochs=epochs, loss=loss, scheduler=schedule, progress=progress, label=label
    )
