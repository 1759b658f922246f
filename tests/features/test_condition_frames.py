"""Audio to frames in a condition: equal to what extraction stores, by block, whatever the batches and threads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from seremo_jax import backbones
from seremo_jax.conditions import render
from seremo_jax.conditions import sources as condition_sources
from seremo_jax.conditions.rendered import in_condition
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.condition_names import Condition, ConditionError, parse
from seremo_jax.data import audio, audio_batches
from seremo_jax.data.screening import with_column
from seremo_jax.features import condition_frames
from seremo_jax.features.condition_frames import Listener, predict_condition
from seremo_jax.training import loader
from tests.support.toy_corpus import (
    NUM_UTTERANCES,
    TRACES,
    config_of,
    expected_frames,
    extracted,
    fresh,
    install_toy,
    make_corpus,
    read_waveform,
)

NOISY = parse("reverb:synthetic:0.3s+babble:5db")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def _toy():
    install_toy()
    TRACES.clear()
    yield
    del backbones.LOADERS["toy"]


def listener_of(corpus: Path, layers=(1, 3), **changes) -> Listener:
    changes = {"eval__conditions": ("noise:white:10db", "reverb")} | changes
    config = config_of(corpus, **changes)
    return Listener.of(config, corpus / "workdir", layers, condition_sources.load_for(config))


def rows_of(listener: Listener, split: str) -> np.ndarray:
    """Rows of the utterance table in a split."""
    return np.flatnonzero(np.array(listener.utterances["split"].to_pylist()) == split)


def gathered(frames, num_frames, rows):
    """A stand-in for a head: per layer the mean of the first features and a share of each class."""
    assert isinstance(frames, loader.FrameSource)
    read = [frames.read(layer, range(len(rows))) for layer in frames.layers]
    np.testing.assert_array_equal(num_frames, [len(utterance) for utterance in read[0]])
    means = np.array([[utterance.mean(0) for utterance in layer] for layer in read], np.float32)
    return means[:, :, :3], means / means.sum(-1, keepdims=True)


def test_clean_frames_are_those_that_extraction_stores(corpus, tmp_path):
    reader, listener = extracted(corpus, fresh(corpus, tmp_path)), listener_of(corpus)
    rows = np.arange(NUM_UTTERANCES)
    blocks = list(listener.blocks(Condition(), rows))
    assert np.array_equal(np.concatenate([block for block, _ in blocks]), rows)
    for block, frames in blocks:
        np.testing.assert_array_equal(frames.num_frames, reader.num_frames[block])
        for layer in (1, 3):
            for ours, stored in zip(frames.read(layer, range(len(block))), reader.read(layer, block), strict=True):
                np.testing.assert_allclose(ours, stored, rtol=1e-5, atol=1e-6)


def test_frames_are_those_of_the_rendered_waveform(corpus):
    listener = listener_of(corpus, eval__condition_seed=3)
    ids = listener.recordings.ids
    voices = condition_sources.voices_of(
        listener.utterances, rows_of(listener, "train").tolist(), listener.recordings.decode
    )
    sources = render.Sources(voices=voices)
    rows = np.array([0, 1, 5, 8])
    ((block, frames),) = listener.blocks(NOISY, rows)
    for place, row in enumerate(block):
        waveform = render.render(
            read_waveform(corpus, ids[row]), audio.SAMPLE_RATE_HZ, NOISY, ids[row], 3, sources
        ).waveform
        assert not np.array_equal(waveform, read_waveform(corpus, ids[row]))
        for layer in (1, 3):
            np.testing.assert_allclose(
                frames.read(layer, [place])[0], expected_frames(waveform)[layer], rtol=1e-4, atol=1e-5
            )


def test_blocks_threads_and_batches_change_nothing(corpus, monkeypatch):
    single = predict_condition(
        listener_of(corpus), NOISY, rows_of(listener_of(corpus), "train"), gathered, is_quiet=True
    )
    monkeypatch.setattr(condition_frames, "BLOCK_BYTES", 4_000)
    listener = listener_of(corpus, extract__num_threads=5, extract__batch_seconds=1.0, extract__num_buckets=1)
    sizes = []

    def counted(frames, num_frames, rows):
        sizes.append(len(rows))
        return gathered(frames, num_frames, rows)

    many = predict_condition(listener, NOISY, rows_of(listener, "train"), counted, is_quiet=True)
    assert len(sizes) > 3
    assert sum(sizes) == len(single[2])
    np.testing.assert_array_equal(single[2], many[2])
    assert np.array_equal(single[2], np.sort(single[2]))
    for ours, theirs in zip(single[:2], many[:2], strict=True):
        assert ours.shape[:2] == (2, len(single[2]))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_waveforms_are_equal_to_the_bit_whatever_the_number_of_threads(corpus):
    listener = listener_of(corpus)
    recordings = listener.recordings
    rendered = in_condition(recordings, listener.utterances, NOISY, 0, render.Sources())
    rows = tuple(rows_of(listener, "train").tolist())

    def heard(order, num_threads):
        planned = [audio_batches.Planned(order, len(order), int(recordings.num_samples.max()))]
        (batch,) = audio_batches.stream(planned, rendered, num_threads)
        return {row: batch.waveforms[slot].tobytes() for slot, row in enumerate(batch.rows)}

    assert heard(rows, 1) == heard(rows[::-1], 6)


def test_one_listener_compiles_once_for_all_conditions(corpus):
    listener = listener_of(corpus)
    assert [c.id for c in listener.conditions] == [
        "clean", "noise:white:10db", "reverb:synthetic:0.3s", "reverb:synthetic:0.6s", "reverb:synthetic:0.9s"
    ]  # fmt: skip
    for condition in listener.conditions:
        predict_condition(listener, condition, rows_of(listener, "train"), gathered, is_quiet=True)
    assert len(TRACES) == len(set(TRACES)) <= 3


def test_nothing_is_written(corpus):
    before = sorted(path.name for path in (corpus / "workdir").rglob("*"))
    predict_condition(
        listener_of(corpus), parse("telephone"), rows_of(listener_of(corpus), "test"), gathered, is_quiet=True
    )
    assert sorted(path.name for path in (corpus / "workdir").rglob("*")) == before


def test_refusals(corpus):
    with pytest.raises(ConditionError, match="needs 6 utterances of other known speakers"):
        predict_condition(
            listener_of(corpus), parse("babble:0db"), rows_of(listener_of(corpus), "test"), gathered, is_quiet=True
        )
    install_toy(scale=1e6)
    with pytest.raises(ArtefactError, match=r"too large for extract\.dtype"):
        predict_condition(
            listener_of(corpus, extract__dtype="float16"),
            Condition(),
            rows_of(listener_of(corpus, extract__dtype="float16"), "test"),
            gathered,
            is_quiet=True,
        )


def test_babble_is_of_the_part_that_an_utterance_is_in(corpus):
    """With folds each part has a word of its own, and no voice of another part is heard."""
    listener = listener_of(corpus)
    parts = [f"test {i % 2}" for i in range(NUM_UTTERANCES)]
    table = with_column(listener.utterances, "split", parts)
    decoded = []
    recordings = dataclasses.replace(listener.recordings)
    object.__setattr__(recordings, "decode", lambda row: decoded.append(row) or listener.recordings.decode(row))
    rendered = in_condition(recordings, table, NOISY, 0, render.Sources())
    for row in (0, 3):
        decoded.clear()
        rendered.rendering(row)
        assert decoded
        assert {parts[other] for other in decoded} == {parts[row]}
