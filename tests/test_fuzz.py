"""A few cases of `benchmarks/fuzz.py` in every run of the tests, and that it would notice."""

from __future__ import annotations

from random import Random

import pytest
import torch

from varbnn.errors import InputError
from varbnn.kernels import ops, usable_backends


@pytest.fixture
def cases(script):
    """The module with the cases; torch's number of threads is put back afterwards."""
    before = torch.get_num_threads()
    yield script("fuzz_cases")
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["files", "operations"])
def test_some_cases_end_as_they_must(kind, cases, request):
    case = cases.KINDS[kind]()
    request.addfinalizer(case.close)
    found = {case(Random(f"test:{kind}:{number}")).split(": ")[1].split(",")[0] for number in range(250)}
    assert {"refused", {"files": "other", "operations": "as plain"}[kind]} <= found


def test_a_case_depends_on_its_number_only(cases):
    one, two = cases.Operations(), cases.Operations()
    assert [one(Random(str(n))) for n in range(20)] == [two(Random(str(n))) for n in range(20)]


@pytest.mark.skipif(usable_backends() == ["reference"], reason="compares the compiled kernels with plain torch")
@pytest.mark.parametrize("wrong", [lambda answer: answer + 1, lambda answer: answer[..., :0]])
def test_a_wrong_answer_is_a_failure(wrong, cases, monkeypatch):
    right = ops.pack_signs
    calls = []

    def sometimes(values):
        calls.append(values)
        bits, ones = right(values)
        return (bits, ones) if len(calls) % 2 == 0 else (wrong(bits), ones)  # of each pair the second is plain's

    monkeypatch.setattr(ops, "pack_signs", sometimes)
    case = cases.Operations()
    case.kinds = (lambda random, generator: ("pack_signs", [torch.randn(2, 40)]),)
    case._spoil = lambda *arguments: ""
    with pytest.raises(cases.Failure, match=r"pack_signs (differs from plain|gives)"):
        case(Random(0))


def test_refusing_good_arguments_is_a_failure(cases, monkeypatch):
    def refuse(*arguments):
        raise InputError("no")

    monkeypatch.setattr(ops, "pack_signs", refuse)
    case = cases.Operations()
    case.kinds = (lambda random, generator: ("pack_signs", [torch.randn(2, 40)]),)
    case._spoil = lambda *arguments: ""
    with pytest.raises(cases.Failure, match="refused good arguments"):
        case(Random(0))


def test_damage_that_the_checksums_do_not_show_is_a_failure(cases, monkeypatch, request):
    (mutate,) = (one for one in cases.MENDED if one.__name__ == "edit_numbers")

    def forge(content, random):
        return mutate(content, random)  # other numbers, with checksums that fit

    monkeypatch.setattr(cases, "MENDED", ())
    monkeypatch.setattr(cases, "BY_BYTES", (forge,))
    case = cases.Files()
    request.addfinalizer(case.close)
    with pytest.raises(cases.Failure, match="forge made another ensemble without the checksums showing it"):
        [case(Random(number)) for number in range(100)]
