"""Bad tables and folders of corpora: each is ingested and validated, and both must say what is wrong."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from tests.system.bad_inputs import RATINGS, UTTERANCES, Case, Place


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


def _u(old: str, new: str) -> dict[str, str]:
    return {"utterances__csv": _replaced(UTTERANCES, old, new)}


def _r(old: str, new: str) -> dict[str, str]:
    return {"ratings__csv": _replaced(RATINGS, old, new)}


def _counts(header: str, row: str) -> dict[str, str | None]:
    """Votes in the table of utterances: a header and a row behind those of the good table."""
    lines = UTTERANCES.splitlines()
    cells = [header, *[row] * (len(lines) - 1)]
    return {
        "ratings__csv": None,
        "utterances__csv": "\n".join(map(",".join, zip(lines, cells, strict=True))) + "\n",
        "corpus__json": "{}",
    }


def _about(text: str) -> dict[str, str]:
    return {"corpus__json": text}


def _lines(second: str) -> dict[str, str | None]:
    """Ratings as JSON lines, the first of which is good."""
    return {"ratings__csv": None, "ratings__jsonl": '{"utterance": "a1", "primary": "sad"}\n' + second}


# What is wrong -> the files, and what must be said of them.
TABLES: dict[str, tuple[dict[str, str | bytes | None], str]] = {
    "no column utterance": (_r("utterance", "turn"), "no column utterance; found turn"),
    "no column id": (_u("id,", "name,"), "no column id; found name"),
    "column twice": (_r("rater,primary", "primary,primary"), "primary"),
    "label under another name": (_r("primary,valence", "emotion,note"), "rename it to primary"),
    "no label at all": ({"ratings__csv": "utterance,ttr\na1,3\n"}, "is a label"),
    "empty ratings": ({"ratings__csv": ""}, r"ratings\.csv"),
    "ratings of a header only": ({"ratings__csv": "utterance,rater,primary,valence\n"}, "no such ratings|none at all"),
    "unknown word": (_r("angry", "bliss"), "'bliss' x 1"),
    "pointer of Git LFS": ({"ratings__csv": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}, "LFS"),
    "Latin-1": ({"ratings__csv": RATINGS.replace("r1", "Jörg").encode("latin-1")}, "UTF-8"),
    "UTF-16 cut off": ({"ratings__csv": RATINGS.encode("utf-16")[:-1]}, "UTF-16"),
    "NUL": ({"ratings__csv": RATINGS.replace("sad", "s\0d").encode()}, r"ratings\.csv|s.?d"),
    "quote never closed": (_r("a1,r2,sad", 'a1,"r2,sad'), r"ratings\.csv:3"),
    "too many cells": (_r("a1,r2,sad,3", "a1,r2,sad,3,4"), r"ratings\.csv:3"),
    "too few cells": (_r("a1,r2,sad,3", "a1,r2"), r"ratings\.csv:3"),
    "no utterance": (_r("a1,r2", ",r2"), r"ratings\.csv:3: no utterance"),
    "utterance of nobody": (_r("a1,r2", "zz,r2"), "no row describes"),
    "utterance in other case": (_r("a1,r2", "A1,r2"), "no row describes"),
    "valence out of range": (_r("angry,2", "angry,9"), r"valence 9 is outside 1 to 5"),
    "valence in words": (_r("angry,2", "angry,high"), r"ratings\.csv:2.*high"),
    "valence infinite": (_r("angry,2", "angry,inf"), r"ratings\.csv:2"),
    "commas and points": (
        {"ratings__csv": RATINGS.replace("angry,2", 'angry,"2,5"').replace(",3\n", ",3.5\n")},
        "decimal points",
    ),
    "unknown modality": (
        {"ratings__csv": "utterance,primary,modality\na1,sad,smell\na2,sad,voice\n"},
        "modality is 'smell'",
    ),
    "no flag": (
        {"ratings__csv": "utterance,primary,is_self_report\na1,sad,maybe\na2,sad,no\n"},
        "neither true nor false",
    ),
    "arousal and activation": ({"ratings__csv": "utterance,arousal,activation\na1,1,2\n"}, "mean the same"),
    "id twice": (_u("a2,wav/a2", "a1,wav/a2"), "the id 'a1', which line 2 has"),
    "no id": (_u("a2,wav/a2", ",wav/a2"), r"utterances\.csv:3: no id"),
    "unknown split": (_u("male,train", "male,holdout"), "unknown splits holdout"),
    "unknown gender": (_u("anna,female", "anna,robot"), "unknown genders: 'robot'"),
    "speaker in two splits": (_u("bea,", "anna,"), "anna"),
    "speaker of two genders": (_u("adam,male", "anna,male"), "anna"),
    "speakers that differ in case": (_u("adam,male", "Anna,male"), "Anna"),
    "audio is not there": (_u("wav/a1.wav", "wav/no.wav"), "missing"),
    "audio is a folder": (_u("wav/a1.wav", "wav"), "unreadable"),
    "audio has a NUL": (_u("wav/a1.wav", "a\0b.wav"), "missing|NUL"),
    "audio elsewhere": (_u("wav/a1.wav", "/nowhere/a1.wav"), "missing"),
    "one recording twice": (_u("wav/a2.wav", "wav/a1.wav"), "duplicate_audio"),
    "no audio at all": (
        {"utterances__csv": "id,speaker\na1,anna\na2,adam\n"},
        "no utterance has audio|audio_not_given",
    ),
    "corpus.json is no JSON": (_about("{"), r"corpus\.json cannot be read"),
    "corpus.json is a list": (_about("[]"), r"corpus\.json: must be an object"),
    "corpus.json, unknown key": (_about('{"name": "x"}'), "no other keys than"),
    "corpus.json, class set": (_about('{"class_set": "emo9"}'), "emo9"),
    "corpus.json, one class": (_about('{"class_set": ["sad"]}'), "class_set is"),
    "corpus.json, class twice": (_about('{"class_set": ["sad", "sadness"]}'), "names a class twice"),
    "corpus.json, nested": (_about("[" * 100_000), r"corpus\.json"),
    "no range": (_about("{}"), "gives no range of valence"),
    "range backwards": (_about('{"attribute_ranges": {"valence": [5, 1]}}'), "valence"),
    "range of one": (_about('{"attribute_ranges": {"valence": [5]}}'), "two numbers"),
    "range in words": (_about('{"attribute_ranges": {"valence": "1-5"}}'), "two numbers"),
    "range of NaN": (_about('{"attribute_ranges": {"valence": [1, NaN]}}'), "two numbers"),
    "range of something else": (_about('{"attribute_ranges": {"valence": [1, 5], "anger": [1, 5]}}'), "anger"),
    "two formats": ({"ratings__jsonl": "{}\n"}, "are both there"),
    "only a spreadsheet": ({"ratings__csv": None, "utterances__csv": None, "ratings__xlsx": b"PK"}, r"ratings\.xlsx"),
    "JSON lines, no object": (_lines("[1]"), r"ratings\.jsonl:2: no JSON object"),
    "JSON lines, cut off": (_lines('{"utter'), r"ratings\.jsonl:2: no JSON object"),
    "JSON lines, nested": (_lines("[" * 100_000), r"ratings\.jsonl:2"),
    "Parquet is text": (
        {"ratings__csv": None, "ratings__parquet": b"utterance,primary"},
        r"ratings\.parquet cannot be read",
    ),
    "below 0": (_counts("count::angry,count::sad", "-1,2"), "-1, below 0"),
    "parts of votes": (_counts("count::angry,count::sad", "0.5,2"), "no whole number"),
    "1e12 votes": (_counts("count::angry,count::sad", "1e12,2"), "1e12|1000000000000"),
    "votes in words": (_counts("count::angry,count::sad", "two,2"), "two"),
    "unknown class": (_counts("count::bliss,count::sad", "1,2"), "bliss"),
    "class twice": (_counts("count::anger,count::angry", "1,2"), "same class"),
    "counts and shares": (_counts("count::angry,share::sad", "1,0.5"), "of one kind"),
    "neither": (_counts("note", "x"), "takes columns count::CLASS or share::CLASS"),
    "shares of half": (_counts("share::angry,share::sad", "0.5,0"), "sum to 0.5"),
    "some in percent": (_counts("share::angry,share::sad", "50%,0.5"), "percent"),
    "raters in words": (_counts("share::angry,share::sad,num_raters", "0.5,0.5,many"), "many"),
    "no rater": (_counts("share::angry,share::sad,num_raters", "0.5,0.5,0"), "below 1"),
    "votes for no agreement": (_counts("count::angry,count::no_agreement", "1,1"), "no_agreement"),
    "two speakers": ({"utterances__csv": "id,audio,speaker\na1,wav/a1.wav,anna\na2,wav/a2.wav,adam\n"}, "speaker"),
    "a single split": (
        {"utterances__csv": UTTERANCES.replace("test", "train").replace("development", "train")},
        "no split|missing_split",
    ),
    "all too long for a cell": (_r("a1,r2,sad", f"a1,{'r' * 200_000},sad"), "r{20}|kept 6 of 6|31 checks"),
}

PARSERS = ("crema_d", "iemocap", "msp_improv", "msp_podcast", "table")


FLAGS = {
    "--config.data.word_map=('sad',)": "must read WORD=CLASS",
    "--config.data.word_map=('sad=bliss',)": "must read WORD=CLASS",
    "--config.data.word_map=('=sad',)": "must read WORD=CLASS",
    "--config.data.modality=face": "no such ratings",
    "--config.data.split_kind=session": "session",
    "--config.data.split_kind=published": "published",
    "--config.data.split_kind=kfold": "speaker|fold",
    "--config.data.min_seconds=2": "too_short|no usable",
    "--config.data.slow_clicks=in": "means nothing for corpus table",
    "--config.data.on_bad_audio=error --config.data.min_seconds=1": "too_short",
}


def _table(files: dict[str, str | bytes | None]) -> Callable[[Place], list[str]]:
    return lambda place: place.corpus(**files)


def _root(parser: str, what: str) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        root = place.folder / "root"
        if what == "an empty folder":
            root.mkdir()
        elif what == "a file":
            root.write_text("text")
        recipe = f"--config=configs/{parser}.py"
        given = [] if what == "not given" else [f"--config.corpus.root={root}"]
        return [recipe, *given, f"--workdir={place.folder / 'w'}"]

    return make


def _parquet(place: Place) -> list[str]:
    arguments = place.corpus(ratings__csv=None)
    path = place.folder / "corpus" / "ratings.parquet"
    pq.write_table(pa.table({"utterance": ["a1"], "primary": ["sad"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    return arguments


def cases() -> Iterator[Case]:
    """Every bad table, given to ingest and to validate; every corpus from a folder that is not its own."""
    for launcher in ("ingest", "validate"):
        for name, (files, word) in TABLES.items():
            yield Case("table", name, launcher, _table(files), word)
        yield Case("table", "Parquet cut off", launcher, _parquet, r"ratings\.parquet cannot be read")
        for flag, word in FLAGS.items():
            yield Case("table", flag, launcher, lambda place, flag=flag: [*place.corpus(), *flag.split(" ")], word)
        for parser in PARSERS:
            for what, word in (
                ("an empty folder", "root"),
                ("no folder", "root"),
                ("a file", "root"),
                ("not given", r"corpus\.root"),
            ):
                yield Case("corpus", f"{parser}: {what}", launcher, _root(parser, what), word)
