"""Draw networks from a posterior straight to bits, and give each the batch-norm statistics that belong to it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from varbnn.checks import optional_generator, whole_number
from varbnn.errors import InputError
from varbnn.kernels import ops
from varbnn.nn.batchnorm import Data, as_data, device_of, warn_of_batchnorm
from varbnn.nn.draws import binary_layers, evaluating, joint_sample, with_first
from varbnn.nn.layer import BinaryLayer
from varbnn.packed.ensemble import PackedEnsemble
from varbnn.packed.faithful import unfaithful
from varbnn.packed.fuse import fused
from varbnn.packed.graph import traced
from varbnn.packed.layout import blocks_of, regrouped
from varbnn.packed.program import Program, is_numeric
from varbnn.packed.rows import ROWS
from varbnn.packed.statistics import measured, now
from varbnn.packed.steps import PackedLinear
from varbnn.packed.trace import Drawn, plan
from varbnn.packed.untouched import ONE_AT_A_TIME


def pack(
    model: nn.Module,
    num_samples: int = 32,
    *,
    refresh_bn: Data | None = None,
    generator: torch.Generator | None = None,
    int8: bool = False,
    progress: bool = False,
) -> PackedEnsemble:
    """Draw `num_samples` networks from the posterior of `model` and pack them, 1 bit per binary weight.

    The forward of the model is read by torch.fx: linear and convolution layers with a posterior become packed products
    of all networks at once, batch norm, bias and scale are folded into them, and everything else runs through torch.
    The model is left as it is.

    Args:
        model: takes one tensor (further arguments have their defaults), treats its rows independently in eval mode, and
            returns one tensor.
        num_samples: S; 0 packs the mode of the posterior, as one network.
        refresh_bn: training inputs from which batch-norm statistics are re-estimated for each network, as in
            `varbnn.predict`. One pass is made for all networks together.
        generator: source of the draws, on the model's device. The same state gives the same bits on every machine
            for `Bernoulli`; where λ is computed first, as for `Gaussian`, a weight in some billions may differ.
        int8: round the real inputs of linear layers to 8 bits, each row by its largest magnitude: faster, and wrong by
            0.7 to 0.8 % of a layer's output. Batch-norm statistics are estimated without rounding.
        progress: show a bar while statistics are estimated, where there is a terminal or a notebook.

    Raises:
        InputError: no binary layer, a forward that torch.fx cannot trace, that takes more than one input, that draws
            random numbers, that works across the batch or that answers otherwise when packed (tried with `refresh_bn`),
            a hook or code of its own on a layer that is packed, batch norm without running statistics, beliefs with
            NaN, nothing in `refresh_bn`.

    Warns:
        VarbnnWarning: the model has batch norm and `refresh_bn` is absent.

    >>> import varbnn as vb
    >>> model = vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    >>> packed = pack(model, num_samples=5, refresh_bn=torch.randn(100, 4))
    >>> packed(torch.randn(10, 4)).shape
    torch.Size([5, 10, 3])
    """
    ensemble = draw_packed(model, num_samples, refresh_bn, generator, int8, progress)
    if refresh_bn is None:
        warn_of_batchnorm(model)
    return ensemble


def draw_packed(
    model: nn.Module,
    num_samples: int,
    refresh_bn: Data | None,
    generator: torch.Generator | None,
    int8: bool = False,
    progress: bool = False,
    rows: Tensor | None = None,
) -> PackedEnsemble:
    """`pack`, without a word about statistics; `rows` are inputs to try the networks with."""
    num_samples = whole_number("num_samples", num_samples, 0, note=" (0 is the mode)")
    optional_generator(generator)
    layers = [layer for _, layer in binary_layers(model)]
    if not layers:
        raise InputError(f"{type(model).__name__} has no binary layer; call varbnn.binarize(model) first")
    if refresh_bn is not None:
        refresh_bn = as_data(refresh_bn, "refresh_bn", model)
    traced(model)  # a model that cannot be packed is refused before anything is drawn
    with torch.no_grad():
        with ONE_AT_A_TIME, evaluating(model):
            weights = _mode(layers) if num_samples == 0 else _draw(layers, num_samples, generator)
        return packed(model, weights, refresh_bn, int8, progress, rows)


def objection(model: nn.Module) -> str | None:
    """Why `pack` refuses `model`, as far as that shows without inputs; None where it does not."""
    nothing = torch.empty(0, dtype=torch.int32)
    try:
        plan(model, Drawn({layer: nothing for _, layer in binary_layers(model)}, now(model)))
    except InputError as error:
        return str(error)
    return None


def packed(
    model: nn.Module,
    weights: Mapping[nn.Module, Tensor],
    refresh_bn: Data | None,
    int8: bool,
    progress: bool,
    rows: Tensor | None = None,
) -> PackedEnsemble:
    """The ensemble of networks already drawn: `weights` are the blocks of each layer."""
    num_samples = len(next(iter(weights.values())))
    statistics = now(model)
    if refresh_bn is not None and statistics:
        statistics, rows = measured(model, weights, refresh_bn, progress)
    elif rows is None and isinstance(refresh_bn, Tensor):
        rows = refresh_bn[:ROWS].to(device_of(model))
    drawn = Drawn(weights, statistics)
    result = fused(plan(model, drawn), num_samples)
    ensemble = PackedEnsemble(Program.of(result), num_samples).eval()
    if rows is not None and is_numeric(rows) and len(rows) and bool(rows.isfinite().all()):
        problem = ensemble.examine(rows) or unfaithful(model, drawn, ensemble, rows)
        if problem is not None:
            raise InputError(problem)
    for step in result.steps:
        if isinstance(step, PackedLinear):
            step.int8 = int8
    return ensemble


def _mode(layers: list[BinaryLayer]) -> dict[nn.Module, Tensor]:
    blocks = {layer: blocks_of(layer, layer.posterior.mode(*layer.belief)) for layer in layers}
    return {layer: packed.unsqueeze(0).to(layer.belief[0].device) for layer, packed in blocks.items()}


def _draw(layers: list[BinaryLayer], num_samples: int, generator: torch.Generator | None) -> dict[nn.Module, Tensor]:
    device = layers[0].belief[0].device
    seed = torch.randint(2**62, (1,), generator=generator, device=device)
    drawn = _draw_jointly([layer for layer in layers if not layer.posterior.independent], num_samples, generator)
    places = {layer: index for index, layer in enumerate(layers)}
    for layer, first in with_first(layers):
        if layer in drawn:
            continue
        natural = layer.posterior.natural(*layer.belief).float()
        drawn[layer] = draw_blocks(layer, natural, seed.to(natural.device), places[first], num_samples)
    return drawn


def _draw_jointly(
    layers: list[BinaryLayer], num_samples: int, generator: torch.Generator | None
) -> dict[nn.Module, Tensor]:
    """Layers whose weights depend on each other: one network after the other, packed as soon as it is drawn."""
    if not layers:
        return {}
    networks = [
        [blocks_of(layer, sample) for layer, sample in zip(layers, joint_sample(layers, generator), strict=True)]
        for _ in range(num_samples)
    ]
    return {
        layer: torch.stack([network[i] for network in networks]).to(layer.belief[0].device)
        for i, layer in enumerate(layers)
    }


def draw_blocks(layer: BinaryLayer, natural: Tensor, seed: Tensor, index: int, num_samples: int) -> Tensor:
    """Samples of one layer, as the blocks that its packed layer takes."""
    if natural.dim() == 2:
        return ops.sample_blocks(natural.contiguous(), seed, index, 0, num_samples)
    rows = natural.movedim(1, -1).flatten(1).contiguous()
    groups: int = layer.groups  # type: ignore[assignment]
    return regrouped(ops.sample_blocks(rows, seed, index, 0, num_samples), groups, len(rows))
