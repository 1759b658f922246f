"""Shares of votes back to votes: the fewest raters whose votes give shares that a table has rounded.

A share s with d decimals is n_c / n rounded, so n s is within n / 2 of the last decimal of the whole number n_c.
"""

from decimal import Decimal, InvalidOperation

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

MOST_VOTES = 60
"""Shares that no number of votes up to this one gives are not used."""

FEW_VOTES = 12
"""Shares that so few votes give are hardly smoothed ones by chance."""

_USUAL_VOTES = 20
_HALF_OF_SECOND = 0.01
EXACT = 1e-6
"""Half of the last decimal of shares that are not rounded: as far as single precision is exact."""


def half_decimal(texts: pl.DataFrame) -> float:
    """Half of the last decimal that the shares of a table have; zeros behind the second one may come from its writer.

    Args:
      texts: The shares as they stand in the table.
    """
    written, needed = 0, 0
    for text in {text for name in texts.columns for text in texts[name].unique().drop_nulls().to_list()}:
        try:
            number = Decimal(text)
        except InvalidOperation:
            continue
        if number.is_finite():
            written = max(written, -number.as_tuple().exponent)
            needed = max(needed, -number.normalize().as_tuple().exponent)
    return max(0.5 * 10.0 ** -max(needed, min(written, 2), 1), EXACT)


def votes_behind(
    shares: Float[np.ndarray, "N C"], half: float, num_raters: Float[np.ndarray, " N"] | None = None
) -> tuple[Float[np.ndarray, "N C"], Bool[np.ndarray, " N"]]:
    """Votes that give each row of shares: those of its raters where their number is known, else the fewest.

    Shares with one decimal are taken as exact where that is possible for every row: two, five or ten raters have such.

    Args:
      shares: NaN where a row is not to be used.
      half: Half of the last decimal.
      num_raters: How many raters voted, NaN where that is not known.

    Returns:
      Votes, NaN in rows that no number of votes up to `MOST_VOTES` gives; and whether other votes, of the raters or of
      up to twenty, give the same shares in another proportion.
    """
    if num_raters is not None:
        votes, is_open = _solve(shares, num_raters, half)
        is_unknown = np.isnan(num_raters)
        votes[is_unknown], is_open[is_unknown] = votes_behind(shares[is_unknown], half)
        return votes, is_open
    votes, is_open = _fewest(shares, half)
    if half > _HALF_OF_SECOND:
        exact, _ = _fewest(shares, EXACT)
        if (np.isfinite(exact) | np.isnan(votes)).all():
            return exact, np.zeros(len(shares), bool)
    totals = votes.sum(axis=1)
    for total in range(2, _USUAL_VOTES + 1):
        others, is_several = _solve(shares, np.full(len(shares), float(total)), half)
        is_other = np.isfinite(others).all(axis=1) & (np.abs(others * totals[:, None] - votes * total) > 0.5).any(
            axis=1
        )
        is_open |= (total > totals) & (is_other | is_several)
    return votes, is_open


def _fewest(shares: Float[np.ndarray, "N C"], half: float) -> tuple[Float[np.ndarray, "N C"], Bool[np.ndarray, " N"]]:
    votes, is_open = np.full_like(shares, np.nan), np.zeros(len(shares), bool)
    for total in range(1, MOST_VOTES + 1):
        left = np.nonzero(np.isnan(votes).any(axis=1))[0]
        votes[left], is_open[left] = _solve(shares[left], np.full(len(left), float(total)), half)
    return votes, is_open


def _solve(
    shares: Float[np.ndarray, "N C"], totals: Float[np.ndarray, " N"], half: float
) -> tuple[Float[np.ndarray, "N C"], Bool[np.ndarray, " N"]]:
    """Votes of so many raters nearest to the shares, NaN where none round to them; and whether others do, too."""
    n = totals[:, None]
    low = np.maximum(np.ceil(n * (shares - half) - 1e-9), 0)
    high = np.minimum(np.floor(n * (shares + half) + 1e-9), n)
    is_solved = (low <= high).all(axis=1) & (low.sum(axis=1) <= totals) & (high.sum(axis=1) >= totals)
    votes = np.where(is_solved[:, None], np.minimum(np.maximum(np.rint(n * shares), low), high), np.nan)
    for row in np.nonzero(is_solved & (votes.sum(axis=1) != totals))[0]:
        while step := np.sign(totals[row] - votes[row].sum()):
            room = high[row] > votes[row] if step > 0 else low[row] < votes[row]
            # The class whose share the votes are furthest behind, or ahead of, gets or loses one.
            lag = np.where(room, step * (totals[row] * shares[row] - votes[row]), -np.inf)
            votes[row, np.argmax(lag)] += step
    may_rise, may_fall = high > votes, low < votes
    same = (may_rise & may_fall).sum(axis=1)
    is_several = is_solved & (may_rise.sum(axis=1) * may_fall.sum(axis=1) - same > 0)
    return votes, is_several
