"""What the container of an audio file promises, against the bytes that are there. Nothing is decoded.

libsndfile shortens a file that was cut off without a word, so whether all samples are there is judged here: by the
chunk or block that holds them, never by the size of the whole, which many writers get wrong by some bytes. Ogg has a
mark on its last page instead of sizes.
"""

import io
import os
import re
import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

from seremo_jax.core.folders import printable

HEAD_BYTES = 64
"""First bytes of a file, which say what container it is."""

_STREAM_MARGIN = 0x10000
"""Writers to a pipe put a size this near below 2 GiB or 4 GiB, because they do not know it yet."""
_W64_GUID_END = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_UNFINISHED = "never finished"
_FOREIGN = (
    (re.compile(rb"....ftyp(?:3g|mmp4)", re.DOTALL), "3GPP audio"),
    (re.compile(rb"....ftyp", re.DOTALL), "MPEG-4 audio"),
    (re.compile(rb"\x1aE\xdf\xa3"), "WebM or Matroska"),
    (re.compile(rb"#!AMR"), "AMR"),
    (re.compile(rb"0&\xb2u\x8ef\xcf\x11"), "Windows Media"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]|ADIF"), "AAC"),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), "AVI"),
    (re.compile(rb"wvpk"), "WavPack"),
    (re.compile(rb"MAC "), "Monkey's Audio"),
    (re.compile(rb"FLV"), "Flash video"),
)
"""First bytes of recordings that the decoder does not know, and what they are."""
SUFFIXES = (
    *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".nist", ".oga", ".ogg"),
    *(".opus", ".rf64", ".snd", ".sph", ".voc", ".w64", ".wav", ".wave"),
)
"""What is taken for audio in a folder."""
FOREIGN_SUFFIXES = (
    *(".3ga", ".3gp", ".3gpp", ".aac", ".amr", ".ape", ".awb"),
    *(".m4a", ".m4b", ".mka", ".weba", ".webm", ".wma", ".wv"),
)
"""Recordings that cannot be read here and can be converted; they are taken, too, so that they are listed."""
_VIDEO_SUFFIXES = (".avi", ".flv", ".mkv", ".mov", ".mp4", ".wmv")


class Chunk(NamedTuple):
    """A part of a container.

    Attributes:
      name: Its identifier.
      start: Where its content begins, in bytes from the beginning of the file.
      size: Bytes of content that its header promises.
    """

    name: bytes
    start: int
    size: int


def conversion(head: bytes, path: str | os.PathLike) -> str:
    """How to convert a file that the decoder cannot open, with what it is where that can be told.

    Args:
      head: Its first bytes.
      path: Its path; the command has the name alone.
    """
    for pattern, name in _FOREIGN:
        if pattern.match(head):
            return f"{name} cannot be read here: convert it ({_command(path)})"
    if os.path.splitext(os.fspath(path))[1].lower() in (*FOREIGN_SUFFIXES, *_VIDEO_SUFFIXES):
        return f"audio of this kind cannot be read here: convert it ({_command(path)})"
    return f"where it is audio, convert it ({_command(path)})"


def _command(path: str | os.PathLike) -> str:
    """What makes a WAV of a file, in the folder that it lies in."""
    name = printable(os.path.basename(os.fspath(path)))
    stem, suffix = os.path.splitext(name)
    target = f"{stem}-converted.wav" if suffix.lower() == ".wav" else f"{stem}.wav"
    # A name that begins with a hyphen would be an option.
    source, target = (shlex.quote(f"./{text}" if text.startswith("-") else text) for text in (name, target))
    return f"ffmpeg -i {source} {target}"


def damage(file: io.IOBase, num_bytes: int, path: str | os.PathLike) -> str:
    """Why a file does not hold all the samples that its container promises; empty where it does, or nobody can say.

    Args:
      file: The file, open to read bytes.
      num_bytes: Its length.
      path: Its path, for messages.
    """
    head = _at(file, 0, HEAD_BYTES)
    why = next((judge(file, num_bytes, head) for kind, judge in _judges() if re.match(kind, head, re.DOTALL)), "")
    return f"{why}; repair it ({_command(path)})" if why.startswith(_UNFINISHED) else why


def _judges() -> tuple[tuple[bytes, Callable[[io.IOBase, int, bytes], str]], ...]:
    """First bytes of a container -> who judges its files."""
    return (
        (rb"RIFF....WAVE|RIFX....WAVE", _riff_damage),
        (rb"RF64|BW64", _rf64_damage),
        (rb"riff" + re.escape(bytes.fromhex("2e91cf11a5d628db04c10000")), _w64_damage),
        (rb"FORM....(?:AIF[FC]|8SVX|16SV)", _form_damage),
        (rb"caff", _caf_damage),
        (rb"\.snd|dns\.", _au_damage),
        (rb"NIST_1A", _sphere_damage),
        (rb"Creative Voice File\x1a", _voc_damage),
        (rb"OggS", _ogg_damage),
    )


def _at(file: io.IOBase, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size) or b""


def _cut(present: int, promised: int) -> str:
    return f"cut off: {max(present, 0)} of {promised} bytes of samples"


def _never_finished(present: int) -> str:
    return (
        f"{_UNFINISHED}: its header promises 0 bytes of samples and {present} are there, as where a recorder was killed"
    )


def _chunks(
    file: io.IOBase, num_bytes: int, start: int, read: Callable[[bytes], tuple[bytes, int]], header: int, align: int
) -> Iterator[Chunk]:
    """The chunks from `start` on; the last one may promise more than the file holds."""
    while start + header <= num_bytes:
        name, size = read(_at(file, start, header))
        if size < 0:
            return
        yield Chunk(name, start + header, size)
        start += header + size
        padded = -(-start // align) * align
        # Some writers leave out the padding.
        is_unpadded = align == 2 and padded > start and _at(file, start, 4).isalnum()
        start = start if is_unpadded else padded


def _judge_samples(file: io.IOBase, num_bytes: int, samples: Chunk, frame_bytes: int, behind: Iterator[Chunk]) -> str:
    """Compares the chunk of samples with what is there, in whole frames.

    Args:
      file: The file.
      num_bytes: Its length.
      samples: The chunk of samples.
      frame_bytes: Bytes of a sample of every channel, or of a block of compressed ones.
      behind: Chunks behind that of the samples.
    """
    present = num_bytes - samples.start
    if not samples.size and present > 0:
        chunks = list(behind)
        are_named = all(re.match(rb"[ -~]{4}", chunk.name) for chunk in chunks)
        is_empty = chunks and are_named and chunks[-1].start + chunks[-1].size <= num_bytes + 1
        return "" if is_empty else _never_finished(present)
    frame_bytes = max(frame_bytes, 1)
    return _cut(present, samples.size) if present // frame_bytes < samples.size // frame_bytes else ""


def _is_of_stream(size: int) -> bool:
    """Whether a size of 32 bits says that the writer did not know it, so that all that follows are samples."""
    return 2**31 - _STREAM_MARGIN <= size <= 2**31 or size >= 2**32 - _STREAM_MARGIN


def _riff_damage(file: io.IOBase, num_bytes: int, head: bytes, long_size: int | None = None) -> str:
    order = "big" if head.startswith(b"RIFX") else "little"

    def read(header: bytes) -> tuple[bytes, int]:
        size = int.from_bytes(header[4:], order)
        return header[:4], long_size if header[:4] == b"data" and size == 2**32 - 1 and long_size else size

    frame_bytes, chunks = 1, _chunks(file, num_bytes, 12, read, 8, 2)
    for chunk in chunks:
        if chunk.name == b"fmt ":
            frame_bytes = int.from_bytes(_at(file, chunk.start + 12, 2), order)
        elif chunk.name == b"data":
            if long_size is None and _is_of_stream(chunk.size):
                return ""
            return _judge_samples(file, num_bytes, chunk, frame_bytes, chunks)
    return ""


def _rf64_damage(file: io.IOBase, num_bytes: int, head: bytes) -> str:
    if head[12:16] != b"ds64":
        return _riff_damage(file, num_bytes, head)
    long_size = int.from_bytes(_at(file, 28, 8), "little")
    if long_size >= 2**63:
        return ""
    if long_size:
        return _riff_damage(file, num_bytes, head, long_size)
    # Without a size in ds64, that of the data chunk itself counts, and "see ds64" is none.
    for chunk in _chunks(file, num_bytes, 12, lambda header: (header[:4], int.from_bytes(header[4:], "little")), 8, 2):
        if chunk.name == b"data" and chunk.size == 2**32 - 1 and chunk.start < num_bytes:
            return _never_finished(num_bytes - chunk.start)
    return _riff_damage(file, num_bytes, head)


def _w64_damage(file: io.IOBase, num_bytes: int, head: bytes) -> str:
    del head

    def read(header: bytes) -> tuple[bytes, int]:
        return header[:16], max(int.from_bytes(header[16:], "little") - 24, 0)

    frame_bytes, chunks = 1, _chunks(file, num_bytes, 40, read, 24, 8)
    for chunk in chunks:
        if chunk.name == b"fmt " + _W64_GUID_END:
            frame_bytes = int.from_bytes(_at(file, chunk.start + 12, 2), "little")
        elif chunk.name == b"data" + _W64_GUID_END:
            if chunk.size >= 2**63 - 24:
                return ""
            return _judge_samples(file, num_bytes, chunk, frame_bytes, chunks)
    return ""


def _form_damage(file: io.IOBase, num_bytes: int, head: bytes) -> str:
    """AIFF, AIFF-C and the Amiga's formats."""
    del head

    def read(header: bytes) -> tuple[bytes, int]:
        return header[:4], int.from_bytes(header[4:], "big")

    frame_bytes, chunks = 1, _chunks(file, num_bytes, 12, read, 8, 2)
    for chunk in chunks:
        if chunk.name == b"COMM":
            common = _at(file, chunk.start, 22)
            # AIFF-C may hold compressed samples, of which the number of bits says nothing.
            is_plain = chunk.size < 22 or common[18:22] in (b"NONE", b"sowt", b"twos")
            bits = int.from_bytes(common[6:8], "big") if is_plain else 8
            frame_bytes = int.from_bytes(common[:2], "big") * -(-bits // 8) if is_plain else 1
        elif chunk.name in (b"SSND", b"BODY"):
            if _is_of_stream(chunk.size):
                return ""
            before = 8 if chunk.name == b"SSND" else 0  # offset and size of blocks
            samples = Chunk(chunk.name, chunk.start + before, max(chunk.size - before, 0))
            return _judge_samples(file, num_bytes, samples, frame_bytes, chunks)
    return ""


def _caf_damage(file: io.IOBase, num_bytes: int, head: bytes) -> str:
    del head

    def read(header: bytes) -> tuple[bytes, int]:
        return header[:4], int.from_bytes(header[4:], "big", signed=True)

    chunks = _chunks(file, num_bytes, 8, read, 12, 1)
    for chunk in chunks:
        if chunk.name == b"data":  # a size of -1 ends the chunks: the samples go on to the end
            samples = Chunk(chunk.name, chunk.start + 4, max(chunk.size - 4, 0))
            return _judge_samples(file, num_bytes, samples, 1, chunks)
    return ""


def _au_damage(file: io.IOBase, num_bytes: int, head: bytes) -> str:
    order = "big" if head.startswith(b".snd") else "little"
    start, size = (int.from_bytes(head[place : place + 4], order) for place in (4, 8))
    if size == 2**32 - 1:
        return ""
    return _judge_samples(file, num_bytes, Chunk(b"data", start, size), 1, iter(()))


def _sphere_damage(file: io.IOBase, num_bytes: int, head: bytes) -> str:
    """SPHERE of NIST: a header of text that ends where its second line says."""
    lines = head.split(b"\n", 2)
    if len(lines) < 3 or not lines[1].strip().isdigit():
        return ""
    start = int(lines[1])
    text = _at(file, 0, min(start, 2**16)).decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -(?:i|s\d+) (\d+)", text, re.MULTILINE))
    if "sample_count" not in fields:
        return ""
    width = int(fields.get("sample_n_bytes", 2)) * int(fields.get("channel_count", 1))
    # Samples packed with shorten take fewer bytes than their number says.
    if re.search(r"^sample_coding -s\d+ .*(shorten|wavpack|shortpack)", text, re.MULTILINE):
        return ""
    return _judge_samples(file, num_bytes, Chunk(b"", start, int(fields["sample_count"]) * width), width, iter(()))


def _voc_damage(file: io.IOBase, num_bytes: int, head: bytes) -> str:
    """Blocks of a type (1 byte) and a size (3 bytes): 0 ends them, 1, 2 and 9 hold samples."""
    start = int.from_bytes(head[20:22], "little")
    while start + 4 <= num_bytes:
        kind, size = (header := _at(file, start, 4))[0], int.from_bytes(header[1:], "little")
        if kind == 0:
            break
        before = {1: 2, 9: 12}.get(kind, 0)
        if kind in (1, 2, 9) and size <= before and num_bytes - start - 4 - before > 1:
            return _never_finished(num_bytes - start - 4 - before)
        if start + 4 + size > num_bytes:
            return _cut(num_bytes - start - 4 - before, size - before)
        start += 4 + size
    return ""


def _ogg_damage(file: io.IOBase, num_bytes: int, head: bytes) -> str:
    """Pages, of which the last one is marked as the end of the stream."""
    del head
    start, is_end = 0, False
    while start < num_bytes:
        header = _at(file, start, 27 + 255)
        if not header.startswith(b"OggS") or len(header) < 27 or len(header) < 27 + header[26]:
            break
        size = 27 + header[26] + sum(header[27 : 27 + header[26]])
        if start + size > num_bytes:
            is_end = False
            break
        is_end = bool(header[5] & 4)
        start += size
    if is_end:
        return ""
    return f"cut off, or never finished by its recorder: no page marked as the last one in {num_bytes} bytes"


def length_of(file: io.IOBase) -> int:
    """Bytes of an open file."""
    return file.seek(0, os.SEEK_END)
