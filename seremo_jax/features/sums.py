"""What a shard of the store keeps beside its frames until all shards are finished."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from seremo_jax.data import audio_batches
from seremo_jax.features import normalisation
from seremo_jax.features.forward import Outputs
from seremo_jax.saliency import curves

DBFS = "level.dbfs"
"""Name of the array of levels."""


class Sums:
    """Moments of the frames of a shard, levels, and means of its drawn utterances.

    They depend on the utterances of the shard alone. The means are kept one by one, which takes 3 GB on disk for 30,000
    utterances of 25 layers and 1024 features. Gram matrices would take 0.5 GB for each shard, and the probe reads the
    utterances twice.

    Args:
      rows: Rows of the table that the shard holds.
      is_drawn: [N] utterances of the table whose means are kept.
      is_train: [N] those whose frames are summed up.
      num_layers: K, layers whose means are kept; 0 keeps none.
      num_stored: Layers whose frames are summed up; 0 sums up none.
      num_features: D.
    """

    def __init__(
        self,
        rows: Sequence[int],
        is_drawn: Bool[np.ndarray, " N"],
        is_train: Bool[np.ndarray, " N"],
        num_layers: int,
        num_stored: int,
        num_features: int,
    ):
        drawn = [row for row in rows if is_drawn[row]]
        self._place = {row: place for place, row in enumerate(drawn)}
        self._means = np.zeros((num_layers, len(drawn), num_features), np.float32)
        self._is_train, self._left_out = is_train, normalisation.empty(num_stored, num_features)
        self._moments = normalisation.InTableOrder() if num_stored else None
        # In the order of the rows, in which the store reads them; batches come in another one.
        self._dbfs = dict.fromkeys(rows, np.nan)

    def add_frames(self, row: int, frames: Float[np.ndarray, "K T D"]) -> None:
        """Adds the frames of a row of the table, as they are stored: those are the numbers that the head reads."""
        if self._moments is not None:
            # Others count as empty, so that the tree of all rows, which the rounding hangs on, is complete.
            state = normalisation.of_utterance(frames) if self._is_train[row] else self._left_out
            self._moments.add(row, state)

    def add_means(self, batch: audio_batches.Batch, output: Outputs) -> None:
        """Adds the means of a batch."""
        slots = [slot for slot, row in enumerate(batch.rows) if row in self._place]
        if len(self._means):
            self._means[:, [self._place[batch.rows[slot]] for slot in slots]] = output.means[:, slots]

    def add_levels(self, batch: audio_batches.Batch) -> None:
        """Notes at which level the utterances of a batch were recorded."""
        self._dbfs |= dict(zip(batch.rows, batch.dbfs.tolist(), strict=False))  # slots may be empty

    def arrays(self) -> dict[str, np.ndarray]:
        """The sums by name, as the shard keeps them."""
        moments = {} if self._moments is None else self._moments.arrays()
        moments |= {DBFS: np.array(list(self._dbfs.values()))}
        return moments | curves.part(self._means, list(self._place))
