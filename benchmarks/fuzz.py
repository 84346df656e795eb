"""Damaged packed files and random calls of the operations, against the kernels built with sanitizers.

    make fuzz                                             builds the kernels with AddressSanitizer and UBSan first
    python benchmarks/fuzz.py --count 1000 --library build/_cpu.so --results /tmp/fuzz.json
    python benchmarks/fuzz.py --only operations:1234      one case again, with its traceback

A child process works through the cases; when one ends the process or takes longer than a minute, its number is noted
and another child goes on behind it. Every case depends on the seed and its own number only.
"""

from __future__ import annotations

import argparse
import atexit
import collections
import json
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from record import RESULTS, machine, read, say, write  # noqa: E402

KINDS = ("files", "operations")
PATIENCE = 60
"""Seconds that a case may take."""


def take_library(path: str | None) -> None:
    """Let the operations be computed by the library at `path`."""
    from varbnn.kernels import backend, native

    if path is not None:
        native.library_path = lambda: Path(path)
        native.library.cache_clear()
        native.problem.cache_clear()
        backend._active = None
        native.library()  # raises if it cannot be used


def work(kind: str, seed: int, first: int, last: int, place: str) -> None:
    """The child: cases `first` to `last` - 1, the number of the current one in `place`, outcomes beside it."""
    from fuzz_cases import KINDS as MADE

    case = MADE[kind]()
    atexit.register(case.close)
    outcomes: collections.Counter[str] = collections.Counter()
    failures: list[dict[str, Any]] = []
    with open(place, "r+b") as file, mmap.mmap(file.fileno(), 8) as current:
        for number in range(first, last):
            current[:] = struct.pack("<q", number)
            try:
                outcomes[case(Random(f"{seed}:{kind}:{number}"))] += 1
            except Exception:  # noqa: BLE001  # every one is a finding
                outcomes["failed"] += 1
                failures.append({"case": number, "traceback": traceback.format_exc()[-2000:]})
            if number % 500 == 499 or number == last - 1:
                write(Path(place + ".json"), {"done": number + 1, "outcomes": outcomes, "failures": failures})


def run(kind: str, seed: int, count: int, library: str | None) -> dict[str, Any]:
    """All cases of one kind, by as many children as it takes."""
    start, first = time.perf_counter(), 0
    outcomes: collections.Counter[str] = collections.Counter()
    failures: list[dict[str, Any]] = []
    crashes: list[dict[str, Any]] = []
    while first < count:
        with tempfile.TemporaryDirectory() as folder:
            place = os.path.join(folder, "current")
            Path(place).write_bytes(struct.pack("<q", first))
            more = ["--library", library] if library else []
            command = [sys.executable, __file__, "--child", f"{kind}:{first}:{count}", "--seed", str(seed), *more]
            with open(os.path.join(folder, "stderr"), "w+b") as errors:
                child = subprocess.Popen([*command, "--place", place], stderr=errors)
                how = _watch(child, place, kind, count)
                errors.seek(0)
                said = errors.read().decode(errors="replace")
            report = Path(place + ".json")
            found = (
                json.loads(report.read_text()) if report.exists() else {"done": first, "outcomes": {}, "failures": []}
            )
            outcomes.update(found["outcomes"])
            failures += found["failures"]
            first = found["done"]
            if how:
                (number,) = struct.unpack("<q", Path(place).read_bytes())
                crashes.append({"case": number, "how": how, "stderr": said[-4000:]})
                outcomes["cases before a crash that were not counted"] += number - first
                first = number + 1
                if len(crashes) >= 20:
                    break
    return {
        "cases": first,
        "seconds": round(time.perf_counter() - start, 1),
        "outcomes": dict(sorted(outcomes.items())),
        "failures": failures[:20],
        "crashes": crashes,
    }


def _watch(child: subprocess.Popen[bytes], place: str, kind: str, count: int) -> str:
    """Wait for the child; says how it ended if not well."""
    seen, since, told = -1, time.monotonic(), 0.0
    while True:
        try:
            code = child.wait(1)
            return "" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            pass
        (number,) = struct.unpack("<q", Path(place).read_bytes())
        if number != seen:
            seen, since = number, time.monotonic()
        elif time.monotonic() - since > 2 * PATIENCE:  # the first case waits for the imports
            child.kill()
            child.wait()
            return f"no answer for {2 * PATIENCE} seconds"
        if time.monotonic() - told > 20:
            told = time.monotonic()
            say(f"{kind}: {number:,} of {count:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="cases of each kind")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS, help="default: all; others stay as they are"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", help="the compiled kernels to use; default: those of varbnn")
    parser.add_argument("--results", type=Path, default=RESULTS / "fuzz.json")
    parser.add_argument("--only", metavar="KIND:NUMBER")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.child:
        take_library(chosen.library)
        kind, first, last = chosen.child.split(":")
        work(kind, chosen.seed, int(first), int(last), chosen.place)
        return
    if chosen.only:
        from fuzz_cases import KINDS as MADE

        take_library(chosen.library)
        kind, number = chosen.only.split(":")
        case = MADE[kind]()
        atexit.register(case.close)
        print(case(Random(f"{chosen.seed}:{kind}:{number}")))
        return
    sanitized = bool(chosen.library) and b"__asan" in Path(chosen.library).read_bytes()
    content = read(chosen.results) | {"machine": machine(), "seed": chosen.seed, "sanitized": sanitized}
    for kind in chosen.kinds:
        content[kind] = run(kind, chosen.seed, chosen.count, chosen.library)
        write(chosen.results, content)
        found = content[kind]
        say(f"{kind}: {found['cases']:,} cases in {found['seconds']:,.0f} s")
        for name, number in found["outcomes"].items():
            say(f"  {number:>8,}  {name}")
    bad = sum(len(content[kind]["failures"]) + len(content[kind]["crashes"]) for kind in chosen.kinds)
    say("no failure, no crash" if not bad else f"{bad} failures and crashes, see {chosen.results}")
    raise SystemExit(bad > 0)


if __name__ == "__main__":
    main()
