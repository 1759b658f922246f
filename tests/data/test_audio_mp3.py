"""MP3 files with and without the frame that says their length: all are heard to their end."""

import numpy as np
import pytest
import soundfile

from seremo_jax.data import audio, audio_mp3, audio_open
from tests.data.test_audio_containers import heard


def speechlike(rate_hz, seconds=2.0, channels=1):
    rng = np.random.default_rng(0)
    number = round(rate_hz * seconds)
    level = np.where(np.arange(number) < number // 4, 0.5, 0.002)  # loud first, so that bitrates differ
    return (rng.uniform(-1, 1, (number, channels)) * level[:, None]).astype(np.float32)


def write(path, rate_hz=44_100, channels=1, mode="VARIABLE"):
    """An MP3 file; its content, where its second frame begins, and its samples."""
    samples = speechlike(rate_hz, channels=channels)
    soundfile.write(path, samples, rate_hz, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode,
                    compression_level=0.5)  # fmt: skip
    content = path.read_bytes()
    return content, audio_mp3.frame_of(content[:4]).size, samples


def as_decoded(path):
    """Samples before mixing and resampling."""
    with audio_open.opened(path) as file:
        return np.concatenate(list(file.pieces(1.0)))


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [48_000, 44_100, 22_050, 16_000, 8_000])
def test_without_a_number_of_frames_all_is_heard(tmp_path, rate_hz, channels, mode):
    path = tmp_path / "x.mp3"
    content, second, samples = write(path, rate_hz, channels, mode)
    assert heard(path) == len(samples)
    whole = as_decoded(path)
    path.write_bytes(content[second:])
    with path.open("rb") as file:
        frames = audio_mp3.count(file, len(content) - second)
    number = heard(path)
    assert number == frames.num * frames.first.num_samples
    assert len(samples) < number < len(samples) + 4 * 1152
    # Only the encoder's delay and what fills the last frame come on top.
    delay = 528 + 1 + 576
    np.testing.assert_allclose(as_decoded(path)[delay:][1152 : len(whole)], whole[1152:], atol=1e-3)


def test_a_wrong_number_of_frames(tmp_path):
    path = tmp_path / "x.mp3"
    content, second, samples = write(path)
    path.write_bytes(content + content)
    assert heard(path) > 2 * len(samples)
    place = content.index(b"Xing") + 8
    num = int.from_bytes(content[place : place + 4], "big")
    for wrong in (0, num // 2):
        path.write_bytes(content[:place] + wrong.to_bytes(4, "big") + content[place + 4 :])
        assert len(samples) < heard(path) < len(samples) + 4 * 1152
    path.write_bytes(content[:place] + (num + 1).to_bytes(4, "big") + content[place + 4 :])
    facts = audio.check(path, 0.1, 60.0)  # one more: the frame with the number is counted, too
    assert facts.reason is None
    assert abs(facts.duration_s * 44_100 - len(samples)) <= 1152
    path.write_bytes(content[: len(content) // 2])
    assert "cut off" in heard(path)
    assert second < place + 4 + 500


def test_tags_before_between_and_behind_are_no_frames(tmp_path):
    path = tmp_path / "x.mp3"
    content, second, samples = write(path)
    bare = content[second:]
    tag = b"ID3\x04\0\0\0\0\x04\0" + b"\xff\xfb\x90\x00" * 128
    path.write_bytes(bare)
    alone = heard(path)
    path.write_bytes(tag + bare + b"TAG" + b"a title".ljust(125))
    assert heard(path) == alone
    path.write_bytes(tag + content)
    assert heard(path) == len(samples)


def test_small_mp3_files_that_failed(shared):
    folder = shared / "cases" / "audio"
    assert heard(folder / "cbr_noinfo.mp3") == 67_968
    # Without the header nobody can tell the delay and the padding of the encoder from sound: less than two frames.
    assert 0 <= heard(folder / "vbr_loud_first_noxing.mp3") - 198_450 < 2 * 1152
