"""Learn a stream of tasks one after the other, and measure what is left of the earlier ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from varbnn import saving
from varbnn.continual.evaluation import EvaluationPlan, Result, examples_to_judge, judge, judge_untrained
from varbnn.continual.run import Plan, Run, Schedule
from varbnn.continual.state import Saver, load, require_memory, settings_of
from varbnn.continual.strategies import Strategy
from varbnn.continual.tasks import Stream
from varbnn.errors import InputError
from varbnn.nn import binary_layers, draw_once_per_forward
from varbnn.progress import progress_bar


def learn(
    model: nn.Module,
    stream: Stream,
    strategy: Strategy,
    *,
    epochs: int = 1,
    batch_size: int = 100,
    num_samples: int = 1,
    schedule: Schedule | None = None,
    evaluation: EvaluationPlan | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    progress: bool = True,
) -> Result:
    """Train `model` on every task of `stream` in turn, and judge it on all tasks seen so far after each.

    Args:
        model: gives N×outputs logits; put into train mode.
        stream: see `varbnn.continual.permuted`, `rotated`, `split` and `from_tasks`.
        strategy: what is done about forgetting.
        epochs: passes over the examples of each task.
        batch_size: examples per step, nearly: an epoch is cut into as many equal steps as come closest, so that none is
            left with few examples (149 by 100 is one step of 149, 151 are two of 76 and 75).
        num_samples: draws per step, whose gradients are averaged.
        schedule: (optimizer, steps of the task) → torch scheduler, stepped after every batch; for every task anew.
        evaluation: what is measured; `EvaluationPlan()` when absent.
        seed: of the order of examples and of the networks drawn to judge. Draws in training come from torch's global
            generator.
        checkpoint: file to go on from when it is there. A run that was killed anywhere, also inside a task, ends with
            the same numbers as one that was not.
        checkpoint_every: seconds between writes inside a task; each task ends with one.
        progress: show a bar, where there is a terminal or a notebook.

    Returns:
        Accuracy, NLL and ECE on every task after every task, and the state of the posterior over time.

    Raises:
        InputError: a number out of range, a task without examples or with labels that the network has no output for, or
            without the part that is asked for; NaN on the way; the model keeps its last good step. With `checkpoint`, a
            strategy of one's own that does not say in `state_dict` what it remembers.
        CheckpointError: `checkpoint` cannot be read or written, or belongs to a run with other settings.

    >>> import varbnn as vb
    >>> from varbnn import continual, data
    >>> stream = continual.permuted(data.load("digits"), tasks=2)
    >>> model = vb.binarize(nn.Linear(64, 10))
    >>> def bayes(model, task, prior):
    ...     return vb.optim.BayesBiNN(model.parameters(), lr=0.01, dataset_size=len(task), prior=prior)
    >>> result = learn(model, stream, continual.PosteriorAsPrior(bayes), progress=False)
    >>> result.accuracy["task"].shape
    torch.Size([2, 2])
    """
    evaluation = EvaluationPlan() if evaluation is None else evaluation
    _require(stream, strategy, evaluation, checkpoint_every)
    if schedule is not None and strategy.keep:
        raise InputError("a schedule ends with its task, but the strategy keeps one optimizer for all; give only one")
    plan = Plan(epochs, batch_size, num_samples, seed, schedule)
    settings = settings_of(model, stream, strategy, evaluation, plan.written())
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        saving.require_folder(path)
        require_memory(strategy)
    run = Run(model, stream, strategy, plan)
    if any(True for _ in binary_layers(model)):
        draw_once_per_forward(model)  # a model built by hand does not do so by itself
    if path is not None and path.exists():
        load(path, run, settings)
    elif evaluation.tasks == "all":
        judge_untrained(model, stream, evaluation, seed, run.result)
    saver = Saver(path, run, settings, checkpoint_every)
    with progress_bar(progress, total=len(stream), initial=run.number, desc=stream.name, unit="task") as bar:
        while run.number < len(stream):
            run.begin_task()
            assert run.task is not None
            examples_to_judge(run.task, evaluation.part)  # before it is learned: raises where there are none
            task = run.learn_task(saver.now_and_then, lambda epoch, loss: _under_way(bar, epoch, epochs, loss))
            judge(model, strategy, stream, task, run.number, evaluation, seed, run.result)
            run.end_task()
            saver.now()
            _learned(bar, run.result)
    return run.result


def _require(stream: object, strategy: object, evaluation: object, checkpoint_every: object) -> None:
    if not isinstance(stream, Stream):
        given = f"got {type(stream).__name__}; make one of your tasks with varbnn.continual.from_tasks"
        raise InputError(f"stream must be a varbnn.continual.Stream, {given}")
    if not isinstance(strategy, Strategy):
        given = f"got {type(strategy).__name__}; give an optimizer factory to FineTune or PosteriorAsPrior"
        raise InputError(f"strategy must be a varbnn.continual.Strategy, {given}")
    if not isinstance(evaluation, EvaluationPlan):
        given = f'got {evaluation!r}; say EvaluationPlan(tasks="all")'
        raise InputError(f"evaluation must be a varbnn.continual.EvaluationPlan, {given}")
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, int | float) or not checkpoint_every >= 0:
        raise InputError(f"checkpoint_every must be a number of seconds ≥ 0, got {checkpoint_every!r}")


def _under_way(bar: Any, epoch: int, epochs: int, loss: float) -> None:
    if epochs > 1:
        bar.set_postfix_str(f"epoch {epoch}/{epochs}, loss {loss:.3f}")


def _learned(bar: Any, result: Result) -> None:
    matrix = next(iter(result.accuracy.values()))
    last = len(result.history) - 1
    shown = f"newest {matrix[last, last]:.1%}, all so far {matrix[last].nanmean():.1%}"
    if "entropy_bits" in result.history[-1]:
        shown += f", {result.history[-1]['entropy_bits']:.2f} bit"
    bar.update()
    bar.set_postfix_str(shown)
