"""The first stage: parse a corpus, look at every audio file, split the speakers, write the two label tables.

What cannot be used is left out, counted by reason and listed in `ingest.json`, which is written last: tables without it
are those of an ingest that did not finish, and are made anew.
"""

import collections
import dataclasses
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seremo_jax import account, audio, corpora, splits, tables, targets
from seremo_jax.artefacts import fingerprint_of, read_json, remove_leftovers, require_same, to_json, write_json
from seremo_jax.config import Config, DataConfig
from seremo_jax.progress import Progress

SIMULATED = "simulated"

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

_LISTED = 10
_Exclusions = list[tuple[str, str]]
"""(reason, detail) of each utterance; the reason is empty where the utterance is kept."""


class IngestError(Exception):
    """A corpus cannot be ingested. The message says what to do."""


def audio_root(config: Config, workdir: str | os.PathLike) -> Path:
    """Folder that the column `audio` is relative to.

    Raises:
      IngestError: `corpus.root` is not set or is no folder.
    """
    if config.corpus.name == SIMULATED:
        return Path(workdir) / "audio"
    corpora.parser_of(config.corpus.name)
    if not config.corpus.root:
        raise IngestError(
            f"corpus {config.corpus.name} is not part of this project: say where it lies, --config.corpus.root=FOLDER"
        )
    root = Path(config.corpus.root).expanduser()
    if not root.is_dir():
        raise IngestError(f"--config.corpus.root={config.corpus.root} is no folder")
    return root


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False) -> dict[str, Any]:
    """Writes `utterances.parquet`, `ratings.parquet` and `ingest.json`, or finds that they are up to date.

    Args:
      config: Sections `corpus` and `data` are read, and `extract.num_threads`.
      workdir: Folder of this experiment's artefacts.
      is_quiet: Prints nothing.

    Returns:
      What `ingest.json` holds.

    Raises:
      IngestError: No usable utterance, bad audio where the config forbids it, a full disk, or a corpus not found.
      ArtefactError: The workdir holds the tables of other settings.
      CorpusError: The corpus's files are not what its parser understands.
      SplitError: A speaker in two splits, or too few speakers.
    """
    workdir, settings = Path(workdir), config.results_fields("corpus", "data")
    record = _finished(workdir, settings)
    if record is not None:
        _say(f"ingest: the tables in {workdir} are up to date", is_quiet)
        return record
    root = audio_root(config, workdir)
    remove_leftovers(workdir)
    utterances, ratings = _parse(config, root, is_quiet)
    exclusions = _exclude_by_table(utterances, ratings, config.data)
    facts = _check_audio(utterances, root, exclusions, config, is_quiet)
    _exclude_by_audio(utterances, facts, exclusions)
    _judge(utterances, exclusions, root, config.data)
    kept = _finish(utterances, facts, exclusions, config.data)
    kept_ratings = ratings.filter(pc.is_in(ratings["utterance"], value_set=kept["id"].combine_chunks()))
    record = {"settings": settings, **account.of_exclusions(utterances, ratings, exclusions, config.data.modality)}
    record |= _describe_tables(kept, kept_ratings, config.data.modality)
    used = [fact for fact, (reason, _) in zip(facts, exclusions, strict=True) if fact is not None and not reason]
    record["audio"] = account.of_audio(
        [fact.source_rate_hz for fact in used],
        [fact.num_channels for fact in used],
        [fact.duration_s for fact in used],
        audio.SAMPLE_RATE_HZ,
    )
    report = tables.report_of(utterances)
    record["parser"] = dict(report.counts)
    record["warnings"] = account.warnings_of(record, report.problems)
    _write(workdir, kept, kept_ratings, record)
    _say(account.describe(record, REASONS), is_quiet)
    return json.loads(to_json(record))


def _finished(workdir: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a finished ingest with the same settings, or None where there is none."""
    stamp = workdir / tables.STAMP_FILE
    if not stamp.exists():
        return None
    record = read_json(stamp, "delete it and run python -m launch.ingest again")
    remedy = f"Use another --workdir, or delete {tables.STAMP_FILE} there and everything made from its tables."
    require_same(f"{stamp} (settings)", record.get("settings"), settings, remedy)
    if not all((workdir / name).exists() for name in (tables.UTTERANCES_FILE, tables.RATINGS_FILE)):
        return None
    tables.read_tables(workdir)
    return record


def _parse(config: Config, root: Path, is_quiet: bool) -> tuple[pa.Table, pa.Table]:
    """Runs the parser with those policies of the config that it has."""
    name = config.corpus.name
    accepted = corpora.policies_of(name)
    if "slow_clicks" not in accepted and config.data.slow_clicks != DataConfig().slow_clicks:
        raise IngestError(f"data.slow_clicks = {config.data.slow_clicks!r} means nothing for corpus {name}")
    offered = {
        "seed": config.corpus.seed,
        "num_speakers": config.corpus.num_speakers,
        "utterances_per_speaker": config.corpus.utterances_per_speaker,
        "slow_clicks": config.data.slow_clicks,
    }
    policies = {policy: value for policy, value in offered.items() if policy in accepted}
    try:
        return corpora.parse(name, root, is_quiet=is_quiet, **policies)
    except OSError as error:
        raise IngestError(f"corpus {name} cannot be read or rendered: {error}; nothing half-written is left") from error


def _exclude_by_table(utterances: pa.Table, ratings: pa.Table, data: DataConfig) -> _Exclusions:
    """The reasons that lie in the tables."""
    rated = set(ratings["utterance"].filter(pc.equal(ratings["modality"], data.modality)).to_pylist())
    if not rated:
        there = ", ".join(sorted(set(ratings["modality"].to_pylist()))) or "none at all"
        raise IngestError(f"data.modality = {data.modality!r}: the corpus has no such ratings (it has: {there})")
    reasons: list[str] = []
    seen: set[str] = set()
    for name, path in zip(utterances["id"].to_pylist(), utterances["audio"].to_pylist(), strict=True):
        if name in seen:
            reasons.append("duplicate_id")
        elif not path:
            reasons.append("no_audio")
        else:
            reasons.append("" if name in rated else "no_ratings")
        seen.add(name)
    if data.max_speakers:
        columns = [utterances[name].to_pylist() for name in ("speaker", "gender", "split")]
        usable = [row for row, reason in enumerate(reasons) if not reason]
        drawn = splits.draw(
            *([column[row] for row in usable] for column in columns), data.max_speakers, data.split_seed
        )
        for row in usable:
            reasons[row] = "" if columns[0][row] in drawn else "not_drawn"
    return [(reason, "") for reason in reasons]


def _check_audio(
    utterances: pa.Table, root: Path, exclusions: _Exclusions, config: Config, is_quiet: bool
) -> list[audio.AudioFacts | None]:
    """Facts of every utterance not excluded so far, None for the others."""
    paths = utterances["audio"].to_pylist()
    rows = [row for row, (reason, _) in enumerate(exclusions) if not reason]
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


def _exclude_by_audio(utterances: pa.Table, facts: Sequence[audio.AudioFacts | None], exclusions: _Exclusions) -> None:
    """Adds the reasons that lie in the audio; of utterances with the same samples the one of the first id stays."""
    ids = utterances["id"].to_pylist()
    first: dict[str, str] = {}
    for row in sorted(range(len(ids)), key=ids.__getitem__):
        fact = facts[row]
        if fact is None:
            continue
        if fact.reason:
            exclusions[row] = (fact.reason, fact.detail)
        elif first.setdefault(fact.sha256, ids[row]) != ids[row]:
            exclusions[row] = ("duplicate_audio", f"the same samples as {first[fact.sha256]}")


def _judge(utterances: pa.Table, exclusions: _Exclusions, root: Path, data: DataConfig) -> None:
    """Raises where nothing is left, or where the config lets nothing bad pass."""
    counts = collections.Counter(reason for reason, _ in exclusions if reason)
    by_reason = ", ".join(f"{reason} {number}" for reason, number in sorted(counts.items())) or "it has none"
    hint = f"\nFetch the audio itself: cd {root} && git lfs install && git lfs pull" if counts["lfs_pointer"] else ""
    if counts.total() == len(exclusions):
        raise IngestError(f"no usable utterance among the {len(exclusions)} of {root}: {by_reason}{hint}")
    bad = [
        f"{name}: {reason} ({detail})"
        for name, (reason, detail) in zip(utterances["id"].to_pylist(), exclusions, strict=True)
        if reason in BAD_AUDIO
    ]
    if bad and data.on_bad_audio == "error":
        some = "\n  ".join(bad[:_LISTED]) + (f"\n  and {len(bad) - _LISTED} more" if len(bad) > _LISTED else "")
        raise IngestError(
            f"{len(bad)} audio files cannot be used:\n  {some}\n"
            f"Repair them, or set --config.data.on_bad_audio=exclude to leave them out.{hint}"
        )


def _finish(
    utterances: pa.Table, facts: Sequence[audio.AudioFacts | None], exclusions: _Exclusions, data: DataConfig
) -> pa.Table:
    """The utterances kept, by id, with duration, hash and split."""
    rows = [row for row, (reason, _) in enumerate(exclusions) if not reason]
    ids = utterances["id"].to_pylist()
    rows.sort(key=ids.__getitem__)
    kept = utterances.take(pa.array(rows, pa.int64()))
    used = [facts[row] for row in rows]
    speakers, official = kept["speaker"].to_pylist(), kept["split"].to_pylist()
    if not any(official):
        split_of = splits.derive(speakers, kept["gender"].to_pylist(), data.split_shares, data.split_seed)
        official = [split_of[speaker] for speaker in speakers]
    elif not all(official):
        raise IngestError(f"{official.count('')} utterances are in no split, and the others in one of the corpus's own")
    splits.require_disjoint(speakers, official)
    filled = {
        "split": official,
        "duration_s": [fact.duration_s for fact in used if fact is not None],
        "audio_sha256": [fact.sha256 for fact in used if fact is not None],
    }
    for name, values in filled.items():
        field = kept.schema.field(name)
        kept = kept.set_column(kept.schema.get_field_index(name), field, pa.array(values, field.type))
    return kept.combine_chunks()


def _describe_tables(utterances: pa.Table, ratings: pa.Table, modality: str) -> dict[str, Any]:
    """Corpus, fingerprint, split hash, and who and what is in each split, by the corpus's own class set."""
    info = tables.info_of(utterances)
    made = targets.build(utterances, ratings, class_set=info.class_set, attributes=(), modality=modality)
    assignment = list(zip(utterances["id"].to_pylist(), utterances["split"].to_pylist(), strict=True))
    return {
        "corpus": dataclasses.asdict(info),
        "fingerprint": tables.tables_fingerprint(utterances, ratings),
        "split_hash": fingerprint_of(assignment),
        "splits": account.of_splits(utterances, np.asarray(made.consensus_index), made.class_names),
    }


def _write(workdir: Path, utterances: pa.Table, ratings: pa.Table, record: dict[str, Any]) -> None:
    """Writes both tables, then the stamp; after a failure none of the three is there."""
    paths = [workdir / name for name in (tables.UTTERANCES_FILE, tables.RATINGS_FILE, tables.STAMP_FILE)]
    try:
        paths[2].unlink(missing_ok=True)
        tables.write_table(paths[0], utterances)
        tables.write_table(paths[1], ratings)
        write_json(paths[2], record)
    except OSError as error:
        for path in paths:
            path.unlink(missing_ok=True)
        raise IngestError(
            f"the tables cannot be written to {workdir}: {error}; nothing half-written was left. "
            "Free some space or choose another --workdir, and run the same command again"
        ) from error


def _say(text: str, is_quiet: bool) -> None:
    if not is_quiet:
        print(text, flush=True)
