"""Long recordings piece by piece: samples in blocks, what they add up to, and frames cut into the head's windows."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float

from seremo_jax.data import audio
from seremo_jax.data.level import Level

BLOCK_SAMPLES, WINDOWS_AT_ONCE = 160_000, 8


class Sums:
    """What a waveform adds up to, piece by piece, to know silence and its level by."""

    def __init__(self):
        self.num_samples, self._total, self._lowest, self._highest = 0, 0.0, np.inf, -np.inf
        self.level = Level(audio.SAMPLE_RATE_HZ)

    def add(self, piece: Float[np.ndarray, " S"]) -> None:
        """Adds a piece."""
        if len(piece):
            self.num_samples += len(piece)
            self._total += float(piece.sum(dtype=np.float64))
            self.level.add(piece)
            self._lowest, self._highest = min(self._lowest, piece.min()), max(self._highest, piece.max())

    def added(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the pieces, adding each."""
        for piece in pieces:
            self.add(piece)
            yield piece

    def require_sound(self, path: str | os.PathLike, least_s: float) -> None:
        """See `audio.require_sound`."""
        mean, seconds = self._total / max(self.num_samples, 1), self.num_samples / audio.SAMPLE_RATE_HZ
        audio.require_sound(path, float(self._lowest), float(self._highest), mean, seconds, least_s)


def cut(waveform: Float[np.ndarray, " S"]) -> Iterator[np.ndarray]:
    """Yields a waveform in blocks."""
    for start in range(0, len(waveform), BLOCK_SAMPLES):
        yield waveform[start : start + BLOCK_SAMPLES]


def blocks(item: np.ndarray | None, path: str | os.PathLike) -> Callable[[], Iterable[np.ndarray]]:
    """Reads a long recording in blocks: what was decoded of it, or its file."""
    return functools.partial(audio.blocks, path) if item is None else functools.partial(cut, item)


def batches_of_windows(
    pieces: Iterable[np.ndarray], length: int, hop: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Cuts a stream of frames [K, t, D] into windows of `length` frames every `hop`, some together.

    A window follows only where frames are left behind the one before, so only the last one is shorter.

    Yields:
      First frame of each window; frames [K, WINDOWS_AT_ONCE, length, D], zero beyond each length; valid frames of
      each, 0 in slots without one.
    """
    starts: list[int] = []
    windows: list[np.ndarray] = []
    waiting, start = None, 0

    def together() -> tuple[list[int], np.ndarray, np.ndarray]:
        # One shape for every batch, the last one included, so that one program serves recordings of any length.
        num_layers, _, num_features = windows[0].shape
        frames = np.zeros((num_layers, WINDOWS_AT_ONCE, length, num_features), windows[0].dtype)
        num_frames = np.zeros(WINDOWS_AT_ONCE, np.int32)
        for slot, window in enumerate(windows):
            frames[:, slot, : window.shape[1]] = window
            num_frames[slot] = window.shape[1]
        return list(starts), frames, num_frames

    for piece in pieces:
        waiting = piece if waiting is None else np.concatenate([waiting, piece], axis=1)
        while waiting.shape[1] > length:
            starts.append(start)
            # A copy, since a view would keep all frames that wait alive.
            windows.append(waiting[:, :length].copy())
            waiting, start = waiting[:, hop:], start + hop
            if len(windows) == WINDOWS_AT_ONCE:
                yield together()
                starts.clear()
                windows.clear()
    if waiting is not None and waiting.shape[1]:
        starts.append(start)
        windows.append(waiting)
    if windows:
        yield together()
