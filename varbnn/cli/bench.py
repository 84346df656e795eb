"""`varbnn bench`: packed against float on this machine, side by side, in a few seconds."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import varbnn as vb
from varbnn.cli.arguments import at_least, threads, widths
from varbnn.demo.comparison import alone
from varbnn.errors import InputError
from varbnn.text import plural, size, table

SECONDS = 1.5
"""For each batch size, at least three rounds."""

MOST_BYTES = 2**32
"""Of the float networks, which are all held, and of what they say about one batch."""


def add(commands: Any) -> None:
    about = "time sampled networks, packed and as float32, side by side on this machine"
    more = f"{about}: a few seconds. benchmarks/ has the careful measurements."
    add = commands.add_parser("bench", help=about, description=more).add_argument
    about = "layers, with batch norm and ReLU between them; default: 784-1024-1024-10"
    add("--network", type=widths, default=(784, 1024, 1024, 10), metavar="WIDTHS", help=about)
    add("--samples", type=at_least(1), default=32, metavar="N", help="networks; default: 32")
    about = "inputs at a time; default: 1 16 128"
    add("--batch", type=at_least(1), nargs="+", default=[1, 16, 128], metavar="N", help=about)
    add("--threads", type=threads, default=1, metavar="N", help="default: 1")
    commands.choices["bench"].set_defaults(command=_run)


def _run(chosen: argparse.Namespace) -> None:
    weights = sum(a * b for a, b in itertools.pairwise(chosen.network))
    if 4 * weights * chosen.samples > MOST_BYTES:
        raise InputError(
            f"{plural(chosen.samples, 'float network')} would take {size(4 * weights * chosen.samples)}, at most "
            f"{size(MOST_BYTES)} are compared; choose fewer --samples or a smaller --network"
        )
    widest = max(chosen.network) + 2 * chosen.samples * chosen.network[-1]
    if 4 * widest * max(chosen.batch) > MOST_BYTES:
        raise InputError(
            f"a batch of {max(chosen.batch):,} inputs would take {size(4 * widest * max(chosen.batch))}, at most "
            f"{size(MOST_BYTES)} are compared; choose a smaller --batch"
        )
    with alone(chosen.threads), torch.no_grad():
        torch.manual_seed(0)
        _compare(chosen.network, chosen.samples, chosen.batch)


def _compare(network: Sequence[int], num_samples: int, batches: Sequence[int]) -> None:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(network):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    model = vb.binarize(nn.Sequential(*layers[:-1]))
    packed = vb.pack(model, num_samples, refresh_bn=torch.randn(200, network[0]))
    members = [packed.member(s) for s in range(num_samples)]
    floats = sum(p.nbytes for m in members for p in (*m.parameters(), *m.buffers()))
    info = vb.backend_info()
    print(f"network  {'-'.join(map(str, network))} with batch norm and ReLU, {plural(num_samples, 'sampled network')}")
    print(f"kernels  {'plain torch' if info.cpu == 'reference' else info.cpu}, {plural(info.threads, 'thread')}")
    print(f"memory   float32 {size(floats)}, packed {size(packed.nbytes)}: {floats / packed.nbytes:.1f} times less")
    print(flush=True)
    rows, difference = [["batch", "float32", "packed", "times faster"]], 0.0
    for batch in batches:
        x = torch.randn(batch, network[0])

        def as_floats(x: Tensor = x) -> Tensor:
            return torch.stack([member(x) for member in members])

        def as_bits(x: Tensor = x) -> Tensor:
            return packed(x)

        difference = max(difference, float((as_floats() - as_bits()).abs().max()))
        slow, fast = _fastest(as_floats, as_bits)
        rows.append([str(batch), f"{1e3 * slow:.2f} ms", f"{1e3 * fast:.2f} ms", f"{slow / fast:.1f}"])
    print(table(rows, left=()))
    print(f"\nshortest of several runs in turns; outputs differ by at most {difference:.1g}")


def _fastest(*tasks: Callable[[], Tensor]) -> list[float]:
    """The shortest time of each, taken in turns, so that a busy machine slows all alike."""
    best, start = [float("inf")] * len(tasks), time.perf_counter()
    for rounds in itertools.count():
        if rounds >= 3 and time.perf_counter() - start > SECONDS:
            return best
        for index, task in enumerate(tasks):
            begin = time.perf_counter()
            task()
            best[index] = min(best[index], time.perf_counter() - begin)
    raise AssertionError
