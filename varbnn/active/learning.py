"""One step on a stream of which most goes by unlabelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from varbnn.active.scores import DISAGREEMENT, require_several
from varbnn.active.stream import StreamQuery
from varbnn.checks import described, whole_number
from varbnn.errors import InputError
from varbnn.nn import binary_layers
from varbnn.nn.batchnorm import as_data
from varbnn.optim.counting import step_counting
from varbnn.predict import Prediction

Labels = Callable[[Tensor], Tensor]


def learn(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    query: StreamQuery,
    inputs: Tensor | np.ndarray[Any, Any],
    labels: Labels,
    *,
    num_samples: int = 5,
    forget_skipped: bool = False,
) -> Tensor:
    """Show inputs to the model and learn from those whose labels the query asks for; the others leave no trace.

    `num_samples` networks are drawn, each for all inputs. Their disagreement decides what to ask, and the same forward
    passes are then trained on: mean cross-entropy over the inputs asked and the networks. Where nothing is asked there
    is neither a backward pass nor a step, so nothing is forgotten either (a batch norm has seen the inputs, though).
    Rules that count examples (`batch_size` in their groups, as `varbnn.optim.WindowedBayes` and `varbnn.optim.BiMU`)
    count those that were asked.

    Args:
        model: a classifier, in train mode; its forward draws.
        optimizer: its gradients are cleared first.
        query: decides and counts.
        inputs: N inputs, as the model takes them, a tensor or an array.
        labels: called with the mask of what is asked, bool N, if anything is; returns that many labels, int64.
        num_samples: S, networks drawn; at least 2 for a score of how they disagree.
        forget_skipped: let the step count all inputs, those that were not asked with no gradient: what a rule forgets
            per example then goes on through what is skipped, also where nothing is asked (not by `varbnn.optim.BiMU`,
            which takes no step where every gradient is 0, as published).

    Returns:
        bool N: what was asked.

    Raises:
        InputError: the model is in eval mode or gives no N×C, too few networks, or always the same one, for a score of
            how they disagree, or labels of another number.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Linear(4, 3))
    >>> optimizer = vb.optim.WindowedBayes(model.parameters(), lr=0.7, window=1000, batch_size=1)
    >>> query, y = StreamQuery(threshold=0.1), torch.tensor([0, 2])
    >>> learn(model, optimizer, query, torch.randn(2, 4), lambda asked: y[asked]).shape, query.seen
    (torch.Size([2]), 2)
    """
    if not model.training:
        raise InputError("learn takes a model in train mode, whose forward draws; call model.train() first")
    num_samples = whole_number("num_samples", num_samples)
    require_several(query.acquisition, num_samples)
    batch = as_data(inputs, "inputs", model)
    if not isinstance(batch, Tensor):
        raise InputError(f"inputs must be one batch, a tensor or an array, got {type(inputs).__name__}")
    optimizer.zero_grad()
    logits = torch.stack(list(_asked(model, batch, num_samples)))
    if logits.dim() != 3 or logits.shape[1] != len(batch):
        raise InputError(f"the model must give N×C for N inputs, got {tuple(logits.shape[1:])} for {len(batch)}")
    if query.acquisition in DISAGREEMENT and not _draws(model) and bool((logits == logits[0]).all()):
        raise InputError(
            f"{query.acquisition!r} is how much networks disagree, but nothing here draws: all {num_samples} are "
            "the same one, and no label would ever be asked for; take a posterior that draws in training, such as "
            "Bernoulli(), or 'entropy' or 'margin'"
        )
    asked = query.ask(Prediction(logits.detach().float().softmax(-1)))
    count = int(asked.sum())
    if not count and not forget_skipped:
        return asked
    counted = len(batch) if forget_skipped else count
    if count:
        _loss(logits[:, asked], labels(asked), counted).backward()
    else:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
    step_counting(optimizer, counted)
    return asked


def _draws(model: nn.Module) -> bool:
    """Whether a layer is there to draw; one that does so by itself is found out by what it gives."""
    posteriors = [layer.posterior for _, layer in binary_layers(model)]
    living = any(not own.certain and getattr(own, "estimator", "") != "mean" for own in posteriors)
    return living or any(isinstance(module, _DropoutNd) for module in model.modules())


def _loss(logits: Tensor, labels: Tensor, counted: int) -> Tensor:
    count, classes = logits.shape[1:]
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        raise InputError(f"{count} labels were asked for, int64, got {described(labels)}")
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(f"labels must be 0 … {classes - 1}, the model's classes, got {labels.unique().tolist()[:5]}")
    repeated = labels.to(logits.device).expand(len(logits), -1).flatten()
    return F.cross_entropy(logits.flatten(0, 1), repeated, reduction="sum") / (len(logits) * counted)


def _asked(model: nn.Module, inputs: Tensor, num_samples: int) -> Iterator[Tensor]:
    """What the model says, draw by draw; it may write into its inputs, which are copied again only where it did."""
    own = inputs.clone()
    for _ in range(num_samples):
        if own._version:
            own = inputs.clone()
        yield model(own)
