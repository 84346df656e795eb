"""Learn again from a few stored examples: while a task is learned, or before a prediction."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.checks import finite_number
from varbnn.continual.coresets import Coreset
from varbnn.continual.evaluation import seed_of
from varbnn.continual.mixing import together
from varbnn.continual.run import Plan, Run, Schedule
from varbnn.continual.strategies import Examples, FineTune, Strategy, outputs_of, require_keys
from varbnn.continual.tasks import Task, from_tasks
from varbnn.errors import InputError
from varbnn.nn.batchnorm import Data, device_of
from varbnn.predict import Prediction


class _Remembering(Strategy):
    """Another strategy, and a coreset that grows by each task that was learned."""

    def __init__(self, strategy: Strategy, coreset: Coreset) -> None:
        for given, kind in ((strategy, Strategy), (coreset, Coreset)):
            if not isinstance(given, kind):
                raise InputError(
                    f"{type(self).__name__} takes a strategy and a coreset, such as FineTune(optimizer), Coreset(200); "
                    f"got {type(given).__name__} for the {kind.__name__}"
                )
        self.strategy, self.coreset, self.keep = strategy, coreset, strategy.keep

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "inside": self.strategy.describe()}  # a coreset looks after its own

    def begin(self, model: nn.Module, task: Task, number: int) -> torch.optim.Optimizer:
        return self.strategy.begin(model, self._rest(task, number), number)

    def examples(self, task: Task, number: int, outputs: int) -> Examples:
        return self.strategy.examples(self._rest(task, number), number, outputs)

    def penalty(self, model: nn.Module) -> Tensor | float | None:
        return self.strategy.penalty(model)

    def end(self, model: nn.Module, task: Task, number: int) -> None:
        self.strategy.end(model, self._rest(task, number), number)
        if len(self.coreset.classes) == number:  # a strategy inside, with the same coreset, may have added it
            self.coreset.add(task)

    def predict(
        self, model: nn.Module, x: Tensor, num_samples: int, refresh_bn: Data | None, generator: torch.Generator
    ) -> Prediction:
        return self.strategy.predict(model, x, num_samples, refresh_bn, generator)

    def for_prediction(self, model: nn.Module, task: Task, number: int) -> nn.Module:
        return self.strategy.for_prediction(model, task, number)

    def bytes_kept(self) -> int:
        counted = getattr(self.strategy, "coreset", None) is self.coreset
        return self.strategy.bytes_kept() + (0 if counted else self.coreset.nbytes)

    def state_dict(self) -> dict[str, Any]:
        return {"strategy": self.strategy.state_dict(), "coreset": self.coreset.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require_keys(state, {"strategy", "coreset"}, self)
        before = self.coreset.state_dict()
        self.coreset.load_state_dict(state["coreset"])
        try:
            self.strategy.load_state_dict(state["strategy"])
        except Exception:
            self.coreset.load_state_dict(before)
            raise

    def _rest(self, task: Task, number: int) -> Task:
        """`task` without what the coreset withholds of it; a strategy inside with the same coreset sees to that."""
        if getattr(self.strategy, "coreset", None) is self.coreset:
            return task
        kept = len(self.coreset.classes)
        if kept == number + 1:  # added by the strategy inside, which ends first
            return task
        if kept != number:
            raise InputError(
                f"the coreset has examples of {kept} tasks, but {number} were learned; give every run a new one"
            )
        if not self.coreset.withhold:
            return task
        x, y = self.coreset.rest(task)
        return replace(task, train_x=x, train_y=y)

    def _kept(self, outputs: int) -> Examples:
        return Examples(self.coreset.x, self.coreset.y, self.coreset.heads(outputs))


class Replay(_Remembering):
    """Learn stored examples of earlier tasks along with every new one (Robins 1995; Chaudhry et al. 2019).

    Args:
        strategy: what is done besides; ``FineTune(optimizer)`` is replay as in the papers, `PosteriorAsPrior` has both
            the examples and the posterior.
        coreset: what is stored; a new one for every run.
        share: of the examples learned in an epoch that are stored ones, in (0, 1): few are repeated until they are so
            many; of more, so many are drawn for every new task, by the coreset's seed; all earlier tasks get equal
            parts. An epoch is then 1 / (1 - share) as long. None learns each stored example once per epoch.

    Raises:
        InputError: a share out of range, a coreset that was used already.

    >>> import varbnn as vb
    >>> from varbnn import continual, data
    >>> stream = continual.split(data.load("digits"), scenario="class")[:2]
    >>> model = vb.binarize(nn.Linear(64, 10), posterior=vb.posteriors.Point())
    >>> plain = continual.FineTune(lambda model, task: vb.optim.StraightThrough(model.parameters()))
    >>> replay = Replay(plain, continual.Coreset(20, "random"))
    >>> result = continual.learn(model, stream, replay, progress=False)
    >>> result.history[-1]["bytes_kept"] == 2 * 20 * (64 * 4 + 8)
    True
    """

    def __init__(self, strategy: Strategy, coreset: Coreset, share: float | None = 0.5) -> None:
        super().__init__(strategy, coreset)
        self.share = None if share is None else finite_number("share", share)
        if self.share is not None and not 0 < self.share < 1:
            raise InputError(
                f"share must be between 0 and 1, or None to learn every stored example once, got {share!r}"
            )

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "share": self.share}

    def examples(self, task: Task, number: int, outputs: int) -> Examples:
        new = super().examples(task, number, outputs)
        if number == 0:
            return new
        kept = self._kept(outputs)
        if self.share is not None:
            wanted = max(1, round(len(new.y) * self.share / (1 - self.share)))
            chosen = self._in_turn(number, wanted)
            heads = None if kept.heads is None else kept.heads[chosen]
            kept = Examples(kept.x[chosen], kept.y[chosen], heads)
        return together([new, kept], outputs)

    def _in_turn(self, number: int, wanted: int) -> Tensor:
        """Indices of stored examples: one of every task, a second of every task, and so on; a task starts over."""
        sizes = [len(self.coreset.of(task)[1]) for task in range(len(self.coreset.classes))]
        first = [0, *accumulate(sizes)]  # of each task, which come one after the other
        generator = torch.Generator().manual_seed(seed_of(self.coreset.seed, number))
        orders = [
            first[task] + torch.randperm(sizes[task], generator=generator)
            for task in torch.randperm(len(sizes), generator=generator).tolist()
        ]
        rounds = torch.arange(math.ceil(wanted / len(orders)))
        return torch.stack([order[rounds % len(order)] for order in orders], dim=1).flatten()[:wanted]


class Rehearsal(_Remembering):
    """Remind a copy of the model of every task before it is asked (the coresets of Nguyen et al. 2018, algorithm 1).

    Learning goes on from the model that was not reminded. With ``Coreset(..., withhold=True)`` the examples are kept
    out of training, so that nothing is learned twice from the same data: that is Bayes' rule in another order.

    Args:
        strategy: how the tasks are learned.
        coreset: what is stored; a new one for every run. May be that of a `Replay` inside.
        optimizer: (model, task) → optimizer of the copy; the task is the whole coreset. For a posterior give it
            ``prior=varbnn.as_prior(model)``: what was learned.
        epochs, batch_size, num_samples, schedule: of the reminder, as of `varbnn.continual.learn`.
        seed: of the reminder, which leaves torch's global generator alone.

    Raises:
        InputError: a number out of range, a coreset that was used already.

    >>> import varbnn as vb
    >>> from varbnn import continual, data
    >>> def bayes(model, task, prior=None):
    ...     prior = vb.as_prior(model) if prior is None else prior
    ...     return vb.optim.BayesBiNN(model.parameters(), lr=0.01, dataset_size=len(task), prior=prior)
    >>> stream = continual.split(data.load("digits"))[:2]
    >>> coreset = continual.Coreset(20, "k-center", withhold=True)
    >>> reminded = Rehearsal(continual.PosteriorAsPrior(bayes), coreset, bayes, epochs=2)
    >>> result = continual.learn(vb.binarize(nn.Linear(64, 10)), stream, reminded, progress=False)
    """

    def __init__(
        self,
        strategy: Strategy,
        coreset: Coreset,
        optimizer: Callable[[nn.Module, Task], torch.optim.Optimizer],
        *,
        epochs: int = 10,
        batch_size: int = 100,
        num_samples: int = 1,
        schedule: Schedule | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(strategy, coreset)
        self.optimizer = optimizer
        self.plan = Plan(epochs, batch_size, num_samples, seed, schedule)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **self.plan.written()}

    def for_prediction(self, model: nn.Module, task: Task, number: int) -> nn.Module:
        reminded = copy.deepcopy(super().for_prediction(model, task, number))
        outputs = outputs_of(reminded, task)
        kept = self._kept(outputs)
        classes = tuple(sorted(set().union(*self.coreset.classes)))
        whole = Task("what is stored", kept.x, kept.y, kept.x, kept.y, classes)
        own = replace(self.plan, seed=seed_of(self.plan.seed, number))
        with _seeded(own.seed, device_of(reminded)):
            run = Run(reminded, from_tasks([whole], outputs), _Stored(self.optimizer, kept), own)
            run.learn_task(lambda: None, lambda epoch, loss: None)
        return reminded


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what a model on `device` draws from, and put it back afterwards; other devices are left alone."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class _Stored(FineTune):
    """Fine-tuning on examples that bring their heads along."""

    def __init__(self, optimizer: Callable[[nn.Module, Task], torch.optim.Optimizer], kept: Examples) -> None:
        super().__init__(optimizer)
        self.kept = kept

    def examples(self, task: Task, number: int, outputs: int) -> Examples:
        return self.kept
