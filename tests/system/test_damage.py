"""Flipped bits in every kind of artefact: loading refuses each with the name of the file, or it changes no number.

`SEREMO_DAMAGE=300` flips 300 bits a kind instead of 6.
"""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data import ingest, tables
from seremo_jax.evaluation import records
from seremo_jax.features import store
from seremo_jax.predict import model_folder
from seremo_jax.reports import report, validation
from seremo_jax.saliency import ranking
from tests.support import prepared

pytestmark = pytest.mark.long

NUM_FLIPS = int(os.environ.get("SEREMO_DAMAGE", "6"))


def _tables(folder):
    finished = ingest.finished(folder / "workdir", prepared.smallest().results_fields("corpus", "data"))
    *pair, fingerprint = tables.read_tables(folder / "workdir")
    return finished, [table.to_pydict() for table in pair], fingerprint


def _store(folder):
    reader = store.Reader(folder / "workdir" / "store")
    rows = range(len(reader))
    frames = {layer: reader.read(layer, rows) for layer in reader.layers}
    return reader.manifest, reader.utterances, reader.num_frames, frames, reader.arrays("norm")


def _shown(folder):
    return report.load(folder / "workdir")


# Kind -> its files, and what production reads them by. Checkpoints are in tests/training/test_checkpoint.py.
KINDS = {
    "tables": (("workdir/*.parquet",), _tables),
    "record of the ingest": (("workdir/ingest.json",), _tables),
    "findings": (("workdir/validation/validation.json",), lambda folder: validation.read(folder / "workdir")),
    "store": (("workdir/store/*.parquet", "workdir/store/*.npz", "workdir/store/manifest.json"), _store),
    "shards": (("workdir/store/layer_*/*",), _store),
    "sums": (("workdir/saliency.npz",), lambda folder: ranking.read(folder / "workdir")),
    "saliency": (("workdir/saliency.json",), _shown),
    "chosen layer": (("workdir/saliency.json",), lambda folder: ensemble.chosen_layer(folder / "workdir")),
    "members": (("workdir/train/members.json",), _shown),
    "log": (("workdir/train/log.jsonl",), _shown),
    "parameters": (
        ("workdir/train/best/**/*",),
        lambda folder: model_folder.from_workdir(folder / "workdir", ["best"]),
    ),
    "training": (
        ("workdir/train/finished.json", "workdir/train/config.json", "workdir/calibration.json"),
        lambda folder: model_folder.from_workdir(folder / "workdir", ["best"]),
    ),
    "records": (("workdir/results.jsonl",), lambda folder: records.read(folder / "workdir" / records.FILE)),
    "model": (("model/*",), lambda folder: model_folder.read(folder / "model")),
}


def _frozen(value):
    """A value as something that can be compared bit by bit."""
    if isinstance(value, dict):
        return [(str(key), _frozen(item)) for key, item in value.items()]
    if dataclasses.is_dataclass(value):
        return [_frozen(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        return [_frozen(item) for item in value]
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tobytes()
    return repr(value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of a folder with a finished workdir and the model exported from it."""
    return Path(shutil.copytree(prepared.finished(tmp_path_factory), tmp_path_factory.mktemp("damage") / "f"))


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_by_name_or_changes_no_number(finished, kind):
    patterns, load = KINDS[kind]
    files = [path for pattern in patterns for path in sorted(finished.glob(pattern)) if path.is_file()]
    files = [path for path in files if path.stat().st_size]
    assert files
    whole, rng, wrong, num_refused = _frozen(load(finished)), np.random.default_rng(0), [], 0
    for _ in range(NUM_FLIPS):
        path = files[rng.integers(len(files))]
        content = path.read_bytes()
        place, bit = int(rng.integers(len(content))), int(rng.integers(8))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        where = f"{path.relative_to(finished)}, byte {place} of {len(content)}, bit {bit}"
        try:
            if _frozen(load(finished)) != whole:
                wrong.append(f"{where}: other numbers")
        except ArtefactError as error:
            num_refused += 1
            if str(path) not in str(error):
                wrong.append(f"{where}: the file is not named in {error}")
        except Exception as error:
            wrong.append(f"{where}: {type(error).__name__}: {error}")
        finally:
            path.write_bytes(content)
    assert wrong == []
    assert num_refused >= NUM_FLIPS / 3
