"""IEMOCAP: ten actors in five sessions of two, scripted and improvised, rated by others and by themselves.

LABELS.md, section 2, has the formats and their traps. Two of them change labels. The name of a turn begins with the
side that wears the markers, who is not the speaker in half of the turns. And actors rated themselves in the same files
in which others rated them.
"""

import collections
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data.corpora import class_words
from seremo_jax.data.corpora.iemocap_files import (
    NAME,
    RANGE,
    WORD_OF_CODE,
    Answers,
    Turn,
    prefer_copies,
    read_copies,
    read_dialogue,
)
from seremo_jax.data.tables import make_table, with_report
from seremo_jax.data.text_lines import CorpusError, Report

TURNS_OF_SESSION = {"1": 1_819, "2": 1_811, "3": 2_136, "4": 2_103, "5": 2_170}
"""Turns of each session in the full release (KNOWN: LABELS.md, section 2)."""


def parse(
    root: str | os.PathLike, *, word_map: Iterable[str] = (), is_quiet: bool = False
) -> tuple[pa.Table, pa.Table]:
    """Utterances and ratings, self-reports marked.

    A rater's categories and attributes of a turn make one rating. Where there are copies by rater (`Categorical/`,
    `Attribute/`, `Self-evaluation/`), they stand instead of the lines of the dialogue file. The speaker is the person
    who speaks, not the one who wears the markers.

    Args:
      root: Folder with `Session1/` to `Session5/`, or with one folder that holds them.
      word_map: Texts `WORD=CLASS` for categories that the parser does not know.
      is_quiet: Prints nothing; this parser never does.

    Raises:
      CorpusError: No session, no dialogue file, or unknown categories.
    """
    del is_quiet
    root, report, mapped = Path(root), Report(), class_words.read_word_map(word_map)
    sessions = _sessions(root)
    turns: dict[str, Turn] = {}
    audio: dict[str, str] = {}
    answers = Answers()
    copies = Answers()
    for session in sessions:
        folder = session / "dialog" / "EmoEvaluation"
        before = set(turns)
        # The archive holds hidden twins of its files, made by another system.
        for path in sorted(folder.glob("[!.]*.txt")):
            read_dialogue(path, turns, answers, report)
        read_copies(folder, copies, report)
        place = (session / "sentences" / "wav").relative_to(root).as_posix()
        audio |= {name: f"{place}/{name.rpartition('_')[0]}/{name}.wav" for name in turns.keys() - before}
    if not turns:
        raise CorpusError(f"{root}: no turns in Session*/dialog/EmoEvaluation/*.txt; set --config.corpus.root to the "
                          "folder of IEMOCAP")  # fmt: skip
    prefer_copies(answers, copies, turns, report)
    names = sorted(turns)
    info = CorpusInfo("iemocap", _release(names, report), "iemocap4", dict.fromkeys(vocab.ATTRIBUTES, RANGE))
    ratings = _rating_table(answers, mapped, info, report)
    return with_report(_utterance_table([turns[name] for name in names], audio, info, report), report), ratings


def _sessions(root: Path) -> list[Path]:
    for pattern in ("Session[0-9]*", "*/Session[0-9]*"):
        sessions = sorted(path for path in root.glob(pattern) if path.is_dir())
        if len({path.parent for path in sessions}) == 1:
            return sessions
    raise CorpusError(f"{root} holds no Session1/ ... Session5/: set --config.corpus.root to the folder of IEMOCAP")


def _release(names: list[str], report: Report) -> str:
    counted = collections.Counter(session_of(name) for name in names)
    if counted == TURNS_OF_SESSION:
        return "full"
    unlike = [
        f"{counted[session]:,} in session {session} (full: {TURNS_OF_SESSION.get(session, 0):,})"
        for session in sorted(counted | TURNS_OF_SESSION)
        if counted[session] != TURNS_OF_SESSION.get(session, 0)
    ]
    report.problems.append(f"turns are not those of the full release: {', '.join(unlike)}")
    return f"subset of {len(counted)} sessions"


def session_of(name: str) -> str:
    """Session of a turn: `Ses01F_impro01_M003` -> `1`."""
    return str(int(NAME.fullmatch(name)[1]))


def speaker_of(name: str) -> str:
    """The person who speaks a turn: `Ses01F_impro01_M003` -> `01M`."""
    match = NAME.fullmatch(name)
    return f"{int(match[1]):02d}{match[4]}"


def _utterance_table(turns: list[Turn], audio: Mapping[str, str], info: CorpusInfo, report: Report) -> pa.Table:
    names = [turn.name for turn in turns]
    unknown = collections.Counter(turn.code for turn in turns if turn.code not in WORD_OF_CODE)
    if unknown:
        report.counts["released_codes_unknown"] = unknown.total()
        report.problems.append(f"unknown codes, taken for no released consensus: {dict(unknown)}")
    columns: dict[str, Any] = {
        "id": names,
        "audio": [audio[name] for name in names],
        "speaker": [speaker_of(name) for name in names],
        "gender": [class_words.GENDER_OF_LETTER[speaker_of(name)[-1]] for name in names],
        "session": [session_of(name) for name in names],
        "released_consensus": [WORD_OF_CODE.get(turn.code) for turn in turns],
        "dialogue": [name.rpartition("_")[0] for name in names],
        # Scripted turns say the same text in every session.
        "kind": ["script" if NAME.fullmatch(name)[3].startswith("script") else "impro" for name in names],
        "start_s": [turn.start_s for turn in turns],
        "end_s": [turn.end_s for turn in turns],
    }
    for i, name in enumerate(vocab.ATTRIBUTES):
        columns[f"released_{name}"] = [turn.released[i] for turn in turns]
    texts = [pa.field(name, pa.string()) for name in ("dialogue", "kind")]
    numbers = [pa.field(name, pa.float64()) for name in list(columns)[-5:]]
    return make_table(columns, UTTERANCE_SCHEMA, info, [*texts, *numbers])


def _rating_table(answers: Answers, mapped: Mapping[str, str], info: CorpusInfo, report: Report) -> pa.Table:
    """One row a rater and turn; a rater's second answer, where there is one, makes a second row."""
    rows = []
    unknown: collections.Counter[str] = collections.Counter()
    for turn, rater in sorted(answers.categories.keys() | answers.attributes.keys()):
        given = answers.categories.get((turn, rater), [])
        rated = answers.attributes.get((turn, rater), [])
        report.counts["ratings_joined"] += min(len(given), len(rated))
        report.counts["repeated_raters"] += max(len(given), len(rated)) - 1
        for i in range(max(len(given), len(rated))):
            categories = given[i] if i < len(given) else ()
            words = [class_words.word_of(word, mapped) for word in categories]
            unknown.update(word for word, our in zip(categories, words, strict=True) if our is None)
            ours = [word for word in words if word != vocab.NO_AGREEMENT]
            values = rated[i] if i < len(rated) else (None,) * len(vocab.ATTRIBUTES)
            rows.append((turn, rater, ours, values))
    class_words.refuse_unknown(unknown, "EmoEvaluation")
    report.counts["ratings_kept"] = len(rows)
    report.counts["ratings_without_class"] = sum(not ours for _, _, ours, _ in rows)
    report.counts["ratings_of_several_classes"] = sum(len(ours) > 1 for _, _, ours, _ in rows)
    columns: dict[str, Any] = {
        "utterance": [turn for turn, *_ in rows],
        "rater": [rater for _, rater, *_ in rows],
        "modality": ["both"] * len(rows),
        "primary": [ours[0] if ours else None for _, _, ours, _ in rows],
        "secondary": [()] * len(rows),
        "also_primary": [ours[1:] for _, _, ours, _ in rows],
        "is_self_report": [rater[0] in class_words.GENDER_OF_LETTER for _, rater, *_ in rows],
    }
    for i, name in enumerate(vocab.ATTRIBUTES):
        columns[name] = [values[i] for *_, values in rows]
    return make_table(columns, RATING_SCHEMA, info)
