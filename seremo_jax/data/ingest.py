"""The first stage: parse a corpus, look at every audio file, split the speakers, write the two label tables.

What cannot be used is left out, counted by reason and listed in `ingest.json`. That file is written last. Tables
without it are those of an ingest that did not finish, and are made again.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from seremo_jax.core import further_corpora
from seremo_jax.core.artefacts import (
    fingerprint_of,
    place_of,
    read_json,
    remove_leftovers,
    remove_tree,
    require_same,
    to_json,
    write_json,
)
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.core.config_fields import DataConfig
from seremo_jax.core.hashed import describe_file
from seremo_jax.core.lock import at_work
from seremo_jax.data import (
    agreement,
    checks,
    corpora,
    ingest_record,
    merging,
    policies,
    screening,
    splits,
    tables,
    targets,
)
from seremo_jax.data.parts import with_one_modality
from seremo_jax.data.roots import IngestError, audio_root
from seremo_jax.data.screening import REASONS
from seremo_jax.data.text_lines import CorpusError

VALIDATION_FILE = Path("validation", "validation.json")
"""Findings of the checks, in the workdir."""


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
      ArtefactError: The workdir holds the tables of other settings, or another process is at work there.
      CorpusError: The corpus's files are not what its parser understands.
      SplitError: A speaker in two splits, or too few speakers.
    """
    workdir = place_of(workdir)
    with at_work(workdir, "ingest"):
        return _run(config, workdir, is_quiet)


def _run(config: Config, workdir: PurePath, is_quiet: bool) -> dict[str, Any]:
    settings = config.results_fields("corpus", "data")
    record = finished(workdir, settings)
    if record is not None:
        tables.require_root(config, workdir, tables.read_utterances(workdir))
        _say(f"ingest: the tables in {workdir} are up to date", is_quiet)
        return record
    remove_leftovers(workdir)
    screened = _screen(config, workdir, is_quiet)
    screening.require_usable(screened, config.data)
    kept, kept_ratings = screened.kept()
    kept = screening.with_splits(kept, kept_ratings, config.data)
    record = {"settings": settings}
    counted = with_one_modality(screened.utterances, screened.ratings, config.data.modality)
    record |= ingest_record.count_kept(screened.utterances, counted, screened.verdicts, config.data.modality)
    record |= _describe_splits(kept, kept_ratings, config.data)
    validation = validation_record(screened, kept, kept_ratings, config)
    record |= {name: validation[name] for name in ("corpus", "fingerprint", "agreement")}
    pairs = zip(screened.facts, screened.verdicts, strict=True)
    record["audio"] = ingest_record.describe_audio([fact for fact, verdict in pairs if fact and not verdict.reason])
    report = tables.report_of(screened.utterances)
    record["parser"] = dict(report.counts)
    problems = [*_errors(validation["findings"]), *report.problems, *checks.people_alike(kept, kept_ratings)]
    record["warnings"] = ingest_record.warnings(record, problems)
    if corpora := merging.describe(kept, kept_ratings, config):
        record["corpora"] = corpora
    _write(workdir, kept, kept_ratings, record, validation)
    further = merging.lines(corpora, tables.info_of(kept).class_set)
    _say("\n".join([ingest_record.to_text(record, REASONS), *further]), is_quiet)
    return json.loads(to_json(record))


def _errors(findings: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences about what the checks call an error and an ingest lets pass. Bad audio is listed as left out."""
    return [
        f"error found, {finding['name']} ({finding['meaning']}): {finding['count']}: {'; '.join(finding['cases'][:3])}"
        for finding in findings
        if finding["severity"] == checks.ERROR and finding["count"] and not finding["name"].startswith("audio_")
    ]


def finished(workdir: PurePath, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a finished ingest with the same settings, or None where there is none.

    Raises:
      ArtefactError: The workdir holds the tables of other settings, or damaged ones.
    """
    stamp = workdir / tables.STAMP_FILE
    if not stamp.exists():
        return None
    record = read_json(stamp, "delete it and run python -m launch.ingest again")
    remedy = f"Use another --workdir, or delete {tables.STAMP_FILE} there and everything made from its tables."
    require_same(f"{stamp} (settings)", record.get("settings"), settings, remedy)
    if not all((workdir / name).exists() for name in (tables.UTTERANCES_FILE, tables.RATINGS_FILE, VALIDATION_FILE)):
        return None
    tables.read_tables(workdir)
    return record


def _screen(config: Config, workdir: PurePath, is_quiet: bool) -> screening.ScreenedCorpus:
    """Parses the corpus, or each of several, and looks at its audio."""
    further = further_corpora.configs(config)
    for alone in (config, *further):
        corpora.parser_of(alone.corpus.name)  # so that an unknown name is reported before a missing folder
    root = audio_root(config, workdir)
    screened = screening.screen(*_parse(config, root, is_quiet), root, config, is_quiet)
    if not further:
        return screened
    others = []
    for alone in further:
        root = audio_root(alone, workdir)
        try:
            others.append(screening.screen(*_parse(alone, root, is_quiet), root, alone, is_quiet))
        except (IngestError, CorpusError, splits.SplitError) as error:
            raise type(error)(f"corpus.also, {alone.corpus.name}: {error}") from None
    return merging.merged(config, [screened, *others])


def _parse(config: Config, root: PurePath, is_quiet: bool) -> tuple[pa.Table, pa.Table]:
    """Runs the parser with those policies of the config that it has."""
    name = config.corpus.name
    try:
        asked = policies.parser_policies(config, corpora.policies_of(name))
    except ConfigError as error:
        raise IngestError(str(error)) from None
    try:
        return corpora.parse(name, root, is_quiet=is_quiet, **asked)
    except OSError as error:
        raise IngestError(f"corpus {name} cannot be read or rendered: {error}; nothing half-written is left") from error


def validate(config: Config, workdir: str | os.PathLike, is_quiet: bool = False) -> dict[str, Any]:
    """Runs the checks on a corpus as `run` would read it.

    It writes no table, and only a corpus that cannot be read is an error; one whose ratings cannot be used is a
    finding.

    Returns:
      The record that `run` writes as `validation/validation.json`.

    Raises:
      CorpusError, IngestError, SplitError: See `screening.screen`.
    """
    screened = _screen(config, place_of(workdir), is_quiet)
    kept, ratings = screened.kept()
    problem = ""
    if merging.problem_of(screened, config.data.modality):
        # Nothing is left to be split, and a message about splits would hide why.
        return validation_record(screened, kept, ratings, config)
    try:
        kept = screening.with_splits(kept, ratings, config.data)
    except (splits.SplitError, targets.TargetsError) as error:
        problem = str(error)
    return validation_record(screened, kept, ratings, config, problem)


def validation_record(
    screened: screening.ScreenedCorpus, kept: pa.Table, ratings: pa.Table, config: Config, problem: str = ""
) -> dict[str, Any]:
    """What `validation/validation.json` holds: findings, agreement and numbers of a corpus.

    Args:
      screened: All of the corpus.
      kept: The utterances that stay, in their splits.
      ratings: Theirs.
      config: The experiment.
      problem: Why the utterances kept are not in the splits asked for, or "".
    """
    split_of = dict(zip(kept["id"].to_pylist(), kept["split"].to_pylist(), strict=True))
    split_of_speaker = dict(zip(kept["speaker"].to_pylist(), kept["split"].to_pylist(), strict=True))
    rows = zip(*(screened.utterances[name].to_pylist() for name in ("id", "speaker", "split")), strict=True)
    kind, report = config.data.split_kind, tables.report_of(screened.utterances)
    # The checks look for one recording or speaker in two splits, among what is left out, too. So an utterance that is
    # left out is placed where the corpus itself puts it, or else where its speaker stands.
    all_splits = [
        split_of.get(name) or (official if kind == "auto" else "") or split_of_speaker.get(speaker, "")
        for name, speaker, official in rows
    ]
    evidence = checks.Evidence(
        utterances=screened.utterances,
        ratings=with_one_modality(screened.utterances, screened.ratings, config.data.modality),
        facts=screened.facts,
        splits=all_splits,
        is_kept=[not verdict.reason for verdict in screened.verdicts],
        modality=config.data.modality,
        problems=report.problems,
        split_problem=problem,
        rating_problem=merging.problem_of(screened, config.data.modality),
    )
    counted = with_one_modality(kept, ratings, config.data.modality)
    return {
        **tables.stamp(config, kept, ratings),
        "corpus": dataclasses.asdict(tables.info_of(screened.utterances)),
        "agreement": _describe_agreement(kept, ratings, config.data),
        "findings": [dataclasses.asdict(finding) for finding in checks.run(evidence)],
        "numbers": ingest_record.describe_kept(kept, counted, screened.utterances.num_rows, config.data.modality),
    }


def _describe_agreement(utterances: pa.Table, ratings: pa.Table, data: DataConfig) -> dict[str, Any]:
    """How far the raters agree, by the corpus's own class set; nothing where its words are not all known.

    Raters of several corpora answered different questions, so that one number for all would say nothing.
    """
    if tables.parts_of(utterances):
        return {}
    asked = policies.corpus_policies(tables.info_of(utterances), data)
    try:
        built = targets.build(utterances, ratings, asked)
    except targets.TargetsError:
        return {}
    return agreement.describe(utterances, ratings, built, asked.ratings)


def _describe_splits(utterances: pa.Table, ratings: pa.Table, data: DataConfig) -> dict[str, Any]:
    """Split hash, and who and what is in each split, by the corpus's own class set."""
    built = targets.build(utterances, ratings, policies.corpus_policies(tables.info_of(utterances), data))
    assignment = list(zip(utterances["id"].to_pylist(), utterances["split"].to_pylist(), strict=True))
    return {
        "split_hash": fingerprint_of(assignment),
        "splits": ingest_record.describe_splits(utterances, built.consensus_index, built.class_names),
    }


def _write(
    workdir: PurePath, utterances: pa.Table, ratings: pa.Table, record: dict[str, Any], validation: dict[str, Any]
) -> None:
    """Writes both tables and the validation, then the stamp; after a failure none of them is there."""
    paths = [workdir / name for name in (tables.UTTERANCES_FILE, tables.RATINGS_FILE, tables.STAMP_FILE)]
    try:
        paths[2].unlink(missing_ok=True)
        tables.write_table(paths[0], utterances)
        tables.write_table(paths[1], ratings)
        write_json(workdir / VALIDATION_FILE, validation)
        record["files"] = {path.name: describe_file(path) for path in paths[:2]}
        write_json(paths[2], record)
    except OSError as error:
        for path in paths:
            path.unlink(missing_ok=True)
        remove_tree((workdir / VALIDATION_FILE).parent)
        raise IngestError(
            f"the tables cannot be written to {workdir}: {error}; nothing half-written was left. "
            "Free some space or choose another --workdir, and run the same command again"
        ) from error


def _say(text: str, is_quiet: bool) -> None:
    if not is_quiet:
        print(text, flush=True)
