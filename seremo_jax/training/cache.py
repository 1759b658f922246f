"""Frames of every layer that members read, in device memory."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from seremo_jax.core import sharding
from seremo_jax.training.dataset import Data, Fold

_ROWS_AT_ONCE = 256
_MEMBER = PartitionSpec(sharding.MEMBER)


class Cache:
    """Frames of every layer that members read, in device memory.

    Where they fit, a step gathers its frames on the device, and the host reads nothing from the store any more.

    Args:
      data: The data.
      rows: Rows of the utterance table to hold.
    """

    def __init__(self, data: Data, rows: np.ndarray):
        self._data, self._rows = data, data.held_rows(rows)
        lengths = data.num_frames[self._rows]
        self.num_frames = int(lengths.sum())
        # All utterances lie one after the other along one axis, without padding.
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

    @property
    def has_places(self) -> bool:
        """Whether the int32 of a batch can say where each frame lies."""
        return self.num_frames < 2**31

    def frames(self, mesh: Mesh, views: Sequence[Sequence[int]]) -> jax.Array:
        """[V, F, D] frames on the mesh. `views` are the layers that each shard of the member axis holds."""
        shards = sharding.local_part(mesh, _MEMBER, 0, mesh.shape[sharding.MEMBER])
        width, dtype = self._data.num_features, np.dtype(self._data.store.manifest["dtype"])
        local = np.empty((sum(len(views[shard]) for shard in shards), self.num_frames, width), dtype)
        place = 0
        for shard in shards:
            for layer in views[shard]:
                columns = self._data.columns.get(layer, slice(None))
                for start in range(0, len(self._rows), _ROWS_AT_ONCE):
                    rows = self._rows[start : start + _ROWS_AT_ONCE].tolist()
                    for row, frames in zip(rows, self._data.frames.read(layer, rows), strict=True):
                        first = self.first_frames[row]
                        local[place, first : first + len(frames)] = frames[:, columns]
                place += 1
        shape = (sum(map(len, views)), *local.shape[1:])
        return sharding.place(mesh, _MEMBER, local, shape)


def cache_of(data: Data, splits: Sequence[dict[Fold, np.ndarray]]) -> Cache:
    """The frames of these splits, each given as fold -> rows of the utterance table."""
    return Cache(data, np.unique(np.concatenate([rows for split in splits for rows in split.values()])))
