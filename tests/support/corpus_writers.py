"""Every corpus in every layout from simulated ratings, with what a parser must find there: cases of the contract."""

import collections
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.data.corpora import test_crema_d
from tests.support import iemocap_files, msp_improv_files, msp_podcast_files
from tests.support.msp_podcast_files import Pen

Rng = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Case:
    """One corpus in one layout.

    Attributes:
      corpus: Name of the parser.
      write: Writes it into a folder; with a generator, in another order of columns, keys and rows.
      ratings: What the ratings table must hold, by (utterance, modality, rater); None where the corpus makes it up.
      speakers: Utterance -> who speaks.
      genders: Speaker -> gender.
      spoil: Adds malformed ratings to the folder, and returns the place of each as a report names it.
      policies: Of the parser.
    """

    corpus: str
    write: Callable[[Path, Rng | None], Any]
    ratings: list[dict[str, Any]] | None
    speakers: dict[str, str]
    genders: dict[str, str]
    spoil: Callable[[Path], list[str]] | None = None
    policies: dict[str, Any] = dataclasses.field(default_factory=dict)


def insert_lines(path: Path, at: Sequence[int], texts: Sequence[str]) -> list[str]:
    """Puts texts in so that each is the line of that number; returns `file:line` of each."""
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, text in zip(at, texts, strict=True):
        lines.insert(number - 1, text)
    path.write_text("\n".join(lines), encoding="utf-8")
    return [f"{path.name}:{number}" for number in at]


def _msp_podcast(release: str, sources: Sequence[str]) -> Case:
    how = msp_podcast_files.RELEASES[release]
    turns = msp_podcast_files.simulate(seed=3, has_test3=how.has_test3)
    rows = [
        {"utterance": turn.name, "modality": "voice", "rater": a.rater, "primary": our_word(a.primary),
         "secondary": [our_word(word) for word in a.secondary], "also_primary": [], "is_self_report": False,
         "valence": a.valence, "activation": a.activation, "dominance": a.dominance}
        for turn in turns for a in turn.answers
    ]  # fmt: skip

    def write(root: Path, rng: Rng | None) -> None:
        msp_podcast_files.write_release(root, turns, release, sources, pen=Pen(rng=rng))

    def spoil(root: Path) -> list[str]:
        name = turns[1].name
        if sources[0] == "txt":
            [path] = [path for path in root.rglob("*.txt") if path.name.lower() == "labels.txt"]
            return insert_lines(path, (2, 4), ("WORKER1; Happy", "WORKER1; Happy; Sad; A:1; V:x; D:2;"))
        path = root / how.folder / "labels_detailed.csv"
        bad = {
            "columns": (f"{name}.wav,W1,Happy", f'{name}.wav,W1,"Happy,Sad,1,2,3', f"{name}.wav,W1,Happy,,one,2,3"),
            "answers": (f"{name}.wav,W1; Happy; ; A:1; V:2;", f'{name}.wav,"W1; Happy', f"{name}.wav"),
        }[how.layout]
        return insert_lines(path, (3, 5, 9), bad)

    speakers = {turn.name: turn.speaker.replace("Unknown", "unknown") for turn in turns}
    genders = {speakers[turn.name]: turn.gender.lower() for turn in turns}
    return Case("msp_podcast", write, rows, speakers, genders, None if sources == ("json",) else spoil)


def our_word(word: str) -> str:
    """MSP-Podcast's word as the tables have it."""
    low = word.lower().replace("dissapointed", "disappointed")
    return f"other-{word[6:]}" if word.startswith("Other-") else low


def _iemocap(copies: bool) -> Case:
    turns = iemocap_files.simulate(seed=1)
    rows = [{**row, "modality": "both", "secondary": []} for row in iemocap_files.expected_ratings(turns)]

    def spoil(root: Path) -> list[str]:
        path = root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
        places = insert_lines(path, (4, 6), ("A-E9:\tval 2; act two;\t()", "A-E9:\tmood 3;\t()"))
        return [*places, *insert_lines(path, (2,), ("C-E9:\tAnger;\t()",))][-1:] + [f"{path.name}:{n}" for n in (5, 7)]

    speakers = {turn.name: f"{turn.session:02d}{turn.name.split('_')[-1][0]}" for turn in turns}
    genders = {speaker: {"F": "female", "M": "male"}[speaker[-1]] for speaker in speakers.values()}

    def write(root: Path, rng: Rng | None) -> None:
        iemocap_files.write_iemocap(root, turns, copies, Pen(rng=rng))

    return Case("iemocap", write, rows, speakers, genders, spoil)


def _msp_improv(file: str) -> Case:
    turns = msp_improv_files.simulate(seed=1)
    rows = [
        {**row, "modality": "both", "also_primary": [], "is_self_report": False}
        for row in msp_improv_files.expected_ratings(turns)
    ]

    def write(root: Path, rng: Rng | None) -> None:
        msp_improv_files.write_improv(root, turns, file, Pen(rng=rng))

    def spoil(root: Path) -> list[str]:
        bad = ("900; Happy; Sad; A:1.0; V:2.0; D:3.0; N:x;", "900; Happy; A:1.0; V:2.0; D:1.0; N:1.0;")
        return insert_lines(root / file, (2, 4), bad)

    speakers = {f"MSP-{turn.name}": turn.name.split("-")[2] for turn in turns}
    genders = {speaker: {"F": "female", "M": "male"}[speaker[0]] for speaker in speakers.values()}
    return Case("msp_improv", write, rows, speakers, genders, spoil)


def _crema_d(layout: str, with_responses: bool) -> Case:
    words = test_crema_d.crema_d_votes.CLASS_OF_LETTER
    modality = {1: "voice", 2: "face", 3: "both"}
    rows = []
    for name, query, letters in test_crema_d.cells():
        # Counts come in the order of the letters, responses as they were given.
        for number, letter in enumerate(letters if with_responses else sorted(letters)):
            rater = f"R{number}" if with_responses else f"anon-{modality[query]}-{number}"
            rows.append(
                {"utterance": name, "modality": modality[query], "rater": rater, "primary": words[letter],
                 "secondary": [], "also_primary": [], "is_self_report": False, "valence": None, "activation": None,
                 "dominance": None, "intensity": 10.0 * ("ADFHNS".index(letter) + 1)}
            )  # fmt: skip

    def write(root: Path, rng: Rng | None) -> None:
        test_crema_d.make_corpus(root, layout, slow=[("1001_DFA_ANG_XX", 1)], with_responses=with_responses)
        for path in root.rglob("*.csv") if rng is not None else ():
            frame = pl.read_csv(path, infer_schema=False)
            order = rng.permutation(frame.width).tolist()
            frame = frame[rng.permutation(frame.height).tolist()]
            header = [frame.columns[i] for i in order]
            test_crema_d.write_csv(path, header, frame.select(header).rows())

    def spoil(root: Path) -> list[str]:
        [path] = root.rglob("finishedResponses.csv" if with_responses else "tabulatedVotes.csv")
        return insert_lines(path, (2, 5), ("1,2,3", '"x","y"'))

    speakers = {name: name[:4] for name in test_crema_d.VOICE}
    genders = {actor: sex.lower() for actor, _, sex in test_crema_d.ACTORS}
    return Case("crema_d", write, rows, speakers, genders, spoil)


def _simulated() -> Case:
    names = [f"{'U' if i >= 6 else 'S'}{i % 6:03d}" for i in range(10)]
    genders = {name: "unknown" if name[0] == "U" else ("female", "male")[i % 2] for i, name in enumerate(names)}
    policies = {"num_speakers": 6, "utterances_per_speaker": 1}
    return Case("simulated", lambda root, rng: None, None, {f"{n}_000": n for n in names}, genders, None, policies)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence], rng: Rng | None) -> None:
    """CSV, JSON lines or Parquet by the suffix. Lists are joined by commas in CSV."""
    rows = [list(row) for row in rows]
    if rng is not None:
        own = collections.defaultdict(list)
        for row in rows:
            own[tuple(map(str, row[:2]))].append(row)
        keys = [tuple(map(str, rows[i][:2])) for i in rng.permutation(len(rows))]
        rows = [own[key].pop(0) for key in keys]
        order = rng.permutation(len(header))
        header, rows = [header[i] for i in order], [[row[i] for i in order] for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        plain = [[",".join(cell) if isinstance(cell, list) else cell for cell in row] for row in rows]
        Pen().table(path, header, plain)
    elif path.suffix == ".jsonl":
        Pen().write(path, "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows))
    else:
        columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
        pl.DataFrame(columns).write_parquet(path)


def table_ratings(turns: Sequence[msp_podcast_files.Turn]) -> list[list]:
    return [
        [turn.name, a.rater, a.primary, list(a.secondary), a.activation, a.valence, a.dominance]
        for turn in turns
        for a in turn.answers
    ]


def write_table_corpus(root: Path, turns, suffix: str, with_people: bool = True, rng: Rng | None = None) -> None:
    """`ratings` and, unless their columns go to the ratings, `utterances`, and `corpus.json`."""
    facts = {turn.name: [f"wav/{turn.name}.wav", turn.speaker, turn.gender, turn.split, "warm"] for turn in turns}
    people = ("audio", "speaker", "gender", "split", "mood")
    header = ["utterance", "rater", "primary", "secondary", "arousal", "valence", "dominance"]
    rows = table_ratings(turns)
    if with_people:
        _write_table(root / f"utterances{suffix}", ("id", *people), [[name, *own] for name, own in facts.items()], rng)
    else:
        header, rows = [*header, *people], [[*row, *facts[row[0]]] for row in rows]
    _write_table(root / f"ratings{suffix}", header, rows, rng)
    spans = dict.fromkeys(("valence", "arousal", "dominance"), (1, 7))
    Pen().write(root / "corpus.json", json.dumps({"corpus": "mine", "release": "3", "attribute_ranges": spans}))


def _table(suffix: str, with_people: bool = True) -> Case:
    turns = msp_podcast_files.simulate(seed=5)
    rows = [
        {"utterance": turn.name, "modality": "voice", "rater": a.rater, "primary": our_word(a.primary),
         "secondary": [our_word(word) for word in a.secondary], "also_primary": [], "is_self_report": False,
         "valence": a.valence, "activation": a.activation, "dominance": a.dominance}
        for turn in turns for a in turn.answers
    ]  # fmt: skip

    def spoil(root: Path) -> list[str]:
        path = root / f"ratings{suffix}"
        bad = {".csv": ("a,b,c", '"never closed'), ".jsonl": ("{broken", "[1, 2]")}[suffix]
        return insert_lines(path, (3, 6), bad)

    speakers = {turn.name: turn.speaker.replace("Unknown", "unknown") for turn in turns}
    genders = {speakers[turn.name]: turn.gender.lower() for turn in turns}

    def write(root: Path, rng: Rng | None) -> None:
        write_table_corpus(root, turns, suffix, with_people, rng)

    return Case("table", write, rows, speakers, genders, None if suffix == ".parquet" else spoil)


def _table_counts() -> Case:
    turns = msp_podcast_files.simulate(seed=6)
    words = ("Angry", "Sadness", "happy", "Surprise", "Fear", "Disgust", "Contempt", "Neutral")
    rows, cells = [], []
    for turn in turns:
        votes = collections.Counter(our_word(a.primary).split("-")[0] for a in turn.answers)
        own = [votes[{"sadness": "sad"}.get(word.lower(), word.lower())] for word in words]
        cells.append([turn.name, turn.speaker, turn.gender, turn.split, *own, votes["other"]])
        chosen = [w.lower().replace("sadness", "sad") for w, n in zip(words, own, strict=True) for _ in range(n)]
        for word in [*chosen, *["other"] * votes["other"]]:
            rows.append(
                {"utterance": turn.name, "modality": "voice", "primary": word, "secondary": [], "also_primary": [],
                 "is_self_report": False, "valence": None, "activation": None, "dominance": None}
            )  # fmt: skip
    header = ("id", "speaker", "gender", "split", *(f"count::{word}" for word in words), "num_other_annotations")

    def write(root: Path, rng: Rng | None) -> None:
        _write_table(root / "utterances.csv", header, cells, rng)

    speakers = {turn.name: turn.speaker.replace("Unknown", "unknown") for turn in turns}
    genders = {speakers[turn.name]: turn.gender.lower() for turn in turns}
    return Case("table", write, rows, speakers, genders)


CASES = {
    "simulated": _simulated(),
    "crema_d-counts": _crema_d("official", with_responses=False),
    "crema_d-subset": _crema_d("subset", with_responses=False),
    "crema_d-responses": _crema_d("official", with_responses=True),
    **{f"msp_podcast-{name}": _msp_podcast(name, ("csv", "json", "txt")) for name in msp_podcast_files.RELEASES},
    "msp_podcast-json": _msp_podcast("1.7", ("json",)),
    "msp_podcast-txt": _msp_podcast("1.8", ("txt",)),
    "iemocap-dialogues": _iemocap(copies=False),
    "iemocap-copies": _iemocap(copies=True),
    "msp_improv-Evalution": _msp_improv("Evalution.txt"),
    "msp_improv-Evaluation": _msp_improv("Evaluation.txt"),
    **{f"table{suffix}": _table(suffix) for suffix in (".csv", ".jsonl", ".parquet")},
    "table-one_file": _table(".csv", with_people=False),
    "table-counts": _table_counts(),
}  # fmt: skip
