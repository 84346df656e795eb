"""A translated run goes on as the run it was taken from, weight for weight; what has no translation is refused."""

from __future__ import annotations

from functools import partial
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from tests.contracts.rule import beliefs
from tests.optim.test_equivalences import Gradients, kept, race, starts, step, weights
from varbnn.errors import InputError
from varbnn.optim import (
    BayesBiNN,
    Bop,
    Bop2ndOrder,
    GradientFilter,
    Metaplastic,
    StraightThrough,
    WindowedBayes,
    translate,
)
from varbnn.optim.mappings import TABLE
from varbnn.posteriors import Point, mark_belief

SGD = partial(dict, base="sgd", clip=None)
COUPLED = SGD(lr=0.1, momentum=0.8, weight_decay=0.02)
PLAIN = SGD(lr=0.2, weight_decay=0.1)

# source, its settings, target, choices, what brings the result back, settings that come back as they were
CASES = {
    "coupled latents to filter": (StraightThrough, COUPLED, GradientFilter, {}, {"weight_decay": 0.02}, True),
    "coupled latents to filter, exchanged": (
        StraightThrough, COUPLED, GradientFilter, {"alpha": "larger"}, {"weight_decay": 0.02}, True,
    ),
    "damped latents to filter": (
        StraightThrough, {**COUPLED, "dampening": 0.4}, GradientFilter, {}, {"weight_decay": 0.02}, False,
    ),
    "plain latents to filter": (StraightThrough, PLAIN, GradientFilter, {}, {"weight_decay": 0.1}, True),
    "decoupled latents to filter": (
        StraightThrough, SGD(lr=0.2, momentum=0.85, dampening=0.85, weight_decay=0.3, decoupled_weight_decay=True),
        GradientFilter, {}, {"weight_decay": 0.3, "decoupled_weight_decay": True}, True,
    ),
    "decoupled undamped latents to filter": (
        StraightThrough, SGD(lr=0.2, momentum=0.85, weight_decay=0.3, decoupled_weight_decay=True),
        GradientFilter, {}, {"weight_decay": 0.3, "decoupled_weight_decay": True}, False,
    ),
    "filter to latents": (GradientFilter, dict(alpha=0.02, gamma=0.3), StraightThrough, {}, {}, True),
    "filter to decoupled latents": (
        GradientFilter, dict(alpha=0.02, gamma=0.3), StraightThrough, {"decoupled_weight_decay": True}, {}, True,
    ),
    "filter with lr to latents": (
        GradientFilter, dict(alpha=0.04, gamma=0.3, lr=0.5), StraightThrough, {"weight_decay": 0.5}, {}, False,
    ),
    "fast filter to latents": (GradientFilter, dict(alpha=0.02, gamma=1.0), StraightThrough, {}, {}, True),
    "filter with alpha 1 to latents": (
        GradientFilter, dict(alpha=1.0, gamma=0.1), StraightThrough, {}, {"alpha": "larger"}, True,
    ),
    "latents to bop": (StraightThrough, PLAIN, Bop, {}, {"weight_decay": 0.1}, True),
    "latents to bop, ties kept": (StraightThrough, PLAIN, Bop, {"ties": "keep"}, {"weight_decay": 0.1}, True),
    "damped decoupled latents to bop": (
        StraightThrough, SGD(lr=0.2, dampening=0.5, weight_decay=0.1, decoupled_weight_decay=True), Bop, {}, {}, False,
    ),
    "bop to latents": (Bop, dict(gamma=0.03, threshold=0.0), StraightThrough, {}, {"ties": "keep"}, True),
    "filter to bop": (GradientFilter, dict(alpha=0.05, gamma=1.0, lr=0.6), Bop, {}, {}, True),
    "filter with alpha 1 to bop": (GradientFilter, dict(alpha=1.0, gamma=0.05), Bop, {}, {}, False),
    "bop to filter": (Bop, dict(gamma=0.03, threshold=0.0, lr=0.7), GradientFilter, {}, {}, True),
    "second order to bop": (Bop2ndOrder, dict(gamma=0.1, sigma=0.2, threshold=0.0), Bop, {}, {"sigma": 0.2}, True),
    "bop to second order": (Bop, dict(gamma=0.1, threshold=0.0, ties="keep"), Bop2ndOrder, {"sigma": 0.1}, {}, True),
    "released to biased": (
        Bop2ndOrder, dict(gamma=0.05, sigma=0.01, threshold=0.6, bias_correction="released"), Bop2ndOrder,
        {"bias_correction": None}, {"bias_correction": "released"}, True,
    ),
    "biased to released, with lr": (
        Bop2ndOrder, dict(gamma=0.1, sigma=0.01, threshold=0.3, lr=0.5), Bop2ndOrder,
        {"bias_correction": "released"}, {"bias_correction": None}, True,
    ),
    "adam to adam": (
        Bop2ndOrder, dict(gamma=0.05, sigma=0.01, threshold=0.3, bias_correction="adam"), Bop2ndOrder,
        {"bias_correction": "adam"}, {"bias_correction": "adam"}, True,
    ),
    "biased to adam without threshold": (
        Bop2ndOrder, dict(gamma=0.05, sigma=0.01, threshold=0.0), Bop2ndOrder,
        {"bias_correction": "adam"}, {"bias_correction": None}, True,
    ),
    "bayesbinn to latents": (
        BayesBiNN, dict(lr=0.03, dataset_size=40, temperature=0.5), StraightThrough, {},
        {"dataset_size": 40, "temperature": 0.5}, True,
    ),
    "latents to bayesbinn": (
        StraightThrough, PLAIN, BayesBiNN, {"dataset_size": 50}, {"weight_decay": 0.1}, True,
    ),
    "latents to larger ones": (StraightThrough, COUPLED, StraightThrough, {"scale": 3.7}, {"scale": 1 / 3.7}, True),
    "adam in a box to smaller ones": (
        StraightThrough, dict(lr=0.05, clip=0.4, weight_decay=0.01), StraightThrough, {"scale": 0.125}, {"scale": 8.0},
        True,
    ),
    "window to bayesbinn": (
        WindowedBayes, dict(lr=0.04, window=60, batch_size=3, decay="plain", prior=0.2), BayesBiNN, {},
        {"batch_size": 3}, True,
    ),
    "bayesbinn to window": (
        BayesBiNN, dict(lr=0.03, dataset_size=40, temperature=0.5, prior=-0.1), WindowedBayes, {"batch_size": 8}, {},
        False,
    ),
    "metaplastic latents to latents": (
        Metaplastic, dict(lr=0.1, metaplasticity=0.0, weight_decay=0.01), StraightThrough, {}, {}, True,
    ),
    "latents to metaplastic ones": (
        StraightThrough, dict(lr=0.1, clip=None, weight_decay=0.05), Metaplastic, {}, {}, True,
    ),
}  # fmt: skip

SAME = {name: case for name, case in CASES.items() if case[5]}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def grouped(rule, values=None):
    """Beliefs that `rule` trains, each in a group of its own."""
    parameters = beliefs(rule, *(starts(0.3) if values is None else values))
    return parameters, [{"params": [p]} for p in parameters]


def started(rule, settings, steps, gradients):
    """A run of `steps` steps, and the gradients that come after them."""
    parameters, groups = grouped(rule)
    run = parameters, rule(groups, **settings)
    for t in range(steps):
        step(run, gradients, t)
    return run, lambda t, i, weight: gradients((t + steps) % 240, i, weight)


def taken_over(translation):
    parameters, groups = grouped(translation.rule, [torch.full_like(v, 9.0) for v in starts()])
    return parameters, translation.build(groups)


def test_every_pair_has_a_case():
    assert {(case[0], case[2]) for case in CASES.values()} == set(TABLE)


@every_case
@pytest.mark.parametrize("feedback, steps", [(False, 0), (True, 50)], ids=["fixed gradients", "feedback, under way"])
def test_a_translated_run_and_its_translation_back_have_the_weights_of_the_source(case, feedback, steps):
    rule, settings, target, choices, back, same = case
    run, gradients = started(rule, settings, steps, Gradients(feedback))
    there = taken_over(translate(run[1], target, **choices))
    again = taken_over(translate(there[1], rule, **back))
    if target is not rule or "scale" in choices:
        assert type(there[1]) is target
    for before, after in zip(weights(run[0]), weights(again[0]), strict=True):
        assert torch.equal(before, after)
    race(gradients, run, there, again, steps=200)
    if rule is target or rule in (StraightThrough, BayesBiNN, WindowedBayes, Metaplastic):
        for p, q in zip(run[0], again[0], strict=True):
            unit = 1.0 if same else float((q / p).detach().mean())  # of the latents: free
            torch.testing.assert_close(unit * p.detach(), q.detach(), rtol=1e-11, atol=1e-11)
    for name in {"slow", "exp_avg"} & set(run[1].state[run[0][0]]):
        for one, other in zip(kept(run, name), kept(again, name), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", SAME.values(), ids=SAME)
def test_a_round_trip_brings_the_settings_back(case):
    rule, settings, target, choices, back, _ = case
    there = translate({"rule": rule, **settings}, target, **choices)
    again = translate({"rule": target.__name__, **there.settings}, rule.__name__, **back)
    for key, value in settings.items():
        known = again.settings.get(key, value)  # absent: at its default
        assert known == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), key


@every_case
def test_bare_settings_start_from_the_values_of_the_parameters_that_they_are_built_on(case):
    rule, settings, target, choices, *_ = case
    run, gradients = started(rule, settings, 0, Gradients(feedback=True))
    parameters, groups = grouped(target)
    built = translate({"rule": rule, **settings}, target, **choices).build(groups)
    race(gradients, run, (parameters, built))


def test_the_published_example():
    translation = translate({"rule": "StraightThrough", **COUPLED}, GradientFilter)
    assert translation.rule is GradientFilter
    assert translation.settings["alpha"] == pytest.approx(0.010440627, rel=1e-7)
    assert translation.settings["gamma"] == pytest.approx(0.191559373, rel=1e-8)
    assert translation.state == {"weight": "sign(r)", "slow": "-0.02 · r", "fast": "slow + 0.189559 · v"}


def test_latents_and_filter_agree_to_1e_12_when_taken_over_under_way():
    run, gradients = started(StraightThrough, COUPLED, 50, Gradients(feedback=True))
    there = taken_over(translate(run[1], GradientFilter))

    def each(t):
        for slow, r in zip(kept(there, "slow"), run[0], strict=True):
            torch.testing.assert_close(slow, -0.02 * r.detach(), rtol=1e-12, atol=1e-12)

    race(gradients, run, there, each=each)


def test_bayesbinn_with_momentum_is_taken_over_when_its_bias_correction_has_worn_off():
    settings = dict(lr=0.05, dataset_size=30, momentum=0.5)
    run, gradients = started(BayesBiNN, settings, 54, Gradients(feedback=True))
    there = taken_over(translate(run[1], StraightThrough, weight_decay=0.1))

    def each(t):
        for natural, r in zip(run[0], there[0], strict=True):
            torch.testing.assert_close(natural.detach() / 3, r.detach(), rtol=1e-12, atol=1e-12)

    race(gradients, run, there, each=each, steps=180)


def test_the_last_learning_rate_of_a_schedule_counts_and_both_go_on_with_one():
    settings = SGD(lr=0.2, momentum=0.85, weight_decay=0.3, decoupled_weight_decay=True)
    run, gradients = started(StraightThrough, settings, 0, Gradients(feedback=True))
    for t in range(30):
        run[1].param_groups[0]["lr"] = 0.2 * (1 - t / 240)
        step(run, gradients, t)
    there = taken_over(translate(run[1], GradientFilter))
    rates = [(optimizer, [g["lr"] for g in optimizer.param_groups]) for optimizer in (run[1], there[1])]

    def before(t):
        for optimizer, at_first in rates:
            for group, rate in zip(optimizer.param_groups, at_first, strict=True):
                group["lr"] = rate * (1 - t / 240)

    race(gradients, run, there, before=before)


# --- groups and real parameters ---


def network(real_values=True):
    """Two beliefs and three real parameters in two groups of different settings, as a model would have them."""
    first, second = beliefs(StraightThrough, *starts(0.3))
    reals = [nn.Parameter(torch.full((n,), float(n * real_values), dtype=torch.float64)) for n in (2, 3, 4)]
    return [first, second], reals, [{"params": [reals[0], first, reals[1]]}, {"params": [second, reals[2]]}]


def test_groups_with_settings_of_their_own_and_real_parameters_go_on_as_they_were():
    own, reals, groups = network()
    groups[0] |= dict(real_lr=0.3)
    groups[1] |= dict(momentum=0.5, weight_decay=0.1, real_weight_decay=0.4)
    source = StraightThrough(groups, **COUPLED, real_lr=0.02, real_weight_decay=0.1)
    gradients = Gradients(feedback=True)

    def move(run, real, t):
        for p in real:
            p.grad = torch.sin(p.detach() + t)
        step(run, gradients, t)

    for t in range(20):
        move((own, source), reals, t)
    other, other_reals, layout = network(real_values=False)
    translation = translate(source, "GradientFilter")
    assert [g["gamma"] for g in translation.groups] == [translation.settings["gamma"], pytest.approx(0.4895740821)]
    assert [len(tensors) for tensors in translation.state.values()] == [2, 2]
    assert str(translation).startswith("group 0: StraightThrough(")
    assert "\n\ngroup 1: StraightThrough(" in str(translation)
    target = translation.build(layout)
    moved = target.param_groups
    assert [g["kind"] for g in moved] == ["belief", "real", "belief", "real"]
    assert [(g["lr"], g["weight_decay"]) for g in moved if g["kind"] == "real"] == [(0.3, 0.1), (0.02, 0.4)]
    for t in range(20, 240):
        move((own, source), reals, t)
        move((other, target), other_reals, t)
        assert all(torch.equal(a, b) for a, b in zip(reals, other_reals, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(weights(own), weights(other), strict=True))


def test_a_copy_is_taken_and_the_source_goes_on():
    run, gradients = started(StraightThrough, COUPLED, 5, Gradients(feedback=False))
    before = str(run[1].state_dict()), [p.detach().clone() for p in run[0]]
    translation = translate(run[1], GradientFilter)
    assert str(run[1].state_dict()) == before[0]
    state = {name: [t.clone() for t in tensors] for name, tensors in translation.state.items()}
    step(run, gradients, 5)
    step(taken_over(translation), gradients, 5)
    for name, tensors in translation.state.items():
        assert all(torch.equal(a, b) for a, b in zip(tensors, state[name], strict=True))


def test_a_source_that_has_done_nothing_is_left_without_state():
    _, groups = grouped(Bop)
    source = Bop(groups, threshold=0.0)
    translate(source, GradientFilter)
    assert not source.state


def test_a_run_can_be_translated_in_place():
    run, gradients = started(StraightThrough, COUPLED, 10, Gradients(feedback=True))
    twin, _ = started(StraightThrough, COUPLED, 10, Gradients(feedback=True))
    in_place = run[0], translate(run[1], GradientFilter).build([{"params": [p]} for p in run[0]])
    race(gradients, twin, in_place)


def test_what_every_rule_has_is_carried_over_and_an_argument_takes_precedence():
    given = dict(rule="Bop", threshold=0.0, maximize=True, real_lr=0.5, real_weight_decay=0.25)
    translation = translate(given, "StraightThrough")
    assert {key: translation.settings[key] for key in given if key not in ("rule", "threshold")} == {
        "maximize": True, "real_lr": 0.5, "real_weight_decay": 0.25,
    }  # fmt: skip
    own, reals, _ = network()
    built = translation.build([*own, *reals], real_lr=0.125, momentum=0.5)
    assert [group["lr"] for group in built.param_groups] == [1.0, 0.125]
    assert built.param_groups[0]["momentum"] == 0.5
    source = StraightThrough([*own, *reals], **COUPLED)
    taken = translate(source, GradientFilter).build([*own, *reals], real_lr=0.0625, gamma=0.5)
    assert [group["lr"] for group in taken.param_groups] == [1.0, 0.0625]
    assert taken.param_groups[0]["gamma"] == 0.5


@pytest.mark.parametrize("rest", [2.0, [torch.tensor([-1.0, 2.0, 5.0])]], ids=["number", "tensors"])
def test_a_prior_given_to_build_takes_precedence_over_tensors_in_the_state(rest):
    value = torch.tensor([-3.0, 0.5, 3.0])
    source = BayesBiNN(beliefs(BayesBiNN, value), lr=0.5, dataset_size=100, prior=[torch.full((3,), -3.0)])
    (p,) = own = beliefs(WindowedBayes, value)
    target = translate(source, "WindowedBayes", batch_size=10).build(own, prior=rest)
    p.grad = torch.zeros_like(p)
    for _ in range(100):  # without a signal a belief goes to its prior
        target.step()
    torch.testing.assert_close(p.detach(), rest[0] if isinstance(rest, list) else torch.full((3,), rest))


def test_maximising_runs_are_translated():
    run, gradients = started(StraightThrough, {**COUPLED, "maximize": True}, 20, Gradients(feedback=True))
    there = taken_over(translate(run[1], GradientFilter))
    assert all(group["maximize"] for group in there[1].param_groups)
    race(gradients, run, there)


def test_a_run_can_be_built_to_maximise_all_of_it():
    own, reals, _ = network()
    source = StraightThrough([*own, *reals], **COUPLED)
    built = translate(source, GradientFilter).build([*own, *reals], maximize=True)
    assert [group["maximize"] for group in built.param_groups] == [True, True]


@every_case
def test_a_translated_start_can_be_saved_and_loaded(case):
    rule, settings, target, choices, _, _ = case
    run, _ = started(rule, settings, 3, Gradients(False))
    for source in (run[1], {"rule": rule.__name__, **settings}):
        built = translate(source, target, **choices).build(grouped(target)[1])
        state = built.state_dict()
        built.load_state_dict(state)
        assert all(p.isfinite().all() for p in built.state_dict()["state"].get(0, {}).values())


def test_where_an_average_is_zero_the_latent_has_the_sign_of_the_weight_and_no_size():
    (p,) = beliefs(Bop, torch.tensor([0.7, -0.2, 1.0]))
    translation = translate(Bop([p], threshold=0.0), "StraightThrough")
    (latent,) = beliefs(StraightThrough, torch.zeros(3))
    translation.build([latent])
    assert latent.sign().tolist() == [1, -1, 1]
    assert 0 < float(latent.detach().abs().max()) < 1e-30


# --- refusals ---

LATENT = {"rule": "StraightThrough"}
REFUSED = {
    "leak by the variance": (
        {"rule": "WindowedBayes", "lr": 1.0, "window": 9, "batch_size": 1}, "BayesBiNN", {}, "only decay='plain' can",
    ),
    "no window": (
        {"rule": "WindowedBayes", "lr": 1.0, "window": float("inf"), "batch_size": 1, "decay": "plain"}, "BayesBiNN",
        {}, "window=inf never forgets",
    ),
    "nothing learned": (
        {"rule": "WindowedBayes", "lr": 0.0, "window": 9, "batch_size": 1, "decay": "plain"}, "BayesBiNN", {},
        "lr=0 only forgets",
    ),
    "momentum to window": (
        {"rule": "BayesBiNN", "lr": 0.1, "dataset_size": 9, "momentum": 0.5}, "WindowedBayes", {"batch_size": 1},
        "momentum=0.5 cannot be translated",
    ),
    "no step to window": (
        {"rule": "BayesBiNN", "lr": 0.0, "dataset_size": 9}, "WindowedBayes", {"batch_size": 1}, "lr=0 stands still",
    ),
    "batch": (
        {"rule": "BayesBiNN", "lr": 0.1, "dataset_size": 9}, "WindowedBayes", {"batch_size": 0}, "batch_size must be",
    ),
    "metaplasticity": ({"rule": "Metaplastic"}, "StraightThrough", {}, "metaplasticity=1.35 slows some weights"),
    "sgd to metaplastic": ({"rule": "StraightThrough", "base": "sgd"}, "Metaplastic", {}, "take base='adam'"),
    "box to metaplastic": ({"rule": "StraightThrough"}, "Metaplastic", {}, "clip=1.0 holds latents in a box"),
    "decoupled to metaplastic": (
        {"rule": "StraightThrough", "clip": None, "weight_decay": 0.1, "decoupled_weight_decay": True}, "Metaplastic",
        {}, "forgets past the filter",
    ),
    "adam": ({**LATENT, "clip": None}, "Bop", {}, "base='adam' divides by a second moment"),
    "clip": ({**LATENT, "base": "sgd"}, "GradientFilter", {}, "clip=1.0 cuts latents off.*take clip=None"),
    "no decay": ({**LATENT, **SGD()}, "GradientFilter", {}, "weight_decay=0 never forgets"),
    "too much decay": (
        {**LATENT, **SGD(lr=2.0, weight_decay=1.0)}, "Bop", {}, r"weight_decay must be in \(0, 1\].*got 2",
    ),
    "lr 0": ({**LATENT, **SGD(lr=0.0, weight_decay=1.0)}, "Bop", {}, r"must be in \(0, 1\].*got 0"),
    "complex roots": (
        {**LATENT, **SGD(lr=0.1, weight_decay=0.1, momentum=0.9)}, "GradientFilter", {},
        r"momentum=0.9 swings.*momentum ≤ 0.81 would do.*a product ≤ 0.00263",
    ),
    "which root": ({**LATENT, **COUPLED}, "GradientFilter", {"alpha": 0.1}, "alpha must be 'smaller' or 'larger'"),
    "momentum to bop": ({**LATENT, **COUPLED}, "Bop", {}, "momentum=0.8 cannot be translated: Bop averages once"),
    "momentum to bayesbinn": (
        {**LATENT, **COUPLED}, "BayesBiNN", {"dataset_size": 10}, "momentum=0.8 cannot be translated: BayesBiNN corr",
    ),
    "sizes": ({**LATENT, **PLAIN}, "BayesBiNN", {"dataset_size": 0}, "dataset_size must be a finite number > 0"),
    "temperature": (
        {**LATENT, **PLAIN}, "BayesBiNN", {"dataset_size": 1, "temperature": "a"}, "temperature must be a finite",
    ),
    "ties": ({**LATENT, **PLAIN}, "Bop", {"ties": "larger"}, "ties must be one of"),
    "scale": ({**LATENT, **PLAIN}, "StraightThrough", {"scale": 0.0}, "scale must be a finite number > 0, got 0.0"),
    "threshold to latents": ({"rule": "Bop"}, "StraightThrough", {}, "threshold=1e-08 holds a weight"),
    "threshold to filter": ({"rule": "Bop"}, "GradientFilter", {}, "only threshold=0 can be translated"),
    "threshold of the second order": ({"rule": "Bop2ndOrder"}, "Bop", {}, "only threshold=0 can be translated"),
    "threshold to the second order": ({"rule": "Bop"}, "Bop2ndOrder", {}, "only threshold=0 can be translated"),
    "two averages": ({"rule": "GradientFilter"}, "Bop", {}, "gamma=0.1 and alpha=0.001 average twice.*must be 1"),
    "a still filter": ({"rule": "GradientFilter", "lr": 0.0}, "StraightThrough", {}, "lr · alpha is 0"),
    "a still bop": ({"rule": "Bop", "lr": 0.0, "threshold": 0.0}, "StraightThrough", {}, "lr · gamma is 0"),
    "a still second order": (
        {"rule": "Bop2ndOrder", "lr": 0.0}, "Bop2ndOrder", {"bias_correction": "released"}, "lr · gamma is 0",
    ),
    "no unit": ({"rule": "GradientFilter"}, "StraightThrough", {"weight_decay": "a"}, "weight_decay must be a finite"),
    "adam's correction": (
        {"rule": "Bop2ndOrder", "bias_correction": "adam"}, "Bop2ndOrder", {"bias_correction": None},
        "'adam' to None: what 'adam' divides by changes at every step",
    ),
    "no such correction": ({"rule": "Bop2ndOrder"}, "Bop2ndOrder", {"bias_correction": "x"}, "must be one of.*got 'x'"),
    "momentum of bayesbinn": (
        {"rule": "BayesBiNN", "lr": 0.1, "dataset_size": 9, "momentum": 0.9}, "StraightThrough", {},
        "momentum=0.9 comes with a bias correction.*that has done 356 steps",
    ),
    "prior": (
        {"rule": "BayesBiNN", "lr": 0.1, "dataset_size": 9, "prior": 0.5}, "StraightThrough", {}, "only prior=0 can be",
    ),
    "no such pair": (
        {"rule": "Bop"}, "BayesBiNN", {}, "no translation of Bop to BayesBiNN is known, only .*; Bop to Gra",
    ),
    "no such rule": ({"rule": "Bop"}, "SGD", {}, "one of GradientFilter, .*got 'SGD'"),
    "no such choice": ({"rule": "GradientFilter"}, "Bop", {"scale": 2}, "leaves no choice of scale; its choices are n"),
    "a missing choice": ({**LATENT, **PLAIN}, "StraightThrough", {}, "needs the choice scale; its choices are scale"),
    "no such setting": ({"rule": "Bop", "alpha": 1}, "GradientFilter", {}, "Bop has no alpha; its settings are gamma"),
    "a missing setting": ({"rule": "BayesBiNN", "lr": 1}, "StraightThrough", {}, "BayesBiNN needs dataset_size"),
    "a bad setting": ({"rule": "Bop", "gamma": 2}, "GradientFilter", {}, "gamma must be in"),
    "settings without a rule": ({"lr": 1}, "Bop", {}, "name under 'rule', got settings without: lr"),
    "neither": (3, "Bop", {}, "name under 'rule', got int"),
}  # fmt: skip


@pytest.mark.parametrize("source, to, choices, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_translated_is_refused_with_the_reason(source, to, choices, message):
    with pytest.raises(InputError, match=message):
        translate(source, to, **choices)


def test_momentum_up_to_the_border_is_translated_and_beyond_refused_with_the_border():
    border = (1 - sqrt(0.002)) ** 2
    at = translate({**LATENT, **COUPLED, "momentum": border * (1 - 1e-12)}, "GradientFilter")
    assert at.settings["alpha"] == pytest.approx(at.settings["gamma"], rel=1e-4)
    with pytest.raises(InputError, match=f"momentum ≤ {border:.6g} would do"):
        translate({**LATENT, **COUPLED, "momentum": border * (1 + 1e-9)}, "GradientFilter")


def test_a_torch_optimizer_is_refused():
    with pytest.raises(InputError, match="got SGD"):
        translate(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), "Bop")


def test_a_rule_derived_from_a_known_one_is_not_taken_for_it():
    class Mine(Bop):
        pass

    with pytest.raises(InputError, match="no translation of Mine to GradientFilter"):
        translate(Mine(beliefs(Mine, torch.zeros(2)), threshold=0.0), "GradientFilter")


def test_a_prior_of_tensors_is_refused_unless_it_is_zero():
    (p,) = beliefs(BayesBiNN, torch.zeros(2))
    with pytest.raises(InputError, match="only prior=0"):
        translate(BayesBiNN([p], lr=0.1, dataset_size=5, prior=[torch.tensor([0.0, 1.0])]), "StraightThrough")
    translate(BayesBiNN([p], lr=0.1, dataset_size=5, prior=[torch.zeros(2)]), "StraightThrough")


def test_momentum_of_bayesbinn_is_refused_as_long_as_its_bias_correction_moves():
    run, _ = started(BayesBiNN, dict(lr=0.05, dataset_size=30, momentum=0.5), 53, Gradients(feedback=False))
    with pytest.raises(InputError, match="done 54 steps"):
        translate(run[1], "StraightThrough")


@pytest.mark.parametrize("rule, name", [(GradientFilter, "slow"), (Bop, "exp_avg")])
def test_weights_against_their_average_are_refused(rule, name):
    (p,) = beliefs(rule, torch.tensor([1.0, -1.0, 1.0]))
    optimizer = rule([p], **({"threshold": 0.0} if rule is Bop else {}))
    optimizer.set_state(name, [torch.tensor([1.0, 1.0, 0.0])])
    with pytest.raises(InputError, match=f"1 weights disagree with their average '{name}'.*after the next step"):
        translate(optimizer, "StraightThrough")


@pytest.mark.parametrize("target", ["Bop", "StraightThrough"])
def test_where_the_second_average_is_none_the_first_is_taken_over_if_the_two_differ(target):
    run, gradients = started(GradientFilter, dict(alpha=1.0, gamma=0.1, lr=0.1), 20, Gradients(False))
    for group in run[1].param_groups:
        group["lr"] = 1.0  # so that slow and fast differ, as after set_state
    if target == "StraightThrough":
        states = [run[1].state[p]["slow"] for p in run[0]]
        run[1].set_state("fast", [-slow for slow in states])
        with pytest.raises(InputError, match=r"disagree with their average 'fast'.*after the next step"):
            translate(run[1], target)
        sizes = torch.Generator().manual_seed(3)
        run[1].set_state("fast", [slow * torch.rand(slow.shape, generator=sizes) for slow in states])
    race(gradients, run, taken_over(translate(run[1], target)), steps=200)


def test_a_gradient_window_on_the_latents_is_refused_on_either_side():
    windowed = nn.Parameter(torch.zeros(3))
    mark_belief(windowed, Point(clip=1.0), "latent")
    with pytest.raises(InputError, match=r"Point\(clip=1.0\) lets a gradient pass by the size of the latent"):
        translate(StraightThrough([windowed], **PLAIN), "Bop")
    with pytest.raises(InputError, match=r"Point\(clip=1.0\)"):
        translate({"rule": "Bop", "threshold": 0.0}, "StraightThrough").build([windowed])
    translate({**LATENT, **PLAIN}, "Bop").build([windowed])  # ±1 is inside the window


def test_parameters_of_another_layout_are_refused_and_left_alone():
    run, _ = started(StraightThrough, COUPLED, 3, Gradients(feedback=False))
    parameters, groups = grouped(GradientFilter)
    before = [p.detach().clone() for p in parameters]
    translation = translate(run[1], GradientFilter)
    for wrong in (parameters, groups[::-1], groups[:1]):
        with pytest.raises(InputError, match="give parameters of the same shapes in the same groups"):
            translation.build(wrong)
    assert all(torch.equal(p, q) for p, q in zip(parameters, before, strict=True))


def test_state_takes_the_dtype_of_the_new_parameters():
    run, _ = started(StraightThrough, COUPLED, 3, Gradients(feedback=False))
    parameters = beliefs(GradientFilter, *(v.float() for v in starts()))
    built = translate(run[1], GradientFilter).build([{"params": [p]} for p in parameters])
    assert {t.dtype for p in parameters for t in (p, *built.state[p].values())} == {torch.float32}


def test_the_text_says_each_group_once_where_they_are_alike():
    run, _ = started(StraightThrough, COUPLED, 0, Gradients(feedback=False))
    text = str(translate(run[1], GradientFilter))
    assert text.count("GradientFilter(") == 1
    assert max(map(len, text.splitlines())) <= 100
    assert np.all([title in text for title in ("starting from", "exact when", "note")])
