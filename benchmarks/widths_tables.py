"""The table of narrow networks in docs/signs.md, from the committed results; `tables.py` writes it."""

from __future__ import annotations

from typing import Any

from record import RESULTS, read
from uncertainty_tables import grid
from widths import WIDTHS

HEAD = [
    *("hidden", "between", "kbit of weights", "NLL, one network", "NLL, 16 draws", "ratio"),
    *("accuracy, one, %", "16 draws", "AUROC, one", "16 draws", "bits per weight"),
]


def widths_table() -> str:
    """One network and the posterior by width, with ReLU and with signs."""
    rows = []
    for kind in ("relu", "sign"):
        table = read(RESULTS / f"widths-{kind}.json")["table"]
        rows += [_row(kind, width, table[str(width)]) for width in WIDTHS]
    return grid(HEAD, rows)


def _row(kind: str, width: int, row: dict[str, Any]) -> list[str]:
    one, draws = row["ste"], row["posterior"]
    p = "< .001" if row["p"] < 0.001 else f"{row['p']:.3f}".lstrip("0")
    return [
        *(f"{width}-{width}", f"`{kind}`", f"{(64 + width + 10) * width / 1000:.1f}"),
        *(f"{way['nll']['mean']:.4f} ± {way['nll']['standard_error']:.4f}" for way in (one, draws)),
        f"{row['ratio']:.2f} (p {p})",
        *(f"{100 * way['accuracy']['mean']:.2f}" for way in (one, draws)),
        *(f"{way['ood_auroc']['mean']:.3f}" for way in (one, draws)),
        f"{draws['entropy_bits']['mean']:.2f}",
    ]
