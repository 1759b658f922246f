"""Every kind of split: speaker-disjoint, as asked for or an error, the same whatever the order of rows."""

import collections

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seremo_jax.data import partitions, splits
from seremo_jax.data.partitions import People

SHARES = (0.6, 0.2, 0.2)


def crowd(seed, num_speakers=30, num_classes=4, corpus="toy", unknown=0):
    """Speakers whose utterances differ much in class; utterances in random order."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_speakers):
        mix = rng.dirichlet(np.full(num_classes, 0.3))
        for index in rng.choice(num_classes, int(rng.integers(5, 25)), p=mix):
            index = -1 if rng.random() < 0.1 else int(index)
            rows.append((f"s{number:03d}", ("female", "male")[number % 2], str(number // 2 + 1), index))
    rows += [("unknown", "unknown", "1", 0)] * unknown
    rows = [rows[i] for i in rng.permutation(len(rows))]
    return people_of(rows, corpus)


def people_of(rows, corpus="toy"):
    speakers, genders, sessions, classes = zip(*rows, strict=True)
    return People(corpus, speakers, genders, [""] * len(rows), sessions, np.array(classes))


def assign(kind, people, seed=0, **options):
    return partitions.assign(kind, people, shares=SHARES, seed=seed, **options)


def reordered(people, order):
    columns = (people.speakers, people.genders, people.official, people.sessions, people.classes)
    return People(people.corpus, *([column[i] for i in order] for column in columns[:-1]), people.classes[order])


def splits_of_speakers(people, assigned):
    actual = collections.defaultdict(set)
    for speaker, split in zip(people.speakers, assigned, strict=True):
        actual[speaker].add(split)
    return actual


OPTIONS = {"auto": {}, "derived_by_class": {}, "session": {"fold": 2}, "kfold": {"fold": 1, "num_folds": 4}}


@pytest.mark.parametrize("kind", OPTIONS)
@hypothesis.given(st.integers(0, 99), st.integers(0, 3))
@hypothesis.settings(max_examples=15)
def test_every_pair_of_splits_is_speaker_disjoint_and_order_plays_no_part(kind, seed, unknown):
    """S3, S4: no speaker in two splits, development included."""
    people = crowd(seed, num_speakers=12, unknown=0 if kind == "session" else unknown)
    assigned = assign(kind, people, seed, **OPTIONS[kind])
    assert all(len(actual) == 1 for actual in splits_of_speakers(people, assigned).values())
    assert set(assigned) == {"train", "development", "test"}
    order = np.random.default_rng(seed).permutation(len(assigned))
    assert assign(kind, reordered(people, order), seed, **OPTIONS[kind]) == [assigned[i] for i in order]
    assert {s for name, s in zip(people.speakers, assigned, strict=True) if name == "unknown"} <= {"train"}


def unlikeness(people, assigned):
    split, total = np.array(assigned), 0.0
    for index in range(-1, 4):
        is_class = people.classes == index
        for name, share in zip(splits.DERIVED, SHARES, strict=True):
            expected = share * is_class.sum()
            total += (is_class[split == name].sum() - expected) ** 2 / expected
    return total


@pytest.mark.parametrize("seed", range(4))
def test_derived_by_class_evens_out_the_classes_and_keeps_the_speakers_of_each_gender(seed):
    people = crowd(seed)
    plain, by_class = assign("auto", people, seed), assign("derived_by_class", people, seed)
    assert unlikeness(people, by_class) < 0.5 * unlikeness(people, plain)

    def sizes(assigned):
        return collections.Counter((split, name) for name, split in set(zip(people.speakers, assigned, strict=True)))

    genders = dict(zip(people.speakers, people.genders, strict=True))
    count = [collections.Counter((s, genders[n]) for s, n in sizes(a)) for a in (plain, by_class)]
    assert count[0] == count[1]
    assert assign("derived_by_class", people, seed + 50) != by_class


@pytest.mark.parametrize("seed", range(6))
def test_swaps_end_where_no_swap_helps(seed):
    """The deltas that the search goes by, against the sum itself computed anew for every swap."""
    people = crowd(seed, num_speakers=20)
    assigned = assign("derived_by_class", people)
    genders = dict(zip(people.speakers, people.genders, strict=True))
    split_of = dict(zip(people.speakers, assigned, strict=True))
    reached = unlikeness(people, assigned)
    for item in genders:
        for other in genders:
            if genders[item] == genders[other] and split_of[item] != split_of[other]:
                swapped = split_of | {item: split_of[other], other: split_of[item]}
                assert unlikeness(people, [swapped[name] for name in people.speakers]) >= reached - 1e-8


@pytest.mark.parametrize(("num_speakers", "num_folds"), [(12, 3), (13, 5), (30, 4), (5, 5)])
def test_over_all_folds_everyone_is_test_once_and_development_once(num_speakers, num_folds):
    people = crowd(1, num_speakers, unknown=3)
    actual = collections.defaultdict(collections.Counter)
    for fold in range(num_folds):
        assigned = assign("kfold", people, fold=fold, num_folds=num_folds)
        of_fold = splits_of_speakers(people, assigned)
        sizes = collections.Counter()
        for speaker, [split] in of_fold.items():
            actual[speaker][split] += 1
            gender = "female" if speaker != "unknown" and int(speaker[1:]) % 2 == 0 else "male"
            sizes[split, gender] += speaker != "unknown"
        for gender, number in (("female", (num_speakers + 1) // 2), ("male", num_speakers // 2)):
            assert abs(sizes["test", gender] - number / num_folds) < 1
    assert actual.pop("unknown") == {"train": num_folds}
    assert len(actual) == num_speakers
    for counts in actual.values():
        assert counts == {"test": 1, "development": 1, "train": num_folds - 2}
    assert assign("kfold", people, seed=1, fold=0, num_folds=3) != assign("kfold", people, fold=0, num_folds=3)


def test_sessions_take_turns_in_the_order_of_their_numbers():
    people = crowd(2, num_speakers=22)
    for fold in range(11):
        assigned = assign("session", people, fold=fold)
        actual = {
            split: {int(session) for session, own in zip(people.sessions, assigned, strict=True) if own == split}
            for split in splits.DERIVED
        }
        assert actual["test"] == {fold + 1}
        assert actual["development"] == {(fold + 1) % 11 + 1}
        assert len(actual["train"]) == 9


def test_what_cannot_be_split_as_asked_is_an_error():
    """S3: there is no fallback path."""
    people = crowd(3, num_speakers=6)
    with pytest.raises(splits.SplitError, match=r"data\.fold = 3: there are 3 sessions, 0 to 2"):
        assign("session", people, fold=3)
    with pytest.raises(splits.SplitError, match="2 sessions: three at least"):
        assign("session", people_of([(f"s{i}", "male", str(i % 2), 0) for i in range(6)]))
    with pytest.raises(splits.SplitError, match="1 of 6 utterances of toy have no session"):
        assign("session", people_of([(f"s{i}", "male", str(i) if i else None, 0) for i in range(6)]))
    with pytest.raises(splits.SplitError, match="speaker a is in the splits"):
        assign("session", people_of([("a", "male", str(i), 0) for i in range(3)]))
    with pytest.raises(splits.SplitError, match=r"data\.num_folds = 7: there are only 6 known speakers"):
        assign("kfold", people, num_folds=7)
    with pytest.raises(splits.SplitError, match=r"none is known for toy \(there are some for crema_d, iemocap, msp_"):
        assign("published", people)
    with pytest.raises(splits.SplitError, match=r"split_kind = 'official': choose one of auto, "):
        assign("official", people)
    with pytest.raises(splits.SplitError, match="speaker s0 has two genders"):
        assign("kfold", people_of([("s0", "male", "1", 0), ("s0", "female", "1", 0), ("s1", "male", "1", 0)]))


def test_official_splits_stand_as_they_are_or_raise():
    """S3, S4, S5: the split written is the one asked for; the test sets of one corpus may share speakers."""
    speakers = ["a", "b", "c", "c", "unknown", "unknown"]
    people = People("toy", speakers, ["male"] * 6, ["train", "development", "test1", "test2", "train", "test1"],
                    [None] * 6, np.zeros(6, int))  # fmt: skip
    assert assign("auto", people) == people.official
    with pytest.raises(splits.SplitError, match="speaker c is in the splits development and test"):
        assign("auto", People("toy", speakers, ["male"] * 6, ["train", "train", "development", "test2", "train",
                              "test1"], [None] * 6, np.zeros(6, int)))  # fmt: skip
    with pytest.raises(splits.SplitError, match="1 utterances are in no split"):
        assign("auto", People("toy", ["a", "b"], ["male"] * 2, ["train", ""], [None] * 2, np.zeros(2, int)))


def test_an_official_split_is_set_aside_only_when_another_is_asked_for():
    people = crowd(0, num_speakers=8)
    official = People(people.corpus, people.speakers, people.genders, ["train"] * len(people.speakers),
                      people.sessions, people.classes)  # fmt: skip
    assert assign("auto", official) == official.official
    assert assign("derived_by_class", official) == assign("derived_by_class", people)


SESSIONS = {"iemocap": (5, "45 34 23 12 51"), "msp_improv": (6, "43 32 21 16 65 54")}


@pytest.mark.parametrize("corpus", SESSIONS)
def test_published_folds_of_sessions(corpus):
    num_sessions, pairs = SESSIONS[corpus]
    rows = [(f"{n}{g}", g, str(n), 0) for n in range(1, num_sessions + 1) for g in ("female", "male")]
    people = people_of(rows, corpus)
    for fold, pair in enumerate(pairs.split()):
        assigned = assign("published", people, fold=fold)
        actual = {session + split for session, split in zip(people.sessions, assigned, strict=True) if split != "train"}
        assert actual == {f"{pair[0]}test", f"{pair[1]}development"}
    with pytest.raises(splits.SplitError, match=rf"data\.fold = {num_sessions}: {corpus} has {num_sessions} published"):
        assign("published", people, fold=num_sessions)
    with pytest.raises(splits.SplitError, match=r"1 utterances have a session .*e\.g\. of speaker zoe"):
        assign("published", people_of([*rows, ("zoe", "female", "9", 0)], corpus))
    with pytest.raises(splits.SplitError, match="no utterance is in development"):
        assign("published", people_of([row for row in rows if row[2] != pairs[1]], corpus))


def test_published_folds_of_crema_d():
    """Men and women of each group, and folds, as LABELS.md, section 7, has them."""
    rows = [(str(actor), "male", None, 0) for actor in range(1001, 1092)]
    people = people_of(rows, "crema_d")
    first, sizes, developed = [], [], []
    for fold in range(5):
        assigned = assign("published", people, fold=fold)
        test = [name for name, split in zip(people.speakers, assigned, strict=True) if split == "test"]
        first.append(test[0])
        sizes.append(len(test))
        developed.append(next(n for n, split in zip(people.speakers, assigned, strict=True) if split == "development"))
    assert first == ["1001", "1019", "1037", "1055", "1073"]
    assert sizes == [18, 18, 18, 18, 19]
    assert developed == ["1019", "1037", "1055", "1073", "1001"]
