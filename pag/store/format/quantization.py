"""Directions as small integers.

The alignment loss is a cosine, so a gradient's length is never used: each direction (one image, one class) is divided
by its largest absolute pixel and rounded to integers. Only directions are kept, no scales.

- 8 bits: q = round(127 · g / max|g|), in −127..127.
- 4 bits: q = round(7 · g / (r · max|g|)) clipped to −7..7, two pixels to a byte. With so few levels it pays to clip the
  largest pixels; r is the ratio of CLIP_RATIOS that gives the best cosine with g.

Both work on each direction alone, so the result does not depend on the batch it comes in.

The mean cosines with the float directions are in docs/benchmarks.md. Levels of unequal width would add .001 to 4 bits
for normal pixels and .004 for Laplace ones; equal ones were kept, since any reader then gets the direction by sign
extension alone.
"""

import numpy as np

LEVELS = {8: 127, 4: 7}  # largest quantised value, by bits
CLIP_RATIOS = (1.0, 0.85, 0.72, 0.61, 0.52, 0.44, 0.37, 0.3, 0.22, 0.15)
BYTES_AT_ONCE = 1 << 20  # of float32 directions: what fits a core's second-level cache with its temporaries
SUMMED_AT_ONCE = 4096  # pixels; einsum has a buffer of 8192, and past that a row's sum depends on the rows beside it


def quantize(gradients: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 directions and their cosines with `gradients`, which are float32 (rows, pixels), one direction a row.

    Returns (rows, pixels) int8 and (rows,) float64. A zero direction stays zero, and its cosine counts as 1.
    Raises FloatingPointError when a gradient is not finite.
    """
    assert gradients.dtype == np.float32 and gradients.ndim == 2, (gradients.dtype, gradients.shape)
    quantized = np.empty(gradients.shape, np.int8)
    cosines = np.empty(len(gradients))
    rows = max(1, BYTES_AT_ONCE // (4 * gradients.shape[1]))
    for start in range(0, len(gradients), rows):
        part = slice(start, start + rows)
        quantized[part], cosines[part] = _quantize_block(gradients[part], bits)
    return quantized, cosines


def pack(quantized: np.ndarray) -> np.ndarray:
    """Two 4-bit values to a byte along the last axis, the first in the high nibble: int8 (…, W) → uint8 (…, ⌈W/2⌉).

    An odd width is filled up with a zero.
    """
    nibbles = quantized.view(np.uint8) & 15
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros_like(nibbles[..., :1])], axis=-1)
    return nibbles[..., ::2] << 4 | nibbles[..., 1::2]


def unpack(packed: np.ndarray, width: int) -> np.ndarray:
    """Undo `pack`: uint8 (…, ⌈width/2⌉) → int8 (…, width)."""
    pairs = packed.astype("<u2")  # the first value goes to the low byte, the second to the high one
    pairs |= pairs << 12
    pairs >>= 4
    pairs &= 0x0F0F
    pairs ^= 0x0808  # a nibble n in two's complement is (n ^ 8) − 8
    values = pairs.view(np.int8)
    values -= 8
    return values[..., :width]


def _quantize_block(gradients: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    largest = np.maximum(gradients.max(axis=1), -gradients.min(axis=1))[:, None]
    if not np.isfinite(largest).all():
        raise FloatingPointError("a gradient is not finite: the network or its weights are broken")
    # Dividing first keeps the tiniest directions (1e-40) from overflowing the scale.
    unit = gradients / np.where(largest > 0, largest, np.float32(1))
    ratios = CLIP_RATIOS if bits == 4 else (1.0,)
    best, best_cosines = _round(unit, ratios[0], bits)
    for ratio in ratios[1:]:
        candidate, cosines = _round(unit, ratio, bits)
        better = cosines > best_cosines
        best[better], best_cosines[better] = candidate[better], cosines[better]
    return best, best_cosines


def _round(unit: np.ndarray, ratio: float, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantise directions whose largest absolute value is 1, clipping at `ratio`; with their cosines."""
    values = unit * np.float32(LEVELS[bits] / ratio)
    np.rint(values, out=values)
    if ratio < 1:
        np.clip(values, -LEVELS[bits], LEVELS[bits], out=values)
    products = _dot(values, unit).astype(np.float64)
    norms = np.sqrt(_dot(values, values) * _dot(unit, unit), dtype=np.float64)
    return values.astype(np.int8), np.where(norms > 0, products / np.maximum(norms, 1e-30), 1.0)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The inner product of each row of `a` with that of `b`, (rows, pixels) → (rows,); the same in any batch."""
    products = np.zeros(len(a), np.float32)
    for start in range(0, a.shape[1], SUMMED_AT_ONCE):
        part = slice(start, start + SUMMED_AT_ONCE)
        products += np.einsum("rp,rp->r", a[:, part], b[:, part])
    return products
