"""From speech to scores: a trained model called on a waveform, on files of any length, one or many at a time.

Speech up to the length of the longest training utterance, and 30 s in any case, is heard whole, as in training. Longer
speech is heard in the backbone's overlapping windows, and the head reads windows of 10 s every 5 s of it (both OURS):
these are the timeline, and their mean, weighted by their length, is the score of the whole. Memory is that of a window.
"""

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from seremo_jax import backbones
from seremo_jax.backbones.windows import Windowed, Windows, stream
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of
from seremo_jax.data import audio
from seremo_jax.data.audio import AudioError
from seremo_jax.features import normalisation
from seremo_jax.predict import batches, model_backbone, model_folder, passes
from seremo_jax.predict import voices as voices_lib
from seremo_jax.predict.long_audio import Sums, batches_of_windows, blocks, cut
from seremo_jax.predict.result import NO_ADAPTATION, Adaptation, Outputs, Result, Segment, summarise
from seremo_jax.predict.voices import Voice

WINDOW_S, HOP_S, LEAST_WHOLE_S = 10.0, 5.0, 30.0
_NUM_THREADS, _FILES_AT_ONCE = 4, 32


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
      ValueError: `hop_s` is not above 0 and at most `window_s`.
    """
    if not 0 < hop_s <= window_s:
        raise ValueError(f"windows of {window_s} s every {hop_s} s: the hop must be above 0 and at most the window")
    model = model_folder.read(path, members)
    return Predictor(model, model_backbone.load(path, model, backbone), window_s, hop_s)


class Predictor:
    """A model ready to be called. See `load`.

    Attributes:
      about: What it is: see `model_folder`.
      classes: Classes, in order.
      attributes: Attributes that it was trained on, in order.
      members: Names of the members.
      prototypes: What it knows of the classes of its training; None where its folder has none.
      speaker: The speaker that it is adapted to (`speakers.Speaker`); None for none.
      is_transductive: Features are relative to the speaker. Calls then need the voice of the speaker, see `voice`.
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
        self.is_transductive = model.heads.kappa_s is not None
        self._heads = jax.device_put(model.heads)
        self._hearing = passes.hearing_of(about)
        self._static = passes.static_of(about)
        # Padded lengths are whole frames, as in extraction, so that the last frame of an utterance is the same one.
        hop = round(audio.SAMPLE_RATE_HZ / backbone.frame_rate_hz)
        whole_s = max(LEAST_WHOLE_S, about["longest_s"])
        lengths = [-(-round(s * audio.SAMPLE_RATE_HZ) // hop) * hop for s in (*batches.BUCKETS_S, whole_s)]
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

    def __call__(
        self,
        waveform: np.ndarray,
        sample_rate: float | int,
        *,
        voice: Voice | None = None,
        with_embedding: bool = False,
    ) -> Result:
        """What the model says of one waveform.

        Args:
          waveform: [S] or [S, channels], at any rate and of any length; see `audio.from_samples`.
          sample_rate: Its sampling rate in Hz.
          voice: That of its speaker, where the model is relative to speakers; see `voice`.
          with_embedding: Keeps the embeddings.

        Raises:
          ArtefactError: The model needs a voice and has none, or the other way round.
          AudioError: It is empty, too short, silent or not finite.
          ValueError: It is no waveform.
        """
        self.require_voices(voice is not None)
        heard, name = audio.from_samples(waveform, sample_rate), "the waveform"
        if len(heard) > self._whole:
            return self._long(functools.partial(cut, heard), name, voice, with_embedding)
        self._require_sound(name, heard)
        ((_, output, dbfs),) = self._in_batches({0: heard}, voice and [voice])
        duration_s = len(heard) / audio.SAMPLE_RATE_HZ
        return self._summary(output, [(0.0, duration_s)], dbfs, voice, with_embedding)

    def file(self, path: str | os.PathLike, *, voice: Voice | None = None, with_embedding: bool = False) -> Result:
        """What the model says of one audio file, of any format that libsndfile knows.

        Raises:
          ArtefactError: See `__call__`.
          AudioError: It cannot be used; the message says why.
        """
        (result,) = self.files([path], voices=voice and [voice], with_embedding=with_embedding)
        if isinstance(result, AudioError):
            raise result
        return result

    def files(
        self, paths: Sequence[str | os.PathLike], *, voices: Sequence[Voice] | None = None, with_embedding: bool = False
    ) -> list[Result | AudioError]:
        """What the model says of some files, in their order; an `AudioError` in place of one that cannot be used.

        All that are heard whole are decoded at once and share batches, so give a few dozen at a time.

        Args:
          paths: The files.
          voices: That of the speaker of each, where the model is relative to speakers; see `voice`.
          with_embedding: Keeps the embeddings.

        Raises:
          ArtefactError: See `__call__`.
        """
        self.require_voices(voices is not None)
        results: list[Any] = [None] * len(paths)
        heard = self._decoded(paths)
        short = self._short(heard)
        for i, output, dbfs in self._in_batches(short, voices):
            duration_s, voice = len(short[i]) / audio.SAMPLE_RATE_HZ, voices and voices[i]
            results[i] = self._summary(output, [(0.0, duration_s)], dbfs, voice, with_embedding)
        for i, item in enumerate(heard):
            if isinstance(item, AudioError):
                results[i] = item
            elif i not in short:
                try:
                    results[i] = self._long(blocks(item, paths[i]), paths[i], voices and voices[i], with_embedding)
                except AudioError as error:
                    results[i] = error
        return results

    def over_time(
        self, path: str | os.PathLike, window_s: float, hop_s: float, voice: Voice | None = None
    ) -> tuple[Segment, ...]:
        """What the heads say of stretches of a file of any length, each judged alone; see `file`."""
        stretched = copy.copy(self)
        stretched.windows_s = (window_s, hop_s)
        return stretched._long(blocks(None, path), path, voice, False).timeline

    def voice(self, paths: Sequence[str | os.PathLike], told: Callable[[int], None] = lambda number: None) -> Voice:
        """How a speaker sounds, by all of these recordings together; what cannot be used is passed over.

        Of no recording it is the voice of an unknown speaker: all features are then relative to the training split.

        Args:
          paths: Recordings of one speaker, those that are to be judged among them.
          told: Called with the number of recordings that were heard since.
        """
        moments = normalisation.InTableOrder()
        moments.add(len(paths), self._no_frames())
        for start in range(0, len(paths), _FILES_AT_ONCE):
            some = paths[start : start + _FILES_AT_ONCE]
            heard = self._decoded(some)
            short = self._short(heard)
            for batch, padded, lengths, _ in batches.padded(short, self._buckets, self._hearing):
                hidden, num_frames = jax.device_get(passes.frames(self._backbone, padded, lengths))
                for slot, i in enumerate(batch):
                    moments.add(start + i, self._moments(hidden[:, slot, : num_frames[slot]]))
            for i, item in enumerate(heard):
                if not isinstance(item, AudioError) and i not in short:
                    with contextlib.suppress(AudioError):
                        moments.add(start + i, self._moments_of_long(blocks(item, some[i]), some[i]))
            told(len(some))
        return voices_lib.of_state(moments.total(), self.about["backbone"]["frame_rate_hz"])

    def require_voices(self, has_voices: bool) -> None:
        """Refuses to judge without the voice of the speaker where it is needed, and one where it says nothing.

        Raises:
          ArtefactError: It does.
        """
        if self.is_transductive and not has_voices:
            raise ArtefactError(
                "this model hears features relative to the speaker (model.speaker_kappa_s) and must know whose the "
                "recordings are: give --speakers=one, or --speakers=FILE.csv with the columns file and speaker; in "
                "Python voice=model.voice(PATHS)"
            )
        if has_voices and not self.is_transductive:
            raise ArtefactError(
                "this model does not hear features relative to the speaker, and who speaks changes nothing: leave out "
                "--speakers, in Python voice="
            )

    def _decoded(self, paths: Sequence[str | os.PathLike]) -> list[np.ndarray | AudioError | None]:
        with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="decode") as pool:
            return list(pool.map(self._decode, paths))

    def _short(self, heard: Sequence[np.ndarray | AudioError | None]) -> dict[int, np.ndarray]:
        """Number -> waveform of those that are heard whole."""
        return {i: item for i, item in enumerate(heard) if isinstance(item, np.ndarray) and len(item) <= self._whole}

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

    def _summary(
        self,
        output: Outputs,
        spans_s: list[tuple[float, float]],
        dbfs: float,
        voice: Voice | None,
        with_embedding: bool,
    ) -> Result:
        """What the heads say of a recording that ends with its last window, adapted to its speaker."""
        adaptation = self._adaptation if voice is None else self._adaptation.relative(voice.seconds)
        return summarise(self.about, self._adapted(output), spans_s, spans_s[-1][1], dbfs, with_embedding, adaptation)

    def _in_batches(
        self, waveforms: dict[int, np.ndarray], voices: Sequence[Voice] | None
    ) -> Iterator[tuple[int, Outputs, float]]:
        """Outputs and level of each waveform, whose number is that of its voice."""
        for batch, padded, lengths, levels in batches.padded(waveforms, self._buckets, self._hearing):
            own = voices and voices_lib.together([voices[i] for i in batch], len(padded))
            out = jax.device_get(passes.hear(*self._static, self._backbone, self._heads, padded, lengths, own))
            for slot, i in enumerate(batch):
                yield i, Outputs(*(part[:, slot : slot + 1] for part in out)), float(levels[slot])

    def _long(
        self,
        read: Callable[[], Iterable[np.ndarray]],
        name: str | os.PathLike,
        voice: Voice | None,
        with_embedding: bool,
    ) -> Result:
        """A long recording, whose blocks `read` gives as often as asked: frames cut into the head's windows."""
        about, sums = self.about["backbone"], Sums()
        length, hop = (max(1, round(s * about["frame_rate_hz"])) for s in self.windows_s)
        outputs, spans = [], []
        for starts, frames, num_frames in batches_of_windows(self._pieces(read, sums), length, hop):
            own = voice and voices_lib.together([voice] * len(starts), len(num_frames))
            out = jax.device_get(passes.judge(*self._static, self._heads, frames, num_frames, own))
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
        return self._summary(together, in_s, sums.level.dbfs, voice, with_embedding)

    def _pieces(self, read: Callable[[], Iterable[np.ndarray]], sums: Sums) -> Iterator[np.ndarray]:
        """Frames [K, t, D] of a long recording, one stretch after the other; adds its samples to `sums`."""
        about, backbone, gain = self.about["backbone"], self._backbone, 1.0
        # A backbone that is wrapped in windows brings them along. Another one gets those of the settings, because a
        # stream is cut in any case.
        if isinstance(backbone, Windowed):
            backbone, windows = backbone.params, backbone.windows
        else:
            windows = Windows.of(backbone, about["window_seconds"], about["overlap_seconds"])
        if self._hearing.level != "none":
            # The level is that of the whole recording, which has to be read once before a window of it is heard.
            whole = Sums()
            for _ in whole.added(read()):
                pass
            gain = self._hearing.gain(whole.level.dbfs)
        yield from stream(backbone, windows, (piece * np.float32(gain) for piece in sums.added(read())), passes.frames)

    def _no_frames(self) -> normalisation.State:
        return normalisation.empty(len(self.about["layers"]), self.about["backbone"]["num_features"])

    def _moments(self, frames: Float[np.ndarray, "K T D"]) -> normalisation.State:
        """Moments of frames, rounded as in the store."""
        return normalisation.of_utterance(np.asarray(frames).astype(self.about["backbone"]["stored_dtype"]))

    def _moments_of_long(
        self, read: Callable[[], Iterable[np.ndarray]], name: str | os.PathLike
    ) -> normalisation.State:
        sums, total = Sums(), self._no_frames()
        for piece in self._pieces(read, sums):
            if piece.shape[1]:
                total = normalisation.merge(total, self._moments(piece))
        sums.require_sound(name, self.about["shortest_s"])
        return total
