"""Prediction of long recordings: memory must not depend on their length.

The heads are those of the tests, `tests.support.small_heads`, on the hidden states of a real encoder.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from launch.bench.suite import Part, Row, Session

MINUTES, QUICK_MINUTES = (10, 60), (1, 2)
MOST_GROWTH = 1.05
RATE_HZ = 22_050
"""Neither the rate nor the channels of a backbone, so that both are converted on the way."""


def parts(session: Session) -> list[Part]:
    """The row of this suite."""
    short, long = QUICK_MINUTES if session.is_quick else MINUTES
    name = f"prediction of a recording of {short} and of {long} minutes, memory"
    return [Part((name,), lambda: _memory(name, (short, long), session))]


def _memory(name: str, lengths: tuple[int, int], session: Session) -> Iterator[Row]:
    """Peak memory on a short and on a long recording of real speech, each in a process of its own."""
    if session.shared is None:
        yield Row(name, note="no shared data here: not measured")
        return
    backbone, layers = session.shared / "weights" / "whisper-tiny.en-encoder", (1, 3)
    if session.is_quick:
        backbone, layers = "logmel", (0,)
    figures, peaks = {}, []
    with tempfile.TemporaryDirectory() as folder:
        model = os.fspath(Path(folder) / "model")
        session.in_own_process("prediction.write_model", os.fspath(backbone), layers, model, on_cpu=True)
        for minutes in lengths:
            path = Path(folder) / "speech.wav"
            write_speech(path, session.shared / "data" / "crema_d" / "audio", 60 * minutes)
            peak_mb, seconds = session.in_own_process("prediction.measure", os.fspath(path), model, on_cpu=True)
            figures |= {f"{minutes} min: peak MB": peak_mb, f"{minutes} min: s": seconds}
            peaks.append(peak_mb)
    growth = peaks[1] / peaks[0]
    verdict = "kept" if growth <= MOST_GROWTH else "BROKEN"
    yield Row(name, figures, note=f"grows by {growth - 1:.1%}, at most {MOST_GROWTH - 1:.0%}: {verdict}")


def write_speech(path: Path, source: Path, seconds: int) -> None:
    """Writes a stereo WAV of this length from recordings one after the other, again and again, piece by piece."""
    files, left = sorted(source.rglob("*.flac"))[:: 2_000 // 50][:50], seconds * RATE_HZ
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, "PCM_16") as file:
        while left:
            for piece in files:
                samples = soundfile.read(piece, dtype="float32")[0][:left]
                file.write(np.stack([samples, 0.5 * samples], axis=1))
                left -= len(samples)


def write_model(backbone: str, layers: list[int], folder: str) -> None:
    """Writes the folder of a model of four members on these layers, whose parameters are random."""
    from seremo_jax.predict import model_folder
    from tests.support import small_heads

    model_folder.write(small_heads.make(backbone, tuple(layers), num_members=4), folder)


def measure(path: str, folder: str) -> list[float]:
    """Predicts one file with the model in a folder; returns the peak of resident memory in MB, and seconds."""
    import resource
    import time

    from seremo_jax.predict import predictor

    model = predictor.load(folder)
    start = time.perf_counter()
    result = model.file(path)
    if len(result.timeline) < 2:
        raise RuntimeError("the recording was not heard in windows")
    return [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, time.perf_counter() - start]
