"""How fast are 32 sampled networks as bits on a GPU, beside the same networks in float16?

    python benchmarks/packed_gpu.py

S networks 784-2048-2048-2048-10 predict batches of 1 to 1024. Packed: real activations to float32 accuracy, rounded to
8 bits, and signs; the last layer averages the softmax. Beside it: torch's batched product of float16 weights with relu,
softmax and mean. Each is recorded as a CUDA graph, so launches count as little as they can, and timed by events; the
smallest of the rounds counts, in turns. Then how fast signs are drawn, beside torch.bernoulli. Needs a CUDA GPU.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, say, write
from torch import Tensor

from varbnn.bits import unpack_blocks
from varbnn.kernels import backend_info, ops

WIDTHS = (784, 2048, 2048, 2048, 10)
BATCHES = (1, 16, 64, 256, 1024)


class Packed:
    """S networks as bits; `kind` says what activations are between the layers."""

    def __init__(self, samples: int, device: torch.device) -> None:
        self.layers = []
        for layer, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
            seed = torch.tensor([1], device=device)
            blocks = ops.sample_blocks(torch.zeros(outputs, inputs, device=device), seed, layer, 0, samples)
            scale = torch.full((1, outputs), inputs**-0.5, device=device)
            self.layers.append((blocks, inputs, outputs, scale))

    def nbytes(self) -> int:
        return sum(blocks.nbytes for blocks, *_ in self.layers)

    def __call__(self, x: Tensor, kind: str) -> Tensor:
        for blocks, inputs, outputs, scale in self.layers[:-1]:
            if kind == "int8":
                x = ops.linear_int8(x, blocks, inputs, outputs, scale, None, "relu")
            else:
                x = ops.linear(x, blocks, inputs, outputs, scale, None, "sign" if kind == "signs" else "relu")
        blocks, inputs, outputs, scale = self.layers[-1]
        return ops.predictive(x, blocks, inputs, outputs, scale)[0]


class Half:
    """The same networks in float16, by batched products."""

    def __init__(self, packed: Packed) -> None:
        self.layers = [
            (unpack_blocks(blocks, outputs, inputs, torch.float16).transpose(1, 2).contiguous() * scale[0, 0].half())
            for blocks, inputs, outputs, scale in packed.layers
        ]

    def nbytes(self) -> int:
        return sum(weight.nbytes for weight in self.layers)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.half().expand(len(self.layers[0]), -1, -1)
        for weight in self.layers[:-1]:
            x = torch.bmm(x, weight).relu_()
        return torch.bmm(x, self.layers[-1]).float().softmax(-1).mean(0)


def recorded(run: Callable[[], Any]) -> Callable[[], None]:
    """`run` as a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()
    graph.keep = kept  # type: ignore[attr-defined]  # its memory belongs to the graph
    return graph.replay


def microseconds(run: Callable[[], None], times: int) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / times * 1e3


def in_turns(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, float]]:
    times = {name: max(1, int(2e4 / microseconds(run, 3))) for name, run in runs.items()}  # about 20 ms each
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(microseconds(run, times[name]))
    return {name: {"min_us": min(all_), "median_us": statistics.median(all_)} for name, all_ in taken.items()}


def networks(samples: int, rounds: int, device: torch.device) -> dict[str, Any]:
    packed = Packed(samples, device)
    half = Half(packed)
    found: dict[str, Any] = {"packed_bytes": packed.nbytes(), "float16_bytes": half.nbytes(), "batches": {}}
    say(f"weights: {packed.nbytes() / 1e6:.1f} MB packed, {half.nbytes() / 1e6:.1f} MB in float16")
    for batch in BATCHES:
        x = torch.randn(1, batch, WIDTHS[0], device=device)
        error = (packed(x, "real") - half(x)).abs().max().item()
        runs = {"float16": recorded(lambda x=x: half(x[0]))}
        for kind in ("real", "int8", "signs"):
            runs[kind] = recorded(lambda x=x, kind=kind: packed(x, kind))
        times = in_turns(runs, rounds)
        found["batches"][str(batch)] = {"times": times, "largest_difference_from_float16": error}
        base = times["float16"]["min_us"]
        cells = "  ".join(
            f"{name} {each['min_us']:.1f} us ({base / each['min_us']:.2f}x)" for name, each in times.items()
        )
        print(f"batch {batch:5}: {cells}", flush=True)
    return found


def draws(samples: int, rounds: int, device: torch.device) -> dict[str, Any]:
    natural, seed = torch.randn(2048, 2048, device=device), torch.tensor([1], device=device)
    probability = torch.sigmoid(2 * natural).expand(samples, -1, -1)
    runs = {
        "philox to bits": recorded(lambda: ops.sample_blocks(natural, seed, 0, 0, samples)),
        "torch.bernoulli": recorded(lambda: torch.bernoulli(probability)),
    }
    times = in_turns(runs, rounds)
    weights = samples * natural.numel()
    for name, each in times.items():
        print(f"{name}: {weights / each['min_us'] / 1e6:.2f} T weights/s", flush=True)
    return {"weights": weights, "times": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "packed-gpu.json")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA GPU; torch sees none")
    device = torch.device("cuda", torch.cuda.current_device())
    say(backend_info())
    write(
        given.out,
        {
            "machine": machine() | {"gpu": torch.cuda.get_device_name(device), "kernels": backend_info().cuda},
            "samples": given.samples,
            "networks": networks(given.samples, given.rounds, device),
            "draws": draws(given.samples, given.rounds, device),
        },
    )


if __name__ == "__main__":
    main()
