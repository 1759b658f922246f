"""The index of a store: where the record of each utterance lies, how long it is, and the checksums of its bytes."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seremo_jax.core.artefacts import ArtefactError, atomic_path, readable, require_same
from seremo_jax.features.manifest import REMEDY

INDEX_FILE = "index.parquet"
_PLACES = ("shard", "position", "num_frames")


class Index(NamedTuple):
    """A row for each utterance, in the order of the utterance table.

    Attributes:
      utterances: [N] ids.
      shard: [N] int32 shard of its record.
      position: [N] int32 place of its record in the shard.
      num_frames: [N] int32 frames of its record.
      checksums: [N, K] uint32 CRC-32 of its record in each stored layer; None in stores of earlier versions.
    """

    utterances: list[str]
    shard: np.ndarray
    position: np.ndarray
    num_frames: np.ndarray
    checksums: np.ndarray | None


def of_parts(utterances: Sequence[str], parts: Sequence[Mapping[str, Any]]) -> Index:
    """The index of a store.

    Args:
      utterances: Ids in the order of the utterance table.
      parts: `utterances`, `num_frames` and `checksums` of each shard, in the order of its records. Parts that an
        earlier version wrote have no checksums, and then the index has none.
    """
    # Shards hold their records in the order in which batches came, which is not that of the table.
    place = {}
    for number, part in enumerate(parts):
        checksums = part.get("checksums", [[]] * len(part["utterances"]))
        rows = zip(part["utterances"], part["num_frames"], checksums, strict=True)
        for position, (utterance, num_frames, of_layers) in enumerate(rows):
            place[utterance] = number, position, num_frames, of_layers
    *places, checksums = zip(*(place[utterance] for utterance in utterances), strict=True)
    table = np.array(checksums, np.uint32) if all(map(len, checksums)) else None
    return Index(list(utterances), *(np.array(column, np.int32) for column in places), table)


def write(folder: PurePath, index: Index) -> None:
    """Writes `index.parquet`, whole or not at all."""
    columns = {"utterance": index.utterances, **{name: getattr(index, name) for name in _PLACES}}
    if index.checksums is not None:
        # Lists of one fixed length are one flat buffer in the file, and are read without a Python object for each row.
        flat = pa.array(index.checksums.ravel())
        columns["checksums"] = pa.FixedSizeListArray.from_arrays(flat, index.checksums.shape[1])
    with atomic_path(folder / INDEX_FILE) as temporary:
        pq.write_table(pa.table(columns), temporary)


class Records:
    """The records of a store, each of which is compared with its checksum when it is read for the first time.

    A shard that another store of the same shape left there is readable, so that nothing else would tell.

    Attributes:
      index: The index.
    """

    def __init__(self, index: Index):
        self.index = index
        self._is_checked = None if index.checksums is None else np.zeros(index.checksums.shape, bool)

    def require(self, row: int, slot: int, record: bytes, path: PurePath) -> None:
        """Refuses other bytes than those that were written.

        Args:
          row: Row of the utterance.
          slot: Place of the layer among those of the store.
          record: What was read.
          path: The shard, for the message.

        Raises:
          ArtefactError: The bytes are others; the message names utterance and shard.
        """
        if self._is_checked is None or self._is_checked[row, slot]:
            return
        # Once for each record: an epoch reads it again from the page cache, and a sum each time would cost as much.
        what = f"CRC-32 of the frames of {self.index.utterances[row]!r} in {path}"
        require_same(what, zlib.crc32(record), int(self.index.checksums[row, slot]), f"{REMEDY}.")
        self._is_checked[row, slot] = True


def read(folder: PurePath, layers: Sequence[int], num_utterances: int) -> Records:
    """Reads `index.parquet`.

    Args:
      folder: Folder of the store.
      layers: Layers of the store.
      num_utterances: Utterances of the store.

    Raises:
      ArtefactError: The file is damaged, or of other utterances.
    """
    path = folder / INDEX_FILE
    try:
        table = pq.ParquetFile(readable(path)).read()
        checksums = None
        if "checksums" in table.column_names:
            checksums = table["checksums"].combine_chunks().flatten().to_numpy().reshape(len(table), len(layers))
        places = (table[name].to_numpy().astype(np.int32) for name in _PLACES)
        index = Index(table["utterance"].to_pylist(), *places, checksums)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); {REMEDY}") from None
    require_same(str(path), len(table), num_utterances, REMEDY)
    return Records(index)
