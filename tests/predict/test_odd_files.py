"""No file ends a run of many: odd names, odd containers, decoders that raise, links and pipes, in every format."""

import csv
import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from seremo_jax.data import audio_open
from seremo_jax.predict import files as predict_files
from tests.predict.test_files import folder, launch, model, run

__all__ = ["folder", "model"]

RATE_HZ = 16_000


def write(path, seconds=1.0, form="WAV", subtype="PCM_16"):
    samples = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ))
    with path.open("wb") as file:
        soundfile.write(file, samples, RATE_HZ, format=form, subtype=subtype)
    return path


def read(out, form):
    if form == "json":
        return [json.loads(line)["file"] for line in out.read_text(encoding="utf-8").splitlines()]
    if form == "csv":
        with out.open(encoding="utf-8", newline="") as file:
            return [row["file"] for row in csv.DictReader(file)]
    return pq.read_table(out)["file"].to_pylist()


@pytest.mark.parametrize("form", predict_files.FORMATS)
def test_odd_names_are_predicted_or_listed_and_resumed(model, tmp_path, form):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = ["$a$b$.wav", "a\nb.wav", "n" * 236 + ".wav", os.fsdecode(b"gr\xfc\xdfe.wav"), "p%s{}.wav", "=1+1.wav"]
    for name in names:
        write(source / name)
    write(source / "gsm.wav", form="WAV", subtype="GSM610")
    (source / os.fsdecode(b"schlecht\xe4.wav")).write_text("no audio")
    (source / "phone.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    formula = "'=1+1.wav" if form == "csv" else "=1+1.wav"
    expected = sorted([*names[:3], r"gr\xfc\xdfe.wav", names[4], formula, "gsm.wav"])
    for _ in range(2):
        outcome = run(model, source, out, form, with_timeline=True)
        assert sorted(read(out, form)) == expected
        assert [(file, reason) for file, reason, _ in outcome.bad] == [
            ("phone.m4a", "unreadable"), (r"schlecht\xe4.wav", "unreadable"),
        ]  # fmt: skip
        assert "ffmpeg -i phone.m4a phone.wav" in outcome.bad[0][2]
        assert r"(ffmpeg -i 'schlecht\xe4.wav' 'schlecht\xe4-converted.wav')" in outcome.bad[1][2]
    assert sorted(read(tmp_path / "out.bad.csv", "csv")) == ["phone.m4a", r"schlecht\xe4.wav"]


def test_long_recordings_of_odd_names_have_their_timelines(model, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = ["$x^{$.wav", "n" * 236 + ".wav", "n" * 251 + ".wav", "n" * 251 + ".WAV", os.fsdecode(b"gr\xfc\xdfe.wav")]
    first = write(source / names[0], seconds=31)
    for name in names[1:]:
        shutil.copyfile(first, source / name)
    outcome = run(model, source, out, with_timeline=True)
    assert (len(outcome.records), outcome.bad) == (5, [])
    written = sorted(path.name for path in (tmp_path / "out.timeline").iterdir())
    assert len(written) == 10
    assert written[:2] == ["$x^{$.wav.csv", "$x^{$.wav.png"]
    assert "n" * 236 + ".wav.csv" in written


def test_a_timeline_that_cannot_be_written_is_listed_and_tried_again(model, tmp_path, monkeypatch):
    path, out = write(tmp_path / "a.wav", seconds=31), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(predict_files.timeline, "figure", lambda *args: 1 / 0)
        outcome = run(model, path, out, with_timeline=True)
    assert len(outcome.records) == 1
    assert [(reason, detail) for _, reason, detail in outcome.bad] == [
        ("timeline", "its timeline cannot be written: ZeroDivisionError: division by zero")
    ]
    assert run(model, path, out, with_timeline=True).bad == []


def test_a_list_may_name_what_no_file_can_be_called(model, tmp_path):
    write(tmp_path / "a.wav")
    write(tmp_path / os.fsdecode(b"gr\xfc\xdfe.wav"))
    write(tmp_path / "b.raw")
    (tmp_path / "samples.raw").write_bytes(bytes(range(256)) * 100)
    os.mkfifo(tmp_path / "pipe.wav")
    lines = [b"a.wav", b"gr\xfc\xdfe.wav", b"b\0.wav", b"b.raw", b"samples.raw", b"pipe.wav", b"/dev/zero", b"x" * 300]
    (tmp_path / "some.txt").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    for _ in range(2):
        outcome = run(model, tmp_path / "some.txt", tmp_path / "out")
        assert [record["file"] for record in outcome.records] == ["a.wav", r"gr\xfc\xdfe.wav", "b.raw"]
        assert [(file, reason) for file, reason, _ in outcome.bad] == [
            ("b\0.wav", "missing"), ("samples.raw", "unreadable"), ("pipe.wav", "unreadable"),
            ("/dev/zero", "unreadable"), ("x" * 300, "unreadable"),
        ]  # fmt: skip


@pytest.mark.parametrize("error", [ValueError("odd"), TypeError("odd"), UnicodeError("odd"), AssertionError("odd"),
                                   ZeroDivisionError("odd"), MemoryError(), OSError(5, "odd")])  # fmt: skip
@pytest.mark.parametrize("seconds", [1, 31])
def test_whatever_a_decoder_raises_concerns_one_file(model, tmp_path, monkeypatch, error, seconds):
    names = ["a.wav", "bad.wav", "c.wav"]
    for number, name in enumerate(names):
        write(tmp_path / name, seconds=seconds + number / 10)
    size, read_samples = (tmp_path / "bad.wav").stat().st_size, audio_open._Sequential.read

    def raising(self, *args, **options):
        if os.fstat(self.name).st_size == size:
            raise error
        return read_samples(self, *args, **options)

    monkeypatch.setattr(audio_open._Sequential, "read", raising)
    outcome = run(model, tmp_path)
    assert [record["file"] for record in outcome.records] == ["a.wav", "c.wav"]
    [(file, reason, detail)] = outcome.bad
    assert (file, reason) == ("bad.wav", "unreadable")
    assert "odd" in detail or "memory" in detail


def test_what_a_folder_links_to_is_heard_or_listed(folder, tmp_path):
    source = tmp_path / "in"
    (tmp_path / "elsewhere").mkdir()
    source.mkdir()
    write(source / "a.wav")
    write(tmp_path / "elsewhere" / "b.wav")
    (source / "far").symlink_to(tmp_path / "elsewhere")
    (source / "up").symlink_to(source)
    done = launch("predict", "--model", folder, source)
    assert done.returncode == 0
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == ["a.wav", "far/b.wav"]
    (source / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (source / "session 2").symlink_to(tmp_path / "unmounted")
    os.mkfifo(source / "pipe.wav")
    done = launch("predict", "--model", folder, source)
    assert done.returncode == 2
    assert "cannot be used: gone.wav: missing (a link to something that is not there)" in done.stderr
    assert "cannot be used: session 2: missing" in done.stderr
    assert "cannot be used: pipe.wav: unreadable (a pipe, a device or a socket" in done.stderr
    assert "2 files predicted, 3 cannot be used" in done.stderr


def test_small_inputs_that_failed_are_predicted_or_listed(model, shared, tmp_path):
    outcome = run(model, shared / "cases" / "audio", tmp_path / "out.parquet", "parquet")
    lengths = {record["file"]: record["duration_s"] for record in outcome.records}
    assert lengths == pytest.approx(
        {"cbr_noinfo.mp3": 67_968 / 44_100, "gsm610.wav": 2.0, "riff_plus1.wav": 1.5,
         "vbr_loud_first_noxing.mp3": 200_448 / 44_100}, abs=1e-4,
    )  # fmt: skip
    reasons = {file: detail for file, reason, detail in outcome.bad if reason == "unreadable"}
    assert reasons.keys() == {"cut.aiff", "cut.w64", "phone.m4a", "stream_zero_data.wav"}
    assert reasons["cut.w64"].startswith("cut off")
    assert reasons["cut.aiff"].startswith("cut off")
