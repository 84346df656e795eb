"""What is compared, and how each is trained and measured: the same way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import varbnn as vb
from varbnn.data import Dataset, batches
from varbnn.demo.networks import network
from varbnn.demo.recipes import Recipe, Settings
from varbnn.optim import VISPA, BayesBiNN, Bop, Bop2ndOrder, GaussianBLR, GradientFilter, Rule, StraightThrough
from varbnn.posteriors import Belief, Bernoulli, Gaussian, LowRankGaussian, Point, Posterior, belief_of

MEASURES = (
    *("accuracy", "nll", "brier", "ece", "ood_auroc", "entropy_bits"),
    *("flips_per_step", "ms_per_step", "bytes_per_weight", "seconds"),
)
"""What is reported of every method; `ms_per_step` is processor time, which other programs do not blur."""


@dataclass(frozen=True)
class Method:
    """A posterior and the rule that trains it.

    Attributes:
        title: for people.
        posterior: over every weight.
        rule: its optimizer.
        draws: whether it predicts with sampled networks; else with its one network.
        sized: whether the rule weighs a likelihood against a prior, and so takes the size of the training data.
    """

    title: str
    posterior: Posterior
    rule: Callable[..., Rule]
    draws: bool = False
    sized: bool = False

    def optimizer(self, model: nn.Module, settings: Settings, dataset_size: int) -> Rule:
        """The rule on the parameters of `model`."""
        size = {"dataset_size": dataset_size} if self.sized else {}
        return self.rule(model.parameters(), **size, **settings)


METHODS = {
    "ste": Method("one binary network (latent weights, straight-through, Adam)", Point(), StraightThrough),
    "bop": Method("one binary network (Bop)", Point(), Bop),
    "bop2": Method("one binary network (second-order Bop)", Point(), Bop2ndOrder),
    "filter": Method("one binary network (gradient filter)", Point(), GradientFilter),
    "posterior": Method(
        "a posterior over binary networks (Bernoulli, BayesBiNN)", Bernoulli(), BayesBiNN, draws=True, sized=True
    ),
    "moments": Method(
        "a posterior over binary networks (Bernoulli, BayesBiNN, moment propagation)",
        Bernoulli(estimator="moments"),
        BayesBiNN,
        draws=True,
        sized=True,
    ),
    "gaussian": Method(
        "a posterior over binary networks (Gaussian, GaussianBLR)", Gaussian(), GaussianBLR, draws=True, sized=True
    ),
    "vispa": Method(
        "binary networks that are drawn together (low-rank Gaussian, VISPA)",
        LowRankGaussian(rank=4),
        VISPA,
        draws=True,
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What came of one method.

    Attributes:
        model: trained.
        prediction, ood: for the test inputs and the foreign ones; the latter None where there are none.
        history: one row per epoch, as `varbnn.fit` returns it.
        measures: value by name, see `MEASURES`; `ood_auroc` is None without foreign inputs.
    """

    model: nn.Module
    prediction: vb.Prediction
    ood: vb.Prediction | None
    history: list[dict[str, float]]
    measures: dict[str, float | None]


def bytes_per_weight(optimizer: Rule) -> float:
    """Of the beliefs and of what the rule remembers about them, in training."""
    beliefs = [p for group in optimizer.param_groups if group["kind"] == "belief" for p in group["params"]]
    kept = [t for p in beliefs for t in (p, *optimizer.state[p].values())]
    marks: list[tuple[Tensor, Belief | None]] = [(p, belief_of(p)) for p in beliefs]
    weights = sum(p.numel() for p, mark in marks if mark is not None and mark.name == mark.posterior.names[0])
    return sum(t.nbytes for t in kept) / weights


def train(
    method: Method,
    data: Dataset,
    recipe: Recipe,
    settings: Settings,
    *,
    num_samples: int,
    seed: int,
    dropout: float = 0.0,
    progress: bool = False,
    label: str = "",
) -> Outcome:
    """Fit `method` to the training data, and measure it on the test data and the foreign inputs.

    The same sampled networks judge both, each with its own batch-norm statistics; a method that does not draw gets its
    statistics re-estimated too. `dropout` is the share of inputs left out in training. Torch's global generator on the
    CPU is seeded with `seed`.
    """
    torch.default_generator.manual_seed(seed)  # those of other devices draw nothing here
    model = network(
        data, recipe.widths, method.posterior, dropout, channels=recipe.channels, activation=recipe.activation
    )
    optimizer = method.optimizer(model, settings, len(data.train_x))
    loader = batches(data.train_x, data.train_y, recipe.batch_size, torch.Generator().manual_seed(seed))
    schedule = CosineAnnealingLR(optimizer, recipe.epochs)
    start, processor = time.perf_counter(), time.process_time()
    history = vb.fit(model, optimizer, loader, epochs=recipe.epochs, scheduler=schedule, progress=progress, label=label)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    both = vb.predict(
        model,
        data.test_x if data.ood_x is None else torch.cat([data.test_x, data.ood_x]),
        num_samples if method.draws else 0,
        refresh_bn=data.train_x[: recipe.refresh],
        generator=torch.Generator().manual_seed(seed),
        progress=progress and method.draws,
    )
    prediction, ood = both[: len(data.test_x)], None if data.ood_x is None else both[len(data.test_x) :]
    found = {
        **vb.evaluate(prediction, data.test_y, ood=ood),
        "entropy_bits": vb.health(model, warn=False).entropy_bits,
        # the very first step decides between nothing and something, and would outweigh all that follow
        "flips_per_step": statistics.fmean(row["step_flips"] for row in history[1:] or history),
        "ms_per_step": 1e3 * processor / (recipe.epochs * len(loader)),
        "bytes_per_weight": bytes_per_weight(optimizer),
        "seconds": seconds,
    }
    return Outcome(model, prediction, ood, history, {name: found.get(name) for name in MEASURES})
