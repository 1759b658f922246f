"""From the data to the mesh: batches of one split, and what else the steps read, for an arrangement of members."""

import os
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from seremo_jax.core import members as ensemble
from seremo_jax.core import mesh as sharding
from seremo_jax.core.schema import Batch
from seremo_jax.training import arrangement, loader, steps
from seremo_jax.training.arrangement import Arrangement
from seremo_jax.training.dataset import Data
from seremo_jax.training.state import Inputs, Members, Normalisation, values_of

CACHE_SHARE = 0.5
"""Of the memory that is free on a device, what `train.device_cache = auto` fills with frames at most."""
_MEMBER, _SAME = PartitionSpec(sharding.MEMBER), PartitionSpec()


class Cache:
    """Frames of every layer that members read, in device memory.

    Args:
      data: The data.
      rows: Rows of the utterance table to hold.
    """

    def __init__(self, data: Data, rows: np.ndarray):
        self._data, self._rows = data, data.store_rows[np.unique(rows)]
        lengths = data.num_frames[self._rows]
        self.num_frames = int(lengths.sum())
        self.first_frames = np.zeros(len(data.num_frames), np.int64)
        self.first_frames[self._rows] = np.cumsum(lengths) - lengths

    def num_bytes(self, num_views: int) -> int:
        """Bytes on each device."""
        return (
            num_views
            * self.num_frames
            * self._data.num_features
            * np.dtype(self._data.store.manifest["dtype"]).itemsize
        )

    def fits(self, num_views: int) -> bool:
        """Whether the frames fill at most `CACHE_SHARE` of what is free on each device of this process."""
        return self.num_frames < 2**31 and self.num_bytes(num_views) <= CACHE_SHARE * _free_bytes()

    def frames(self, mesh: Mesh, views: Sequence[Sequence[int]]) -> jax.Array:
        """[V, F, D] frames of the layers that each shard holds, on the mesh."""
        mine = sharding.local_part(mesh, _MEMBER, 0, mesh.shape[sharding.MEMBER])
        width, dtype = self._data.num_features, np.dtype(self._data.store.manifest["dtype"])
        local = np.empty((sum(len(views[shard]) for shard in mine), self.num_frames, width), dtype)
        place = 0
        for shard in mine:
            for layer in views[shard]:
                columns = self._data.columns.get(layer, slice(None))
                for start in range(0, len(self._rows), 256):
                    rows = self._rows[start : start + 256].tolist()
                    for row, frames in zip(rows, self._data.frames.read(layer, rows), strict=True):
                        first = self.first_frames[row]
                        local[place, first : first + len(frames)] = frames[:, columns]
                place += 1
        shape = (sum(map(len, views)), *local.shape[1:])
        return sharding.place(mesh, _MEMBER, local, shape)


def _free_bytes() -> float:
    """Bytes free on the fullest device of this process; the processor's devices share its memory."""
    devices = jax.local_devices()
    found = [device.memory_stats() for device in devices]
    if all(stats and "bytes_limit" in stats for stats in found):
        return min(stats["bytes_limit"] - stats["bytes_in_use"] for stats in found)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / len(devices)


class Feed:
    """Batches of one split for an arrangement of members.

    Args:
      data: The data.
      members: The members.
      mesh: The mesh.
      current: How members sit.
      shape: Shape of the batches.
      rows: Fold -> rows of the utterance table.
      has_own_order: Members of another `data_seed` see another order, shuffled each epoch; else all see the order of
        the table.
      cache: What lives in device memory, or None.
      frames: The frames there, where they were placed already.
      class_weights: [C] of each member.
      statistics: What `Data.normalisation` gave, where it was made already.
    """

    def __init__(
        self,
        data: Data,
        members: Sequence[ensemble.Member],
        mesh: Mesh,
        current: Arrangement,
        shape: loader.Shape,
        rows: dict[int | None, np.ndarray],
        *,
        has_own_order: bool,
        cache: Cache | None = None,
        frames: jax.Array | None = None,
        class_weights: Sequence[np.ndarray] | None = None,
        statistics: dict | None = None,
    ):
        self._data, self._mesh, self._shape, self._rows = data, mesh, shape, rows
        keys = [(member.fold, member.data_seed if has_own_order else None) for member in members]
        self._streams, self._cache = list(dict.fromkeys(keys)), cache
        stream = np.array([self._streams.index(keys[m]) for m in current.member], np.int32)
        layers = [data.layers_of(member) for member in members]
        streams_of = [0 if cache is not None else self._streams.index(key) for key in keys]
        views, view_slot = arrangement.share_out(
            current, [tuple((s, layer) for layer in mine) for s, mine in zip(streams_of, layers, strict=True)]
        )
        norms, norm_slot = arrangement.share_out(
            current, [tuple((m.fold, layer) for layer in mine) for m, mine in zip(members, layers, strict=True)]
        )
        self._views, self.stream = views, stream
        weights = class_weights or [np.ones(len(data.targets.class_names), np.float32)] * len(members)
        placed = [members[m] for m in current.member]
        values = values_of(placed, [weights[m] for m in current.member])
        self.members = self._by_member(Members(values, stream, view_slot, norm_slot))
        statistics = statistics or data.normalisation(list(rows))
        tables = [np.stack([statistics[key][i] for shard in norms for key in shard]) for i in range(2)]
        labels = jax.tree.map(lambda table: sharding.place(mesh, _SAME, table), data.labels())
        if cache is not None and frames is None:
            frames = cache.frames(mesh, [[layer for _, layer in shard] for shard in views])
        self.inputs = Inputs(Normalisation(*map(self.whole_by_member, tables)), labels, frames)

    @property
    def num_views(self) -> int:
        """Views of a shard."""
        return len(self._views[0])

    def rows_of(self, stream: int) -> np.ndarray:
        """Rows of the utterance table in a stream."""
        return self._rows[self._streams[stream][0]]

    @property
    def num_examples(self) -> int:
        """Utterances of the largest stream."""
        return max(map(len, self._rows.values()))

    def num_frames_of(self, current: Arrangement) -> int:
        """Frames that the trained members read in an epoch, added up over the members."""
        num_frames = self._data.num_frames
        of_stream = [int(num_frames[self._data.store_rows[self._rows[fold]]].sum()) for fold, _ in self._streams]
        is_member = current.order[current.running] < current.num_members
        return sum(of_stream[s] for s in self.stream[current.running][is_member])

    def _plans(self, epoch: int | None) -> list[loader.Stream]:
        data, streams = self._data, []
        for fold, data_seed in self._streams:
            store_rows = data.store_rows[self._rows[fold]]
            plan = loader.plan_epoch(data.num_frames[store_rows], self._shape, data_seed or 0, epoch)
            streams.append(loader.Stream(plan, store_rows, self._rows[fold]))
        return streams

    def num_batches(self, epoch: int | None = None) -> int:
        """Batches of an epoch."""
        return max(len(stream.plan) for stream in self._plans(epoch))

    def batches(self, epoch: int | None = None, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from number `start` on, on the devices; `epoch` None keeps the order of the table."""
        data, num_data = self._data, self._mesh.shape[sharding.DATA] * data_parts(self._data)
        num_rows = -(-self._shape.num_rows // num_data) * num_data
        specs = steps.batch_specs(self._cache is not None)
        rows = sharding.local_part(self._mesh, specs.slot, 2, num_rows)
        mine = sharding.local_part(self._mesh, _MEMBER, 0, self._mesh.shape[sharding.MEMBER])
        source = loader.BatchSource(
            streams=self._plans(epoch),
            shape=self._shape,
            num_rows=num_rows,
            store=data.frames,
            num_features=data.num_features,
            dtype=data.store.manifest["dtype"],
            views=() if self._cache else [view for shard in mine for view in self._views[shard]],
            rows=rows,
            columns=data.columns,
            first_frames=self._cache.first_frames if self._cache else None,
        )
        if self._cache is not None:
            yield from self._from_memory(source, specs, rows, start)
            return
        num_views = sum(map(len, self._views))
        for batch in loader.batches(source, start):
            yield self._placed(batch, specs, rows, num_rows, num_views)

    def _placed(self, batch: Batch, specs: Batch, rows: range, num_rows: int, num_views: int) -> Batch:
        """A batch on the mesh; layouts are small and whole on every process, frames are not."""
        shape = (num_views, self._shape.num_frames, num_rows, batch.features.shape[-1])
        return Batch(
            features=sharding.place(self._mesh, specs.features, batch.features, shape),
            frame=None,
            **self._layouts(batch, specs, rows),
        )

    def _layouts(self, batch: Batch, specs: Batch, rows: range) -> dict[str, jax.Array]:
        found = {}
        for name in ("reset", "slot", "last_frame", "utterance"):
            array, spec = getattr(batch, name), getattr(specs, name)
            local = array[:, :, rows.start : rows.stop] if name in ("reset", "slot") else array
            found[name] = sharding.place(self._mesh, spec, local, array.shape)
        return found

    def _from_memory(self, source: loader.BatchSource, specs: Batch, rows: range, start: int) -> Iterator[Batch]:
        """Batches whose layouts go to the devices once an epoch: a step then waits for no input at all."""
        layouts = [source[i] for i in range(len(source))]

        def placed(name: str) -> jax.Array | None:
            if name == "features":
                return None
            array, spec = np.stack([getattr(layout, name) for layout in layouts]), getattr(specs, name)
            local = array[..., rows.start : rows.stop] if name in ("frame", "reset", "slot") else array
            return sharding.place(self._mesh, PartitionSpec(None, *spec), local, array.shape)

        epoch = Batch(*map(placed, Batch._fields))
        for index in range(start, len(source)):
            yield steps.batch_of(epoch, np.int32(index))

    def _by_member(self, tree: Members) -> Members:
        return jax.tree.map(self.whole_by_member, tree)

    def whole_by_member(self, whole: np.ndarray) -> jax.Array:
        """An array [P, ...] that every process has whole, laid over the member axis."""
        mine = sharding.local_part(self._mesh, _MEMBER, 0, len(whole))
        return sharding.place(self._mesh, _MEMBER, whole[mine.start : mine.stop], whole.shape)


def data_parts(data: Data) -> int:
    """Parts that the rows of a device are computed in."""
    return data.config.train.micro_batches


def shape_of(data: Data, rows: dict[int | None, np.ndarray], others: dict[int | None, np.ndarray]) -> loader.Shape:
    """Shape of the batches over `rows` that the utterances of `others` fit into, too."""
    t, num_frames = data.config.train, data.num_frames

    def lengths(of: dict[int | None, np.ndarray]) -> np.ndarray:
        return num_frames[data.store_rows[np.unique(np.concatenate(list(of.values())))]]

    mine, longest = lengths(rows), int(lengths(others).max())
    if None not in rows:
        # A fold's batches must not depend on which folds are trained beside it.
        mine = num_frames[data.store_rows[data.store_rows >= 0]]
        longest = int(mine.max())
    shape = loader.plan_shape(mine, t.batch_size, t.frames_per_row, t.data_seed)
    if not t.frames_per_row and longest > shape.num_frames:
        shape = loader.plan_shape(mine, t.batch_size, longest, t.data_seed)
    return shape
