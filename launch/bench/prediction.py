"""Prediction of long recordings: memory must not depend on their length."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from launch.bench.timing import Options, Row

MINUTES = (10, 60)
MOST_GROWTH = 1.05
RATE_HZ = 22_050
"""Neither the rate nor the channels of a backbone, so that both are converted on the way."""


def run(options: Options) -> list[Row]:
    """The rows of this suite."""
    return [memory(options)]


def memory(options: Options) -> Row:
    """Peak memory at 10 and at 60 minutes of real speech, each in a process of its own."""
    name = "prediction of a recording of 10 and of 60 minutes, memory"
    if options.shared is None:
        return Row(name, note="no shared data here: not measured")
    weights = options.shared / "weights" / "whisper-tiny.en-encoder"
    figures, peaks = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (2, 4) if options.is_quick else MINUTES:
            path = Path(folder) / "speech.wav"
            write_speech(path, options.shared / "data" / "crema_d" / "audio", 60 * minutes)
            code = "import sys; from launch.bench import prediction; prediction.measure(*sys.argv[1:])"
            command = [sys.executable, "-c", code, os.fspath(path), os.fspath(weights), folder]
            environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            peak_mb, seconds = map(float, done.stdout.split()[-2:])
            figures |= {f"{minutes} min: peak MB": peak_mb, f"{minutes} min: s": seconds}
            peaks.append(peak_mb)
    growth = peaks[1] / peaks[0]
    verdict = "kept" if growth <= MOST_GROWTH else "BROKEN"
    return Row(name, figures, note=f"grows by {growth - 1:.1%}, at most {MOST_GROWTH - 1:.0%}: {verdict}")


def write_speech(path: Path, source: Path, seconds: int) -> None:
    """Writes a stereo WAV of this length from recordings one after the other, again and again, piece by piece."""
    files, left = sorted(source.rglob("*.flac"))[:: 2_000 // 50][:50], seconds * RATE_HZ
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, "PCM_16") as file:
        while left:
            for piece in files:
                samples = soundfile.read(piece, dtype="float32")[0][:left]
                file.write(np.stack([samples, 0.5 * samples], axis=1))
                left -= len(samples)


def measure(path: str, weights: str, folder: str) -> None:
    """Predicts one file; prints the peak of resident memory in MB, and seconds."""
    import resource
    import time

    from seremo_jax.predict import model_folder, predictor
    from tests.support import small_heads

    model_folder.write(small_heads.make(weights, layers=(1, 3), num_members=4), f"{folder}/model")
    model = predictor.load(f"{folder}/model")
    start = time.perf_counter()
    result = model.file(path)
    if len(result.timeline) < 2:
        raise RuntimeError("the recording was not heard in windows")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, time.perf_counter() - start)
