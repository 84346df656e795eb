"""The tables of proved bounds and of layer-by-layer networks, from the committed results; `tables.py` writes them."""

from __future__ import annotations

from typing import Any

from record import RESULTS, read


def sdp_tables(results: dict[str, Any]) -> dict[str, str]:
    """Bounds against the optimum, cuts, and times."""
    small = [
        "| | instances | bound ≤ optimum ≤ found | optimum found | gap below 1e-6 | bound below optimum by, median |"
    ]
    small.append("|---|---:|---:|---:|---:|---:|")
    for family, row in results["small"].items():
        counts = [row[key] for key in ("instances", "bound ≤ optimum ≤ found", "optimum found", "gap below 1e-6")]
        small.append(f"| {family} | {' | '.join(map(str, counts))} | {100 * row['median gap of the bound']:.0f} % |")
    cuts = ["| 20 weights, 15 rounds of cuts at most | instances | closed | without cuts | s each |"]
    cuts.append("|---|---:|---:|---:|---:|")
    for family, row in results["cuts"].items():
        counts = [row[key] for key in ("instances", "closed", "closed without")]
        cuts.append(f"| {family} | {' | '.join(map(str, counts))} | {row['seconds']:.2f} |")
    time = ["| n | against | s | its gap | low-rank, s | its gap | ratio |", "|---:|---|---:|---:|---:|---:|---:|"]
    scs = results["scs"]
    compared = [(f"prototype to {gap}", row, row["prototype"]) for gap, row in results["prototype"].items()]
    for name, row, other in [*compared, ("SCS", scs, scs["scs"])]:
        ours = row["low-rank"]
        figures = f"{other['seconds']:.1f} | {other['gap']:.0e} | {ours['seconds']:.2f} | {ours['gap']:.0e}"
        time.append(f"| {row['n']} | {name} | {figures} | {row['ratio']:.0f} |")
    growth = ["| low-rank to 1e-5, n | s | gap | rank |", "|---:|---:|---:|---:|"]
    for row in results["growth"]["rows"]:
        growth.append(f"| {row['n']} | {row['seconds']:.3g} | {row['gap']:.0e} | {row['rank']} |")
    growth.append(f"\nThe last four grow like n^{results['growth']['exponent']:.1f}.")
    made = {"small": small, "cuts": cuts, "time": time, "growth": growth}
    return {f"sdp-{name}": "\n".join(lines) for name, lines in made.items()}


LAYERWISE = {
    "float": "float",
    "xnor": "XNOR: sign, mean magnitude",
    "xnor, fitted": "XNOR, last layer fitted again",
    "descent": "single flips, best scale",
    "mixing": "relaxation by mixing, rounded",
    "interior": "relaxation by an interior point, rounded",
    "interior, last as it was": "the same, last layer as it was",
}


def layerwise_table(results: dict[str, Any], part: str) -> str:
    """What is left of a float network: error of the first layer, what is proved of it, and accuracy."""
    lines = ["| | relative output error | at least | accuracy, % | processor s |", "|---|---:|---:|---:|---:|"]
    for name, title in LAYERWISE.items():
        if name not in results["table"][part]:
            continue
        row = results["table"][part][name]
        error, bound = (f"{row[key]:.3f}" if key in row else "" for key in ("error", "bound"))
        spread = f" ± {100 * row['accuracy_sd']:.1f}" if "accuracy_sd" in row else ""
        seconds = f"{row['processor_seconds']:.1f}" if "processor_seconds" in row else ""
        lines.append(f"| {title} | {error} | {bound} | {100 * row['accuracy']:.1f}{spread} | {seconds} |")
    return "\n".join(lines)


def layer_table(results: dict[str, Any]) -> str:
    """Cost and tightness of proved bounds for all neurons of a layer."""
    lines = [
        "| data, scale | neurons × inputs | certified | bound / found, mean (least) | processor s | wall s | GiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results.values():
        ratio = f"{row['bound_by_found_mean']:.3f} ({row['bound_by_found_least']:.3f})"
        lines.append(
            f"| {row['data']}, {row['scale']} | {row['neurons']} × {row['inputs']} | {row['certified']} | {ratio} "
            f"| {row['processor_seconds']:.0f} | {row['wall_seconds']:.0f} | {row['most_memory_gib']:.1f} |"
        )
    return "\n".join(lines)


def layer_tables() -> dict[str, str]:
    """By marker, of docs/layerwise.md; runs that were not made have no table."""
    made = {
        f"layerwise-{name}-{part.split()[0]}": layerwise_table(results, part)
        for name, results in read(RESULTS / "sdp-layerwise.json").items()
        if name != "machine"
        for part in ("first layer", "both layers")
    }
    timed = read(RESULTS / "sdp-layer.json")
    return made | ({"layer": layer_table(timed["runs"])} if timed else {})
