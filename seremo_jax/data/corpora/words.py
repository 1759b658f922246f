"""The class words of all corpora: spellings -> the words of `vocab`, free text kept, unknown words refused."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.text_lines import CorpusError, Report

SPELLINGS = {
    "anger": "angry",
    "sadness": "sad",
    "happiness": "happy",
    "surprised": "surprise",
    "fearful": "fear",
    "disgusted": "disgust",
    "neutral state": "neutral",
    "excitement": "excited",
    "frustration": "frustrated",
}
"""Corpus's word in lower case -> ours. The words of `vocab` stand for themselves."""

KNOWN = frozenset(word for words in vocab.CLASS_SETS.values() for word in words)
SECONDARY = ("amused", "annoyed", "concerned", "confused", "depressed", "disappointed", "excited", "frustrated")
"""Secondary words of MSP-Podcast that are no primary ones."""

_SECONDARY_SPELLINGS = {**dict(zip(SECONDARY, SECONDARY, strict=True)), "dissapointed": "disappointed"}
_OTHER = re.compile(r"other(?![a-z])\s*[-:_]?\s*(.*)", re.IGNORECASE | re.DOTALL)


def word_of(text: str, mapped: Mapping[str, str] | None = None) -> str | None:
    """Our word for a rater's, `other-<free text>` with the text as it stands, or None where the word is unknown."""
    low = text.strip().lower()
    word = (mapped or {}).get(low) or SPELLINGS.get(low, low)
    if word in KNOWN or (mapped and low in mapped):
        return word
    if free := _OTHER.fullmatch(text.strip()):
        return f"{vocab.OTHER}-{free[1]}" if free[1] else vocab.OTHER
    return None


def read_word_map(word_map: Iterable[str]) -> dict[str, str]:
    """Corpus's word in lower case -> ours, from texts such as `bored=other-bored`.

    Raises:
      CorpusError: A text has no `=`, or names no word of ours on its right.
    """
    mapped = {}
    for text in word_map:
        corpus_word, _, word = (part.strip().lower() for part in text.partition("="))
        if not corpus_word or word_of(word) != word:
            raise CorpusError(f"word_map: {text!r} must read WORD=CLASS, with a class of {', '.join(sorted(KNOWN))}, "
                              "other, or other-TEXT")  # fmt: skip
        mapped[corpus_word] = word
    return mapped


def map_primary(raw: pl.Series, where: str, mapped: Mapping[str, str]) -> pl.Series:
    """Our word for each of `raw`; null where it is null or empty.

    Raises:
      CorpusError: Unknown words; the message lists them with their counts.
    """
    counted = raw.drop_nulls().value_counts()
    ours = {text: word_of(text, mapped) if text.strip() else None for text in counted[raw.name].to_list()}
    unknown = collections.Counter[str]()
    for text, number in counted.iter_rows():
        if text.strip() and ours[text] is None:
            unknown[text.strip()] += number
    refuse_unknown(unknown, where)
    return _look_up(raw, ours, pl.String)


def refuse_unknown(counts: Mapping[str, int], where: str) -> None:
    """Raises where there are words that nothing is known of.

    Raises:
      CorpusError: Lists them with their counts.
    """
    if counts:
        listed = ", ".join(f"{text!r} x {n}" for text, n in sorted(counts.items(), key=lambda item: (-item[1], item)))
        raise CorpusError(f"{where}: words that no class set knows: {listed}. Map them with word_map, "
                          "e.g. WORD=neutral or WORD=other-WORD")  # fmt: skip


def map_secondary(raw: pl.Series, where: str, mapped: Mapping[str, str], report: Report) -> pl.Series:
    """The list of our words in each of `raw`, which separates them by commas. Unknown words become `other-<word>`."""
    counted = raw.drop_nulls().value_counts()
    ours, unknown = {}, collections.Counter[str]()
    for text, number in counted.iter_rows():
        ours[text], strange = secondary_words(text, mapped)
        for word in strange:
            unknown[word] += number
    report_secondary(unknown, where, report)
    return _look_up(raw, ours, pl.List(pl.String)).fill_null([])


def report_secondary(counts: Mapping[str, int], where: str, report: Report) -> None:
    """Counts unknown secondary words, which are kept, and lists the most frequent."""
    if counts:
        report.counts["secondary_words_unknown"] += sum(counts.values())
        listed = ", ".join(f"{word!r} x {n}" for word, n in sorted(counts.items(), key=lambda item: -item[1])[:20])
        report.problems.append(f"{where}: unknown secondary words, kept as other-<word>: {listed}")


def secondary_words(text: str, mapped: Mapping[str, str] | None = None) -> tuple[list[str], list[str]]:
    """Our words for a list of words separated by commas, and those among them that were unknown.

    The free text of an `Other-` may hold commas: it runs on until the next known word.
    """
    words: list[str] = []
    unknown: list[str] = []
    for part in text.split(","):
        item = part.strip()
        word = _SECONDARY_SPELLINGS.get(item.lower()) or word_of(item, mapped)
        if word is not None:
            words.append(word)
        elif words and words[-1].startswith(f"{vocab.OTHER}-"):
            words[-1] += f",{part.rstrip()}"
        elif item:
            unknown.append(item)
            words.append(f"{vocab.OTHER}-{item}")
    return words, unknown


def _look_up(raw: pl.Series, table: Mapping[str, Any], dtype: Any) -> pl.Series:
    keys = pl.DataFrame(
        {"text": pl.Series(list(table), dtype=pl.String), "ours": pl.Series(list(table.values()), dtype=dtype)}
    )
    return pl.DataFrame({"text": raw}).join(keys, on="text", how="left", maintain_order="left")["ours"].rename(raw.name)


def numbers(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, pl.Series]:
    """Text columns as numbers, null where there is none ("", nan, none, na), and which rows hold what is no number."""
    is_wrong = pl.Series([False]).new_from_index(0, frame.height)
    for name in columns:
        text = frame[name].str.strip_chars()
        is_missing = text.str.to_lowercase().is_in(["", "nan", "none", "na", "null"]) | text.is_null()
        value = text.cast(pl.Float64, strict=False)
        is_number = value.is_finite().fill_null(False)
        is_wrong |= ~is_missing & ~is_number
        frame = frame.with_columns(pl.Series(name, value).set(~is_number, None))
    return frame, is_wrong
