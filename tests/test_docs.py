"""What the documentation shows, runs: the Python blocks of each page in order, in one namespace per page.

A block that must not run is marked ```text, or ```python no-run followed by the reason. A text block right below a
Python block that prints is its output, and must still look like it: the same words, with other numbers allowed.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from varbnn.errors import MissingExtraError

ROOT = Path(__file__).resolve().parent.parent
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
        if below is not None and below.info == "text" and distance <= 3 and printed.getvalue():
            place = f"the output shown below {page.name}, Python block {number} (line {block.line})"
            assert words(below.code) == words(printed.getvalue()), place


def words(output: str) -> list[str]:
    """What is not a number, a rule or white space."""
    return re.sub(r"-?\d[\d.,]*(e[-+]?\d+)?|─+", " ", output).split()


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run(page, page.read_text(encoding="utf-8"))


def test_every_block_says_what_it_is():
    known = re.compile(r"(text|bash|toml|python|python no-run: .+|\{[a-z-]+\}.*)$")
    marked = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if "_build" not in page.parts:
            unmarked = [b.line for b in blocks(page.read_text(encoding="utf-8")) if not known.match(b.info)]
            marked |= {f"{page.name}:{line}": "" for line in unmarked}
    assert list(marked) == []


def test_output_that_no_longer_fits_is_named():
    text = "```python\nprint('cost 3')\n```\n\n```text\n{} 4\n```\n"
    run(Path("page.md"), text.format("cost"))
    with pytest.raises(AssertionError, match=r"page.md, Python block 1"):
        run(Path("page.md"), text.format("price"))


def test_a_failing_block_is_named_with_page_and_line():
    text = "# Page\n\n```python\nx = 1\n```\n\n```text\nnot python\n```\n\n```python\nx / 0\n```\n"
    with pytest.raises(AssertionError, match=r"page.md, Python block 2 \(line 12\): ZeroDivisionError"):
        run(Path("page.md"), text)
