"""Which kernel computes a product and how many threads of what it takes: whole numbers in, whole numbers out.

The thresholds between kernels are estimates from public rates of an H100 (docs/notes/0006-cuda.md), not measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

LARGEST_GRID = 2**31 - 1
"""Blocks of threads in the x direction; a kernel goes on to further tiles by itself where there are more."""

THREADS = {
    "sample_blocks": 256,
    "draw": 256,
    "pack_signs": 256,
    "unfold_bits": 256,
    "bits_popcount_1": 128,
    "bits_popcount_8": 128,
    "bits_popcount_masked_8": 128,
    "bits_split_8": 128,
    "bits_split_8_wide": 128,
    "bits_split_32": 128,
    "bits_split_32_wide": 128,
    "bits_tile_64": 128,
    "bits_tile_64_wide": 128,
    "bits_tile_masked_32": 128,
    "bits_tile_masked_32_wide": 128,
    "quantise": 256,
    "int8_tile_32": 128,
    "int8_split_8": 128,
    "table_1": 512,
    "table_2": 512,
    "real_split_narrow": 256,
    "real_split_16": 256,
    "real_split_64": 256,
    "real_conv_64": 256,
    "real_conv_128": 256,
    "predictive_1": 256,
    "predictive_4": 256,
    "average": 256,
}
"""Threads in a block of each kernel, as its source says."""

SOURCES = {"sample": "sample", "draw": "sample", "pack": "signs", "unfold": "signs", "bits": "bits"} | {
    "quantise": "int8",
    "int8": "int8",
    "real": "real",
    "table": "table",
    "predictive": "predictive",
    "average": "predictive",
}
"""In which source a kernel lies, by the first word of its name."""

STAGE = 8 * 36 * 4
"""Bytes of one staged fragment (product.cuh)."""

TABLE_ROWS = 2
"""Up to here real activations go through tables; a tensor-core tile of 8 rows costs as much as about 3."""

POPCOUNT_ROWS = 4
"""Up to here packed signs go through the popcount unit also where tensor cores take them: memory bounds both."""


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel."""

    kernel: str
    grid: tuple[int, int]
    shared: int = 0
    """Bytes of shared memory."""

    @property
    def threads(self) -> int:
        return THREADS[self.kernel]

    @property
    def source(self) -> str:
        return SOURCES[self.kernel.split("_")[0]]


@dataclass(frozen=True)
class Chip:
    """What of a GPU decides the choice."""

    capability: tuple[int, int]
    multiprocessors: int

    @property
    def has_binary_mma(self) -> bool:
        """Native AND-and-count on the tensor cores; from 10.0 on a slow routine would run in its place."""
        return (8, 0) <= self.capability < (10, 0)


@dataclass(frozen=True)
class Size:
    """Of one product: S networks, M rows, `groups` groups of N outputs each."""

    samples: int
    rows: int
    outputs: int
    words: int
    groups: int = 1

    def tiles(self, outputs: int, rows: int) -> int:
        return self.samples * self.groups * -(-self.outputs // outputs) * -(-self.rows // rows)


def grid(tiles: int) -> tuple[int, int]:
    """A block of threads for each tile, as far as the grid goes."""
    return max(1, min(tiles, LARGEST_GRID)), 1


def each(kernel: str, items: int, per_block: int) -> Launch:
    """For kernels in which every thread or warp has an item of its own."""
    return Launch(kernel, grid(-(-items // per_block)))


def sampling(chip: Chip, outputs: int, inputs: int, samples: int) -> tuple[Launch, int]:
    """The launch, and how many samples one block draws with the thresholds that it has computed.

    As many as leave four blocks to a multiprocessor: thresholds cost as much as three samples.
    """
    tiles = -(-outputs // 16) * -(-inputs // 128)
    chunks = min(-(-samples // 4), max(1, 4 * chip.multiprocessors // tiles))
    chunk = max(1, -(-samples // max(1, chunks)))
    shared = 8 * 64 * 4
    return Launch("sample_blocks", grid(tiles * -(-samples // chunk)), shared), chunk


def drawing(outputs: int, inputs: int) -> Launch:
    return Launch("draw", grid(-(-outputs // 16) * -(-inputs // 128)))


def bits(chip: Chip, size: Size, wide: bool, masked: bool) -> Launch:
    """Packed signs; `wide` where rows of words can be read 16 bytes at a time."""
    suffix = "_wide" if wide else ""
    if masked:
        if not chip.has_binary_mma:
            return Launch("bits_popcount_masked_8", grid(size.tiles(32, 8)), 4 * 8 * 32 * 4)
        return Launch("bits_tile_masked_32" + suffix, grid(size.tiles(128, 32)), 32 * 4 + 4 * STAGE)
    if size.rows == 1:
        return Launch("bits_popcount_1", grid(size.tiles(32, 1)), 4 * 32 * 4)
    if size.rows <= POPCOUNT_ROWS or not chip.has_binary_mma:
        return Launch("bits_popcount_8", grid(size.tiles(32, 8)), 4 * 8 * 32 * 4)
    if size.rows <= 8:
        return Launch("bits_split_8" + suffix, grid(size.tiles(32, 8)), 4 * 8 * 4 + 4 * STAGE)
    if size.rows <= 32:
        return Launch("bits_split_32" + suffix, grid(size.tiles(32, 32)), 4 * 32 * 4 + 16 * STAGE)
    return Launch("bits_tile_64" + suffix, grid(size.tiles(128, 64)), 64 * 4 + 4 * STAGE)


def int8(size: Size) -> Launch:
    if size.rows <= 8:
        return Launch("int8_split_8", grid(size.tiles(64, 8)), 8 * STAGE)
    return Launch("int8_tile_32", grid(size.tiles(256, 32)), 4 * STAGE)


def real(chip: Chip, size: Size) -> tuple[Launch, int]:
    """Real activations: the launch, and how many warps lie side by side over the outputs (tables only)."""
    if size.rows <= TABLE_ROWS:
        across = 1
        # a block tabulates its inputs once for all its outputs, but every multiprocessor should have one
        while across < 8 and 32 * across < size.outputs and size.tiles(64 * across, 1) >= chip.multiprocessors:
            across *= 2
        shared = size.rows * (32 * 128 + 16 * 32) * 4
        return Launch(f"table_{size.rows}", grid(size.tiles(32 * across, size.rows)), shared), across
    if size.rows <= 32 and size.tiles(256, 16) >= chip.multiprocessors // 2:
        return Launch("real_split_16", grid(size.tiles(256, 16)), _split(16, 2)), 0
    if size.rows <= 32 or size.tiles(128, 64) < chip.multiprocessors // 4:
        return Launch("real_split_narrow", grid(size.tiles(64, 16)), _split(16, 8)), 0
    return Launch("real_split_64", grid(size.tiles(128, 64)), _split(64, 1)), 0


def conv(size: Size) -> Launch:
    """Convolution of real activations: rows are places of all images."""
    rows, outputs = (128, 64) if size.outputs <= 64 else (64, 128)
    corners = rows * 24
    return Launch(f"real_conv_{rows}", grid(size.tiles(outputs, rows)), _split(rows, 1, corners))


def _split(rows: int, sharing: int, corners: int = 0) -> int:
    buffers = 2 * 3 * sharing * rows * 16 * 4
    return max(buffers + corners, 8 * STAGE)


def predictive(chip: Chip, samples: int, rows: int) -> Launch:
    """The grid is (tiles of rows, parts of the samples): as many parts as give each multiprocessor two blocks."""
    per_tile = 1 if rows < 4 else 4
    tiles = min(-(-rows // per_tile), 4 * chip.multiprocessors)  # each has logits of its own to keep
    parts = min(samples, max(1, 2 * chip.multiprocessors // tiles))
    return Launch(f"predictive_{per_tile}", (tiles, parts), per_tile * (16 * 36 + 8 * 16) * 4)


def images_at_once(places: int, groups: int, words: int, limit: int = 1 << 28) -> int:
    """How many images' patches, twice one bit each, fit in `limit` bytes; at least one."""
    return max(1, limit // max(1, 8 * places * groups * words))


def out_places(
    size: list[int], kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[list[int], int]:
    """Places of the result in each dimension, and in all."""
    each_dimension = [
        (size[d] + padding[2 * d] + padding[2 * d + 1] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1
        for d in range(len(size))
    ]
    return each_dimension, prod(each_dimension)
