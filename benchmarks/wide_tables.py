"""The table of `wide.py` in docs/uncertainty.md; `tables.py` writes it."""

from __future__ import annotations

from typing import Any

WIDE = {
    "posterior": "**living posterior**, {num_samples} draws",
    "posterior, mode": "the posterior's mode, 1 network",
    "ste": "StraightThrough (Adam)",
    "bop": "Bop",
    "float": "float twin (Adam)",
}
OF_WIDE = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "ood_auroc": ("AUROC Fashion", 1, 3),
    "entropy_bits": ("bits per weight", 1, 2),
}


def wide_table(results: dict[str, Any]) -> str:
    """The published network on MNIST, mean ± standard deviation where there is more than one seed."""
    lines = [
        f"|  | seeds | {' | '.join(title for title, _, _ in OF_WIDE.values())} |",
        f"| --- | ---: | {' | '.join('---:' for _ in OF_WIDE)} |",
    ]
    for name, title in WIDE.items():
        row = results["table"].get(name)
        if row is None:
            continue
        seeds = len(results["runs"][name.removesuffix(", mode")])
        cells = []
        for key, (_, scale, digits) in OF_WIDE.items():
            spread = f" ± {scale * row[key]['sd']:.{digits}f}" if key in row and seeds > 1 else ""
            cells.append(f"{scale * row[key]['mean']:.{digits}f}{spread}" if key in row else "")
        lines.append(f"| {title.format(**results)} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)
