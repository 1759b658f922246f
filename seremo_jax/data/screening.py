"""Which utterances of a corpus are left out of an experiment, and why; and the splits of those that stay.

A reason lies in the tables (no speaker known, nobody rated it) or in the audio (missing, silent, the same recording
twice). Nothing is decided by looking at labels.
"""

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seremo_jax.core import vocab
from seremo_jax.core.config import Config
from seremo_jax.core.config_fields import DataConfig
from seremo_jax.core.progress import Progress
from seremo_jax.data import audio, partitions, policies, splits, tables, targets
from seremo_jax.data.parts import apart
from seremo_jax.data.roots import IngestError

REASONS = audio.REASONS | {
    "duplicate_audio": "the same samples as an utterance with an earlier id",
    "duplicate_id": "an id that an earlier row has",
    "no_audio": "the corpus gives no audio file",
    "no_ratings": "nobody rated it in data.modality",
    "not_drawn": "its speaker is not among the data.max_speakers drawn",
    "unknown_speaker": "nobody knows who speaks (data.unknown_speakers = drop)",
}
"""Why an utterance is left out: a word to count by, and what it means."""

BAD_AUDIO = (*audio.REASONS, "duplicate_audio")
"""Reasons that `data.on_bad_audio = error` does not let pass."""

_REJECTIONS = ("ratings_not_used", "lines_without_votes")
_LISTED = 10


class LabelsAloneError(IngestError):
    """A corpus has labels and no audio.

    Attributes:
      utterances: All that it has.
      ratings: All that it has.
    """

    def __init__(self, message: str, utterances: pa.Table, ratings: pa.Table):
        super().__init__(message)
        self.utterances, self.ratings = utterances, ratings


class Verdict(NamedTuple):
    """What becomes of an utterance.

    Attributes:
      reason: A key of `REASONS` where it is left out; empty where it is kept.
      detail: The reason in words, with what is particular to this utterance; may be empty.
    """

    reason: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class ScreenedCorpus:
    """A corpus, and what becomes of each of its utterances.

    Attributes:
      root: Folder that the column `audio` is relative to.
      utterances: All that the corpus has.
      ratings: All that the corpus has.
      facts: What each utterance's audio is, None where it was not looked at.
      verdicts: Of each utterance.
      parts: Of several corpora each by itself, with the section `data` that it was read under; empty of one.
    """

    root: PurePath
    utterances: pa.Table
    ratings: pa.Table
    facts: list[audio.AudioFacts | None]
    verdicts: list[Verdict]
    parts: tuple[tuple["ScreenedCorpus", DataConfig], ...] = ()

    def kept(self) -> tuple[pa.Table, pa.Table]:
        """The utterances kept, by id, with duration and hash, in the corpus's own splits; and their ratings."""
        rows = [row for row, verdict in enumerate(self.verdicts) if not verdict.reason]
        ids = self.utterances["id"].to_pylist()
        rows.sort(key=ids.__getitem__)
        kept = self.utterances.take(pa.array(rows, pa.int64()))
        facts = [self.facts[row] for row in rows]
        kept = with_column(kept, "duration_s", [fact.duration_s if fact else 0.0 for fact in facts])
        kept = with_column(kept, "audio_sha256", [fact.sha256 if fact else "" for fact in facts])
        is_rated = pc.is_in(self.ratings["utterance"], value_set=kept["id"].combine_chunks())
        return kept.combine_chunks(), self.ratings.filter(is_rated)


def screen(
    utterances: pa.Table, ratings: pa.Table, root: PurePath, config: Config, is_quiet: bool = False
) -> ScreenedCorpus:
    """Reads the audio, and decides which utterances are left out. No bad recording or rating is an error here.

    Args:
      utterances: All that the corpus has.
      ratings: All that the corpus has.
      root: Folder that the column `audio` is relative to.
      config: Section `data` is read, and `extract.num_threads`.
      is_quiet: Prints nothing.

    Raises:
      SplitError: `data.max_speakers` cannot be drawn.
    """
    if config.data.unknown_speakers == "each":
        utterances = _name_unknown_speakers(utterances)
    verdicts = _judge_tables(utterances, ratings, config.data)
    facts = _check_audio(utterances, root, verdicts, config, is_quiet)
    judge_audio(utterances, facts, verdicts)
    return ScreenedCorpus(root, utterances, ratings, facts, verdicts)


def _name_unknown_speakers(utterances: pa.Table) -> pa.Table:
    """Makes each utterance of an unknown speaker that of a speaker of its own."""
    pairs = zip(utterances["speaker"].to_pylist(), utterances["id"].to_pylist(), strict=True)
    named = [f"{vocab.UNKNOWN}:{name}" if speaker == vocab.UNKNOWN else speaker for speaker, name in pairs]
    return with_column(utterances, "speaker", named)


def with_column(table: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    """The table with other values in one of its columns."""
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def problem_of_ratings(utterances: pa.Table, ratings: pa.Table, modality: str) -> str:
    """Why no rating can be used, or "" where there are some.

    Args:
      utterances: All that the corpus has, with the report of its parser.
      ratings: All that the corpus has.
      modality: The one whose ratings count.
    """
    if pc.any(pc.equal(ratings["modality"], modality)).as_py():
        return ""
    report = tables.report_of(utterances)
    rejections = [what for what in _REJECTIONS if report.counts[what]]
    if not rejections and not ratings.num_rows and report.counts["lines_not_used"]:
        rejections = ["lines_not_used"]
    sentences = []
    if ratings.num_rows:
        there = ", ".join(sorted(set(ratings["modality"].to_pylist())))
        sentences.append(f"data.modality = {modality!r}: the corpus has no such ratings (it has: {there})")
    for what in rejections:
        read, kind = ("ratings_read", "ratings") if what == "ratings_not_used" else ("lines_read", "lines")
        number = report.counts[what]
        sentences.append(f"{number:,} of {max(report.counts[read], number):,} {kind} were rejected, the first: "
                         f"{report.first.get(what, 'not named')}")  # fmt: skip
    if not ratings.num_rows and not rejections:
        sentences.append(f"data.modality = {modality!r}: the corpus has no such ratings (it has: none at all)")
    if rejections:
        sentences.append("correct these; python -m launch.validate lists all of them")
    return "; ".join(sentences)


def are_labels_alone(utterances: pa.Table) -> bool:
    """Whether no utterance of a corpus has audio, so that its labels can be described and nothing can be heard."""
    return utterances.num_rows > 0 and pc.all(pc.equal(utterances["audio"], "")).as_py()


def _judge_tables(utterances: pa.Table, ratings: pa.Table, data: DataConfig) -> list[Verdict]:
    """The verdicts whose reasons lie in the tables. Where no utterance has audio, labels alone are looked at."""
    has_audio = not are_labels_alone(utterances)
    rated = set(ratings["utterance"].filter(pc.equal(ratings["modality"], data.modality)).to_pylist())
    reasons: list[str] = []
    seen: set[str] = set()
    rows = zip(*(utterances[column].to_pylist() for column in ("id", "audio", "speaker")), strict=True)
    for name, path, speaker in rows:
        if name in seen:
            reasons.append("duplicate_id")
        elif not path and has_audio:
            reasons.append("no_audio")
        elif name not in rated:
            reasons.append("no_ratings")
        else:
            is_dropped = data.unknown_speakers == "drop" and speaker == vocab.UNKNOWN
            reasons.append("unknown_speaker" if is_dropped else "")
        seen.add(name)
    if data.max_speakers and not all(reasons):
        columns = [utterances[name].to_pylist() for name in ("speaker", "gender", "split")]
        usable = [row for row, reason in enumerate(reasons) if not reason]
        drawn = splits.draw(
            *([column[row] for row in usable] for column in columns), data.max_speakers, data.split_seed
        )
        for row in usable:
            reasons[row] = "" if columns[0][row] in drawn else "not_drawn"
    return [Verdict(reason) for reason in reasons]


def _check_audio(
    utterances: pa.Table, root: PurePath, verdicts: Sequence[Verdict], config: Config, is_quiet: bool
) -> list[audio.AudioFacts | None]:
    """Facts of every utterance that is kept so far, None for the others."""
    paths = utterances["audio"].to_pylist()
    rows = [row for row, verdict in enumerate(verdicts) if paths[row] and not verdict.reason]
    facts: list[audio.AudioFacts | None] = [None] * len(paths)

    def check(row: int) -> audio.AudioFacts:
        return audio.check(os.path.join(root, paths[row]), config.data.min_seconds, config.data.max_seconds)

    pool = ThreadPoolExecutor(config.extract.num_threads)
    try:
        with Progress(len(rows), "ingest: audio", "utterances", is_quiet=is_quiet) as progress:
            for row, fact in zip(rows, pool.map(check, rows), strict=True):
                facts[row] = fact
                progress.update()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return facts


def judge_audio(utterances: pa.Table, facts: Sequence[audio.AudioFacts | None], verdicts: list[Verdict]) -> None:
    """Adds the reasons that lie in the audio; of utterances with the same samples the one of the first id stays.

    Args:
      utterances: All that the corpus has.
      facts: Of each, None where its audio was not looked at.
      verdicts: Of each; those of bad audio are replaced.
    """
    ids = utterances["id"].to_pylist()
    # In the order of ids and not of rows, so that the same corpus listed in another order keeps the same utterances.
    first: dict[str, str] = {}
    for row in sorted(range(len(ids)), key=ids.__getitem__):
        fact = facts[row]
        if fact is None:
            continue
        if fact.reason:
            verdicts[row] = Verdict(fact.reason, fact.detail)
        elif first.setdefault(fact.sha256, ids[row]) != ids[row]:
            verdicts[row] = Verdict("duplicate_audio", f"the same samples as {first[fact.sha256]}")


def require_usable(screened: ScreenedCorpus, data: DataConfig) -> None:
    """Raises where nothing is left, or where the config lets nothing bad pass.

    Raises:
      IngestError: Names the reasons, and the first utterances or the first rating that was rejected.
      LabelsAloneError: No utterance has audio.
    """
    for part, own in screened.parts:
        require_usable(part, own)
    if screened.parts:
        return
    root, verdicts = screened.root, screened.verdicts
    if problem := problem_of_ratings(screened.utterances, screened.ratings, data.modality):
        raise IngestError(f"{root}: {problem}")
    if are_labels_alone(screened.utterances):
        raise LabelsAloneError(
            f"{root}: no utterance has audio, so there is nothing to hear: name the files in the column audio. Labels "
            "alone are described by python -m launch.ingest --explain and checked by python -m launch.validate",
            screened.utterances,
            screened.ratings,
        )
    counts = collections.Counter(verdict.reason for verdict in verdicts if verdict.reason)
    by_reason = ", ".join(f"{reason} {number}" for reason, number in sorted(counts.items())) or "it has none"
    hint = f"\nFetch the audio itself: cd {root} && git lfs install && git lfs pull" if counts["lfs_pointer"] else ""
    if counts.total() == len(verdicts):
        raise IngestError(f"no usable utterance among the {len(verdicts)} of {root}: {by_reason}{hint}")
    bad = [
        f"{name}: {reason} ({detail})"
        for name, (reason, detail) in zip(screened.utterances["id"].to_pylist(), verdicts, strict=True)
        if reason in BAD_AUDIO
    ]
    if bad and data.on_bad_audio == "error":
        some = "\n  ".join(bad[:_LISTED]) + (f"\n  and {len(bad) - _LISTED} more" if len(bad) > _LISTED else "")
        raise IngestError(
            f"{len(bad)} audio files cannot be used:\n  {some}\n"
            f"Repair them, or set --config.data.on_bad_audio=exclude to leave them out.{hint}"
        )


def with_splits(kept: pa.Table, ratings: pa.Table | None, data: DataConfig) -> pa.Table:
    """The utterances in the splits that the settings ask for, each corpus of several split by itself.

    Args:
      kept: Those kept, in the corpus's own splits (see `ScreenedCorpus.kept`).
      ratings: Their ratings; needed where the split depends on classes.
      data: The settings.

    Raises:
      SplitError: They cannot be split so, or a speaker would be in two splits.
      TargetsError: A word that no class set knows, where the split depends on classes.
    """
    columns = {name: kept[name].to_pylist() for name in ("speaker", "gender", "split", "session")}
    if corpora := apart(kept, ratings):
        words = np.empty(kept.num_rows, object)
        for part in corpora:
            try:
                words[part.rows] = with_splits(part.utterances, part.ratings, part.data(data))["split"].to_pylist()
            except splits.SplitError as error:
                raise splits.SplitError(f"{part.info.corpus}: {error}") from None
        return with_column(kept, "split", words.tolist())
    info, classes = tables.info_of(kept), np.full(kept.num_rows, -1)
    if data.split_kind == "derived_by_class":
        classes = targets.build(kept, ratings, policies.corpus_policies(info, data)).consensus_index
    people = partitions.People(
        info.corpus, columns["speaker"], columns["gender"], columns["split"], columns["session"], classes
    )
    assigned = partitions.assign(
        data.split_kind,
        people,
        shares=data.split_shares,
        seed=data.split_seed,
        fold=data.fold,
        num_folds=data.num_folds,
    )
    return with_column(kept, "split", assigned)


def with_words(utterances: pa.Table, rows_of: Mapping[str, np.ndarray]) -> pa.Table:
    """The utterance table whose column `split` has these words in their rows, and no word elsewhere."""
    words = np.full(len(utterances), "", dtype=object)
    for word, rows in rows_of.items():
        words[rows] = word
    return with_column(utterances, "split", words.tolist())


def in_fold(utterances: pa.Table, data: DataConfig, fold: int | None) -> pa.Table:
    """The utterance table with the splits of a fold in its column `split`; None leaves it as it is.

    Whatever depends on a split is made from this table. The column of the table that ingest wrote is that of
    `data.fold`, whose training speakers are the test speakers of another fold.

    Args:
      utterances: The utterance table.
      data: The settings, of a kind of splits that has folds.
      fold: Which session or fold is test.

    Raises:
      SplitError: The utterances cannot be split so.
    """
    if fold is None:
        return utterances
    # Kinds of splits that have folds read neither ratings nor the split that is there.
    return with_splits(utterances, None, dataclasses.replace(data, fold=fold))
