"""How long do proved bounds for a whole layer take?

    python benchmarks/sdp_layer.py                                     generated inputs of the kind of strokes
    python benchmarks/sdp_layer.py --data-dir FOLDER                   MNIST from files
    python benchmarks/sdp_layer.py --neurons 64 --scale free

One call for all neurons, two threads. Targets are the outputs of a random float layer. Processor time says what the
work costs on a machine that others use too.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
from record import RESULTS, machine, read, say, write

from varbnn import data
from varbnn.sdp import least_squares_batch


def strokes(count: int, side: int = 28) -> np.ndarray:
    """Blurred random walks: sparse, non-negative, neighbours alike, the border dark, as in images of digits."""
    generator = np.random.default_rng(0)
    images = np.zeros((count, side, side))
    for image in images:
        place = generator.uniform(8, side - 8, 2)
        heading = generator.uniform(0, 2 * np.pi)
        for _ in range(40):
            heading += 0.4 * generator.standard_normal()
            place = np.clip(place + 0.7 * np.array([np.cos(heading), np.sin(heading)]), 1, side - 2)
            row, column = place.astype(int)
            image[row : row + 2, column : column + 2] += generator.uniform(0.5, 1.0)
    return np.minimum(images, 1.0).reshape(count, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--neurons", type=int, default=1024)
    parser.add_argument("--scale", choices=("free", "given"), default="given")
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=RESULTS / "sdp-layer.json")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.data_dir is None:
        name, x = "generated strokes", strokes(args.rows)
    else:
        # standardised by one mean and one deviation; back to dark = 0
        images = data.load("mnist", args.data_dir).train_x[: args.rows].double().numpy()
        name, x = "MNIST", images - images.min()
    weights = np.random.default_rng(1).standard_normal((x.shape[1], args.neurons)) / np.sqrt(x.shape[1])
    y = x @ weights
    begun = time.perf_counter(), time.process_time()
    quick = least_squares_batch(x, y, method="descent")
    scale = "free" if args.scale == "free" else quick.scales
    solved = least_squares_batch(x, y, scale, tolerance=args.tolerance, progress=True)
    energy = (y * y).sum(0)
    row = {
        "data": name,
        "scale": args.scale,
        "rows": len(x),
        "inputs": x.shape[1],
        "inputs_alive": int((np.abs(x).max(0) > 0).sum()),
        "neurons": args.neurons,
        "tolerance": args.tolerance,
        "wall_seconds": time.perf_counter() - begun[0],
        "processor_seconds": time.process_time() - begun[1],
        "most_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "certified": int((solved.lower_bounds > 0).sum()),
        "error": float((solved.objectives / energy).mean()),
        "error_of_descent": float((quick.objectives / energy).mean()),
        "bound": float((solved.lower_bounds / energy).mean()),
        "bound_by_found_mean": float((solved.lower_bounds / solved.objectives).mean()),
        "bound_by_found_least": float((solved.lower_bounds / solved.objectives).min()),
    }
    runs = read(args.out).get("runs", {}) | {f"{name}, {args.scale}, {args.neurons}": row}
    write(args.out, {"machine": machine(), "runs": runs})
    say(row)


if __name__ == "__main__":
    main()
