"""Settings that cannot be: every field of every config is refused by name, before weights are looked at."""

import json
import math
import os
import shutil

import jax
import pytest

from seremo_jax import backbones
from seremo_jax.backbones import hub, preprocessors, published_config
from seremo_jax.backbones.published_config import FIELDS, read_config
from seremo_jax.backbones.weights import CheckpointError, open_checkpoint
from tests.support.small_models import GOLDEN

FOLDERS = {
    "wav2vec2": GOLDEN / "mms-adapter",
    "hubert": GOLDEN / "hubert-batch-norm",
    "wavlm": GOLDEN / "wavlm-base",
    "unispeech": GOLDEN / "unispeech",
    "unispeech-sat": GOLDEN / "unispeech-sat",
    "data2vec-audio": GOLDEN / "data2vec-audio",
    "sew": GOLDEN / "sew",
    "mert_model": GOLDEN.parent / "mert",
    "wav2vec2-conformer": GOLDEN / "conformer-relative",
    "wav2vec2-bert": GOLDEN.parent / "w2v_bert",
    "whisper": GOLDEN.parent / "whisper",
    "qwen2_audio": GOLDEN.parent / "qwen2_audio",
    "qwen2_audio_encoder": GOLDEN.parent / "qwen2_audio" / "audio_tower",
}
NEVER = [0, -4, 1e400, math.nan, "16k", [], {}, [0], 10**400, True, 1.5]
"""No field of any config takes one of these, but for those in `SOMETIMES`."""
SOMETIMES = {
    "conv_bias": [True],
    "do_stable_layer_norm": [True],
    "feat_proj_layer_norm": [True],
    "conv_pos_batch_norm": [True],
    "adapter_attn_dim": [None],
    "position_embeddings_type": [None],
    "left_max_position_embeddings": [0],
    "right_max_position_embeddings": [0],
    "per_layer_config": [0, [], {}, None],
}


def changed(folder, tmp_path, file="config.json", **settings):
    """The settings of a golden checkpoint, with some changed."""
    content = json.loads((folder / file).read_text())
    content.get("audio_config", content).update(settings)
    (tmp_path / file).write_text(json.dumps(content))
    return tmp_path


def test_every_architecture_has_its_fields_and_every_golden_config_is_right():
    assert FIELDS.keys() == backbones.ARCHITECTURES.keys() == FOLDERS.keys()
    assert all(read_config(folder).model_type == kind for kind, folder in FOLDERS.items())
    assert set(hub._SETTINGS) == {published_config.CONFIG, preprocessors.PREPROCESSOR, preprocessors.PROCESSOR}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_value_that_cannot_be_is_refused_by_its_name(kind, tmp_path):
    published = json.loads((FOLDERS[kind] / "config.json").read_text())
    published = published.get("audio_config", published)
    for field, check in FIELDS[kind].items():
        assert field not in published or check.is_right(published[field])
        fine = SOMETIMES.get(field, [])
        assert [value for value in [*NEVER, None] if check.is_right(value)] == fine, field
    wrong = changed(FOLDERS[kind], tmp_path, **dict.fromkeys(FIELDS[kind], "16k"))
    with pytest.raises(CheckpointError) as caught:
        read_config(wrong)
    assert str(caught.value).startswith(f"{tmp_path}/config.json: ")
    assert all(f"{field} = '16k', should be " in str(caught.value) for field in FIELDS[kind])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("wavlm", {"num_attention_heads": 5}, "hidden_size = 24 is no multiple of num_attention_heads"),
        ("wavlm", {"num_conv_pos_embedding_groups": 5}, "hidden_size = 24 is no multiple of num_conv_pos_embedding_g"),
        ("wavlm", {"num_buckets": 320, "max_bucket_distance": 80}, "max_bucket_distance is not above a quarter of num"),
        ("hubert", {"conv_stride": [5, 2]}, "conv_dim, conv_kernel and conv_stride differ in length"),
        ("wav2vec2", {"conv_stride": [60_000] * 3}, "a frame sees more than 1048576 samples"),
        ("wav2vec2", {"conv_kernel": [10] * 33}, "conv_kernel = .*a list of 1 to 32 whole numbers"),
        ("wav2vec2", {"feat_extract_norm": "batch"}, "feat_extract_norm = 'batch', should be 'group' or 'layer'"),
        ("unispeech", {"per_layer_config": {"1": {"hidden_act": "relu"}}}, "per_layer_config = .*should be absent"),
        (
            "mert_model",
            {"feature_extractor_cqt": True},
            "constant-Q transform that MERT-v1 hears beside the waveform is n",
        ),
        ("wav2vec2-conformer", {"conv_depthwise_kernel_size": 4}, "conv_depthwise_kernel_size = 4 is no odd number"),
        ("qwen2_audio", {"scale_embedding": True}, "scale_embedding = True, should be False"),
        ("whisper", {"encoder_attention_heads": 5}, "d_model = 24 is no multiple of encoder_attention_heads"),
        ("whisper", {"scale_embedding": True}, "scale_embedding = True, should be False"),
        ("whisper", {"activation_function": "quick_gelu"}, "activation_function = 'quick_gelu', should be one of gelu"),
        ("whisper", {"hidden_size": -1}, "d_model = -1, should be"),  # the general name that transformers knows, too
    ],
)
def test_what_does_not_fit_together_is_refused(kind, settings, message, tmp_path):
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{message}"):
        read_config(changed(FOLDERS[kind], tmp_path, **settings))


def test_mert_without_its_transform_is_hubert(tmp_path):
    folder = shutil.copytree(GOLDEN / "hubert-base", tmp_path / "mert")
    hubert = backbones.load(folder)
    shutil.copy(FOLDERS["mert_model"] / "config.json", folder)
    mert = backbones.load(folder)
    assert mert.definition == hubert.definition
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(mert), jax.tree.leaves(hubert), strict=True))


def test_what_no_hidden_state_depends_on_is_not_even_read(tmp_path):
    """Transformers would make a table of a billion labels, and refuse a dropout that is a text."""
    settings = {"num_labels": 10**9, "id2label": 3, "hidden_dropout": "x", "vocab_size": None, "auto_map": [1]}
    config = read_config(changed(FOLDERS["wavlm"], tmp_path, **settings))
    assert config.hidden_size == 24


@pytest.mark.parametrize("size", [2, 40_000, 65_536])
def test_sizes_of_a_config_are_compared_before_memory_is_taken(size, tmp_path):
    """A model of this width and depth would have up to 50 TB."""
    folder = shutil.copytree(FOLDERS["wavlm"], tmp_path / "wavlm")
    sizes = {"hidden_size": 24 * size, "intermediate_size": 65_536, "num_hidden_layers": 1_000}
    changed(folder, folder, **sizes | {"hidden_size": min(24 * size, 65_520), "num_conv_pos_embeddings": size})
    with pytest.raises(CheckpointError, match="the tensors do not fit"):
        backbones.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": ' + "[" * 100_000, r"cannot be read \(it is nested too deeply\)"),
        ('{"model_type": "wavlm", "auto_map": ' + "[" * 900 + "]" * 900 + "}", None),
        ('{"model_type": "wavlm", "hidden_size": ' + "9" * 5_000 + "}", "cannot be read"),
        ("", "cannot be read"),
        ("null", "holds no JSON object"),
        ('{"model_type": "wavlm"}\0', "cannot be read"),
    ],
)
def test_a_config_that_no_one_wrote_is_one_error(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    if message is None:
        assert read_config(tmp_path).model_type == "wavlm"
        return
    with pytest.raises(CheckpointError, match=rf"config\.json {message}"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkdir, "is a folder"),
        (os.mkfifo, "is no file"),
        (lambda path: os.symlink("nowhere", path), "is a link to a file that is missing"),
    ],
)
def test_what_is_no_file_is_said_so_and_never_waited_for(name, make, message, tmp_path):
    folder = shutil.copytree(FOLDERS["wavlm"], tmp_path / "wavlm")
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(CheckpointError, match=rf"{name} {message}: place the published file there"):
        open_checkpoint(str(folder))


# ---- preprocessors


def nested(folder, key="feature_extractor", **settings):
    """Settings as transformers saves them from version 5 on."""
    content = {
        "processor_class": "Wav2Vec2Processor",
        key: {"feature_extractor_type": "Wav2Vec2FeatureExtractor", **settings},
    }
    (folder / "processor_config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("key", ["feature_extractor", "audio_processor"])
@pytest.mark.parametrize("is_alone", [True, False])
def test_settings_inside_processor_config_count(key, is_alone, tmp_path):
    folder = shutil.copytree(GOLDEN / "wavlm-large", tmp_path / "wavlm")
    before = backbones.load(folder, layers=(0,))
    if is_alone:
        (folder / "preprocessor_config.json").unlink()
    nested(folder, key, do_normalize=False)
    after = backbones.load(folder, layers=(0,))
    assert (before.is_normalised, after.is_normalised) == (True, False)
    assert before.revision != after.revision
    (folder / "processor_config.json").write_text('{"processor_class": "Wav2Vec2Processor"}')  # as before version 5
    if not is_alone:
        again = backbones.load(folder, layers=(0,))
        assert (again.is_normalised, again.revision) == (True, before.revision)


@pytest.mark.long
def test_transformers_writes_what_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = tmp_path / "vocab.json"
    tokenizer.write_text(json.dumps({"<pad>": 0, "<unk>": 1, "a": 2}))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    folder = shutil.copytree(GOLDEN / "wavlm-large", tmp_path / "wavlm")
    (folder / "preprocessor_config.json").unlink()
    processor = transformers.Wav2Vec2Processor(extractor, transformers.Wav2Vec2CTCTokenizer(str(tokenizer)))
    processor.save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    assert open_checkpoint(str(folder)).preprocessor.do_normalize is False


def test_a_family_model_without_these_settings_is_loaded_with_a_warning(tmp_path):
    folder = shutil.copytree(GOLDEN / "wavlm-large", tmp_path / "wavlm")
    (folder / "preprocessor_config.json").unlink()
    with pytest.warns(UserWarning, match=r"has no preprocessor_config\.json and no processor_config\.json"):
        assert backbones.load(folder, layers=(0,)).is_normalised


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_rate": "16k"}, "sampling_rate = '16k', should be a whole number from 1000"),
        ({"sampling_rate": 0}, "sampling_rate = 0"),
        ({"do_normalize": "false"}, "do_normalize = 'false', should be true or false"),
        ({"do_normalize": 1}, "do_normalize = 1"),
        ({"feature_size": 80}, "feature_size = 80, should be 1"),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "'WhisperFeatureExtractor' is not that of wavlm, Wav2"),
    ],
)
def test_settings_of_waveforms_that_cannot_be_are_refused_in_either_file(settings, message, tmp_path):
    folder = changed(FOLDERS["wavlm"], tmp_path)
    changed(FOLDERS["wavlm"], tmp_path, "preprocessor_config.json", **settings)
    with pytest.raises(CheckpointError, match=rf"/preprocessor_config\.json: .*{message}"):
        open_checkpoint(str(folder))
    nested(folder, **settings)
    with pytest.raises(CheckpointError, match=rf"/processor_config\.json: .*{message}"):
        open_checkpoint(str(folder))
    (folder / "processor_config.json").write_text('{"feature_extractor": [1]}')
    with pytest.raises(CheckpointError, match=r"processor_config\.json: feature_extractor holds no JSON object"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_rate": 22_050}, "sampling_rate = 22050, should be 16000"),
        ({"hop_length": 200}, "hop_length = 200, should be 160"),
        ({"n_fft": 10**9}, "n_fft = 1000000000, should be 400"),
        ({"dither": 1e-4}, "dither = 0.0001, should be 0"),
        ({"feature_size": 128}, r"feature_size = 128, but .*config\.json says num_mel_bins = 80"),
        (
            {"chunk_length": 30},
            r"chunk_length = 30 s gives 1500 frames, but .*config\.json says max_source_positions = 100",
        ),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "is not that of whisper, WhisperFeatureExtractor"),
    ],
)
def test_a_front_end_unlike_the_published_one_is_refused(settings, message, tmp_path):
    folder = changed(FOLDERS["whisper"], tmp_path)
    changed(FOLDERS["whisper"], tmp_path, "preprocessor_config.json", **settings)
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: .*{message}"):
        backbones.load(folder)
