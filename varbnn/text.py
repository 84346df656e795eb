"""How things look in a terminal."""

from __future__ import annotations

from collections.abc import Container, Sequence


def table(rows: Sequence[Sequence[str]], left: Container[int] = (0,)) -> str:
    """Rows of equal length, the first a heading; the columns `left` to the left, the others to the right.

    >>> print(table([["kind", "bytes"], ["linear", "1,024"], ["call", "-"]]))
    kind    bytes
    linear  1,024
    call        -
    """
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(size) if index in left else cell.rjust(size)
            for index, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ).rstrip()
        for row in rows
    )


def size(count: float) -> str:
    """Bytes for people.

    >>> size(999), size(85_312), size(40_283_496)
    ('999 B', '85.3 kB', '40.3 MB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def plural(count: int, thing: str) -> str:
    """
    >>> plural(1, "network"), plural(32, "network"), plural(10, "class")
    ('1 network', '32 networks', '10 classes')
    """
    ending = "es" if thing.endswith("s") else "s"
    return f"{count:,} {thing}{ending * (count != 1)}"


def percent(share: float) -> str:
    """
    >>> percent(0.9876)
    '98.76%'
    """
    return f"{share:.2%}"
