"""The level of active speech, whole and piece by piece, and speech brought to a level."""

import numpy as np
import pytest

from seremo_jax.data import level
from seremo_jax.data.level import Hearing, Level

RATE = 16_000


def bursts(seed=0, seconds=1.3):
    """Noise at two levels with digital silence and a hum 60 dB below in between."""
    rng = np.random.default_rng(seed)
    envelope = np.repeat([0.2, 0.0, 0.05, 0.0002], round(RATE * seconds / 4) + 1)[: round(RATE * seconds)]
    return (envelope * rng.standard_normal(len(envelope))).astype(np.float32)


def test_active_power_is_that_of_frames_within_40_db_of_the_loudest():
    wave = bursts()
    frames = [wave[start : start + 400].astype(np.float64) for start in range(0, len(wave), 400)]
    powers = [np.mean(frame**2) for frame in frames]
    active = np.concatenate([f for f, power in zip(frames, powers, strict=True) if power >= 1e-4 * max(powers)])
    assert 0.4 < len(active) / len(wave) < 0.6
    assert level.active_power(wave, RATE) == pytest.approx(np.mean(active**2), rel=1e-12)
    assert level.active_dbfs(wave, RATE) == pytest.approx(10 * np.log10(np.mean(active**2)), abs=1e-10)


def test_a_full_scale_square_wave_is_0_and_silence_has_no_level():
    assert level.active_dbfs(np.tile([1.0, -1.0], 5_000), RATE) == pytest.approx(0, abs=1e-12)
    assert level.active_dbfs(np.zeros(RATE), RATE) == -np.inf
    assert level.active_power(np.zeros(0), RATE) == 0


@pytest.mark.parametrize("size", [1, 399, 400, 401, 7_000])
def test_pieces_of_any_length_have_the_level_of_the_whole_to_the_bit(size):
    wave, pieces = bursts(seconds=0.2), Level(RATE)
    for start in range(0, len(wave), size):
        pieces.add(wave[start : start + size])
    assert pieces.dbfs == level.active_dbfs(wave, RATE)


def test_speech_is_brought_to_a_level_and_as_recorded_is_left_alone():
    wave = bursts()
    heard, dbfs = Hearing("none", -26.0).heard(wave, RATE)
    assert heard is wave
    assert dbfs == level.active_dbfs(wave, RATE)
    for quieter_db in (0, -15.6, -60):
        recorded = wave * np.float32(10 ** (quieter_db / 20))
        heard, before = Hearing("rms", -26.0).heard(recorded, RATE)
        assert heard.dtype == np.float32
        assert before == pytest.approx(dbfs + quieter_db, abs=1e-5)
        assert level.active_dbfs(heard, RATE) == pytest.approx(-26, abs=1e-5)
        np.testing.assert_allclose(heard, wave * 10 ** ((-26 - dbfs) / 20), rtol=1e-5, atol=1e-9)
    silence = np.zeros(100, np.float32)
    np.testing.assert_array_equal(Hearing("rms", -26.0).heard(silence, RATE)[0], silence)
    # Loud speech is not clipped, whatever it takes.
    assert np.abs(Hearing("rms", 0.0).heard(wave, RATE)[0]).max() > 1


def test_a_level_outside_a_range_is_said_with_both_sides():
    assert level.outside(-30.0, (-30.0, -20.0)) == level.outside(-20.0, (-30.0, -20.0)) == ""
    assert "at -45.6 dBFS is quieter than all that the model was trained on, -30.0 to -20.0" in level.outside(
        -45.6, (-30.0, -20.0)
    )
    assert "at -3.0 dBFS is louder" in level.outside(-3.0, (-30.0, -20.0))
