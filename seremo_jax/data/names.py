"""Names that may mean the same thing: they differ only in case, Unicode form, blanks, or a `.0` behind a number."""

import collections
import re
import unicodedata
from collections.abc import Iterable

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))


def alike_names(names: Iterable[str]) -> list[str]:
    """A sentence for each group of different names that look alike, in the order of the names."""
    groups: dict[str, set[str]] = collections.defaultdict(set)
    for name in set(names):
        groups[_looks(name)].add(name)
    several = sorted(sorted(group) for group in groups.values() if len(group) > 1)
    return [f"{' and '.join(map(_shown, group))} are taken for {len(group)} different names" for group in several]


def _looks(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).translate(_INVISIBLE)
    plain = unicodedata.normalize("NFKC", " ".join(plain.split()).casefold())
    return re.sub(r"^(\d+)\.0+$", r"\1", plain)


def _shown(name: str) -> str:
    """The name between quotation marks, with the code points of what two names alike may hide."""
    composed = unicodedata.normalize("NFC", name)
    return ascii(name) if composed != name or name.translate(_INVISIBLE) != name else repr(name)
