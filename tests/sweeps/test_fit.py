"""The search for the largest size that fits."""

import pytest

from seremo_jax.sweeps import fit


@pytest.mark.parametrize("guess", [1, 8, 4_096])
@pytest.mark.parametrize("limit", [0, 1, 7, 8, 9, 250, 3_000])
def test_the_search_ends_at_the_limit(limit, guess):
    asked = []
    low, high = fit.bisect(lambda n: asked.append(n) or n <= limit, guess)
    assert low <= limit < high
    assert high - low <= max(1, 0.1 * low)
    assert len(set(asked)) <= 16


def test_what_always_fits_ends():
    low, high = fit.bisect(lambda n: True, 8)
    assert (low, high) == (1 << 14, 0)
