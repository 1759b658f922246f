"""Copies of training utterances: frames of what was drawn, the same bytes after an interruption, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seremo_jax import backbones
from seremo_jax.conditions import copies as drawn_copies
from seremo_jax.conditions import render
from seremo_jax.conditions import sources as condition_sources
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.condition_names import ConditionError, parse
from seremo_jax.features import copies
from seremo_jax.features.store import Reader
from tests.support.toy_corpus import (
    NUM_UTTERANCES,
    RESUMED,
    SPLITS,
    config_of,
    contents,
    expected_frames,
    extracted,
    fresh,
    install_toy,
    interrupting,
    make_corpus,
    read_waveform,
)

CONDITIONS = ("noise:rain:0..20db", "reverb:synthetic:0.2..0.4s+babble:5db", "gain:-20..0db")
IS_TRAIN = np.array([SPLITS[i % len(SPLITS)] == "train" for i in range(NUM_UTTERANCES)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = make_corpus(tmp_path_factory.mktemp("corpus"))
    for place, (kind, seed) in enumerate([("rain", 1), ("rain", 2), ("engine", 3)]):
        (folder / "noise" / kind).mkdir(parents=True, exist_ok=True)
        noise = 0.1 * np.random.default_rng(seed).standard_normal(8_000)
        soundfile.write(folder / "noise" / kind / f"{place}.wav", noise, 16_000)
    return folder


@pytest.fixture(autouse=True)
def _toy():
    install_toy()
    yield
    del backbones.LOADERS["toy"]


def asked(corpus: Path, **changes):
    fields = {"extract__conditions": CONDITIONS, "extract__num_copies": 2, "extract__noise_dir": str(corpus / "noise")}
    return fields | changes


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Path:
    install_toy()
    workdir = fresh(corpus, tmp_path_factory.mktemp("whole"))
    extracted(corpus, workdir, **asked(corpus), **RESUMED)
    return workdir


def test_a_copy_has_the_frames_of_its_utterance_rendered_and_heard_alone(corpus, whole, tmp_path):
    clean, heard = Reader(whole / "store"), Reader(whole / copies.FOLDER)
    ids = [f"u{i:02d}" for i in range(NUM_UTTERANCES)]
    drawn = heard.arrays(copies.DRAWN)
    assert drawn["row"].tolist() == np.repeat(np.flatnonzero(IS_TRAIN), 2).tolist()
    assert heard.utterances == [
        f"{ids[row]}~{number}" for row, number in zip(drawn["row"], drawn["number"], strict=True)
    ]
    np.testing.assert_array_equal(heard.num_frames, clean.num_frames[drawn["row"]])
    noises = condition_sources.load(corpus / "noise").noises
    # In the toy corpus all utterances of a training split come from speakers 0, 1 and 3.
    voices = render.Voices(
        tuple(ids[row] for row in np.flatnonzero(IS_TRAIN)),
        tuple(f"s{row % 5}" for row in np.flatnonzero(IS_TRAIN)),
        lambda place: read_waveform(corpus, ids[np.flatnonzero(IS_TRAIN)[place]]),
    )
    kinds = set()
    for place, (row, number, text) in enumerate(zip(*(drawn[n] for n in ("row", "number", "condition")), strict=True)):
        waveform = read_waveform(corpus, ids[row])
        alone = render.render(
            waveform, 16_000, parse(str(text)), ids[row], 2**32 * (int(number) + 1),
            render.Sources(noises=noises, voices=voices),
        ).waveform  # fmt: skip
        kinds.add(str(text).partition(":")[0])
        assert not np.array_equal(alone, waveform)
        for layer in heard.layers:
            np.testing.assert_allclose(
                heard.read(layer, [place])[0], expected_frames(alone)[layer], rtol=1e-4, atol=1e-4
            )
    assert kinds == {"noise", "reverb", "gain"}
    # The clean store, its statistics and the choice of a layer are those of an extraction without copies.
    plain = fresh(corpus, tmp_path, "plain")
    extracted(corpus, plain, **RESUMED)
    there = {name: content for name, content in contents(whole).items() if not name.startswith("copies/")}
    assert there == contents(plain)


def test_batches_processes_and_an_interruption_change_no_copy(corpus, whole, tmp_path, monkeypatch):
    cut = fresh(corpus, tmp_path, "cut")

    def stop() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        interrupting(patch, 34, stop)
        with pytest.raises(KeyboardInterrupt):
            extracted(corpus, cut, **asked(corpus), **RESUMED)
    assert (cut / "store" / "manifest.json").exists()
    assert not (cut / "copies" / "manifest.json").exists()
    extracted(corpus, cut, **asked(corpus), **RESUMED)
    assert contents(cut) == contents(whole)
    extracted(corpus, cut, **asked(corpus), **RESUMED)  # is up to date
    other = fresh(corpus, tmp_path, "other")
    extracted(corpus, other, **asked(corpus), extract__shard_utterances=50, extract__batch_seconds=60.0)
    a, b = Reader(cut / "copies"), Reader(other / "copies")
    for ours, theirs in zip(a.read(1, range(len(a))), b.read(1, range(len(a))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    with pytest.raises(ArtefactError, match=r"copies in .* extract\.condition_seed: 0 there, 1 asked for"):
        extracted(corpus, cut, **asked(corpus), extract__condition_seed=1, **RESUMED)


def test_recordings_of_evaluation_are_refused_and_hashes_kept(corpus, whole, tmp_path):
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    noise, rate = soundfile.read(corpus / "noise" / "rain" / "1.wav", dtype="int16")
    soundfile.write(held_out / "another name.flac", noise, rate)  # another format of the same samples
    with pytest.raises(ConditionError, match=r"1 recordings .* rain/1.wav of extract.noise_dir is another name.flac"):
        extracted(corpus, fresh(corpus, tmp_path), **asked(corpus), eval__noise_dir=str(held_out))
    recordings = json.loads((whole / "copies" / "manifest.json").read_text())["config"]["recordings"]
    assert sorted(recordings.values()) == [f"{name} of extract.noise_dir" for name in
                                           ("engine/2.wav", "rain/0.wav", "rain/1.wav")]  # fmt: skip
    config = config_of(corpus, eval__noise_dir=str(held_out))
    with pytest.raises(ConditionError, match="heard in training and in evaluation"):
        condition_sources.require_others(recordings, condition_sources.content_hashes(config, "eval"))
    with pytest.raises(ConditionError, match=r"no recordings of 'wind'; there are engine, rain"):
        extracted(corpus, fresh(corpus, tmp_path, "a"), **asked(corpus, extract__conditions=("noise:wind:0db",)))
    with pytest.raises(ConditionError, match=r"set extract\.rir_dir to a folder"):
        extracted(corpus, fresh(corpus, tmp_path, "b"), **asked(corpus, extract__conditions=("reverb:measured:1s",)))


def test_conditions_and_values_are_drawn_as_they_are_written():
    ranges = [drawn_copies.condition_ranges.parse(text) for text in ("noise:white:-5..15db", "reverb:measured:0.2..1s")]
    drawn = [drawn_copies.drawn_condition(ranges, f"u{i}", 0, (0.15, 0.3, 0.9, 1.4)) for i in range(2_000)]
    snr = np.array([c.noise.value for c in drawn if c.noise is not None])
    assert abs(len(snr) / len(drawn) - 0.5) < 0.05
    assert (snr.min() < -4.9, snr.max() > 14.9, abs(snr.mean() - 5) < 0.7) == (True, True, True)
    assert {c.room.value for c in drawn if c.room is not None} == {0.3, 0.9}
    assert all(parse(c.id) == c for c in drawn)
    assert drawn == [drawn_copies.drawn_condition(ranges, f"u{i}", 0, (0.15, 0.3, 0.9, 1.4)) for i in range(2_000)]
    with pytest.raises(ConditionError, match=r"no measured response has an RT60 in it; in s: 1\.40"):
        [drawn_copies.drawn_condition(ranges[1:], "u", 0, (1.4,))]
