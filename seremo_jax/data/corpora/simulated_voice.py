"""Source-filter synthesis of speech-like utterances: glottal pulses and noise through moving formants, in NumPy.

Everything is filtered in the frequency domain: one short spectrum for each glottal pulse and each 5 ms frame of noise,
added up in time. That is exact for pulses (no aliasing, no filter that has to be switched while it rings) and fast.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

SAMPLE_RATE_HZ = 16_000
SHORTEST_S, LONGEST_S = 1.5, 5.0
_FRAME_S = 0.005
_FRAME_SAMPLES = int(SAMPLE_RATE_HZ * _FRAME_S)
_PULSE_SAMPLES = 1024
_LEAD_SAMPLES = 256
_DELAYS = 16
_NOISE_SAMPLES = 256
_UPPER_FORMANTS_HZ = (3500.0, 4500.0, 5500.0, 6500.0, 7500.0)
_BANDWIDTHS_HZ = np.array([70.0, 90.0, 130.0, 200.0, 260.0, 350.0, 450.0, 600.0])
_SYLLABLE_S = 0.24
_ACCENT_SEMITONES = 3.0
_ACCENT_S = 0.09


@dataclasses.dataclass(frozen=True)
class Voice:
    """What a speaker brings to every utterance, before any emotion.

    Attributes:
      pitch_hz: Middle of the speaker's pitch.
      formant_scale: Factor on formant frequencies; 1 is an average male vocal tract, larger is shorter.
      syllables_per_s: Tempo, pauses left out.
      level_db: Loudness of speaker and recording together.
      tilt_octaves: Brightness of the source, in octaves of its cut-off frequency.
      open_quotient: Open share of a glottal cycle.
      breath_db: Breath noise relative to an average voice.
      jitter: Standard deviation of a cycle's length, as a share of it.
      floor_db: Noise of the recording, in dB re full scale.
    """

    pitch_hz: float
    formant_scale: float
    syllables_per_s: float
    level_db: float
    tilt_octaves: float
    open_quotient: float
    breath_db: float
    jitter: float
    floor_db: float


class Delivery(NamedTuple):
    """How one utterance is spoken, as differences from the speaker's neutral voice; all zero is neutral.

    Attributes:
      pitch_semitones: Pitch level.
      range_log2: Size of the pitch accents, in doublings.
      slope_semitones: Pitch change from the first to the last syllable, on top of the usual declination.
      final_semitones: Pitch movement on the last syllable.
      tempo_log2: Syllables per second, in doublings.
      level_db: Loudness.
      stress_db: Loudness of stressed over unstressed syllables.
      tilt_octaves: Brightness of the source.
      open_quotient: Laxness of the voice (negative is pressed).
      breath_db: Breath noise.
      roughness_log2: Jitter and shimmer, in doublings.
      tremor_semitones: Depth of a 6 Hz tremor of the pitch.
      smile_log2: Spread lips raise the second and third formant, in doublings.
    """

    pitch_semitones: float = 0.0
    range_log2: float = 0.0
    slope_semitones: float = 0.0
    final_semitones: float = 0.0
    tempo_log2: float = 0.0
    level_db: float = 0.0
    stress_db: float = 0.0
    tilt_octaves: float = 0.0
    open_quotient: float = 0.0
    breath_db: float = 0.0
    roughness_log2: float = 0.0
    tremor_semitones: float = 0.0
    smile_log2: float = 0.0


class _Segment(NamedTuple):
    """A stretch of constant targets: amplitudes of the three sources, formants, shape of the frication noise."""

    duration_s: float
    formants_hz: tuple[float, float, float]
    voicing: float = 0.0
    breath: float = 0.0
    frication: float = 0.0
    centre_hz: float = 4000.0
    width_hz: float = 1500.0
    damping: float = 1.0
    stress: float = 0.0


_VOWELS_HZ = (
    (342, 2322, 3000), (427, 2034, 2684), (476, 2089, 2691), (580, 1799, 2605), (588, 1952, 2601), (768, 1333, 2522),
    (652, 997, 2538), (497, 910, 2459), (469, 1122, 2434), (378, 997, 2343), (623, 1200, 2550), (474, 1379, 1710),
)  # fmt: skip
"""F1, F2, F3 of twelve vowels. Source: Hillenbrand et al. 1995, men (KNOWN)."""

_LIPS, _TONGUE, _VELUM = (250.0, 950.0, 2300.0), (280.0, 1750.0, 2600.0), (260.0, 2100.0, 2500.0)
_CLOSED = {"voicing": 0.25, "damping": 2.0}
_CONSONANTS: tuple[tuple[_Segment, ...], ...] = (
    (_Segment(0.06, _LIPS), _Segment(0.01, _LIPS, frication=0.5, centre_hz=900), _Segment(0.03, _LIPS, breath=1.5)),
    (_Segment(0.06, _TONGUE), _Segment(0.01, _TONGUE, frication=0.9), _Segment(0.03, _TONGUE, breath=1.5)),
    (_Segment(0.06, _VELUM), _Segment(0.015, _VELUM, frication=0.8, centre_hz=2100), _Segment(0.03, _VELUM, breath=2)),
    (_Segment(0.06, _LIPS, **_CLOSED), _Segment(0.01, _LIPS, voicing=0.4, frication=0.3, centre_hz=900)),
    (_Segment(0.06, _TONGUE, **_CLOSED), _Segment(0.01, _TONGUE, voicing=0.4, frication=0.5)),
    (_Segment(0.06, _VELUM, **_CLOSED), _Segment(0.01, _VELUM, voicing=0.4, frication=0.4, centre_hz=2100)),
    (_Segment(0.10, _TONGUE, frication=0.8, centre_hz=6200, width_hz=1200),),
    (_Segment(0.10, _TONGUE, frication=0.8, centre_hz=3200, width_hz=900),),
    (_Segment(0.09, _LIPS, frication=0.25, centre_hz=5500, width_hz=4000),),
    (_Segment(0.08, _TONGUE, voicing=0.35, frication=0.4, centre_hz=6200, width_hz=1200),),
    (_Segment(0.08, (260.0, 1100.0, 2300.0), voicing=0.5, damping=3.0),),
    (_Segment(0.07, (270.0, 1500.0, 2500.0), voicing=0.5, damping=3.0),),
    (_Segment(0.07, (360.0, 1250.0, 2650.0), voicing=0.6, damping=1.5),),
    (_Segment(0.07, (310.0, 700.0, 2200.0), voicing=0.6, damping=1.3),),
    (_Segment(0.07, (330.0, 1100.0, 1600.0), voicing=0.6, damping=1.3),),
    (_Segment(0.06, (500.0, 1500.0, 2500.0), breath=2.5),),
)


def synthesize(voice: Voice, delivery: Delivery, rng: np.random.Generator) -> Float[np.ndarray, "num_samples"]:
    """Speaks one random sentence.

    Args:
      voice: The speaker.
      delivery: How the sentence is spoken.
      rng: Draws the syllables, the small irregularities and the noise; nothing else does.

    Returns:
      [num_samples] float32 in (-1, 1) at `SAMPLE_RATE_HZ`, between `SHORTEST_S` and `LONGEST_S` long.

    Source: source and filter as in Klatt 1980; spectrum of the glottal flow's derivative as in Doval, d'Alessandro and
      Henrich 2006 (KNOWN); sizes of everything else OURS.
    """
    segments = _sentence(voice, delivery, rng)
    durations_s = np.array([segment.duration_s for segment in segments])
    num_frames = int(durations_s.sum() / _FRAME_S)
    frame_s = (np.arange(num_frames) + 0.5) * _FRAME_S
    index = np.minimum(np.searchsorted(np.cumsum(durations_s), frame_s, side="right"), len(segments) - 1)

    def track(values: list, smoothing_s: float) -> np.ndarray:
        frames = np.asarray(values, dtype=np.float64)[index]
        return scipy.ndimage.gaussian_filter1d(frames, smoothing_s / _FRAME_S, axis=0, mode="nearest")

    formants_hz = np.exp(track([np.log(segment.formants_hz) for segment in segments], 0.02))
    formants_hz[:, 1:] *= 2.0**delivery.smile_log2
    upper_hz = np.broadcast_to(np.array(_UPPER_FORMANTS_HZ), (num_frames, len(_UPPER_FORMANTS_HZ)))
    formants_hz = np.concatenate([formants_hz, upper_hz], axis=1) * voice.formant_scale
    bandwidths_hz = track([segment.damping for segment in segments], 0.015)[:, None] * _BANDWIDTHS_HZ[None, :]
    # A short tract pushes its highest resonances out of the band: they fade to a flat response before its edge.
    bandwidths_hz = bandwidths_hz * (1 + 30 * np.clip((formants_hz - 6500) / 1000, 0, 1))
    formants_hz = np.minimum(formants_hz, 7800.0)
    poles = _poles(formants_hz, bandwidths_hz)

    stress = track([segment.stress for segment in segments], 0.03)
    loudness = 10 ** ((3.0 + delivery.stress_db) * (stress - 0.5) / 20)
    voicing = track([segment.voicing for segment in segments], 0.012) * loudness
    breath = track([segment.breath for segment in segments], 0.008)
    breath = (breath + 0.35 * voicing) * 10 ** ((voice.breath_db + delivery.breath_db) / 20)
    frication = track([segment.frication for segment in segments], 0.004) * 2.0 ** (0.5 * delivery.tilt_octaves)
    pitch_hz = voice.pitch_hz * 2 ** (_melody(segments, frame_s, delivery, rng) / 12)

    tract = 1.0 / scipy.fft.rfft(poles, _NOISE_SAMPLES, axis=1)
    shape = _noise_bands(track([s.centre_hz for s in segments], 0.004), track([s.width_hz for s in segments], 0.004))
    spectra = 0.004 * breath[:, None] * np.abs(tract) + 0.06 * frication[:, None] * shape
    signal = _voiced(voice, delivery, frame_s, pitch_hz, voicing, poles, rng) + _noise(spectra, rng)
    signal *= 0.6 * 10 ** ((voice.level_db + delivery.level_db) / 20)
    signal += 10 ** (voice.floor_db / 20) * rng.standard_normal(len(signal))
    return (signal * min(1.0, 0.97 / np.abs(signal).max())).astype(np.float32)


def _sentence(voice: Voice, delivery: Delivery, rng: np.random.Generator) -> list[_Segment]:
    """Random syllables at the speaker's tempo, with pauses, inside the allowed length."""
    stretch = 1.0 / (_SYLLABLE_S * voice.syllables_per_s * 2.0**delivery.tempo_log2)
    num_syllables, edges_s = int(rng.integers(6, 17)), rng.uniform(0.08, 0.18, 2)
    segments = [_Segment(edges_s[0], _TONGUE)]
    total_s, since_pause, syllable = float(edges_s.sum()), 0, 0
    while syllable < num_syllables or total_s < SHORTEST_S + 0.1:
        stress = float(since_pause == 0 or rng.random() < 0.35)
        onset = _CONSONANTS[rng.integers(len(_CONSONANTS))] if rng.random() < 0.9 else ()
        coda = _CONSONANTS[rng.integers(3, len(_CONSONANTS) - 1)] if rng.random() < 0.25 else ()
        vowel_s = (0.10 + 0.04 * stress) * np.exp(0.15 * rng.standard_normal()) * stretch
        formants_hz = np.array(_VOWELS_HZ[rng.integers(len(_VOWELS_HZ))]) * np.exp(0.03 * rng.standard_normal(3))
        new = [segment._replace(duration_s=segment.duration_s * stretch**0.7, stress=stress) for segment in onset]
        new.append(_Segment(float(vowel_s), tuple(formants_hz), voicing=1.0, stress=stress))
        new += [segment._replace(duration_s=segment.duration_s * stretch**0.7, stress=stress) for segment in coda]
        syllable, since_pause = syllable + 1, since_pause + 1
        if since_pause >= 3 and syllable < num_syllables - 2 and rng.random() < 0.25:
            new.append(_Segment(rng.uniform(0.10, 0.25) * stretch, _TONGUE))
            since_pause = 0
        new_s = sum(segment.duration_s for segment in new)
        if total_s + new_s > LONGEST_S - 0.1:
            break
        segments += new
        total_s += new_s
    return [*segments, _Segment(edges_s[1], _TONGUE)]


def _melody(segments: list[_Segment], frame_s: np.ndarray, delivery: Delivery, rng: np.random.Generator) -> np.ndarray:
    """Pitch over time in semitones from the speaker's middle."""
    starts_s = np.cumsum([0.0] + [segment.duration_s for segment in segments])
    vowels = [i for i, segment in enumerate(segments) if segment.voicing == 1.0]
    centres_s = np.array([starts_s[i] + 0.5 * segments[i].duration_s for i in vowels])
    stress = np.array([segments[i].stress for i in vowels])
    sizes = _ACCENT_SEMITONES * 2.0**delivery.range_log2 * stress * rng.uniform(0.6, 1.4, len(vowels))
    bumps = np.exp(-0.5 * ((frame_s[:, None] - centres_s[None, :]) / _ACCENT_S) ** 2)
    place = (frame_s - centres_s[0]) / max(centres_s[-1] - centres_s[0], 0.1)
    ending = 1 / (1 + np.exp(-(frame_s - centres_s[-1]) / 0.05))
    drift = scipy.ndimage.gaussian_filter1d(rng.standard_normal(len(frame_s)), 20.0) * 2.0 * 2.0**delivery.range_log2
    tremor = max(delivery.tremor_semitones, 0.0) * np.sin(2 * np.pi * (6.0 * frame_s + rng.random()))
    slope = (delivery.slope_semitones - 2.0) * (place - 0.5)
    return delivery.pitch_semitones + bumps @ sizes + slope + ending * (delivery.final_semitones - 1.0) + drift + tremor


def _poles(formants_hz: np.ndarray, bandwidths_hz: np.ndarray) -> np.ndarray:
    """Denominator of the cascade of resonators, [frames, 2 * formants + 1], scaled to gain 1 at 0 Hz."""
    radius = np.exp(-np.pi * bandwidths_hz / SAMPLE_RATE_HZ)
    linear = -2 * radius * np.cos(2 * np.pi * formants_hz / SAMPLE_RATE_HZ)
    product = np.zeros((len(formants_hz), 2 * formants_hz.shape[1] + 1))
    product[:, 0] = 1.0
    for b, c in zip(linear.T, (radius**2).T, strict=True):
        shifted, twice = np.zeros_like(product), np.zeros_like(product)
        shifted[:, 1:], twice[:, 2:] = product[:, :-1], product[:, :-2]
        product = product + b[:, None] * shifted + c[:, None] * twice
    return product / product.sum(axis=1, keepdims=True)


def _voiced(
    voice: Voice, delivery: Delivery, frame_s: np.ndarray, pitch_hz: np.ndarray, voicing: np.ndarray,
    poles: np.ndarray, rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Glottal pulses, each through the vocal tract as it is at that moment."""
    phase = np.cumsum(pitch_hz) * _FRAME_S
    pulse_s = np.interp(np.arange(np.ceil(phase[0]), phase[-1]), phase, frame_s)
    frame = np.minimum((pulse_s / _FRAME_S).astype(int), len(frame_s) - 1)
    roughness = 2.0**delivery.roughness_log2
    pulse_s = pulse_s + voice.jitter * roughness * rng.standard_normal(len(pulse_s)) / pitch_hz[frame]
    # More and longer pulses a second make a high voice loud; `level_db` alone is to say how loud a speaker is.
    amplitude = 1.6 * (150.0 / voice.pitch_hz) ** 1.2 * voicing[frame]
    amplitude *= np.exp(4 * voice.jitter * roughness * rng.standard_normal(len(pulse_s)))
    is_heard = voicing[frame] > 1e-3
    pulse_s, frame, amplitude = pulse_s[is_heard], frame[is_heard], amplitude[is_heard]

    bins_hz = scipy.fft.rfftfreq(_PULSE_SAMPLES, 1 / SAMPLE_RATE_HZ).astype(np.float32)[None, :]
    open_quotient = np.clip(voice.open_quotient + delivery.open_quotient, 0.35, 0.9)
    glottal_hz = (pitch_hz[frame] / (2 * open_quotient)).astype(np.float32)[:, None]
    cutoff_hz = np.float32(1600.0 * 2.0 ** (voice.tilt_octaves + delivery.tilt_octaves))
    # The opening phase grows towards the closure, as a resonance run backwards in time: hence the minus sign.
    spectra = -1j * bins_hz / glottal_hz / (1 - (bins_hz / glottal_hz) ** 2 - 1j * bins_hz / (0.8 * glottal_hz))
    spectra /= (1 + 1j * bins_hz / cutoff_hz) * scipy.fft.rfft(poles, _PULSE_SAMPLES).astype(np.complex64)[frame]

    place = np.rint(pulse_s * SAMPLE_RATE_HZ * _DELAYS).astype(int)
    delays = (np.arange(_DELAYS)[:, None] / _DELAYS + _LEAD_SAMPLES) / SAMPLE_RATE_HZ
    spectra *= np.exp(-2j * np.pi * bins_hz * delays).astype(np.complex64)[place % _DELAYS]
    pulses = scipy.fft.irfft(spectra, _PULSE_SAMPLES) * amplitude.astype(np.float32)[:, None]
    return _add_up(pulses, place // _DELAYS + _PULSE_SAMPLES - _LEAD_SAMPLES, _PULSE_SAMPLES, len(frame_s))


def _noise_bands(centre_hz: np.ndarray, width_hz: np.ndarray) -> np.ndarray:
    """Magnitude of the frication filter, [frames, bins]."""
    frequency_hz = scipy.fft.rfftfreq(_NOISE_SAMPLES, 1 / SAMPLE_RATE_HZ)[None, :]
    return 1 / (1 + ((frequency_hz - centre_hz[:, None]) / width_hz[:, None]) ** 2)


def _noise(spectra: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise given the magnitude `spectra` [frames, bins], frame by frame."""
    window = np.hanning(2 * _FRAME_SAMPLES + 1)[:-1].astype(np.float32)
    white = rng.standard_normal((len(spectra), len(window)), dtype=np.float32) * window[None, :]
    shaped = scipy.fft.irfft(scipy.fft.rfft(white, _NOISE_SAMPLES) * spectra, _NOISE_SAMPLES)
    return _add_up(shaped, np.arange(len(spectra)) * _FRAME_SAMPLES + _NOISE_SAMPLES, _NOISE_SAMPLES, len(spectra))


def _add_up(pieces: np.ndarray, starts: np.ndarray, margin: int, num_frames: int) -> np.ndarray:
    """Sum of the pieces [n, samples] placed at `starts`; `margin` samples before and after the signal are cut off."""
    num_samples = num_frames * _FRAME_SAMPLES
    out = np.zeros(num_samples + 3 * margin)
    for piece, start in zip(pieces, starts, strict=True):
        out[start : start + len(piece)] += piece
    return out[margin : margin + num_samples]
