"""Prediction on real speech, against the backbone and the head called by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import soxr

from seremo_jax import backbones
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data import audio, level
from seremo_jax.data.audio import AudioError
from seremo_jax.predict import export, files, model_folder
from seremo_jax.predict import predictor as predict
from seremo_jax.predict.long_audio import batches_of_windows
from tests.support.small_heads import CLASSES, make

RATE = 16_000


@pytest.fixture(scope="module")
def speech(shared):
    """Six utterances of real speech, 16 kHz."""
    paths = sorted((shared / "data" / "crema_d" / "audio").rglob("*.*"))[::900][:6]
    return paths, [audio.decode(path).waveform for path in paths]


@pytest.fixture(scope="module")
def whisper(shared):
    return shared / "weights" / "whisper-tiny.en-encoder"


@pytest.fixture(scope="module")
def saved(whisper, tmp_path_factory):
    """A model of two members on two layers of the real tiny.en."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = make(whisper, layers=(1, 3), threshold=0.3)
    model_folder.write(model, folder)
    return folder, model


@pytest.fixture(scope="module")
def predictor(saved):
    return predict.load(saved[0])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model on log-mel bands, quick to call."""
    folder = tmp_path_factory.mktemp("models") / "logmel"
    model_folder.write(make(num_members=3), folder)
    return predict.load(folder)


_call = jax.jit(lambda backbone, waveforms, num_samples: backbone(waveforms, num_samples))


def by_hand(model, backbone, wave):
    """Distribution [E, C] and attributes [E, A] of one waveform alone."""
    hidden, num_frames = _call(backbone, jnp.asarray(wave)[None], jnp.asarray([len(wave)], jnp.int32))
    out = export.apply(model.about["head"], model.heads, hidden, num_frames)
    return np.asarray(out.distribution[:, 0]), np.asarray(out.attributes[:, 0])


def values(result):
    return np.array([*result.distribution.values(), *result.attributes.values()])


def test_files_of_real_speech_are_what_backbone_and_head_give(saved, predictor, whisper, speech):
    _, model = saved
    paths, waves = speech
    backbone = backbones.load(whisper, layers=(1, 3))
    for result, wave in zip(predictor.files(paths, with_embedding=True), waves, strict=True):
        distribution, attributes = by_hand(model, backbone, wave)
        np.testing.assert_allclose(list(result.distribution.values()), distribution.mean(0), rtol=0, atol=1e-5)
        expected_sd = distribution.std(0, ddof=1)
        np.testing.assert_allclose(list(result.distribution_sd.values()), expected_sd, rtol=0, atol=1e-5)
        assert tuple(result.attributes) == ("valence", "activation")
        expected = (3 * attributes + 4)[:, :2]
        np.testing.assert_allclose(list(result.attributes.values()), expected.mean(0), rtol=0, atol=1e-4)
        np.testing.assert_allclose(list(result.attributes_sd.values()), expected.std(0, ddof=1), rtol=0, atol=1e-4)
        order = np.argsort(-distribution.mean(0), kind="stable")
        assert result.ranked == tuple(CLASSES[c] for c in order)
        assert result.conformal_set == tuple(CLASSES[c] for c in order if distribution.mean(0)[c] >= 0.3)
        assert result.embedding.shape == (2, 5)
        assert result.duration_s == pytest.approx(len(wave) / RATE)
        assert [(segment.start_s, segment.end_s) for segment in result.timeline] == [(0.0, result.duration_s)]


def test_neighbours_and_padding_change_nothing(small, speech):
    paths, waves = speech
    together = small.files([*paths, *paths[:5]])
    assert len({len(wave) for wave in waves}) > 3
    for path, wave, result in zip(paths, waves, together, strict=False):
        for other in (small.file(path), small(wave, RATE)):
            np.testing.assert_allclose(values(other), values(result), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_any_rate_and_any_channels(small, speech, tmp_path, rate):
    wave = soxr.resample(speech[1][0], RATE, rate)
    quieter = 0.5 * wave
    soundfile.write(tmp_path / "stereo.flac", np.stack([wave, quieter], axis=1), rate, subtype="PCM_24")
    mono = small(np.mean([wave, quieter], axis=0), rate)
    for samples in (np.stack([wave, quieter]), np.stack([wave, quieter], axis=1)):
        np.testing.assert_allclose(values(small(samples, rate)), values(mono), rtol=0, atol=1e-5)
    np.testing.assert_allclose(values(small.file(tmp_path / "stereo.flac")), values(mono), rtol=0, atol=1e-4)
    whole = np.round(np.mean([wave, quieter], axis=0) * 32_768).clip(-32_768, 32_767).astype(np.int16)
    np.testing.assert_allclose(values(small(whole, rate)), values(small(whole / 32_768, rate)), rtol=0, atol=1e-6)


def test_long_speech_is_heard_in_windows_with_a_timeline(saved, predictor, whisper, speech, tmp_path):
    _, model = saved
    wave = np.concatenate(speech[1] * 8)[: 47 * RATE]
    soundfile.write(tmp_path / "long.wav", wave, RATE, subtype="FLOAT")
    result = predictor.file(tmp_path / "long.wav")
    spans = [(segment.start_s, segment.end_s) for segment in result.timeline]
    assert spans == [(5.0 * n, min(5.0 * n + 10, 47.0)) for n in range(9)]
    windowed = backbones.windowed(backbones.load(whisper, layers=(1, 3)), 30.0, 5.0)
    hidden, num_frames = _call(windowed, jnp.asarray(wave)[None], jnp.asarray([len(wave)], jnp.int32))
    total, weight = 0.0, 0.0
    for start, segment in zip(range(0, 47, 5), result.timeline, strict=False):
        frames = hidden[:, :, 50 * start : min(50 * (start + 10), int(num_frames[0]))]
        out = export.apply(model.about["head"], model.heads, frames, jnp.asarray([frames.shape[2]], jnp.int32))
        expected = np.asarray(out.distribution[:, 0].mean(0))
        np.testing.assert_allclose(list(segment.distribution.values()), expected, rtol=0, atol=2e-5)
        length_s = segment.end_s - segment.start_s
        total, weight = total + length_s * expected, weight + length_s
    np.testing.assert_allclose(list(result.distribution.values()), total / weight, rtol=0, atol=2e-5)
    np.testing.assert_allclose(values(predictor(wave, RATE)), values(result), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def levelled(tmp_path_factory):
    """A model on log-mel bands that hears all speech at one level."""
    folder = tmp_path_factory.mktemp("models") / "levelled"
    model = make()
    model.about["backbone"] |= {"level": "rms", "level_dbfs": -30.0}
    model.about["levels_dbfs"] = [-20.0, -19.0]
    model_folder.write(model, folder)
    return predict.load(folder)


@pytest.mark.parametrize("repeats", [1, 20])
def test_speech_at_one_level_is_the_same_however_it_was_recorded(small, levelled, speech, tmp_path, repeats):
    """Short and long, from memory and from a file: by the function that extraction uses."""
    wave = np.tile(speech[1][0], repeats)
    assert (len(wave) > 30 * RATE) == (repeats == 20)
    quiet = wave * np.float32(10 ** (-15.6 / 20))
    soundfile.write(tmp_path / "quiet.wav", quiet, RATE, subtype="FLOAT")
    heard, dbfs = level.Hearing("rms", -30.0).heard(wave, RATE)
    results = [
        levelled(wave, RATE),
        levelled(quiet, RATE),
        levelled.file(tmp_path / "quiet.wav"),
        levelled(heard, RATE),
    ]
    for result in results[1:]:
        np.testing.assert_allclose(values(result), values(results[0]), rtol=0, atol=1e-5)
    assert [result.level_dbfs for result in results] == pytest.approx([dbfs, dbfs - 15.6, dbfs - 15.6, -30], abs=1e-4)
    assert not any(result.warnings for result in results)
    # As recorded, the same two are judged differently by such a model.
    assert np.abs(values(small(quiet, RATE)) - values(small(wave, RATE))).max() > 0.01


def test_a_recording_louder_or_quieter_than_training_is_told(speech, tmp_path):
    model, wave = make(), speech[1][0]
    dbfs = level.active_dbfs(wave, RATE)
    model.about["levels_dbfs"] = [dbfs - 5, dbfs + 5]
    model_folder.write(model, tmp_path / "model")
    loaded = predict.load(tmp_path / "model")
    assert loaded(wave, RATE).warnings == ()
    for samples in (wave, np.tile(wave, 20)):
        (text,) = loaded(samples * np.float32(0.1), RATE).warnings
        assert f"at {dbfs - 20:.1f} dBFS is quieter than all that the model was trained on, {dbfs - 5:.1f} to" in text
    soundfile.write(tmp_path / "quiet.wav", wave * 0.1, RATE, subtype="FLOAT")
    (record,) = files.run(loaded, files.find(tmp_path / "quiet.wav"), is_quiet=True).records
    assert (record["level_dbfs"], len(record["warnings"])) == (pytest.approx(dbfs - 20, abs=0.01), 1)
    table = files.to_table(files.Outcome([record], []))
    assert table["warnings"].to_pylist() == record["warnings"]


def test_streamed_audio_is_decoded_audio(speech, tmp_path):
    wave = np.concatenate(speech[1])
    for rate in (RATE, 44_100, 8_000):
        path = tmp_path / f"{rate}.wav"
        soundfile.write(path, np.stack([wave, -0.2 * wave], axis=1), rate, subtype="FLOAT")
        streamed = list(audio.blocks(path, block_s=0.7))
        assert len(streamed) > 3
        np.testing.assert_allclose(np.concatenate(streamed), audio.decode(path).waveform, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("num_frames", "starts"), [(1, [0]), (8, [0]), (9, [0, 3]), (29, [*range(0, 24, 3)])])
def test_windows_cover_all_frames_however_they_come(num_frames, starts):
    frames = np.arange(num_frames, dtype=np.float32)[None, :, None]
    for cuts in ([], [1, 4], range(2, num_frames, 2)):
        batches = list(batches_of_windows(np.split(frames, [c for c in cuts if c < num_frames], axis=1), 8, 3))
        windows = [(start, batch[0, i, : num[i], 0]) for begun, batch, num in batches for i, start in enumerate(begun)]
        assert [start for start, _ in windows] == starts
        for start, window in windows:
            np.testing.assert_array_equal(window, np.arange(start, min(start + 8, num_frames)))
        assert windows[-1][1][-1] == num_frames - 1
        assert all(batch.shape == (1, 8, 8, 1) for _, batch, _ in batches)


def write_bad(folder):
    """A file of each kind that cannot be used -> its reason."""
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(RATE).astype(np.float32)
    soundfile.write(folder / "whole.wav", noise, RATE)
    whole = (folder / "whole.wav").read_bytes()
    (folder / "whole.wav").unlink()
    (folder / "no bytes.wav").write_bytes(b"")
    soundfile.write(folder / "no samples.wav", noise[:0], RATE)
    (folder / "text.wav").write_text("Dear diary, today I recorded nothing.\n")
    (folder / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "nan.wav", np.where(np.arange(RATE) == 500, np.nan, noise), RATE, subtype="FLOAT")
    soundfile.write(folder / "silence.wav", np.full(RATE, 0.1), RATE)
    soundfile.write(folder / "long silence.wav", np.full(40 * RATE, 0.1), RATE)
    soundfile.write(folder / "short.wav", noise[:1_000], RATE)
    long_nan = np.tile(noise, 40)
    long_nan[39 * RATE] = np.nan
    soundfile.write(folder / "long nan.wav", long_nan, RATE, subtype="FLOAT")
    return {
        "no bytes.wav": "empty", "no samples.wav": "empty", "text.wav": "unreadable", "pointer.wav": "lfs_pointer",
        "cut.wav": "unreadable", "nan.wav": "nan", "silence.wav": "silent", "long silence.wav": "silent",
        "short.wav": "too_short", "long nan.wav": "nan",
    }  # fmt: skip


def test_files_that_cannot_be_used_say_why_and_leave_the_others_alone(small, speech, tmp_path):
    reasons = write_bad(tmp_path) | {"absent.wav": "missing"}
    paths = [tmp_path / name for name in reasons]
    results = small.files([speech[0][0], *paths, speech[0][1]])
    for path, reason, error in zip(paths, reasons.values(), results[1:-1], strict=True):
        assert isinstance(error, AudioError), path
        assert error.reason == reason, path
        assert path.name in str(error)
        with pytest.raises(AudioError, match=reason):
            small.file(path)
    for path, result in ((speech[0][0], results[0]), (speech[0][1], results[-1])):
        np.testing.assert_allclose(values(small.file(path)), values(result), rtol=0, atol=1e-5)


def test_waveforms_that_cannot_be_used_say_why(small):
    for wave, reason in (
        (np.zeros(RATE), "silent"),
        (np.full(RATE, np.nan), "nan"),
        (np.zeros(0), "empty"),
        (np.ones(100), "too_short"),
        (np.full(RATE, 3_000.0), "unscaled"),
    ):
        with pytest.raises(AudioError, match=f"the waveform: {reason}"):
            small(wave, RATE)
    with pytest.raises(ValueError, match="at 0 Hz"):
        small(np.zeros(RATE), 0)
    with pytest.raises(ValueError, match="not uint8"):
        small(np.zeros(RATE, np.uint8), RATE)


def test_calibration_sharpens_by_the_logits(tmp_path, speech):
    plain, sharp = make(num_members=1), make(num_members=1, temperature=0.5)
    results = []
    for number, model in enumerate((plain, sharp)):
        model_folder.write(model, tmp_path / str(number))
        results.append(predict.load(tmp_path / str(number))(speech[1][0], RATE))
    backbone = backbones.load("logmel", layers=(0,))
    hidden, num_frames = _call(backbone, speech[1][0][None], jnp.asarray([len(speech[1][0])], jnp.int32))
    logits = export.apply(plain.about["head"], plain.heads, hidden, num_frames).logits[0, 0]
    for result, temperature in zip(results, (1.0, 0.5), strict=True):
        expected = jax.nn.softmax(logits / temperature)
        np.testing.assert_allclose(list(result.distribution.values()), expected, rtol=0, atol=1e-5)
        assert result.distribution_sd is None
        assert result.conformal_set is None


def test_another_backbone_is_refused_naming_both_sides(saved, shared):
    folder, model = saved
    other = shared / "weights" / "whisper-base-encoder"
    with pytest.raises(ArtefactError, match=r"num_features: 512 there, 384 asked for; revision: '\w+' there, '\w+'"):
        predict.load(folder, backbone=other)
    with pytest.raises(ArtefactError, match=r"nowhere/backbone.*--backbone"):
        predict.load(folder, backbone="/nowhere/backbone")
    moved = model.about | {"backbone": model.about["backbone"] | {"revision": "0123"}}
    model_folder.write(model._replace(about=moved), folder.parent / "moved")
    with pytest.raises(ArtefactError, match=r"revision: '\w+' there, '0123' asked for"):
        predict.load(folder.parent / "moved")
    deep = model.about | {"layers": [1, 9], "members": [{**m, "layer": 1} for m in model.about["members"]]}
    model_folder.write(model._replace(about=deep), folder.parent / "deep")
    with pytest.raises(ArtefactError, match=r"layer 9 is out of range; this backbone has layers 0 to 4"):
        predict.load(folder.parent / "deep")
