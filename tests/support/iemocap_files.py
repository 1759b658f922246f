"""Writes IEMOCAP's rating files from simulated ratings: dialogue files, copies by rater, every oddity."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.support.msp_podcast_files import Pen

WORDS = {
    "Anger": "angry", "Happiness": "happy", "Excited": "excited", "Sadness": "sad", "Frustration": "frustrated",
    "Neutral state": "neutral", "Surprise": "surprise", "Fear": "fear", "Disgust": "disgust", "Other": "other",
}  # fmt: skip
CODES = {
    "angry": "ang", "happy": "hap", "excited": "exc", "sad": "sad", "frustrated": "fru", "neutral": "neu",
    "surprise": "sur", "fear": "fea", "disgust": "dis", "other": "oth",
}  # fmt: skip


class Answer(NamedTuple):
    rater: str
    categories: tuple[str, ...] | None
    values: tuple[int | None, int | None, int | None] | None  # valence, activation, dominance


class Turn(NamedTuple):
    name: str
    session: int
    code: str
    answers: tuple[Answer, ...]


def simulate(seed: int = 0, num_sessions: int = 2, turns_each: int = 3) -> list[Turn]:
    """Two dialogues a session, both people speaking in each; some answers hold two categories or lack dominance."""
    rng = np.random.default_rng(seed)
    turns = []
    for session in range(1, num_sessions + 1):
        for dialogue in (f"Ses{session:02d}F_impro01", f"Ses{session:02d}M_script02_1b"):
            for speaker in "FM":
                for number in range(turns_each):
                    answers = []
                    for rater in ("E1", "E2", "E4"):
                        count = 1 + (rng.random() < 0.25)
                        words = tuple(rng.choice(list(WORDS), count, replace=False).tolist())
                        values = rng.integers(1, 6, 3).tolist() if rater != "E1" else None
                        if values and rng.random() < 0.3:
                            values[2] = None
                        answers.append(Answer(rater, words, tuple(values) if values else None))
                    answers.append(Answer("E6", None, (1, 5, 3)))
                    answers.append(Answer(f"{speaker}{session}", ("Frustration",), (2, 4, 5)))
                    code = ("xxx", *CODES.values())[int(rng.integers(len(CODES) + 1))]
                    turns.append(Turn(f"{dialogue}_{speaker}{number:03d}", session, code, tuple(answers)))
    return turns


def means_of(turn: Turn) -> list[float]:
    values = [answer.values for answer in turn.answers if answer.values]
    columns = ([row[i] for row in values if row[i] is not None] for i in range(3))
    return [float(np.mean(column)) if column else 3.0 for column in columns]


def category_text(answer: Answer, neutral: str) -> str:
    words = (word.replace("Neutral state", neutral) for word in answer.categories)
    return "".join(f"{word}; " for word in words).rstrip() + "\t(said; (so))"


def value_text(answer: Answer, order: Sequence[int] = (0, 1, 2)) -> str:
    valence, activation, dominance = answer.values
    # Two blanks before the value of dominance, and nothing where it is missing.
    parts = (f"val {valence}; ", f"act {activation}; ", "" if dominance is None else f"dom  {dominance};")
    return "".join(parts[i] + " " for i in order) + "\t()"


def dialogue_text(turns: Sequence[Turn], rng: np.random.Generator | None = None) -> str:
    text = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    for number in range(len(turns)) if rng is None else rng.permutation(len(turns)):
        turn = turns[number]
        means = ", ".join(f"{value:.4f}" for value in means_of(turn))
        lines = [f"C-{a.rater}:\t{category_text(a, 'Neutral')}" for a in turn.answers if a.categories]
        order = (0, 1, 2) if rng is None else rng.permutation(3)
        lines += [f"A-{a.rater}:\t{value_text(a, order)}" for a in turn.answers if a.values]
        if rng is not None:
            lines = [lines[i] for i in rng.permutation(len(lines))]
        span = f"[{6.2901 + number:.4f} - {7.2357 + number:.4f}]"
        text += "\n".join([f"{span}\t{turn.name}\t{turn.code}\t[{means}]", *lines]) + "\n\n"
    return text


def write_iemocap(root: Path, turns: Sequence[Turn], copies: bool = False, pen: Pen | None = None) -> Path:
    """`copies` writes the files by rater too, and empties the categories of the dialogue files of one rater."""
    pen = pen or Pen()
    for session in sorted({turn.session for turn in turns}):
        folder = root / f"Session{session}/dialog/EmoEvaluation"
        own = [turn for turn in turns if turn.session == session]
        for dialogue in sorted({turn.name.rpartition("_")[0] for turn in own}):
            spoken = [turn for turn in own if turn.name.startswith(f"{dialogue}_")]
            pen.write(folder / f"{dialogue}.txt", dialogue_text(spoken, pen.rng))
            # What another system leaves in archives.
            pen.write(folder / f"._{dialogue}.txt", "\x00\x05\x16\x07")
            for rater in sorted({answer.rater for turn in spoken for answer in turn.answers}) if copies else []:
                write_copies(folder, dialogue, rater, spoken, pen)
    return root


def write_copies(folder: Path, dialogue: str, rater: str, turns: Sequence[Turn], pen: Pen) -> None:
    own = [(turn.name, answer) for turn in turns for answer in turn.answers if answer.rater == rater]
    is_self = rater[0] in "FM"
    for kind, text, rows in (
        ("cat", lambda a: category_text(a, "Neutral state"), [row for row in own if row[1].categories]),
        ("atr", value_text, [row for row in own if row[1].values]),
    ):
        place = "Self-evaluation" if is_self else {"cat": "Categorical", "atr": "Attribute"}[kind]
        lines = [f"{name} :{text(answer)}\n" for name, answer in rows]
        if lines:
            pen.write(folder / place / f"{dialogue}_{rater.lower()}_{kind}.txt", "".join(lines))


def expected_ratings(turns: Sequence[Turn]) -> list[dict]:
    rows = []
    for turn in turns:
        for a in turn.answers:
            words = [WORDS[word] for word in a.categories or ()]
            valence, activation, dominance = a.values or (None, None, None)
            rows.append(
                {"utterance": turn.name, "rater": a.rater, "primary": words[0] if words else None,
                 "also_primary": words[1:], "is_self_report": a.rater[0] in "FM", "valence": valence,
                 "activation": activation, "dominance": dominance}
            )  # fmt: skip
    return sorted(rows, key=lambda row: (row["utterance"], row["rater"]))
