"""Write what docs/ablations.md says in numbers, from the committed results.

python benchmarks/ablation_tables.py
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import RESULTS, no_options, read, table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "ablations.md"


class Results:
    """The committed runs, asked by their settings."""

    def __init__(self, path: Path = RESULTS / "ablations.json") -> None:
        self.content = read(path)

    def rows(self, ablation: str, **settings: Any) -> list[dict[str, Any]]:
        return [row for row in self.content["table"][ablation] if settings.items() <= row["settings"].items()]

    def row(self, ablation: str, **settings: Any) -> dict[str, Any]:
        (row,) = self.rows(ablation, **settings)
        return row

    def runs(self, ablation: str, **settings: Any) -> list[dict[str, Any]]:
        return [run for run in self.content["runs"][ablation] if settings.items() <= run["settings"].items()]


def power(value: float) -> str:
    return f"{value:g}" if value in (0, 1) else f"{value:.0e}".replace("e-0", "e-")


def few(value: float) -> str:
    """Three digits at most."""
    return (
        "0"
        if value == 0
        else "< 0.01"
        if value < 0.01
        else f"{value:.0f}"
        if value >= 10
        else f"{value:.1f}"
        if value >= 1
        else f"{value:.2f}"
    )


def percent(value: float) -> str:
    """Never 100 for what is not all."""
    return "100" if value == 1 else f"{min(100 * value, 99.99):.{1 if value < 0.9995 else 2}f}"


def spread(cell: dict[str, float], written: Callable[[float], str]) -> str:
    """Mean, and from where to where it went."""
    low, mean, high = (written(cell[key]) for key in ("min", "mean", "max"))
    return mean if low == high else f"{mean} ({low}–{high})"


def nll(cell: dict[str, float]) -> str:
    return spread(cell, lambda value: f"{value:.3f}")


def bop(results: Results) -> str:
    """Flips per step where threshold and rate have the same ratio."""
    gammas = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    rows = []
    for ratio in (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        cells = []
        for gamma in gammas:
            found = [r for r in results.rows("bop", gamma=gamma) if close(r["settings"]["threshold"], ratio * gamma)]
            cells.append(few(found[0]["flips"]["mean"]) if found else "")
        rows.append([power(ratio), *cells])
    return table(["τ/γ", *(f"γ = {power(gamma)}" for gamma in gammas)], rows)


def close(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6 * abs(other)


def second(results: Results) -> str:
    """How equal two forms are whose thresholds are matched."""
    rows = []
    for threshold in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        cells = []
        for schedule in ("constant", "published"):
            two = dict(schedule=schedule, threshold=threshold)
            biased, matched = (results.row("second", form=form, **two) for form in ("biased", "released, matched"))
            cells += [nll(biased["nll"]), nll(matched["nll"]), percent(matched["equal_at_end"]["mean"])]
        rows.append([power(threshold), *cells])
    cells = []
    for schedule in ("constant", "published"):
        (biased,) = results.rows("second", form="biased, no floor", schedule=schedule)
        (matched,) = results.rows("second", form="released, matched, no floor", schedule=schedule)
        cells += [nll(biased["nll"]), nll(matched["nll"]), percent(matched["equal_throughout"]["mean"])]
        of = biased["settings"]["threshold"]
    rows.append([f"{power(of)}, without 1e-10", *cells])
    heads = [
        f"{schedule}: {what}" for schedule in ("constant", "published") for what in ("biased", "matched", "equal, %")
    ]
    return table(["τ", *heads], rows)


KINDS = {
    "sgd": "SGD",
    "adam": "Adam",
    "sgd, window": "SGD, gradients pass where \\|r\\| ≤ 1",
    "sgd, box": "SGD, latents clipped at 1",
    "adam, box": "Adam, latents clipped at 1",
}


def rescaled(results: Results, form: str, factor: float, dtype: str = "float32") -> dict[str, Any]:
    return results.row("latent", form=form, start=factor, lr=factor, weight_decay=1 / factor, dtype=dtype)


def scales(results: Results) -> str:
    """What a change of scale does that should do nothing."""
    cases = [(title, form, c, "float32") for form, title in KINDS.items() for c in (1 / 16, 16.0)]
    cases[2:2] = [("SGD", "sgd", 10.0, "float32"), ("SGD, float64", "sgd", 10.0, "float64")]
    rows = []
    for title, form, factor, dtype in cases:
        row = rescaled(results, form, factor, dtype)
        same = [percent(row[key]["mean"]) for key in ("equal_throughout", "equal_on_average", "equal_at_end")]
        rows.append([title, f"{factor:g}" if factor > 1 else "1/16", *same, nll(row["nll"])])
    return table(["", "c", "equal at every step, %", "on average", "at the end", "NLL"], rows)


def decays(results: Results) -> str:
    """The product of learning rate and weight decay, alone."""
    rows = []
    for form, product in (("sgd", 1e-4), ("adam", 3e-7)):
        for factor in (0.0, 0.1, 1.0, 10.0, 100.0):
            found = results.rows("latent", form=form, start=1.0, lr=1.0, weight_decay=factor, dtype="float32")
            for row in found:
                numbers = [few(row["flips"]["mean"]), percent(row["equal_at_end"]["mean"])]
                rows.append([KINDS[form], power(factor * product), nll(row["nll"]), *numbers])
    return table(["", "lr · weight decay", "NLL", "flips per step", "signs at the end as in the row of 100, %"], rows)


STARTS = {
    "translated": "the filter, start translated",
    "zero, given gradients": "from 0, on the latent run's gradients",
    "zero": "from 0, on its own",
    "latents, other batches": "latents, other batches",
    "latents, other start": "latents, other start",
}


def starts(results: Results) -> str:
    """Equal signs with the latent run, and how good the network is."""
    rows = []
    last = results.content["network"]["epochs"]
    for start, title in STARTS.items():
        for decay in (1.0, 10.0):
            runs = results.runs("filter", start=start, weight_decay=decay)
            equal = [sum(run["equal_by_epoch"][e] for run in runs) / len(runs) for e in (1, last // 4, last // 2, last)]
            row = results.row("filter", start=start, weight_decay=decay)
            rows.append([title, power(1e-4 * decay), *map(percent, equal), nll(row["nll"]) if "nll" in row else ""])
    per_epoch = results.content["network"]["steps"] // last
    times = [f"{e * per_epoch}" for e in (1, last // 4, last // 2, last)]
    head = [f"equal signs after {times[0]} steps, %", *times[1:]]
    return table(["start", "lr · weight decay", *head, "NLL"], rows)


def found(results: Results) -> str:
    """The page in six sentences."""
    frozen = results.row("bop", gamma=1e-5, threshold=1e-3)
    restless = results.row("bop", gamma=1e-1, threshold=0.0)
    ratio = [results.row("bop", gamma=g, threshold=t) for g, t in ((1e-3, 1e-6), (1e-4, 1e-7), (1e-5, 1e-8))]
    late = {s: results.row("second", schedule=s, threshold=1.0, form="biased") for s in (PUBLISHED, STEADY)}
    free = [run for run in results.runs("latent", form="sgd", dtype="float32") if run["settings"]["start"] != 10]
    grid = [r for r in free if r["settings"]["lr"] * r["settings"]["weight_decay"] == 1]
    different = {(run["seed"], run["fingerprint"]) for run in grid}
    seeds = len({run["seed"] for run in grid})
    box = rescaled(results, "adam, box", 16.0)
    start = {s: results.row("filter", start=s, weight_decay=10.0)["equal_at_end"]["mean"] for s in STARTS}
    whole = results.content["weights"]
    assert frozen["flips"]["max"] == 0, "these signs were to be frozen"
    sentences = [
        f"**Freezing.** With τ = 1e-3 and γ = 1e-5 none of {whole:,} weights ever flips. The network scores "
        f"{percent(frozen['accuracy']['mean'])} % all the same, NLL {nll(frozen['nll'])}: its batch norms learn.",
        f"**Never settling.** With γ = 0.1 and no threshold {few(restless['late_flips']['mean'])} weights flip at "
        f"every step to the end: {percent(restless['accuracy']['mean'])} %, NLL {nll(restless['nll'])}.",
        "**One knob.** While 1/γ is longer than training only τ/γ counts: at τ/γ = 1e-3 Bop with γ = 1e-3, 1e-4, 1e-5 "
        f"flips {', '.join(few(row['flips']['mean']) for row in ratio)} weights per step, NLL "
        f"{', '.join(format(row['nll']['mean'], '.3f') for row in ratio)}.",
        "**Schedules that fall together.** Bop2ndOrder with the published courses around τ = 1 ends at "
        f"{percent(late[PUBLISHED]['accuracy']['mean'])} %, worse than frozen signs; with γ constant at "
        f"{percent(late[STEADY]['accuracy']['mean'])} %.",
        f"**Latents have no scale.** {len(grid) // seeds} settings of start and learning rate are "
        f"{len(different) // seeds} different runs, sign for sign at every step, with SGD and with Adam. A clip breaks "
        f"it: with Adam clipped at 1 and everything times 16, {percent(box['equal_at_end']['mean'])} % of the signs "
        "agree at the end.",
        f"**The filter is the latent run** from a translated start: {percent(start['translated'])} % of the signs are "
        f"equal. From 0 it is another run: {percent(start['zero'])} % at the end, "
        f"{percent(start['zero, given gradients'])} % if it is handed the latent run's gradients, both at ten times "
        f"the decay. Batches in another order leave {percent(start['latents, other batches'])} %.",
    ]
    return "\n".join(f"- {sentence}" for sentence in sentences)


PUBLISHED, STEADY = "published", "published, γ constant"
BLOCKS: dict[str, Callable[[Results], str]] = {
    "found": found,
    "bop": bop,
    "second": second,
    "scales": scales,
    "decays": decays,
    "starts": starts,
}


def filled(text: str) -> str:
    """`text` with everything between its markers made anew."""
    results = Results()
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert pattern.search(text), f"{PAGE.name} has no marker {name}"
        made = f"\n{block(results)}\n\n"
        text = pattern.sub(lambda match, made=made: f"{match[1]}{made}{match[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    no_options(__doc__)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
