"""Which release of MSP-Podcast lies in a folder, by what its files hold and by how they are spelt."""

import dataclasses
from collections.abc import Mapping

_DEVELOPMENT = frozenset(("validation", "development"))


@dataclasses.dataclass(frozen=True)
class Signs:
    """What the files of a folder show of their release.

    Attributes:
      spelling: `concensus`, `consensus`, or "" where there is no such file.
      layout: Of `labels_detailed.csv`: `answers`, `columns`, or "".
      label_folder: Name of the folder the label files lie in; "" where they lie in the root.
      labels_txt: Name of that file as spelt, or "".
      has_aggregated: Whether `labels_detailed_aggregated.csv` is there.
      development: What the development split is called, in lower case, or "".
      num_in: Split -> utterances.
      num_labelled_in: Split -> utterances with a released consensus or a rating.
    """

    spelling: str
    layout: str
    label_folder: str
    labels_txt: str
    has_aggregated: bool
    development: str
    num_in: Mapping[str, int]
    num_labelled_in: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class _Release:
    """What is known of a release (KNOWN: LABELS.md, section 1); empty where nothing is."""

    name: str
    spelling: str
    layout: str
    folders: tuple[str, ...]
    labels_txt: tuple[str, ...] = ("", "labels.txt")
    development: frozenset[str] = _DEVELOPMENT
    has_test3: bool = False
    has_aggregated: bool = False
    num_utterances: int = 0
    num_in: tuple[tuple[str, int], ...] = ()
    is_count_of_labelled: bool = False

    def fits_names(self, signs: Signs) -> bool:
        """Whether nothing that was seen speaks against this release, counts apart. What is missing speaks for none."""
        return (
            signs.spelling in ("", self.spelling)
            and signs.layout in ("", self.layout)
            and (not signs.label_folder or signs.label_folder in self.folders)
            and signs.labels_txt in self.labels_txt
            and (not signs.development or signs.development in self.development)
            and signs.has_aggregated in (False, self.has_aggregated)
            and ("test3" in signs.num_in) in (False, self.has_test3)
        )

    def has_counts(self) -> bool:
        """Whether its counts are published."""
        return bool(self.num_utterances or self.num_in)

    def fits_counts(self, signs: Signs) -> bool:
        """Whether the counts are the published ones. Test3, which comes without labels, may be missing."""
        num_in = dict(signs.num_labelled_in if self.is_count_of_labelled else signs.num_in)
        if self.num_in:
            published = dict(self.num_in)
            if "test3" not in num_in:
                published.pop("test3", None)
            return num_in == published
        return bool(self.num_utterances) and sum(num_in.values()) == self.num_utterances


_OLD, _NEW = frozenset(("validation",)), frozenset(("development",))
RELEASES = (
    _Release("1.6", "concensus", "columns", ("label",), development=_OLD),
    _Release("1.7", "concensus", "answers", ("Labels",), development=_OLD),
    _Release("1.8", "concensus", "answers", ("Labels",), ("", "Labels.txt"), _OLD, num_utterances=73_042),
    _Release("1.9", "concensus", "answers", ("labels",), development=_OLD),
    _Release("1.10", "consensus", "answers", ("Labels",)),
    _Release("1.11", "consensus", "answers", ("Labels",), development=_NEW, has_test3=True, num_in=(
        ("train", 84_030), ("development", 19_815), ("test1", 30_647), ("test2", 14_815), ("test3", 2_347))),
    _Release("1.12", "consensus", "answers", ("Labels",), development=_NEW, has_test3=True, num_utterances=207_136),
    _Release("2025 challenge", "consensus", "answers", ("Labels",), development=_NEW, has_test3=True, num_in=(
        ("train", 84_260), ("development", 31_961)), is_count_of_labelled=True),
    _Release("2.0", "consensus", "columns", ("Labels",), development=_NEW, has_test3=True, has_aggregated=True, num_in=(
        ("train", 169_190), ("development", 34_399), ("test1", 46_294), ("test2", 14_822), ("test3", 3_200))),
)  # fmt: skip


def detect(signs: Signs) -> tuple[str, str]:
    """The release, and a sentence about it, empty where all agrees.

    Counts outrank names. Where they are those of no release, names must leave exactly one, and one whose counts nobody
    published: a part of a release is not that release.
    """
    by_names = [release for release in RELEASES if release.fits_names(signs)]
    by_counts = [release for release in RELEASES if release.fits_counts(signs)]
    names = " or ".join(release.name for release in by_names)
    if by_counts:
        release = next((release for release in by_counts if release in by_names), by_counts[0])
        if release in by_names:
            return release.name, ""
        return (
            release.name,
            f"the counts are those of {release.name}, the names of files and columns of {names or 'none'}",
        )
    if len(by_names) == 1 and not by_names[0].has_counts():
        return names, ""
    if not by_names:
        return "unknown", f"release unknown: none has these names of files, columns and splits: {signs}"
    total = f"{sum(signs.num_in.values()):,} utterances"
    like = f"unknown (like {names})" if len(by_names) == 1 else "unknown"
    return like, f"release unknown: names of files and columns fit {names}; {total} settle on none"
