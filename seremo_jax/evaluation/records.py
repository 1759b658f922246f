"""The files an evaluation leaves: predictions as Parquet, records as JSON lines; and the names of the baseline."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seremo_jax.core import members as ensemble
from seremo_jax.core.artefacts import ArtefactError, atomic_path, place_of
from seremo_jax.core.schema import Predictions, ResultRecord
from seremo_jax.data.targets import Targets

FILE = "results.jsonl"
BASELINE_FOLDER = "baseline"
BASELINE = "logistic regression"
"""Name of the system that every user would pick instead; its records stand in `WORKDIR/baseline/`."""
BALANCED = "classes balanced"

EVALUATE = "run python -m launch.evaluate with this --workdir"


def read(path: str | os.PathLike) -> list[ResultRecord]:
    """Reads the records of one file.

    Raises:
      ArtefactError: The file is missing or empty, or a line is no result record.
    """
    path = place_of(path)
    if not path.exists():
        raise ArtefactError(f"{path} is missing; {EVALUATE}")
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            fields = json.loads(line)
            records.append(ResultRecord(**{**fields, "seeds": tuple(fields["seeds"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise ArtefactError(
                f"{path}:{number} is no result record ({error}); delete the file and {EVALUATE}"
            ) from None
    if not records:
        raise ArtefactError(f"{path} holds no record; delete it and {EVALUATE}")
    return records


def write_predictions(
    path: str | os.PathLike,
    predictions: Predictions,
    members: Sequence[ensemble.Member],
    targets: Targets,
    checkpoint_id: str,
) -> None:
    """Writes one row an utterance and member: rated attributes by name, a `p_<class>` column a class."""
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
