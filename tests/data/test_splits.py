"""Speakers -> splits: disjoint, balanced, the same whatever the order of rows."""

import collections

import hypothesis
import hypothesis.strategies as st
import pytest

from seremo_jax.data import splits

SHARES = (0.6, 0.2, 0.2)


def people(num_female, num_male, num_unknown=0):
    genders = ["female"] * num_female + ["male"] * num_male + ["unknown"] * num_unknown
    return [f"s{i:03d}" for i in range(len(genders))], genders


def sizes(assignment, speakers, genders):
    gender_of = dict(zip(speakers, genders, strict=True))
    return collections.Counter((split, gender_of[name]) for name, split in assignment.items())


def test_shares_hold_in_each_gender_and_in_all():
    speakers, genders = people(36, 40)
    assignment = splits.derive(speakers, genders, SHARES, 0)
    actual = sizes(assignment, speakers, genders)
    assert actual == {
        ("train", "female"): 22, ("development", "female"): 7, ("test", "female"): 7,
        ("train", "male"): 24, ("development", "male"): 8, ("test", "male"): 8,
    }  # fmt: skip


def test_what_rounding_leaves_over_evens_out_between_genders():
    assignment = splits.derive(*people(12, 12), SHARES, 0)
    assert collections.Counter(assignment.values()) == {"train": 14, "development": 5, "test": 5}
    assignment = splits.derive(*people(12, 8), SHARES, 0)
    assert collections.Counter(assignment.values()) == {"train": 12, "development": 4, "test": 4}


@hypothesis.given(
    st.integers(3, 30), st.integers(3, 30), st.integers(0, 5), st.integers(0, 9), st.randoms(use_true_random=False)
)
def test_every_split_is_within_a_speaker_of_its_share(num_female, num_male, num_unknown, seed, random):
    speakers, genders = people(num_female, num_male, num_unknown)
    assignment = splits.derive(speakers, genders, SHARES, seed)
    actual = sizes(assignment, speakers, genders)
    assert set(assignment) == set(speakers)
    for split, share in zip(splits.DERIVED, SHARES, strict=True):
        for gender, number in (("female", num_female), ("male", num_male)):
            assert actual[split, gender] >= 1
            assert abs(actual[split, gender] - share * number) <= 1 + 1e-9
    rows = list(zip(speakers, genders, strict=True)) * 2
    random.shuffle(rows)
    again = splits.derive([name for name, _ in rows], [gender for _, gender in rows], SHARES, seed)
    assert again == assignment


def test_the_seed_and_nothing_else_changes_the_split():
    speakers, genders = people(20, 20)
    assert splits.derive(speakers, genders, SHARES, 0) == splits.derive(speakers, genders, SHARES, 0)
    assert splits.derive(speakers, genders, SHARES, 0) != splits.derive(speakers, genders, SHARES, 1)


def test_few_speakers_still_fill_every_split():
    for num_female, num_male in ((3, 0), (2, 1), (2, 2), (1, 3)):
        assignment = splits.derive(*people(num_female, num_male), SHARES, 0)
        assert set(assignment.values()) == set(splits.DERIVED)
    with pytest.raises(splits.SplitError, match="at least three"):
        splits.derive(*people(1, 1), SHARES, 0)


def test_unknown_speaker_goes_to_train_and_is_no_person():
    speakers, genders = people(3, 3)
    assignment = splits.derive([*speakers, "unknown", "unknown"], [*genders, "unknown", "male"], SHARES, 0)
    assert assignment["unknown"] == "train"
    with pytest.raises(splits.SplitError, match="at least three"):
        splits.derive(["a", "b", "unknown"], ["male"] * 3, SHARES, 0)


def test_one_speaker_has_one_gender():
    with pytest.raises(splits.SplitError, match="speaker s000 has two genders, female and male"):
        splits.derive(["s000", "s000", "s001", "s002"], ["female", "male", "male", "male"], SHARES, 0)


def test_a_draw_is_balanced_and_repeatable():
    speakers, genders = people(36, 40, 4)
    drawn = splits.draw(speakers, genders, [""] * 80, 24, 0)
    gender_of = dict(zip(speakers, genders, strict=True))
    assert collections.Counter(gender_of[name] for name in drawn) == {"female": 12, "male": 12}
    assert drawn == splits.draw(speakers[::-1], genders[::-1], [""] * 80, 24, 0)
    assert drawn != splits.draw(speakers, genders, [""] * 80, 24, 1)
    assert splits.draw(speakers, genders, [""] * 80, 80, 0) == set(speakers)
    assert splits.draw([*speakers, "unknown"], [*genders, "male"], [""] * 81, 99, 0) == set(speakers)


@pytest.mark.parametrize("num_speakers", [3, 4, 7, 10, 19])
def test_a_draw_keeps_the_official_splits(num_speakers):
    speakers, genders = people(10, 10)
    official = (["train"] * 6 + ["development"] * 2 + ["test"] * 2) * 2
    drawn = splits.draw(speakers, genders, official, num_speakers, 3)
    split_of = dict(zip(speakers, official, strict=True))
    actual = collections.Counter(split_of[name] for name in drawn)
    assert len(drawn) == num_speakers
    assert set(actual) == {"train", "development", "test"}
    assert abs(actual["train"] - 0.6 * num_speakers) <= 1


def test_a_draw_too_small_for_the_splits_is_an_error():
    with pytest.raises(splits.SplitError, match=r"data\.max_speakers = 2"):
        splits.draw(*people(3, 3), ["train", "development", "test"] * 2, 2, 0)


def test_a_speaker_in_two_splits_is_named():
    with pytest.raises(splits.SplitError, match="speaker b is in the splits test and train"):
        splits.require_disjoint(["a", "b", "b"], ["train", "train", "test"])
    with pytest.raises(splits.SplitError, match="development and train"):
        splits.require_disjoint(["b", "b"], ["train", "development"])
    splits.require_disjoint(["a", "b", "b", "unknown", "unknown"], ["train", "test1", "test2", "train", "test1"])


def test_dealing_is_even_and_knows_names_only():
    names = [f"s{i}" for i in range(23)]
    dealt = splits.deal(names, 5, "a")
    assert sorted(collections.Counter(dealt.values()).values()) == [4, 4, 5, 5, 5]
    assert splits.deal(names[::-1] + names, 5, "a") == dealt
    assert splits.deal(names, 5, "b") != dealt
    assert splits.deal(["x", "y"], 5, "a").keys() == {"x", "y"}
