"""Heads against regressions on the same utterances: paired differences with intervals and tests.

results.jsonl, baseline/results.jsonl and their predictions  ->  baseline/differences.json

Both were predicted for the same speakers, of whom neither heard any in training. Source: METHOD.md, section 8.9.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError, place_of, read_json, readable, write_json
from seremo_jax.core.config import Config
from seremo_jax.core.hashed import describe_file, require_files
from seremo_jax.core.schema import Predictions, ResultRecord, System
from seremo_jax.data.screening import with_words
from seremo_jax.data.targets import Targets
from seremo_jax.evaluation import records as result_records
from seremo_jax.evaluation import scoring
from seremo_jax.evaluation.alignment import align

_MAY_DIFFER = ("checkpoint", "layers", "commit", "code_version", "fingerprint")
"""What the cards of heads and regressions need not agree in; the fingerprint is that of the settings."""

_REMEDY = "run python -m launch.evaluate, then python -m launch.baseline again"


def update(
    config: Config, workdir: str | os.PathLike, tables: tuple[pa.Table, Targets],
    systems: tuple[Sequence[System], Sequence[System]],
) -> str:  # fmt: skip
    """Writes `baseline/differences.json` of the heads and regressions of a workdir, unless it is up to date.

    A system of heads is held against the mean of regressions of its own layer, and a mean over heads of several layers
    against every mean of regressions. A file of other records goes.

    Args:
      config: The experiment.
      workdir: Folder with the records and predictions of the regressions, and of heads if any were evaluated.
      tables: Utterance table, and the targets of all its utterances.
      systems: Those of the heads, and those of the regressions.

    Returns:
      What was done, for the user to read.

    Raises:
      ArtefactError: Records or predictions are damaged.
    """
    workdir = place_of(workdir)
    folders = (workdir, workdir / result_records.BASELINE_FOLDER)
    heads, regressions = (folder / result_records.FILE for folder in folders)
    path = folders[1] / result_records.DIFFERENCES_FILE
    if not heads.exists():
        path.unlink(missing_ok=True)
        return f"no heads were evaluated in {workdir}, so none are compared with the regressions: {_REMEDY}"
    files = {"heads": describe_file(heads), "regressions": describe_file(regressions)}
    if path.exists() and read_json(path, f"delete it and {_REMEDY}")["files"] == files:
        return f"{path} is up to date"
    sides = [_clean(result_records.read(source)) for source in (heads, regressions)]
    cards = [next(iter(side.values())).protocol for side in sides]
    differing = _differing(cards[0], cards[1])
    if not all(split in sides[0] for split in config.eval.splits):
        differing.append("eval.splits")
    if differing:
        path.unlink(missing_ok=True)
        where = ", ".join(differing[:3])
        return f"{heads} was evaluated under other settings ({where}), so nothing is compared with it: {_REMEDY}"
    splits = {}
    for split in config.eval.splits:
        both = [
            _predictions(folder, side[split], tables[1], len({row for rows, _ in described for row in rows}))
            for folder, side, described in zip(folders, sides, systems, strict=True)
        ]
        splits[split] = _differences(config, both, tables, systems, split)
    write_json(path, {"files": files, "splits": splits})
    return f"{path}: {sum(map(len, splits.values()))} paired differences of heads and regressions"


def _differing(heads: Mapping[str, Any], regressions: Mapping[str, Any]) -> list[str]:
    """Names of what the protocol cards of both do not agree in."""
    flat = [
        {name: card[name] for name in card if name != "settings"} | card["settings"] for card in (heads, regressions)
    ]
    names = [name for name in dict.fromkeys((*flat[1], *flat[0])) if name not in _MAY_DIFFER]
    return [name for name in names if name in flat[1] and flat[0].get(name) != flat[1][name]]


def _clean(records: Sequence[ResultRecord]) -> dict[str, ResultRecord]:
    """Split -> a record on clean speech."""
    return {record.split: record for record in records if record.condition == vocab.CLEAN}


def _predictions(folder: PurePath, record: ResultRecord, targets: Targets, num_members: int) -> Predictions:
    """Predictions that a record was computed from."""
    name = record.predictions["file"]
    require_files(folder, {name: record.predictions}, _REMEDY)
    table = pq.read_table(readable(folder / name))
    shape = (num_members, -1)
    if table.num_rows % num_members:
        raise ArtefactError(
            f"{folder / name} has {table.num_rows} rows, and not those of {num_members} members; {_REMEDY}"
        )

    def columns(names: Sequence[str]) -> np.ndarray:
        values = [
            table[name].to_numpy() if name in table.column_names else np.full(table.num_rows, np.nan) for name in names
        ]
        return np.stack([np.asarray(value, np.float32).reshape(shape) for value in values], axis=-1)

    ids = np.asarray(table["utterance"].to_pylist(), object).reshape(shape)[0]
    return Predictions(ids, columns(targets.attribute_names), columns([f"p_{name}" for name in targets.class_names]))


def _differences(
    config: Config, both: Sequence[Predictions], tables: tuple[pa.Table, Targets],
    systems: tuple[Sequence[System], Sequence[System]], split: str,
) -> list[dict[str, Any]]:  # fmt: skip
    utterances, targets = tables
    heads, regressions = both
    # Rows of the regressions stand below those of the heads, in the same order of utterances.
    place = {utterance: row for row, utterance in enumerate(regressions.utterances)}
    order = [place[utterance] for utterance in heads.utterances]
    joined = Predictions(
        heads.utterances,
        np.concatenate([heads.attributes, regressions.attributes[:, order]]),
        np.concatenate([heads.distribution, regressions.distribution[:, order]]),
    )
    below = [([len(heads.attributes) + row for row in rows], about) for rows, about in systems[1]]
    means = [about for _, about in below if about["axes"]["num_heads"] > 1]
    pairs = [
        (mean["system"], about["system"])
        for _, about in systems[0]
        for mean in means
        if about["layer"] in (mean["layer"], ensemble.EVERY_LAYER)
    ]
    table = with_words(utterances, {split: np.isin(targets.ids, list(heads.utterances))})
    num_members = len(heads.attributes) + len(regressions.attributes)
    aligned = align(joined, targets, table, num_members=num_members, split=split, group_by=config.eval.group_by)
    wanted = {name for pair in pairs for name in pair}
    described = [system for system in (*systems[0], *below) if system[1]["system"] in wanted]
    request = scoring.ScoreRequest(described, split, config.eval, {})
    rows = scoring.paired_differences(aligned, request, pairs)
    return [{"system": system} | row for system, entries in rows.items() for row in entries]
