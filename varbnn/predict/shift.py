"""What a network says of images that get worse step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from varbnn.checks import Values, as_tensor, whole_number
from varbnn.data.corruptions import KINDS, SEVERITIES, Kind, Range, corrupt, require_images
from varbnn.errors import InputError
from varbnn.nn.batchnorm import Data, device_of
from varbnn.packed import AveragePrediction, Predictor
from varbnn.predict.average import predict
from varbnn.predict.checks import as_labels
from varbnn.predict.evaluation import Evaluation, evaluate
from varbnn.predict.uncertainty import Averaged, Prediction, require_classes

SeverityCurves: TypeAlias = dict[str, list[Evaluation]]
"""By kind of corruption, the measures at severity 0 (the images as they are), 1, … 5."""


def severity_curves(
    model: nn.Module | Predictor | Callable[[Tensor], Prediction | AveragePrediction],
    images: Values,
    targets: Values,
    *,
    value_range: Range,
    inputs: Callable[[Tensor], Tensor] = lambda images: images,
    kinds: Kind | Iterable[Kind] = tuple(KINDS),
    num_samples: int = 32,
    refresh_bn: Data | None = None,
    batch_size: int = 1000,
    seed: int = 0,
) -> SeverityCurves:
    """Measure a network on images as they are and under every corruption at every severity.

    The same sampled networks judge all of them, and all networks of one `seed` see the same noise. Batch-norm
    statistics come from `refresh_bn`, which stays clean: nobody announces a corruption.

    Args:
        model: a network, packed networks, a `Predictor`, or a function from a batch of inputs to their `Prediction` or
            `AveragePrediction`.
        images: N×H×W or N×C×H×W in their own units.
        targets: N class labels.
        value_range: lowest and highest value of those units.
        inputs: makes of images what the model is given; for a `Dataset` its `standardise`.
        kinds: which corruptions, of `varbnn.data.corruptions.KINDS`, one or several.
        num_samples, refresh_bn, batch_size: as for `predict`; unused where `model` is a function.
        seed: of networks and noise.

    Returns:
        For every kind six evaluations (accuracy, NLL, Brier, ECE), at severity 0 to 5.

    Raises:
        InputError: images outside `value_range`, images or targets that do not fit, an unknown kind, or no seed.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    >>> curves = severity_curves(
    ...     model, torch.rand(20, 8, 8), [1] * 20, value_range=(0, 1), kinds=["blur"], num_samples=2
    ... )
    >>> list(curves), len(curves["blur"])
    (['blur'], 6)
    """
    seed = whole_number("seed", seed, least=0)
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    network = model.ensemble if isinstance(model, Predictor) else model
    unknown = [kind for kind in kinds if kind not in KINDS]
    if not kinds or unknown:
        raise InputError(f"kinds must be some of {', '.join(KINDS)}, got {', '.join(map(repr, unknown)) or 'none'}")
    given, images = images, as_tensor(images, "images")
    if not (isinstance(given, Tensor) and given.is_floating_point()):
        images = images.float()  # an array is float64 by habit, networks are not
    require_images(images, value_range)

    def ask(batch: Tensor) -> Averaged:
        if not isinstance(network, nn.Module):
            return network(inputs(batch))
        draws = torch.Generator(device_of(network)).manual_seed(seed)  # the same networks every time
        return predict(
            network, inputs(batch), num_samples, refresh_bn=refresh_bn, batch_size=batch_size, generator=draws
        )

    clean = ask(images)
    require_classes(clean)
    labels = as_labels(targets, len(clean), clean.num_classes)
    before = evaluate(clean, labels)
    curves: SeverityCurves = {}
    for kind in kinds:
        curves[kind] = [before]
        for severity in SEVERITIES:
            drawn = torch.Generator().manual_seed(seed)
            worn = corrupt(images, kind, severity, value_range=value_range, generator=drawn)
            curves[kind].append(evaluate(ask(worn), labels))
    return curves
