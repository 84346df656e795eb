"""The three pictures of docs/ablations.md, drawn from benchmarks/results/ablations.json.

python docs/figures/ablations.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from common import RESULTS, save
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.patches import Rectangle

from varbnn.predict.style import BLUE, GREEN, INK, ORANGE, PALE, VERMILION, legend_above, new_panels

CONTENT = json.loads((RESULTS / "ablations.json").read_text(encoding="utf-8"))
RATIO = 1e-3  # of threshold and rate: the cells with it are framed
BLUES = LinearSegmentedColormap.from_list("white to blue", ["#FFFFFF", "#7FB8D8", BLUE, "#003554"])


def rows(ablation: str, **settings: Any) -> list[dict[str, Any]]:
    """Those of the summary that have these settings."""
    return [r for r in CONTENT["table"][ablation] if settings.items() <= r["settings"].items()]


def one(ablation: str, **settings: Any) -> dict[str, Any]:
    (row,) = rows(ablation, **settings)
    return row


def power(value: float) -> str:
    """10⁻³, or 0.

    >>> power(1e-3)
    '10⁻³'
    """
    return (
        "0"
        if value == 0
        else "10" + f"{round(np.log10(value)):d}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def scale(value: float) -> str:
    """16, or 1/16.

    >>> scale(0.25)
    '1/4'
    """
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"


def heat(
    panel: Any, values: np.ndarray, norm: Any, written: Callable[[float], str], *, across: list[str], down: list[str]
) -> None:
    """Coloured cells with their numbers in them."""
    panel.pcolormesh(values, cmap=BLUES, norm=norm, edgecolors="white", linewidth=1.5)
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if norm(value) > 0.5 else INK
        panel.text(column + 0.5, row + 0.5, written(value), ha="center", va="center", color=colour, fontsize=9)
    panel.set_xticks(np.arange(len(across)) + 0.5, across)
    panel.set_yticks(np.arange(len(down)) + 0.5, down)
    panel.tick_params(length=0)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.invert_yaxis()


def bop() -> Any:
    """Rates and thresholds."""
    table = rows("bop")
    gammas = sorted({r["settings"]["gamma"] for r in table}, reverse=True)
    thresholds = sorted({r["settings"]["threshold"] for r in table})
    figure, panels = new_panels(None, 3, figsize=(7.2, 8.6))
    cells = [[one("bop", gamma=g, threshold=t) for t in thresholds] for g in gammas]
    wrong, nll, flips = (
        np.array([[cell[key]["mean"] for cell in row] for row in cells]) for key in ("accuracy", "nll", "late_flips")
    )
    kinds = [
        (100 * (1 - wrong), "validation images that are wrong, %", LogNorm(1.6, 40), lambda v: f"{v:.1f}"),
        (nll, "NLL on validation data, nats", LogNorm(0.068, 1.3), lambda v: f"{v:.3f}" if v < 0.0995 else f"{v:.2f}"),
        (flips, "flips per step in the last quarter of training", LogNorm(0.3, 3e4, clip=True), few),
    ]
    for panel, (values, title, norm, written) in zip(panels, kinds, strict=True):
        heat(panel, values, norm, written, across=[power(t) for t in thresholds], down=[power(g) for g in gammas])
        panel.set_title(title, loc="left", fontsize=10.5)
        panel.set_ylabel("γ")
        for (row, gamma), (column, threshold) in product(enumerate(gammas), enumerate(thresholds)):
            if abs(threshold / gamma / RATIO - 1) < 1e-6:
                edge = dict(fill=False, edgecolor=ORANGE, linewidth=2.5, zorder=3)
                panel.add_patch(Rectangle((column + 0.03, row + 0.04), 0.94, 0.92, **edge))
    panels[-1].set_xlabel("threshold τ        framed: τ/γ = 10⁻³")
    return figure


def few(value: float) -> str:
    """Whole from 10 on, "0" for nothing at all.

    >>> few(215.3), few(0.97), few(0.02), few(0.0)
    ('215', '1.0', '<0.1', '0')
    """
    return "0" if value == 0 else "<0.1" if value < 0.1 else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


FORMS = {
    "biased": ("biased", BLUE, "o", "-"),
    "released, matched": ("released, threshold matched to biased", INK, "ring", ""),
    "released": ("released", VERMILION, "s", "--"),
    "adam": ("adam", GREEN, "^", "-."),
}


def markers(name: str) -> dict[str, Any]:
    return dict(marker="o", markersize=11, fillstyle="none", zorder=1) if name == "ring" else dict(marker=name)


def second() -> Any:
    """Forms of the second moment, with and without the published schedules."""
    figure, panels = new_panels(None, 4, columns=2, figsize=(9.0, 6.2), sharex=True, sharey="row")
    kinds = [("nll", "NLL on validation data, nats"), ("late_flips", "flips per step, last quarter")]
    schedules = {"constant": "constant rates", "published": "published courses: γ and τ fall, σ grows"}
    for index, panel in enumerate(panels):
        (key, label), schedule = kinds[index // 2], list(schedules)[index % 2]
        for form, (title, colour, marker, line) in FORMS.items():
            found = sorted(rows("second", form=form, schedule=schedule), key=lambda r: r["settings"]["threshold"])
            x = [r["settings"]["threshold"] for r in found]
            mean, low, high = (np.array([r[key][what] for r in found]) for what in ("mean", "min", "max"))
            panel.fill_between(x, low, high, color=colour, alpha=0.18 if line else 0, linewidth=0)
            panel.plot(x, mean, color=colour, linestyle=line or "none", label=title, **markers(marker))
        panel.set_xscale("log")
        if key == "nll":
            panel.set_title(schedules[schedule], loc="left", fontsize=10.5)
            panel.set_yscale("log")
            panel.set_yticks([0.06, 0.1, 0.2, 0.5, 1.0], ["0.06", "0.1", "0.2", "0.5", "1"])
            panel.minorticks_off()
        else:
            panel.set_yscale("symlog", linthresh=1)
            panel.set_xlabel("threshold τ" if schedule == "constant" else "threshold τ, mean over training")
        if index % 2 == 0:
            panel.set_ylabel(label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    return figure


def epochs(row_settings: dict[str, Any], ablation: str) -> np.ndarray:
    """Equal signs in per cent, a row per seed, a column per epoch, from the start on."""
    found = [r["equal_by_epoch"] for r in CONTENT["runs"][ablation] if row_settings.items() <= r["settings"].items()]
    return 100 * np.array(found)


def lines(panel: Any, curves: dict[str, tuple[np.ndarray, str, str]]) -> None:
    per_epoch = CONTENT["network"]["steps"] // CONTENT["network"]["epochs"]
    for label, (values, colour, line) in curves.items():
        time = per_epoch * np.arange(values.shape[1])
        panel.fill_between(time, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        panel.plot(time, values.mean(0), color=colour, linestyle=line, label=label, linewidth=2)
    panel.set(xlabel="step", ylim=(45, 102))


def latents() -> Any:
    """Which numbers of latent SGD mean something."""
    figure, panels = new_panels(None, 4, columns=2, figsize=(10.0, 8.2))
    scales = sorted({r["settings"]["start"] for r in CONTENT["table"]["latent"]} - {10.0})
    ticks = [scale(s) for s in scales]
    for panel, (key, title, norm, written, factor) in zip(
        panels[:2],
        [
            (
                "equal_at_end",
                "a  signs as in the middle cell after the last step, %",
                Normalize(40, 110),
                lambda v: "100" if v == 100 else f"{v:.1f}",
                100,
            ),
            ("nll", "b  NLL on validation data, nats", LogNorm(0.068, 0.3), lambda v: f"{v:.3f}", 1),
        ],
        strict=True,
    ):
        grid = [
            [
                factor * one("latent", form="sgd", start=s, lr=r, weight_decay=1 / r, dtype="float32")[key]["mean"]
                for r in scales
            ]
            for s in scales
        ]
        heat(panel, np.array(grid), norm, written, across=ticks, down=ticks)
        panel.set(xlabel="learning rate ×, weight decay ÷", ylabel="initial latents ×")
        panel.set_title(title, loc="left", fontsize=10.5)
    kinds = {
        "sgd": ("SGD", BLUE, "-"),
        "adam": ("Adam", GREEN, "--"),
        "sgd, box": ("SGD, clipped at 1", ORANGE, "-"),
        "sgd, window": ("SGD, gradient window at 1", INK, ":"),
        "adam, box": ("Adam, clipped at 1", VERMILION, "--"),
    }
    scaled = dict(start=16.0, lr=16.0, weight_decay=1 / 16, dtype="float32")
    curves = {t: (epochs({"form": f, **scaled}, "latent"), c, ls) for f, (t, c, ls) in kinds.items()}
    other = epochs({"start": "latents, other batches", "weight_decay": 1.0}, "filter")
    lines(panels[2], curves | {"SGD, other batches": (other, PALE, "-.")})
    panels[2].set_title("c  start and learning rate × 16, decay ÷ 16", loc="left", fontsize=10.5, pad=62)
    panels[2].set_ylabel("signs as without, %")
    legend_above(panels[2], 2)
    starts = {
        "start translated": ({"start": "translated", "weight_decay": 10.0}, BLUE, "-"),
        "from 0, given its gradients": ({"start": "zero, given gradients", "weight_decay": 10.0}, GREEN, "--"),
        "from 0": ({"start": "zero", "weight_decay": 10.0}, VERMILION, "-"),
        "SGD, other batches": ({"start": "latents, other batches", "weight_decay": 10.0}, PALE, "-."),
    }
    lines(panels[3], {t: (epochs(s, "filter"), c, ls) for t, (s, c, ls) in starts.items()})
    panels[3].set_title("d  the filter's start, at ten times the decay", loc="left", fontsize=10.5, pad=62)
    panels[3].set_ylabel("signs of the latent run, %")
    legend_above(panels[3], 2)
    return figure


def main() -> None:
    save(bop(), "ablations_bop.png")
    save(second(), "ablations_second.png")
    save(latents(), "ablations_latents.png")


if __name__ == "__main__":
    main()
