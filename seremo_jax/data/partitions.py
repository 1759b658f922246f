"""The splits of utterances as the settings ask: the corpus's own, derived, by session, k-fold, or published folds.

Splits that cannot be made as asked are an error, and no kind stands in for another. No partition has a speaker in two
splits.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from seremo_jax.core import vocab
from seremo_jax.data.splits import DERIVED, SplitError, derive, genders_of, require_disjoint, shuffled

_LEAST_FOLDS = 3

PUBLISHED_SESSIONS = {
    "iemocap": ((4, 5), (3, 4), (2, 3), (1, 2), (5, 1)),
    "msp_improv": ((4, 3), (3, 2), (2, 1), (1, 6), (6, 5), (5, 4)),
}
"""Corpus -> (test session, development session) of each fold, in the order of EMO-SUPERB's label files.

For MSP-IMPROV the table in that benchmark's supplement lists the test sessions in another order.
"""

_CREMA_D_ACTORS = {
    "g1": range(1037, 1055),
    "g2": range(1001, 1019),
    "g3": range(1073, 1092),
    "g4": range(1055, 1073),
    "g5": range(1019, 1037),
}
PUBLISHED_SPEAKERS = {
    "crema_d": (
        {str(actor): group for group, actors in _CREMA_D_ACTORS.items() for actor in actors},
        (("g2", "g5"), ("g5", "g1"), ("g1", "g4"), ("g4", "g3"), ("g3", "g2")),
    )
}
"""Corpus -> speaker -> group, and (test group, development group) of each fold (EMO-SUPERB)."""


@dataclasses.dataclass(frozen=True)
class People:
    """What a partition is made from, one entry an utterance, in any order.

    Attributes:
      corpus: Name of the corpus.
      speakers: Who speaks.
      genders: Their genders.
      official: The corpus's own split, or "".
      sessions: Recording session, None where there is none.
      classes: Position of the consensus in the class set, -1 without one; read by `derived_by_class` only.
    """

    corpus: str
    speakers: Sequence[str]
    genders: Sequence[str]
    official: Sequence[str]
    sessions: Sequence[str | None]
    classes: Int[np.ndarray, " N"]


def assign(
    kind: str, people: People, *, shares: Sequence[float], seed: int, fold: int = 0, num_folds: int = 5
) -> list[str]:
    """The split of each utterance.

    Args:
      kind: `auto`: the corpus's own splits where it has any, else `splits.derive`. `derived_by_class`: as derived, but
        the splits are alike in the classes of their utterances, too. `session`: one session is test, the next one
        development. `kfold`: the same with folds of speakers. `published`: folds from the literature.
        `all_test`: every utterance is test.
      people: The utterances.
      shares: Of the speakers, for train, development, test; for derived splits.
      seed: Of derived splits and of k-fold.
      fold: Which session or fold is test, from 0.
      num_folds: For `kfold`.

    Raises:
      SplitError: The utterances cannot be split so, or a speaker would be in two splits.
    """
    if kind == "auto" and any(people.official):
        if missing := sum(not split for split in people.official):
            raise SplitError(f"{missing} utterances are in no split, and the others in one of the corpus's own")
        assigned = list(people.official)
    elif kind == "auto":
        split_of = derive(people.speakers, people.genders, shares, seed)
        assigned = [split_of[speaker] for speaker in people.speakers]
    elif kind == "derived_by_class":
        split_of = _derive_by_class(people, shares, seed)
        assigned = [split_of[speaker] for speaker in people.speakers]
    elif kind == "session":
        assigned = _by_session(people, fold)
    elif kind == "kfold":
        split_of = _by_fold(people, num_folds, fold, seed)
        assigned = [split_of[speaker] for speaker in people.speakers]
    elif kind == "published":
        assigned = _published(people, fold)
    elif kind == "all_test":
        assigned = [vocab.TEST] * len(people.speakers)
    else:
        raise SplitError(f"data.split_kind = {kind!r}: choose one of {', '.join(vocab.SPLIT_KINDS)}")
    if kind not in ("auto", "all_test") and (empty := [split for split in DERIVED if split not in assigned]):
        raise SplitError(f"data.split_kind = {kind}, data.fold = {fold}: no utterance is in {' and '.join(empty)}")
    require_disjoint(people.speakers, assigned)
    return assigned


def _derive_by_class(people: People, shares: Sequence[float], seed: int) -> dict[str, str]:
    """`splits.derive`, then swaps of speakers of one gender for as long as the classes become more alike."""
    split_of = derive(people.speakers, people.genders, shares, seed)
    gender_of = genders_of(people.speakers, people.genders)
    names = shuffled(gender_of, f"swap:{seed}")
    row_of = {name: row for row, name in enumerate(names)}
    # One column more than there are classes: index -1, no consensus, counts in the last one.
    counts = np.zeros((len(names), int(np.max(people.classes, initial=-1)) + 2))
    for speaker, index in zip(people.speakers, people.classes, strict=True):
        if speaker in row_of:
            counts[row_of[speaker], index] += 1
    gender = np.array([gender_of[name] for name in names])
    split = np.array([DERIVED.index(split_of[name]) for name in names])
    _swap_until_alike(counts, gender, split, np.asarray(shares, np.float64))
    return split_of | {name: DERIVED[split[row]] for name, row in row_of.items()}


def _swap_until_alike(
    counts: Float[np.ndarray, "S C"], gender: np.ndarray, split: Int[np.ndarray, " S"], shares: Float[np.ndarray, " 3"]
) -> None:
    """Swaps entries of `split` in place: always the pair that brings most, until none brings anything.

    What shrinks is the sum over splits and classes of (n - e)^2 / e, n the utterances there and e their share.
    """
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = shares[:, None] * counts.sum(axis=0)
    pairs = [(a, b) for a in range(len(shares)) for b in range(a)]
    while True:
        present = np.stack([counts[split == s].sum(axis=0) for s in range(len(shares))])
        slope = 2 * (present - expected) / expected
        best = (-1e-9, -1, -1)
        for name in np.unique(gender):
            for a, b in pairs:
                in_a, in_b = (np.flatnonzero((gender == name) & (split == s)) for s in (a, b))
                if not len(in_a) or not len(in_b):
                    continue
                # To swap a speaker with counts x for one with counts y adds y - x to split a and takes it from split b.
                # The sum of squares then changes by (y - x)^2 times the weights plus (y - x) times the difference of
                # the slopes, here for all pairs of speakers at once.
                weight = 1 / expected[a] + 1 / expected[b]
                x, y = counts[in_a], counts[in_b]
                square = (x * x) @ weight
                change = square[:, None] + (y * y) @ weight - 2 * (x * weight) @ y.T
                linear = slope[a] - slope[b]
                # Rounded, so that another machine's rounding picks no other pair.
                change = np.round(change + (y @ linear) - (x @ linear)[:, None], 9)
                i, j = np.unravel_index(change.argmin(), change.shape)
                if change[i, j] < best[0]:
                    best = (change[i, j], in_a[i], in_b[j])
        if best[1] < 0:
            return
        split[[best[1], best[2]]] = split[[best[2], best[1]]]


def _by_session(people: People, fold: int) -> list[str]:
    """Leave one session out."""
    if missing := sum(not session for session in people.sessions):
        raise SplitError(
            f"data.split_kind = session: {missing} of {len(people.sessions)} utterances of {people.corpus} have no "
            "session; choose another kind"
        )
    sessions = sorted(set(people.sessions), key=_natural)
    split_of = _rotated(sessions, fold, "sessions")
    return [split_of[session] for session in people.sessions]


def _natural(name: str) -> tuple[int, int, str]:
    """2 before 10, numbers before words."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _rotated(parts: Sequence[str], fold: int, what: str) -> dict[str, str]:
    """Part number `fold` is test, the next one development, all others train."""
    if len(parts) < _LEAST_FOLDS:
        raise SplitError(f"{len(parts)} {what}: three at least are needed, for test, development and train")
    if not 0 <= fold < len(parts):
        raise SplitError(f"data.fold = {fold}: there are {len(parts)} {what}, 0 to {len(parts) - 1}")
    # Over all folds every part is test once and development once.
    split_of = dict.fromkeys(parts, vocab.TRAIN)
    split_of[parts[fold]] = vocab.TEST
    split_of[parts[(fold + 1) % len(parts)]] = vocab.DEVELOPMENT
    return split_of


def _by_fold(people: People, num_folds: int, fold: int, seed: int) -> dict[str, str]:
    """K folds of speakers, each with its share of every gender; utterances of unknown speakers are always train."""
    by_gender: dict[str, list[str]] = collections.defaultdict(list)
    for name, gender in sorted(genders_of(people.speakers, people.genders).items()):
        by_gender[gender].append(name)
    order = [name for gender in sorted(by_gender) for name in shuffled(by_gender[gender], f"fold:{seed}")]
    if len(order) < num_folds:
        raise SplitError(f"data.num_folds = {num_folds}: there are only {len(order)} known speakers")
    # Dealt out like cards, on from gender to gender: sizes differ by one at most, in all and in each gender.
    folds = [str(number) for number in range(num_folds)]
    split_of_fold = _rotated(folds, fold, "folds")
    split_of = {name: split_of_fold[folds[i % num_folds]] for i, name in enumerate(order)}
    return split_of | {vocab.UNKNOWN: vocab.TRAIN}


def _published(people: People, fold: int) -> list[str]:
    """Folds from the literature."""
    if people.corpus in PUBLISHED_SESSIONS:
        folds = [(str(test), str(development)) for test, development in PUBLISHED_SESSIONS[people.corpus]]
        groups, what = list(people.sessions), "session"
    elif people.corpus in PUBLISHED_SPEAKERS:
        group_of, folds = PUBLISHED_SPEAKERS[people.corpus]
        groups, what = [group_of.get(speaker) for speaker in people.speakers], "speaker"
    else:
        known = ", ".join(sorted({*PUBLISHED_SESSIONS, *PUBLISHED_SPEAKERS}))
        raise SplitError(f"data.split_kind = published: none is known for {people.corpus} (there are some for {known})")
    if fold >= len(folds):
        raise SplitError(f"data.fold = {fold}: {people.corpus} has {len(folds)} published folds, 0 to {len(folds) - 1}")
    known_groups = {group for pair in folds for group in pair}
    strange = [name for name, group in zip(people.speakers, groups, strict=True) if group not in known_groups]
    if strange:
        raise SplitError(
            f"data.split_kind = published: {len(strange)} utterances have a {what} that the published folds of "
            f"{people.corpus} do not hold, e.g. of speaker {strange[0]}"
        )
    test, development = folds[fold]
    split_of = {test: vocab.TEST, development: vocab.DEVELOPMENT}
    return [split_of.get(group, vocab.TRAIN) for group in groups]
