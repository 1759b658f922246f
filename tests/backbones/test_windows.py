"""Long audio in overlapping windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax import backbones
from seremo_jax.backbones.windows import Windowed, Windows, stream
from tests.support.compiler import LOOPS_AS_IN_PRODUCTION
from tests.support.small_models import GOLDEN

WINDOWS = Windows(window_samples=6_400, step_samples=3_200, hop_samples=320)


def noise(num_samples, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)


@functools.partial(jax.jit, compiler_options=LOOPS_AS_IN_PRODUCTION)
def run(backbone, waveforms, num_samples):
    return backbone(waveforms, num_samples)


def batch_of(waves, num_samples):
    batch = np.full((len(waves), num_samples), np.nan, np.float32)
    for row, wave in enumerate(waves):
        batch[row, : len(wave)] = wave
    return jnp.asarray(batch), jnp.asarray([len(wave) for wave in waves], jnp.int32)


def test_frames_that_depend_on_their_samples_alone_are_those_of_the_whole():
    """Log-mel bands know nothing beyond their 25 ms: joined from windows they must be what they are in one piece."""
    local = backbones.load("logmel", layers=(0,))
    waves = [noise(length, length) for length in (16_000, 6_400, 6_401, 9_600, 9_601, 12_345, 300, 31_999)]
    batch, lengths = batch_of(waves, 32_000)
    whole, num_frames = run(local, batch, lengths)
    joined, frames = run(Windowed(local, WINDOWS), batch, lengths)
    assert frames.tolist() == num_frames.tolist()
    np.testing.assert_allclose(joined, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 399, 6_399, 6_400, 6_401, 9_600, 9_601, 40_000])
def test_every_frame_has_one_window_that_holds_it_with_context(num_samples):
    frames = np.arange(max(1, (num_samples - 400) // 320 + 1))
    count = int(WINDOWS.number_of(num_samples))
    owner = np.minimum(WINDOWS.owner_of(frames), count - 1)
    assert owner[0] == 0
    assert set(np.diff(owner)) <= {0, 1}
    start = owner * WINDOWS.step_samples
    end = np.minimum(start + WINDOWS.window_samples, num_samples)
    assert (320 * frames >= start).all()
    assert (np.minimum(320 * frames + 400, num_samples) <= end).all()
    inner = (owner > 0) & (owner < count - 1)
    assert (320 * frames[inner] - start[inner] >= 1_600).all()
    assert (count - 1) * WINDOWS.step_samples < num_samples
    if count > 1:
        assert num_samples > (count - 2) * WINDOWS.step_samples + WINDOWS.window_samples


def test_a_stream_of_pieces_is_the_batch_in_windows_and_compiles_once():
    backbone = backbones.load(GOLDEN / "wavlm-large", layers=(3, 1))
    windowed = backbones.windowed(backbone, 0.5, 0.2)
    wave, shapes = noise(40_000), []

    def counted(backbone, waveforms, num_samples):
        shapes.append(waveforms.shape)
        return run(backbone, waveforms, num_samples)

    parts = np.split(wave, [1, 7_000, 7_010, 30_000])
    pieces = list(stream(backbone, windowed.windows, parts, counted))
    joined, num_frames = run(windowed, *batch_of([wave], 40_000))
    assert len(pieces) == int(windowed.windows.number_of(40_000)) > 3
    assert set(shapes) == {(1, windowed.windows.window_samples)}
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), joined[:, 0, : num_frames[0]], rtol=0, atol=1e-5)


def test_audio_of_one_window_passes_through_untouched():
    backbone = backbones.load(GOLDEN / "wavlm-large")
    windowed = backbones.windowed(backbone, 0.5, 0.2)
    batch, lengths = batch_of([noise(7_000)], 8_000)
    np.testing.assert_array_equal(run(windowed, batch, lengths)[0], run(backbone, batch, lengths)[0])
    assert (windowed.name, windowed.revision, windowed.layers) == (backbone.name, backbone.revision, backbone.layers)


def test_windows_that_cannot_be_are_refused():
    backbone = backbones.load(GOLDEN.parent / "whisper")
    with pytest.raises(ValueError, match="shorter than the window"):
        backbones.windowed(backbone, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"at least 0\.2 s"):
        backbones.windowed(backbone, 1.0, 0.1)
    with pytest.raises(ValueError, match="hears 2 s at once"):
        backbones.windowed(backbone, 3.0, 0.5)
    logmel = backbones.load("logmel")
    assert backbones.windowed(logmel, 1.0, 0.3) is logmel
