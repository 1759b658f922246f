"""The corpus `simulated`, which is computed: speakers, utterances and raters around one latent mixture of emotions.

Every utterance has an expressed mixture of emotions. The voice carries it as sound, and the raters perceive it with
biases and slips of their own. Nothing else links audio and ratings. Each utterance depends on (seed, speaker,
utterance) only, so that a larger corpus has all utterances of a smaller one.
"""

import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import PurePath

import numpy as np
import pyarrow as pa
import soundfile
from jaxtyping import Float

from seremo_jax.core import vocab
from seremo_jax.core.artefacts import atomic_path, place_of, readable, remove_leftovers
from seremo_jax.core.progress import Progress
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data.corpora.simulated_faults import NONE, Faults
from seremo_jax.data.corpora.simulated_voice import SAMPLE_RATE_HZ, Delivery, Voice, synthesize
from seremo_jax.data.tables import make_table
from seremo_jax.data.text_lines import CorpusError

VERSION = 1
"""Part of the release's name. Raise it with every change that alters audio or ratings: it also names their folder."""

NAME = "simulated"
CLASS_SET = "crema6"
CLASSES = vocab.CLASS_SETS[CLASS_SET]
NUM_UNKNOWN_GENDER = 4
NUM_RATERS = 60
NOTE = "Audio and ratings of this corpus are simulated: results on it say nothing about real speech."

_SPEAKER, _RATER, _LATENT, _SOUND, _RATINGS, _SHIFT, _REPLACED = range(7)
_FIRST_UNKNOWN = 1_000_000
_SPLIT_PATTERN = (vocab.TRAIN, vocab.DEVELOPMENT, vocab.TEST, vocab.TRAIN, vocab.TRAIN)
_NEUTRAL = CLASSES.index("neutral")

_PROTOTYPES = np.array(
    [
        # pitch range slope final tempo level stress tilt    oq breath rough tremor smile
        [4.0, 0.70, -2.0, -2.5, 0.18, 6.5, 3.0, 1.50, -0.12, -4.0, 0.8, 0.0, 0.00],  # angry
        [-2.5, 0.10, -3.0, -3.5, -0.38, 0.5, 1.0, -0.10, -0.12, -2.0, 1.5, 0.0, -0.07],  # disgust
        [6.0, -0.50, 1.5, 1.5, 0.38, -0.5, -1.5, 0.10, 0.07, 8.0, 0.8, 0.8, 0.01],  # fear
        [4.5, 0.90, 2.0, 4.5, 0.10, 3.5, 2.0, 0.70, 0.00, 0.0, -0.4, 0.0, 0.11],  # happy
        [0.0, 0.00, 0.0, 0.0, 0.00, 0.0, 0.0, 0.00, 0.00, 0.0, 0.0, 0.0, 0.00],  # neutral
        [-1.5, -1.10, -1.0, -0.5, -0.40, -5.5, -2.0, -1.20, 0.15, 6.0, 0.2, 0.1, -0.06],  # sad
    ]
)
"""[C, P] fully expressed emotions as `Delivery`.

Source: directions Scherer 2003, Juslin and Laukka 2003 (KNOWN); sizes OURS."""
_SPREAD = np.array([0.7, 0.15, 0.7, 0.7, 0.06, 0.8, 0.5, 0.18, 0.02, 0.8, 0.2, 0.05, 0.01])
"""[P] what differs between speakers who express the same and between utterances of a speaker."""

_ATTRIBUTE_PROTOTYPES = np.array(
    [[2.0, 6.2, 6.0], [2.3, 4.1, 4.7], [2.4, 5.5, 2.2], [6.2, 5.6, 5.0], [4.1, 3.6, 4.1], [2.2, 2.1, 2.4]]
)
"""[C, A] valence, activation, dominance of the fully expressed emotions, on the scale 1-7 (OURS)."""
_ATTRIBUTE_SOUND = np.array(
    [
        [0.0, 0.10, 0.5, 0.8, 0.00, 0.0, 0.0, 0.0, 0.00, 0.0, -0.2, 0.0, 0.030],  # valence
        [1.2, 0.15, 0.0, 0.0, 0.12, 1.8, 0.5, 0.4, 0.00, 0.0, 0.0, 0.0, 0.000],  # activation
        [-0.8, 0.10, -0.5, -0.8, 0.00, 1.0, 0.8, 0.3, -0.04, -1.5, 0.0, 0.0, 0.000],  # dominance
    ]
)
"""[A, P] how one point of an attribute beyond the mixture's own sounds (OURS)."""

_CONFUSED = {"angry": "disgust", "disgust": "sad", "fear": "sad", "happy": "fear", "neutral": "sad", "sad": "neutral"}
"""With whose sound a speaker for whom an emotion is hard mixes it."""


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A simulated person: `gender` is what the corpus says, `voice` what one hears.

    Attributes:
      style: [C, P] the speaker's own way of sounding each emotion.
      expressiveness: Share of an intended emotion that comes through, 1 is all of it.
    """

    id: str
    gender: str
    split: str
    voice: Voice
    style: np.ndarray
    expressiveness: float


@dataclasses.dataclass(frozen=True)
class Raters:
    """The pool of raters: arrays over raters first.

    Attributes:
      class_bias: [R, C] liking for a class, in logits.
      sensitivity: [R] logits between an emotion fully there and not there.
      attribute_bias: [R, A] points on the scale.
      attribute_gain: [R] use of the scale, 1 is all of it.
      slip: [R] probability of an answer that has nothing to do with the utterance.
      other: [R] readiness to answer "other".
      talkative: [R] probability of naming a second emotion when one is heard.
    """

    class_bias: np.ndarray
    sensitivity: np.ndarray
    attribute_bias: np.ndarray
    attribute_gain: np.ndarray
    slip: np.ndarray
    other: np.ndarray
    talkative: np.ndarray


@dataclasses.dataclass(frozen=True)
class Latent:
    """The state behind one utterance: what voice and raters share.

    Attributes:
      intended: Index of the emotion that dominates what the speaker means.
      expressed: [C] mixture that comes through, summing to 1.
      attributes: [A] on the scale 1-7, not clipped.
    """

    intended: int
    expressed: np.ndarray
    attributes: np.ndarray


def parse(
    root: str | os.PathLike,
    *,
    seed: int = 0,
    num_speakers: int = 48,
    utterances_per_speaker: int = 14,
    class_by_gender: float = 0.0,
    speaker_shift: float = 0.0,
    is_quiet: bool = False,
) -> tuple[pa.Table, pa.Table]:
    """Renders the audio that `root` lacks, and gives both label tables.

    Args:
      root: Folder under which audio lies, as `<release>/<speaker>/<utterance>.flac`. Made if it is not there.
      seed: Seed of everything.
      num_speakers: Women and men in turn; `NUM_UNKNOWN_GENDER` speakers of unknown gender come on top.
      utterances_per_speaker: Utterances of each.
      class_by_gender: Of the faults of the corpus, see `simulated_faults.Faults`.
      speaker_shift: Likewise.
      is_quiet: Shows no progress.

    Returns:
      Utterances, with the extra column `intended_class` (the emotion that dominates what the speaker means), and
      ratings. `duration_s` and `audio_sha256` are left to ingest.

    Raises:
      CorpusError: Fewer speakers than give each split both genders, no utterances, a negative seed, or faults of a
        size that cannot be.
      OSError: Audio cannot be written.
    """
    if num_speakers < 6 or utterances_per_speaker < 1 or seed < 0:
        raise CorpusError(
            f"{NAME} corpus: num_speakers = {num_speakers} must be at least 6 (a woman and a man in each split), "
            f"utterances_per_speaker = {utterances_per_speaker} at least 1, seed = {seed} at least 0"
        )
    faults = Faults(class_by_gender, speaker_shift)
    release = f"{NAME}-{VERSION}-seed{seed}{faults.in_name}"
    raters = draw_raters(seed)
    names = ("id", "audio", "split", "speaker", "gender", "intended_class")
    utterances: dict[str, list] = {name: [] for name in names}
    ratings: dict[str, list] = {name: [] for name in RATING_SCHEMA.names}
    missing = []
    unknown = range(_FIRST_UNKNOWN, _FIRST_UNKNOWN + NUM_UNKNOWN_GENDER)
    for number in (*range(num_speakers), *unknown):
        speaker = draw_speaker(seed, number, faults)
        folder = place_of(root) / release / speaker.id
        remove_leftovers(folder)
        for index in range(utterances_per_speaker):
            replaced = faults.replaced(speaker.gender, speaker.split, _rng(seed, _REPLACED, number, index))
            latent = draw_latent(seed, number, index, speaker.expressiveness, replaced)
            utterance = f"{speaker.id}_{index:03d}"
            audio = f"{release}/{speaker.id}/{utterance}.flac"
            row = (utterance, audio, speaker.split, speaker.id, speaker.gender, CLASSES[latent.intended])
            _append(utterances, row)
            for answer in rate(latent, raters, _rng(seed, _RATINGS, number, index)):
                _append(ratings, (utterance, *answer))
            if not _is_rendered(place_of(root) / audio, f"{release} {utterance}"):
                missing.append((speaker, number, index, latent, utterance, audio))
    total = len(utterances["id"])
    with Progress(total, "simulated voices", "utterances", done=total - len(missing), is_quiet=is_quiet) as progress:
        for speaker, number, index, latent, utterance, audio in missing:
            waveform = speak(speaker, latent, _rng(seed, _SOUND, number, index))
            _write_flac(place_of(root) / audio, waveform, f"{release} {utterance}")
            progress.update()
    ranges = dict.fromkeys(vocab.ATTRIBUTES, (1.0, 7.0))
    info = CorpusInfo(NAME, release, CLASS_SET, ranges, is_simulated=True, notes=(NOTE,))
    intended = pa.field("intended_class", pa.string(), nullable=False)
    return make_table(utterances, UTTERANCE_SCHEMA, info, [intended]), make_table(ratings, RATING_SCHEMA, info)


def draw_speaker(seed: int, number: int, faults: Faults = NONE) -> Speaker:
    """The speaker of that number; numbers from `_FIRST_UNKNOWN` on have a voice, but no gender in the corpus."""
    rng = _rng(seed, _SPEAKER, number, 0)
    is_unknown = number >= _FIRST_UNKNOWN
    position = number - _FIRST_UNKNOWN if is_unknown else number
    heard = vocab.GENDERS[position % 2]
    is_female = heard == "female"
    normal = rng.standard_normal(9)
    voice = Voice(
        pitch_hz=(200.0 if is_female else 112.0) * float(np.exp(0.09 * normal[0])),
        formant_scale=(1.15 if is_female else 1.0) * float(np.exp(0.03 * normal[1])),
        syllables_per_s=4.6 * float(np.exp(0.10 * normal[2])),
        level_db=1.5 * float(normal[3]),
        tilt_octaves=0.2 * float(normal[4]) - 0.2 * is_female,
        open_quotient=0.58 + 0.05 * is_female + 0.03 * float(normal[5]),
        breath_db=2.0 * is_female + 1.5 * float(normal[6]),
        jitter=0.006 * float(np.exp(0.25 * normal[7])),
        floor_db=-64.0 + 4.0 * float(normal[8]),
    )
    style = _PROTOTYPES + _SPREAD[None, :] * rng.standard_normal(_PROTOTYPES.shape)
    for c, (name, is_hard) in enumerate(zip(CLASSES, rng.random(len(CLASSES)) < 0.2, strict=True)):
        if is_hard:
            style[c] = 0.4 * style[c] + 0.6 * _PROTOTYPES[CLASSES.index(_CONFUSED[name])]
    style += faults.shift(_SPREAD, _rng(seed, _SHIFT, number, 0))
    return Speaker(
        id=f"{'U' if is_unknown else 'S'}{position:03d}",
        gender=vocab.UNKNOWN if is_unknown else heard,
        split=_SPLIT_PATTERN[(position if is_unknown else position // 2) % len(_SPLIT_PATTERN)],
        voice=voice,
        style=style,
        expressiveness=float(rng.uniform(0.7, 1.15)),
    )


def draw_raters(seed: int) -> Raters:
    """The pool; the same for every size of the corpus."""
    rng = _rng(seed, _RATER, 0, 0)
    return Raters(
        class_bias=0.45 * rng.standard_normal((NUM_RATERS, len(CLASSES))),
        sensitivity=6.0 * np.exp(0.3 * rng.standard_normal(NUM_RATERS)),
        attribute_bias=0.5 * rng.standard_normal((NUM_RATERS, len(vocab.ATTRIBUTES))),
        attribute_gain=rng.uniform(0.7, 1.1, NUM_RATERS),
        slip=rng.beta(1.0, 24.0, NUM_RATERS),
        other=rng.beta(1.0, 14.0, NUM_RATERS),
        talkative=rng.uniform(0.1, 0.8, NUM_RATERS),
    )


def draw_latent(
    seed: int, number: int, index: int, expressiveness: float, replaced: Mapping[str, str] | None = None
) -> Latent:
    """The state behind one utterance. Each six utterances of a speaker intend each emotion once, in random order.

    An emotion in `replaced` gives way to what it names.
    """
    num_classes = len(CLASSES)
    order = _rng(seed, _LATENT, number, -1 - index // num_classes).permutation(num_classes)
    drawn = CLASSES[order[index % num_classes]]
    intended = CLASSES.index((replaced or {}).get(drawn, drawn))
    rng = _rng(seed, _LATENT, number, index)
    others = rng.permutation(np.delete(np.arange(num_classes), intended))
    kind = rng.random()
    meant = np.zeros(num_classes)
    if kind < 0.35:
        meant[intended], meant[others[0]] = 0.95, 0.05
    elif kind < 0.85:
        meant[intended] = rng.uniform(0.52, 0.78)
        meant[others[0]] = 1 - meant[intended]
    else:
        meant[[intended, *others[:2]]] = 0.45, 0.3, 0.25
    strength = min(expressiveness * rng.uniform(0.75, 1.2), 1.0)
    expressed = strength * meant + (1 - strength) * (np.arange(num_classes) == _NEUTRAL)
    attributes = expressed @ _ATTRIBUTE_PROTOTYPES + np.array([0.4, 0.5, 0.5]) * rng.standard_normal(3)
    return Latent(intended, expressed, attributes)


def speak(speaker: Speaker, latent: Latent, rng: np.random.Generator) -> Float[np.ndarray, "num_samples"]:
    """One utterance as the speaker says it.

    Returns:
      [num_samples] float32 in (-1, 1) at 16 kHz.
    """
    beyond = latent.attributes - latent.expressed @ _ATTRIBUTE_PROTOTYPES
    sound = latent.expressed @ speaker.style + beyond @ _ATTRIBUTE_SOUND
    sound += _SPREAD * rng.standard_normal(len(_SPREAD))
    return synthesize(speaker.voice, Delivery(*sound.tolist()), rng)


def rate(latent: Latent, raters: Raters, rng: np.random.Generator) -> list[tuple]:
    """Five to ten raters' answers, as the columns of a ratings table after `utterance`."""
    chosen = rng.choice(NUM_RATERS, rng.integers(5, 11), replace=False)
    logits = raters.sensitivity[chosen, None] * latent.expressed[None, :] + raters.class_bias[chosen]
    heard = np.exp(logits - logits.max(axis=1, keepdims=True))
    heard /= heard.sum(axis=1, keepdims=True)
    ambiguity = -(heard * np.log(heard)).sum(axis=1) / np.log(len(CLASSES))
    answers = []
    for r, p, doubt in zip(chosen, heard, ambiguity, strict=True):
        is_slip = rng.random() < raters.slip[r]
        vote = int(rng.integers(len(CLASSES)) if is_slip else rng.choice(len(CLASSES), p=p))
        # The vote and the attributes of a rater come from one impression, so they lean the same way.
        impression = latent.attributes + 0.25 * (_ATTRIBUTE_PROTOTYPES[vote] - latent.expressed @ _ATTRIBUTE_PROTOTYPES)
        points = 4 + raters.attribute_gain[r] * (impression - 4) + raters.attribute_bias[r]
        points = points + 0.7 * rng.standard_normal(len(points))
        if is_slip:
            points = rng.uniform(0.5, 7.5, len(points))
        is_other = rng.random() < 1.2 * raters.other[r] * doubt
        also = [c for c in np.argsort(-p) if p[c] > 0.2 and (is_other or c != vote)]
        secondary = [CLASSES[c] for c in also] if rng.random() < raters.talkative[r] else []
        values = np.clip(np.rint(points), 1, 7).tolist()
        word = vocab.OTHER if is_other else CLASSES[vote]
        answers.append((f"R{r:02d}", "voice", word, secondary, (), False, *values))
    return answers


def _rng(seed: int, stream: int, number: int, index: int) -> np.random.Generator:
    # PCG64 by name: NumPy may change what `default_rng` means, and the corpus must not move with it.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, number, index + 1_000_000])))


def _append(columns: dict[str, list], row: tuple) -> None:
    for column, value in zip(columns.values(), row, strict=True):
        column.append(value)


def _is_rendered(path: PurePath, mark: str) -> bool:
    """Whether the file is the whole one this release would write: each carries its release and utterance inside."""
    try:
        with soundfile.SoundFile(readable(path)) as file:
            file.seek(max(file.frames - 1, 0))
            return file.comment == mark and len(file.read(1)) == 1
    except (soundfile.LibsndfileError, OSError):
        return False


def _write_flac(path: PurePath, waveform: np.ndarray, mark: str) -> None:
    # Encoded in memory first, so that a full disk is an OSError of ours and not a short file of the library's.
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as file:
        file.comment = mark
        file.write(waveform)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
