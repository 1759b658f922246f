"""MSP-IMPROV: twelve actors in six sessions of two, in scenes that provoke or avoid an emotion, rated by many.

LABELS.md, section 4, has the formats and their traps. Three of them change labels. Activation is written with 1 for the
highest. The speaker is the actor field of a name: the letters at its end name the version of the scene, and a gender
taken from them is wrong for every second utterance. Free text of raters may hold the semicolons that part the fields.
"""

import collections
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data.corpora import class_words
from seremo_jax.data.tables import make_table, with_report
from seremo_jax.data.text_lines import CorpusError, Report, text_lines

NAME = re.compile(r"(?:UTD|MSP)-(IMPROV-S(\d+)([AHNS])-([FM])(\d+)-([PRST])-[FM]{2}\d+)(?:\.\w+)?")
"""Name of a turn: sentence, intended emotion, the actor who speaks, scene, and the scene's version and turn."""

RANGE = (1.0, 5.0)
NUM_UTTERANCES = 8_438
"""Utterances of the full release (KNOWN: LABELS.md, section 4): 8,385, and 53 without a usable vote."""

_VALUES = (*vocab.ATTRIBUTES, "naturalness")
_LETTERS = dict(zip("VADN", _VALUES, strict=True))
_WORD_OF_CODE = {
    "A": "angry",
    "H": "happy",
    "S": "sad",
    "N": "neutral",
    "O": vocab.OTHER,
    "X": vocab.NO_AGREEMENT,
}
_FILES = ("Evalution.txt", "Evaluation.txt")
_HEAD = re.compile(r"([^;]+?)\s*;\s*([A-Z])\s*((?:;\s*[AVDN]\s*:[^;]*)*);?\s*")
# Free text may hold semicolons: the rater comes first, the numbers last.
_ANSWER = re.compile(r"([^;]*?)\s*;(.*?)((?:;\s*[AVDN]\s*:[^;]*){2,4});?\s*", re.DOTALL)


class _Head(NamedTuple):
    """What was released of an utterance."""

    code: str
    means: dict[str, float | None]


class _Answer(NamedTuple):
    """One rater's answer to one utterance."""

    utterance: str
    rater: str
    primary: str
    secondary: str
    values: dict[str, float | None]


def parse(
    root: str | os.PathLike, *, reverse_activation: bool = True, word_map: Iterable[str] = (), is_quiet: bool = False
) -> tuple[pa.Table, pa.Table]:
    """Utterances and ratings; `naturalness` is an attribute of this corpus's own.

    Args:
      root: Folder with `Evalution.txt` (or `Evaluation.txt`) and `Audio/session1/` ... or `session1/` ...
      reverse_activation: Activation is written with 1 for the highest. True turns ratings and released means round
        (6 - A), so that 5 is the highest as in other corpora; False leaves them.
      word_map: Texts `WORD=CLASS` for primary words that the parser does not know.
      is_quiet: Prints nothing; this parser never does.

    Raises:
      CorpusError: The file of ratings is missing or there twice, or unknown words.
    """
    del is_quiet
    root, report, mapped = Path(root), Report(), class_words.read_word_map(word_map)
    path = _find(root)
    heads, answers = _read(path, report)
    if reverse_activation:
        for values in (*(head.means for head in heads.values()), *(answer.values for answer in answers)):
            if (activation := values.get("activation")) is not None:
                values["activation"] = RANGE[0] + RANGE[1] - activation
    speakers = {_speaker(name) for name in heads}
    is_full = len(heads) == NUM_UTTERANCES
    if not is_full:
        report.problems.append(f"{len(heads):,} utterances are not the {NUM_UTTERANCES:,} of the full release")
    direction = "reversed, so that 5 is the highest" if reverse_activation else "as written: 1 is the highest"
    info = CorpusInfo(
        "msp_improv",
        "full" if is_full else f"subset of {len(speakers)} speakers",
        "improv4",
        dict.fromkeys(_VALUES, RANGE),
        notes=(f"Activation is {direction}.",),
    )
    ratings = _rating_table(sorted(answers, key=lambda answer: answer[:2]), path.name, mapped, info, report)
    return with_report(_utterance_table(root, heads, info), report), ratings


def _find(root: Path) -> Path:
    paths = [path for name in _FILES for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_file()]
    if len(paths) > 1:
        raise CorpusError(f"{' and '.join(map(str, paths))} are both there: move one away")
    if not paths:
        raise CorpusError(f"{root} has no {' nor '.join(_FILES)}: set --config.corpus.root to the folder of MSP-IMPROV")
    return paths[0]


def _read(path: Path, report: Report) -> tuple[dict[str, _Head], list[_Answer]]:
    """Utterance -> its header, and all answers in the order of the file.

    A blank line or a header that cannot be read ends the block above it, so that nobody's answers are given to another
    utterance.
    """
    heads: dict[str, _Head] = {}
    answers: list[_Answer] = []
    current: str | None = None
    for number, line in enumerate(text_lines(path), start=1):
        where, text = f"{path.name}:{number}", line.strip()
        if not text:
            current = None
        elif re.match(r"(UTD|MSP)-IMPROV", text):
            report.counts["lines_read"] += 1
            current, head, why = _read_head(text, where, report)
            if current is not None and current in heads:
                current, why = None, "a second header for this utterance"
            if current is None or head is None:
                report.add("lines_not_used", f"{where}: {why}")
            else:
                heads[current] = head
        else:
            report.counts["ratings_read"] += 1
            match = _ANSWER.fullmatch(text)
            values = _numbers(match[3], where, report) if match else None
            primary, is_whole, secondary = _split(match[2]) if match else ("", "", "")
            if match is not None and is_whole and match[1] and values is None:
                report.add("ratings_not_used", f"{where}: {match[3].strip()!r} is no number for each letter once")
            elif match is None or values is None or not is_whole or not match[1]:
                report.add("ratings_not_used", f"{where}: not RATER; PRIMARY; SECONDARY; A:x; V:x; D:x; N:x;")
            elif current is None:
                report.add("ratings_not_used", f"{where}: a rating below no header")
            else:
                answers.append(_Answer(current, match[1], primary, secondary, values))
    return heads, answers


def _read_head(text: str, where: str, report: Report) -> tuple[str | None, _Head | None, str]:
    """Utterance and header, or None and why."""
    match = _HEAD.fullmatch(text)
    name = NAME.fullmatch(match[1]) if match else None
    means = _numbers(match[3], where, report) if match else None
    if match is None or name is None or means is None:
        return None, None, "not FILE; CODE; A:x; V:x; D:x; N:x;"
    return f"MSP-{name[1]}", _Head(match[2], means), ""


def _split(middle: str) -> tuple[str, str, str]:
    """Primary word, semicolon and secondary words; free text of the primary runs on to the last semicolon."""
    return middle.rpartition(";") if middle.strip().lower().startswith(vocab.OTHER) else middle.partition(";")


def _numbers(tail: str, where: str, report: Report) -> dict[str, float | None] | None:
    """Attribute -> value, None where it is NaN or out of range; None where the text makes no sense."""
    values: dict[str, float | None] = {}
    for item in filter(None, (part.strip() for part in tail.split(";"))):
        letter, _, text = item.partition(":")
        name = _LETTERS[letter.strip()]
        try:
            value = float(text)
        except ValueError:
            return None
        if name in values or math.isinf(value):
            return None
        if not math.isnan(value) and not RANGE[0] <= value <= RANGE[1]:
            report.add("values_out_of_range", f"{where}: {item!r} is outside {RANGE[0]:g} to {RANGE[1]:g}, left out")
            value = math.nan
        values[name] = None if math.isnan(value) else value
    return values


def _speaker(name: str) -> str:
    """The actor field: whoever speaks, not the owner of the scene."""
    match = NAME.fullmatch(name)
    return f"{match[4]}{match[5]}"


def _utterance_table(root: Path, heads: Mapping[str, _Head], info: CorpusInfo) -> pa.Table:
    folder = "" if not (root / "Audio").is_dir() and any(root.glob("session[0-9]*")) else "Audio/"
    names = sorted(heads)
    parts = [NAME.fullmatch(name) for name in names]
    columns: dict[str, Any] = {
        "id": names,
        "audio": [f"{folder}session{int(m[5])}/S{m[2]}{m[3]}/{m[6]}/{m[0]}.wav" for m in parts],
        "speaker": [_speaker(name) for name in names],
        "gender": [class_words.GENDER_OF_LETTER[m[4]] for m in parts],
        "session": [str(int(m[5])) for m in parts],
        "released_consensus": [_WORD_OF_CODE.get(heads[name].code) for name in names],
        "sentence": [f"S{m[2]}" for m in parts],
        "intended_class": [_WORD_OF_CODE[m[3]] for m in parts],
        "scenario": [m[6] for m in parts],
    }
    for value in _VALUES:
        columns[f"released_{value}"] = [heads[name].means.get(value) for name in names]
    texts = [pa.field(name, pa.string()) for name in ("sentence", "intended_class", "scenario")]
    return make_table(
        columns, UTTERANCE_SCHEMA, info, [*texts, *(pa.field(f"released_{value}", pa.float64()) for value in _VALUES)]
    )


def _rating_table(
    answers: list[_Answer], file: str, mapped: Mapping[str, str], info: CorpusInfo, report: Report
) -> pa.Table:
    primary = [class_words.word_of(answer.primary, mapped) if answer.primary.strip() else None for answer in answers]
    unknown = collections.Counter(
        answer.primary.strip() for answer, word in zip(answers, primary, strict=True) if word is None
    )
    report.counts["ratings_without_class"] = unknown.pop("", 0)
    class_words.refuse_unknown(unknown, file)
    primary = [None if word == vocab.NO_AGREEMENT else word for word in primary]
    also = [class_words.secondary_words(answer.secondary, mapped) for answer in answers]
    strange = collections.Counter(word for _, unknown_words in also for word in unknown_words)
    class_words.report_secondary(strange, file, report)
    report.counts["ratings_kept"] = len(answers)
    report.counts["repeated_raters"] = len(answers) - len({answer[:2] for answer in answers})
    columns: dict[str, Any] = {
        "utterance": [answer.utterance for answer in answers],
        "rater": [answer.rater for answer in answers],
        "modality": ["both"] * len(answers),
        "primary": primary,
        "secondary": [known for known, _ in also],
    }
    for value in _VALUES:
        columns[value] = [answer.values.get(value) for answer in answers]
    return make_table(columns, RATING_SCHEMA, info, [pa.field("naturalness", pa.float32())])
