"""An utterance as it is heard in an acoustic condition.

A rendering depends on the waveform, the condition, the id of the utterance, the seed and the recordings that it draws
from. It does not depend on the order of utterances, on threads or on the model that listens. An utterance keeps its
noise over all SNRs, and its room with and without noise, so that differences between conditions are paired.

Source: METHOD.md, section 9 (OURS).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from seremo_jax.conditions import channels, noises, rooms
from seremo_jax.core import vocab
from seremo_jax.core.condition_names import BABBLE, GENERATED_NOISES, Condition, ConditionError, Effect
from seremo_jax.data.level import active_power

NUM_VOICES = 6
"""Utterances in a babble."""
RT60_TOLERANCE = 0.25
"""A measured response stands for an RT60 within this share of it."""
_BABBLE_FIELDS = {"eval": "eval.noise_kinds and eval.conditions", "extract": "extract.conditions"}
"""Section of the config -> its fields that may ask for babble."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recorded noise.

    Attributes:
      name: What it is called in manifests.
      groups: Kinds of noise it may be drawn for.
      read: Gives its waveform at the rate of the sources.
    """

    name: str
    groups: frozenset[str]
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Response:
    """A measured room response that begins with its direct path, and its reverberation time in s."""

    name: str
    rt60_s: float
    response: np.ndarray


@dataclasses.dataclass(frozen=True)
class Voices:
    """Utterances of a split, for babble.

    Attributes:
      ids: Utterance ids.
      speakers: Speaker of each.
      read: Gives the waveform of one, by its place in `ids`.
    """

    ids: tuple[str, ...]
    speakers: tuple[str, ...]
    read: Callable[[int], np.ndarray]

    @functools.cached_property
    def speaker_of(self) -> dict[str, str]:
        """Utterance id -> speaker."""
        return dict(zip(self.ids, self.speakers, strict=True))

    @functools.cached_property
    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Places and speakers of the utterances of known speakers, in the order of ids."""
        # By id and not by place in the table, which another filter of utterances would move.
        places = [place for _, place in sorted(zip(self.ids, range(len(self.ids)), strict=True))]
        places = np.array([place for place in places if self.speakers[place] != vocab.UNKNOWN], np.int64)
        return places, np.array([self.speakers[place] for place in places], object)


@dataclasses.dataclass(frozen=True)
class Sources:
    """What conditions draw from.

    Attributes:
      rate_hz: Sampling rate of all of it.
      noises: Recorded noises, in an order that does not depend on the machine.
      responses: Measured rooms, likewise.
      voices: The split, for babble.
      direct_to_tail_db: Energy of direct path over tail in synthetic rooms, in dB.
      fingerprint: Hash of the recordings and responses; empty where there are none.
      section: Section of the config whose fields name the folders, for messages.
    """

    rate_hz: int = 16_000
    noises: tuple[Recording, ...] = ()
    responses: tuple[Response, ...] = ()
    voices: Voices | None = None
    direct_to_tail_db: float = 0.0
    fingerprint: str = ""
    section: str = "eval"

    @property
    def recorded_kinds(self) -> frozenset[str]:
        """Kinds of noise that there are recordings of."""
        return frozenset().union(*(recording.groups for recording in self.noises))


@dataclasses.dataclass(frozen=True)
class Rendering:
    """An utterance in a condition.

    Attributes:
      waveform: [S] float32, as long as the utterance; within [-1, 1] if that was.
      facts: What was drawn and measured: `noise`, `snr_db` (active speech over noise, of the mixture), `room`,
        `rt60_s` (of the response), `scale` (below 1 where the whole was turned down so that the peak is 1).
    """

    waveform: np.ndarray
    facts: dict[str, Any]


def render(
    waveform: Float[np.ndarray, " S"],
    rate_hz: int,
    condition: Condition,
    utterance: str,
    seed: int,
    sources: Sources,
) -> Rendering:
    """The waveform in a condition, and what was drawn for it. In the clean condition it is the very input.

    Args:
      waveform: [S] float32, an utterance.
      rate_hz: Its sampling rate.
      condition: What to hear it in.
      utterance: Its id.
      seed: `eval.condition_seed`.
      sources: What to draw from.

    Raises:
      ConditionError: The sources lack what the condition needs, or the utterance is silent.
    """
    if rate_hz != sources.rate_hz:
        raise ConditionError(f"utterance {utterance!r} has {rate_hz} Hz, noises and rooms {sources.rate_hz} Hz")
    facts: dict[str, Any] = {"scale": 1.0}
    if not condition.effects:
        return Rendering(waveform, facts)
    # Every level is relative to that of the speech, so there must be some.
    if active_power(waveform, rate_hz) == 0:
        raise ConditionError(f"utterance {utterance!r} is silent: it has no level that {condition.id} could refer to")
    heard = np.asarray(waveform, np.float64)
    for effect in condition.effects:
        draw = _generator(utterance, effect, seed)
        heard, drawn = EFFECTS[effect.kind](heard, effect, draw, utterance, sources)
        # After each effect, since a codec behind it would clip what exceeds 1.
        peak = np.abs(heard).max()
        scale = 1.0 if peak <= 1 else 1 / peak
        facts |= {**drawn, "scale": facts["scale"] * scale}
        heard = heard * scale
    return Rendering(heard.astype(np.float32), facts)


def _generator(utterance: str, effect: Effect, seed: int) -> np.random.Generator:
    # A generator of its own for each utterance and kind of effect: no draw depends on what was drawn before it, so that
    # neither the order of utterances nor the number of threads changes a rendering.
    digest = hashlib.sha256(f"{seed}\n{effect.stream}\n{utterance}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


_Heard = tuple[np.ndarray, dict[str, Any]]
"""The waveform behind an effect, and facts of what was drawn for it."""


def _with_noise(
    heard: np.ndarray, effect: Effect, draw: np.random.Generator, utterance: str, sources: Sources
) -> _Heard:
    num_samples, rate_hz = len(heard), sources.rate_hz
    if effect.kind == BABBLE:
        voices, names = _voices(draw, utterance, sources)
        noise, name = noises.babble(draw, voices, num_samples, rate_hz), " ".join(names)
    elif effect.name in GENERATED_NOISES:
        noise = noises.colored(draw, num_samples, rate_hz, GENERATED_NOISES.index(effect.name))
        name = effect.name
    else:
        fitting = [recording for recording in sources.noises if effect.name in recording.groups]
        if not fitting:
            known = ", ".join(sorted(sources.recorded_kinds)) or "none"
            raise ConditionError(f"condition {effect}: no such noise in {sources.section}.noise_dir; there are {known}")
        chosen = fitting[int(draw.integers(len(fitting)))]
        noise, name = noises.segment(draw, chosen.read(), num_samples), chosen.name
    mixed = heard + noises.gain_for_snr(heard, noise, effect.value, rate_hz) * noise
    # Measured on what is handed on, rounded to float32, and not computed from the gain.
    added = np.mean((mixed.astype(np.float32) - heard) ** 2)
    snr_db = 10 * np.log10(active_power(heard, rate_hz) / added)
    return mixed, {"noise": name, "snr_db": float(snr_db)}


def _voices(draw: np.random.Generator, utterance: str, sources: Sources) -> tuple[list[np.ndarray], list[str]]:
    """Six utterances of other speakers, drawn from the split in the order of ids; unknown speakers may be the same."""
    voices = sources.voices
    if voices is None:
        raise ConditionError("babble needs the utterances of the split")
    places, speakers = voices.known
    # The speaker's own voice as noise would be another task: telling two utterances of one person apart.
    others = places[speakers != voices.speaker_of.get(utterance, vocab.UNKNOWN)]
    if len(others) < NUM_VOICES:
        raise ConditionError(
            f"babble for utterance {utterance!r} needs {NUM_VOICES} utterances of other known speakers of its split, "
            f"which has {len(others)}: leave babble out of {_BABBLE_FIELDS[sources.section]}"
        )
    drawn = [int(place) for place in draw.choice(others, NUM_VOICES, replace=False)]
    return [voices.read(place) for place in drawn], [voices.ids[place] for place in drawn]


def _in_room(heard: np.ndarray, effect: Effect, draw: np.random.Generator, utterance: str, sources: Sources) -> _Heard:
    rate_hz, name = sources.rate_hz, effect.name
    if name == "synthetic":
        response = rooms.synthetic(draw, effect.value, rate_hz, sources.direct_to_tail_db)
        rt60_s = rooms.rt60_s(response, rate_hz)
    elif name == "shoebox":
        try:
            response = rooms.shoebox(draw, effect.value, rate_hz)
        except (ImportError, ValueError) as error:
            raise ConditionError(f"condition {effect} for utterance {utterance!r}: {error}") from None
        rt60_s = rooms.rt60_s(response, rate_hz)
    else:
        fitting = fitting_rooms(effect, sources)
        chosen = fitting[int(draw.integers(len(fitting)))]
        response, rt60_s, name = chosen.response, chosen.rt60_s, chosen.name
    wet = rooms.reverberate(heard, response)
    # At the level of the dry speech, so that a room changes the sound and not the loudness.
    wet *= np.sqrt(active_power(heard, rate_hz) / active_power(wet, rate_hz))
    return wet, {"room": name, "rt60_s": rt60_s}


def fitting_rooms(effect: Effect, sources: Sources) -> list[Response]:
    """Measured rooms that stand for the RT60 of an effect.

    Raises:
      ConditionError: There are none.
    """
    fitting = [room for room in sources.responses if abs(room.rt60_s / effect.value - 1) <= RT60_TOLERANCE]
    if not fitting:
        known = ", ".join(f"{rt60_s:.2f}" for rt60_s in sorted(room.rt60_s for room in sources.responses))
        raise ConditionError(
            f"condition {effect}: no response of {sources.section}.rir_dir has an RT60 within {RT60_TOLERANCE:.0%} "
            f"of it; in s there are {known or 'none'}"
        )
    return fitting


EFFECTS: dict[str, Callable[..., _Heard]] = {
    "noise": _with_noise,
    BABBLE: _with_noise,
    "reverb": _in_room,
    "telephone": lambda heard, _, __, ___, sources: (channels.telephone(heard, sources.rate_hz), {}),
    "codec": lambda heard, effect, _, __, sources: (channels.codec(heard, sources.rate_hz, effect.name), {}),
    "clipping": lambda heard, effect, *_: (channels.clipped(heard, effect.value), {}),
    "gain": lambda heard, effect, *_: (heard * 10 ** (effect.value / 20), {}),
}
"""What an effect does to a waveform, by its kind in `condition_names.EFFECTS`."""
