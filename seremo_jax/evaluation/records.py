"""The files an evaluation leaves: predictions as Parquet, records as JSON lines."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import (
    ArtefactError,
    atomic_path,
    parsed,
    place_of,
    read_json,
    require_same,
    sealed,
    to_json,
    write_text,
)
from seremo_jax.core.hashed import describe_file, require_files
from seremo_jax.core.schema import Predictions, ResultRecord
from seremo_jax.data.targets import Targets
from seremo_jax.metrics import catalogue

FILE = "results.jsonl"
BASELINE_FOLDER = "baseline"
"""Folder of the records of the regression that every user would pick instead of a head."""

ENROLMENT_FOLDER = "enrolment"
"""Folder of the records of the curves over utterances of test speakers."""

DIFFERENCES_FILE = "differences.json"
"""In that folder: heads minus regressions, see `against_regression`."""

CALIBRATION = "calibration"
"""Where the states of a record hold what was found of calibration, conformal sets and abstention."""

EVALUATE = "run python -m launch.evaluate with this --workdir"
_LINE = "line"
"""Key of a line's number, from 1, and the number of lines: a file that lacks some would have fewer results."""
_REGRESS = "run python -m launch.baseline with this --workdir"


def write(path: str | os.PathLike, records: Sequence[ResultRecord]) -> None:
    """Writes a line a record, each with the fingerprint of what it holds, and which of how many lines it is."""
    lines = (vars(record) | {_LINE: [number, len(records)]} for number, record in enumerate(records, 1))
    write_text(path, "".join(to_json(sealed(line)) + "\n" for line in lines))


def read(path: str | os.PathLike) -> list[ResultRecord]:
    """Reads the records of one file.

    Raises:
      ArtefactError: The file is missing or empty, lacks a line, or a line was changed since it was written or is no
        result record of this version of the project.
    """
    path = place_of(path)
    remedy = _REGRESS if path.parent.name == BASELINE_FOLDER else EVALUATE
    if not path.exists():
        raise ArtefactError(f"{path} is missing; {remedy}")
    records, lines = [], path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        fields = parsed(line, f"{path}:{number}", f"delete the file and {remedy}")
        if isinstance(fields, dict) and (place := fields.pop(_LINE, None)) is not None:
            about = f"{path}:{number} (which of how many lines it is)"
            require_same(about, [number, len(lines)], place, f"Lines are missing: delete the file and {remedy}.")
        try:
            record = ResultRecord(**{**fields, "seeds": tuple(fields["seeds"]), "axes": _axes(fields.get("axes", {}))})
            foreign = _foreign(record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtefactError(
                f"{path}:{number} is no result record ({error}); delete the file and {remedy}"
            ) from None
        if foreign:
            raise ArtefactError(
                f"{path}:{number} was written by another version of this project ({foreign}); delete the file and "
                f"{remedy}"
            )
        records.append(record)
    if not records:
        raise ArtefactError(f"{path} holds no record; delete it and {remedy}")
    return records


def _axes(written: dict[str, Any]) -> dict[str, Any]:
    """Axes of a record. Earlier versions wrote the class losses behind a mean as one text."""
    kind = written.get("class_kind", "")
    return written | {"class_kind": kind.split(" + ")} if " + " in kind else written


def are_whole(path: str | os.PathLike) -> bool:
    """Whether the records are there as they were written, and so are the predictions that they were computed from."""
    path = place_of(path)
    try:
        files = {record.predictions["file"]: record.predictions for record in read(path) if record.predictions}
        require_files(path.parent, files, EVALUATE)
    except ArtefactError:
        return False
    return True


def require_own(workdir: str | os.PathLike) -> None:
    """Refuses a workdir with the scores of a model that was trained on another corpus: they would be overwritten.

    Raises:
      ArtefactError: It has them; the message names both corpora.
    """
    path = place_of(workdir) / FILE
    try:
        card = parsed(path.read_bytes().splitlines()[0], os.fspath(path), EVALUATE)["protocol"]
        trained = card.get("trained_on", {}).get("corpus")
    except (OSError, ArtefactError, LookupError, TypeError, AttributeError):
        return  # Missing or damaged records are made anew.
    if trained is not None:
        raise ArtefactError(
            f"{workdir} holds the scores on {card.get('corpus')} of a model that was trained on {trained}: name the "
            "model again with --model, or give the --workdir of a training"
        )


def _foreign(record: ResultRecord) -> str:
    """What a record lacks that this version writes, or holds that it does not know; empty if nothing."""
    if "varying" not in record.axes:
        return "it does not say what tells its system from others"
    curves = record.states.get(CALIBRATION, {}).get("curves")
    if curves is not None and "risk" not in curves:
        return "its calibration curves have other names"
    for name, entry in record.metrics.items():
        about: Mapping[str, Any] | None = entry.get("metric")
        if not about:
            return f"its metric {name!r} does not say of which kind it is"
        if about["kind"] not in catalogue.KINDS:
            return f"its metric {name!r} is of the unknown kind {about['kind']!r}"
    return ""


def read_differences(workdir: str | os.PathLike, split: str) -> list[dict[str, Any]]:
    """Differences of heads and regressions on clean speech; empty where none were computed.

    Args:
      workdir: Folder of the experiment.
      split: Name of the split.

    Returns:
      Entries as `differences.differences` describes them, and in each of them the `system`.

    Raises:
      ArtefactError: The file is damaged, or of other records than those of the workdir.
    """
    workdir = place_of(workdir)
    path = workdir / BASELINE_FOLDER / DIFFERENCES_FILE
    if not path.exists():
        return []
    written = read_json(path, f"delete it and {_REGRESS}")
    for side, folder in (("heads", workdir), ("regressions", path.parent)):
        remedy = f"{path} compared others: {_REGRESS}."
        there = describe_file(folder / FILE)
        require_same(f"what is known of the {side} in {folder / FILE}", there, written["files"][side], remedy)
    return written["splits"].get(split, [])


def write_predictions(
    path: str | os.PathLike,
    predictions: Predictions,
    members: Sequence[ensemble.Member],
    targets: Targets,
    checkpoint_id: str,
) -> dict[str, Any]:
    """Writes one row an utterance and member: rated attributes by name, a `p_<class>` column a class.

    Args:
      path: `predictions/NAME.parquet` in the folder of the records.
      predictions: The predictions.
      members: Their members.
      targets: Targets, for the names of attributes and classes, and which attributes are rated.
      checkpoint_id: The training that they are of.

    Returns:
      What the records computed from it say of it, see `ResultRecord.predictions`.
    """
    path = place_of(path)
    num_members, num_utterances = predictions.distribution.shape[:2]
    columns: dict[str, Any] = {
        "utterance": pa.array(list(predictions.utterances) * num_members),
        "member": pa.array(np.repeat(np.arange(num_members, dtype=np.int32), num_utterances)),
        "layer": pa.array(np.repeat(np.array([m.layer for m in members], np.int32), num_utterances)),
        "class_target": pa.array(np.repeat([m.class_target for m in members], num_utterances).tolist()),
        "seed": pa.array(np.repeat(np.array([m.seed for m in members], np.int64), num_utterances)),
    }
    for a in np.flatnonzero(targets.has_attribute.any(0)):
        name = targets.attribute_names[a]
        columns[name] = pa.array(predictions.attributes[:, :, a].ravel())
    for c, name in enumerate(targets.class_names):
        columns[f"p_{name}"] = pa.array(predictions.distribution[:, :, c].ravel())
    table = pa.table(columns).replace_schema_metadata({b"checkpoint_id": checkpoint_id.encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return {"file": f"{path.parent.name}/{path.name}", **describe_file(path)}
