"""Audio files: every kind of bad one by name, conversions against plain NumPy, hashes of content."""

import contextlib
import io
import os

import numpy as np
import pytest
import soundfile

from seremo_jax.data import audio, audio_open

RATE_HZ = 16_000


def tone(duration_s=1.0, rate_hz=RATE_HZ, frequency_hz=440.0, level=0.5):
    return level * np.sin(2 * np.pi * frequency_hz * np.arange(int(duration_s * rate_hz)) / rate_hz)


def reason_of(path, min_s=0.1, max_s=10.0):
    return audio.check(path, min_s, max_s).reason


def test_pcm_decodes_to_exactly_its_samples(tmp_path):
    samples = np.arange(-32768, 32768, 4, dtype=np.int16)
    soundfile.write(tmp_path / "x.wav", samples, RATE_HZ, subtype="PCM_16")
    decoded = audio.decode(tmp_path / "x.wav")
    np.testing.assert_array_equal(decoded.waveform, samples / np.float32(32768))
    assert (decoded.source_rate_hz, decoded.num_channels) == (RATE_HZ, 1)
    assert decoded.waveform.dtype == np.float32


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_other_rates_become_16_khz(tmp_path, rate_hz):
    soundfile.write(tmp_path / "x.wav", tone(1.0, rate_hz), rate_hz, subtype="FLOAT")
    decoded = audio.decode(tmp_path / "x.wav")
    assert decoded.source_rate_hz == rate_hz
    assert len(decoded.waveform) == RATE_HZ
    inner = slice(2000, -2000)
    np.testing.assert_allclose(decoded.waveform[inner], tone(1.0)[inner], atol=2e-3)
    facts = audio.check(tmp_path / "x.wav", 0.1, 10.0)
    assert (facts.reason, facts.source_rate_hz, facts.duration_s) == (None, rate_hz, 1.0)


def test_stereo_is_averaged(tmp_path):
    both = np.stack([tone(level=0.5), tone(level=0.1)], axis=1)
    soundfile.write(tmp_path / "x.wav", both, RATE_HZ, subtype="FLOAT")
    decoded = audio.decode(tmp_path / "x.wav")
    assert decoded.num_channels == 2
    np.testing.assert_allclose(decoded.waveform, tone(level=0.3), atol=1e-6)
    assert reason_of(tmp_path / "x.wav") is None


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("x.wav", "FLOAT"), ("x.wav", "DOUBLE"), ("x.wav", "ULAW"), ("x.wav", "PCM_24"), ("x.flac", "PCM_16"),
     ("x.ogg", "VORBIS"), ("x.mp3", "MPEG_LAYER_III")],
)  # fmt: skip
def test_formats_other_than_16_bit_wav_decode(tmp_path, name, subtype):
    soundfile.write(tmp_path / name, tone(), RATE_HZ, subtype=subtype)
    decoded = audio.decode(tmp_path / name)
    assert len(decoded.waveform) == RATE_HZ
    assert np.corrcoef(decoded.waveform, tone())[0, 1] > 0.99
    assert reason_of(tmp_path / name) is None


def test_overshoot_is_clipped_to_full_scale(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(level=1.5), RATE_HZ, subtype="FLOAT")
    waveform = audio.decode(tmp_path / "x.wav").waveform
    assert (waveform.min(), waveform.max()) == (-1.0, 1.0)


def make_missing(path):
    pass


def make_empty(path):
    path.write_bytes(b"")


def make_no_samples(path):
    soundfile.write(path, np.zeros(0), RATE_HZ)


def make_text(path):
    path.write_text("this is not audio, whatever its name")


def make_folder(path):
    path.mkdir()


def make_lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90000\n")


def make_nan(path):
    soundfile.write(path, np.where(np.arange(RATE_HZ) == 7, np.nan, tone()), RATE_HZ, subtype="FLOAT")


def make_infinite(path):
    soundfile.write(path, np.where(np.arange(RATE_HZ) == 7, np.inf, tone()), RATE_HZ, subtype="FLOAT")


def make_unscaled(path):
    soundfile.write(path, tone(level=20_000.0), RATE_HZ, subtype="FLOAT")


def make_cut_off(path):
    soundfile.write(path, tone(), RATE_HZ)
    path.write_bytes(path.read_bytes()[:16_000])


def make_too_long(path):
    soundfile.write(path, tone(10.1), RATE_HZ)


BAD = [
    (make_missing, "missing"),
    (make_empty, "empty"),
    (make_no_samples, "empty"),
    (make_text, "unreadable"),
    (make_folder, "unreadable"),
    (make_lfs_pointer, "lfs_pointer"),
    (make_nan, "nan"),
    (make_infinite, "nan"),
    (make_unscaled, "unscaled"),
    (make_cut_off, "unreadable"),
    (make_too_long, "too_long"),
]


@pytest.mark.parametrize(("make", "reason"), BAD)
def test_bad_files_are_named_by_both_readers(tmp_path, make, reason):
    path = tmp_path / "x.wav"
    make(path)
    facts = audio.check(path, 0.1, 10.0)
    assert facts.reason == reason
    assert facts.detail
    assert str(tmp_path) not in facts.detail
    with pytest.raises(audio.AudioError, match=reason) as error:
        audio.decode(path, max_s=10.0)
    assert error.value.reason == reason
    assert error.value.path == str(path)


def test_cut_off_flac_is_unreadable(tmp_path):
    soundfile.write(tmp_path / "x.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 40_000), RATE_HZ)
    whole = (tmp_path / "x.flac").read_bytes()
    (tmp_path / "x.flac").write_bytes(whole[: len(whole) // 2])
    assert reason_of(tmp_path / "x.flac") == "unreadable"


def test_length_limits_include_their_ends(tmp_path):
    for name, num_samples in (("short", 1599), ("least", 1600), ("most", 32_000), ("long", 32_001)):
        soundfile.write(tmp_path / f"{name}.wav", tone(3.0)[:num_samples], RATE_HZ)
    reasons = {name: reason_of(tmp_path / f"{name}.wav", 0.1, 2.0) for name in ("short", "least", "most", "long")}
    assert reasons == {"short": "too_short", "least": None, "most": None, "long": "too_long"}
    assert len(audio.decode(tmp_path / "long.wav").waveform) == 32_001


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(RATE_HZ), "silent"),
        (np.full(RATE_HZ, 0.25), "silent"),
        (tone(level=9e-5), "silent"),
        (tone(level=2e-4), None),
        (np.stack([tone(), -tone()], axis=1), "silent"),
    ],
)
def test_silence_is_judged_on_what_would_be_heard(tmp_path, samples, reason):
    soundfile.write(tmp_path / "x.wav", samples, RATE_HZ, subtype="FLOAT")
    assert reason_of(tmp_path / "x.wav") == reason


def test_content_hash_is_that_of_the_recording_not_of_the_file(tmp_path):
    samples = (tone() * 32767).astype(np.int16)
    soundfile.write(tmp_path / "x.wav", samples, RATE_HZ)
    soundfile.write(tmp_path / "x.flac", samples, RATE_HZ)
    with soundfile.SoundFile(tmp_path / "tagged.flac", "w", RATE_HZ, 1) as file:
        file.title = "with a tag"
        file.write(samples)
    soundfile.write(tmp_path / "other.wav", np.append(samples[:-1], np.int16(9)), RATE_HZ)
    soundfile.write(tmp_path / "slower.wav", samples, 8_000)
    soundfile.write(tmp_path / "folded.wav", samples.reshape(-1, 2), RATE_HZ)
    names = ("x.wav", "x.flac", "tagged.flac", "other.wav", "slower.wav", "folded.wav")
    hashes = [audio.check(tmp_path / name, 0.1, 10.0).sha256 for name in names]
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes)) == 4


def test_shared_silent_recording_is_found(shared):
    facts = audio.check(shared / "data/crema_d/audio/1076/1076_MTI_SAD_XX.flac", 0.1, 60.0)
    assert facts.reason == "silent"
    assert facts.duration_s == 41_108 / 16_000


def test_pipes_and_devices_are_never_opened_and_dangling_links_say_so(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    facts = {path: audio.check(path, 0.1, 10.0) for path in (tmp_path / "pipe.wav", "/dev/zero", tmp_path / "gone.wav")}
    assert [fact.reason for fact in facts.values()] == ["unreadable", "unreadable", "missing"]
    assert "not opened" in facts["/dev/zero"].detail
    assert "a link" in facts[tmp_path / "gone.wav"].detail


@pytest.mark.parametrize("name", [os.fsdecode(b"gr\xfc\xdfe.wav"), "x.raw", "$a$.wav", "a\nb.wav", "x.txt", "x"])
def test_the_name_of_a_file_says_nothing_of_its_content(tmp_path, name):
    soundfile.write(tmp_path / "x.flac", tone(), RATE_HZ)
    os.rename(tmp_path / "x.flac", tmp_path / name)
    assert reason_of(tmp_path / name) is None
    assert len(np.concatenate(list(audio.blocks(tmp_path / name)))) == RATE_HZ
    (tmp_path / name).write_bytes(bytes(range(256)) * 100)
    assert reason_of(tmp_path / name) == "unreadable"


@pytest.mark.parametrize("name", ["a\0b.wav", "x" * 300 + ".wav", "nowhere://a.wav", "x.wav/y.wav"])
def test_names_that_no_file_can_have_are_reasons(tmp_path, name):
    (tmp_path / "x.wav").write_bytes(b"x")
    path = name if "://" in name else os.path.join(tmp_path, name)
    assert reason_of(path) in ("missing", "unreadable")
    with pytest.raises(audio.AudioError):
        audio.length_s(path)


@pytest.mark.parametrize(
    "error", [ValueError("odd"), TypeError("odd"), AssertionError("odd"), MemoryError(), OSError("odd")]
)
@pytest.mark.parametrize("method", ["__init__", "read"])
def test_whatever_a_decoder_raises_becomes_a_reason(tmp_path, monkeypatch, error, method):
    soundfile.write(tmp_path / "x.wav", tone(), RATE_HZ)

    def raising(*args, **options):
        raise error

    monkeypatch.setattr(audio_open._Sequential, method, raising)
    monkeypatch.setattr(audio_open._Sequential, "__del__", lambda self: None)
    monkeypatch.setattr(audio_open._Sequential, "close", lambda self: None)
    facts = audio.check(tmp_path / "x.wav", 0.1, 10.0)
    assert facts.reason == "unreadable"
    assert "odd" in facts.detail or "memory" in facts.detail
    with pytest.raises(audio.AudioError, match="unreadable"):
        list(audio.blocks(tmp_path / "x.wav"))


@pytest.mark.parametrize("rate_hz", [0, 2**31 - 1, 2**32 - 1])
def test_a_rate_that_no_recording_has_is_a_reason(tmp_path, rate_hz):
    soundfile.write(tmp_path / "x.wav", tone(), RATE_HZ)
    content = bytearray((tmp_path / "x.wav").read_bytes())
    content[24:28] = rate_hz.to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(content)
    assert reason_of(tmp_path / "x.wav") in ("unreadable", "too_short")
    for read in (audio.decode, lambda path: list(audio.blocks(path))):
        with contextlib.suppress(audio.AudioError):
            read(tmp_path / "x.wav")


def test_bytes_from_a_bucket_are_judged_alike(shared, monkeypatch):
    folder = shared / "cases" / "audio"
    expected = {path: audio.check(path, 0.1, 10.0) for path in sorted(folder.iterdir())}
    monkeypatch.setattr(audio_open, "readable", lambda path: io.BytesIO(path.read_bytes()))
    assert {path: audio.check(path, 0.1, 10.0) for path in expected} == expected
