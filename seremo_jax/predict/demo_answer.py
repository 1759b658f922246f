"""What the page of `launch.demo` shows of a recording: the record of `launch.predict`, and what is drawn beside it."""

import os
from pathlib import PurePath
from typing import Any

import numpy as np

from seremo_jax.core.folders import printable
from seremo_jax.data import audio
from seremo_jax.data.audio_containers import FOREIGN_SUFFIXES
from seremo_jax.predict import files, model_card
from seremo_jax.predict.predictor import Predictor

STRETCH_S, EVERY_S = 1.5, 0.3
"""Stretches of a recording that is heard whole, for its curve over time; its answer is not made of them. OURS."""
_NUM_BINS = 600
_FULL_SCALE, _MOST_CLIPPED = 0.999, 0.001


def about(predictor: Predictor, name: str) -> dict[str, Any]:
    """What the page says of the model before it hears anything.

    Args:
      predictor: The model.
      name: What to call it.
    """
    record, protocol = predictor.about, predictor.about["protocol"]
    return {
        "model": printable(PurePath(name).name or name),
        "corpus": str(protocol.get("corpus", "not stated")),
        "backbone": record["backbone"]["name"],
        "layers": record["layers"],
        "classes": list(predictor.classes),
        "num_members": len(predictor.members),
        "coverage": protocol.get("settings", {}).get("eval.coverage"),
        "shortest_s": record["shortest_s"],
        "browser_decodes": list(FOREIGN_SUFFIXES),
        "cannot_know": [model_card.VOTES_ONLY, f"{model_card.UNTESTED}.", model_card.BY_SPEAKER],
    }


def of_file(predictor: Predictor, path: str | os.PathLike, name: str) -> dict[str, Any]:
    """The record of `launch.predict` under `record`; shares `over_time`; the `waveform`; and `warnings` of the page.

    A model whose features are relative to the speaker knows the speaker by this recording alone (`--speakers=one`).

    Args:
      predictor: The model.
      path: The recording.
      name: What its record calls it.

    Raises:
      AudioError: It cannot be used; the message says why.
      ArtefactError: The model gives no finite number.
    """
    voice = predictor.voice([path]) if predictor.is_transductive else None
    result = predictor.file(path, voice=voice)
    segments, is_whole = result.timeline, len(result.timeline) == 1
    if is_whole and result.duration_s > STRETCH_S:
        segments = predictor.over_time(path, STRETCH_S, EVERY_S, voice)
    waveform, clipped = _envelope(path, round(result.duration_s * audio.SAMPLE_RATE_HZ))
    spans = [
        {
            "start_s": round(segment.start_s, 3),
            "end_s": round(segment.end_s, 3),
            "distribution": {c: round(share, 6) for c, share in segment.distribution.items()},
        }
        for segment in segments
    ]
    record = {"file": printable(name), **files.to_record(result)}
    return {
        "record": record,
        "over_time": {"is_heard_whole": is_whole, "segments": spans},
        "waveform": waveform,
        "warnings": [*record["warnings"], *_clipping(clipped)],
    }


def _envelope(path: str | os.PathLike, num_samples: int) -> tuple[dict[str, list[float]], float]:
    """Lowest and highest sample of each of `_NUM_BINS` equal parts, and the share of samples at full scale."""
    lowest, highest = np.zeros(_NUM_BINS, np.float32), np.zeros(_NUM_BINS, np.float32)
    start = num_clipped = 0
    for piece in audio.blocks(path):
        places = np.arange(start, start + len(piece)) * _NUM_BINS // max(num_samples, 1)
        places = np.minimum(places, _NUM_BINS - 1)
        np.minimum.at(lowest, places, piece)
        np.maximum.at(highest, places, piece)
        num_clipped += int(np.count_nonzero(np.abs(piece) >= _FULL_SCALE))
        start += len(piece)
    rounded = {"lowest": [round(float(value), 4) for value in lowest]}
    rounded["highest"] = [round(float(value), 4) for value in highest]
    return rounded, num_clipped / max(start, 1)


def _clipping(share: float) -> list[str]:
    if share < _MOST_CLIPPED:
        return []
    return [f"{100 * share:.1f} % of its samples are at full scale, so it was clipped: record it at a lower level"]
