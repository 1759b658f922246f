"""Audio files opened for decoding: every reason not to, and how many samples there are."""

import contextlib
import dataclasses
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np
import soundfile
from jaxtyping import Float

from seremo_jax.core.artefacts import LFS_POINTER, place_of, readable
from seremo_jax.data import audio_containers, audio_mp3

_UNKNOWN_LENGTH = 2**62
"""From here on libsndfile says that it does not know how many samples there are."""

REASONS = {
    "missing": "no such file",
    "lfs_pointer": "text of a Git LFS pointer stands in place of the audio",
    "empty": "no bytes, or no samples",
    "unreadable": "not an audio file, damaged or cut off",
    "too_long": "longer than data.max_seconds",
    "too_short": "shorter than data.min_seconds",
    "nan": "samples that are NaN or infinite",
    "unscaled": "floating-point samples far outside [-1, 1]",
    "silent": "nothing above -80 dBFS",
}
"""Why audio cannot be used: a word to count by, and what it means."""


class AudioError(Exception):
    """An audio file cannot be used.

    Attributes:
      path: The file.
      reason: A key of `REASONS`.
    """

    def __init__(self, path: str | os.PathLike, reason: str, detail: str = ""):
        super().__init__(f"{os.fspath(path)}: {reason} ({detail or REASONS[reason]})")
        self.path, self.reason, self.detail = os.fspath(path), reason, detail or REASONS[reason]


class _Sequential(soundfile.SoundFile):
    """A file that is read from its beginning to its end and nowhere else.

    soundfile seeks after each piece, which GSM and others cannot, and libsndfile fails to at the end of some files.
    """

    def seekable(self) -> bool:
        """Says no, whatever the format could do."""
        return False


@dataclasses.dataclass(frozen=True)
class Opened:
    """A file ready to be decoded.

    Attributes:
      path: The file.
      file: The decoder.
      num_samples: Samples of each channel, None where only decoding can tell.
      num_lacking: So many of them may be absent in a file that is whole.
    """

    path: str | os.PathLike
    file: _Sequential
    num_samples: int | None
    num_lacking: int = 0

    @property
    def rate_hz(self) -> int:
        """Sampling rate."""
        return self.file.samplerate

    def pieces(self, block_s: float) -> Iterator[Float[np.ndarray, "num_samples num_channels"]]:
        """Yields all samples, at most `block_s` seconds at once, and at least one piece.

        Raises:
          AudioError: Reason empty or unreadable.
        """
        num_read, size = 0, max(1, round(block_s * self.rate_hz))
        while len(samples := self.file.read(size, dtype="float32", always_2d=True)):
            num_read += len(samples)
            yield samples
        if self.num_samples is not None and num_read < self.num_samples - self.num_lacking:
            raise AudioError(self.path, "unreadable", f"cut off: {num_read} of {self.num_samples} samples")
        if not num_read:
            raise AudioError(self.path, "empty", "0 samples")


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Opened]:
    """The file, opened after a look at its container; whatever goes wrong while it is open becomes an `AudioError`."""
    if "\0" in os.fspath(path):
        raise AudioError(path, "missing", "a NUL stands in its name, which no file can have")
    with clear(path), _bytes_of(place_of(path)) as source:
        num_bytes = audio_containers.length_of(source)
        source.seek(0)
        head = source.read(audio_containers.HEAD_BYTES)
        if not head:
            raise AudioError(path, "empty", "0 bytes")
        if head.startswith(LFS_POINTER):
            raise AudioError(path, "lfs_pointer")
        if damage := audio_containers.damage(source, num_bytes, path):
            raise AudioError(path, "unreadable", damage)
        source.seek(0)
        try:
            # By its descriptor, because its name may be no UTF-8 or end in .raw, which libsndfile takes for a format.
            file = _Sequential(source.fileno() if isinstance(source, io.FileIO) else source, closefd=False)
        except soundfile.LibsndfileError as error:
            conversion = audio_containers.conversion(head, path)
            raise AudioError(path, "unreadable", f"{_words_of(error)}; {conversion}") from None
        with file:
            if file.format == "MP3":
                with _opened_mp3(path, file, source, num_bytes) as opened:
                    yield opened
                return
            if file.frames == 0:
                raise AudioError(path, "empty", "0 samples")
            yield Opened(path, file, file.frames if file.frames < _UNKNOWN_LENGTH else None)


@contextlib.contextmanager
def _opened_mp3(path: str | os.PathLike, file: _Sequential, source: io.IOBase, num_bytes: int) -> Iterator[Opened]:
    """An MP3 file with the length that its frames have; opened anew where the decoder could only guess it."""
    place = source.tell()
    frames = audio_mp3.count(source, num_bytes)
    if frames is None or frames.first.layer != 3:
        source.seek(place)
        yield Opened(path, file, file.frames, file.frames - 1)
    elif frames.num_promised is not None and abs(frames.num - frames.num_promised) <= 1:
        # Some writers count the frame that holds the number as one more.
        source.seek(place)
        yield Opened(path, file, file.frames, 2 * frames.first.num_samples)
    elif frames.num < (frames.num_promised or 0):
        raise AudioError(path, "unreadable", f"cut off: {frames.num} of {frames.num_promised} frames")
    else:
        with _Sequential(audio_mp3.with_number(source, frames, num_bytes)) as counted:
            num_samples = frames.num * frames.first.num_samples
            counted.read(max(0, counted.frames - num_samples))  # what is left of the silence before it
            yield Opened(path, counted, num_samples, num_samples - 1)


@contextlib.contextmanager
def _bytes_of(path: PurePath) -> Iterator[io.IOBase]:
    """The bytes of a file; pipes and devices are never opened, because that may wait for ever."""
    if isinstance(path, Path):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise AudioError(path, "unreadable", "a pipe, a device or a socket, which is not opened")
    source = readable(path)
    with source.open("rb", buffering=0) if isinstance(source, Path) else source as file:
        yield file


@contextlib.contextmanager
def clear(path: str | os.PathLike) -> Iterator[None]:
    """Turns whatever the file system or a decoder raises into an `AudioError`: no file may end a run of thousands."""
    try:
        yield
    except AudioError:
        raise
    except FileNotFoundError:
        raise AudioError(path, "missing", _gone(path)) from None
    except soundfile.LibsndfileError as error:
        raise AudioError(path, "unreadable", _words_of(error)) from None
    except OSError as error:
        raise AudioError(path, "unreadable", error.strerror or str(error)) from None
    except MemoryError:
        raise AudioError(path, "unreadable", "it takes more memory than there is") from None
    except Exception as error:
        raise AudioError(path, "unreadable", f"{type(error).__name__}: {error}") from error


def _words_of(error: soundfile.LibsndfileError) -> str:
    # Its whole message begins with the path, which belongs to one machine.
    return error.error_string.rstrip(".")


def _gone(path: str | os.PathLike) -> str:
    return "a link to a file that is not there" if os.path.islink(path) else REASONS["missing"]
