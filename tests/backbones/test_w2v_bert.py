"""w2v-BERT 2.0: features and every hidden state against transformers' PyTorch model, and against golden files."""

import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax import backbones
from seremo_jax.backbones import kaldi_bands
from seremo_jax.backbones.weights import CheckpointError
from tests.backbones.test_published_config import changed
from tests.backbones.test_wav2vec2 import assert_close, run
from tests.support import small_models

GOLDEN = small_models.GOLDEN.parent / "w2v_bert"
LENGTHS = (5_000, 4_880, 2_000, 500)
"""Samples: an even number of windows, an odd one, and audio too short for one frame."""


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"position_embeddings_type": "rotary", "num_hidden_layers": 1, "hidden_act": "gelu", "layer_norm_eps": 1e-2},
        {"position_embeddings_type": "relative", "num_hidden_layers": 1},
        {"left_max_position_embeddings": 0, "right_max_position_embeddings": 200, "num_hidden_layers": 1},
        {"position_embeddings_type": None, "add_adapter": True, "num_hidden_layers": 1},
    ],
    ids=["published", "rotary", "relative", "ahead", "none"],
)
def test_every_layer_equals_pytorch(settings, tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch")
    model = small_models.make_torch_w2v_bert(tmp_path, **settings)
    waves = small_models.waves(LENGTHS)
    hidden, num_frames = run(backbones.load(tmp_path), waves, 5_000)
    for row, wave in enumerate(waves):
        states = small_models.torch_w2v_bert_states(model, tmp_path, wave)
        assert num_frames[row] == len(states[0])
        for layer, theirs in enumerate(states):
            assert_close(hidden[layer, row, : num_frames[row]], theirs)


def test_the_bands_equal_transformers_own_on_real_speech(shared, tmp_path):
    """The published extractor computes in float64, as Kaldi's bands of quiet speech need digits."""
    transformers = pytest.importorskip("transformers")
    import soundfile

    path = sorted((shared / "data" / "crema_d" / "audio").glob("*/*.flac"))[7]
    wave, _ = soundfile.read(path, dtype="float32")
    theirs = transformers.SeamlessM4TFeatureExtractor()(wave, sampling_rate=16_000, return_tensors="np")
    bands = kaldi_bands.log_bands(jnp.asarray(wave)[None], 80)
    ours = np.asarray(kaldi_bands.normalised(bands, jnp.asarray([bands.shape[1]]))[0])
    expected = theirs["input_features"][0].reshape(-1, 80)[: len(ours)]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-4)


@pytest.mark.stack
def test_every_layer_equals_the_golden_files_and_bfloat16_keeps_its_direction():
    waves = small_models.waves(small_models.W2V_BERT_LENGTHS)
    hidden, num_frames = run(backbones.load(GOLDEN), waves, 5_000)
    rounded, _ = run(backbones.load(GOLDEN, dtype="bfloat16"), waves, 5_000)
    assert rounded.dtype == jnp.bfloat16
    with np.load(GOLDEN / "states.npz") as golden:
        for row, frames in enumerate(num_frames):
            exact = golden[f"row_{row}"]
            assert exact.shape[1] == frames
            assert_close(hidden[:, row, :frames], exact)
            ours = rounded[:, row, :frames].astype(np.float32)
            cosine = (exact * ours).sum(-1) / np.linalg.norm(exact, axis=-1) / np.linalg.norm(ours, axis=-1)
            assert cosine.min() > 0.998


def test_bands_that_never_move_are_0_and_not_the_rounding_of_their_mean():
    """Digital silence: the variance is 0, and what is divided by its root must be 0 whatever the length."""
    for num_frames in (33, 48, 97):
        bands = jnp.full((1, 97, 3), jnp.log(1.2e-7), jnp.float32)
        assert (kaldi_bands.normalised(bands, jnp.asarray([num_frames])) == 0).all()


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        ("preprocessor_config.json", {"num_mel_bins": 80}, r"num_mel_bins = 80 and stride = 2 give 160 features, but"),
        ("preprocessor_config.json", {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "SeamlessM4TFeatureExtra"),
        ("config.json", {"conv_depthwise_kernel_size": 4}, "conv_depthwise_kernel_size = 4 is no odd number"),
        ("config.json", {"hidden_size": 15, "position_embeddings_type": "rotary"}, "hidden_size / num_attention_heads"),
    ],
)
def test_what_cannot_be_heard_as_published_is_refused_before_weights_are_read(file, settings, message, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        changed(GOLDEN, tmp_path, name, **settings if name == file else {})
    with pytest.raises(CheckpointError, match=rf"{file}: .*{message}"):
        backbones.load(tmp_path)
