"""Small published-looking checkpoints of every variant of the wav2vec 2.0 family, random weights.

`python -m tests.support.small_models` (needs PyTorch) makes the golden files anew, a checkpoint and its
hidden states each.
"""

import functools
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "wav2vec2"
GOLDEN_LENGTHS = (300, 160, 37)
W2V_BERT_LENGTHS = (5_000, 4_880, 900)

SMALL = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "conv_dim": (8, 10, 12),
    "conv_kernel": (7, 3, 2),
    "conv_stride": (3, 2, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 9,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
BUCKETS = {"num_buckets": 32, "max_bucket_distance": 80}
CONFORMER = {"conv_depthwise_kernel_size": 5, "num_hidden_layers": 2}

VARIANTS = {
    "wav2vec2-base": ("Wav2Vec2", {"feat_extract_norm": "group"}),
    "wav2vec2-large": ("Wav2Vec2", {"feat_extract_norm": "group", "num_hidden_layers": 8}),
    "wav2vec2-robust": ("Wav2Vec2", {**STABLE, "num_conv_pos_embeddings": 8}),
    "xls-r": ("Wav2Vec2", {**STABLE, "conv_stride": (5, 3, 1), "conv_kernel": (10, 3, 3)}),
    "mms-adapter": ("Wav2Vec2", {**STABLE, "adapter_attn_dim": 6}),
    "hubert-base": ("Hubert", {"feat_extract_norm": "group", "num_hidden_layers": 1}),
    "hubert-large": ("Hubert", STABLE),
    "hubert-batch-norm": ("Hubert", {"feat_extract_norm": "group", "conv_pos_batch_norm": True}),
    "distilhubert": ("Hubert", {"feat_extract_norm": "group", "feat_proj_layer_norm": False, "num_hidden_layers": 2}),
    "wavlm-base": ("WavLM", {"feat_extract_norm": "group", **BUCKETS}),
    "wavlm-large": ("WavLM", {**STABLE, **BUCKETS}),
    "unispeech": ("UniSpeech", {"feat_extract_norm": "group"}),
    "unispeech-sat": ("UniSpeechSat", {**STABLE, "hidden_act": "relu"}),
    "data2vec-audio": ("Data2VecAudio", {"conv_bias": True, "conv_pos_kernel_size": 7, "num_conv_pos_embeddings": 3}),
    "sew": ("SEW", {"feat_extract_norm": "group", "squeeze_factor": 2, "num_conv_pos_embeddings": 8}),
    "conformer-relative": ("Wav2Vec2Conformer", {"feat_extract_norm": "layer", "conv_bias": True, **CONFORMER}),
    "conformer-rotary": ("Wav2Vec2Conformer", {**CONFORMER, "position_embeddings_type": "rotary"}),
}
"""Name -> transformers' class and what its config says besides `SMALL`."""
W2V_BERT = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "feature_projection_input_dim": 32,
    "conv_depthwise_kernel_size": 5,
    "left_max_position_embeddings": 6,
    "right_max_position_embeddings": 2,
}
"""What the config of a small w2v-BERT 2.0 says; 16 mel bands."""
NOT_NORMALISED = {"wav2vec2-base", "wavlm-base"}
"""Variants whose preprocessor leaves waveforms as they are."""


class Golden(NamedTuple):
    """A committed checkpoint, and every hidden state [T, D] of each waveform of `waves(lengths)`, the last raw."""

    folder: Path
    lengths: tuple[int, ...]
    states: list[list[np.ndarray]]


def waves(lengths):
    """Noise with a hum, one waveform a length."""
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(n) + 0.05 * np.sin(np.arange(n) / 9) + 0.02).astype(np.float32) for n in lengths]


def make_torch(variant, folder, seed=0, **others):
    """A PyTorch model in eval mode with no parameter at its trivial value, saved in `folder` as published ones are.

    `others` are settings besides those of the variant.
    """
    import torch
    import transformers

    kind, settings = VARIANTS[variant]
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}Model")(
        getattr(transformers, f"{kind}Config")(**{**SMALL, **others, **settings})
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter)) if parameter.ndim < 2 else parameter.mul_(1.5)
        for name, buffer in model.named_buffers():
            # Positions are constants of the published code, in no checkpoint.
            if buffer.dtype.is_floating_point and buffer.ndim and "embed_positions" not in name:
                buffer.add_(0.3 * torch.rand_like(buffer))
    model.is_normalised = variant not in NOT_NORMALISED
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=model.is_normalised).save_pretrained(folder)
    return model


def torch_states(model, wave):
    """Published hidden states, raw output of the last block, and last hidden state of one wave, each [T, D]."""
    import torch

    least = 1
    squeezed = (getattr(model.config, "squeeze_factor", 1),)
    kernels, strides = (*model.config.conv_kernel, *squeezed), (*model.config.conv_stride, *squeezed)
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        least = (least - 1) * stride + kernel
    if model.is_normalised:
        wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    wave = np.pad(wave, (0, max(0, least - len(wave))))
    outputs = []
    hook = model.encoder.layers[-1].register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        result = model(torch.from_numpy(wave)[None], output_hidden_states=True)
    hook.remove()
    states = [state[0].numpy() for state in result.hidden_states]
    return states, outputs[0][0].numpy(), result.last_hidden_state[0].numpy()


@functools.cache
def golden(variant):
    """The committed files of a variant."""
    folder = GOLDEN / variant
    with np.load(folder / "states.npz") as arrays:
        rows = [list(arrays[f"row_{row}"]) for row in range(len(GOLDEN_LENGTHS))]
    return Golden(folder, GOLDEN_LENGTHS, rows)


def write_deep(folder, num_layers):
    """A checkpoint of `num_layers` pre-norm blocks in the proportions of WavLM-large, made without PyTorch."""
    import safetensors.numpy
    import transformers

    from seremo_jax.backbones import wav2vec2
    from seremo_jax.backbones.filling import published_shapes

    settings = {**SMALL, **STABLE, **BUCKETS, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
    config = transformers.WavLMConfig(**settings | {"num_hidden_layers": num_layers})
    config.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    rng, tensors = np.random.default_rng(0), {}
    model = wav2vec2.Encoder(config, num_layers, True)
    shapes = published_shapes(model, functools.partial(wav2vec2.published_name, model_type="wavlm"))
    for name, shape in shapes.items():
        is_norm = "norm.weight" in name or name.endswith("weight_g")
        scale = 0.02 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
        tensors[name] = (scale * rng.standard_normal(shape) + is_norm).astype(np.float32)
    safetensors.numpy.save_file(tensors, Path(folder) / "model.safetensors")


def make_torch_whisper(folder, num_layers=3, num_bands=80, activation="gelu"):
    """The same for Whisper, with a window of 2 s; whole, decoder and all."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        d_model=24, encoder_layers=num_layers, encoder_attention_heads=3, encoder_ffn_dim=28, decoder_layers=1,
        decoder_attention_heads=3, decoder_ffn_dim=28, num_mel_bins=num_bands, max_source_positions=100, vocab_size=30,
        max_target_positions=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        activation_function=activation,
    )  # fmt: skip
    model = transformers.WhisperModel(config).eval()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter)) if parameter.ndim < 2 else parameter.mul_(4.0)
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=num_bands, chunk_length=2).save_pretrained(folder)
    return model


def torch_whisper_states(model, folder, wave):
    """Log-mel bands [M, F] of transformers' own extractor, raw hidden states [T, D], and the normed last one."""
    import torch
    import transformers

    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    bands = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
    outputs = []
    hook = model.encoder.layers[-1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        result = model.encoder(bands, output_hidden_states=True)
    hook.remove()
    last = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    states = [*(state[0].numpy() for state in result.hidden_states[:-1]), last.reshape(-1, last.shape[-1]).numpy()]
    return bands[0].numpy(), states, result.last_hidden_state[0].numpy()


def make_torch_w2v_bert(folder, **settings):
    """The same for w2v-BERT 2.0; with `num_mel_bins` bands."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Wav2Vec2BertConfig(**W2V_BERT | settings)
    model = transformers.Wav2Vec2BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter)) if parameter.ndim < 2 else parameter.mul_(4.0)
    model.save_pretrained(folder)
    num_bands = config.feature_projection_input_dim // 2
    transformers.SeamlessM4TFeatureExtractor(feature_size=num_bands, num_mel_bins=num_bands).save_pretrained(folder)
    return model


def torch_w2v_bert_states(model, folder, wave):
    """Hidden states [T, D] that are not masked, of features that transformers' own extractor gives.

    It is told to keep float64 up to the end: its sums of float32 are 5e-6 off.
    """
    import torch
    import transformers

    extractor = transformers.SeamlessM4TFeatureExtractor.from_pretrained(folder)
    bands_of, module = extractor._extract_fbank_features, transformers.models.seamless_m4t
    spectrogram = module.feature_extraction_seamless_m4t.spectrogram
    exactly = functools.partial(spectrogram, dtype=np.float64)
    extractor._extract_fbank_features = type(bands_of)(
        types.FunctionType(bands_of.__func__.__code__, bands_of.__func__.__globals__ | {"spectrogram": exactly}),
        extractor,
    )
    wave = np.pad(wave, (0, max(0, 560 - len(wave))))
    inputs = extractor(wave, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    is_valid = inputs.attention_mask[0].numpy().astype(bool)
    return [state[0].numpy()[is_valid] for state in states]


def _write_torch_file(folder):
    """A small file of `torch.save` with every dtype and kind of view, and the same numbers as NPZ."""
    import torch

    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    base = torch.randn(5, 7)
    state = {
        "float": base, "transposed": base.T, "sliced": base[1:4, ::2], "shared": base[2], "scalar": base[0, 0],
        "parameter": torch.nn.Parameter(base), "empty": torch.zeros(0, 3), "half": base.half(), "double": base.double(),
        "bfloat16": base.bfloat16(), "long": torch.arange(4), "bool": base > 0,
    }  # fmt: skip
    torch.save(state, folder / "tensors.bin")
    np.savez_compressed(folder / "tensors.npz", **{name: t.detach().double().numpy() for name, t in state.items()})


def _write_golden():
    whisper = GOLDEN.parent / "whisper"
    model = make_torch_whisper(whisper)
    wave = waves([20_000])[0]
    _, states, _ = torch_whisper_states(model, whisper, wave)
    np.savez_compressed(whisper / "states.npz", row_0=np.stack(states)[:, :63])
    _write_torch_file(GOLDEN.parent / "torch")
    w2v_bert = GOLDEN.parent / "w2v_bert"
    model, rows = make_torch_w2v_bert(w2v_bert), {}
    for row, wave in enumerate(waves(W2V_BERT_LENGTHS)):
        rows[f"row_{row}"] = np.stack(torch_w2v_bert_states(model, w2v_bert, wave))
    np.savez_compressed(w2v_bert / "states.npz", **rows)
    for variant in VARIANTS:
        folder = GOLDEN / variant
        model = make_torch(variant, folder)
        rows = {}
        for row, wave in enumerate(waves(GOLDEN_LENGTHS)):
            states, last_block, _ = torch_states(model, wave)
            rows[f"row_{row}"] = np.stack([*states[:-1], last_block])
        np.savez_compressed(folder / "states.npz", **rows)


if __name__ == "__main__":
    _write_golden()
