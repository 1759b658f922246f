"""Inputs for `tests.system.fuzz`: real files with bytes, words or numbers changed, and words that may stand in them."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

JSON = (
    b"null", b"-1", b"0", b"1.5", b"1e400", b"1e-400", b"NaN", b"-Infinity", b"true", b"[]", b"{}", b'""', b'"x"',
    b'"\\ud800"', b"[" * 3_000, b"9" * 5_000, b"9" * 400, b"18446744073709551616", b"4294967297", b"\0", b"\xff",
    b"\xef\xbb\xbf", b"../x", b"[[1]]", b",", b":", b'"a":', b"1000000000",
)  # fmt: skip
CELLS = (
    b"", b"NA", b"nan", b"inf", b"-1", b"0", b"1e12", b"1e400", b"1,5", b"50%", b"0.33", b"angry", b"X", b"other",
    b"count::angry", b"share::happy", b"line", b"id", b"utterance", b"speaker", b"\0", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xe2\x80\x8b", b'"', b"'", b",", b";", b"\t", b"\r", b"\r\n", b"\n", b"=1+1", b"9" * 400,
    b"a" * 5_000, b"\xf0\x9f\x98\x80", b"e\xcc\x81", b"/etc/hostname", b"../x", b"true",
)  # fmt: skip
OPCODES = (
    b"(", b"t", b"\x85", b"\x86", b"2", b"0", b"1", b"R", b"b", b"Q", b"s", b"u", b"e", b"d", b"l", b"}", b"]",
    b")", b"N", b"\x88", b"h\0", b"q\0", b"j\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"\x94", b"\x8f", b"\x91",
    b"\x90", b"\x81", b"\x93", b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n",
    b"I99\n", b"L" + b"9" * 5_000 + b"L\n", b"\x8b\0\x10\0\0" + b"\xff" * 4_096, b"\x8a\x09" + b"\xff" * 9,
    b"F1e400\n", b"J\xff\xff\xff\xff", b"X\x01\0\0\0w", b"\x8d" + b"\xff" * 8, b"Pa\n", b"ios\nsystem\n", b".",
)  # fmt: skip
CHUNKS = (
    b"RIFF", b"RIFX", b"RF64", b"WAVE", b"fmt ", b"data", b"ds64", b"LIST", b"fact", b"riff", b"FORM", b"AIFF",
    b"COMM", b"SSND", b".snd", b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\1\0", b"\3\0", b"\x31\0",
)  # fmt: skip

_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32_767, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
_WORD = re.compile(rb"[^\s,;:{}\[\]\"]+")


def input_of(seeds: Sequence[bytes], words: Sequence[bytes], number: int) -> bytes:
    """The content of an input, which follows from its number alone."""
    rng = np.random.default_rng([number, 14])
    content = seeds[rng.integers(len(seeds))]
    for _ in range(rng.geometric(0.5)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        content = change(content, rng, words, seeds)[:100_000]
    return content


def _cut(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """A short part of it, or now and then any."""
    begin = int(rng.integers(len(content) + 1))
    longest = len(content) - begin if rng.random() < 0.2 else 16
    return begin, min(len(content), begin + int(rng.integers(longest + 1)))


def _flip(content: bytes, rng: np.random.Generator, *_: Any) -> bytes:
    place = int(rng.integers(len(content) + 1))
    changed = bytes(byte ^ 1 << int(rng.integers(8)) for byte in content[place : place + 1])
    return content[:place] + changed + content[place + 1 :]


def _leave_out(content: bytes, rng: np.random.Generator, *_: Any) -> bytes:
    begin, end = _cut(content, rng)
    return content[:begin] + content[end:]


def _repeat(content: bytes, rng: np.random.Generator, *_: Any) -> bytes:
    begin, end = _cut(content, rng)
    return content[:end] + content[begin:end] * int(rng.integers(1, 9)) + content[end:]


def _end_early(content: bytes, rng: np.random.Generator, *_: Any) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def _put_number(content: bytes, rng: np.random.Generator, *_: Any) -> bytes:
    place, size = int(rng.integers(len(content) + 1)), int(rng.choice([1, 2, 4, 8]))
    number = _NUMBERS[rng.integers(len(_NUMBERS))] % 256**size
    return content[:place] + number.to_bytes(size, rng.choice(["little", "big"])) + content[place + size :]


def _put_word(content: bytes, rng: np.random.Generator, words: Sequence[bytes], _: Any) -> bytes:
    begin, end = _cut(content, rng)
    return content[:begin] + words[rng.integers(len(words))] + content[end if rng.random() < 0.5 else begin :]


def _change_word(content: bytes, rng: np.random.Generator, words: Sequence[bytes], _: Any) -> bytes:
    places = [match.span() for match in _WORD.finditer(content)]
    if not places:
        return content
    begin, end = places[rng.integers(len(places))]
    return content[:begin] + words[rng.integers(len(words))] + content[end:]


def _join(content: bytes, rng: np.random.Generator, _: Any, seeds: Sequence[bytes]) -> bytes:
    other = seeds[rng.integers(len(seeds))]
    return content[: rng.integers(len(content) + 1)] + other[rng.integers(len(other) + 1) :]


_CHANGES = (_flip, _leave_out, _repeat, _end_early, _put_number, _put_word, _change_word, _change_word, _join)
