"""The file from which a layer-by-layer run goes on: finished layers, and what they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor

from varbnn.errors import CheckpointError
from varbnn.saving import replacing

FORMAT = "varbnn layerwise 1"


def save(path: Path, belongs_to: str, layers: dict[str, dict[str, Tensor]]) -> None:
    """Write in one piece: a reader never sees half a file.

    Raises:
        CheckpointError: it cannot be written.
    """
    tensors = {f"{i}.{key}": t.contiguous() for i, layer in enumerate(layers.values()) for key, t in layer.items()}
    metadata = {"format": FORMAT, "belongs_to": belongs_to, "layers": json.dumps(list(layers))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(serialized(tensors, metadata=metadata))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be written ({error}); choose another state=") from error


def load(path: Path, belongs_to: str) -> dict[str, dict[str, Tensor]]:
    """By name, the layers that are finished.

    Raises:
        CheckpointError: the file is something else, or of another model, other data or other settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); move it away to start afresh") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no state of binarize_layerwise; move it away to start afresh")
    if metadata.get("belongs_to") != belongs_to:
        raise CheckpointError(
            f"{path} belongs to another model, other calibration data or other settings; move it away to start afresh"
        )
    layers: dict[str, dict[str, Tensor]] = {name: {} for name in json.loads(metadata["layers"])}
    names = list(layers)
    for key, tensor in tensors.items():
        index, _, kind = key.partition(".")
        layers[names[int(index)]][kind] = tensor if tensor.dtype == torch.int8 else tensor.double()
    return layers
