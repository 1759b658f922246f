"""CREMA-D: acted English sentences, rated by many from the voice, the face, or both.

Reads the official repository (`AudioWAV/`, `finishedResponses.csv`, `processedResults/`) and the subset of this project
(`audio/<actor>/`, `clips.csv`, `labels/`). LABELS.md, section 3, has the formats and their traps: the acted emotion,
the votes by voice, by face and by both are four different labels; a mean level of -1 says that nobody chose that
emotion; and raters heard damaged copies of a few recordings.
"""

import collections
import os
from pathlib import Path

import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.folders import printable, walk
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data.audio_containers import FOREIGN_SUFFIXES, SUFFIXES
from seremo_jax.data.corpora.crema_d_votes import (
    NAME,
    Vote,
    read_responses,
    read_summary,
    read_tabulated,
    slow_questions_of,
    utterance_name,
)
from seremo_jax.data.tables import make_table, with_report
from seremo_jax.data.text_lines import CorpusError, Report, csv_rows

CLASS_OF_CODE = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
LEVEL_OF_CODE = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
HEARD_FAULTY = ("1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX")
"""Raters heard damaged copies of these (KNOWN: issue 8 of the official repository). Kept, and counted."""

_FULL = {"speakers": 91, "utterances": 7442}


def parse(root: str | os.PathLike, *, slow_clicks: str = "out", is_quiet: bool = False) -> tuple[pa.Table, pa.Table]:
    """Utterances and ratings, of all three modalities.

    `released_consensus` is that of the voice, `released_consensus_face` and `released_consensus_both` are the others'.

    Single responses are used where `finishedResponses.csv` is complete and, if slow clicks are to be left out, the
    times of the first clicks are there (`finishedEmoResponses.csv`). Otherwise the counts of `tabulatedVotes.csv`, from
    which the authors left slow clicks out, become anonymous ratings; `anon-voice-0` of two utterances are two people.
    Where there are single responses only, their whole response time stands in for the first click, and too many are
    left out (on the excerpt of the shared data 34 of 301 where the authors left out 11).

    Args:
      root: Folder of the corpus.
      slow_clicks: `out` leaves out responses whose first click took over 10 s, `in` keeps them.
      is_quiet: Prints nothing; this parser never does.

    Raises:
      CorpusError: A file or column is missing, or the files do not hold what was asked for.
    """
    del is_quiet
    root, report = Path(root), Report()
    votes, source = _read_votes(root, slow_clicks, report)
    audio = _find_audio(root, report)
    demographics = _read_demographics(_require(root, "VideoDemographics.csv"), report)
    voted = {vote.utterance for vote in votes}
    ids = sorted(voted | audio.keys())
    speakers = {name[:4] for name in ids}
    is_full = (len(speakers), len(voted)) == (_FULL["speakers"], _FULL["utterances"])
    release = f"{'full' if is_full else f'subset of {len(speakers)} speakers'}, {source}"
    report.counts["ratings_kept"] = len(votes)
    report.counts["heard_faulty"] = sum(name in voted for name in HEARD_FAULTY)
    info = CorpusInfo("crema_d", release, "crema6", {"intensity": (0.0, 100.0)}, notes=_notes(source))
    for actor in sorted(speakers - demographics.keys()):
        report.add("actors_not_described", f"VideoDemographics.csv has no actor {actor}: gender and age unknown")
    summary = _find(root, "summaryTable.csv")
    released = read_summary(summary, report) if summary else {}
    utterances = _utterance_table(ids, audio, demographics, released, info)
    return with_report(utterances, report), _rating_table(votes, info)


def _notes(source: str) -> tuple[str, ...]:
    notes = [
        "CREMA-D has no valence, activation or dominance ratings; its own attribute is the intensity, 0 to 100.",
        f"Raters heard damaged copies of {', '.join(HEARD_FAULTY)}; these are kept where their audio is usable.",
    ]
    if source == "tabulatedVotes":
        notes.append("Ratings come from vote counts: raters are anonymous, and a rating's intensity is the mean of all "
                     "who chose that class for that utterance.")  # fmt: skip
    return tuple(notes)


def _utterance_table(
    ids: list[str],
    audio: dict[str, str],
    demographics: dict[str, dict],
    released: dict[str, dict[str, str]],
    info: CorpusInfo,
) -> pa.Table:
    parts = [NAME.fullmatch(name).groups() for name in ids]
    people = [demographics.get(actor, {}) for actor, *_ in parts]
    columns = {
        "id": ids,
        "audio": [audio.get(name, "") for name in ids],
        "speaker": [actor for actor, *_ in parts],
        "gender": [person.get("gender", vocab.UNKNOWN) for person in people],
        "released_consensus": [released.get(name, {}).get("voice") for name in ids],
        "age": [person.get("age") for person in people],
        "race": [person.get("race") for person in people],
        "ethnicity": [person.get("ethnicity") for person in people],
        "acted_class": [CLASS_OF_CODE[code] for _, _, code, _ in parts],
        "acted_level": [LEVEL_OF_CODE[code] for _, _, _, code in parts],
        "sentence": [sentence for _, sentence, _, _ in parts],
        **{f"released_consensus_{m}": [released.get(name, {}).get(m) for name in ids] for m in ("face", "both")},
    }
    words = ("race", "ethnicity", "acted_class", "acted_level", "sentence", "released_consensus_face",
             "released_consensus_both")  # fmt: skip
    extra = [pa.field("age", pa.int32()), *(pa.field(name, pa.string()) for name in words)]
    return make_table(columns, UTTERANCE_SCHEMA, info, extra)


def _rating_table(votes: list[Vote], info: CorpusInfo) -> pa.Table:
    votes = sorted(votes, key=lambda vote: vote[:4])
    columns = {
        "utterance": [vote.utterance for vote in votes],
        "rater": [vote.rater for vote in votes],
        "modality": [vote.modality for vote in votes],
        "primary": [vote.primary for vote in votes],
        "secondary": [[] for _ in votes],
        **{name: [None] * len(votes) for name in vocab.ATTRIBUTES},
        "intensity": [vote.intensity for vote in votes],
    }
    return make_table(columns, RATING_SCHEMA, info, [pa.field("intensity", pa.float32())])


def _read_votes(root: Path, slow_clicks: str, report: Report) -> tuple[list[Vote], str]:
    """Votes and the file they come from, by the rule of `parse`."""
    if slow_clicks not in ("in", "out"):
        raise CorpusError(f"data.slow_clicks = {slow_clicks!r}: choose in or out")
    responses, clicks = _find(root, "finishedResponses.csv"), _find(root, "finishedEmoResponses.csv")
    tabulated = _find(root, "tabulatedVotes.csv")
    if responses is None and tabulated is None:
        raise CorpusError(
            f"{root} holds neither finishedResponses.csv nor processedResults/tabulatedVotes.csv: "
            "set --config.corpus.root to the folder of CREMA-D"
        )
    counted = read_tabulated(tabulated, report) if tabulated else []
    if responses and counted and slow_clicks == "out" and not clicks:
        report.problems.append(
            f"{responses.name} is not used: it takes finishedEmoResponses.csv to leave out slow first clicks. "
            "The counts of tabulatedVotes.csv are"
        )
    elif responses:
        # A report of its own, because that of a file which is then not used would not add up.
        report_of_single = Report()
        slow = slow_questions_of(clicks, report_of_single) if clicks and slow_clicks == "out" else None
        single = read_responses(responses, report_of_single, slow_clicks, slow)
        lacking = {vote[:2] for vote in counted} - {vote[:2] for vote in single}
        if not lacking:
            report.merge(report_of_single)
            if slow_clicks == "out" and not clicks:
                report.problems.append(
                    "finishedEmoResponses.csv is missing: responses are left out by their whole time, "
                    "which leaves out more than slow first clicks"
                )
            _compare(single, counted, report)
            return single, "finishedResponses"
        report.problems.append(
            f"{responses.name} is not used: it lacks {len(lacking)} utterances in a modality. "
            "The counts of tabulatedVotes.csv are"
        )
    if slow_clicks == "in":
        raise CorpusError(
            "data.slow_clicks = 'in' needs a complete finishedResponses.csv: tabulatedVotes.csv lacks slow clicks"
        )
    report.counts["ratings_read"] = len(counted)
    return counted, "tabulatedVotes"


def _compare(single: list[Vote], counted: list[Vote], report: Report) -> None:
    """Counts the cells in which the two sources of votes differ."""
    of_single, of_counts = (
        collections.Counter((vote.utterance, vote.modality, vote.primary) for vote in votes)
        for votes in (single, counted)
    )
    if counted:
        cells = of_single | of_counts
        report.counts["cells_unlike_tabulated"] = sum(of_single[cell] != of_counts[cell] for cell in cells)


def _read_demographics(path: Path, report: Report) -> dict[str, dict]:
    """Actor -> gender, age, race, ethnicity."""
    people = {}
    for where, row in csv_rows(path, ["ActorID", "Age", "Sex", "Race", "Ethnicity"], report):
        gender = row["Sex"].strip().lower()
        if gender not in vocab.GENDERS:
            report.add("genders_unknown", f"{where}: Sex is {row['Sex']!r}")
            gender = vocab.UNKNOWN
        age = int(row["Age"]) if row["Age"].isdigit() else None
        people[row["ActorID"]] = {"gender": gender, "age": age, "race": row["Race"], "ethnicity": row["Ethnicity"]}
    return people


def _find(root: Path, name: str) -> Path | None:
    folders = (root, root / "processedResults", root / "labels")
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _require(root: Path, name: str) -> Path:
    path = _find(root, name)
    if path is None:
        raise CorpusError(f"{root} has no {name} (nor labels/{name}): copy it from the official repository")
    return path


def _find_audio(root: Path, report: Report) -> dict[str, str]:
    """Utterance -> path below `root`: files that are there, and files that `clips.csv` says are there."""
    audio: dict[str, str] = {}
    for path in _audio_files(root, report):
        relative = path.relative_to(root).as_posix()
        if relative != printable(relative):
            report.add("not_readable", f"{printable(relative)}: its name is no UTF-8: rename it")
            continue
        name = utterance_name(path.stem, relative, report, "files_not_used")
        if name in audio:
            report.add("second_audio_files", f"{relative}: {name} is already read from {audio[name]}")
        elif name is not None:
            audio[name] = relative
    if (listing := root / "clips.csv").is_file():
        for where, row in csv_rows(listing, ["clip", "path"], report):
            name = utterance_name(row["clip"], where, report)
            if name is not None:
                audio.setdefault(name, row["path"])
    return audio


def _audio_files(root: Path, report: Report) -> list[Path]:
    """What may be a recording. Those that cannot be read come last, and stay, so that screening lists them."""
    files: list[Path] = []
    others: list[Path] = []
    for folder in (root / "AudioWAV", root / "audio"):
        if not os.path.lexists(folder):
            continue
        contents = walk(folder)
        files += [path for path in contents.files if path.suffix.lower() in SUFFIXES]
        others += [path for path in contents.files if path.suffix.lower() in FOREIGN_SUFFIXES]
        for path, _, detail in contents.unreadable:
            if path.suffix.lower() in (*SUFFIXES, *FOREIGN_SUFFIXES):
                others.append(path)
            else:
                report.add("not_readable", f"{printable(path.relative_to(root).as_posix())}: {detail}")
    return files + others
