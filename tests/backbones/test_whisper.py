"""Whisper's encoder against transformers' PyTorch model, golden files, and the real weights' reference values."""

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from seremo_jax import backbones
from seremo_jax.backbones import logmel, whisper
from tests.backbones.test_wav2vec2 import assert_close, run
from tests.support import small_models

GOLDEN = small_models.GOLDEN.parent / "whisper"
REAL = ("whisper-tiny.en-encoder", "whisper-base-encoder")


@pytest.mark.parametrize(("num_layers", "num_bands", "activation"), [(3, 80, "gelu"), (1, 128, "relu")])
def test_every_layer_equals_pytorch(num_layers, num_bands, activation, tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch")
    model = small_models.make_torch_whisper(tmp_path, num_layers, num_bands, activation)
    waves = small_models.waves((32_000, 20_123, 700))
    hidden, num_frames = run(backbones.load(tmp_path), waves, 32_000)
    normed, _ = run(backbones.load(tmp_path, final_norm=True), waves, 32_000)
    for row, wave in enumerate(waves):
        bands, states, last_hidden = small_models.torch_whisper_states(model, tmp_path, wave)
        padded = np.pad(wave, (0, 32_000 - len(wave)))[None]
        np.testing.assert_allclose(whisper.log_mel(jnp.asarray(padded), num_bands)[0].T, bands, rtol=0, atol=1e-4)
        frames = num_frames[row]
        assert frames == -(-len(wave) // 320)
        for layer, theirs in enumerate(states):
            assert_close(hidden[layer, row, :frames], theirs[:frames])
        assert_close(normed[-1, row, :frames], last_hidden[:frames])


@pytest.mark.stack
def test_every_layer_equals_the_golden_files():
    hidden, num_frames = run(backbones.load(GOLDEN), small_models.waves([20_000]), 24_000)
    with np.load(GOLDEN / "states.npz") as golden:
        assert num_frames.tolist() == [63]
        for layer, theirs in enumerate(golden["row_0"]):
            assert_close(hidden[layer, 0, :63], theirs)


@pytest.mark.stack
@pytest.mark.parametrize("name", REAL)
def test_real_weights_on_real_speech_give_the_reference(name, shared):
    """Log-mel and every layer at the frames that the reference file keeps; the frames of silence are not returned."""
    folder = shared / "weights" / name
    with np.load(folder / "reference.npz") as arrays:
        reference = dict(arrays)
    wave, rate_hz = soundfile.read(shared / str(reference["clip"]), dtype="float32")
    assert rate_hz == 16_000
    assert len(wave) == reference["num_samples"]
    padded = np.pad(wave, (0, 480_000 - len(wave)))[None]
    np.testing.assert_allclose(whisper.log_mel(jnp.asarray(padded), 80)[0].T, reference["log_mel"], rtol=0, atol=2e-5)
    backbone = backbones.load(folder)
    assert backbone.name == name
    hidden, num_frames = run(backbone, [wave], len(wave))
    assert num_frames[0] == reference["valid_frames"]
    kept = reference["frames"] < num_frames[0]
    frames = reference["frames"][kept]
    np.testing.assert_allclose(hidden[:, 0, frames], reference["hidden_at_frames"][:, kept], rtol=0, atol=1e-4)
    np.testing.assert_allclose(hidden[:, 0].mean(axis=1), reference["hidden_mean_valid"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(hidden[:, 0].std(axis=1), reference["hidden_std_valid"], rtol=0, atol=2e-5)
    last = backbones.load(folder, layers=(backbone.num_layers - 1,), final_norm=True)
    normed, _ = run(last, [wave], len(wave))
    np.testing.assert_allclose(normed[0, 0, frames], reference["final_norm_at_frames"][kept], rtol=0, atol=1e-4)


def test_real_weights_equal_transformers_own_encoder(shared):
    """The tensors of the shared folder in transformers' WhisperEncoder, on another recording than the reference's.

    The reference is the encoder in float64. Before the final norm every layer is within 1e-4 of it. One frame of this
    recording is ill-conditioned in the last layer: there no float32 is, and on some processors PyTorch's own is 3e-3
    away. Ours must not be further away than PyTorch's.
    """
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    folder = shared / "weights" / REAL[0]
    config = transformers.WhisperConfig.from_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    path = sorted((shared / "data" / "crema_d" / "audio").glob("*/*.flac"))[100]
    wave, _ = soundfile.read(path, dtype="float32")
    bands = transformers.WhisperFeatureExtractor.from_pretrained(folder)(
        wave, sampling_rate=16_000, return_tensors="pt"
    ).input_features

    def states(dtype):
        encoder = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval().to(dtype)
        encoder.load_state_dict({name.removeprefix("encoder."): value.to(dtype) for name, value in tensors.items()})
        with torch.no_grad():
            return encoder(bands.to(dtype), output_hidden_states=True).hidden_states

    hidden, num_frames = run(backbones.load(folder, final_norm=True), [wave], len(wave))
    for layer, (exact, single) in enumerate(zip(states(torch.float64), states(torch.float32), strict=True)):
        exact, single = (state[0, : num_frames[0]].numpy() for state in (exact, single))
        is_last = layer == len(hidden) - 1
        atol = max(1e-4, float(np.abs(single - exact).max())) if is_last else 1e-4
        np.testing.assert_allclose(hidden[layer, 0], exact, rtol=0, atol=atol)


def test_cut_windows_stay_close_to_the_published_ones(shared):
    """With silence to rest on, states correlate with the published ones; layer 0 sees no other frame and is equal."""
    folder = shared / "weights" / REAL[0]
    path = sorted((shared / "data" / "crema_d" / "audio").glob("*/*.flac"))[0]
    wave, _ = soundfile.read(path, dtype="float32")
    exact, _ = run(backbones.load(folder), [wave], len(wave))
    cut, _ = run(backbones.load(folder, window="cut"), [wave], len(wave))
    np.testing.assert_allclose(cut[0], exact[0], rtol=0, atol=1e-5)
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(cut, exact, strict=True)]
    assert min(correlation) > 0.85


def test_audio_beyond_the_window_is_refused_by_name():
    backbone = backbones.load(GOLDEN)
    with pytest.raises(ValueError, match=r"whisper hears 32000 samples at once, not 32001"):
        backbone(jnp.zeros((1, 32_001)), jnp.asarray([32_001]))


def test_mel_filters_of_128_bands_equal_those_published(shared):
    with np.load(shared / "weights" / "mel_filters.npz") as published:
        np.testing.assert_allclose(logmel.mel_filters(128), published["mel_128"], rtol=0, atol=1e-8)
