"""The vote files of CREMA-D: single responses with rater ids, and counts of votes."""

import collections
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from seremo_jax.core import vocab
from seremo_jax.data.corpora.csv_frames import MOST_COUNTED
from seremo_jax.data.text_lines import CorpusError, Report, csv_rows

CLASS_OF_LETTER = dict(zip("ADFHNS", vocab.CLASS_SETS["crema6"], strict=True))
MODALITY_OF_QUERY = {"1": "voice", "2": "face", "3": "both"}
SLOW_CLICK_MS = 10_000
"""A response counts as slow when its first click came later than this (KNOWN: processFinishedResponses.R)."""

NAME = re.compile(r"(\d{4})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX)")
"""Name of an utterance: actor, sentence, acted emotion, acted level."""

_SUMMARY_COLUMNS = {"voice": "VoiceVote", "face": "FaceVote", "both": "MultiModalVote"}
_MISSPELT = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}
_MEAN_COLUMNS = {
    letter: f"mean{word}Resp"
    for letter, word in zip("ADFHNS", ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad"), strict=True)
}


class Vote(NamedTuple):
    """One rating.

    Attributes:
      utterance: Name of the utterance.
      modality: What the rater was given of it: `voice`, `face` or `both`.
      rater: Who rated.
      primary: The class chosen.
      intensity: How strong it is, in [0, 100]; None where not rated.
    """

    utterance: str
    modality: str
    rater: str
    primary: str
    intensity: float | None


def read_tabulated(path: str | os.PathLike, report: Report) -> list[Vote]:
    """Anonymous votes from `tabulatedVotes.csv`; lines that make no sense are reported.

    Raises:
      CorpusError: A count that no number of raters can make.
    """
    votes, seen, path = [], set(), Path(path)
    for where, row in csv_rows(path, ["fileName", "numResponses", *CLASS_OF_LETTER, *_MEAN_COLUMNS.values()], report):
        name = utterance_name(row["fileName"], where, report)
        modality = MODALITY_OF_QUERY.get(row[""][:1])
        if name is None:
            continue
        counts, levels, why = _cells_of(row)
        if not why and (most := max(counts.values())) > MOST_COUNTED:
            raise CorpusError(f"{path.parent / where}: {name}: {most} votes for one class, over {MOST_COUNTED:,}: "
                              "correct the cell, or remove the row")  # fmt: skip
        if modality is None:
            why = f"the row name {row['']!r} begins with none of {', '.join(MODALITY_OF_QUERY)}"
        elif (name, modality) in seen:
            why = "a second line for this cell"
        if why:
            report.add("lines_not_used", f"{where}: {name}: {why}")
            continue
        seen.add((name, modality))
        chosen = [letter for letter, count in counts.items() for _ in range(count)]
        # Only of classes that were chosen: -1 stands for "no votes" in the others, never for a level.
        means = {letter: _intensity(levels[letter], where, report) for letter in dict.fromkeys(chosen)}
        for number, letter in enumerate(chosen):
            votes.append(Vote(name, modality, f"anon-{modality}-{number}", CLASS_OF_LETTER[letter], means[letter]))
    return votes


def _cells_of(row: Mapping[str, str]) -> tuple[dict[str, int], dict[str, float], str]:
    """Counts and mean levels by letter, and what is wrong with a row of `tabulatedVotes.csv`, or ""."""
    counts: dict[str, int] = {}
    levels: dict[str, float] = {}
    for letter, column in _MEAN_COLUMNS.items():
        for name, cells, kind in ((letter, counts, int), (column, levels, float)):
            try:
                cells[letter] = kind(row[name])
            except ValueError:
                return counts, levels, f"{name} is {row[name]!r}, which is no {'count' if kind is int else 'number'}"
        if counts[letter] < 0:
            return counts, levels, f"{letter} is {counts[letter]}, below 0"
    if row["numResponses"].strip().removesuffix(".0") != str(sum(counts.values())):
        return counts, levels, f"the votes sum to {sum(counts.values())}, and numResponses is {row['numResponses']}"
    return counts, levels, ""


def read_responses(
    path: str | os.PathLike, report: Report, slow_clicks: str = "in", slow_questions: set[int] | None = None
) -> list[Vote]:
    """Votes with rater ids from a file in the format of `finishedResponses.csv`.

    Args:
      path: The file; an excerpt will do.
      report: Gets the lines that make no sense, slow clicks left out, and raters who answered a cell twice (kept).
      slow_clicks: `out` leaves out the questions of `slow_questions`, or where that is None, by the column `ttr`.
      slow_questions: Keys of the questions whose first click was slow.

    Raises:
      CorpusError: A column is missing, or there is a letter that stands for no class.
    """
    columns = ["localid", "ttr", "queryType", "questNum", "clipName", "sessionNums", "respEmo", "respLevel"]
    votes, unknown = [], collections.Counter()
    rows = Report()
    for where, row in csv_rows(path, columns, rows):
        name = utterance_name(row["clipName"], where, rows)
        if name is None:
            continue
        if row["respEmo"] not in CLASS_OF_LETTER:
            unknown[row["respEmo"]] += 1
            continue
        try:
            level, modality = float(row["respLevel"]), MODALITY_OF_QUERY[row["queryType"]]
            is_left_out = slow_clicks == "out" and (
                _question(row) in slow_questions if slow_questions is not None else _is_slow(row["ttr"])
            )
        except (ValueError, KeyError):
            rows.add("lines_not_used", f"{where}: {name}: a cell is not a number")
            continue
        if is_left_out:
            report.counts["slow_clicks_left_out"] += 1
            continue
        intensity = _intensity(level, where, report)
        votes.append(Vote(name, modality, row["localid"], CLASS_OF_LETTER[row["respEmo"]], intensity))
    if unknown:
        raise CorpusError(f"{path}: respEmo has letters that stand for no class: {dict(unknown)}")
    # A row is a rating here, so what became of the rows is what became of the ratings.
    report.merge(rows)
    report.counts["ratings_read"] += rows.counts["lines_read"]
    report.counts["ratings_not_used"] += rows.counts["lines_not_used"]
    report.counts["repeated_raters"] = len(votes) - len({(v.utterance, v.modality, v.rater) for v in votes})
    return votes


def slow_questions_of(path: str | os.PathLike, report: Report) -> set[int]:
    """Keys of the questions whose first click was slow, from `finishedEmoResponses.csv`."""
    slow = set()
    for where, row in csv_rows(path, ["ttr", "sessionNums", "queryType", "questNum"], report):
        try:
            if _is_slow(row["ttr"]):
                slow.add(_question(row))
        except ValueError:
            report.add("lines_not_used", f"{where}: a cell is not a number")
    return slow


def _is_slow(ttr: str) -> bool:
    return float(ttr) > SLOW_CLICK_MS


def _question(row: dict[str, str]) -> int:
    """The authors' key of a question (KNOWN: processFinishedResponses.R), so that the same responses are left out."""
    return int(float(row["sessionNums"])) * 1000 + int(row["queryType"]) * 100 + int(float(row["questNum"]))


def read_summary(path: str | os.PathLike, report: Report) -> dict[str, dict[str, str]]:
    """Utterance -> modality -> class that the authors released as plurality, from `summaryTable.csv`; ties disagree."""
    released: dict[str, dict[str, str]] = {}
    for where, row in csv_rows(path, ["FileName", *_SUMMARY_COLUMNS.values()], report):
        name = utterance_name(row["FileName"], where, report)
        tops = {modality: row[column].split(":") for modality, column in _SUMMARY_COLUMNS.items()}
        if name is None:
            continue
        if name in released or not all(letter in CLASS_OF_LETTER for letters in tops.values() for letter in letters):
            why = "a second line for this utterance" if name in released else "a letter that stands for no class"
            report.add("lines_not_used", f"{where}: {name}: {why}")
            continue
        released[name] = {
            modality: CLASS_OF_LETTER[letters[0]] if len(letters) == 1 else vocab.NO_AGREEMENT
            for modality, letters in tops.items()
        }
    return released


def utterance_name(name: str, where: str, report: Report, what: str = "lines_not_used") -> str | None:
    """The official spelling, or None where `name` names no utterance (reported as `what`)."""
    if name in _MISSPELT:
        report.counts["misspelt_names"] += 1
        name = _MISSPELT[name]
    if not NAME.fullmatch(name):
        report.add(what, f"{where}: {name!r} names no utterance")
        return None
    return name


def _intensity(level: float, where: str, report: Report) -> float | None:
    if 0 <= level <= 100:
        return level
    report.add("intensities_not_used", f"{where}: intensity {level:g} is not in 0 to 100")
    return None
