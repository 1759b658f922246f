"""The store of hidden states: a writer that can be cut off at any time, and a reader with random access.

store/plan.json             settings of the store that is being written, until the manifest is there
store/parts/                a JSON file and sums (NPZ) for each finished shard, until the manifest is there
store/layer_03/shard-00000-of-00013.array_record    a record for each utterance: [T, D], little-endian, row-major
store/index.parquet         a row for each utterance, in the order of the utterance table
store/manifest.json         written last: a store without it is not finished
"""

import contextlib
import json
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import Float, Int

from seremo_jax import __version__
from seremo_jax.core.arrays import read_arrays, write_arrays
from seremo_jax.core.artefacts import (
    ArtefactError,
    atomic_path,
    clear_when_full,
    place_of,
    read_json,
    remove_leftovers,
    remove_tree,
    require_same,
    to_json,
    write_json,
)
from seremo_jax.core.copies import on_disk
from seremo_jax.core.hashed import describe_file, require_files
from seremo_jax.features import index
from seremo_jax.features.index import INDEX_FILE
from seremo_jax.features.manifest import (
    DTYPES,
    FORMAT_VERSION,
    MANIFEST_FILE,
    REMEDY,
    UNFINISHED,
    Settings,
    layer_folder,
    read_manifest,
    shard_file,
    shards_of,
)

PLAN_FILE, PARTS_FOLDER = "plan.json", "parts"

# For records of this size one writing thread is 3 times as fast as the pool. Access is random, so nothing is read
# ahead.
_WRITE_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"
_READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_MAX_OPEN_SHARDS = 256


class _Shard:
    """A shard that is being written: a file for each layer, which are all renamed into place together.

    Attributes:
      utterances: Ids of the utterances so far.
      num_frames: Number of frames of each of them.
      checksums: CRC-32 of the record of each of them, in every stored layer.
      sums: Arrays that the shard keeps besides the frames.
    """

    def __init__(self, paths: Sequence[Path], settings: Settings):
        self._settings = settings
        for path in paths:
            path.touch()  # Fails with a reason where array_record would give none.
        self._writers = [ArrayRecordWriter(os.fspath(path), _WRITE_OPTIONS) for path in paths]
        self.utterances: list[str] = []
        self.num_frames: list[int] = []
        self.checksums: list[list[int]] = []
        self.sums: dict[str, np.ndarray] = {}

    def add(self, utterance: str, frames: Float[np.ndarray, "K T D"]) -> None:
        """Appends the frames of one utterance in every stored layer."""
        expected = (len(self._writers), self._settings.num_features)
        if (frames.shape[0], frames.shape[2]) != expected or frames.shape[1] == 0:
            raise ValueError(f"frames of {utterance!r} have shape {frames.shape}, expected (K, T, D) with {expected}")
        records = [np.ascontiguousarray(layer, DTYPES[self._settings.dtype]).tobytes() for layer in frames]
        for writer, record in zip(self._writers, records, strict=True):
            writer.write(record)
        self.utterances.append(utterance)
        self.checksums.append([zlib.crc32(record) for record in records])
        self.num_frames.append(frames.shape[1])

    def close(self) -> None:
        for writer in self._writers:
            if writer.is_open():
                writer.close()


class Writer:
    """Writes a store shard by shard. A run that was cut off repeats at most one shard.

    Args:
      path: Folder of the store.
      utterances: Ids of all utterances, in the order of the table. Shard s holds rows
        `[s * shard_utterances, (s + 1) * shard_utterances)`, in any order.
      settings: Settings of the store.
      sums_of: Settings of the sums of the shards. A run with other ones is refused until the store is finished.

    Attributes:
      shards: Rows of each shard.

    Raises:
      ArtefactError: The folder holds an unfinished store of other settings.
      ValueError: It holds a finished store, or there is no utterance.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        utterances: Sequence[str],
        settings: Settings,
        sums_of: Mapping[str, Any] | None = None,
    ):
        self.path, self.settings, self._utterances = place_of(path), settings, list(utterances)
        if not self._utterances:
            raise ValueError("a store needs at least one utterance")
        self.shards = shards_of(len(self._utterances), settings.shard_utterances)
        self._hashed: set[int] = set()
        if (self.path / MANIFEST_FILE).exists():
            raise ValueError(f"the store {self.path} is finished")
        plan = {**settings.to_dict(), "format_version": FORMAT_VERSION, "num_utterances": len(self._utterances)}
        plan = json.loads(to_json({**plan, "sums_of": sums_of or {}}))
        if (self.path / PLAN_FILE).exists():
            begun = read_json(self.path / PLAN_FILE, REMEDY)
            remedy = f"Use another --workdir, or delete {self.path} and run python -m launch.extract again."
            require_same(f"what {self.path} was begun with", begun, plan, remedy)
        else:
            with clear_when_full(self.path):
                write_json(self.path / PLAN_FILE, plan)
        for name in ("", PARTS_FOLDER, *map(layer_folder, settings.layers)):
            remove_leftovers(self.path / name)

    def is_finished(self, shard: int) -> bool:
        """Whether the shard is on disk as it was written; otherwise it is to be written anew."""
        try:
            part = read_json(self._part(shard), UNFINISHED)
            require_files(self.path, _files_of(part), REMEDY)
        except ArtefactError:
            return False
        return True

    @contextlib.contextmanager
    def shard(self, shard: int) -> Iterator[_Shard]:
        """Yields a shard to `add` utterances to. The end of the block puts it into place; an exception discards it.

        Raises:
          ArtefactError: The disk is full.
          ValueError: Not exactly the utterances of this shard were added.
        """
        names = [shard_file(layer, shard, len(self.shards)) for layer in self.settings.layers]
        with clear_when_full(self.path):
            # The part says that a shard is finished. It goes first and comes back last, when all files are in place.
            self._part(shard).unlink(missing_ok=True)
            with contextlib.ExitStack() as stack:
                paths = [stack.enter_context(atomic_path(self.path / name)) for name in names]
                writing = _Shard(paths, self.settings)
                try:
                    yield writing
                finally:
                    writing.close()
                expected = {self._utterances[row] for row in self.shards[shard]}
                if len(writing.utterances) != len(expected) or set(writing.utterances) != expected:
                    raise ValueError(f"shard {shard} needs each of its {len(expected)} utterances once")
                files = {name: describe_file(path) for name, path in zip(names, paths, strict=True)}
            sums = self._sums(shard)
            write_arrays(sums, **writing.sums)
            part = {name: getattr(writing, name) for name in ("utterances", "num_frames", "checksums")}
            described = {f"{PARTS_FOLDER}/{sums.name}": describe_file(sums)}
            write_json(self._part(shard), part | {"files": files, "sums": described})
        self._hashed.add(shard)

    def sums(self, shard: int, names: Collection[str] = ()) -> dict[str, np.ndarray]:
        """The arrays that a finished shard kept in `sums`, or those of `names` only."""
        return read_arrays(self._sums(shard), REMEDY, names)

    def finalise(self, **extra_files: Mapping[str, np.ndarray]) -> None:
        """Checks the hashes of shards finished earlier, then writes `NAME.npz` per extra file, index and manifest.

        Raises:
          ArtefactError: A shard is missing or damaged, or the disk is full.
        """
        parts, files = [read_json(self._part(number), UNFINISHED) for number in range(len(self.shards))], {}
        for number, part in enumerate(parts):
            # Hashes of shards that this process has just written are those of the bytes that it wrote.
            if number not in self._hashed:
                require_files(self.path, _files_of(part), REMEDY)
            files |= part["files"]
        shards = [{"num_utterances": len(part["utterances"]), "num_frames": sum(part["num_frames"])} for part in parts]
        with clear_when_full(self.path):
            for name, arrays in extra_files.items():
                write_arrays(self.path / f"{name}.npz", **arrays)
                files[f"{name}.npz"] = describe_file(self.path / f"{name}.npz")
            index.write(self.path, index.of_parts(self._utterances, parts))
            files[INDEX_FILE] = describe_file(self.path / INDEX_FILE)
            manifest = {
                **self.settings.to_dict(),
                "format_version": FORMAT_VERSION,
                "code_version": __version__,
                "num_utterances": len(self._utterances),
                "num_frames": sum(shard["num_frames"] for shard in shards),
                "shards": shards,
                "files": files,
            }
            write_json(self.path / MANIFEST_FILE, manifest)
        sweep(self.path)

    def _part(self, shard: int) -> PurePath:
        return self.path / PARTS_FOLDER / f"shard-{shard:05d}.json"

    def _sums(self, shard: int) -> PurePath:
        return self.path / PARTS_FOLDER / f"shard-{shard:05d}.npz"


class Reader:
    """Random access to a finished store. Many threads may read at once. It is pickled as its path.

    Args:
      path: Folder of the store.

    Attributes:
      manifest: The manifest.
      layers: Layers of the store.
      utterances: [N] utterance ids, in the order of the utterance table.
      num_frames: [N] int32 number of frames of each utterance.

    Raises:
      ArtefactError: The store is missing, unfinished or of another format, or one of its files is missing or truncated.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = place_of(path)
        self.manifest = read_manifest(self.path)
        files = self.manifest["files"]
        require_files(self.path, files, REMEDY, is_hashed=False)
        # Records are compared with their checksums when they are read. The small files beside them are hashed here.
        require_files(self.path, {name: file for name, file in files.items() if "/" not in name}, REMEDY)
        self.layers: tuple[int, ...] = tuple(self.manifest["layers"])
        self._records = index.read(self.path, self.layers, self.manifest["num_utterances"])
        self.utterances, self._shard, self._position, self.num_frames = self._records.index[:4]
        self._dtype = DTYPES[self.manifest["dtype"]]
        self._open: OrderedDict[tuple[int, int], ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()

    # Open files and the lock cannot be pickled, so a copy opens the store again.
    def __reduce__(self) -> tuple:
        return Reader, (os.fspath(self.path),)

    def __len__(self) -> int:
        return len(self.utterances)

    def require(self, **expected: Any) -> None:
        """Refuses a store whose manifest has other values, e.g. `require(tables_fingerprint=...)`.

        Raises:
          ArtefactError: A value differs; the message names both sides.
        """
        stored = {key: self.manifest.get(key) for key in expected}
        require_same(f"the store {self.path}", stored, expected, f"Use another --workdir, or {REMEDY}.")

    def read(self, layer: int, rows: Sequence[int] | Int[np.ndarray, " N"]) -> list[Float[np.ndarray, "T D"]]:
        """Frames of some utterances, each [T, D] in the dtype of the store, in the order of `rows`.

        Args:
          layer: One of `layers`.
          rows: Rows of the utterance table, which may repeat.

        Raises:
          ArtefactError: The layer is not stored, or a shard is damaged.
        """
        if layer not in self.layers:
            raise ArtefactError(
                f"layer {layer} is not in the store {self.path}, which has {', '.join(map(str, self.layers))}: set "
                f"extract.layers to 'all' or to a list with {layer}, and extract into another --workdir"
            )
        rows, slot = np.asarray(rows, np.int64), self.layers.index(layer)
        frames: list[Any] = [None] * len(rows)
        # Rows come in any order. Those of one shard are read with one call.
        for shard in np.unique(self._shard[rows]):
            places, path = np.flatnonzero(self._shard[rows] == shard), self._shard_path(layer, int(shard))
            try:
                records = self._shard_reader(layer, int(shard)).read(self._position[rows[places]].tolist())
            except (RuntimeError, IndexError) as error:
                raise ArtefactError(f"{path} is damaged ({error}); {REMEDY}") from None
            for place, record in zip(places, records, strict=True):
                row = rows[place]
                shape = (int(self.num_frames[row]), int(self.manifest["num_features"]))
                # A record has no header, so its length is all that can be checked against the index.
                if len(record) != shape[0] * shape[1] * self._dtype.itemsize:
                    raise ArtefactError(
                        f"{path}: record of {self.utterances[row]!r} has {len(record)} bytes, the index says "
                        f"{shape[0]} frames of {shape[1]} features; {REMEDY}"
                    )
                self._records.require(int(row), slot, record, path)
                frames[place] = np.frombuffer(record, self._dtype).reshape(shape)
        return frames

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of the extra file `NAME.npz`."""
        return read_arrays(self.path / f"{name}.npz", REMEDY)

    def verify(self) -> None:
        """Reads every file and compares its hash with the manifest.

        Raises:
          ArtefactError: A file differs; the message gives both hashes.
        """
        require_files(self.path, self.manifest["files"], REMEDY)

    def _shard_path(self, layer: int, shard: int) -> PurePath:
        return self.path / shard_file(layer, shard, len(self.manifest["shards"]))

    def _shard_reader(self, layer: int, shard: int) -> ArrayRecordReader:
        with self._lock:
            reader = self._open.pop((layer, shard), None)
            if reader is None:
                path = on_disk(self._shard_path(layer, shard))
                reader = ArrayRecordReader(os.fspath(path), _READ_OPTIONS)
            # The last used reader stands last, so the first one is that which was not used for the longest time.
            self._open[layer, shard] = reader
            # It closes once the last thread that is reading from it lets go of it.
            if len(self._open) > _MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
            return reader


def _files_of(part: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Size and hash of each file of a shard; those of its sums are not in what earlier versions wrote."""
    return part["files"] | part.get("sums", {})


def sweep(path: str | os.PathLike) -> None:
    """Removes the files of a finished store that only an unfinished one needs."""
    remove_tree(place_of(path) / PARTS_FOLDER)
    (place_of(path) / PLAN_FILE).unlink(missing_ok=True)
