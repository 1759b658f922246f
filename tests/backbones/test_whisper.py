"""Whisper's encoder against transformers' PyTorch model, golden files, and the real weights' reference values."""

import json
import shutil

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


def test_every_layer_of_qwen2_audio_equals_pytorch(tmp_path):
    """As the whole model asks its encoder: silence is not attended to. In shards, among the tensors of a text model."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import save_file

    folder = small_models.GOLDEN.parent / "qwen2_audio"
    config = transformers.Qwen2AudioEncoderConfig.from_pretrained(folder / "audio_tower")
    torch.manual_seed(0)
    encoder = transformers.Qwen2AudioEncoder._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter)) if parameter.ndim < 2 else parameter.mul_(4.0)
    shutil.copy(folder / "config.json", tmp_path)
    extractor = transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=2)
    extractor.save_pretrained(tmp_path)
    tensors = {f"audio_tower.{name}": tensor for name, tensor in encoder.state_dict().items()}
    tensors |= {"language_model.model.layers.0.self_attn.q_proj.weight": torch.zeros(24, 24)}
    shards = {
        "model-00001-of-00002.safetensors": list(tensors)[:9],
        "model-00002-of-00002.safetensors": list(tensors)[9:],
    }
    for shard, names in shards.items():
        save_file({name: tensors[name].contiguous() for name in names}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, names in shards.items() for name in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    backbone, waves = backbones.load(tmp_path), small_models.waves((20_123, 700))
    hidden, num_frames = run(backbone, waves, 24_000)
    assert (backbone.num_layers, backbone.least_samples) == (4, 0)
    for row, wave in enumerate(waves):
        bands = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
        outside = torch.arange(100)[None, None, None, :] >= int(num_frames[row])
        mask, states = torch.where(outside, -1e9, 0.0), []
        with torch.no_grad():
            x = torch.nn.functional.gelu(encoder.conv2(torch.nn.functional.gelu(encoder.conv1(bands))))
            states = [x.permute(0, 2, 1) + encoder.embed_positions.weight]
            for layer in encoder.layers:
                output = layer(states[-1], mask)
                states.append(output[0] if isinstance(output, tuple) else output)
            # What the published forward makes of the last of them is what it gives.
            pooled = encoder.layer_norm(encoder.avg_pooler(states[-1].permute(0, 2, 1)).permute(0, 2, 1))
            torch.testing.assert_close(encoder(bands, mask).last_hidden_state, pooled)
        for layer, theirs in enumerate(states):
            assert_close(hidden[layer, row, : num_frames[row]], theirs[0, : num_frames[row]].numpy())
    with pytest.raises(ValueError, match="follows a mean of two frames"):
        backbones.load(tmp_path, final_norm=True)
    with pytest.raises(ValueError, match="is for Whisper"):
        backbones.load(tmp_path, window="cut")


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
