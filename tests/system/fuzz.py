"""Readers of files from outside, given damaged files by the thousand.

    POLARS_MAX_THREADS=1 python -m tests.system.fuzz --reader=table --inputs=100000 [--start=0] [--keep=FOLDER]

Each input is a real file with some bytes, words or numbers changed; it follows from its number alone. A reader gives a
result, or raises an error of this project that names the file. Anything else, also taking longer than `LONGEST_S`, is a
failure: the program shows each kind of it once, keeps the first input of the kind, and ends with 1.

A reader is one record of `READERS`: files to begin with, what else may stand in them, and the call.
"""

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from seremo_jax import backbones
from seremo_jax.backbones import weights
from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.preprocessors import read_preprocessor
from seremo_jax.backbones.safetensors_files import SafetensorsFile
from seremo_jax.backbones.torch_files import TorchFile
from seremo_jax.backbones.weights import open_checkpoint
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data import audio
from seremo_jax.data.audio_open import AudioError
from seremo_jax.data.corpora import tabular
from seremo_jax.data.text_lines import CorpusError
from seremo_jax.predict import files
from tests.system.fuzz_inputs import CELLS, CHUNKS, JSON, OPCODES, input_of

LONGEST_S = 20
"""Of the processor's time, so that a busy machine is no failure. No input is larger than some kilobytes."""
_MOST_BYTES = 8 << 30
"""Memory that one run may ask for beyond what it begins with."""
_MEMORY = "/dev/shm"
"""Files in memory are written several times as fast as those on a disk."""
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


class Reader(NamedTuple):
    """A reader of files.

    Attributes:
      seeds: Makes the contents that inputs are made of.
      words: What may be put into them.
      read: Reads the file in a folder, as production does.
      errors: Those of this project that it may raise.
      file: Name of the file.
      prepare: Puts into the folder what else has to be there.
      pack: Makes the file of a changed content.
    """

    seeds: Callable[[], list[bytes]]
    words: Sequence[bytes]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...]
    file: str
    prepare: Callable[[Path], Any] = lambda folder: None
    pack: Callable[[bytes], bytes] = lambda content: content


def _folder_of(kind: str, *without: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for path in (GOLDEN / kind).iterdir():
            if path.name not in (*without, "states.npz"):
                shutil.copy(path, folder)

    return prepare


def _contents(*patterns: str) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for pattern in patterns for path in sorted(GOLDEN.glob(pattern))]


def _sharded(folder: Path) -> None:
    _folder_of("wav2vec2/wavlm-base", "model.safetensors")(folder)
    for number in (1, 2):
        content = json.dumps({f"w{number}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        (folder / f"model-{number}.safetensors").write_bytes(struct.pack("<Q", len(content)) + content + bytes(4))


def _preprocessors() -> list[bytes]:
    settings = {"do_normalize": False, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    nested = json.dumps({"feature_extractor": settings, "processor_class": "Wav2Vec2Processor"}).encode()
    return [nested, *_contents("wav2vec2/hubert-base/preprocessor_config.json")()]


def _indices() -> list[bytes]:
    shards = {f"w{number}": f"model-{number}.safetensors" for number in (1, 2)}
    return [json.dumps({"metadata": {"total_size": 8}, "weight_map": shards}).encode()]


def _headers() -> list[bytes]:
    contents = _contents("wav2vec2/distilhubert/model.safetensors")()
    short = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}
    short |= {"b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}
    return [
        json.dumps(short).encode(),
        *(content[8 : 8 + int.from_bytes(content[:8], "little")] for content in contents),
    ]


def _with_header(header: bytes) -> bytes:
    numbers = 32 if len(header) < 1_000 else 30_000
    return struct.pack("<Q", len(header)) + header + bytes(numbers)


def _pickles() -> list[bytes]:
    return [entry for name, entry in _entries().items() if name.endswith("data.pkl")]


@functools.cache
def _entries() -> dict[str, bytes]:
    with zipfile.ZipFile(GOLDEN / "torch" / "tensors.bin") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(pickled: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, entry in _entries().items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else entry)
    return content.getvalue()


def _all_tensors(reader: SafetensorsFile | TorchFile) -> None:
    for name, shape in reader.shapes().items():
        if np.prod(shape, dtype=float) < 1e6 and reader.dtype_name(name) in weights.FLOATING:
            reader.read(name)


def _tables() -> list[bytes]:
    rows = [f"u{i},r{j},{word},{j}.5,3" for i in range(3) for j, word in enumerate(("angry", "sad", "happy"))]
    return [
        "\n".join(["utterance,rater,primary,valence,activation", *rows]).encode(),
        b"utterance;primary;secondary;is_self_report\nu0;sad;angry;true\nu1;happy;;no\nu2;neutral;sad;0\n",
        b'utterance\tprimary\tspeaker\r\nu0\tsad\tS1\r\nu1\t"an""gry"\tS2\r\n',
    ]


def _described(folder: Path) -> None:
    rows = [f"u{i},u{i}.wav,s{i % 2},female,train" for i in range(3)]
    (folder / "utterances.csv").write_text("\n".join(["id,audio,speaker,gender,split", *rows]))
    ranges = {name: [1, 7] for name in ("valence", "activation")}
    (folder / "corpus.json").write_text(json.dumps({"corpus": "t", "attribute_ranges": ranges}))


def _votes() -> list[bytes]:
    return [
        b"id,audio,count::angry,count::sad,count::happy,num_other_annotations\nu0,a.wav,1,2,0,1\nu1,b.wav,3,0,0,0\n",
        b"id,audio,speaker,share::angry,share::sad,share::happy\nu0,a.wav,s,0.33,0.67,0\nu1,b.wav,t,1,0,0\n",
        b"id,audio,share::angry,share::sad,num_raters,valence\nu0,a.wav,17%,83%,6,2.5\nu1,b.wav,50%,50%,6,3\n",
    ]


def _json_lines() -> list[bytes]:
    rows = {"utterance": "u0", "primary": ["sad", "angry"], "valence": 3.0}, {"utterance": "u1", "primary": None}
    return ["\n".join(map(json.dumps, rows)).encode()]


def _abouts() -> list[bytes]:
    ranges = {"valence": [1, 7], "activation": [1, 7]}
    about = {"corpus": "t", "release": "1", "class_set": ["angry", "sad", "happy"], "attribute_ranges": ranges}
    return [json.dumps(about).encode()]


def _rated(folder: Path) -> None:
    (folder / "ratings.csv").write_bytes(_tables()[0])


def _lists() -> list[bytes]:
    return [b"a.wav\nsub/b.flac\n/tmp/c.wav\n", "é.wav\r\nx.mp3\n".encode()]


def _listed(folder: Path) -> None:
    for path in files.find(folder / "files.txt").paths[:20]:
        with contextlib.suppress(AudioError):
            audio.length_s(path)


def _sounds() -> list[bytes]:
    contents = []
    for form, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("WAV", "ULAW"), ("RF64", "PCM_16"),
                          ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("FLAC", "PCM_16")):  # fmt: skip
        buffer = io.BytesIO()
        soundfile.write(buffer, np.sin(np.arange(800) / 9), 16_000, subtype, format=form)
        contents.append(buffer.getvalue())
    return contents


def _heard(folder: Path) -> None:
    audio.length_s(folder / "x.wav")
    audio.decode(folder / "x.wav", 60.0)


READERS = {
    "config": Reader(
        _contents("wav2vec2/*/config.json", "whisper/config.json"), JSON,
        lambda folder: backbones.load(folder, layers=(0,)), (CheckpointError,), "config.json",
        _folder_of("wav2vec2/wavlm-base", "config.json"),
    ),
    "preprocessor": Reader(
        _preprocessors, JSON, lambda folder: read_preprocessor(folder, "wavlm"), (CheckpointError,),
        "processor_config.json",
    ),
    "checkpoint-index": Reader(
        _indices, (*JSON, b"model-1.safetensors", b"pytorch_model.bin", b"/dev/zero", b"."),
        lambda folder: open_checkpoint(str(folder)).shapes(), (CheckpointError,), "model.safetensors.index.json",
        _sharded,
    ),
    "safetensors": Reader(
        _headers, (*JSON, b'"F8_E4M3"', b'"I64"', b'"dtype"', b'"shape"', b'"data_offsets"'),
        lambda folder: _all_tensors(SafetensorsFile(folder / "x.safetensors")), (CheckpointError,), "x.safetensors",
        pack=_with_header,
    ),
    "pickle": Reader(
        _pickles, OPCODES, lambda folder: _all_tensors(TorchFile(folder / "x.bin")), (CheckpointError,), "x.bin",
        pack=_archive,
    ),
    "torch": Reader(
        lambda: [_archive(b"\x80\x02}."), *_contents("torch/tensors.bin")()],
        (*OPCODES, b"PK\1\2", b"PK\3\4", b"PK\5\6"), lambda folder: _all_tensors(TorchFile(folder / "x.bin")),
        (CheckpointError,), "x.bin",
    ),
    "table": Reader(_tables, CELLS, tabular.parse, (CorpusError,), "ratings.csv", _described),
    "votes": Reader(_votes, CELLS, tabular.parse, (CorpusError,), "utterances.csv"),
    "json-lines": Reader(_json_lines, (*JSON, *CELLS), tabular.parse, (CorpusError,), "ratings.jsonl", _described),
    "corpus-json": Reader(_abouts, JSON, tabular.parse, (CorpusError,), "corpus.json", _rated),
    "list": Reader(_lists, CELLS, _listed, (ArtefactError,), "files.txt"),
    "wav": Reader(_sounds, CHUNKS, _heard, (AudioError,), "x.wav"),
}  # fmt: skip


# ---- running


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Ends a call that takes too long by an exception, as pytest would not."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"takes more than {LONGEST_S} s of the processor")

    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Outcome(NamedTuple):
    """How a reader took a file: whether it refused it, and what was wrong with that, empty where nothing was."""

    is_refused: bool
    failure: str = ""


def outcome_of(reader: Reader, folder: Path) -> Outcome:
    """How a reader takes the file in a folder."""
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
    except reader.errors as error:
        # Warnings and errors of a whole corpus may name its folder.
        is_named = str(folder) in str(error) or reader.file in str(error)
        return Outcome(True, "" if is_named else f"{type(error).__name__}: names no file: {str(error)[:200]}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        return Outcome(True, f"{type(error).__name__}: {str(error)[:200]} ({' < '.join(frames[:-4:-1])})")
    return Outcome(False)


def run(name: str, num_inputs: int, start: int = 0, keep: Path | None = None) -> tuple[collections.Counter, int]:
    """Kinds of failures of some inputs, how many of each, and how many inputs were refused.

    The first input of each kind is kept where a folder is given.
    """
    reader, failures, num_refused = READERS[name], collections.Counter(), 0
    seeds = reader.seeds()
    with tempfile.TemporaryDirectory(dir=_MEMORY if os.path.isdir(_MEMORY) else None) as folder:
        reader.prepare(Path(folder))
        for number in range(start, start + num_inputs):
            content = reader.pack(input_of(seeds, reader.words, number))
            (Path(folder) / reader.file).write_bytes(content)
            is_refused, failure = outcome_of(reader, Path(folder))
            num_refused += is_refused
            if failure:
                # By what went wrong and where, whatever the message says of this file.
                kind = failure.partition(":")[0] + failure.rpartition(" (")[2]
                if not failures[kind]:
                    print(f"{name}, input {number}: {failure}", flush=True)
                    if keep:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{name}-{number}-{reader.file}").write_bytes(content)
                failures[kind] += 1
    return failures, num_refused


def main(arguments: Sequence[str]) -> int:
    """The program; returns what it exits with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=READERS, required=True)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args(arguments)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_BYTES, resource.RLIM_INFINITY))
    failures, num_refused = run(given.reader, given.inputs, given.start, given.keep)
    print(
        f"{given.reader}: {given.inputs} inputs, {num_refused} refused, {failures.total()} failures of "
        f"{len(failures)} kinds"
    )
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
