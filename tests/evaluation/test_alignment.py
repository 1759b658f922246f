import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from seremo_jax.core.schema import Predictions
from seremo_jax.data.targets import Targets, plurality, vote_distribution
from seremo_jax.evaluation.alignment import AlignmentError, align

NUM_CLASSES = 3


def make_targets(ids) -> Targets:
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 4, (len(ids), NUM_CLASSES)).astype(np.int32)
    index, consensus, _ = plurality(votes, np.zeros(len(ids), np.int32))
    attributes = rng.normal(size=(len(ids), 1)).astype(np.float32)
    distribution, has_votes = vote_distribution(votes)
    has_attribute = np.arange(len(ids))[:, None] % 5 > 0
    return Targets(
        np.asarray(ids, object), votes, distribution, has_votes, index, consensus, consensus.sum(1) > 0, attributes,
        has_attribute, 0 * attributes, has_attribute, ("a", "b", "c"), ("valence",), {}, {},
    )  # fmt: skip


@pytest.fixture
def parts():
    """Predictions of the test split in an order of their own, targets, and a table with another split, too."""
    rng = np.random.default_rng(1)
    ids = [f"u{i}" for i in range(12)]
    table = pa.table({
        "id": ids,
        "corpus": ["x"] * 12,
        "split": ["test"] * 8 + ["train"] * 4,
        "speaker": ["s2", "s2", "s1", "unknown", "s1", "unknown", "s3", "s3", "t", "t", "t", "t"],
        "gender": ["male", "male", "female", "unknown", "female", "male", "male", "male", *["female"] * 4],
        "part": [*"abababa", None, *"aaaa"],
    })  # fmt: skip
    order = rng.permutation(8)
    q = rng.dirichlet(np.ones(NUM_CLASSES), (2, 8)).astype(np.float32)
    attributes = rng.normal(size=(2, 8, 1)).astype(np.float32)
    predictions = Predictions([ids[i] for i in order], attributes[:, order], q[:, order])
    return predictions, make_targets(ids), table


def joined(parts, **changes):
    return align(*parts, **{"num_members": 2, "split": "test", "group_by": "gender"} | changes)


def test_everything_is_joined_by_id(parts):
    predictions, targets, table = parts
    shuffle = np.random.default_rng(2).permutation(12)
    rows = {field.name: getattr(targets, field.name) for field in dataclasses.fields(targets)}
    rows = {name: rows[name][shuffle] for name, value in rows.items() if isinstance(value, np.ndarray)}
    shuffled = (predictions, dataclasses.replace(targets, **rows), table.take(shuffle[::-1]))
    for result in (joined(parts), joined(shuffled)):
        for row in range(8):
            place = predictions.utterances.index(f"u{row}")
            np.testing.assert_array_equal(result.predictions_distribution[:, row], predictions.distribution[:, place])
            np.testing.assert_array_equal(result.predictions_attributes[:, row], predictions.attributes[:, place])
        for name in ("distribution", "attributes", "has_attribute", "has_votes"):
            np.testing.assert_array_equal(getattr(result, name), getattr(targets, name)[:8])
        np.testing.assert_array_equal(result.consensus, targets.consensus_index[:8])
        assert result.unit.tolist() == [1, 1, 0, 3, 0, 4, 2, 2]


def test_units_are_persons_and_single_utterances_of_unknown_speakers(parts):
    result = joined(parts)
    assert result.speakers == ("s1", "s2", "s3", "", "")
    assert result.genders == ("female", "male", "male", "unknown", "male")
    assert result.is_known.tolist() == [True, True, True, False, False]
    table = parts[2].set_column(1, "corpus", pa.array([*"xyyyxyxx", *"xxxx"]))
    result = joined((*parts[:2], table))
    assert result.speakers == ("x/s1", "x/s2", "x/s3", "y/s1", "y/s2", "", "")


def test_groups_come_in_order_and_hold_everyone(parts):
    result = joined(parts)
    assert list(result.groups) == ["all", "female", "male", "unknown"]
    assert result.groups["male"].tolist() == [True, True, False, False, False, True, True, True]
    assert result.groups["all"].all()
    assert list(joined(parts, group_by="part").groups) == ["all", "unknown", "a", "b"]
    assert list(joined(parts, group_by="").groups) == ["all"]


def test_support_and_numbers_equal_a_plain_loop(parts):
    result = joined(parts)
    for is_in in result.groups.values():
        support = np.zeros((5, NUM_CLASSES), int)
        for unit, y, inside in zip(result.unit, result.consensus, is_in, strict=True):
            support[unit, y] += inside and y >= 0
        np.testing.assert_array_equal(result.support(is_in), support)
        num_speakers = (support[:3].sum(axis=1) > 0).sum()
        assert result.numbers(is_in) == {
            "num_utterances": is_in.sum(), "num_scored": support.sum(), "num_speakers": num_speakers
        }  # fmt: skip
        np.testing.assert_array_equal(result.eligible(is_in)[:, 0], (support.sum(axis=1) > 0) & result.is_known)
        assert not result.eligible(is_in)[:, 1].any()


def changed(predictions, name, place, value):
    values = getattr(predictions, name).copy()
    values[place] = value
    return predictions._replace(**{name: values})


def test_what_does_not_belong_together_is_refused(parts):
    predictions, targets, table = parts
    twice = predictions._replace(utterances=[predictions.utterances[0], *predictions.utterances[:-1]])
    fewer = Predictions(predictions.utterances[1:], predictions.attributes[:, 1:], predictions.distribution[:, 1:])
    renamed = predictions._replace(utterances=["new", *predictions.utterances[1:]])
    nothing = Predictions([], predictions.attributes[:, :0], predictions.distribution[:, :0])
    for wrong, message in (
        (twice, "1 utterances occur twice"),
        (fewer, f"lack 1 utterances of split 'test' \\({predictions.utterances[0]}\\)"),
        (
            renamed._replace(utterances=[*predictions.utterances, "new"]),
            r"1 predicted .* not in split 'test' .*\(new\)",
        ),
        (nothing, "no utterance; choose another of eval.splits"),
        (predictions._replace(attributes=predictions.attributes[:1]), r"attributes has shape \(1, 8, 1\); 2 members"),
        (predictions._replace(distribution=predictions.distribution[..., :2]), r"distribution has shape \(2, 8, 2\)"),
        (changed(predictions, "distribution", (1, 3), np.nan), "member 1 has shares that do not sum to 1, for 1"),
        (changed(predictions, "distribution", (1, 3, 0), 2.0), "member 1 has shares"),
        (changed(predictions, "distribution", (0, 3), (1.5, -0.5, 0)), "member 0 has shares"),
        (changed(predictions, "attributes", (1,), np.nan), "member 1 has attributes that are not finite, for 6"),
    ):
        with pytest.raises(AlignmentError, match=message):
            joined((wrong, targets, table))
    with pytest.raises(AlignmentError, match=r"targets lack 8 predicted utterances \(u0, u1, u2 \.\.\.\)"):
        joined((predictions, make_targets([f"v{i}" for i in range(12)]), table))
    with pytest.raises(AlignmentError, match="no column accent"):
        joined(parts, group_by="accent")


def test_attributes_that_nobody_rated_may_hold_anything(parts):
    predictions, targets, table = parts
    place = (slice(None), [predictions.utterances.index(name) for name in ("u0", "u5")])
    joined((changed(predictions, "attributes", place, np.nan), targets, table))
