"""The splits of speakers: speaker-disjoint and balanced by gender.

They are decided by names and a seed and never by the order of rows, so that a corpus listed in another order, or on
another machine, is split in the same way.
"""

import collections
import hashlib
from collections.abc import Iterable, Sequence

from seremo_jax.core import vocab

DERIVED = (vocab.TRAIN, vocab.DEVELOPMENT, vocab.TEST)


class SplitError(ValueError):
    """Speakers cannot be split as asked, or a speaker is in two splits."""


def derive(speakers: Sequence[str], genders: Sequence[str], shares: Sequence[float], seed: int) -> dict[str, str]:
    """Splits speakers gender by gender into train, development and test.

    Each gender is cut by the shares, to within one speaker; what rounding leaves over goes where the splits together
    lack most. A gender of three speakers or more is in every split. Utterances of speaker `unknown` go to train, since
    nobody can say whose they are.

    Args:
      speakers: Speaker of each utterance (or each speaker once), in any order.
      genders: Gender of each of `speakers`.
      shares: Of the speakers, for train, development, test.
      seed: Another seed, another split.

    Raises:
      SplitError: Fewer than three known speakers, or a speaker with two genders.
    """
    people = _people(speakers, genders)
    if sum(map(len, people.values())) < len(DERIVED):
        raise SplitError(
            "three speaker-disjoint splits need at least three known speakers; a corpus that a trained model is only "
            "scored on takes --config.data.split_kind=all_test"
        )
    assigned: dict[str, list[str]] = {split: [] for split in DERIVED}
    num_seen = 0
    for gender in sorted(people):
        names = shuffled(people[gender], f"split:{seed}")
        num_seen += len(names)
        # The small number is for products that binary fractions put just below a whole number.
        sizes = [int(share * len(names) + 1e-9) for share in shares]
        lack = [
            share * num_seen - len(assigned[split]) - size
            for share, split, size in zip(shares, DERIVED, sizes, strict=True)
        ]
        for i in sorted(range(len(DERIVED)), key=lambda i: -lack[i])[: len(names) - sum(sizes)]:
            sizes[i] += 1
        # A small share of a small gender rounds to nobody, and a split without a gender can say nothing of it.
        while len(names) >= len(DERIVED) and 0 in sizes:
            sizes[sizes.index(max(sizes))] -= 1
            sizes[sizes.index(0)] += 1
        for split, size in zip(DERIVED, sizes, strict=True):
            assigned[split] += names[:size]
            names = names[size:]
    for split in DERIVED:
        if not assigned[split]:
            assigned[split].append(max(assigned.values(), key=len).pop())
    unknown = {vocab.UNKNOWN: vocab.TRAIN} if vocab.UNKNOWN in speakers else {}
    return {name: split for split, names in assigned.items() for name in names} | unknown


def draw(
    speakers: Sequence[str], genders: Sequence[str], splits: Sequence[str], num_speakers: int, seed: int
) -> set[str]:
    """A seeded draw of speakers, as many women as men where there are enough of both.

    Each split keeps its share of the speakers, and at least one; a corpus without splits (all "") counts as one split.
    Speakers of unknown gender come in when the others are used up; speaker `unknown` never.

    Args:
      speakers: Speaker of each utterance, in any order.
      genders: Gender of each of `speakers`.
      splits: Split of each of `speakers`, or "".
      num_speakers: Speakers to draw; all if there are fewer.
      seed: Another seed, another draw.

    Raises:
      SplitError: A speaker with two genders, or fewer speakers asked for than there are splits.
    """
    split_of = dict(zip(speakers, splits, strict=True))
    people = _people(speakers, genders)
    names_of = collections.Counter(split_of[name] for names in people.values() for name in names)
    if num_speakers >= names_of.total():
        return {name for names in people.values() for name in names}
    if num_speakers < len(names_of):
        raise SplitError(f"data.max_speakers = {num_speakers}: the corpus has {len(names_of)} splits")
    ideal = {split: num_speakers * n / names_of.total() for split, n in names_of.items()}
    # Rounded down, but one seat at least. Then one seat at a time goes to, or comes from, the split furthest off.
    seats = {split: max(int(ideal[split]), 1) for split in sorted(ideal)}
    while (left := num_speakers - sum(seats.values())) != 0:
        step = 1 if left > 0 else -1
        open_to_change = [split for split in sorted(seats) if seats[split] + step > 0]
        most_wrong = max(open_to_change, key=lambda split: step * (ideal[split] - seats[split]))
        seats[most_wrong] += step
    drawn: list[str] = []
    taken: collections.Counter = collections.Counter()
    for split, num_seats in seats.items():
        queues = {
            gender: shuffled([name for name in names if split_of[name] == split], f"draw:{seed}")
            for gender, names in people.items()
        }
        here: collections.Counter = collections.Counter()
        for _ in range(num_seats):
            # The gender with fewest speakers so far in this split, then in all of them; unknown ones last.
            gender = min(
                (gender for gender in sorted(queues) if queues[gender]),
                key=lambda gender: (gender == vocab.UNKNOWN, here[gender], taken[gender]),
            )
            drawn.append(queues[gender].pop(0))
            here[gender] += 1
            taken[gender] += 1
    return set(drawn)


def as_one_test(split: str) -> str:
    """The split, with all test sets under one name: they may share speakers among themselves."""
    return vocab.TEST if split.startswith(vocab.TEST) else split


def require_disjoint(speakers: Iterable[str], splits: Iterable[str]) -> None:
    """Checks that no known speaker is in two splits; test sets may share speakers among themselves.

    Raises:
      SplitError: Names the first such speaker and the splits.
    """
    splits_of: dict[str, set[str]] = collections.defaultdict(set)
    for speaker, split in zip(speakers, splits, strict=True):
        splits_of[speaker].add(as_one_test(split))
    for speaker, names in sorted(splits_of.items()):
        if speaker != vocab.UNKNOWN and len(names) > 1:
            raise SplitError(f"speaker {speaker} is in the splits {' and '.join(sorted(names))}: results by speaker "
                             "would be worthless; correct the split of the corpus")  # fmt: skip


def genders_of(speakers: Iterable[str], genders: Iterable[str]) -> dict[str, str]:
    """Known speaker -> gender.

    Raises:
      SplitError: A speaker with two genders.
    """
    gender_of: dict[str, str] = {}
    for speaker, gender in zip(speakers, genders, strict=True):
        if speaker == vocab.UNKNOWN:
            continue
        if gender_of.setdefault(speaker, gender) != gender:
            raise SplitError(
                f"speaker {speaker} has two genders, {gender_of[speaker]} and {gender}: one id, one person"
            )
    return gender_of


def _people(speakers: Sequence[str], genders: Sequence[str]) -> dict[str, list[str]]:
    """Gender -> known speakers, each once, sorted."""
    people: dict[str, list[str]] = collections.defaultdict(list)
    for speaker, gender in sorted(genders_of(speakers, genders).items()):
        people[gender].append(speaker)
    return dict(people)


def shuffled(names: Iterable[str], salt: str) -> list[str]:
    """The names in the order of their salted hashes: the same on every machine, and a new name moves no other."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).digest())


def deal(names: Iterable[str], num_parts: int, salt: str) -> dict[str, int]:
    """Name -> part, parts of equal size to within one: decided by the names and the salt, not by their order."""
    return {name: place % num_parts for place, name in enumerate(shuffled(set(names), salt))}
