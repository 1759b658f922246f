"""Extraction: numbers against plain NumPy, padding and batching, restart after kill -9, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from seremo_jax import backbones
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import ConfigError
from seremo_jax.data import audio_batches, level, tables
from seremo_jax.data.policies import TargetPolicies
from seremo_jax.data.screening import with_column
from seremo_jax.data.targets import build
from seremo_jax.features import extract, into_shards, manifest
from seremo_jax.features.store import Reader
from seremo_jax.saliency import correlation, ranking
from seremo_jax.saliency.question import ask
from tests.support.toy_corpus import (
    CLASSES,
    NUM_FEATURES,
    NUM_LAYERS,
    NUM_UTTERANCES,
    RESUMED,
    TRACES,
    config_of,
    contents,
    expected_frames,
    extracted,
    fresh,
    install_toy,
    interrupting,
    kill,
    make_corpus,
    read_waveform,
    write_tables,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def _toy() -> Iterator[None]:
    install_toy()
    TRACES.clear()
    yield
    del backbones.LOADERS["toy"]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Path:
    """A finished workdir, all layers; tests that change something take a `fresh(..., source=whole)` copy."""
    workdir = fresh(corpus, tmp_path_factory.mktemp("whole"))
    install_toy()
    extracted(corpus, workdir)
    return workdir


def test_numbers_equal_plain_numpy(corpus, whole):
    workdir, reader = whole, Reader(whole / "store")
    utterances, ratings, _ = tables.read_tables(workdir)
    assert reader.utterances == utterances["id"].to_pylist()
    frames = [expected_frames(read_waveform(corpus, utterance)) for utterance in reader.utterances]
    for layer in range(NUM_LAYERS):
        for stored, wanted in zip(reader.read(layer, range(NUM_UTTERANCES)), frames, strict=True):
            np.testing.assert_allclose(stored, wanted[layer], atol=1e-5, rtol=1e-5)
    is_train = np.array(utterances["split"].to_pylist()) == "train"
    pooled = np.concatenate([frames[row] for row in np.flatnonzero(is_train)], axis=1)
    norm = reader.arrays("norm")
    np.testing.assert_allclose(norm["mean"], pooled.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(norm["sd"], pooled.std(axis=1), rtol=1e-5)
    assert norm["num_frames"] == pooled.shape[1]

    built = build(utterances, ratings, TargetPolicies(class_set="crema6"))
    means = np.stack([f.mean(axis=1) for f in frames])
    summary = json.loads((workdir / "saliency.json").read_text())
    assert summary["targets"] == ["valence", "activation", "dominance", *CLASSES]
    assert summary["num_utterances"] == is_train.sum()
    assert [bool(varies) for varies in summary["varies"][:3]] == [True, True, False]
    wanted = np.zeros((NUM_LAYERS, 3 + len(CLASSES)))
    for column in range(wanted.shape[1]):
        has = is_train & (built.has_attribute[:, column] if column < 3 else built.has_votes)
        values = built.attributes[has, column] if column < 3 else built.distribution[has, column - 3]
        for layer in range(NUM_LAYERS):
            for feature in range(NUM_FEATURES):
                if len(values) and values.std() > 0:
                    r = np.corrcoef(means[has, layer, feature], values.astype(np.float64))[0, 1]
                    wanted[layer, column] += abs(r) / NUM_FEATURES
        assert summary["count"][column] == has.sum()
    curve = summary["curves"]["ccs"]
    np.testing.assert_allclose(curve["per_layer"], wanted, rtol=2e-5)
    score = wanted[:, :2].mean(axis=1)
    np.testing.assert_allclose(curve["score"], score, rtol=2e-5)
    assert curve["chosen"] == np.argmax(score)
    assert (summary["kind"], summary["chosen"]) == ("dccs", summary["curves"]["dccs"]["chosen"])


def test_one_pass_says_what_two_passes_say(corpus, tmp_path, whole):
    workdir = fresh(corpus, tmp_path)
    everything, chosen = Reader(whole / "store"), extracted(corpus, workdir, extract__layers="saliency")
    a, b = (correlation.compute(ranking.read(folder)[0]) for folder in (whole, workdir))
    np.testing.assert_array_equal(a.count, b.count)
    np.testing.assert_allclose(a.correlation, b.correlation, atol=1e-6)
    a, b = (ranking.read(folder)[1] for folder in (whole, workdir))
    np.testing.assert_allclose(a.probe, b.probe, atol=1e-5)
    np.testing.assert_allclose(a.without, b.without, atol=1e-6)
    layer = json.loads((workdir / "saliency.json").read_text())["chosen"]
    assert chosen.layers == (layer,)
    assert not (workdir / extract.RANKING_FOLDER).exists()
    for stored, wanted in zip(chosen.read(layer, range(22)), everything.read(layer, range(22)), strict=True):
        np.testing.assert_allclose(stored, wanted, atol=1e-6)
    np.testing.assert_allclose(chosen.arrays("norm")["sd"][0], everything.arrays("norm")["sd"][layer], rtol=1e-5)


def test_the_probe_of_an_extraction(corpus, whole):
    """Its held-out CCC from audio files, a target with a mask of its own included, against scikit-learn."""
    utterances, ratings, _ = tables.read_tables(whole)
    question = ask(config_of(corpus), utterances, ratings, "")
    means = np.stack([expected_frames(read_waveform(corpus, u)).mean(axis=1) for u in utterances["id"].to_pylist()])
    probe = json.loads((whole / "saliency.json").read_text())["curves"]["probe"]
    for column in (0, 1, 5):
        rows = np.flatnonzero(question.mask[:, column])
        assert len(rows) == (question.is_drawn.sum() if column != 1 else len(rows))
        y, fold = question.values[rows, column].astype(np.float64), question.fold[rows]
        for layer in range(NUM_LAYERS):
            prediction = np.zeros(len(rows))
            for f in np.unique(fold):
                x, train = means[rows, layer], fold != f
                scaler = StandardScaler().fit(x[train])
                ridge = Ridge(alpha=probe["ridge"][layer][column] * train.sum())
                ridge.fit(scaler.transform(x[train]), y[train])
                prediction[~train] = ridge.predict(scaler.transform(x[~train]))
            covariance = np.cov(prediction, y, bias=True)
            wanted = 2 * covariance[0, 1] / (np.trace(covariance) + (prediction.mean() - y.mean()) ** 2)
            assert probe["per_layer"][layer][column] == pytest.approx(wanted, abs=2e-5)


def test_the_curve_in_use_decides_without_a_new_pass(corpus, tmp_path, whole):
    workdir = fresh(corpus, tmp_path, source=whole)
    before = contents(workdir)
    extracted(corpus, workdir, saliency__kind="probe")
    after = contents(workdir)
    assert {name for name in after if after[name] != before[name]} == {"saliency.json"}
    summary = json.loads(after["saliency.json"])
    assert (summary["kind"], summary["chosen"]) == ("probe", summary["curves"]["probe"]["chosen"])


def test_level_is_recorded_and_speech_is_heard_at_the_level_asked_for(corpus, tmp_path, whole):
    """A corpus 15.6 dB quieter gives other frames as recorded, and the same ones at one level."""
    dbfs = [level.active_dbfs(read_waveform(corpus, f"u{i:02d}"), 16_000) for i in range(NUM_UTTERANCES)]
    np.testing.assert_array_equal(Reader(whole / "store").arrays("level")["dbfs"], dbfs)
    quiet = shutil.copytree(corpus, tmp_path / "quiet")
    for path in (quiet / "audio").iterdir():
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples * 10 ** (-15.6 / 20), rate, subtype="FLOAT")
    utterances, ratings, _ = tables.read_tables(quiet / "workdir")
    write_tables(quiet / "workdir", with_column(utterances, "audio_sha256", [""] * NUM_UTTERANCES), ratings)
    at_level = {"backbone__level": "rms", "backbone__level_dbfs": -20.0}
    near = extracted(corpus, fresh(corpus, tmp_path, "near"), **at_level)
    far = extracted(quiet, quiet / "workdir", **at_level)
    np.testing.assert_allclose(far.arrays("level")["dbfs"], np.array(dbfs) - 15.6, atol=1e-3)
    for row in range(0, NUM_UTTERANCES, 5):
        heard = read_waveform(corpus, near.utterances[row]) * 10 ** ((-20 - dbfs[row]) / 20)
        np.testing.assert_allclose(near.read(2, [row])[0], expected_frames(heard)[2], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(far.read(2, [row])[0], near.read(2, [row])[0], rtol=1e-4, atol=1e-3)
    with pytest.raises(
        ArtefactError, match=r"backbone.level: 'rms' there, 'none' asked for; backbone.level_dbfs: -20.0"
    ):
        extracted(corpus, near.path.parent)


def test_a_number_for_the_layer_overrides_saliency(corpus, tmp_path):
    workdir = fresh(corpus, tmp_path)
    reader = extracted(corpus, workdir, extract__layers="saliency", model__layer=2)
    assert reader.layers == (2,)
    assert len(json.loads((workdir / "saliency.json").read_text())["curves"]["ccs"]["score"]) == NUM_LAYERS


@pytest.mark.parametrize(("backbone", "num_buckets"), [("toy", 3), ("logmel", 1)])
def test_batching_changes_no_number_and_compiles_few_programs(corpus, tmp_path, monkeypatch, backbone, num_buckets):
    monkeypatch.setattr(audio_batches, "_SHAPE_COST_S", 0.0)  # so that so small a corpus gets more than one
    settings = {"backbone__name": backbone}
    once = {"extract__batch_seconds": 1.5, "extract__num_buckets": num_buckets}
    small = extracted(corpus, fresh(corpus, tmp_path, "a"), **settings, **once)
    if backbone == "toy":
        assert 1 < len(TRACES) == len(set(TRACES)) <= 3
    settings |= {"extract__batch_seconds": 60.0, "extract__num_threads": 1, "extract__shard_utterances": 16}
    large = extracted(corpus, fresh(corpus, tmp_path, "b"), **settings, extract__num_buckets=1)
    np.testing.assert_array_equal(small.num_frames, large.num_frames)
    for layer in small.layers:
        for a, b in zip(small.read(layer, range(22)), large.read(layer, range(22)), strict=True):
            # One pass rounds nothing, the other alike in batches of any shape.
            np.testing.assert_array_equal(a, b)
    for name, wanted in large.arrays("norm").items():
        np.testing.assert_array_equal(small.arrays("norm")[name], wanted)
    assert small.manifest["files"].keys() != large.manifest["files"].keys()
    assert manifest.identity(small.manifest) == manifest.identity(large.manifest)
    extracted(corpus, small.path.parent, **settings)  # is up to date
    a, b = (correlation.compute(ranking.read(reader.path.parent)[0]).correlation for reader in (small, large))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_killed_twice_and_continued_is_the_same_to_the_byte(corpus, tmp_path, monkeypatch):
    cut, settings = fresh(corpus, tmp_path, "cut"), RESUMED | {"extract__layers": "saliency"}
    for after in (10, 22):  # in the pass that ranks layers, then in the one that stores
        script = f"""
            import pytest, sys
            from pathlib import Path
            sys.path.insert(0, {str(Path(__file__).parents[2])!r})
            from tests.support import toy_corpus as t
            t.install_toy()
            t.interrupting(pytest.MonkeyPatch(), {after}, t.kill)
            t.extracted(Path({str(corpus)!r}), Path({str(cut)!r}), **{settings!r})
        """
        killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert (cut / "saliency.npz").exists() == (after == 22)
        assert not (cut / "store" / "manifest.json").exists()
    decoded = interrupting(monkeypatch, 1_000, kill)
    extracted(corpus, cut, **settings)
    # Of the store's 22 utterances one shard of 3 at least was finished before.
    assert len(decoded) <= NUM_UTTERANCES - 3
    uncut = fresh(corpus, tmp_path, "uncut")
    extracted(corpus, uncut, **settings)
    assert contents(cut) == contents(uncut)


def test_interrupted_and_continued_is_the_same_to_the_byte(corpus, tmp_path, monkeypatch):
    cut, uncut = fresh(corpus, tmp_path, "cut"), fresh(corpus, tmp_path, "uncut")

    def control_c() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        interrupting(patch, 14, control_c)
        with pytest.raises(KeyboardInterrupt):
            extracted(corpus, cut, **RESUMED)
    assert not list(cut.rglob("*.tmp"))
    # What the probe will need is there for every finished shard, and gone at the end.
    assert any("means.00" in np.load(path) for path in (cut / "store" / "parts").glob("*.npz"))
    decoded = interrupting(monkeypatch, 1_000, control_c)
    extracted(corpus, cut, **RESUMED)
    assert len(decoded) <= NUM_UTTERANCES - 3
    num_decoded = len(decoded)
    extracted(corpus, cut, **RESUMED)
    assert len(decoded) == num_decoded
    extracted(corpus, uncut, **RESUMED)
    assert contents(cut) == contents(uncut)


def test_what_is_finished_is_left_alone_and_other_settings_are_refused(corpus, tmp_path, whole):
    workdir = fresh(corpus, tmp_path, source=whole)
    before = contents(workdir)
    extracted(corpus, workdir, extract__layers=(0, 2), extract__batch_seconds=9.0, saliency__targets="votes")
    after = contents(workdir)
    assert {name for name in after if after[name] != before[name]} == {"saliency.json"}
    with pytest.raises(ArtefactError, match=r"dtype: 'float32' there, 'float16' asked for"):
        extracted(corpus, workdir, extract__dtype="float16")
    with pytest.raises(
        ArtefactError, match=r"saliency.npz \(question\).*saliency.num_utterances: 30000 there, 7 asked"
    ):
        extracted(corpus, workdir, saliency__num_utterances=7)
    install_toy(revision="2")
    with pytest.raises(ArtefactError, match=r"revision: '1' there, '2' asked for"):
        extracted(corpus, workdir)
    install_toy()
    shard = next((workdir / "store" / "layer_01").glob("shard-00002*"))
    os.truncate(shard, 100)
    with pytest.raises(ArtefactError, match=r"truncated"):
        extracted(corpus, workdir)
    other = fresh(corpus, tmp_path, "other")
    shutil.copy(whole / "saliency.npz", other)
    with pytest.raises(ArtefactError, match=r"targets.smoothing: 0.0 there, 1.0 asked for"):
        extracted(corpus, other, extract__layers="saliency", targets__smoothing=1.0)


def test_lost_saliency_is_computed_again_without_storing_again(corpus, tmp_path, whole):
    workdir = fresh(corpus, tmp_path, source=whole)
    (workdir / "saliency.npz").unlink()
    (workdir / "saliency.json").unlink()
    (workdir / extract.RANKING_FOLDER).mkdir()  # as a kill just after saliency.npz was written leaves it
    times = {path: path.stat().st_mtime_ns for path in (workdir / "store").rglob("*")}
    extracted(corpus, workdir)
    assert times == {path: path.stat().st_mtime_ns for path in (workdir / "store").rglob("*")}
    a, b = (correlation.compute(ranking.read(folder)[0]).correlation for folder in (workdir, whole))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert not (workdir / extract.RANKING_FOLDER).exists()


def test_other_tables_and_missing_layers_are_refused(corpus, tmp_path):
    workdir = fresh(corpus, tmp_path)
    extracted(corpus, workdir, extract__layers=(1,))
    with pytest.raises(ArtefactError, match=r"layers: \[1\] there, \[2\] asked for"):
        extracted(corpus, workdir, extract__layers=(2,))
    utterances, ratings, _ = tables.read_tables(workdir)
    write_tables(workdir, utterances.slice(0, 20), ratings)
    with pytest.raises(ArtefactError, match=r"tables_fingerprint: '.*' there, '.*' asked for"):
        extracted(corpus, workdir, extract__layers=(1,))


def test_a_corpus_without_attributes_says_so(corpus, tmp_path):
    workdir = fresh(corpus, tmp_path)
    with pytest.raises(ConfigError, match=r"--config.saliency.targets=votes"):
        extracted(corpus, workdir, targets__attributes=("dominance",))
    assert not (workdir / "store").exists()


def test_audio_that_changed_since_ingest(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus")
    path = tmp_path / "corpus" / "audio" / "u07.wav"
    whole = path.read_bytes()
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    workdir = tmp_path / "corpus" / "workdir"
    with pytest.raises(ArtefactError, match=r"utterance 'u07': .*u07.wav: lfs_pointer .*ingest accepted it"):
        extracted(tmp_path / "corpus", workdir)
    soundfile.write(path, np.zeros(5_000), 16_000)
    with pytest.raises(ArtefactError, match=r"u07.wav has 5000 samples at 16 kHz, the table says \d+"):
        extracted(tmp_path / "corpus", workdir)
    # One bit of one sample, in a file of the same length.
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtefactError, match=r"utterance 'u07': the samples of .*u07.wav have the hash .*put it back"):
        extracted(tmp_path / "corpus", workdir)
    assert not list(workdir.rglob("*.tmp"))
    path.write_bytes(whole)
    extracted(tmp_path / "corpus", workdir).verify()


def test_numbers_no_dtype_can_hold(corpus, tmp_path):
    workdir = fresh(corpus, tmp_path)
    install_toy(scale=1e5)
    with pytest.raises(
        ArtefactError, match=r"too large for extract.dtype = 'float16': set --config.extract.dtype=float32"
    ):
        extracted(corpus, workdir, extract__dtype="float16")
    install_toy(scale=float("nan"))
    with pytest.raises(ArtefactError, match=r"numbers that are not finite for utterance 'u"):
        extracted(corpus, fresh(corpus, tmp_path, "other"))


def test_backbones_and_layers_that_do_not_exist(corpus, tmp_path):
    with pytest.raises(ConfigError, match=r"backbone.name = 'tony': unknown backbone"):
        extracted(corpus, fresh(corpus, tmp_path), backbone__name="tony")
    with pytest.raises(ConfigError, match=r"extract.layers: layer 9 is out of range; this backbone has layers 0 to 3"):
        extracted(corpus, fresh(corpus, tmp_path, "b"), extract__layers=(0, 9))
    with pytest.raises(ConfigError, match=r"model.layer: layer 4 is out of range"):
        extracted(corpus, fresh(corpus, tmp_path, "c"), extract__layers="saliency", model__layer=4)
    install_toy(sample_rate_hz=8_000)
    with pytest.raises(ConfigError, match=r"hears 8000 Hz"):
        extracted(corpus, fresh(corpus, tmp_path, "d"))


def test_other_processes_touch_a_store_only_once_the_first_has_begun_it(corpus, tmp_path, monkeypatch):
    class WaitedError(Exception):
        pass

    def wait(point: str) -> None:
        assert point == "rank layers: begun"
        raise WaitedError

    workdir = fresh(corpus, tmp_path)
    monkeypatch.setattr(into_shards, "is_first_process", lambda: False)
    monkeypatch.setattr(into_shards, "wait_for_all", wait)
    with pytest.raises(WaitedError):
        extracted(corpus, workdir, extract__layers="saliency")
    assert not (workdir / extract.RANKING_FOLDER).exists()
