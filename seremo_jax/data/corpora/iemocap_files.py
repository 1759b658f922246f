"""The rating files of IEMOCAP: `EmoEvaluation/<dialogue>.txt`, and the copies by rater in the folders beside them."""

import collections
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from seremo_jax.core import vocab
from seremo_jax.data.text_lines import Report, text_lines

NAME = re.compile(r"Ses(\d+)([FM])_((?:impro|script)\w*?)_([FM])(\w+)")
"""Name of a turn: session, side that wears the markers, dialogue, person who speaks, number."""

RANGE = (1.0, 5.0)
WORD_OF_CODE = {
    "ang": "angry", "hap": "happy", "exc": "excited", "sad": "sad", "fru": "frustrated", "neu": "neutral",
    "sur": "surprise", "fea": "fear", "dis": "disgust", "oth": vocab.OTHER, "xxx": vocab.NO_AGREEMENT,
}  # fmt: skip
ATTRIBUTE_OF = {"val": "valence", "act": "activation", "dom": "dominance"}

_TURN = re.compile(r"\[\s*([\d.]+)\s*-\s*([\d.]+)\s*\]\s+(\S+)\s+(\w+)\s+\[([^\]]*)\]\s*")
_ANSWER = re.compile(r"([CA])-([EFM]\d*)\s*:\s*(.*)", re.DOTALL)
_COPY = re.compile(r"(\S+)\s*:\s*(.*)", re.DOTALL)
_COPY_FILE = re.compile(r".+_([efm]\d*)_(cat|atr)\.txt", re.IGNORECASE)
_COPY_FOLDERS = ("Categorical", "Attribute", "Self-evaluation")

Categories = tuple[str, ...]
Values = tuple[float | None, ...]
"""Valence, activation and dominance of one answer, None where not rated."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a dialogue file says of a turn; `released` are the means of valence, activation, dominance."""

    name: str
    start_s: float
    end_s: float
    code: str
    released: Values


@dataclasses.dataclass
class Answers:
    """What each rater said of each turn, (turn, rater) -> answers in the order of the file."""

    categories: dict[tuple[str, str], list[Categories]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    attributes: dict[tuple[str, str], list[Values]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )


def read_dialogue(path: Path, turns: dict[str, Turn], answers: Answers, report: Report) -> None:
    """Adds the turns and answers of one dialogue file.

    A line that makes no sense is reported, and so is all below a turn line that makes none.
    """
    current: str | None = None
    for number, line in enumerate(text_lines(path), start=1):
        where, text = f"{path.name}:{number}", line.strip()
        if not text:
            current = None
        elif text.startswith("["):
            report.counts["lines_read"] += 1
            turn = _read_turn(text)
            current = turn.name if turn is not None and turn.name not in turns else None
            if turn is None:
                report.add("lines_not_used", f"{where}: no [start - end] TURN CODE [V, A, D]")
            elif current is None:
                report.add("lines_not_used", f"{where}: {turn.name} has been read before")
            else:
                turns[turn.name] = turn
        elif match := _ANSWER.fullmatch(text):
            report.counts["ratings_read"] += 1
            kind, rater, given = match.groups()
            if current is None:
                report.add("ratings_not_used", f"{where}: a rating below no turn")
            else:
                _add(answers, kind, (current, rater), given, where, report)
        elif not text.startswith("%"):
            report.counts["lines_read"] += 1
            report.add("lines_not_used", f"{where}: neither a turn nor a rating")


def read_copies(folder: Path, answers: Answers, report: Report) -> None:
    """Adds the answers of the files by rater below `EmoEvaluation`."""
    for path in sorted(path for name in _COPY_FOLDERS for path in (folder / name).glob("[!.]*.txt")):
        match = _COPY_FILE.fullmatch(path.name)
        if match is None:
            report.add("files_not_used", f"{path.parent.name}/{path.name}: its name tells no rater")
            continue
        rater, kind = match[1].upper(), {"cat": "C", "atr": "A"}[match[2].lower()]
        for number, line in enumerate(text_lines(path), start=1):
            if not line.strip():
                continue
            where = f"{path.parent.name}/{path.name}:{number}"
            report.counts["ratings_read"] += 1
            copy = _COPY.fullmatch(line.strip())
            if copy is None or not NAME.fullmatch(copy[1]):
                report.add("ratings_not_used", f"{where}: not TURN :ANSWER; ()")
            else:
                _add(answers, kind, (copy[1], rater), copy[2], where, report)


def _read_turn(text: str) -> Turn | None:
    match = _TURN.fullmatch(text)
    if match is None or not NAME.fullmatch(match[3]):
        return None
    try:
        start_s, end_s = float(match[1]), float(match[2])
        released = tuple(float(value) for value in match[5].split(","))
    except ValueError:
        return None
    return Turn(match[3], start_s, end_s, match[4].lower(), released) if len(released) == 3 else None


def _add(answers: Answers, kind: str, key: tuple[str, str], given: str, where: str, report: Report) -> None:
    # The comment behind may hold anything, semicolons and brackets too.
    items = [item.strip() for item in given.partition("(")[0].split(";")]
    items = [item for item in items if item]
    if kind == "C":
        answers.categories[key].append(tuple(items))
        return
    values: dict[str, float | None] = {}
    for item in items:
        name, *rest = item.lower().split()
        try:
            value = float(rest[0]) if rest else None
        except ValueError:
            value, name = None, ""
        if name not in ATTRIBUTE_OF or len(rest) > 1 or ATTRIBUTE_OF[name] in values:
            report.add("ratings_not_used", f"{where}: {item!r} is no val, act or dom")
            return
        if value is not None and not RANGE[0] <= value <= RANGE[1]:
            report.add("values_out_of_range", f"{where}: {item!r} is outside {RANGE[0]:g} to {RANGE[1]:g}, left out")
            value = None
        values[ATTRIBUTE_OF[name]] = value
    if not values:
        report.add("ratings_not_used", f"{where}: no val, act or dom")
        return
    answers.attributes[key].append(tuple(values.get(name) for name in vocab.ATTRIBUTES))


def prefer_copies(answers: Answers, copies: Answers, turns: Mapping[str, Turn], report: Report) -> None:
    """Puts the copies in the place of what the dialogue files say; differences are counted, other turns reported."""
    for in_dialogues, by_rater in ((answers.categories, copies.categories), (answers.attributes, copies.attributes)):
        for key, given in by_rater.items():
            if key[0] not in turns:
                report.counts["ratings_not_used"] += len(given) - 1
                report.add("ratings_not_used", f"copies by rater {key[1]}: no dialogue has the turn {key[0]}")
                continue
            if key in in_dialogues:
                report.counts["ratings_replaced_by_copies"] += len(in_dialogues[key])
                report.counts["copies_that_differ"] += _differ(in_dialogues[key], given)
            in_dialogues[key] = list(given)


def _differ(written: list, copied: list) -> bool:
    """Whether two lists of answers differ, the two spellings of the neutral state apart."""

    def plain(answers: list) -> list:
        return [
            tuple(x.lower().removesuffix(" state") if isinstance(x, str) else x for x in answer) for answer in answers
        ]

    return plain(written) != plain(copied)
