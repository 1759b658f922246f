"""The peer of an extraction: a plain loop in PyTorch that hears one file after the other, in a process a core.

Every process has one thread, reads its share of the files, hears each utterance at its own length, without padding, and
keeps the mean over frames of every layer. `Loop` starts the processes once; each call lets them hear all files anew.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.bench import torch_peers
from launch.cores import num_cores

_SAMPLES_A_FRAME, _SILENCE_FRAMES, _REACH_FRAMES = 320, 100, 2
"""Of Whisper: samples of a frame, silence at the end of windows cut to the audio, reach of the convolutions."""


class Loop:
    """Processes that wait to hear files.

    Args:
      folder: Of the checkpoint, with the config's `model_type`.
      paths: Files.
    """

    def __init__(self, folder: Path, paths: Sequence[Path]):
        shares = [[str(path) for path in paths[first :: num_cores()]] for first in range(num_cores())]
        code = "import sys; from launch.bench import naive_loop; naive_loop.serve(*sys.argv[1:])"
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(folder), json.dumps(share)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for share in shares
        ]  # fmt: skip

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes, whose work is no disturbance."""
        return tuple(process.pid for process in self._processes)

    def __call__(self) -> None:
        """Hears all files once.

        Raises:
          RuntimeError: A process ended.
        """
        for process in self._processes:
            print("go", file=process.stdin, flush=True)
        for process in self._processes:
            if not process.stdout.readline():
                raise RuntimeError("a process of the loop in PyTorch ended; its error is above")

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.stdin.close()
            process.wait()


def serve(folder: str, paths: str) -> None:
    """Hears the files, a JSON list, once for each line that comes in, and answers each line with one."""
    import soundfile
    import torch

    torch.set_num_threads(1)
    means = means_of(Path(folder))
    torch.set_num_threads(1)  # loading asks for all cores
    for _ in sys.stdin:
        heard = [means(soundfile.read(path, dtype="float32")[0]) for path in json.loads(paths)]
        print(len(heard), flush=True)


def means_of(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a waveform [S] at 16 kHz that gives the mean [K, D] of every layer over its frames."""
    import transformers

    if json.loads((folder / "config.json").read_text())["model_type"] == "whisper":
        encoder = torch_peers.whisper_encoder(folder)
        extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
        return lambda waveform: _whisper_means(encoder, extractor, waveform)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    return lambda waveform: np.stack(
        [states[0].mean(axis=0) for states in torch_peers.hidden_states(model, waveform[None])]
    )


def _whisper_means(encoder: Any, extractor: Any, waveform: np.ndarray) -> np.ndarray:
    """Of the same windows as ours, which are cut to the audio and 2 s of silence behind it."""
    import torch

    num_frames = -(-len(waveform) // _SAMPLES_A_FRAME)
    heard = num_frames + _SILENCE_FRAMES
    padded = np.pad(waveform, (0, (heard + _REACH_FRAMES) * _SAMPLES_A_FRAME - len(waveform)))
    bands = extractor(padded, sampling_rate=16_000, padding="do_not_pad", return_tensors="pt").input_features
    with torch.inference_mode():
        x = torch.nn.functional.gelu(encoder.conv1(bands))
        x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1)[:, :heard]
        x = x + encoder.embed_positions.weight[:heard]
        states = [x]
        for layer in encoder.layers:
            x = layer(x, attention_mask=None)
            x = x[0] if isinstance(x, tuple) else x
            states.append(x)
    return np.stack([state[0, :num_frames].mean(dim=0).numpy() for state in states])
