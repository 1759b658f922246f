"""The frames of an MP3 file, counted, and a first frame that says how many there are.

Without such a frame (that of Xing, or LAME's Info) the decoder takes the bitrate of the first frame for that of all,
and the length is a guess. So the frames are counted, which takes a look at four bytes of each, and a decoder gets the
file with a frame that holds their number before it.
"""

import io
from typing import NamedTuple

_KBPS = {
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
}
"""(MPEG 1 and not 2 or 2.5, layer) -> kbit/s by index, from 1 on (ISO 11172-3 and 13818-3)."""
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Bits of the MPEG version -> sampling rates by index."""
_FULLER_INDEX, _LEAST_INDEX = 9, 1
"""Bitrates whose frames have room for the number of frames, and for nothing but silence, at any sampling rate."""
_WINDOW_BYTES = 1 << 18
_LONGEST_SEARCH = 1 << 20


class Frame(NamedTuple):
    """The header of a frame.

    Attributes:
      kind: What is the same in all frames of a stream: version, layer, rate.
      layer: 1 to 3.
      size: Bytes, header included.
      num_samples: Samples of each channel.
      side_bytes: Bytes between the header and the data of layer 3.
    """

    kind: tuple[int, int, int]
    layer: int
    size: int
    num_samples: int
    side_bytes: int


class Frames(NamedTuple):
    """What counting found.

    Attributes:
      start: Where the first frame begins, that of Xing or Info included.
      num: Whole frames that hold samples.
      first: The first frame.
      header: Its four bytes.
      num_promised: Frames by Xing or Info, None without.
    """

    start: int
    num: int
    first: Frame
    header: bytes
    num_promised: int | None


class _Bytes:
    """Bytes of a file by place, read in large pieces."""

    def __init__(self, file: io.IOBase):
        self._file, self._start, self._held = file, 0, b""

    def at(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on."""
        if not self._start <= start or start + size > self._start + len(self._held):
            self._file.seek(start)
            self._start, self._held = start, self._file.read(max(size, _WINDOW_BYTES)) or b""
        return self._held[start - self._start : start - self._start + size]


def frame_of(header: bytes) -> Frame | None:
    """What four bytes say as the header of a frame; None where they are none, or one of free bitrate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    is_first, is_mono = version == 3, header[3] >> 6 == 3
    rate_hz, kbps = _RATES_HZ[version][rate], _KBPS[is_first, layer][bitrate - 1]
    num_samples = 384 if layer == 1 else 576 if layer == 3 and not is_first else 1152
    slot = 4 if layer == 1 else 1
    size = (num_samples // 8 * kbps * 1000 // rate_hz // slot + padding) * slot
    side_bytes = (17 if is_mono else 32) if is_first else (9 if is_mono else 17)
    return Frame((version, layer, rate), layer, size, num_samples, side_bytes)


def count(file: io.IOBase, num_bytes: int) -> Frames | None:
    """Counts the frames of a file; None where there is no frame to begin with.

    Args:
      file: The file, open to read bytes.
      num_bytes: Its length.
    """
    content = _Bytes(file)
    start = _next_frame(content, _behind_tags(content, 0), num_bytes, None)
    if start is None:
        return None
    header = content.at(start, 4)
    first = frame_of(header)
    promised = _promised(content.at(start, first.size), first)
    num, place = 0, start if promised is None else start + first.size
    while place is not None and place + 4 <= num_bytes:
        frame = frame_of(content.at(place, 4))
        if frame is None or frame.kind != first.kind:
            behind = _behind_tags(content, place)
            place = behind if behind > place else _next_frame(content, place + 1, num_bytes, first.kind)
            continue
        num += place + frame.size <= num_bytes
        place += frame.size
    return Frames(start, num, first, header, promised)


def _behind_tags(content: _Bytes, place: int) -> int:
    """Where an ID3v2 tag that begins at `place` ends, or `place`."""
    while len(tag := content.at(place, 10)) == 10 and tag.startswith(b"ID3") and max(tag[6:]) < 128:
        size = int.from_bytes(tag[6:7]) << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
        place += 10 + size + (10 if tag[5] & 0x10 else 0)
    return place


def _next_frame(content: _Bytes, start: int, num_bytes: int, kind: tuple[int, int, int] | None) -> int | None:
    """The first place from `start` on with a frame behind which another one follows, or the end."""
    place = start
    while place + 4 <= min(num_bytes, start + _LONGEST_SEARCH):
        frame = frame_of(content.at(place, 4))
        if frame is not None and kind in (None, frame.kind):
            following = frame_of(content.at(place + frame.size, 4))
            if place + frame.size >= num_bytes or (following is not None and following.kind == frame.kind):
                return place
        place += 1
    return None


def _promised(content: bytes, frame: Frame) -> int | None:
    """The number of frames where this one is that of Xing or Info; 0 where it does not say."""
    place = 4 + frame.side_bytes
    if frame.layer != 3 or content[place : place + 4] not in (b"Xing", b"Info"):
        return None
    return int.from_bytes(content[place + 8 : place + 12], "big") if content[place + 7] & 1 else 0


def with_number(file: io.IOBase, frames: Frames, num_bytes: int) -> "Prefixed":
    """The file behind a frame that holds the number of its frames, by which a decoder knows the length, and silence.

    Args:
      file: The file.
      frames: What `count` says of it; of layer 3.
      num_bytes: Its length.
    """
    first, silence = (
        bytes([0xFF, frames.header[1] | 1, index << 4 | frames.header[2] & 0x0C, frames.header[3]])
        for index in (_FULLER_INDEX, _LEAST_INDEX)
    )
    # Where a decoder is told a number, it leaves out 529 samples for its own delay: those of a silent frame, so that
    # what is heard is what it would hear without.
    about = (
        first + bytes(frames.first.side_bytes) + b"Xing" + b"".join(n.to_bytes(4, "big") for n in (1, frames.num + 1))
    )
    prefix = about.ljust(frame_of(first).size, b"\0") + silence.ljust(frame_of(silence).size, b"\0")
    # The frame that said another number must go, because it would be heard as silence.
    start = frames.start + (frames.first.size if frames.num_promised is not None else 0)
    return Prefixed(file, prefix, start, num_bytes)


class Prefixed:
    """A file to read of which the first `start` bytes are others: what libsndfile asks of a file object."""

    def __init__(self, file: io.IOBase, prefix: bytes, start: int, num_bytes: int):
        self._file, self._prefix, self._start = file, prefix, start
        self._size, self._place = len(prefix) + num_bytes - start, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place."""
        self._place = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence])
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        first = self._prefix[self._place : self._place + size]
        rest = b""
        if len(first) < size:
            self._file.seek(self._start + max(0, self._place - len(self._prefix)))
            rest = self._file.read(size - len(first)) or b""
        self._place += len(first) + len(rest)
        return first + rest

    def write(self, data: bytes) -> int:
        """Is never called on a file that is read; libsndfile asks that it be there."""
        raise io.UnsupportedOperation("not writable")
