"""GGUF blocks: what is written here is what the library reads."""

import numpy as np
import pytest

from qwen2_book.checkpoint import blocks


def weights() -> np.ndarray:
    random = np.random.default_rng(0)
    drawn = random.standard_normal((40, 768)).astype(np.float32) * random.gamma(1, 1, (40, 1))
    drawn[3, :40], drawn[5], drawn[7, 2] = 0, 0, 50
    drawn[9] = np.abs(drawn[9]) + 1
    return drawn.astype(np.float32)


@pytest.mark.parametrize(("kind", "levels"), [("Q4_K", 15), ("Q5_K", 31)])
def test_the_library_reads_what_was_meant(kind, levels):
    with np.errstate(all="ignore"):
        d, m, s, t, q = blocks.with_minimum(weights().reshape(-1, 256), levels)
    meant = ((d * s)[..., None] * q - (m * t)[..., None]).reshape(40, 768)
    assert np.array_equal(blocks.rounded(weights(), kind), meant)


def test_the_library_reads_six_bits():
    with np.errstate(all="ignore"):
        d, s, q = blocks.symmetric(weights().reshape(-1, 256))
    meant = ((d * s)[..., None] * q).reshape(40, 768)
    assert np.array_equal(blocks.rounded(weights(), "Q6_K"), meant)


@pytest.mark.parametrize(
    ("kind", "bits", "most"),
    [
        ("BF16", 16, 0.002),
        ("Q8_0", 8.5, 0.006),
        ("Q6_K", 6.5625, 0.021),
        ("Q5_K", 5.5, 0.042),
        ("Q4_K", 4.5, 0.085),
        ("Q4_0", 4.5, 0.095),
    ],
)
def test_bits_and_errors(kind, bits, most):
    assert blocks.bits(kind) == bits
    drawn = np.random.default_rng(1).standard_normal((64, 512)).astype(np.float32)
    assert 0 < blocks.relative_error(drawn, kind) < most
    assert blocks.write(drawn, kind).nbytes * 8 == bits * drawn.size


def test_rows_that_are_no_whole_blocks():
    with pytest.raises(ValueError, match="rows of 896 are no whole blocks of 256"):
        blocks.write(np.zeros((2, 896), np.float32), "Q4_K")
