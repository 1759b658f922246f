"""Heads of a model over frames of utterances, block by block, and what was predicted before a run was cut off."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from seremo_jax.core.arrays import read_arrays, write_arrays
from seremo_jax.core.artefacts import ArtefactError, clear_when_full, read_json, remove_tree, write_json
from seremo_jax.core.condition_names import Condition
from seremo_jax.features import condition_frames, normalisation
from seremo_jax.features.condition_frames import BlockFrames, Kept, Listener
from seremo_jax.predict import batches, passes, voices
from seremo_jax.predict.export import Speakers
from seremo_jax.predict.model_folder import Model
from seremo_jax.predict.voices import Voice
from seremo_jax.training import balance, speakers

FOLDER = "parts"
_PLAN_FILE = "plan.json"
_REMEDY = "it is made again"
_MOST_SLOTS = 32


class HeadPass:
    """The members of a model on frames of its backbone, in batches of few shapes."""

    def __init__(self, model: Model):
        self._static = passes.static_of(model.about)
        self._heads, self._layers = jax.device_put(model.heads), model.about["layers"]
        self._rate_hz = model.about["backbone"]["frame_rate_hz"]

    def __call__(
        self,
        frames: BlockFrames,
        num_frames: Int[np.ndarray, " n"],
        rows: Int[np.ndarray, " n"],
        voice_of: Mapping[int, Voice] | None = None,
    ) -> tuple[Float[np.ndarray, "E n A"], Float[np.ndarray, "E n C"]]:
        """Attributes and distributions of a block, by every member.

        Args:
          frames: Frames of the block.
          num_frames: Of each utterance.
          rows: Its row of the table. Members know no splits: each of them predicts every utterance.
          voice_of: Row -> voice of its speaker, where members are relative to speakers.
        """
        padded = np.array([self._padded(int(number)) for number in num_frames])
        parts: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for length in np.unique(padded):
            num_slots = int(np.clip(batches.BATCH_S * self._rate_hz // length, 1, _MOST_SLOTS))
            places = np.flatnonzero(padded == length)
            for start in range(0, len(places), num_slots):
                batch = places[start : start + num_slots]
                own = voice_of and voices.together([voice_of[int(row)] for row in rows[batch]], num_slots)
                attributes, distribution = self._batch(frames, num_frames[batch], batch, (num_slots, int(length)), own)
                parts |= {int(place): (attributes[:, i], distribution[:, i]) for i, place in enumerate(batch)}
        attributes, distribution = zip(*(parts[place] for place in range(len(num_frames))), strict=True)
        return np.stack(attributes, axis=1), np.stack(distribution, axis=1)

    def _batch(
        self,
        frames: BlockFrames,
        num_frames: np.ndarray,
        batch: np.ndarray,
        shape: tuple[int, int],
        speakers: Speakers | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        by_layer = [frames.read(layer, batch) for layer in self._layers]
        hidden = np.zeros((len(self._layers), *shape, by_layer[0][0].shape[1]), by_layer[0][0].dtype)
        for k, of_layer in enumerate(by_layer):
            for slot, own in enumerate(of_layer):
                hidden[k, slot, : len(own)] = own
        lengths = np.zeros(shape[0], np.int32)
        lengths[: len(batch)] = num_frames
        attributes, distribution, _ = passes.judge(*self._static, self._heads, hidden, lengths, speakers)
        return jax.device_get((attributes, distribution))

    def _padded(self, num_frames: int) -> int:
        """The length that so many frames are padded to."""
        seconds = [s for s in batches.BUCKETS_S if s * self._rate_hz >= num_frames]
        longest = batches.BUCKETS_S[-1]
        return int(np.ceil((seconds[0] if seconds else longest * np.ceil(num_frames / self._rate_hz / longest))
                           * self._rate_hz))  # fmt: skip


def voices_in(listener: Listener, condition: Condition, rows: Int[np.ndarray, " N"]) -> dict[int, Voice]:
    """Voice of the speaker of each utterance, by all of these as they are heard in a condition, in a pass of its own.

    Raises:
      ArtefactError: See `Listener.blocks`.
      ConditionError: See `Listener.blocks`.
    """
    own = speakers.by_speaker(balance.groups_of(listener.utterances, "", ()).speaker, rows)
    heard = condition_frames.each(listener, condition, rows, listener.layers)
    nothing = normalisation.empty(len(listener.layers), listener.backbone.num_features)
    rate_hz = listener.backbone.frame_rate_hz
    voice_of = dict.fromkeys(rows.tolist(), voices.of_state(nothing, rate_hz))
    for of_speaker, state in zip(own, speakers.states(own, heard), strict=True):
        voice_of |= dict.fromkeys(of_speaker.tolist(), voices.of_state(state, rate_hz))
    return voice_of


def are_all(kept: Kept, blocks: Sequence[Sequence[int]]) -> bool:
    """Whether predictions of all of these blocks are kept."""
    return all(kept.read(number, len(block)) is not None for number, block in enumerate(blocks))


class Parts:
    """Predictions of blocks in a folder. Those of another origin are removed.

    Args:
      folder: The folder.
      origin: All that decides what is predicted.
    """

    def __init__(self, folder: PurePath, origin: Mapping[str, Any]):
        self._folder, plan = folder, folder / _PLAN_FILE
        try:
            is_same = read_json(plan, _REMEDY) == dict(origin)
        except ArtefactError:
            is_same = False
        if not is_same:
            remove_tree(folder)
            with clear_when_full(folder):
                write_json(plan, dict(origin))

    def of(self, name: str) -> "_Blocks":
        """Those of one split in one condition."""
        return _Blocks(self._folder, name)


class _Blocks:
    """See `condition_frames.Kept`."""

    def __init__(self, folder: PurePath, name: str):
        self._folder, self._name = folder, name

    def _path(self, number: int) -> PurePath:
        return self._folder / f"{self._name}-{number:05d}.npz"

    def read(self, number: int, num_rows: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Attributes [E, n, A] and distributions [E, n, C] of a block of n rows; None where it was not heard yet."""
        try:
            arrays = read_arrays(self._path(number), _REMEDY, ("attributes", "distribution"))
        except ArtefactError:
            return None
        whole = arrays["attributes"], arrays["distribution"]
        return whole if all(part.ndim == 3 and part.shape[1] == num_rows for part in whole) else None

    def write(self, number: int, attributes: np.ndarray, distribution: np.ndarray) -> None:
        """Keeps those of a block."""
        with clear_when_full(self._folder):
            write_arrays(self._path(number), attributes=attributes, distribution=distribution)
