"""Reads `results.jsonl`: the records an evaluation left."""

import json
import os

from seremo_jax.core.artefacts import ArtefactError, place_of
from seremo_jax.core.schema import ResultRecord

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
