"""Quantised directions: fidelity, invariances, packing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pag.store.format.quantization import LEVELS, pack, quantize, unpack

RNG = np.random.default_rng(0)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row-wise in float64, written apart from the code under test."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.array([x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)])


@pytest.mark.parametrize(
    ("draw", "bits", "mean", "least"),
    [
        (RNG.standard_normal, 8, 0.9999, 0.9995),
        (lambda size: RNG.laplace(size=size), 8, 0.9998, 0.9985),
        (RNG.standard_normal, 4, 0.992, 0.985),
        (lambda size: RNG.laplace(size=size), 4, 0.98, 0.95),
    ],
    ids=["normal-8", "laplace-8", "normal-4", "laplace-4"],
)
def test_directions_survive_quantisation(draw, bits, mean, least) -> None:
    gradients = draw(size=(200, 3072)).astype(np.float32)
    quantized, cosines = quantize(gradients, bits)
    assert quantized.dtype == np.int8 and np.abs(quantized).max() <= LEVELS[bits]
    np.testing.assert_allclose(cosines, cosine(gradients, quantized), atol=2e-6)
    assert cosines.mean() >= mean
    assert cosines.min() >= least


@given(hnp.arrays(np.float32, (3, 48), elements=st.floats(-1, 1, width=32)), st.sampled_from([8, 4]))
def test_no_pixel_is_off_by_more_than_half_a_level(gradients: np.ndarray, bits: int) -> None:
    """8 bits: max|g|/127 is one level, so the error has a bound whatever the direction. 4 bits: the cosine is at least
    that of the plain rounding without clipping."""
    quantized, cosines = quantize(gradients, bits)
    largest = np.abs(gradients).max(axis=1, keepdims=True).astype(np.float64)
    rounded = np.rint(gradients * np.divide(LEVELS[bits], largest, where=largest > 0, out=np.zeros_like(largest)))
    if bits == 8:
        assert np.abs(quantized - gradients * np.divide(127, largest, where=largest > 0, out=largest)).max() <= 0.5001
    for row in np.flatnonzero(np.abs(gradients).max(axis=1) > 1e-30):
        assert cosines[row] >= cosine(gradients[[row]], rounded[[row]])[0] - 1e-5


def test_4_bits_clip_at_the_best_of_the_ratios() -> None:
    """From flat directions to one pixel that outshines all others, so that each of the ratios is the best for some."""
    ratios = (1.0, 0.85, 0.72, 0.61, 0.52, 0.44, 0.37, 0.3, 0.22, 0.15)
    deviations = np.geomspace(0.6, 0.03, 60)[:, None]
    gradients = (np.random.default_rng(0).standard_normal((60, 3072)) * deviations).clip(-1, 1).astype(np.float32)
    gradients[:, 0] = 1
    found = np.array([cosine(np.rint(7 * gradients / r).clip(-7, 7), gradients) for r in ratios])
    assert set(found.argmax(axis=0)) == set(range(10))
    quantized, cosines = quantize(gradients, 4)
    np.testing.assert_allclose(cosine(quantized, gradients), found.max(axis=0), atol=1e-6)
    np.testing.assert_allclose(cosines, found.max(axis=0), atol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scale", [1e-42, 1e-9, 1.0, 1e30], ids=str)
def test_length_does_not_matter(scale: float, bits: int) -> None:
    gradients = RNG.standard_normal((4, 100))
    scaled = (gradients * scale).astype(np.float32)
    _, cosines = quantize(scaled, bits)
    assert cosines.min() > (0.98 if bits == 4 else 0.9995)
    if scale >= 1e-9:
        power = np.float32(2.0**-20)  # exact in float32, so the integers are the same
        np.testing.assert_array_equal(quantize(scaled, bits)[0], quantize(scaled * power, bits)[0])


@pytest.mark.parametrize("bits", [8, 4])
def test_zero_stays_zero_and_signs_mirror(bits: int) -> None:
    gradients = RNG.standard_normal((3, 50)).astype(np.float32)
    gradients[1] = 0
    quantized, cosines = quantize(gradients, bits)
    assert not quantized[1].any() and cosines[1] == 1
    np.testing.assert_array_equal(quantize(-gradients, bits)[0], -quantized)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_refused(bad: float) -> None:
    gradients = np.ones((2, 8), np.float32)
    gradients[1, 3] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        quantize(gradients, 8)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("pixels", [3072, 12288, 27648])
def test_rows_do_not_influence_each_other(pixels: int, bits: int) -> None:
    """Not in the last bit of the cosine either, by which 4 bits choose where they clip."""
    gradients = RNG.standard_normal((257, pixels)).astype(np.float32)  # several cache-sized blocks
    together, cosines = quantize(gradients, bits)
    for row in (0, 1, 2, 7, 84, 85, 256):
        alone, alone_cosines = quantize(gradients[row : row + 1], bits)
        np.testing.assert_array_equal(alone[0], together[row])
        assert alone_cosines[0] == cosines[row]


@given(hnp.arrays(np.int8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=9), elements=st.integers(-7, 7)))
def test_packing_round_trip(values: np.ndarray) -> None:
    packed = pack(values)
    assert packed.dtype == np.uint8 and packed.shape[-1] == (values.shape[-1] + 1) // 2
    np.testing.assert_array_equal(unpack(packed, values.shape[-1]), values)


def test_packing_as_documented() -> None:
    assert pack(np.array([3, -2, -7], np.int8)).tolist() == [0x3E, 0x90]
