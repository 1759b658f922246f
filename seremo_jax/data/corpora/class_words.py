"""The words of all corpora for classes and genders: their spellings become the words of `vocab`.

Free text behind `other` is kept as it stands. A primary word that nothing is known of is an error that lists it,
because to drop or guess labels silently would change results. Unknown secondary words are kept as free text.
"""

import collections
import re
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.corpora.csv_frames import MISSING
from seremo_jax.data.text_lines import CorpusError, Report

MSP_LETTERS = {
    **dict(zip("ASHUFDCN", vocab.CLASS_SETS["msp8"], strict=True)),
    "O": vocab.OTHER,
    "X": vocab.NO_AGREEMENT,
}
"""Letter of MSP-Podcast -> our word."""

MSP_MAP = "msp_letters"
"""Stands for a word map of all these letters. Elsewhere they may mean something else, so nobody takes them unasked."""

GENDER_OF_LETTER = {"F": "female", "M": "male"}
"""Letter in the names of turns and raters -> gender."""

_GENDERS = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}
_NO_GENDER = (*MISSING, vocab.UNKNOWN)

SECONDARY = ("amused", "annoyed", "concerned", "confused", "depressed", "disappointed", "excited", "frustrated")
"""Secondary words of MSP-Podcast that are no primary ones."""

# The misspelling stands in the files of MSP-Podcast.
_SECONDARY_SPELLINGS = {**dict(zip(SECONDARY, SECONDARY, strict=True)), "dissapointed": "disappointed"}
_OTHER = re.compile(r"other(?![a-z])\s*[-:_]?\s*(.*)", re.IGNORECASE | re.DOTALL)


def word_of(text: str, mapped: Mapping[str, str] | None = None) -> str | None:
    """Our word for a rater's word.

    Returns:
      A word of `vocab` or of the map, `no_agreement` where the map says so, `other`, `other-<free text>` with the text
      as it stands, or None where the word is unknown.
    """
    low = text.strip().lower()
    word = (mapped or {}).get(low) or vocab.CLASS_SPELLINGS.get(low, low)
    if word in vocab.CLASS_WORDS or (mapped and low in mapped):
        return word
    if free := _OTHER.fullmatch(text.strip()):
        return f"{vocab.OTHER}-{free[1]}" if free[1] else vocab.OTHER
    return None


def read_word_map(word_map: Iterable[str], classes: Iterable[str] = ()) -> dict[str, str]:
    """Word of a corpus in lower case -> ours, from texts such as `bored=other-bored` or `X=no_agreement`.

    Args:
      word_map: The texts; `msp_letters` stands for all letters of MSP-Podcast.
      classes: Classes of the corpus's own, which stand for themselves.

    Raises:
      CorpusError: A text has no `=`, or names no word of ours on its right.
    """
    own = {word: word for word in classes}
    mapped = dict(own)
    for text in word_map:
        corpus_word, _, word = (part.strip().lower() for part in text.partition("="))
        if text.strip().lower() == MSP_MAP:
            mapped |= {letter.lower(): word for letter, word in MSP_LETTERS.items()}
        elif not corpus_word or (word != vocab.NO_AGREEMENT and word_of(word, own) != word):
            names = ", ".join(sorted({*vocab.CLASS_WORDS, *own}))
            raise CorpusError(f"word_map: {text!r} must read WORD=CLASS, with a class of {names}, other, other-TEXT, "
                              f"or no_agreement; or be {MSP_MAP}, for all letters of MSP-Podcast")  # fmt: skip
        else:
            mapped[corpus_word] = word
    return mapped


def map_primary(raw: pl.Series, where: str, mapped: Mapping[str, str]) -> pl.Series:
    """Our word for each of `raw`; null where it is null or empty, or stands for no agreement, which is no vote.

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
    voted = {text: None if word == vocab.NO_AGREEMENT else word for text, word in ours.items()}
    return _look_up(raw, voted, pl.String)


def refuse_unknown(counts: Mapping[str, int], where: str) -> None:
    """Raises where there are words that nothing is known of.

    Raises:
      CorpusError: Lists them with their counts.
    """
    if counts:
        listed = ", ".join(f"{text!r} x {n}" for text, n in sorted(counts.items(), key=lambda item: (-item[1], item)))
        letters = (
            f", or all letters of MSP-Podcast with {MSP_MAP}" if set(map(str.upper, counts)) <= {*MSP_LETTERS} else ""
        )
        raise CorpusError(f"{where}: words that no class set knows: {listed}. Map them with data.word_map, e.g. "
                          f"WORD=neutral, WORD=other-WORD or WORD=no_agreement{letters}; or, in a corpus as tables, "
                          "name classes of your own in corpus.json, e.g. {\"class_set\": [\"angry\", \"boredom\"]}"
                          )  # fmt: skip


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

    The free text behind `Other-` may hold commas, so it runs on until the next known word.
    """
    words: list[str] = []
    unknown: list[str] = []
    for part in text.split(","):
        item = part.strip()
        word = _SECONDARY_SPELLINGS.get(item.lower()) or word_of(item, mapped)
        if word is not None:
            words += [word] if word != vocab.NO_AGREEMENT else []
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


def genders(words: pl.Series, where: str, report: Report) -> pl.Series:
    """Our gender for each word of a corpus, null where it gives none; words that nobody knows are reported.

    Args:
      words: The words; null where there is none.
      where: The file they stand in, for the report.
      report: Gets the count `genders_unknown` and the words.
    """
    low = words.str.strip_chars().str.to_lowercase()
    if strange := words.filter(~low.is_in([*_GENDERS, *_NO_GENDER])).to_list():
        report.counts["genders_unknown"] += len(strange)
        report.problems.append(f"{where}: unknown genders: {', '.join(map(repr, sorted(set(strange))[:10]))}")
    return low.replace_strict(_GENDERS, default=None, return_dtype=pl.String)
