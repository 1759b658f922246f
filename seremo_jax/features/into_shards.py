"""One pass of some recordings through a backbone into the shards of a folder, by one process or several."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int

from seremo_jax import backbones
from seremo_jax.core.config import Config
from seremo_jax.core.goodput import Clock, sentence
from seremo_jax.core.progress import Progress
from seremo_jax.core.sharding import is_first_process, wait_for_all
from seremo_jax.data import audio, audio_batches
from seremo_jax.features import forward, store
from seremo_jax.features.manifest import Settings, shards_of_process
from seremo_jax.features.sums import Sums


@dataclasses.dataclass(frozen=True)
class IntoShards:
    """A pass of recordings.

    Attributes:
      config: The experiment, whose sections `extract` and `backbone` are read.
      recordings: What is heard.
      backbone: What hears it.
      label: What the pass is called in progress, and where processes wait for each other.
      is_drawn: [N] utterances whose means over frames are kept, of every layer of the backbone; None keeps none.
      is_train: [N] utterances whose frames are summed up for feature statistics.
      is_quiet: Shows no progress.
      mesh: Devices that share the work; None means the default device.
    """

    config: Config
    recordings: audio_batches.Recordings
    backbone: backbones.Backbone
    label: str
    is_drawn: Bool[np.ndarray, " N"] | None
    is_train: Bool[np.ndarray, " N"]
    is_quiet: bool
    mesh: Mesh | None = None

    def begin(
        self, folder: PurePath, rows: Int[np.ndarray, " n"], settings: Settings, sums_of: Mapping[str, Any]
    ) -> store.Writer:
        """A store of some rows that the first process has begun, and that the others join.

        A writer removes what a run that was cut off has left. If all began at once, each would remove the beginnings of
        the others.
        """
        if not is_first_process():
            wait_for_all(f"{self.label}: begun")
        writer = store.Writer(folder, [self.recordings.ids[row] for row in rows], settings, sums_of)
        if is_first_process():
            wait_for_all(f"{self.label}: begun")
        return writer

    def fill(self, writer: store.Writer, rows: Int[np.ndarray, " n"]) -> None:
        """Writes every shard of this process that is not finished. Position p of the writer is row `rows[p]`."""
        recordings, settings, label = self.recordings, writer.settings, self.label
        hearing = forward.BackbonePass(
            self.config, self.backbone, settings.layers, keeps_means=self.is_drawn is not None, mesh=self.mesh
        )
        shards = [rows[shard.start : shard.stop].tolist() for shard in writer.shards]
        # All shards are planned, also finished ones and those of other processes. The batches of a shard, and with them
        # its bits, are then the same however often the run was cut off and however many processes write.
        planned = hearing.plan(shards, recordings.num_samples)
        wait_for_all(f"{label}: begin")
        own = shards_of_process(len(shards), jax.process_index(), jax.process_count())
        pending = [shard for shard in own if not writer.is_finished(shard)]
        num_own, num_pending = (sum(len(shards[s]) for s in numbers) for numbers in (own, pending))
        batches = [batch for shard in pending for batch in planned[shard]]
        keeps_means = self.is_drawn is not None
        is_drawn = self.is_drawn if keeps_means else np.zeros(len(recordings.ids), bool)
        clock, began_s, heard_s = Clock(forward.PHASES), time.monotonic(), 0.0
        with (
            contextlib.closing(clock),
            contextlib.closing(hearing.stream(batches, recordings, clock)) as outputs,
            Progress(num_own, label, "utterances", done=num_own - num_pending, is_quiet=self.is_quiet) as progress,
        ):
            for shard in pending:
                with clock.phase("store"), writer.shard(shard) as writing:
                    sums = Sums(
                        shards[shard],
                        is_drawn,
                        self.is_train,
                        self.backbone.num_layers if keeps_means else 0,
                        len(settings.layers),
                        self.backbone.num_features,
                    )
                    for _ in planned[shard]:
                        batch, output = next(outputs)
                        with clock.phase("sums"):
                            sums.add_means(batch, output)
                            sums.add_levels(batch)
                        for row, frames in hearing.frames(batch, output, recordings):
                            writing.add(recordings.ids[row], frames)
                            with clock.phase("sums"):
                                sums.add_frames(row, frames)
                        heard_s += float(batch.num_samples.sum()) / audio.SAMPLE_RATE_HZ
                        speed = heard_s / (time.monotonic() - began_s)
                        progress.update(len(batch.rows), f"{heard_s / 3600:.2f} h of audio, {speed:.0f} x real time")
                    writing.sums = sums.arrays()
            seconds = clock.seconds()
        wait_for_all(f"{label}: end")
        if not self.is_quiet and batches:
            print(f"{label}: {self._account(seconds, batches)}")

    def _account(self, seconds: Mapping[str, float], batches: Sequence[audio_batches.Planned]) -> str:
        """Where the time of a pass went, and what the backbone heard in vain."""
        least = self.backbone.least_samples
        num_samples = np.maximum(self.recordings.num_samples[[row for batch in batches for row in batch.rows]], least)
        num_padded = sum(batch.num_slots * max(batch.num_samples, least) for batch in batches)
        num_shapes = len({(batch.num_slots, batch.num_samples) for batch in batches})
        padding = 100 * (1 - num_samples.sum() / num_padded)
        return f"{sentence(seconds)}; {len(batches)} batches of {num_shapes} shapes, {padding:.1f} % padding"
