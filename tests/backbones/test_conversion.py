"""Backbones out of wrappers: by prefix and from shapes, with LoRA merged, equal to the models that were wrapped."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from seremo_jax import backbones
from seremo_jax.backbones import conversion, lora, sizes
from seremo_jax.backbones.published_config import FIELDS, read_config
from seremo_jax.backbones.safetensors_files import SafetensorsFile
from seremo_jax.backbones.weights import CheckpointError
from tests.support.small_models import GOLDEN

WHISPER = GOLDEN.parent / "whisper"


def tensors_of(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def wrapper(folder, tensors, config=None):
    """A checkpoint of a larger model."""
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(t) for name, t in tensors.items()}, folder / "model.safetensors"
    )
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def under(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def factors(tensors, rank, seed=0):
    """Factors of LoRA of some maps, by the path of each."""
    rng = np.random.default_rng(seed)
    paths = [
        name.removesuffix(".weight")
        for name in tensors
        if name.endswith(("q_proj.weight", "intermediate_dense.weight"))
    ]
    return {
        path: (
            rng.standard_normal((rank, tensors[f"{path}.weight"].shape[1])).astype(np.float32),
            rng.standard_normal((tensors[f"{path}.weight"].shape[0], rank)).astype(np.float32),
        )
        for path in paths
    }


@pytest.mark.parametrize("prefix", ["", "ssl_model."])
def test_a_wrapped_backbone_is_the_backbone(prefix, tmp_path):
    """Its own config beside the weights; a head; with the prefix given and found."""
    inner = tensors_of(GOLDEN / "wavlm-large")
    config = json.loads((GOLDEN / "wavlm-large" / "config.json").read_text())
    folder = wrapper(
        tmp_path / "ser", under("ssl_model.", inner) | {"head.weight": np.ones((8, 24), np.float32)}, config
    )
    shutil.copy(GOLDEN / "wavlm-large" / "preprocessor_config.json", folder)
    made = conversion.convert(str(folder), tmp_path / "wavlm", change=conversion.Change(prefix))
    assert tensors_of(made).keys() == inner.keys()
    assert all((tensors_of(made)[name] == tensor).all() for name, tensor in inner.items())
    backbone, published = backbones.load(made), backbones.load(GOLDEN / "wavlm-large")
    assert backbone.num_layers == published.num_layers
    assert backbone.is_normalised == published.is_normalised
    assert json.loads((made / "origin.json").read_text())["prefix"] == "ssl_model."


def test_of_two_backbones_the_prefix_says_which(tmp_path):
    inner = tensors_of(GOLDEN / "wavlm-base")
    teacher = {name: tensor + 1 for name, tensor in inner.items()}
    config = json.loads((GOLDEN / "wavlm-base" / "config.json").read_text())
    folder = wrapper(tmp_path / "ser", under("student.", inner) | under("teacher.", teacher), config)
    with pytest.raises(CheckpointError, match=r"has 2 backbones \(.*teacher.*\): give the prefix of the one"):
        conversion.convert(str(folder), tmp_path / "a")
    made = conversion.convert(str(folder), tmp_path / "b", change=conversion.Change("teacher."))
    assert all((tensors_of(made)[name] == tensor).all() for name, tensor in teacher.items())
    with pytest.raises(CheckpointError, match=r"no tensor under 'ssl\.', but under student\., teacher\."):
        conversion.convert(str(folder), tmp_path / "c", change=conversion.Change("ssl."))
    with pytest.raises(CheckpointError, match="is there already"):
        conversion.convert(str(folder), made, change=conversion.Change("teacher."))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("wav2vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
        ("hubert", {}),
        ("wavlm", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
        ("whisper", {}),
    ],
)
def test_shapes_say_what_the_config_of_the_published_model_says(kind, settings, tmp_path):
    """Of base and large sizes as published, by shapes alone: no numbers are made."""
    from transformers import AutoConfig, AutoModel

    torch = pytest.importorskip("torch", reason="needs PyTorch")
    large = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
    if kind == "whisper":
        settings = {"d_model": 1280, "encoder_layers": 2, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
                    "num_mel_bins": 128, "decoder_layers": 1, "decoder_attention_heads": 20}  # fmt: skip
    else:
        settings = settings | {"num_hidden_layers": 2} | (large if settings else {})
    config = AutoConfig.for_model(kind, **settings)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    (tmp_path / "config.json").write_text(json.dumps(sizes.config_of(kind, shapes, "x")))
    ours = read_config(tmp_path)
    for field in FIELDS[kind].keys() - {"per_layer_config"}:
        theirs, mine = getattr(config, field, None), getattr(ours, field, None)
        assert theirs == mine or list(theirs) == list(mine), field


def test_a_kind_without_sizes_needs_its_config(tmp_path):
    folder = wrapper(tmp_path / "ser", under("ssl.", tensors_of(GOLDEN / "wavlm-base")), {"model_type": "ser"})
    with pytest.raises(
        CheckpointError, match=r"has no config\.json of a backbone that is known here: kind must be one of"
    ):
        conversion.convert(str(folder), tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"kernels \(7, 3, 2\)|no tensor feature_extractor\.conv_layers\.3"):
        conversion.convert(str(folder), tmp_path / "a", "wavlm")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("is_root", "scale"), [(False, 8 / 4), (True, 8 / 2)])
def test_an_adapter_is_merged(is_root, scale, tmp_path):
    """By the layout of PEFT, with another wrapper's prefix in its names and a head of its own."""
    inner = tensors_of(GOLDEN / "wavlm-base")
    pairs, adapter = factors(inner, rank=4), tmp_path / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": is_root, "bias": "none", "use_dora": False}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    named = {"base_model.model.classifier.weight": np.ones((2, 24), np.float32)}
    for path, (a, b) in pairs.items():
        named |= {f"base_model.model.wavlm.{path}.lora_A.weight": a, f"base_model.model.wavlm.{path}.lora_B.weight": b}
    safetensors.numpy.save_file(named, adapter / "adapter_model.safetensors")
    made = conversion.convert(
        str(GOLDEN / "wavlm-base"), tmp_path / "merged", change=conversion.Change(adapter=str(adapter))
    )
    ours = tensors_of(made)
    assert len(pairs) == 6
    for name, tensor in inner.items():
        path = name.removesuffix(".weight")
        expected = tensor
        if path in pairs:
            a, b = (factor.astype(np.float64) for factor in pairs[path])
            expected = tensor + scale * (b @ a)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-6, atol=1e-6)
    backbones.load(made, layers=(0,))


@pytest.mark.parametrize("style", ["{}.lora_{}", "{}.lora_{}.default.weight"])
def test_factors_inside_a_checkpoint_need_their_alpha(style, tmp_path):
    """As loralib names them, and as PEFT saves a whole model."""
    inner = tensors_of(GOLDEN / "wavlm-base")
    pairs, tensors = factors(inner, rank=2), dict(inner)
    for path, (a, b) in pairs.items():
        tensors |= {style.format(path, "A"): a, style.format(path, "B"): b}
        if "default" in style:
            tensors[f"{path}.base_layer.weight"] = tensors.pop(f"{path}.weight")
    config = json.loads((GOLDEN / "wavlm-base" / "config.json").read_text())
    folder = wrapper(tmp_path / "ser", under("backbone.", tensors), config)
    with pytest.raises(CheckpointError, match=r"holds factors of LoRA .*says their alpha: give it"):
        conversion.convert(str(folder), tmp_path / "a")
    for alpha in (6.0, 0.0):
        made = conversion.convert(str(folder), tmp_path / f"{alpha}", change=conversion.Change(lora_alpha=alpha))
        ours, (path, (a, b)) = tensors_of(made), next(iter(pairs.items()))
        assert ours.keys() == inner.keys()
        np.testing.assert_allclose(ours[f"{path}.weight"], inner[f"{path}.weight"] + alpha / 2 * (b @ a), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora = True, should be absent"),
        ({"bias": "all"}, "bias = 'all', should be 'none'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = True"),
        ({"peft_type": "LOHA"}, "peft_type = 'LOHA'"),
        ({"lora_alpha": "16"}, "lora_alpha = '16'"),
        ({"r": None}, "r = None"),
    ],
)
def test_what_is_not_merged_is_refused_by_the_settings_of_the_adapter(settings, message, tmp_path):
    published = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(published | settings))
    with pytest.raises(CheckpointError, match=message):
        lora.read_settings(tmp_path)


def test_patterns_of_alpha_and_halves_of_pairs(tmp_path):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {"q_proj": 2, "layers.1.k_proj": 6}})
    )
    settings = lora.read_settings(tmp_path)
    assert settings.scale("encoder.layers.0.attention.q_proj", 4) == 0.5
    assert settings.scale("encoder.layers.1.k_proj", 2) == 3
    assert settings.scale("encoder.layers.0.attention.v_proj", 4) == 2
    with pytest.raises(CheckpointError, match="x has lora_A and not the other factor"):
        lora.require_pairs({"x": {"A": 0}}, {"x.weight": 0}, "y")
    with pytest.raises(CheckpointError, match="x has factors of LoRA and the model no such weight"):
        lora.require_pairs({"x": {"A": 0, "B": 0}}, {}, "y")
    with pytest.raises(CheckpointError, match="only the factors lora_A and lora_B"):
        lora.part_of("encoder.layers.0.q_proj.lora_magnitude_vector.weight")


def test_a_published_fine_tuned_layout_of_12_layers_is_read_as_it_is(tmp_path):
    """wav2vec 2.0 of half its layers under `wav2vec2.`, with a regression head: config.json says 12 of 24."""
    golden = GOLDEN / "wav2vec2-robust"
    tensors = {name: tensor for name, tensor in tensors_of(golden).items() if not name.startswith("encoder.layers.2.")}
    head = {"classifier.dense.weight": np.ones((24, 24), np.float32), "classifier.dense.bias": np.ones(24, np.float32),
            "classifier.out_proj.weight": np.ones((3, 24), np.float32)}  # fmt: skip
    config = json.loads((golden / "config.json").read_text()) | {
        "num_hidden_layers": 2, "architectures": ["Wav2Vec2ForSpeechClassification"], "problem_type": "regression",
    }  # fmt: skip
    folder = wrapper(tmp_path / "ser", under("wav2vec2.", tensors) | head, config)
    shutil.copy(golden / "preprocessor_config.json", folder)
    half, whole = backbones.load(folder), backbones.load(golden, layers=(0, 1, 2))
    assert (half.num_layers, whole.num_layers) == (3, 4)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(whole), strict=True))


def test_a_file_of_torch_save_is_converted_in_its_own_dtypes(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    inner = tensors_of(GOLDEN / "hubert-base")
    state = {f"model.ssl.{name}": torch.from_numpy(tensor).half() for name, tensor in inner.items()}
    shutil.copy(GOLDEN / "hubert-base" / "config.json", tmp_path)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "best.ckpt")
    made = conversion.convert(str(tmp_path / "best.ckpt"), tmp_path / "out")
    file = SafetensorsFile(made / "model.safetensors")
    assert {file.dtype_name(name) for name in file.shapes()} == {"float16"}
    assert all((file.read(name) == tensor.astype(np.float16)).all() for name, tensor in inner.items())
