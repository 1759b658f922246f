"""From speech to scores: a trained model called on a waveform, on files of any length, one or many at a time.

Speech up to the length of the longest training utterance, and 30 s in any case, is heard whole, as in training. Longer
speech is heard in the backbone's overlapping windows, and the head reads windows of 10 s every 5 s of it (both OURS):
these are the timeline, and their mean, weighted by their length, is the score of the whole. Memory is that of a window.
"""

import copy
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from seremo_jax import backbones
from seremo_jax.backbones.windows import Windowed, Windows, stream
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of
from seremo_jax.data import audio
from seremo_jax.data.audio import AudioError
from seremo_jax.data.level import Hearing
from seremo_jax.predict import export, model_backbone, model_folder
from seremo_jax.predict.long_audio import Sums, batches_of_windows, cut
from seremo_jax.predict.result import NO_ADAPTATION, Adaptation, Outputs, Result, summarise

WINDOW_S, HOP_S, LEAST_WHOLE_S = 10.0, 5.0, 30.0
BUCKETS_S = (1, 2, 3, 5, 8, 12, 20, 30)
"""Padded lengths, each compiled once it is needed."""
BATCH_S, _MOST_SLOTS, _NUM_THREADS = 160.0, 8, 4


def load(
    path: str | os.PathLike,
    *,
    members: Sequence[str] = (),
    backbone: str | os.PathLike | None = None,
    window_s: float | int = WINDOW_S,
    hop_s: float | int = HOP_S,
) -> "Predictor":
    """Reads a model and its backbone.

    Args:
      path: A folder of `python -m launch.export`, or `hf://ORG/NAME[@REVISION]` of the model hub, or a workdir with a
        finished training (or its folder `train`).
      members: Which members of a workdir, see `model_folder.pick`.
      backbone: Where the backbone is, if not where it was in training. What a model names itself is downloaded
        from the hub only where it is named here, too.
      window_s: Length of the head's windows on long recordings.
      hop_s: From one to the next.

    Raises:
      ArtefactError: No model, a damaged one, or another backbone than the one it was trained on; both sides are named.
        Or its features are relative to the speaker.
      ValueError: `hop_s` is not above 0 and at most `window_s`.
    """
    if not 0 < hop_s <= window_s:
        raise ValueError(f"windows of {window_s} s every {hop_s} s: the hop must be above 0 and at most the window")
    model = model_folder.read(path, members)
    if model.heads.kappa_s is not None:
        raise ArtefactError(
            f"{os.fspath(path)} hears features relative to the speaker (model.speaker_kappa_s), whose recordings it "
            "needs all before it judges one. Prediction judges one at a time: score it with python -m launch.evaluate "
            "(--model on another corpus), or give its head.stablehlo the statistics of the speaker"
        )
    return Predictor(model, model_backbone.load(path, model, backbone), window_s, hop_s)


def static_of(about: dict[str, Any]) -> tuple[Any, str, str]:
    """First three arguments of `judge` for a model: sizes of its heads, dtype of its store, how members are mapped."""
    return about["head"], about["backbone"]["stored_dtype"], "map" if jax.default_backend() == "cpu" else "vmap"


class Predictor:
    """A model ready to be called. See `load`.

    Attributes:
      about: What it is: see `model_folder`.
      classes: Classes, in order.
      attributes: Attributes that it was trained on, in order.
      members: Names of the members.
      prototypes: What it knows of the classes of its training; None where its folder has none.
      speaker: The speaker that it is adapted to (`speakers.Speaker`); None for none.
    """

    def __init__(
        self, model: model_folder.Model, backbone: backbones.Backbone, window_s: float | int, hop_s: float | int
    ):
        self.about = about = model.about
        self.classes = tuple(about["classes"])
        self.attributes = tuple(item["name"] for item in about["attributes"] if item["is_trained"])
        self.members = tuple(member["name"] for member in about["members"])
        self.windows_s = (window_s, hop_s)
        self.prototypes, self.speaker, self._adaptation = model.prototypes, None, NO_ADAPTATION
        self._backbone = backbone
        self._heads = jax.device_put(model.heads)
        # Models of earlier versions heard everything as it was recorded.
        self._hearing = Hearing(about["backbone"].get("level", "none"), about["backbone"].get("level_dbfs", 0.0))
        self._static = static_of(about)
        # Padded lengths are whole frames, as in extraction, so that the last frame of an utterance is the same one.
        hop = round(audio.SAMPLE_RATE_HZ / backbone.frame_rate_hz)
        whole_s = max(LEAST_WHOLE_S, about["longest_s"])
        lengths = [-(-round(s * audio.SAMPLE_RATE_HZ) // hop) * hop for s in (*BUCKETS_S, whole_s)]
        self._whole = lengths[-1]
        # Shorter than its receptive field, a backbone gives no frame at all.
        self._buckets = sorted({max(length, min(backbone.least_samples, self._whole)) for length in lengths})

    @property
    def identity(self) -> str:
        """Hash of the model, and of the speaker that it is adapted to."""
        parts = self.about if self.speaker is None else [fingerprint_of(self.about), self.speaker.fields()]
        return fingerprint_of(parts)

    def for_speaker(self, speaker: Any) -> "Predictor":
        """The same model adapted to a speaker (`speakers.Speaker`)."""
        adapted = copy.copy(self)
        adapted.speaker, adapted._adaptation = speaker, Adaptation(speaker.words, speaker.priors(self.prototypes))
        return adapted

    def _adapted(self, output: Outputs) -> Outputs:
        if self.speaker is None:
            return output
        shares = self.speaker.distribution(self.prototypes, output.distribution, output.embedding)
        return output._replace(distribution=shares)

    def __call__(self, waveform: np.ndarray, sample_rate: float | int, *, with_embedding: bool = False) -> Result:
        """What the model says of one waveform.

        Args:
          waveform: [S] or [S, channels], at any rate and of any length; see `audio.from_samples`.
          sample_rate: Its sampling rate in Hz.
          with_embedding: Keeps the embeddings.

        Raises:
          AudioError: It is empty, too short, silent or not finite.
          ValueError: It is no waveform.
        """
        return self._whole_or_long(audio.from_samples(waveform, sample_rate), "the waveform", with_embedding)

    def file(self, path: str | os.PathLike, *, with_embedding: bool = False) -> Result:
        """What the model says of one audio file, of any format that libsndfile knows.

        Raises:
          AudioError: It cannot be used; the message says why.
        """
        (result,) = self.files([path], with_embedding=with_embedding)
        if isinstance(result, AudioError):
            raise result
        return result

    def files(self, paths: Sequence[str | os.PathLike], *, with_embedding: bool = False) -> list[Result | AudioError]:
        """What the model says of some files, in their order; an `AudioError` in place of one that cannot be used.

        All that are heard whole are decoded at once and share batches, so give a few dozen at a time.
        """
        results: list[Any] = [None] * len(paths)
        with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="decode") as pool:
            heard = list(pool.map(self._decode, paths))
        short = {i: item for i, item in enumerate(heard) if isinstance(item, np.ndarray) and len(item) <= self._whole}
        for i, output, dbfs in self._in_batches(short):
            duration_s = len(short[i]) / audio.SAMPLE_RATE_HZ
            results[i] = summarise(
                self.about, output, [(0.0, duration_s)], duration_s, dbfs, with_embedding, self._adaptation
            )
        for i, item in enumerate(heard):
            if isinstance(item, AudioError):
                results[i] = item
            elif i not in short:
                read = functools.partial(*((cut, item) if isinstance(item, np.ndarray) else (audio.blocks, paths[i])))
                try:
                    results[i] = self._long(read, paths[i], with_embedding)
                except AudioError as error:
                    results[i] = error
        return results

    def _decode(self, path: str | os.PathLike) -> np.ndarray | AudioError | None:
        """A waveform to be heard whole, why there is none, or None for a long file."""
        try:
            if audio.length_s(path) * audio.SAMPLE_RATE_HZ > self._whole:
                return None
            waveform = audio.decode(path).waveform
            self._require_sound(path, waveform)
            return waveform
        except AudioError as error:
            return error

    def _require_sound(self, path: str | os.PathLike, waveform: np.ndarray) -> None:
        sums = Sums()
        sums.add(waveform)
        sums.require_sound(path, self.about["shortest_s"])

    def _whole_or_long(self, waveform: Float[np.ndarray, " S"], name: str, with_embedding: bool) -> Result:
        if len(waveform) > self._whole:
            return self._long(functools.partial(cut, waveform), name, with_embedding)
        self._require_sound(name, waveform)
        ((_, output, dbfs),) = self._in_batches({0: waveform})
        duration_s = len(waveform) / audio.SAMPLE_RATE_HZ
        return summarise(self.about, output, [(0.0, duration_s)], duration_s, dbfs, with_embedding, self._adaptation)

    def _in_batches(self, waveforms: dict[int, np.ndarray]) -> Iterator[tuple[int, Outputs, float]]:
        """Outputs and level of each waveform, in batches of few shapes: padded to a bucket, one utterance or many."""
        buckets = np.array(self._buckets)
        for bucket in self._buckets:
            group = [i for i, wave in waveforms.items() if buckets[np.searchsorted(buckets, len(wave))] == bucket]
            many = int(np.clip(BATCH_S * audio.SAMPLE_RATE_HZ // bucket, 1, _MOST_SLOTS))
            while group:
                # Two shapes a bucket: a full batch, or one by one where it would be more than half empty.
                num_slots = many if 2 * len(group) > many else 1
                batch, group = group[:num_slots], group[num_slots:]
                padded, lengths = np.zeros((num_slots, bucket), np.float32), np.zeros(num_slots, np.int32)
                levels = np.zeros(num_slots)
                for slot, i in enumerate(batch):
                    lengths[slot] = len(waveforms[i])
                    heard, levels[slot] = self._hearing.heard(waveforms[i], audio.SAMPLE_RATE_HZ)
                    padded[slot, : lengths[slot]] = heard
                out = jax.device_get(_hear(*self._static, self._backbone, self._heads, padded, lengths))
                for slot, i in enumerate(batch):
                    yield i, self._adapted(Outputs(*(part[:, slot : slot + 1] for part in out))), float(levels[slot])

    def _long(self, read: Callable[[], Iterable[np.ndarray]], name: str | os.PathLike, with_embedding: bool) -> Result:
        """A long recording, whose blocks `read` gives as often as asked: frames cut into the head's windows."""
        about, backbone = self.about["backbone"], self._backbone
        # A backbone that is wrapped in windows brings them along. Another one gets those of the settings, because a
        # stream is cut in any case.
        if isinstance(backbone, Windowed):
            backbone, windows = backbone.params, backbone.windows
        else:
            windows = Windows.of(backbone, about["window_seconds"], about["overlap_seconds"])
        length, hop = (max(1, round(s * about["frame_rate_hz"])) for s in self.windows_s)
        sums, outputs, spans, gain = Sums(), [], [], 1.0
        if self._hearing.level != "none":
            # The level is that of the whole recording, which has to be read once before a window of it is heard.
            for _ in sums.added(read()):
                pass
            gain, sums = self._hearing.gain(sums.level.dbfs), Sums()
        pieces = stream(backbone, windows, (piece * np.float32(gain) for piece in sums.added(read())), _frames)
        for starts, frames, num_frames in batches_of_windows(pieces, length, hop):
            out = jax.device_get(judge(*self._static, self._heads, frames, num_frames))
            outputs.append(Outputs(*(part[:, : len(starts)] for part in out)))
            spans += [(int(start), int(start + num)) for start, num in zip(starts, num_frames, strict=False)]
        # Known only now, for the recording was never in memory as a whole.
        sums.require_sound(name, self.about["shortest_s"])
        duration_s = sums.num_samples / audio.SAMPLE_RATE_HZ
        in_s = [
            (start / about["frame_rate_hz"], min(stop / about["frame_rate_hz"], duration_s)) for start, stop in spans
        ]
        # Frames end before the last samples do; the last window still speaks for them.
        in_s[-1] = (in_s[-1][0], duration_s)
        together = Outputs(*(np.concatenate(parts, axis=1) for parts in zip(*outputs, strict=True)))
        return summarise(
            self.about, self._adapted(together), in_s, duration_s, sums.level.dbfs, with_embedding, self._adaptation
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _hear(sizes: Any, dtype: str, member_map: str, backbone: Any, heads: Any, waveforms: Any, num_samples: Any) -> Any:
    """Waveforms [B, S] -> attributes, distribution, embedding, each [E, B, ...]."""
    hidden, num_frames = backbone(waveforms, num_samples)
    return _outputs(sizes, dtype, member_map, heads, hidden, num_frames)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def judge(
    sizes: Any, dtype: str, member_map: str, heads: Any, hidden: Any, num_frames: Any, speakers: Any = None
) -> Any:
    """Frames [K, B, T, D] of some utterances -> attributes, distribution, embedding, each [E, B, ...].

    Args:
      sizes: Sizes of the heads.
      dtype: That of the store they were trained on.
      member_map: See `export.apply`.
      heads: The heads.
      hidden: Frames of the layers that the model reads, anything beyond each length.
      num_frames: [B] valid frames.
      speakers: `export.Speakers` of the utterances, where the heads are relative to speakers.
    """
    return _outputs(sizes, dtype, member_map, heads, hidden, num_frames, speakers)


def _outputs(
    sizes: Any, dtype: str, member_map: str, heads: Any, hidden: Any, num_frames: Any, speakers: Any = None
) -> Any:
    # Rounded as in the store: those are the numbers that the head was trained on.
    out = export.apply(sizes, heads, hidden.astype(jnp.dtype(dtype)), num_frames, member_map, speakers)
    return out.attributes, out.distribution, out.embedding


@jax.jit
def _frames(backbone: Any, waveforms: Any, num_samples: Any) -> Any:
    return backbone(waveforms, num_samples)
