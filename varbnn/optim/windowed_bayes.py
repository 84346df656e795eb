"""Natural-gradient steps with a leak: learning from a stream that has no end and no boundaries."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from varbnn.optim.bayesbinn import check_prior
from varbnn.optim.decisions import Descend
from varbnn.optim.filters import NoFilter
from varbnn.optim.leaks import Leak, VarianceLeak
from varbnn.optim.parts import Group, OneOf, must_be
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Bernoulli


class WindowedBayes(Rule):
    """Natural-gradient steps on a stream, of which about the last `window` examples are remembered.

        λ ← λ - lr · B · p.grad - (B / window) · ω · (λ - λ₀)          B = batch_size

    ω is 1 - μ² (``decay="variance"``) or 1 (``decay="plain"``). There is no end of training, no task and no boundary:
    every step learns and forgets a little, and neither depends on the size of the batch.

    With ``decay="plain"`` this is ``BayesBiNN(lr=B / window, dataset_size=window, temperature=1 / lr)`` without
    momentum; `varbnn.optim.translate` says so both ways. Then |λ| never passes lr · window · max |p.grad|, so a share
    of unsure weights is always left to learn the new. ``decay="variance"`` keeps what is sure, longer than the window,
    and lets certainty pile up.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        lr: of one example: how much λ moves for a natural gradient of 1.
        window: in examples, at least the size of a batch; inf forgets nothing.
        batch_size: B, the examples whose mean the loss is.
        decay: ``"variance"`` or ``"plain"``.
        prior: λ₀; a number for all weights, or one tensor per belief parameter (`varbnn.as_prior`), kept in the state.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise the objective instead of minimising the loss.

    Raises:
        InputError: a value out of range, no belief among the parameters, or one that is not Bernoulli.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2))
    >>> optimizer = WindowedBayes(model.parameters(), lr=0.77, window=300_000, batch_size=50)
    """

    posterior = Bernoulli
    source = "this library, 2026"
    filter = NoFilter()
    forgetting = OneOf("decay", {"variance": VarianceLeak(), "plain": Leak()})
    decision = Descend()

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        window: float,
        batch_size: int,
        decay: str = "variance",
        prior: float | Sequence[Tensor] = 0.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, window=window, batch_size=batch_size, decay=decay)
        super().__init__(
            params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, prior=prior, maximize=maximize
        )

    def gain(self, group: Group) -> float:
        return float(group["batch_size"])

    def check(self, group: Group) -> None:
        super().check(group)
        self.forgetting.chosen(group)
        must_be(group, "batch_size", 0 < group["batch_size"] < math.inf, "positive: the examples of one step")
        held = group["window"] >= group["batch_size"]
        must_be(group, "window", held, f"at least batch_size ({group['batch_size']}), in examples; inf never forgets")
        check_prior(group)
