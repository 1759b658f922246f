"""Writes MSP-Podcast's label files from simulated ratings: every release's layout, spelling and oddity."""

import collections
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

WORDS = ("Angry", "Sad", "Happy", "Surprise", "Fear", "Disgust", "Contempt", "Neutral")
CODES = dict(zip(WORDS, "ASHUFDCN", strict=True))
NOUNS = dict(
    zip(WORDS, ("Anger", "Sadness", "Happiness", "Surprise", "Fear", "Disgust", "Contempt", "Neutral"), strict=True)
)
OURS = dict(zip(WORDS, ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral"), strict=True))
ALSO = ("Amused", "Annoyed", "Concerned", "Confused", "Depressed", "Dissapointed", "Excited", "Frustrated")
FREE_TEXTS = ("bored; tired", 'says "hm"', "sad/angry", "a, b, (c)", "50 %", "ironisch – müde", "A:5; V:3; D:2;")


class Answer(NamedTuple):
    rater: str
    primary: str
    secondary: tuple[str, ...]
    valence: int
    activation: int
    dominance: int


class Turn(NamedTuple):
    name: str
    speaker: str
    gender: str
    split: str
    answers: tuple[Answer, ...]


class Release(NamedTuple):
    """How one release spells and lays out its files."""

    layout: str  # of labels_detailed.csv: columns or answers
    spelling: str
    folder: str
    development: str
    labels_txt: str = "labels.txt"
    partitions: str = "Partitions.txt"
    has_test3: bool = False
    has_aggregated: bool = False


RELEASES = {
    "1.6": Release("columns", "concensus", "label", "Validation", "", "Partition.txt"),
    "1.7": Release("answers", "concensus", "Labels", "Validation"),
    "1.8": Release("answers", "concensus", "Labels", "Validation", "Labels.txt"),
    "1.9": Release("answers", "concensus", "labels", "Validation"),
    "1.10": Release("answers", "consensus", "Labels", "Validation"),
    "1.11": Release("answers", "consensus", "Labels", "Development", has_test3=True),
    "1.12": Release("answers", "consensus", "Labels", "Development", has_test3=True),
    "2.0": Release("columns", "consensus", "Labels", "Development", has_test3=True, has_aggregated=True),
}


def simulate(seed: int = 0, num_utterances: int = 24, has_test3: bool = False) -> list[Turn]:
    """Turns with repeated raters, free text, unknown speakers, and Test3 without answers where there is one."""
    rng = np.random.default_rng(seed)
    splits = ["Train", "Train", "Train", "Development", "Test1", "Test2", *(["Test3"] if has_test3 else [])]
    turns = []
    for number in range(num_utterances):
        split = splits[number % len(splits)]
        person = 10 * (number % len(splits)) + int(rng.integers(2)) + 1
        is_unknown = split == "Train" and number % 4 == 0
        answers = []
        for _ in range(0 if split == "Test3" else rng.integers(5, 8)):
            word = str(rng.choice(WORDS, p=(0.15, 0.1, 0.25, 0.05, 0.03, 0.04, 0.08, 0.3)))
            if rng.random() < 0.15:
                word = f"Other-{rng.choice(FREE_TEXTS)}"
            also = tuple(rng.choice([*WORDS, *ALSO, "Other"], rng.integers(4), replace=False).tolist())
            rater = f"WORKER{rng.integers(1, 40):05d}"
            answers.append(Answer(rater, word, also, *(int(value) for value in rng.integers(1, 8, 3))))
        if number % 5 == 0 and answers:
            # A rater who answers twice, the second time otherwise.
            answers.append(answers[0]._replace(primary="Neutral", valence=8 - answers[0].valence))
        turns.append(
            Turn(
                f"MSP-PODCAST_{number // 7:04d}_{number:04d}",
                "Unknown" if is_unknown else str(person),
                "Unknown" if is_unknown else ("Male", "Female")[person % 2],
                split,
                tuple(answers),
            )
        )
    return turns


def consensus_of(turn: Turn) -> str:
    """The corpus's own rule: free text pooled first, ties X."""
    votes = collections.Counter(CODES.get(answer.primary, "O") for answer in turn.answers)
    best = [code for code, number in votes.items() if number == max(votes.values())]
    return best[0] if len(best) == 1 else "X"


def means_of(turn: Turn) -> dict[str, float]:
    return {
        name: float(np.mean([getattr(answer, name) for answer in turn.answers]))
        for name in ("valence", "activation", "dominance")
    }


def answer_text(answer: Answer) -> str:
    also = ",".join(answer.secondary)
    numbers = f"A:{answer.activation}; V:{answer.valence}; D:{answer.dominance};"
    return f"{answer.rater}; {answer.primary}; {also}; {numbers}"


class Pen:
    """Writes text as UTF-8 with the line ends and byte order mark asked for; with `rng` it shuffles tables."""

    def __init__(self, line_end: str = "\n", bom: bool = False, rng: np.random.Generator | None = None):
        self.line_end, self.bom, self.rng = line_end, bom, rng

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(("\ufeff" * self.bom + text.replace("\n", self.line_end)).encode())

    def table(
        self, path: Path, header: Sequence[str], rows: Sequence[Sequence], key=lambda row: tuple(row[:2])
    ) -> None:
        """Columns and rows come in any order, but rows of one key in their own: a later answer stays the later."""
        order = np.arange(len(header)) if self.rng is None else self.rng.permutation(len(header))
        if self.rng is not None:
            places = self.rng.permutation(len(rows))
            own = collections.defaultdict(list)
            for place in sorted(places):
                own[key(rows[place])].append(rows[place])
            rows = [own[key(rows[place])].pop(0) for place in places]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[row[i] for i in order] for row in (header, *rows)])
        self.write(path, text.getvalue())


def write_release(
    root: Path,
    turns: Sequence[Turn],
    release: str = "1.7",
    sources: Sequence[str] = ("csv", "json", "txt"),
    consensus: Sequence[str] = ("csv", "json"),
    with_lists: bool = True,
    pen: Pen | None = None,
) -> Path:
    """Writes the label files of a release: single ratings in `sources`, what was released in `consensus`."""
    how, pen = RELEASES[release], pen or Pen()
    turns = [turn._replace(split=how.development if turn.split == "Development" else turn.split) for turn in turns]
    labels = root / how.folder
    labelled = [turn for turn in turns if turn.answers]
    if "csv" in consensus:
        header = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
        pen.table(labels / f"labels_{how.spelling}.csv", header, [consensus_row(turn) for turn in labelled])
    if "json" in consensus:
        keys = ("EmoClass", "EmoAct", "EmoDom", "EmoVal", "SpkrID", "Gender", "Split_Set")
        pen.write(labels / f"labels_{how.spelling}.json", json.dumps(consensus_tree(labelled, keys, pen.rng)))
    if "csv" in sources and how.layout == "columns":
        header = ("FileName", "Workers", "EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
        rows = [
            (f"{turn.name}.wav", a.rater, a.primary, ",".join(a.secondary), a.activation, a.valence, a.dominance)
            for turn in labelled
            for a in turn.answers
        ]
        pen.table(labels / "labels_detailed.csv", header, rows)
    elif "csv" in sources:
        rows = [(f"{turn.name}.wav", answer_text(answer)) for turn in labelled for answer in turn.answers]
        pen.table(
            labels / "labels_detailed.csv", ("FileName", "EmoDetail"), rows, lambda row: (row[0], row[1].split(";")[0])
        )
    if "json" in sources:
        pen.write(labels / "labels_detailed.json", detailed_json(labelled))
    if "txt" in sources and how.labels_txt:
        pen.write(labels / how.labels_txt, "\n".join(block_text(turn) for turn in labelled))
    if how.has_aggregated:
        write_aggregated(labels / "labels_detailed_aggregated.csv", labelled, pen)
    if with_lists:
        write_lists(root, turns, how, pen)
    return root


def write_aggregated(path: Path, turns: Sequence[Turn], pen: Pen) -> None:
    rows = []
    for turn in turns:
        votes = collections.Counter(answer.primary for answer in turn.answers)
        own = [votes[word] for word in WORDS]
        rows.append((f"{turn.name}.wav", *own, votes.total() - sum(own)))
    pen.table(path, ("FileName", *(f"count::{NOUNS[word]}" for word in WORDS), "num_other_annotations"), rows)


def consensus_row(turn: Turn) -> list:
    means = means_of(turn)
    released = [means["activation"], means["valence"], means["dominance"]]
    return [f"{turn.name}.wav", consensus_of(turn), *released, turn.speaker, turn.gender, turn.split]


def consensus_tree(turns: Sequence[Turn], keys: Sequence[str], rng: np.random.Generator | None) -> dict:
    tree = {}
    for turn in turns:
        name, code, activation, valence, dominance, speaker, gender, split = consensus_row(turn)
        cells = {"EmoClass": code, "EmoAct": activation, "EmoVal": valence, "EmoDom": dominance}
        cells |= {"SpkrID": speaker, "Gender": gender, "Split_Set": split}
        order = keys if rng is None else rng.permutation(keys).tolist()
        tree[name] = {key: cells[key] for key in order}
    return tree


def detailed_json(turns: Sequence[Turn]) -> str:
    """Written by hand, as a rater who answered twice is a key that stands there twice."""
    files = []
    for turn in turns:
        raters = []
        for answer in turn.answers:
            cells = {"EmoClass_Major": answer.primary, "EmoClass_Second": ",".join(answer.secondary)}
            cells |= {"EmoAct": answer.activation, "EmoDom": answer.dominance, "EmoVal": answer.valence}
            raters.append(f"{json.dumps(answer.rater)}: {json.dumps(cells)}")
        files.append(f"{json.dumps(turn.name + '.wav')}: {{{', '.join(raters)}}}")
    return "{" + ",\n".join(files) + "}"


def block_text(turn: Turn) -> str:
    means = means_of(turn)
    numbers = f"A:{means['activation']:.1f}; V:{means['valence']:.1f}; D:{means['dominance']:.1f};"
    lines = [f"{turn.name}.wav; {consensus_of(turn)}; {numbers}", *(answer_text(answer) for answer in turn.answers)]
    return "\n".join(lines) + "\n"


def write_lists(root: Path, turns: Sequence[Turn], how: Release, pen: Pen) -> None:
    people = {turn.speaker: turn.gender for turn in turns if turn.speaker != "Unknown"}
    lines = [f"Speaker_{speaker}; {gender}" for speaker, gender in sorted(people.items())]
    lines += [f"{turn.name}.wav; {turn.speaker}" for turn in turns]
    pen.write(root / "Speaker_ids.txt", "\n".join(lines) + "\n")
    pen.write(root / how.partitions, "".join(f"{turn.split}; {turn.name}.wav\n" for turn in turns))


def write_msp_podcast(folder: Path, num_utterances: int, layout: str, seed: int = 0) -> int:
    """Writes a corpus of any size in seconds, in the layout `columns` (2.0) or `answers` (1.12); returns its ratings.

    Five to seven raters an utterance, consensus and means by the corpus's rules, speakers disjoint over splits.
    """
    how = RELEASES[{"columns": "2.0", "answers": "1.12"}[layout]]
    labels = folder / how.folder
    labels.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    split = np.array(("Train", "Development", "Test1", "Test2"))[
        rng.choice(4, num_utterances, p=(0.63, 0.13, 0.18, 0.06))
    ]
    person = rng.integers(1, 600, num_utterances) + 1000 * np.unique(split, return_inverse=True)[1]
    utterances = pl.DataFrame({"number": np.arange(num_utterances), "split": split, "speaker": person})
    utterances = utterances.with_columns(
        pl.format("MSP-PODCAST_{}_{}.wav", (pl.col("number") // 100).cast(str).str.zfill(4), "number").alias("file"),
        pl.when(pl.col("speaker") % 2 == 0).then(pl.lit("Male")).otherwise(pl.lit("Female")).alias("gender"),
    )
    owner = np.repeat(np.arange(num_utterances), rng.integers(4, 8, num_utterances))
    words = np.array([*WORDS, *(f"Other-{text}" for text in FREE_TEXTS[1:4])])
    share = np.array((0.15, 0.1, 0.25, 0.05, 0.03, 0.04, 0.08, 0.27, 0.01, 0.01, 0.01))
    also = np.array(["", "Happy", "Sad,Depressed", "Annoyed,Angry", "Concerned,Confused,Other"])
    ratings = pl.DataFrame(
        {
            "number": owner,
            "rater": rng.integers(1, 15_000, len(owner)),
            "primary": words[rng.choice(len(words), len(owner), p=share)],
            "secondary": also[rng.integers(len(also), size=len(owner))],
            **{name: rng.integers(1, 8, len(owner)) for name in ("EmoAct", "EmoVal", "EmoDom")},
        }
    ).with_columns(pl.format("WORKER{}", pl.col("rater").cast(str).str.zfill(5)).alias("rater"))
    ratings = ratings.join(utterances.select("number", FileName="file"), on="number", maintain_order="left")
    if layout == "columns":
        detailed = ratings.select(
            "FileName", pl.col("rater").alias("Workers"), EmoClass_Major="primary", EmoClass_Second="secondary",
            EmoAct="EmoAct", EmoVal="EmoVal", EmoDom="EmoDom",
        )  # fmt: skip
    else:
        parts = ("rater", "primary", "secondary", "EmoAct", "EmoVal", "EmoDom")
        detailed = ratings.select("FileName", pl.format("{}; {}; {}; A:{}; V:{}; D:{};", *parts).alias("EmoDetail"))
    detailed.write_csv(labels / "labels_detailed.csv")
    code = pl.col("primary").replace_strict(CODES, default="O")
    votes = ratings.with_columns(code.alias("code")).group_by("number", "code").len()
    best = votes.filter(pl.col("len") == pl.col("len").max().over("number"))
    won = best.group_by("number").agg(pl.when(pl.len() == 1).then(pl.col("code").first()).otherwise(pl.lit("X")))
    means = ratings.group_by("number").agg(pl.col("EmoAct", "EmoVal", "EmoDom").mean())
    consensus = utterances.join(won, on="number").join(means, on="number").sort("number")
    consensus.select(
        FileName="file", EmoClass="code", EmoAct="EmoAct", EmoVal="EmoVal", EmoDom="EmoDom", SpkrID="speaker",
        Gender="gender", Split_Set="split",
    ).write_csv(labels / f"labels_{how.spelling}.csv")  # fmt: skip
    lines = utterances.select(pl.format("{}; {}", "split", "file")).to_series()
    (folder / how.partitions).write_text("\n".join(lines) + "\n")
    return ratings.height
