"""Counter-based random signs in plain torch: the definition that every backend reproduces bit for bit.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter of four 32-bit words
and a key of two into four random words, so the sign of one weight in one sample depends on nothing but
(seed, layer, sample, output, input), and any part of any sample can be drawn anywhere:

- key: the low and the high half of the 64-bit seed;
- counter: (16 · (k div 128) + l, output n, sample, layer), where input k is k = 128 q + 32 w + 2 l + h with l < 16;
- half h (0 low, 1 high) of result word w is the upper half of a 32-bit uniform number u. Its lower half comes from the
  same place of a second stream, whose layer has its top bit set; it matters once in 65,536 weights.

The sign is +1 where u ≥ t and t is not 2^32 - 1, with the threshold t(λ) = P(-1) · 2^32 rounded to an even number.
`thresholds` fixes its arithmetic down to the rounding of each step, so no two machines disagree about it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.errors import InputError

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LOW = 0xFFFFFFFF
LOW_STREAM = 1 << 31
NEVER = LOW
"""The threshold of a weight that is -1 for sure."""


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four random 32-bit words, in ``int64``, for each counter; the four counter words broadcast together.

    >>> zero = torch.zeros((), dtype=torch.int64)
    >>> [hex(int(word)) for word in philox((zero, zero, zero, zero), (0, 0))]  # the published known answer
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return c0, c1, c2, c3


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low half of the 64-bit product, by 16-bit parts: int64 has a sign."""
    low = (word & 0xFFFF) * factor
    high = (word >> 16) * factor + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def thresholds(natural: Tensor) -> Tensor:
    """t(λ) as ``int64``, shaped like `natural` (``float32``); NaN beliefs give an unspecified one.

    Every step is one float32 operation, rounded to nearest even; nothing may be contracted or reordered.

    >>> thresholds(torch.tensor([0.0, 50.0, -50.0])) / 2**32
    tensor([0.5000, 0.0000, 1.0000])
    """
    x = (natural.abs() * -2.0).clamp_min(-24.0)
    k = torch.round(x * 1.44269504)
    r = (x - k * 0.693359375) - k * -2.12194440e-4
    p = torch.full_like(r, 1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + coefficient  # two operations, two roundings
    power = ((k.to(torch.int32) + 127) << 23).view(torch.float32)  # 2^k, by its exponent bits
    e = ((p * (r * r)) + r + 1.0) * power
    smaller = torch.round((e / (e + 1.0)) * 2.0**31).to(torch.int64) * 2
    result = torch.where(natural < 0, 2**32 - smaller, smaller)
    return torch.where(result == 2**32, NEVER, result)


def draw_bits(natural: Tensor, seed: Tensor, layer: int, sample: int) -> Tensor:
    """Which weights are +1 in one sample.

    Args:
        natural: λ, ``float32``, shape (N, K).
        seed: ``int64``, one element.
        layer, sample: which stream; 0 ≤ layer < 2^31, 0 ≤ sample < 2^32.

    Returns:
        ``bool``, shape (N, K).
    """
    outputs, inputs = natural.shape
    value = int(seed)
    key = (value & LOW, (value >> 32) & LOW)
    device = natural.device
    groups = torch.arange(-(-inputs // 128) * 16, device=device)
    rows = torch.arange(outputs, device=device).unsqueeze(1)
    stream = (groups, rows, torch.tensor(sample, device=device))
    upper = _halves(philox((*stream, torch.tensor(layer, device=device)), key))[:, :inputs]
    lower = _halves(philox((*stream, torch.tensor(layer | LOW_STREAM, device=device)), key))[:, :inputs]
    bound = thresholds(natural)
    return (((upper << 16) | lower) >= bound) & (bound != NEVER)


def uniform(shape: torch.Size, seed: Tensor) -> Tensor:
    """Noise in (0, 1) for the relaxed weights of any `shape`, ``float64``: (u + ½) / 2^32 for a 32-bit number u.

    Of entry i, in row-major order, u is word (i mod 256) div 64 of the result for the counter (c mod 2^32, c div 2^32,
    0, 0) with c = 64 · (i div 256) + i mod 64.
    """
    count, value = shape.numel(), int(seed)
    counter = torch.arange(-(-count // 256) * 64, device=seed.device)
    zero = torch.zeros((), dtype=torch.int64, device=seed.device)
    result = philox((counter & LOW, counter >> 32, zero, zero), (value & LOW, (value >> 32) & LOW))
    words = torch.stack([word.reshape(-1, 64) for word in result], dim=1)  # groups of 256 × words × counters
    return (words.reshape(-1)[:count].reshape(shape).double() + 0.5) / 2**32


def _halves(result: tuple[Tensor, ...]) -> Tensor:
    """The 16-bit halves of the result words in the order of the inputs, shape (N, 128 · groups)."""
    rows = result[0].shape[0]
    words = torch.stack([word.reshape(rows, -1, 16) for word in result], dim=2)  # N × q × w × l
    return torch.stack([words & 0xFFFF, words >> 16], dim=-1).reshape(rows, -1)


def require_no_nan(values: Tensor, what: str) -> None:
    """Raise InputError if `values` hold a NaN, which has no sign."""
    if bool(values.isnan().any()):
        raise InputError(f"{what} hold NaN, which has no sign; look at varbnn.health(model)")
