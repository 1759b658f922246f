"""A file, a folder or a list of audio through a model: goes on where it was cut off, never stops for one bad file.

Beside OUT lies `OUT.journal.jsonl`, to which finished files are appended, whole and in order; OUT is made from it at
the end. Files in it whose content is the same are skipped; those that could not be used are tried again.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from seremo_jax.core.artefacts import ArtefactError, atomic_path, fingerprint_of, remove_leftovers, write_text
from seremo_jax.core.cells import disarmed
from seremo_jax.core.folders import printable, walk
from seremo_jax.core.lock import writing
from seremo_jax.core.progress import Progress
from seremo_jax.data import audio
from seremo_jax.data.audio_containers import FOREIGN_SUFFIXES, SUFFIXES
from seremo_jax.predict import timeline
from seremo_jax.predict import voices as voices_lib
from seremo_jax.predict.journal import Journal, stamp
from seremo_jax.predict.predictor import Predictor
from seremo_jax.predict.result import Result

FORMATS = ("json", "csv", "parquet")
LIST_SUFFIXES = (".txt", ".list")
_MOST_FILES, _MOST_S = 32, 600.0
"""Files, and seconds of audio, between two entries of the journal."""
_MOST_LISTED = 20


class AudioFiles(NamedTuple):
    """Audio to predict.

    Attributes:
      paths: Where each file is.
      names: What results call it: relative to the folder, or as given.
      num_ignored: Suffix -> files of a folder that are not taken for audio.
      unreadable: What else in a folder may have been audio: its name, reason and detail.
      speakers: Speaker of each file, None where not known, for models that are relative to speakers (`--speakers`). All
        files of a speaker are then heard twice: first for what the speaker sounds like.
    """

    paths: list[Path]
    names: list[str]
    num_ignored: dict[str, int]
    unreadable: Sequence[tuple[str, str, str]] = ()
    speakers: Sequence[str | None] | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
      records: Results by file, in order, as dicts.
      bad: (file, reason, detail) of those that could not be used, or (reason timeline) have a result and no timeline.
    """

    records: list[dict[str, Any]]
    bad: list[tuple[str, str, str]]


def find(source: str | os.PathLike, speakers: str | os.PathLike | None = None) -> AudioFiles:
    """The audio that `source` means: a file, all of a folder and its subfolders, or a list, one path a line.

    A list ends in .txt or .list; its paths are absolute or relative to the folder it lies in. Linked folders are
    walked, too, see `folders.walk`.

    Args:
      source: The file, folder or list.
      speakers: Who speaks, see `voices.speakers_of`.

    Raises:
      ArtefactError: There is nothing, no audio in the folder, or nothing in the list; or see `voices.speakers_of`.
    """
    found = _found(source)
    return found._replace(speakers=voices_lib.speakers_of(found.names, speakers))


def _found(source: str | os.PathLike) -> AudioFiles:
    path = Path(source)
    if path.is_dir():
        files, unreadable = walk(path)
        kept = [file for file in files if file.suffix.lower() in (*SUFFIXES, *FOREIGN_SUFFIXES)]
        if not kept and not unreadable:
            raise ArtefactError(f"{path} has no audio file ({' '.join(SUFFIXES)}) among its {len(files)} files")
        ignored = Counter(file.suffix.lower() for file in set(files).difference(kept))
        bad = [(file.relative_to(path).as_posix(), reason, detail) for file, reason, detail in unreadable]
        return AudioFiles(kept, [file.relative_to(path).as_posix() for file in kept], dict(ignored), bad)
    if path.suffix.lower() not in LIST_SUFFIXES:
        return AudioFiles([path], [os.fspath(source)], {})
    try:
        # A name may hold any byte but a line end, so one that is no UTF-8 concerns no other line.
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        lines = [line.strip() for line in text.split("\n")]
    except OSError as error:
        raise ArtefactError(f"the list {path} cannot be read: {error}") from None
    names = list(dict.fromkeys(line for line in lines if line))
    if not names:
        raise ArtefactError(f"the list {path} is empty: it should have the path of an audio file on each line")
    return AudioFiles([path.parent / name for name in names], names, {})


def run(
    predictor: Predictor,
    audio_files: AudioFiles,
    out: str | os.PathLike | None = None,
    form: str = "json",
    *,
    with_embedding: bool = False,
    with_timeline: bool = False,
    is_quiet: bool = False,
    after: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None,
) -> Outcome:
    """Predicts every file and writes OUT, and OUT.bad.csv where files could not be used.

    Args:
      predictor: The model.
      audio_files: The files.
      out: File to write; None writes nothing.
      form: Its format: json (lines), csv or parquet.
      with_embedding: Adds the embedding of every member; not for csv.
      with_timeline: Writes table and figure of each long recording to the folder OUT.timeline.
      is_quiet: Shows no progress.
      after: What becomes of the records of all files, once all are there (`speakers.together`); not with a timeline.

    Raises:
      ArtefactError: The journal beside OUT was begun with another model or other settings; another process writes OUT;
        options that contradict; or a model that is relative to speakers does not know who speaks, or another one does.
    """
    if with_embedding and form == "csv":
        raise ArtefactError("embeddings do not fit csv: choose --format json or parquet")
    if with_timeline and out is None:
        raise ArtefactError("a timeline is written beside --out: give one")
    if with_timeline and after is not None:
        raise ArtefactError("a timeline is written before all recordings are heard: leave out --timeline or the prior")
    about = {"model": predictor.identity, "windows_s": list(predictor.windows_s)}
    about |= {"with_embedding": with_embedding, "with_timeline": with_timeline}
    predictor.require_voices(audio_files.speakers is not None)
    if audio_files.speakers is not None:
        if (after or predictor.speaker) and (num := len(set(audio_files.speakers))) > 1:
            raise ArtefactError(
                f"--speakers names {num} speakers, and a model is adapted to one: leave out --enrol, --speaker and "
                "--speaker_prior, or predict speaker by speaker"
            )
        # A result depends on all files of the speaker, so another one among them begins another run.
        about["speakers"] = fingerprint_of(
            [audio_files.names, list(audio_files.speakers), [*map(stamp, audio_files.paths)]]
        )
    with contextlib.ExitStack() as stack:
        if out is not None:
            stack.enter_context(writing(out, "predict", ("", ".bad.csv", ".journal.jsonl")))
            for folder in (timelines := Path(f"{os.fspath(out)}.timeline"), *timelines.rglob("*/")):
                remove_leftovers(folder)
        entries = _entries(predictor, audio_files, out, about, is_quiet)
        bad = [(entry["file"], *entry["bad"]) for entry in entries if "bad" in entry]
        outcome = Outcome(
            [{"file": printable(entry["file"]), **entry["result"]} for entry in entries if "result" in entry],
            [(printable(file), reason, printable(detail)) for file, reason, detail in (*bad, *audio_files.unreadable)],
        )
        if after is not None and outcome.records:
            outcome = dataclasses.replace(outcome, records=after(outcome.records))
        if out is not None:
            _write(Path(out), outcome, form)
    return outcome


def _entries(
    predictor: Predictor, audio_files: AudioFiles, out: str | os.PathLike | None, about: dict[str, Any], is_quiet: bool
) -> list[dict[str, Any]]:
    """Entry of the journal for each file, those of files that have none yet added to it."""
    journal = Journal(None if out is None else Path(f"{os.fspath(out)}.journal.jsonl"), about)
    todo = [i for i, path in enumerate(audio_files.paths) if not journal.has(audio_files.names[i], path)]
    voices, speakers = None, audio_files.speakers
    if speakers is not None:
        voices = voices_lib.of_files(predictor.voice, audio_files.paths, speakers, todo, is_quiet)
    began_s, heard_s, num_bad, num = time.monotonic(), 0.0, len(audio_files.unreadable), len(audio_files.paths)
    with Progress(num, "predict", "files", done=num - len(todo), is_quiet=is_quiet) as progress:
        for some in _in_turns(todo, audio_files.paths):
            paths = [audio_files.paths[i] for i in some]
            stamps, own = [*map(stamp, paths)], voices and [voices[speakers[i]] for i in some]
            results = predictor.files(paths, voices=own, with_embedding=about["with_embedding"])
            entries = []
            for i, content, result in zip(some, stamps, results, strict=True):
                entry: dict[str, Any] = {"file": audio_files.names[i], "stamp": content}
                if isinstance(result, Result):
                    entry["result"], heard_s = to_record(result), heard_s + result.duration_s
                    if about["with_timeline"] and len(result.timeline) > 1:
                        entry |= timeline.write_beside(out, audio_files.names[i], result)
                        num_bad += "bad" in entry
                else:
                    entry["bad"], num_bad = [result.reason, result.detail], num_bad + 1
                entries.append(entry)
            journal.append(entries)
            speed = heard_s / (time.monotonic() - began_s)
            note = f"{heard_s / 3600:.2f} h of audio, {speed:.0f} x real time, {num_bad} files cannot be used"
            progress.update(len(some), note)
    return [journal.entries[name] for name in audio_files.names]


def to_record(result: Result) -> dict[str, Any]:
    """A result as plain JSON, numbers to six decimals, without its timeline."""

    def rounded(values: dict[str, float] | None) -> dict[str, float] | None:
        return values and {name: round(value, 6) for name, value in values.items()}

    record = {
        "duration_s": round(result.duration_s, 6),
        "distribution": rounded(result.distribution),
        "distribution_sd": rounded(result.distribution_sd),
        "attributes": rounded(result.attributes),
        "attributes_sd": rounded(result.attributes_sd),
        "best": list(result.ranked[:3]),
        "conformal_set": None if result.conformal_set is None else list(result.conformal_set),
        "level_dbfs": round(result.level_dbfs, 2),
        "warnings": list(result.warnings),
    }
    if result.adapted:
        record["adapted"] = result.adapted
    if result.speaker_s is not None:
        record["speaker_s"] = round(result.speaker_s, 2)
    if result.embedding is not None:
        record["embedding"] = [[round(float(value), 6) for value in row] for row in result.embedding]
    return record


def to_text(outcome: Outcome, form: str) -> str:
    """The results as JSON lines, or as CSV, in which a text that a spreadsheet would compute has an apostrophe."""
    if form == "json":
        return "".join(json.dumps(record) + "\n" for record in outcome.records)
    return _csv(to_table(outcome))


def sentences(outcome: Outcome, audio_files: AudioFiles) -> Iterator[str]:
    """What the user reads at the end."""
    warned = [(record["file"], text) for record in outcome.records for text in record.get("warnings", ())]
    yield from (f"warning: {file}: {text}" for file, text in warned[:_MOST_LISTED])
    if len(warned) > _MOST_LISTED:
        yield f"warning: {len(warned) - _MOST_LISTED} more, see the column warnings"
    ignored = sorted(audio_files.num_ignored.items())
    yield from (f"left alone: {number} files {suffix or 'without suffix'}" for suffix, number in ignored)
    yield from (f"cannot be used: {name}: {reason} ({detail})" for name, reason, detail in outcome.bad[:_MOST_LISTED])
    yield f"{len(outcome.records)} files predicted, {len(outcome.bad)} cannot be used"


def to_table(outcome: Outcome) -> pa.Table:
    """One row a file: p_CLASS, sd_p_CLASS, ATTRIBUTE, sd_ATTRIBUTE, best_1 to best_3, and the rest of its record."""
    rows = []
    for record in outcome.records:
        row = {"file": record["file"], "duration_s": record["duration_s"]}
        row |= {f"p_{name}": value for name, value in record["distribution"].items()}
        row |= {f"sd_p_{name}": value for name, value in (record["distribution_sd"] or {}).items()}
        row |= record["attributes"]
        row |= {f"sd_{name}": value for name, value in (record["attributes_sd"] or {}).items()}
        row |= {f"best_{n}": name for n, name in enumerate(record["best"], 1)}
        if record["conformal_set"] is not None:
            row["conformal_set"] = " ".join(record["conformal_set"])
        # A journal of an earlier version says nothing of level.
        row |= {name: record[name] for name in ("adapted", "speaker_s") if name in record}
        row |= {"level_dbfs": record.get("level_dbfs"), "warnings": "; ".join(record.get("warnings", ()))}
        if "embedding" in record:
            row["embedding"] = record["embedding"]
        rows.append(row)
    return pa.Table.from_pylist(rows) if rows else pa.table({"file": pa.array([], pa.string())})


def _csv(table: pa.Table) -> str:
    """A table as CSV, in which no text is a formula."""
    columns = {
        disarmed(name): pa.array(map(disarmed, column.to_pylist())) if pa.types.is_string(column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.table(columns), sink)
    return sink.getvalue().to_pybytes().decode()


def _write(out: Path, outcome: Outcome, form: str) -> None:
    if form == "parquet":
        with atomic_path(out) as path:
            pq.write_table(to_table(outcome), path)
    else:
        write_text(out, to_text(outcome, form))
    bad = Path(f"{out}.bad.csv")
    if outcome.bad:
        columns = dict(zip(("file", "reason", "detail"), map(list, zip(*outcome.bad, strict=True)), strict=True))
        write_text(bad, _csv(pa.table(columns)))
    else:
        bad.unlink(missing_ok=True)


def _in_turns(todo: Sequence[int], paths: Sequence[Path]) -> Iterator[list[int]]:
    """Files in their order, a few dozen or a few minutes at a time, so that little is lost when a run is cut off."""
    some: list[int] = []
    seconds = 0.0
    for i in todo:
        some.append(i)
        with contextlib.suppress(audio.AudioError):  # told when its turn comes
            seconds += audio.length_s(paths[i])
        if len(some) == _MOST_FILES or seconds >= _MOST_S:
            yield some
            some, seconds = [], 0.0
    if some:
        yield some
