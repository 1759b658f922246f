"""Batches of audio: every utterance once, few shapes, order, bounded look-ahead."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data import audio, audio_batches


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(1, 2_000),
    st.integers(1, 4),
)
def test_plan_holds_every_row_once_in_few_shapes(lengths, shard_utterances, batch_samples, num_buckets):
    num_samples = np.array(lengths)
    rows = list(range(len(lengths)))
    shards = [rows[i : i + shard_utterances] for i in range(0, len(rows), shard_utterances)]
    bucketings = [sorted({max(lengths) * (i + 1) // (n + 1) for i in range(n + 1)}) for n in range(num_buckets)]
    planned = audio_batches.plan(shards, num_samples, bucketings, batch_samples)
    assert [sorted(row for batch in shard for row in batch.rows) for shard in planned] == shards
    batches = [batch for shard in planned for batch in shard]
    assert len({(batch.num_slots, batch.num_samples) for batch in batches}) <= num_buckets
    for shard in planned:
        order = [num_samples[row] for batch in shard for row in batch.rows]
        assert order == sorted(order, reverse=True)
    for batch in batches:
        assert 1 <= len(batch.rows) <= batch.num_slots
        assert num_samples[list(batch.rows)].max() <= batch.num_samples
        assert batch.num_slots == 1 or batch.num_slots * batch.num_samples <= batch_samples


def test_little_is_padded():
    lengths = np.random.default_rng(0).integers(20_000, 80_000, 4_000)
    shards = [list(range(i, i + 250)) for i in range(0, 4_000, 250)]
    bucketings = [[80_000], list(range(25_000, 80_001, 5_000))]
    planned = audio_batches.plan(shards, lengths, bucketings, 160 * 16_000)
    batches = [batch for shard in planned for batch in shard]
    assert sum(batch.num_slots * batch.num_samples for batch in batches) < 1.16 * lengths.sum()
    assert len(batches) < 20 * len(shards)


def fake(monkeypatch, num_rows: int, decode) -> audio_batches.Recordings:
    monkeypatch.setattr(audio, "decode", lambda path, **_: audio.Decoded(decode(int(path)), 16_000, 1))
    names = tuple(map(str, range(num_rows)))
    num_samples = np.arange(num_rows) + 1 + audio_batches._SLACK_SAMPLES
    return audio_batches.Recordings(names, names, num_samples, ("",) * num_rows)


def test_batches_come_in_order_and_not_all_at_once(monkeypatch):
    decoded, lock = [], threading.Lock()

    def decode(row: int) -> np.ndarray:
        time.sleep(0.001 * (row % 3))  # so that threads finish out of order
        with lock:
            decoded.append(row)
        return np.full(row + 1, row, np.float32)

    recordings = fake(monkeypatch, 40, decode)
    planned = [audio_batches.Planned((i, i + 1, i + 2), 4, 50) for i in range(0, 36, 3)]
    stream = audio_batches.stream(planned, recordings, num_threads=3)
    for number, (batch, item) in enumerate(zip(stream, planned, strict=True)):
        assert batch.rows == item.rows
        assert batch.num_samples.tolist() == [*(row + 1 for row in item.rows), 0]
        for slot, row in enumerate(item.rows):
            np.testing.assert_array_equal(batch.waveforms[slot], [row] * (row + 1) + [0] * (49 - row))
        assert not batch.waveforms[3].any()
        assert len(decoded) <= 3 * (number + 1 + audio_batches._BATCHES_AHEAD)


def test_an_error_of_a_thread_arrives_and_ends_the_rest(monkeypatch):
    decoded = []

    def decode(row: int) -> np.ndarray:
        decoded.append(row)
        if row == 4:
            raise audio.AudioError("somewhere/4.wav", "empty")
        return np.zeros(row + 1, np.float32)

    recordings = fake(monkeypatch, 40, decode)
    stream = audio_batches.stream([audio_batches.Planned((i,), 1, 50) for i in range(40)], recordings, num_threads=1)
    with pytest.raises(ArtefactError, match=r"utterance '4': somewhere/4.wav: empty .*ingest accepted it"):
        list(stream)
    assert len(decoded) < 9
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
