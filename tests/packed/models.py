"""Models of every shape that people pack, and what their networks say, computed without any of the packing code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import varbnn as vb
from varbnn.nn.draws import evaluating, holding
from varbnn.packed.build import _draw, _mode
from varbnn.packed.layout import weight_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Modules by name, and a forward that a test writes as a function of (self, x)."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def settled(model: nn.Module) -> nn.Module:
    """Batch norms with statistics, scales and shifts that are none of 0 and 1."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 2)
            module.running_var.uniform_(0.5, 9)
            if module.weight is not None:
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.normal_(module.bias)
        if isinstance(module, vb.nn.Sign) and module.shift is not None:
            nn.init.normal_(module.shift)
    return model


def mlp(activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True, affine: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 37, bias=bias), nn.BatchNorm1d(37, affine=affine), activation(),
        nn.Linear(37, 64, bias=bias), nn.BatchNorm1d(64, affine=affine), activation(),
        nn.Linear(64, 5, bias=bias), nn.BatchNorm1d(5, affine=affine),
    )  # fmt: skip


def convnet(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(32), activation(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), activation(),
        nn.Conv2d(64, 33, 1), activation(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(132, 7),
    )  # fmt: skip


def residual(m: nn.Module, x: Tensor) -> Tensor:
    h = F.relu(m.bn1(m.first(x)))
    h = F.relu(m.bn2(m.second(h)) + h)
    h = m.bn3(m.third(h)) + m.project(h)
    return m.head(torch.flatten(F.adaptive_avg_pool2d(F.relu_(h), 1), 1))


def tied(m: nn.Module, x: Tensor) -> Tensor:
    h = m.first(x)
    for _ in range(3):
        h = m.norm(m.layer(h)).relu()
    return m.head(h)


def conv(**options: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(6, 12, **options), nn.ReLU(), nn.Flatten())  # type: ignore[arg-type]


PLANE, LINE, CUBE, VECTOR = (4, 6, 9, 8), (4, 6, 11), (3, 4, 5, 6, 5), (6, 20)
IMAGE = (3, 3, 12, 12)

ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, VECTOR),
    "mlp, batch norm without scale": (lambda: mlp(affine=False, bias=False), VECTOR),
    "mlp, tanh": (lambda: mlp(nn.Tanh), VECTOR),
    "mlp, dropout": (lambda: nn.Sequential(nn.Dropout(), *mlp(), nn.Dropout1d()), VECTOR),
    "one layer": (lambda: nn.Linear(20, 3), VECTOR),
    "deep sequential": (lambda: nn.Sequential(mlp(), nn.Sequential(nn.ReLU(), nn.Linear(5, 3))), VECTOR),
    "sign": (lambda: mlp(vb.nn.Sign), VECTOR),
    "sign with shifts": (
        lambda: nn.Sequential(nn.Linear(20, 33), vb.nn.Sign(channels=33), nn.Linear(33, 40), nn.BatchNorm1d(40),
                              vb.nn.Sign("polynomial", channels=40), nn.Linear(40, 3)), VECTOR,
    ),
    "sign of the input": (lambda: nn.Sequential(vb.nn.Sign(), nn.Linear(20, 33), nn.ReLU(), nn.Linear(33, 3)), VECTOR),
    "conv": (convnet, IMAGE),
    "conv, sign": (lambda: convnet(vb.nn.Sign), IMAGE),
    "conv, pooled signs": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), vb.nn.Sign(), nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1),
                              nn.BatchNorm2d(32), vb.nn.Sign(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 4)),
        IMAGE,
    ),
    "conv, signs after pooling": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(32), vb.nn.Sign(),
                              nn.Conv2d(32, 4, 1), nn.Flatten()), IMAGE,
    ),
    "conv, average of signs": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), vb.nn.Sign(), nn.AvgPool2d(2), nn.Conv2d(32, 8, 3), nn.Flatten(),
                              nn.Linear(72, 4)), IMAGE,
    ),
    "sign between branches": (
        lambda: Net(lambda m, x: m.c((lambda h, z: m.b(h) + z)(m.s(m.n(m.a(x))), torch.tanh(m.d(x)))),
                    a=nn.Linear(20, 40), n=nn.BatchNorm1d(40), s=vb.nn.Sign(), b=nn.Linear(40, 24),
                    d=nn.Linear(20, 24), c=nn.Linear(24, 3)), VECTOR,
    ),
    "sign used twice": (
        lambda: Net(lambda m, x: (lambda h: m.b(h) + m.c(h) + h[:, :8])(m.s(m.a(x))),
                    a=nn.Linear(20, 40), s=vb.nn.Sign(), b=nn.Linear(40, 8), c=nn.Linear(40, 8)), VECTOR,
    ),
    "residual": (
        lambda: Net(residual, first=nn.Conv2d(3, 16, 3, padding=1), bn1=nn.BatchNorm2d(16),
                    second=nn.Conv2d(16, 16, 3, padding=1, bias=False), bn2=nn.BatchNorm2d(16),
                    third=nn.Conv2d(16, 24, 3, stride=2, padding=1), bn3=nn.BatchNorm2d(24),
                    project=nn.Conv2d(16, 24, 1, stride=2), head=nn.Linear(24, 5)), IMAGE,
    ),
    "grouped": (lambda: conv(kernel_size=3, groups=3, padding=1), PLANE),
    "depthwise": (lambda: conv(kernel_size=3, groups=6), PLANE),
    "grouped, signs": (
        lambda: nn.Sequential(nn.Conv2d(6, 64, 1), vb.nn.Sign(), nn.Conv2d(64, 40, 3, groups=2)), PLANE),
    "dilated": (lambda: conv(kernel_size=(2, 3), dilation=(3, 2), stride=(1, 2)), PLANE),
    "asymmetric same": (lambda: conv(kernel_size=(4, 2), padding="same", bias=False), PLANE),
    "circular": (lambda: conv(kernel_size=(4, 3), padding="same", padding_mode="circular"), PLANE),
    "reflect": (lambda: conv(kernel_size=3, padding=(2, 1), padding_mode="reflect"), PLANE),
    "replicate": (lambda: conv(kernel_size=3, padding=1, padding_mode="replicate", stride=2), PLANE),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(6, 33, 3, padding="same"), nn.BatchNorm1d(33), nn.ReLU(),
                                     nn.Conv1d(33, 5, 2, stride=2), nn.AvgPool1d(2), nn.Flatten()), LINE),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(4, 8, (2, 3, 2), padding=(1, 0, 2)), nn.BatchNorm3d(8), nn.ReLU(),
                                     nn.MaxPool3d(2), nn.Conv3d(8, 4, 2), nn.Flatten()), CUBE),
    "layer used twice": (
        lambda: Net(tied, first=nn.Linear(20, 32), layer=nn.Linear(32, 32), norm=nn.BatchNorm1d(32),
                    head=nn.Linear(32, 4)), VECTOR,
    ),
    "tokens": (lambda: nn.Sequential(nn.Linear(11, 33), nn.ReLU(), nn.Linear(33, 7)), LINE),
    "tokens, batch norm over them": (
        lambda: nn.Sequential(nn.Linear(11, 33), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(33, 7)), LINE),
    "tokens, signs": (lambda: nn.Sequential(nn.Linear(11, 33), vb.nn.Sign(), nn.Linear(33, 7)), LINE),
    "layer norm": (lambda: nn.Sequential(nn.Linear(20, 33), nn.LayerNorm(33), nn.GELU(), nn.Linear(33, 4)), VECTOR),
    "gates": (
        lambda: nn.Sequential(nn.Linear(20, 33), nn.LayerNorm(33, elementwise_affine=False),
                              vb.nn.Gate("bits", reverse=True), nn.Linear(33, 9), nn.LayerNorm(9),
                              vb.nn.Gate(width=0.7), nn.Linear(9, 4), nn.LayerNorm(4, elementwise_affine=False)),
        VECTOR,
    ),
    "gates between convolutions": (
        lambda: nn.Sequential(nn.Conv2d(6, 64, 3), vb.nn.Gate(width=4.5), nn.Conv2d(64, 40, 3, groups=2, padding=1),
                              vb.nn.Gate("bits", width=20.5), nn.Flatten(), nn.Linear(1680, 3)), PLANE,
    ),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(6, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten()), PLANE),
    "batch norm first": (lambda: nn.Sequential(nn.BatchNorm1d(20), nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 3)),
                         VECTOR),
    "the input comes in late": (
        lambda: Net(lambda m, x: m.b(torch.cat([m.a(x).relu(), x], 1)) + x[:, :7], a=nn.Linear(20, 9),
                    b=nn.Linear(29, 7)), VECTOR,
    ),
    "parameters in forward": (
        lambda: Net(lambda m, x: m.scale * m.a(x - m.centre).relu() + 0.5 * m.b(x) / 3, a=nn.Linear(20, 7),
                    b=nn.Linear(20, 7), scale=torch.randn(1), centre=torch.randn(20)), VECTOR,
    ),
    "view by size": (
        lambda: Net(lambda m, x: m.b(m.a(x).relu().view(x.size(0), -1)), a=nn.Conv2d(6, 8, 3), b=nn.Linear(336, 4)
                    ), PLANE,
    ),
    "view by own shape": (
        lambda: Net(lambda m, x: (lambda h: m.b(h.view(h.shape[0], -1)))(m.a(x).relu()), a=nn.Conv2d(6, 8, 3),
                    b=nn.Linear(336, 4)), PLANE,
    ),
    "view without the batch": (
        lambda: Net(lambda m, x: m.b(m.a(x).relu().view(-1, 336)), a=nn.Conv2d(6, 8, 3), b=nn.Linear(336, 4)), PLANE),
    "a token for each row": (
        lambda: Net(lambda m, x: m.b(torch.cat([m.token.expand(m.a(x).size(0), -1, -1), m.a(x)], 1).mean(1)),
                    a=nn.Linear(11, 9), b=nn.Linear(9, 4), token=torch.randn(1, 1, 9)), LINE,
    ),
    "zeros of the batch's size": (
        lambda: Net(lambda m, x: m.b(torch.cat([x.new_ones((x.size(0), 3)), m.a(x)], 1)), a=nn.Linear(20, 9),
                    b=nn.Linear(12, 4)), VECTOR,
    ),
    "parts": (
        lambda: Net(lambda m, x: (lambda p: m.b(p[0] * p[1].sigmoid()))(m.a(x).chunk(2, 1)), a=nn.Linear(20, 18),
                    b=nn.Linear(9, 4)), VECTOR,
    ),
    "attribute": (
        lambda: Net(lambda m, x: m.b(m.a(x).data.relu().mT) + x.mean((1, 2), keepdim=True), a=nn.Linear(11, 9),
                    b=nn.Linear(6, 4)), LINE,
    ),
    "one output less": (lambda: nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 1), nn.Flatten(0)), VECTOR),
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, Tensor]:
    """A model of the zoo, binary, and inputs for it."""
    make, shape = ZOO[name]
    torch.manual_seed(0)
    model = vb.binarize(settled(make()))
    return model, torch.randn(*shape, generator=seeded(2))


def answers(model: nn.Module, inputs: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
    """S×N×… in float64: the user's own model, holding the networks that `pack` draws from the same generator."""
    layers = [layer for _, layer in vb.nn.binary_layers(model)]
    with torch.no_grad():
        drawn = _draw(layers, num_samples, generator) if num_samples else _mode(layers)
        weights = [[weight_of(layer, drawn[layer][s]).double() for layer in layers] for s in range(max(num_samples, 1))]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dtypes = {name: value.dtype for name, value in before.items()}
    results = []
    try:
        model.double()
        with evaluating(model), torch.no_grad():
            for own in weights:
                with holding(layers, own):
                    results.append(model(inputs.double()))
    finally:
        for module in model.modules():
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                full = next(key for key, value in model.state_dict(keep_vars=True).items() if value is tensor)
                tensor.data = before[full].to(dtypes[full])
                assert name in full
    return torch.stack(results)
