"""Waveforms in batches of few shapes, of which each is compiled once it is needed."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from seremo_jax.data import audio
from seremo_jax.data.level import Hearing

BUCKETS_S = (1, 2, 3, 5, 8, 12, 20, 30)
"""Padded lengths."""
BATCH_S, _MOST_SLOTS = 160.0, 8


def padded(
    waveforms: Mapping[int, np.ndarray], buckets: Sequence[int], hearing: Hearing
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray, np.ndarray]]:
    """Yields waveforms padded to a bucket, one or many at a time.

    Args:
      waveforms: Number -> waveform, none longer than the last bucket.
      buckets: Lengths in samples, ascending.
      hearing: Level at which they are heard.

    Yields:
      Numbers, the waveforms [B, S] as they are heard, their samples [B] (0 in slots without one), and their levels [B]
      as recorded, in dB of full scale.
    """
    bounds = np.array(buckets)
    for bucket in buckets:
        group = [i for i, wave in waveforms.items() if bounds[np.searchsorted(bounds, len(wave))] == bucket]
        many = int(np.clip(BATCH_S * audio.SAMPLE_RATE_HZ // bucket, 1, _MOST_SLOTS))
        while group:
            # Two shapes a bucket: a full batch, or one by one where it would be more than half empty.
            num_slots = many if 2 * len(group) > many else 1
            batch, group = group[:num_slots], group[num_slots:]
            heard, lengths = np.zeros((num_slots, bucket), np.float32), np.zeros(num_slots, np.int32)
            levels = np.zeros(num_slots)
            for slot, i in enumerate(batch):
                lengths[slot] = len(waveforms[i])
                wave, levels[slot] = hearing.heard(waveforms[i], audio.SAMPLE_RATE_HZ)
                heard[slot, : lengths[slot]] = wave
            yield batch, heard, lengths, levels
