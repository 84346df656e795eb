"""What benchmarks/uncertainty_summary.py makes of runs: by which score foreign images are told, and what is tested."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_rel

SCORED = ("accuracy", "nll", "ece", "brier")


@pytest.fixture
def summary(script):
    return script("uncertainty_summary")


def row(letters: tuple[float, ...], others: tuple[float, ...], shift: float = 0.0) -> dict[str, dict[str, float]]:
    """One way's scores for one seed: AUROC by total uncertainty and, where there are two, by disagreement."""
    found = dict.fromkeys(SCORED, 0.5 + shift)
    for name, values in (("letters", letters), ("mnist", others), ("notmnist", others)):
        found |= dict(zip((f"{name}_total", f"{name}_epistemic"), values, strict=False))
    return {"raw": found, "scaled": {key: value / 2 for key, value in found.items()}}


def test_letters_choose_one_score_for_all_seeds_of_a_way(summary):
    rows = {0: row((0.8, 0.7), (0.1, 0.9)), 1: row((0.6, 0.9), (0.2, 0.8))}  # 0.7 against 0.8 on average
    chosen = summary.with_choice(rows)
    assert [r["score"] for r in chosen.values()] == ["epistemic", "epistemic"]
    assert [r["raw"]["ood_mnist"] for r in chosen.values()] == [0.9, 0.8]
    assert [r["scaled"]["ood_notmnist"] for r in chosen.values()] == [0.45, 0.4]
    rows[1] = row((0.9, 0.8), (0.2, 0.8))  # what the foreign images themselves would choose does not count
    assert [r["raw"]["ood_mnist"] for r in summary.with_choice(rows).values()] == [0.1, 0.2]


def test_one_network_is_judged_by_total_uncertainty(summary):
    chosen = summary.with_choice({0: row((0.3,), (0.4,))})
    assert chosen[0]["score"] == "total"
    assert chosen[0]["raw"]["ood_mnist"] == 0.4


def test_tests_are_paired_over_the_seeds_that_both_have(summary):
    ours = summary.with_choice({seed: row((0.5,), (0.5,), 0.1 * seed**2) for seed in range(4)})
    theirs = summary.with_choice({seed: row((0.5,), (0.5,), 0.3 * seed) for seed in (1, 2, 3, 9)})
    found = summary.test(ours, theirs)["raw"]["nll"]
    first, second = [0.6, 0.9, 1.4], [0.8, 1.1, 1.4]
    assert found["difference"] == pytest.approx(-0.4 / 3)
    assert found["p"] == pytest.approx(ttest_rel(first, second).pvalue)
    assert summary.test(ours, {9: theirs[9], 1: theirs[1]}) == {}


def test_the_overview_names_the_best_rival_in_each_measure(script):
    tables = script("uncertainty_tables")

    def way(nll: float, ece: float, auroc: float) -> dict[str, object]:
        means = {"nll": nll, "ece": ece, "ood_mnist": auroc, "ood_notmnist": auroc}
        raw = {key: {"mean": mean} for key, mean in means.items()}
        tests = {"raw": {key: {"p": mean / 2} for key, mean in means.items()}}
        return {"raw": raw, "tests": tests, "ece_if_calibrated": {"mean": ece / 2}}

    table = {"posterior": way(0.3, 0.01, 0.9), "ste": way(0.4, 0.03, 0.7), "bop, snapshots": way(0.5, 0.02, 0.8)}
    table |= {"posterior, mode": way(0.1, 0.001, 0.99), "full ensemble": way(0.1, 0.001, 0.99)}  # no rivals of its cost
    row = tables.overview_table({"small": {"table": table}}).splitlines()[-1]
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[0] == "0.3000; straight-through 0.4000 (p .200)"
    assert cells[1] == "1.00; Bop's last epochs 2.00 (p .010)"
    assert cells[2] == "0.900; Bop's last epochs 0.800 (p .400)"
    assert cells[-1] == "0.50", "what chance makes of the posterior's ECE"
