"""What the scripts of the pictures share."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
RESULTS = HERE.parent.parent / "benchmarks" / "results"


def save(figure: Any, name: str, dpi: int = 130, colours: int = 256) -> None:
    """As a PNG with a palette, a third of the size of one without."""
    whole = BytesIO()
    figure.savefig(whole, dpi=dpi, facecolor="white")
    Image.open(whole).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(HERE / name, optimize=True)
    print(f"{name}: {(HERE / name).stat().st_size // 1000} kB")
