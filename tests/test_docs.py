"""What the documentation shows, runs: the Python blocks of each page in order, in one namespace per page.

A block that must not run is marked ```text, or ```python no-run followed by the reason. A text block right below a
Python block that prints is its output: the same words and, to a hundredth or the last digit shown, the same numbers.
Below what another processor trains otherwise, ```text varies asks for the words alone.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from varbnn.errors import MissingExtraError

ROOT = Path(__file__).resolve().parent.parent
NUMBER = re.compile(r"-?\d[\d.,]*(?:e[-+]?\d+)?")
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: what follows the backticks, its code, the line of its first line of code."""

    info: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(m["info"].strip(), m["code"], text.count("\n", 0, m.start("code")) + 1) for m in FENCE.finditer(text)]


def pages() -> list[Path]:
    """The README and every page of the docs that shows Python."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    own = [path for path in found if "_build" not in path.parts]
    return [path for path in own if any(b.info == "python" for b in blocks(path.read_text(encoding="utf-8")))]


def run(page: Path, text: str) -> None:
    """Execute the Python blocks of `text`; a failure names the page, the number of the block and its line."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    found = blocks(text)
    runnable = [
        (block, below) for block, below in zip(found, [*found[1:], None], strict=True) if block.info == "python"
    ]
    for number, (block, below) in enumerate(runnable, 1):
        # as many empty lines in front as there are lines above it, so that tracebacks show the line of the page
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                exec(code, namespace)
        except MissingExtraError as missing:
            pytest.skip(f"{page.name}, block {number}: {missing}")
        except Exception as error:
            place = f"{page.name}, Python block {number} (line {block.line})"
            raise AssertionError(f"{place}: {type(error).__name__}: {error}") from error
        distance = 0 if below is None else below.line - block.line - block.code.count("\n")
        if below is not None and below.info in ("text", "text varies") and distance <= 3 and printed.getvalue():
            place = f"the output shown below {page.name}, Python block {number} (line {block.line})"
            assert words(below.code) == words(printed.getvalue()), place
            if below.info == "text":
                assert differences(below.code, printed.getvalue()) == [], place


def words(output: str) -> list[str]:
    """What is not a number, a rule or white space."""
    return re.sub(NUMBER.pattern + "|─+", " ", output).split()


def differences(shown: str, printed: str) -> list[tuple[str, str]]:
    """The pairs of numbers further apart than a hundredth and one of the last digit shown."""
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return [pair for pair in pairs if not near(*pair)]


def near(shown: str, printed: str) -> bool:
    """Whether two numbers differ by no more than a hundredth and one of the last digit shown."""
    a, b = (Decimal(number.replace(",", "").rstrip(".")) for number in (shown, printed))
    last = Decimal(1).scaleb(int(a.as_tuple().exponent)) if "." in shown or "e" in shown else Decimal(0)
    return abs(a - b) <= abs(a) / 100 + last


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run(page, page.read_text(encoding="utf-8"))


def test_every_block_says_what_it_is():
    known = re.compile(r"(text|text varies|bash|toml|python|python no-run: .+|\{[a-z-]+\}.*)$")
    marked = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if "_build" not in page.parts:
            unmarked = [b.line for b in blocks(page.read_text(encoding="utf-8")) if not known.match(b.info)]
            marked |= {f"{page.name}:{line}": "" for line in unmarked}
    assert list(marked) == []


def test_output_that_no_longer_fits_is_named():
    text = "```python\nprint('cost 3.01')\n```\n\n```{}\n{}\n```\n"
    for mark, shown in (("text", "cost 3.02"), ("text", "cost 3.0"), ("text varies", "cost 4")):
        run(Path("page.md"), text.format(mark, shown))
    for mark, shown in (("text", "price 3.01"), ("text", "cost 3.2"), ("text", "cost 4"), ("text varies", "price 4")):
        with pytest.raises(AssertionError, match=r"page.md, Python block 1"):
            run(Path("page.md"), text.format(mark, shown))


def test_a_failing_block_is_named_with_page_and_line():
    text = "# Page\n\n```python\nx = 1\n```\n\n```text\nnot python\n```\n\n```python\nx / 0\n```\n"
    with pytest.raises(AssertionError, match=r"page.md, Python block 2 \(line 12\): ZeroDivisionError"):
        run(Path("page.md"), text)
