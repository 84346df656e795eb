"""Ask many sampled networks: one held weight draw after the other, or all at once as bits."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, overload
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from varbnn.checks import Values, finite_belief, optional_generator, whole_number
from varbnn.errors import InputError, VarbnnWarning
from varbnn.nn.batchnorm import (
    Data,
    answer,
    as_data,
    batchnorm_preserved,
    batchnorms,
    refresh_batchnorm,
    require_numbers,
    warn_of_batchnorm,
)
from varbnn.nn.draws import at_mode, binary_layers, evaluating, sampled
from varbnn.nn.noise import LearnedNoise
from varbnn.packed import PackedEnsemble, Predictor
from varbnn.predict.inputs import RepeatedInputs, require_passes
from varbnn.predict.outputs import READ, Reader
from varbnn.predict.regression import RegressionPrediction
from varbnn.predict.route import outputs_of, packed_outputs, reason_for_loop
from varbnn.predict.uncertainty import Prediction
from varbnn.progress import progress_bar

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_LOCKS_CHANGE = threading.Lock()


@overload
def predict(
    model: nn.Module | Predictor,
    inputs: Data,
    num_samples: int = 32,
    *,
    refresh_bn: Data | None = None,
    batch_size: int = 1000,
    task: Literal["classification"] = "classification",
    generator: torch.Generator | None = None,
    progress: bool = False,
    noise_variance: Values | float | None = None,
    device: torch.device | str | None = None,
) -> Prediction: ...
@overload
def predict(
    model: nn.Module | Predictor,
    inputs: Data,
    num_samples: int = 32,
    *,
    refresh_bn: Data | None = None,
    batch_size: int = 1000,
    task: Literal["regression", "gaussian"],
    generator: torch.Generator | None = None,
    progress: bool = False,
    noise_variance: Values | float | None = None,
    device: torch.device | str | None = None,
) -> RegressionPrediction: ...
def predict(
    model: nn.Module | Predictor,
    inputs: Data,
    num_samples: int = 32,
    *,
    refresh_bn: Data | None = None,
    batch_size: int = 1000,
    task: Literal["classification", "regression", "gaussian"] = "classification",
    generator: torch.Generator | None = None,
    progress: bool = False,
    noise_variance: Values | float | None = None,
    device: torch.device | str | None = None,
) -> Prediction | RegressionPrediction:
    """What `num_samples` networks drawn from the posterior say about `inputs`.

    Each draw is held while it goes over all inputs, in eval mode and without gradients. The model comes out as it went
    in (train flags, batch-norm statistics, beliefs), whatever happens in between. Besides the result, of size S×N×C,
    memory holds one batch and one N×C. Threads that ask the same model wait for one another (so a loader must not wait
    for another thread that asks it too); packed networks (`varbnn.pack`) answer them side by side.

    Where that is faster, the networks are packed instead (`varbnn.pack`) and asked all at once: on the CPU with AVX2 or
    AVX-512, from 8 networks and 2^20 binary weights of all together on, for a float32 model that can be packed and
    float32 inputs. Memory then holds the packed networks and what all of them make of one batch, and for a loader whose
    length is not known (other than a DataLoader with a sampler) the result twice at the end.
    ``VARBNN_BACKEND=reference`` asks for the loop.

    Args:
        model: gives logits n×C for a batch of n inputs, or for regression means n or n×D. A `PackedEnsemble` or
            `Predictor` answers with all networks it has, whatever `num_samples` says.
        inputs: tensor or array with N inputs along the first axis, or a loader that yields x or (x, ...) in the same
            order on every pass (shuffle=False); up to S passes are made, and another one where S is 1 and the loader
            might shuffle. Inputs are sent to the model's device.
        num_samples: S; 0 asks the mode of the posterior instead, as one sample.
        refresh_bn: training inputs (as for `inputs`; order does not matter) from which the batch-norm statistics are
            re-estimated for each draw: those kept from training average over many draws and fit none. Unused without
            batch norm.
        batch_size: inputs per forward pass, where `inputs` is a tensor or an array.
        task: what the outputs are: logits, ``"regression"`` means, or ``"gaussian"`` n×2D means and then log noise
            variances, as `varbnn.nn.gaussian_nll` takes them. Decides between `Prediction` and `RegressionPrediction`.
        generator: source of the draws, on the model's device. The same state gives the same prediction bit for bit on
            the same backend (packed networks are drawn by another stream), also where `refresh_bn` shuffles by torch's
            global generator (not by one of its own), which is left alone. Absent: the global generator.
        progress: show a bar, where there is a terminal or a notebook.
        noise_variance: for regression, see `RegressionPrediction`.
        device: where to send inputs, instead of where the model's first parameter lies.

    Returns:
        The prediction, on the CPU, in the precision of the outputs but at least float32.

    Raises:
        InputError: no inputs, NaN or inf in them or in the outputs, outputs of another shape, data that cannot be gone
            through S times or differ between passes, nothing in `refresh_bn`, no binary layers (S > 0) or no numbers.

    Warns:
        VarbnnWarning: the model has batch norm and `refresh_bn` is absent.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    >>> predict(model, torch.randn(10, 4), num_samples=5, refresh_bn=torch.randn(100, 4))
    Prediction(5 samples × 10 inputs × 3 classes, float32)
    """
    if isinstance(model, Predictor):
        model = model.ensemble
    num_samples = whole_number("num_samples", num_samples, 0, note=" (0 is the mode)")
    _require_sensible(model, num_samples, task, noise_variance)
    optional_generator(generator)
    require_numbers(model)
    if num_samples == 0:  # of the others the outputs show it
        for name, layer in binary_layers(model):
            finite_belief(name or type(layer).__name__, layer.belief)
    if isinstance(model, PackedEnsemble):
        if num_samples == 0:
            raise InputError("packed networks are asked all together; for the mode pack it: varbnn.pack(model, 0)")
        if refresh_bn is not None:
            raise InputError("packed networks have their batch-norm statistics already; give refresh_bn to varbnn.pack")
    read = Reader(task)
    num_passes = 1 if isinstance(model, PackedEnsemble) else max(num_samples, 1)
    repeated = RepeatedInputs(inputs, model, batch_size, num_passes, device)
    if isinstance(model, PackedEnsemble):
        outputs = outputs_of(model, repeated, repeated.one_pass(), read, progress)
    else:
        if refresh_bn is not None:
            refresh_bn = require_passes(as_data(refresh_bn, "refresh_bn", model), "refresh_bn", num_passes)
        else:
            warn_of_batchnorm(model)
        outputs = _drawn(model, repeated, num_samples, refresh_bn, generator, read, progress)
    if read.normalised:
        text = "the model's outputs look like probabilities, and predict takes logits, whose softmax it computes itself"
        warnings.warn(f"{text}; leave the softmax out of the model", VarbnnWarning, stacklevel=2)
    if task == "classification":
        return Prediction(outputs)
    if task == "gaussian":
        means, log_variance = outputs.chunk(2, -1)
        return RegressionPrediction(means, log_variance.exp())
    return RegressionPrediction(outputs, noise_variance)


def _drawn(
    model: nn.Module,
    repeated: RepeatedInputs,
    num_samples: int,
    refresh_bn: Data | None,
    generator: torch.Generator | None,
    read: Reader,
    progress: bool,
) -> Tensor:
    """What networks drawn now, or their mode, say about the inputs."""
    num_passes = max(num_samples, 1)
    with _alone(model), evaluating(model), batchnorm_preserved(model), _own_randomness(generator), torch.no_grad():
        outputs: Tensor | None = None
        if reason_for_loop(model, num_samples, repeated.device) is None:
            outputs = packed_outputs(model, repeated, num_samples, refresh_bn, generator, read, progress)
        passes = 0 if outputs is not None else num_passes
        for index in progress_bar(progress and passes > 0, range(passes), desc="sampled networks", leave=False):
            with sampled(model, generator) if num_samples else at_mode(model):
                if refresh_bn is not None and batchnorms(model):
                    refresh_batchnorm(model, refresh_bn)
                outputs = _one_network(model, repeated, read, index, num_passes, outputs)
        if passes == 1 and not repeated.in_order:
            repeated.check_again()  # as a second network would have
    assert outputs is not None
    return outputs


def _require_sensible(model: nn.Module, num_samples: int, task: str, noise_variance: Values | float | None) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"predict takes a model, a packed ensemble or a Predictor, got a {type(model).__name__}")
    if not isinstance(task, str) or task not in READ:
        raise InputError(f"task must be 'classification', 'regression' or 'gaussian', got {task!r}")
    if task != "gaussian" and any(isinstance(module, LearnedNoise) for module in model.modules()):
        raise InputError("the model has a LearnedNoise, so it says means and variances: pass task='gaussian'")
    if task != "regression" and noise_variance is not None:
        raise InputError(
            "noise_variance belongs to task='regression'; class probabilities carry their own noise, and with "
            "task='gaussian' the model says it"
        )
    if num_samples > 0 and not isinstance(model, PackedEnsemble) and next(binary_layers(model), None) is None:
        raise InputError(
            f"{type(model).__name__} has no binary layer, so all {num_samples} samples would be equal; "
            "call varbnn.binarize(model) first, or pass num_samples=0"
        )


def _one_network(
    model: nn.Module,
    inputs: RepeatedInputs,
    read: Reader,
    index: int,
    num_passes: int,
    outputs: Tensor | None,
) -> Tensor:
    """Outputs of the network held now, written to outputs[index]; the first pass finds out N and makes room for all."""
    first, seen = [], 0
    for x in inputs.one_pass():
        values = read(answer(model, x), len(x))
        if outputs is None:
            first.append(values)
        else:
            outputs[index, seen : seen + len(x)] = values
        seen += len(x)
    if outputs is None:
        rows = torch.cat(first)
        outputs = rows.new_empty(num_passes, *rows.shape)
        outputs[index] = rows
    return outputs


def _alone(model: nn.Module) -> threading.RLock:
    """One lock for all models with the same first binary layer, of which one may be around another.

    The draw that is asked, and train flags, are the model's and not the thread's.
    """
    first = next((layer for _, layer in binary_layers(model)), model)
    with _LOCKS_CHANGE:
        return _LOCKS.setdefault(first, threading.RLock())


@contextmanager
def _own_randomness(generator: torch.Generator | None) -> Iterator[None]:
    """With a generator, let loaders shuffle by a seed that follows from it, and put the global generator back."""
    if generator is None:
        yield
        return
    before = torch.get_rng_state()
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())  # a copy, so that the draws stay those of sampled(model, generator)
    try:
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=twin, device=twin.device)))
        yield
    finally:
        torch.set_rng_state(before)
