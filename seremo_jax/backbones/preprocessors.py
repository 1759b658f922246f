"""What a published feature extractor does to waveforms, from `processor_config.json` or `preprocessor_config.json`.

Only the settings that change what a model hears are read. Transformers from version 5 on saves them inside
`processor_config.json`, which then counts; before, they had a file of their own.
"""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.logmel import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from seremo_jax.backbones.settings import FLAG, checked, is_there, one_of, read_object, whole

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_NESTED = ("feature_extractor", "audio_processor")
"""Keys of `processor_config.json` that the settings stand under."""


@dataclasses.dataclass(frozen=True)
class Wav2Vec2FeatureExtractor:
    """Settings of the family of wav2vec 2.0, with the defaults of transformers."""

    sampling_rate: int = SAMPLE_RATE_HZ
    do_normalize: bool = True
    feature_size: int = 1


@dataclasses.dataclass(frozen=True)
class WhisperFeatureExtractor:
    """Settings of Whisper, likewise."""

    sampling_rate: int = SAMPLE_RATE_HZ
    feature_size: int = 80
    hop_length: int = HOP_SAMPLES
    n_fft: int = WINDOW_SAMPLES
    chunk_length: int = 30
    dither: float = 0.0


@dataclasses.dataclass(frozen=True)
class SeamlessFeatureExtractor:
    """Settings of w2v-BERT 2.0, likewise. What frames are padded with is not read: padding is never heard here."""

    NAME: ClassVar[str] = "SeamlessM4TFeatureExtractor"
    sampling_rate: int = SAMPLE_RATE_HZ
    feature_size: int = 80
    num_mel_bins: int = 80
    stride: int = 2


EXTRACTORS: dict[str, type] = {
    **dict.fromkeys(("whisper", "qwen2_audio", "qwen2_audio_encoder"), WhisperFeatureExtractor),
    "wav2vec2-bert": SeamlessFeatureExtractor,
}
"""`model_type` -> settings of the feature extractor that belongs to it; the others have that of wav2vec 2.0."""

_CHECKS = {
    Wav2Vec2FeatureExtractor: {
        "sampling_rate": whole(1_000, 384_000),
        "do_normalize": FLAG,
        "feature_size": one_of((1,)),
    },
    SeamlessFeatureExtractor: {
        "sampling_rate": one_of((SAMPLE_RATE_HZ,)),
        "feature_size": whole(1, 256),
        "num_mel_bins": whole(1, 256),
        "stride": whole(1, 16),
    },
    WhisperFeatureExtractor: {
        "sampling_rate": one_of((SAMPLE_RATE_HZ,)),
        "feature_size": whole(1, 201),
        "hop_length": one_of((HOP_SAMPLES,)),
        "n_fft": one_of((WINDOW_SAMPLES,)),
        "chunk_length": whole(1, 1 << 16),
        "dither": one_of((0, 0.0)),
    },
}


class Preprocessor(NamedTuple):
    """The settings of a feature extractor and the file that gave them; both None where there is no such file."""

    path: Path | None
    settings: Any


def read_preprocessor(folder: Path, model_type: str) -> Preprocessor:
    """The settings that a folder gives for the feature extractor of a model.

    Raises:
      CheckpointError: A file is damaged, is of another model, or asks for what this project does not do.
    """
    path, content = _content(folder)
    if content is None:
        return Preprocessor(None, None)
    wanted = EXTRACTORS.get(model_type, Wav2Vec2FeatureExtractor)
    name = getattr(wanted, "NAME", wanted.__name__)
    # Early checkpoints do not name it.
    kind = content.get("feature_extractor_type") or name
    if kind != name:
        raise CheckpointError(
            f"{path}: feature_extractor_type {kind!r:.80} is not that of {model_type}, {name}: place the "
            "published file there again"
        )
    return Preprocessor(path, wanted(**checked(str(path), content, _CHECKS[wanted])))


def _content(folder: Path) -> tuple[Path | None, dict[str, Any] | None]:
    path = folder / PROCESSOR
    if is_there(path):
        # Until version 5 this file was of another use; it counts where the settings are in it.
        content = read_object(path)
        for key in _NESTED:
            if key in content:
                if not isinstance(content[key], dict):
                    raise CheckpointError(f"{path}: {key} holds no JSON object: place the published file there again")
                return path, content[key]
    path = folder / PREPROCESSOR
    return (path, read_object(path)) if is_there(path) else (None, None)
