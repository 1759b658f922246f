"""The PyTorch side: transformers' models in eval mode and inference mode, on all cores."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from launch.cores import num_cores

NO_PEER = "PyTorch is not installed: not measured"


def is_there() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def random_model(kind: str, settings: dict[str, Any], folder: Path) -> Any:
    """A model with random weights, saved as a published checkpoint.

    Args:
      kind: Prefix of transformers' class.
      settings: Of its config.
      folder: Where to save it.
    """
    import torch
    import transformers

    torch.set_num_threads(num_cores())
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings, mask_time_prob=0.0)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return model


def hidden_states(model: Any, waveforms: np.ndarray) -> list[np.ndarray]:
    """Every hidden state [B, T, D] of waveforms [B, S] of one length, normalised as published."""
    import torch

    mean, sd = waveforms.mean(axis=1, keepdims=True), waveforms.std(axis=1, keepdims=True)
    with torch.inference_mode():
        states = model(torch.from_numpy((waveforms - mean) / sd), output_hidden_states=True).hidden_states
    return [state.numpy() for state in states]


def whisper_encoder(folder: Path) -> Any:
    """Whisper's encoder with the tensors of an encoder-only folder."""
    import torch
    import transformers
    from safetensors.torch import load_file

    torch.set_num_threads(num_cores())
    config = transformers.WhisperConfig.from_pretrained(folder)
    encoder = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval()
    tensors = load_file(folder / "model.safetensors")
    encoder.load_state_dict({name.removeprefix("encoder."): value.float() for name, value in tensors.items()})
    return encoder


def whisper_states(encoder: Any, folder: Path, waveforms: np.ndarray) -> list[np.ndarray]:
    """Log-mel bands and every hidden state, windows padded to 30 s."""
    import torch
    import transformers

    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    bands = extractor(list(waveforms), sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        return [state.numpy() for state in encoder(bands, output_hidden_states=True).hidden_states]
