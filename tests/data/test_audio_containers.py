"""Whether all samples are there: whole files with wrong sizes are heard, cut ones refused, in every container."""

import os

import numpy as np
import pytest
import soundfile

from seremo_jax.data import audio, audio_containers

RATE_HZ, NUM_SAMPLES = 16_000, 24_000
PLAIN = {
    "wav": ("WAV", "PCM_16", "FILE"),
    "wav24": ("WAVEX", "PCM_24", "FILE"),
    "rifx": ("WAV", "PCM_16", "BIG"),
    "rf64": ("RF64", "PCM_16", "FILE"),
    "w64": ("W64", "PCM_16", "FILE"),
    "aiff": ("AIFF", "PCM_16", "FILE"),
    "aifc": ("AIFF", "PCM_16", "LITTLE"),
    "au": ("AU", "PCM_16", "FILE"),
    "snd": ("AU", "PCM_16", "LITTLE"),
    "voc": ("VOC", "PCM_16", "FILE"),
    "sph": ("NIST", "PCM_16", "FILE"),
    "caf": ("CAF", "PCM_16", "FILE"),
}
CODED = {
    "gsm": ("WAV", "GSM610", "FILE"),
    "nms": ("WAV", "NMS_ADPCM_32", "FILE"),
    "ima": ("WAV", "IMA_ADPCM", "FILE"),
    "gsm.w64": ("W64", "GSM610", "FILE"),
    "gsm.aiff": ("AIFF", "GSM610", "FILE"),
    "dwvw": ("AIFF", "DWVW_16", "FILE"),
    "g721": ("AU", "G721_32", "FILE"),
    "ulaw.sph": ("NIST", "ULAW", "FILE"),
    "alac": ("CAF", "ALAC_16", "FILE"),
    "flac": ("FLAC", "PCM_16", "FILE"),
    "ogg": ("OGG", "VORBIS", "FILE"),
    "opus": ("OGG", "OPUS", "FILE"),
    "mp3": ("MP3", "MPEG_LAYER_III", "FILE"),
}


def noise():
    return np.random.default_rng(0).uniform(-0.5, 0.5, NUM_SAMPLES)


def write(path, kind):
    form, subtype, endian = (PLAIN | CODED)[kind]
    soundfile.write(path, noise(), RATE_HZ, format=form, subtype=subtype, endian=endian)
    return bytearray(path.read_bytes())


def heard(path):
    """Samples that all readers agree on, or the detail with which all refuse."""
    facts = audio.check(path, 0.1, 60.0)
    if facts.reason:
        for read in (audio.decode, lambda path: list(audio.blocks(path))):
            with pytest.raises(audio.AudioError, match=facts.reason):
                read(path)
        return f"{facts.reason}: {facts.detail}"
    assert audio.length_s(path) == facts.duration_s
    waveform = audio.decode(path).waveform
    np.testing.assert_allclose(np.concatenate(list(audio.blocks(path, 0.3))), waveform, atol=2e-5)
    return round(facts.duration_s * facts.source_rate_hz)


@pytest.mark.parametrize("kind", PLAIN | CODED)
def test_whole_files_are_heard_and_cut_ones_refused(tmp_path, kind):
    path = tmp_path / "x.wav"
    content = write(path, kind)
    assert NUM_SAMPLES <= heard(path) < NUM_SAMPLES + 500  # coded ones are filled up to their last block
    path.write_bytes(content[: len(content) // 2])
    assert heard(path).startswith("unreadable: ")
    if kind != "flac":  # its decoder says so in words of its own
        assert "cut off" in heard(path)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_file_that_lacks_its_last_sample_is_cut_off(tmp_path, kind):
    path = tmp_path / "x.wav"
    write(path, kind)
    content = path.read_bytes().rstrip(b"\0") if kind == "voc" else path.read_bytes()
    behind = content.rfind(b"PEAK") if b"PEAK" in content else len(content)
    path.write_bytes(content[: behind - 2])
    assert "cut off" in heard(path)


SIZES = {"wav": (4, 4, "little"), "rifx": (4, 4, "big"), "rf64": (20, 8, "little"), "w64": (16, 8, "little"),
         "aiff": (4, 4, "big")}  # fmt: skip
"""Place, width and order of the size of the whole."""


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("more", [1, 8, 16, -8, None])
def test_the_size_of_the_whole_may_be_wrong(tmp_path, kind, more):
    content = write(tmp_path / "x.wav", kind)
    place, width, order = SIZES[kind]
    size = int.from_bytes(content[place : place + width], order)
    content[place : place + width] = (0 if more is None else size + more).to_bytes(width, order)
    (tmp_path / "x.wav").write_bytes(content)
    assert heard(tmp_path / "x.wav") == NUM_SAMPLES


def sizes_of_samples(kind, content):
    """Places of the numbers that a recorder fills in last, with their widths."""
    if kind == "sph":
        return [(content.index(b"-i 24000") + 3, 5)]
    if kind == "voc":
        return [(27, 3)]
    if kind in ("au", "snd"):
        return [(8, 4)]
    if kind == "w64":
        return [(content.index(b"data\xf3") + 16, 8)]
    name = b"SSND" if kind in ("aiff", "aifc") else b"data"
    # RF64 has the size in ds64 (behind the size of the whole), and in the chunk "see there".
    return [(28, 8)] if kind == "rf64" else [(content.index(name) + 4, 4)]


@pytest.mark.parametrize("kind", sorted(PLAIN.keys() - {"caf"}))
def test_a_recording_that_was_never_finished_is_refused_for_that(tmp_path, kind):
    content = write(tmp_path / "x.wav", kind)
    for place, width in sizes_of_samples(kind, content):
        content[place : place + width] = b"0    " if kind == "sph" else bytes(width)
    (tmp_path / "x.wav").write_bytes(content)
    assert heard(tmp_path / "x.wav").startswith("unreadable: never finished")


def test_no_samples_at_all_and_a_list_behind_them_is_empty(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(0), RATE_HZ)
    content = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(content + b"LIST\x04\0\0\0INFO")
    assert heard(tmp_path / "x.wav") == "empty: 0 samples"


def test_what_lies_behind_the_samples_may_be_cut(tmp_path):
    content = write(tmp_path / "x.wav", "wav")
    (tmp_path / "x.wav").write_bytes(content + b"LIST\xff\0\0\0INFOhalf of a")
    assert heard(tmp_path / "x.wav") == NUM_SAMPLES


@pytest.mark.parametrize("pad", [b"\0", b""])
@pytest.mark.parametrize("kind", ["wav", "rifx", "aiff"])
def test_chunks_of_odd_length_before_the_samples(tmp_path, kind, pad):
    content = bytes(write(tmp_path / "x.wav", kind))
    name, order = (b"SSND", "big") if kind == "aiff" else (b"data", "big" if kind == "rifx" else "little")
    place = content.index(name)
    content = content[:place] + b"note" + (5).to_bytes(4, order) + b"hello" + pad + content[place:]
    (tmp_path / "x.wav").write_bytes(content)
    if pad:  # libsndfile itself knows no files without it
        assert heard(tmp_path / "x.wav") == NUM_SAMPLES
    (tmp_path / "x.wav").write_bytes(content[: len(content) // 2])
    assert "cut off" in heard(tmp_path / "x.wav")


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF, 0xFFFFFFDB])
def test_a_stream_goes_on_to_the_end_of_the_file(tmp_path, size):
    content = write(tmp_path / "x.wav", "wav")
    place = content.index(b"data") + 4
    content[place : place + 4] = size.to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(content)
    assert heard(tmp_path / "x.wav") == NUM_SAMPLES


def test_a_file_of_three_gigabytes_that_lost_most_is_no_stream(tmp_path):
    content = write(tmp_path / "x.wav", "wav")
    place = content.index(b"data") + 4
    content[place : place + 4] = (3 * 10**9).to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(content)
    assert "cut off: 48000 of 3000000000 bytes" in heard(tmp_path / "x.wav")


def test_flac_that_does_not_say_its_length_is_decoded_to_its_end(tmp_path):
    content = write(tmp_path / "x.flac", "flac")
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "x.flac").write_bytes(content)
    assert heard(tmp_path / "x.flac") == NUM_SAMPLES
    assert audio.check(tmp_path / "x.flac", 0.1, 1.4).reason == "too_long"
    (tmp_path / "x.flac").write_bytes(content[: len(content) // 2])
    assert heard(tmp_path / "x.flac").startswith("unreadable")


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_ogg_cut_between_two_pages_lacks_the_mark_of_its_end(tmp_path, kind):
    content = bytes(write(tmp_path / "x.ogg", kind))
    (tmp_path / "x.ogg").write_bytes(content[: content.rindex(b"OggS")])
    assert "no page marked as the last one" in heard(tmp_path / "x.ogg")
    (tmp_path / "x.ogg").write_bytes(content + b"a tag behind the end")
    assert heard(tmp_path / "x.ogg") == NUM_SAMPLES


HEADS = {"x.m4a": b"\0\0\0\x1cftypM4A ",
         "x.3gp": b"\0\0\0\x18ftyp3gp4", "x.webm": b"\x1aE\xdf\xa3", "x.amr": b"#!AMR\n",
         "x.wma": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "x.aac": b"\xff\xf1\x50\x80"}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_other_recordings_come_with_how_to_convert_them(tmp_path, name):
    (tmp_path / name).write_bytes(HEADS[name] + bytes(500))
    suffix = os.path.splitext(name)[1]
    assert suffix in audio_containers.FOREIGN_SUFFIXES
    assert f"(ffmpeg -i {name} x.wav)" in heard(tmp_path / name)
    (tmp_path / "x.wav").write_bytes(HEADS[name] + bytes(500))
    assert "(ffmpeg -i x.wav x-converted.wav)" in heard(tmp_path / "x.wav")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("notes.flac", "ffmpeg -i notes.flac notes.wav"),
        ("-i my rec.voc", "ffmpeg -i './-i my rec.voc' './-i my rec.wav'"),
        ("$(x).WAV", "ffmpeg -i '$(x).WAV' '$(x)-converted.wav'"),
    ],
)
def test_whatever_cannot_be_opened_comes_with_how_to_convert_it(tmp_path, name, command):
    (tmp_path / name).write_bytes(b"a codec that nobody here knows" * 9)
    assert f"where it is audio, convert it ({command})" in heard(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("riff_plus1.wav", 24_000),
        ("gsm610.wav", 16_000),
        ("cut.w64", "cut off"),
        ("cut.aiff", "cut off"),
        ("stream_zero_data.wav", "(ffmpeg -i stream_zero_data.wav stream_zero_data-converted.wav)"),
        ("phone.m4a", "ffmpeg -i phone.m4a phone.wav"),
    ],
)
def test_small_inputs_that_failed(shared, name, expected):
    outcome = heard(shared / "cases" / "audio" / name)
    assert outcome == expected if isinstance(expected, int) else expected in outcome
