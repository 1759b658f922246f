"""Bad recordings: each is predicted, ingested, validated and drawn as a noise; each must be listed with its reason."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.system.bad_inputs import Case, Place

_CONVERT = "convert it .ffmpeg -i "


def _header(content: bytes, start: int, value: bytes) -> bytes:
    return content[:start] + value + content[start + len(value) :]


# What is wrong -> name of the file, its content made of a good WAV, and what must be said of it.
FILES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "no bytes": ("x.wav", lambda wav: b"", "empty|0 bytes"),
    "no samples": ("x.wav", lambda wav: _header(wav[:44], 40, bytes(4)), "empty|0 samples|cut off"),
    "half": ("x.wav", lambda wav: wav[: len(wav) // 2], "cut off"),
    "header alone": ("x.wav", lambda wav: wav[:44], "cut off"),
    "half a header": ("x.wav", lambda wav: wav[:20], "x.wav"),
    "text": ("x.wav", lambda wav: b"no audio at all", _CONVERT),
    "text in FLAC": ("x.flac", lambda wav: b"no audio at all", _CONVERT),
    "text in MP3": ("x.mp3", lambda wav: b"no audio at all", _CONVERT),
    "text in Ogg": ("x.ogg", lambda wav: b"no audio at all", _CONVERT),
    "FLAC cut off": ("x.flac", lambda wav: b"fLaC\0\0\0\x22" + bytes(10), "x.flac"),
    "zeros": ("x.wav", lambda wav: bytes(1000), _CONVERT),
    "pointer of Git LFS": ("x.wav", lambda wav: b"version https://git-lfs.github.com/spec/v1\n", "lfs_pointer|LFS"),
    "silence": ("x.wav", lambda wav: wav[:44] + bytes(len(wav) - 44), "silent|-80 dBFS"),
    "MPEG-4": ("x.m4a", lambda wav: b"\0\0\0\x1cftypM4A " + bytes(99), _CONVERT + "x.m4a x.wav"),
    "MPEG-4 called WAV": ("x.wav", lambda wav: b"\0\0\0\x1cftypM4A " + bytes(99), _CONVERT + "x.wav x-converted.wav"),
    "WebM": ("x.webm", lambda wav: b"\x1aE\xdf\xa3" + bytes(99), _CONVERT + "x.webm x.wav"),
    "AMR": ("x.amr", lambda wav: b"#!AMR\n" + bytes(99), _CONVERT + "x.amr x.wav"),
    "Windows Media": ("x.wma", lambda wav: bytes.fromhex("3026b2758e66cf11") + bytes(99), _CONVERT + "x.wma x.wav"),
    "AAC": ("x.aac", lambda wav: b"\xff\xf1\x50\x80" + bytes(99), _CONVERT + "x.aac x.wav"),
    "0 channels": ("x.wav", lambda wav: _header(wav, 22, bytes(2)), "x.wav"),
    "0 Hz": ("x.wav", lambda wav: _header(wav, 24, bytes(4)), "x.wav"),
    "0 bits": ("x.wav", lambda wav: _header(wav, 34, bytes(2)), "x.wav"),
    "unknown codec": ("x.wav", lambda wav: _header(wav, 20, b"\xee\xee"), "x.wav"),
    "recorder killed": ("x.wav", lambda wav: _header(wav, 40, bytes(4)), "never finished"),
    "two samples": ("x.wav", lambda wav: _header(wav[:48], 40, b"\4\0\0\0"), "too_short|shorter|x.wav"),
    "a name to quote": ("$(x) y.wav", lambda wav: b"no audio", r"ffmpeg -i '\$\(x\) y.wav'"),
    "a name like a formula": ("=1+1.wav", lambda wav: b"no audio", "ffmpeg -i =1.1.wav"),
}


_HEARD_LATER = ("silence", "two samples")
"""What is known of a noise only when it is drawn, for which the recordings would have to be there, too."""


def _predict(name: str, content: Callable[[bytes], bytes]) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        folder = place.folder / "in"
        folder.mkdir()
        (folder / "good.wav").write_bytes(place.recording())
        (folder / name).write_bytes(content(place.recording()))
        return [f"--model={place.model()}", str(folder), f"--out={place.folder / 'out.csv'}", "--format=csv"]

    return make


def _corpus(name: str, content: Callable[[bytes], bytes]) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        arguments = place.corpus()
        path = place.folder / "corpus" / "wav"
        (path / name).write_bytes(content(place.recording()))
        (path / "a1.wav").unlink()
        if name != "a1.wav":
            table = place.folder / "corpus" / "utterances.csv"
            table.write_text(table.read_text().replace("wav/a1.wav", f"wav/{name}"))
        return arguments

    return make


def _noises(name: str, content: Callable[[bytes], bytes]) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        folder = place.folder / "noises" / "rain"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content(place.recording()))
        return [*_golden(place), f"--to={place.folder / 'to'}", f"--config.eval.noise_dir={folder.parent}",
                "--config.eval.conditions=('noise:recorded:5db',)"]  # fmt: skip

    return make


def _golden(place: Place) -> list[str]:
    """Flags of the trained workdir, whose recordings are made."""
    workdir = place.workdir()
    return ["--config=configs/simulated.py:tiny", "--config.corpus.num_speakers=6",
            "--config.corpus.utterances_per_speaker=1", f"--workdir={workdir}"]  # fmt: skip


def _list(lines: bytes) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        path = place.folder / "list.txt"
        path.write_bytes(lines)
        (place.folder / "good.wav").write_bytes(place.recording())
        return [f"--model={place.model()}", str(path)]

    return make


LISTS = {
    "nothing": (b"", "is empty"),
    "blank lines": (b"\n \n\n", "is empty"),
    "a file that is not there": (b"good.wav\nno.wav\n", "no.wav: missing"),
    "a folder": (b"good.wav\n.\n", "unreadable"),
    "NUL": (b"good.wav\na\0b.wav\n", "missing"),
    "no UTF-8": (b"good.wav\n\xff\xfe.wav\n", r"\\xff\\xfe.wav: missing"),
    "a name of 5,000 bytes": (b"good.wav\n" + b"n" * 5_000 + b".wav\n", "name too long|File name too long"),
    "binary": (bytes(range(256)), "cannot be used"),
    "a list": (b"list.txt\n", "list.txt: unreadable|cannot be used"),
    "itself as a URL": (b"https://example.org/x.wav\n", "missing|cannot be used"),
}


def _path(name: str) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        (place.folder / "empty").mkdir()
        (place.folder / "text").mkdir()
        (place.folder / "text" / "notes.doc").write_text("x")
        os.mkfifo(place.folder / "pipe.wav")
        (place.folder / "gone.wav").symlink_to(place.folder / "nowhere.wav")
        return [f"--model={place.model()}", str(place.folder / name)]

    return make


PATHS = {
    "empty": "has no audio file",
    "text": "has no audio file",
    "pipe.wav": "a pipe",
    "gone.wav": "missing|a link",
    "no.wav": "missing",
    "no.txt": "cannot be read",
    "text/notes.doc": "notes.doc: unreadable",
}


def _noise_folder(spoil: Callable[[Path], None]) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        arguments = _noises("good.wav", lambda wav: wav)(place)
        spoil(place.folder / "noises")
        return arguments

    return make


def _manifest(content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "manifest.csv").write_bytes(content)

    return spoil


NOISE_FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe": (lambda folder: os.mkfifo(folder / "x.wav"), "a pipe"),
    "a dangling link": (lambda folder: (folder / "x").symlink_to(folder / "gone"), "a link"),
    "manifest without columns": (_manifest(b"x\n"), "no column file, kind"),
    "manifest of a file that is not there": (_manifest(b"file,kind\nno.wav,rain\n"), "not there, 'no.wav'"),
    "manifest of an unknown group": (
        _manifest(b"file,kind,group\nrain/good.wav,rain,loud\n"),
        "neither steady nor events",
    ),
    "manifest in Latin-1": (_manifest(b"file,kind\nrain/good.wav,r\xe4in\n"), r"manifest\.csv cannot be read"),
}


def _of_shared() -> Iterator[tuple[str, str]]:
    yield "cut.w64", "cut off"
    yield "cut.aiff", "cut off"
    yield "stream_zero_data.wav", "never finished"
    yield "phone.m4a", _CONVERT + "phone.m4a phone.wav"


def cases(shared: Path | None) -> Iterator[Case]:
    """Every recording, list and folder; the shared ones, too, where they are there."""
    makers = {"predict": _predict, "ingest": _corpus, "validate": _corpus, "conditions": _noises}
    for launcher, maker in makers.items():
        for what, (name, content, word) in FILES.items():
            if launcher != "conditions" or what not in _HEARD_LATER:
                yield Case("audio", what, launcher, maker(name, content), word)
        if shared is not None:
            for name, word in _of_shared():
                made = maker(name, lambda wav, path=shared / "cases" / "audio" / name: path.read_bytes())
                yield Case("audio", name, launcher, made, word)
    for what, (lines, word) in LISTS.items():
        yield Case("list", what, "predict", _list(lines), word)
    for name, word in PATHS.items():
        yield Case("list", name, "predict", _path(name), word)
    for what, (spoil, word) in NOISE_FOLDERS.items():
        yield Case("noises", what, "conditions", _noise_folder(spoil), word)
