"""Write the tables of the README from the committed results, so that no number is typed by hand.

python benchmarks/tables.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from record import RESULTS, read

README = Path(__file__).resolve().parent.parent / "README.md"

NAMES = {
    "ste": "straight-through (Adam), tuned",
    "ste, published lr": "straight-through (Adam), lr 1e-2 throughout",
    "posterior": "**posterior, mean of {} draws**",
    "posterior, mode": "posterior, mode",
}
COLUMNS = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "brier": ("Brier", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "ood_auroc": ("OOD AUROC", 1, 3),
    "entropy_bits": ("bits", 1, 2),
}


def accuracy_table(results: dict[str, Any]) -> str:
    """Mean ± standard deviation over the seeds, a row per method."""
    head = ["", *(title for title, _, _ in COLUMNS.values())]
    rows = [head, ["---", *("---:" for _ in COLUMNS)]]
    for name, title in NAMES.items():
        row = results["table"][name]
        cells = [
            f"{scale * row[key]['mean']:.{digits}f} ± {scale * row[key]['sd']:.{digits}f}" if key in row else ""
            for key, (_, scale, digits) in COLUMNS.items()
        ]
        rows.append([title.format(results["num_samples"]), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cost_table(results: dict[str, Any]) -> str:
    """Ratios to forward + backward of the float twin."""
    rows = [f"| {name} | {row['ratio_to_forward_backward']:.2f} |" for name, row in results["table"].items()]
    return "\n".join(["| one training step | × forward+backward |", "|---|---:|", *rows])


def reference_table(results: dict[str, Any]) -> str:
    """Published scores, those of its loop transcribed, ours, and the distances in standard errors."""
    rows = []
    for key, row in results["reference"]["table"].items():
        transcribed, exact = (results[name]["table"][key]["ours"] for name in ("transcribed", "exact"))
        means = " | ".join(f"{value:.4f}" for value in (row["published"], transcribed, row["ours"]))
        distances = f"{row['from_published']:+.1f} | {row['from_transcribed']:+.1f}"
        rows.append(f"| {key} | {means} | {distances} | {exact:.4f} |")
    seeds = len(results["reference"]["runs"])
    head = (
        f"| | published, 3 seeds | its loop transcribed, {seeds} seeds | `reference`, {seeds} seeds "
        f"| standard errors from published | from transcribed | `exact`, {seeds} seeds |"
    )
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|---:|", *rows])


def tables() -> dict[str, str]:
    """Every table by the name of its marker."""
    made = {f"accuracy-{data}": accuracy_table(read(RESULTS / f"accuracy-{data}.json")) for data in ("digits", "mnist")}
    made["step-time"] = cost_table(read(RESULTS / "step-time.json"))
    made["reference-run"] = reference_table(read(RESULTS / "reference-run.json"))
    return made


def filled(text: str) -> str:
    """`text` with every table between its markers made anew."""
    for name, table in tables().items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert pattern.search(text), f"README has no marker {name}"
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
