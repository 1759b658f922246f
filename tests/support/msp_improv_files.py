"""Writes MSP-IMPROV's file of ratings from simulated ratings, with every oddity."""

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.support.msp_podcast_files import Pen

WORDS = ("Angry", "Happy", "Sad", "Neutral", "Other")
NAN = float("nan")


class Answer(NamedTuple):
    rater: str
    primary: str
    secondary: tuple[str, ...]
    valence: float
    activation: float  # as written: 1 is the highest
    dominance: float
    naturalness: float


class Turn(NamedTuple):
    name: str  # without UTD- or MSP-
    answers: tuple[Answer, ...]


def simulate(seed: int = 0, num_pairs: int = 2, turns_each: int = 4) -> list[Turn]:
    """In target turns the second pair letter is not the gender of the actor who speaks."""
    rng = np.random.default_rng(seed)
    turns = []
    for pair in range(1, num_pairs + 1):
        for letter in "FM":
            for number in range(turns_each):
                scene = "PRST"[number % 4]
                intended = "AHNS"[int(rng.integers(4))]
                version = "FM" if letter == "F" else "MF"
                name = f"IMPROV-S{number + 1:02d}{intended}-{letter}{pair:02d}-{scene}-{version}{number + 1:02d}"
                answers = []
                for rater in range(int(rng.integers(3, 7))):
                    values = rng.integers(1, 6, 4).astype(float)
                    values[2:][rng.random(2) < 0.2] = NAN
                    also = tuple(rng.choice(["Sad", "Excited", "Frustrated", "Depressed"], rng.integers(3), False))
                    word = str(rng.choice(WORDS))
                    answers.append(Answer(f"{100 + rater}", word, tuple(map(str, also)), *values.tolist()))
                if number == 0:
                    answers.append(answers[0]._replace(primary="Neutral", valence=1.0))
                turns.append(Turn(name, tuple(answers)))
    return turns


def consensus_of(turn: Turn) -> str:
    votes = collections.Counter(answer.primary[0] for answer in turn.answers)
    best = [code for code, number in votes.items() if number == max(votes.values())]
    return best[0] if len(best) == 1 else "X"


def means_of(turn: Turn) -> dict[str, float]:
    actual = {}
    for name in ("activation", "valence", "dominance", "naturalness"):
        values = [value for a in turn.answers if not np.isnan(value := getattr(a, name))]
        actual[name] = float(np.mean(values)) if values else NAN
    return actual


def block_text(turn: Turn, rng: np.random.Generator | None = None) -> str:
    a, v, d, n = means_of(turn).values()
    numbers = f"A:{a:.6f}; V:{v:.6f}; D:{d:.6f} ; N:{n:.6f};"
    lines = []
    for answer in turn.answers:
        values = [f"A:{answer.activation:f};", f"V:{answer.valence:f};", f"D:{answer.dominance:f};"]
        values.append(f"N:{answer.naturalness:f};")
        if rng is not None:
            values = [values[i] for i in rng.permutation(4)]
        text = " ".join(values).replace("nan", "NaN")
        lines.append(f"{answer.rater}; {answer.primary}; {','.join(answer.secondary)}; {text}")
    if rng is not None:
        first, again = lines[0], lines[-1]
        lines = [lines[i] for i in rng.permutation(len(lines))]
        at = sorted((lines.index(first), lines.index(again)))
        lines[at[0]], lines[at[-1]] = first, again
    head = f"UTD-{turn.name}.avi; {consensus_of(turn)}; {numbers.replace('nan', 'NaN')}"
    return "\n".join([head, *lines]) + "\n"


def write_improv(root: Path, turns: Sequence[Turn], file: str = "Evalution.txt", pen: Pen | None = None) -> Path:
    pen = pen or Pen()
    turns = list(turns) if pen.rng is None else [turns[i] for i in pen.rng.permutation(len(turns))]
    pen.write(root / file, "\n".join(block_text(turn, pen.rng) for turn in turns))
    return root


def expected_ratings(turns: Sequence[Turn], reverse: bool = True) -> list[dict]:
    rows = []
    for turn in turns:
        for a in turn.answers:
            values = {
                "valence": a.valence, "activation": 6 - a.activation if reverse else a.activation,
                "dominance": a.dominance, "naturalness": a.naturalness,
            }  # fmt: skip
            rows.append(
                {"utterance": f"MSP-{turn.name}", "rater": a.rater, "primary": a.primary.lower(),
                 "secondary": [word.lower() for word in a.secondary],
                 **{name: None if np.isnan(value) else value for name, value in values.items()}}
            )  # fmt: skip
    return sorted(rows, key=lambda row: (row["utterance"], row["rater"]))
