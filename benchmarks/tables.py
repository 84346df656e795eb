"""Write the tables of README and docs from the committed results, so that no number is typed by hand.

python benchmarks/tables.py
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import integer_tables
import posterior_ablation_tables
import query_tables
import signs_tables
import uncertainty_tables
import vispa_tables
from bound_tables import layer_tables, sdp_tables
from permuted_tables import permuted_tables
from record import RESULTS, no_options, read
from scipy.stats import ttest_rel
from shift_tables import shift_tables
from split_tables import split_tables
from stream_tables import stream_tables

ROOT = Path(__file__).resolve().parent.parent

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


FIRST = 5


def seeds_table(results: dict[str, Any]) -> str:
    """Mean ± standard deviation over all seeds and over the first few, of one network and of the posterior."""
    columns = {key: COLUMNS[key] for key in ("accuracy", "nll", "ece", "ood_auroc")}
    head = ["", "seeds", *(title for title, _, _ in columns.values())]
    rows = [head, ["---", *("---:" for _ in head[1:])]]
    for seeds in (len(results["runs"]["ste"]), FIRST):
        for name, runs in results["runs"].items():
            cells = []
            for key, (_, scale, digits) in columns.items():
                values = [scale * run[key] for run in runs[:seeds]]
                cells.append(f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}")
            rows.append([NAMES[name].format(16), str(seeds), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


METHODS = {
    "ste": "[StraightThrough](methods/straight-through.md), Adam",
    "bop": "[Bop](methods/bop.md)",
    "bop2": "[Bop2ndOrder](methods/bop2ndorder.md), biased",
    "filter": "[GradientFilter](methods/gradient-filter.md)",
    "posterior": "[BayesBiNN](methods/bayesbinn.md), {} draws",
    "moments": "[moment propagation](methods/moment-propagation.md), {} draws",
    "gaussian": "[GaussianBLR](methods/gaussian-blr.md), fixed, {} draws",
    "vispa": "[VISPA](methods/vispa.md), rank 4, {} draws",
}
STUDIES = ("digits", "mnist", "digits-relu", "mnist-relu", "digits-convolutions")
OF_METHODS = {
    "accuracy": ("accuracy, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "ood_auroc": ("OOD AUROC", 1, 3),
    "entropy_bits": ("bits", 1, 2),
    "flips_per_step": ("flips/step", 1, 0),
    "ms_per_step": ("ms/step", 1, 1),
    "bytes_per_weight": ("bytes/weight", 1, 0),
}
ALONE = ("entropy_bits", "flips_per_step", "ms_per_step", "bytes_per_weight")
"""Columns whose spread says nothing."""


def methods_table(results: dict[str, Any]) -> str:
    """Every method with its settings as tuned: mean ± standard deviation over the seeds."""
    rows = [["", *(title for title, _, _ in OF_METHODS.values())], ["---", *("---:" for _ in OF_METHODS)]]
    for name, title in METHODS.items():
        if name not in results["table"]:
            continue
        row = results["table"][name]
        cells = [title.format(results["num_samples"])]
        for key, (_, scale, digits) in OF_METHODS.items():
            spread = "" if key in ALONE else f" ± {scale * row[key]['sd']:.{digits}f}"
            cells.append(f"{scale * row[key]['mean']:.{digits}f}{spread}")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def paired_table(results: dict[str, Any]) -> str:
    """The posterior less every other tuned method, seed by seed: mean difference and p of a paired t-test."""
    columns = {key: OF_METHODS[key] for key in ("accuracy", "nll", "ece", "ood_auroc")}
    rows = [["posterior less …", *(title for title, _, _ in columns.values())], ["---", *("---:" for _ in columns)]]
    for name, title in METHODS.items():
        if name == "posterior":
            continue
        cells = [title.format(results["num_samples"])]
        for key, (_, scale, digits) in columns.items():
            ours, theirs = ([run[key] for run in results["runs"][m]] for m in ("posterior", name))
            p = float(ttest_rel(ours, theirs).pvalue)
            sure = "p < .001" if p < 0.001 else "p " + f"{p:.3f}".lstrip("0")
            cells.append(f"{scale * (statistics.fmean(ours) - statistics.fmean(theirs)):+.{digits}f} ({sure})")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def settings_table(results: dict[str, Any]) -> str:
    """What every method was tuned over, and what won."""
    lines = ["| | trials | chosen | validation NLL, best to worst |", "|---|---:|---|---:|"]
    for name, title in METHODS.items():
        if name not in results["tuning"]:
            continue
        trials = results["tuning"][name]
        losses = [trial["nll"] for trial in trials]
        chosen = _settings(results["chosen"][name])
        span = f"{min(losses):.4f} … {max(losses):.4f}"
        lines.append(f"| {title.format(results['num_samples'])} | {len(trials)} | {chosen} | {span} |")
    return "\n".join(lines)


def _settings(chosen: list[dict[str, float]]) -> str:
    """One value where the splits agree, else those of the splits."""
    values = {key: [f"{settings[key]:.4g}" for settings in chosen] for key in chosen[0]}
    return ", ".join(
        f"`{key}={' '.join(dict.fromkeys(v)) if len(set(v)) == 1 else ' '.join(v)}`" for key, v in values.items()
    )


def steps_table(results: dict[str, Any]) -> str:
    """Processor time of every rule's step beside fused Adam's in the same run."""
    kinds = ("as it is", "plain torch", "torch.compile")
    lines = ["| step of 10 M weights | ms | × fused Adam | plain torch | torch.compile |", "|---|---:|---:|---:|---:|"]
    for name, row in results["table"].items():
        ratios = " | ".join(f"{row[kind]['ratio_to_fused_adam']:.2f}" for kind in kinds)
        lines.append(f"| {name} | {row['as it is']['median_ms']:.1f} | {ratios} |")
    return "\n".join(lines)


def cost_table(results: dict[str, Any]) -> str:
    """Ratios to forward + backward of the float twin."""
    rows = [f"| {name} | {row['ratio_to_forward_backward']:.2f} |" for name, row in results["table"].items()]
    return "\n".join(["| one training step | × forward+backward |", "|---|---:|", *rows])


def reference_table(results: dict[str, Any]) -> str:
    """Scores of the authors' code, of its loop transcribed, ours, and the distances in standard errors."""
    rows = []
    for key, row in results["reference"]["table"].items():
        transcribed, exact = (results[name]["table"][key]["ours"] for name in ("transcribed", "exact"))
        means = " | ".join(f"{value:.4f}" for value in (row["published"], transcribed, row["ours"]))
        distances = f"{row['from_published']:+.1f} | {row['from_transcribed']:+.1f}"
        rows.append(f"| {key} | {means} | {distances} | {exact:.4f} |")
    seeds = len(results["reference"]["runs"])
    head = (
        f"| | the authors' optimizer and layers, 3 seeds | their loop transcribed, {seeds} seeds "
        f"| `reference`, {seeds} seeds | standard errors from the authors' | from transcribed "
        f"| `exact`, {seeds} seeds |"
    )
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|---:|", *rows])


PACKED = {"mlp": "ReLU", "signs": "`Sign`", "vgg": "VGG-like, ReLU", "vgg-signs": "VGG-like, `Sign`"}
GATED = {f"gates-{width}": f"layer norm, `Gate`, 784-{width}-10" for width in (100, 2000)}


def packed_table(results: dict[str, Any], titles: dict[str, str]) -> str:
    """Packed models beside as many float networks."""
    lines = ["| activations | weights, bytes | instructions | × float, batch (in brackets) |", "|---|---:|---|---|"]
    for name, title in titles.items():
        if name not in results["table"]:
            continue
        row = results["table"][name]
        size = f"1/{row['float_bytes'] / row['packed_bytes']:.1f}"
        for level in ("avx512", "avx2"):
            ratios = [f"{cells[level]['ratio_to_torch']:.1f} ({batch})" for batch, cells in row["batches"].items()]
            lines.append(f"| {title} | {size} | {level} | {', '.join(ratios)} |")
    return "\n".join(lines)


def estimators_table(results: dict[str, Any]) -> str:
    """Score, NLL and seconds of fitting and testing, mean ± standard deviation over the folds."""
    lines = ["| data | estimator | score | NLL | processor s |", "|---|---|---:|---:|---:|"]
    for data, rows in results["table"].items():
        for name, row in rows.items():
            cells = [f"{row[key]['mean']:.3f} ± {row[key]['sd']:.3f}" for key in ("score", "nll")]
            lines.append(f"| {data.replace('_', ' ')} | {name} | {' | '.join(cells)} | {row['seconds']['mean']:.1f} |")
    return "\n".join(lines)


def regression_table(results: dict[str, Any]) -> str:
    """Test RMSE, log-likelihood and coverage, mean ± standard error over the splits, a row per data set and method."""
    lines = [
        "| data, splits | method | RMSE | log-likelihood | coverage of 95 % | chosen, splits × value |",
        "|---|---|---:|---:|---:|---|",
    ]
    for data, rows in results["table"].items():
        for title, row in rows.items():
            cells = [f"{row[k]['mean']:.3f} ± {row[k]['standard_error']:.3f}" for k in ("rmse", "log_likelihood")]
            chosen = ", ".join(f"{n} × {value:g}" for value, n in sorted(Counter(row["chosen"]).items()))
            coverage = f"{row['coverage']['mean']:.2f}"
            lines.append(f"| {data}, {row['splits']} | {title} | {' | '.join(cells)} | {coverage} | {chosen} |")
    return "\n".join(lines)


def tables() -> dict[str, dict[str, str]]:
    """By page, every table by the name of its marker."""
    made = {data: read(RESULTS / f"accuracy-{data}.json") for data in STUDIES}
    readme = {"mnist": accuracy_table(made["mnist"]), "digits": seeds_table(read(RESULTS / "digits-seeds.json"))}
    readme["step-time"] = cost_table(read(RESULTS / "step-time.json"))
    readme["packed-speed"] = packed_table(read(RESULTS / "packed.json"), PACKED)
    readme["reference-run"] = reference_table(read(RESULTS / "reference-run.json"))
    comparison = {f"methods-{data}": methods_table(results) for data, results in made.items()}
    comparison |= {f"settings-{data}": settings_table(results) for data, results in made.items()}
    comparison["paired-digits"] = paired_table(made["digits"])
    comparison["rule-steps"] = steps_table(read(RESULTS / "rule-steps.json"))
    made_permuted, made_split = permuted_tables(), split_tables()
    return {
        "README.md": readme,
        "docs/comparison.md": comparison,
        "docs/continual.md": {
            "permuted-five": made_permuted["permuted-five"],
            "split-mnist": made_split["split-mnist"],
        },
        "docs/continual-permuted.md": made_permuted,
        "docs/continual-split.md": made_split,
        "docs/defaults.md": posterior_ablation_tables.tables(),
        "docs/integer.md": integer_tables.tables(),
        "docs/layerwise.md": layer_tables(),
        "docs/packed.md": {"packed-speed": packed_table(read(RESULTS / "packed.json"), PACKED | GATED)},
        "docs/querying.md": query_tables.tables(),
        "docs/regression.md": {"regression": regression_table(read(RESULTS / "regression.json"))},
        "docs/sklearn.md": {"estimators": estimators_table(read(RESULTS / "estimators.json"))},
        "docs/uncertainty.md": uncertainty_tables.tables(),
        "docs/shift.md": shift_tables(),
        "docs/signs.md": signs_tables.tables(),
        "docs/streams.md": stream_tables(),
        "docs/sdp.md": sdp_tables(read(RESULTS / "sdp.json")),
        "docs/methods/vispa.md": vispa_tables.page(
            read(RESULTS / "vispa.json"), ("mnist", read(RESULTS / "vispa-mnist.json"))
        ),
    }


def filled(text: str, made: dict[str, str]) -> str:
    """`text` with every table of `made` between its markers."""
    for name, table in made.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert pattern.search(text), f"there is no marker {name}"
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    no_options(__doc__)
    for page, made in tables().items():
        path = ROOT / page
        path.write_text(filled(path.read_text(encoding="utf-8"), made), encoding="utf-8")
