"""Ratings to counts of votes: which ratings count, how much, and for which class.

The rules are those of LABELS.md, section 5.
"""

import collections
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from seremo_jax.core import vocab
from seremo_jax.data.policies import RatingPolicies, TargetsError

_DECIMALS = 9
"""Thirds of votes add up to whole ones: counts are rounded to this many decimals."""


def select(frame: pl.DataFrame, policies: RatingPolicies) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The ratings that count, each with its `weight`, and how many were left out or met twice.

    Args:
      frame: Ratings with the `row` of their utterance.
      policies: What counts.
    """
    num_self = 0
    if "is_self_report" in frame.columns:
        num_self = int(frame["is_self_report"].sum())
        frame = frame if policies.self_reports == "in" else frame.filter(~pl.col("is_self_report"))
    # An actor who rates others and themselves on one utterance is two raters here, not one who rated twice.
    who = ["row", "rater", *(["is_self_report"] if "is_self_report" in frame.columns else [])]
    times = pl.len().over(who)
    frame = frame.with_columns(times=times)
    counts = {
        "num_self_reports": num_self,
        "num_repeated_ratings": int((frame["times"] > 1).sum()),
        "num_ratings_replaced": 0,
    }
    if policies.repeated_rater == "last":
        before = frame.height
        frame = frame.filter(pl.int_range(pl.len()).over(who) == pl.col("times") - 1)
        counts["num_ratings_replaced"] = before - frame.height
    weight = 1.0 / pl.col("times") if policies.repeated_rater == "average" else pl.lit(1.0)
    frame = frame.with_columns(weight=weight, num_raters=_num_raters())
    is_enough = pl.col("num_raters") >= policies.min_raters
    counts["num_utterances_below_min_raters"] = frame.filter(~is_enough)["row"].n_unique()
    return frame.filter(is_enough), counts


def _num_raters() -> pl.Expr:
    """Raters of each row's utterance: those who gave a class, or all where nobody did."""
    who = pl.col("rater")
    num_of_classes = who.filter(pl.col("primary").is_not_null()).n_unique().over("row")
    return pl.when(num_of_classes > 0).then(num_of_classes).otherwise(who.n_unique().over("row"))


def count(
    frame: pl.DataFrame, num_rows: int, class_set: str, policies: RatingPolicies, known: Set[str]
) -> tuple[Float[np.ndarray, "N C1"], pl.DataFrame, dict[str, Any]]:
    """Counts the votes of each class.

    Args:
      frame: From `select`.
      num_rows: N.
      class_set: As of `vocab.classes_of`.
      policies: How much a word counts, and for what.
      known: Words that some class set knows.

    Returns:
      [N, C + 1] votes of each class and, in the last column, of all other words pooled; the single votes, with `row`,
      `rater` and `column` of each; and what was counted, by name.

    Raises:
      TargetsError: A primary word is in no class set.
    """
    class_names = vocab.classes_of(class_set)
    rated = frame.filter(pl.col("primary").is_not_null())
    words = pl.concat_list("primary", "also_primary") if "also_primary" in frame.columns else pl.concat_list("primary")
    if policies.multi_primary == "first":
        words = pl.concat_list("primary")
    long = rated.select("row", "rater", "weight", word=words).with_columns(num_words=pl.col("word").list.len())
    # Several primary words of one rater are one vote in all, or one each: only `share` divides it.
    if policies.multi_primary == "share":
        long = long.with_columns(weight=pl.col("weight") / pl.col("num_words"))
    long = long.explode("word").select("row", "rater", "word", "weight")
    occurrences = collections.Counter(dict(long["word"].value_counts().iter_rows()))
    require_known(occurrences, class_names, known)
    word_map = read_map(policies.other_map, class_set)
    column = {word: column_of(word, class_set, word_map) for word in occurrences}
    single = long.select("row", "rater", column=_codes(long["word"], column))
    full = _sums(long, column, num_rows, len(class_names) + 1)
    counts = {
        "num_votes_of_other_class_sets": {
            word: n for word, n in occurrences.items() if column[word] == len(class_names) and not is_other(word)
        }
    }
    if policies.secondary_weight:
        also = frame.select("row", "weight", word="secondary").explode("word").drop_nulls("word")
        also = also.with_columns(weight=pl.col("weight") * policies.secondary_weight)
        inside = {w: column_of(w, class_set, {}) for w in also["word"].unique().to_list()}
        inside = {word: c for word, c in inside.items() if c < len(class_names)}
        also = also.filter(pl.col("word").is_in(list(inside)))
        counts["num_secondary_words_counted"] = also.height
        full = full + _sums(also, inside, num_rows, len(class_names) + 1)
    counts["num_votes"] = {name: _whole(full[:, c].sum()) for c, name in enumerate(class_names)}
    counts["num_other_votes"] = _whole(full[:, -1].sum())
    return np.round(full, _DECIMALS), single, counts


def is_other(word: str) -> bool:
    """Whether a word is `other`, with or without free text."""
    return word == vocab.OTHER or word.startswith(f"{vocab.OTHER}-")


def pooled_word(column: str) -> pl.Expr:
    """The words of a column, `other` in place of any `other-<free text>`."""
    is_free_text = pl.col(column).str.starts_with(f"{vocab.OTHER}-")
    return pl.when(is_free_text).then(pl.lit(vocab.OTHER)).otherwise(column).alias(column)


def require_known(occurrences: Mapping[str, int], class_names: tuple[str, ...], known: Set[str]) -> None:
    """Refuses words that are neither of `class_names` nor known otherwise.

    Raises:
      TargetsError: Lists them with their counts.
    """
    unknown = {word: n for word, n in occurrences.items() if not is_other(word) and word not in {*known, *class_names}}
    if unknown:
        listed = ", ".join(f"{word!r} x {n}" for word, n in sorted(unknown.items(), key=lambda item: -item[1]))
        raise TargetsError(
            f"ratings table, column primary: words that no class set knows: {listed}. Map them in the corpus parser to "
            f"a class ({', '.join(class_names)}), to 'other' or to 'other-<text>'"
        )


def read_map(texts: Iterable[str], class_set: str) -> dict[str, str]:
    """Word -> class, from texts `WORD=CLASS`.

    Raises:
      TargetsError: A text has no `=`, or names no class of the set.
    """
    mapped = {}
    for text in texts:
        word, _, name = (part.strip().lower() for part in text.rpartition("="))
        if not word or name not in vocab.classes_of(class_set):
            names = ", ".join(vocab.classes_of(class_set))
            raise TargetsError(f"targets.other_map: {text!r} must read WORD=CLASS, with a class of {names}")
        mapped[word] = name
    return mapped


def column_of(word: str, class_set: str, word_map: Mapping[str, str]) -> int:
    """Position of the class that a word counts as; behind the last where it counts as none.

    Args:
      word: A primary or secondary word, in our spelling.
      class_set: As of `vocab.classes_of`.
      word_map: From `read_map`.
    """
    names = vocab.classes_of(class_set)
    word = vocab.merged_words(class_set).get(word, word)
    if word not in names:
        free = word.removeprefix(f"{vocab.OTHER}-").strip().lower()
        word = word_map.get(free, word)
    return names.index(word) if word in names else len(names)


def _sums(long: pl.DataFrame, column: Mapping[str, int], num_rows: int, num_columns: int) -> np.ndarray:
    """[N, columns] weights of `long` summed by row and column of the word."""
    codes = _codes(long["word"], column)
    # Row and column as one number, so that a single count over ratings fills the table.
    cells = long["row"].to_numpy().astype(np.int64) * num_columns + codes.to_numpy()
    summed = np.bincount(cells, long["weight"].to_numpy(), minlength=num_rows * num_columns)
    return summed.astype(np.float64).reshape(num_rows, num_columns)


def _codes(words: pl.Series, column: Mapping[str, int]) -> pl.Series:
    return words.replace_strict(column, return_dtype=pl.Int64) if len(words) else words.cast(pl.Int64)


def _whole(number: float) -> int | float:
    """A count as an integer where it is one."""
    rounded = round(float(number), _DECIMALS)
    return int(rounded) if rounded.is_integer() else rounded
